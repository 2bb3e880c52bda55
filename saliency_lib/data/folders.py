"""Folders of class folders: `<class>/*.jpg` under data/<name>/train and data/<name>/test."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from saliency_lib import paths
from saliency_lib.data.classes import WORDNET_IDS, imagenet_classes
from saliency_lib.data.pictures import is_grey, opened
from saliency_lib.data.splits import Resize, crop, file_split
from saliency_lib.data.table import DATASETS, TRAIN_AND_TEST, Dataset, Split
from saliency_lib.data.texts import eraser_folder, is_eraser

LONGEST = 255  # bytes of the name of a folder
SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm"}


def _entries(folder: Path) -> list[Path]:
    """Return what a folder has, sorted, without what is hidden; nothing if there is no such folder.

    Raises:
        ValueError: the folder is a link that leads nowhere, or has a name that is not valid UTF-8.
    """
    check_link(folder)
    found = sorted(entry for entry in folder.iterdir() if not entry.name.startswith(".")) if folder.is_dir() else []
    for entry in found:
        if not is_text(entry.name):
            raise ValueError(f"{paths.relative(folder)}/: the name {entry.name!a} is not valid UTF-8; rename it")
    return found


def check_link(place: Path) -> None:
    """Check that a place is not a link that leads nowhere, for instance to itself.

    Raises:
        ValueError: it is.
    """
    if place.is_symlink() and not place.exists():
        raise ValueError(f"{paths.relative(place)} is a link that leads nowhere; remove it")


def is_text(name: str) -> bool:
    """Return whether the name of a file is valid UTF-8."""
    return not any("\udc80" <= letter <= "\udcff" for letter in name)


def class_names(folder: Path) -> list[str]:
    """Return the names of the class folders, sorted; none if there is no such folder."""
    entries = _entries(folder)
    for entry in entries:
        check_link(entry)
    return [entry.name for entry in entries if entry.is_dir()]


def class_files(folder: Path) -> list[Path]:
    """Return the image files of all class folders, sorted by class and name."""
    files = (file for name in class_names(folder) for file in _entries(folder / name))
    return [file for file in files if file.suffix.lower() in SUFFIXES]


def mixed(file: Path) -> str:
    """Return a sort key that mixes the classes, so that any `stop` and `stride` include all; the same on every machine."""
    return hashlib.sha256(f"{file.parent.name}/{file.name}".encode()).hexdigest()


def folder_split(
    folder: Path,
    classes: Sequence[str],
    absent: Exception,
    *,
    channels: int = 3,
    resize: Resize = crop,
    order: Callable[[Path], Any] = mixed,
) -> Split:
    """Return a split of class folders, some of which may be missing; a label is the rank of the folder's name in `classes`.

    Raises:
        ValueError: a folder is not among the classes.
        absent: there is no image.
    """
    if strange := sorted(set(class_names(folder)) - set(classes)):
        raise ValueError(
            f"{paths.relative(folder)} has the folders {strange[:5]}, which are none of the {len(classes)} classes; remove them"
        )
    files = sorted(class_files(folder), key=order)
    if not files:
        raise absent
    rank = {name: label for label, name in enumerate(classes)}
    if set(classes) <= set(WORDNET_IDS):
        known = dict(zip(WORDNET_IDS, imagenet_classes(), strict=True))
        classes = [known[name] for name in classes]
    return file_split(files, [rank[file.parent.name] for file in files], classes, channels, resize)


def train_or_test(
    name: str, folder: Path, split: str, parts: tuple[str, str] = TRAIN_AND_TEST, *, channels: int = 3, resize: Resize = crop
) -> Split:
    """Return a split of a data set that has class folders for train and test, in the folders `parts`.

    Raises:
        ValueError: train and test do not have the same classes.
        FileNotFoundError: the split has no images.
    """
    here, other = (folder / part for part in (parts if split == "train" else parts[::-1]))
    classes, others = class_names(here), class_names(other)
    if classes and others and classes != others:
        odd = sorted(set(classes) ^ set(others))
        raise ValueError(
            f"{paths.relative(folder)}: {' and '.join(parts)} must have the same classes; {odd} are in only one of them"
        )
    files = f"{paths.relative(here)}/<class>/*.jpg (or .png, ...)"
    absent = FileNotFoundError(f"{name} has no {split} images; put them at {files}")
    return folder_split(here, classes, absent, channels=channels, resize=resize)


@DATASETS.fallback
def class_folders(name: str) -> Dataset | None:
    """Return the data set of the folder `data/<name>/{train,test}/<class>/*`, or None if there is no such folder.

    Classes are the names of the folders, sorted; images are in a fixed mixed order. The data set is grey if the first picture
    is, else colour. Its side is that of the first picture if that is square and smaller than 224, else 224; for a picture of
    another size the shorter side is resized and the centre is cropped. A folder with train.jsonl and documents is one of texts.

    Raises:
        ValueError: the name is not that of a folder in data/, or the folder has another layout.
    """
    if name in ("", "..") or Path(name).name != name:
        raise ValueError(f"dataset {name!r} does not name something inside {paths.relative(paths.DATA)}/; use a plain name")
    if not is_text(name):
        raise ValueError(f"dataset {name!a} is not valid UTF-8; rename it")
    folder = paths.DATA / name
    if len(name.encode()) > LONGEST:
        return None
    check_link(folder)
    if not folder.is_dir():
        return None
    if is_eraser(folder):
        return eraser_folder(name, folder)
    splits = tuple(split for split in TRAIN_AND_TEST if class_files(folder / split))
    if not splits:
        raise ValueError(
            f"{paths.relative(folder)}/ is not a data set: it needs images at {{train,test}}/<class>/*, or ERASER's files"
        )
    with opened(class_files(folder / splits[0])[0]) as picture:
        (width, height), channels = picture.size, 1 if is_grey(picture) else 3

    def load(split: str, download: bool) -> Split:
        return train_or_test(name, folder, split, channels=channels)

    load.__doc__ = f"Load the folder of class folders data/{name}/."
    return DATASETS.entry(load, name, splits=splits, shape=(channels, width if width == height < 224 else 224))
