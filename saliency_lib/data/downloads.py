"""Data sets that are downloaded into data/ on request, and ImageNet, which must be put there."""

import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from saliency_lib import paths
from saliency_lib.data.classes import DIGITS, WORDNET_IDS
from saliency_lib.data.folders import class_names, folder_split, train_or_test
from saliency_lib.data.splits import array_split, imagenet_crop, stretch
from saliency_lib.data.table import DATASETS, TRAIN_AND_TEST, Split

ABANDONED = 24 * 3600.0  # seconds after which a download is one that was killed


def _missing(name: str, remedy: str = "", why: object = "") -> FileNotFoundError:
    folder = paths.relative(paths.DATA / name)
    remedy = remedy or (
        f"""download it with `python -c "import saliency_lib as sl; sl.DATASETS['{name}'](download=True)"`, """
        f"or put a folder of class folders at {folder}/{{train,test}}/<class>/*"
    )
    failure = f" and could not be downloaded ({' '.join(str(why).split())})" if why else ""
    return FileNotFoundError(
        f"{name} is not in {folder}/{failure}; {remedy}; or use mnist5k, shapes or photos, which need no download"
    )


def _download(name: str, download_into: Callable[[str], object]) -> None:
    """Download to a temporary folder and move the result into data/, so that a failed download leaves nothing.

    Raises:
        FileNotFoundError: the download failed.
    """
    for left in paths.made(paths.DATA).glob(".download-*"):
        if time.time() - left.stat().st_mtime > ABANDONED:
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=paths.DATA, prefix=".download-") as folder:
        try:
            download_into(folder)
        except (OSError, RuntimeError) as error:
            raise _missing(name, why=error) from error
        for part in filter(Path.is_dir, Path(folder).iterdir()):
            shutil.rmtree(paths.DATA / part.name, ignore_errors=True)  # one that is there is incomplete
            part.rename(paths.DATA / part.name)


def _has_class_folders(folder: Path) -> bool:
    return any(class_names(folder / part) for part in TRAIN_AND_TEST)


def _torchvision(name: str, kind: str, split: str, download: bool, channels: int, classes: Sequence[str] = ()) -> Split:
    """Return a split of torchvision's data set of a kind; a folder of class folders of that name is used instead if it exists."""
    if _has_class_folders(paths.DATA / name):
        return train_or_test(name, paths.DATA / name, split, channels=channels)
    import torchvision.datasets  # here, since importing it takes seconds

    dataset, train = getattr(torchvision.datasets, kind), split == "train"
    try:
        whole = dataset(paths.DATA, train=train)
    except RuntimeError:  # torchvision's "not found or corrupted"
        if not download:
            raise _missing(name) from None
        _download(name, lambda folder: dataset(folder, train=train, download=True))
        whole = dataset(paths.DATA, train=train)
    folder = paths.DATA / getattr(whole, "base_folder", Path(kind, "raw"))  # where torchvision unpacks them
    sources = sorted(filter(Path.is_file, folder.iterdir())) if folder.is_dir() else None
    return array_split(np.asarray(whole.data), whole.targets, classes or whole.classes, sources)


@DATASETS.register(shape=(1, 28))
def mnist(split: str, download: bool) -> Split:
    """Load MNIST: 60,000 training and 10,000 test images of grey digits, 28x28. Source: LeCun et al. 1998."""
    return _torchvision("mnist", "MNIST", split, download, 1, DIGITS)


@DATASETS.register(shape=(1, 28))
def fashion_mnist(split: str, download: bool) -> Split:
    """Load Fashion-MNIST: 60,000 training and 10,000 test images of grey garments, 28x28. Source: Xiao et al. 2017."""
    return _torchvision("fashion_mnist", "FashionMNIST", split, download, 1)


@DATASETS.register(shape=(3, 32))
def cifar10(split: str, download: bool) -> Split:
    """Load CIFAR-10: 50,000 training and 10,000 test images in colour, 32x32. Source: Krizhevsky 2009."""
    return _torchvision("cifar10", "CIFAR10", split, download, 3)


@DATASETS.register(shape=(3, 32))
def cifar100(split: str, download: bool) -> Split:
    """Load CIFAR-100: 50,000 training and 10,000 test images in colour, 32x32. Source: Krizhevsky 2009."""
    return _torchvision("cifar100", "CIFAR100", split, download, 3)


@DATASETS.register(shape=(3, 224))
def imagenette(split: str, download: bool) -> Split:
    """Load Imagenette (full size): ten easy ImageNet classes, labels 0 to 9, stretched to a square as in PAG.

    Source: Howard 2019; Llorente et al. 2023 for the resizing.
    Differs: PAG stores the resized images as JPEG and drops grey ones; here neither is done.
    """
    folder, parts = paths.DATA / "imagenette", TRAIN_AND_TEST
    if not _has_class_folders(folder):
        folder, parts = paths.DATA / "imagenette2", ("train", "val")
        if not class_names(folder / "val"):
            if not download:
                raise _missing("imagenette")
            import torchvision.datasets

            _download("imagenette", lambda into: torchvision.datasets.Imagenette(into, download=True))
    return train_or_test("imagenette", folder, split, parts, resize=stretch)


@DATASETS.register(shape=(3, 224), imagenet=True)
def imagenet(split: str, download: bool) -> Split:
    """Load ImageNet 2012 from class folders: `data/imagenet/val` is the test split, `data/imagenet/train` the other.

    The shorter side is resized to 256/224 of the size (bilinear), and the centre is cropped. Images are in the order of the
    file names, which for the validation images is the official one.

    Source: Russakovsky et al. 2015.
    Differs: pictures are turned as their EXIF orientation says, which torchvision's loader does not do.
    """
    folder = paths.DATA / "imagenet" / {"train": "train", "test": "val"}[split]
    remedy = f"get it from https://image-net.org/download and unpack it to {paths.relative(folder)}/<WordNet id>/*.JPEG"
    absent = _missing("imagenet", remedy)
    return folder_split(folder, WORDNET_IDS, absent, resize=imagenet_crop, order=lambda file: file.name)


@DATASETS.register(splits=("test",), shape=(3, 224), imagenet=True)
def imagenet_samples(split: str, download: bool) -> Split:
    """Load a few hundred ImageNet images, one per class and ordered by class, cropped as those of `imagenet`.

    Source: the public repository EliSchwartz/imagenet-sample-images.
    """
    folder = paths.DATA / "imagenet_samples"
    absent = _missing("imagenet_samples", f"put that repository's images at {paths.relative(folder)}/<WordNet id>/*.jpg")
    return folder_split(folder, WORDNET_IDS, absent, resize=imagenet_crop, order=lambda file: (file.parent.name, file.name))
