"""Folders of class folders: `<class>/*.jpg` under data/<name>/train and data/<name>/test."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from saliency_lib import paths
from saliency_lib.data.albums import CLASSES, Album
from saliency_lib.data.classes import readable
from saliency_lib.data.masks import MASKS
from saliency_lib.data.splits import Resize, crop, file_split
from saliency_lib.data.table import TRAIN_AND_TEST, Dataset, Split
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
    return file_split(files, [rank[file.parent.name] for file in files], readable(classes), channels, resize)


def check_classes(folder: Path, first: Path, second: Path) -> None:
    """Check that two folders of class folders, if both have some, have the same classes.

    Raises:
        ValueError: they do not.
    """
    classes, others = class_names(first), class_names(second)
    if classes and others and classes != others:
        odd = sorted(set(classes) ^ set(others))
        raise ValueError(
            f"{paths.relative(folder)}: {first.name} and {second.name} must have the same classes; {odd} are in only one of them"
        )


def train_or_test(
    name: str, folder: Path, split: str, parts: tuple[str, str] = TRAIN_AND_TEST, *, channels: int = 3, resize: Resize = crop
) -> Split:
    """Return a split of a data set that has class folders for train and test, in the folders `parts`.

    Raises:
        ValueError: train and test do not have the same classes.
        FileNotFoundError: the split has no images.
    """
    here = folder / (parts[0] if split == "train" else parts[1])
    check_classes(folder, *(folder / part for part in parts))
    files = f"{paths.relative(here)}/<class>/*.jpg (or .png, ...)"
    absent = FileNotFoundError(f"{name} has no {split} images; put them at {files}")
    return folder_split(here, class_names(here), absent, channels=channels, resize=resize)


def class_album(root: Path, folders: Mapping[str, Path], *, imagenet: bool = False) -> Album | None:
    """Return the album of class folders, in a mixed order; None if no split has pictures.

    Args:
        root: the folder that may have classes.txt and masks.
        folders: per split the folder of its class folders.
        imagenet: see `Album`.

    Raises:
        ValueError: two splits do not have the same classes.
    """
    found = {split: _in_classes(folder, root) for split, folder in folders.items()}
    parts = {split: sorted(files, key=mixed) for split, files in found.items() if files}
    if not parts:
        return None
    if not (root / CLASSES).is_file():
        for first, second in combinations(folders.values(), 2):
            check_classes(root, first, second)
    kinds = {file: file.parent.name for files in parts.values() for file in files}
    classes = sorted({name for split in parts for name in class_names(folders[split]) if folders[split] / name != root / MASKS})
    return Album(root, parts, kinds, classes, imagenet=imagenet, first=found[next(iter(parts))][0])


def _in_classes(folder: Path, root: Path) -> list[Path]:
    return [file for file in class_files(folder) if file.parent != root / MASKS]


def class_folders(name: str) -> Dataset | None:
    """Return the data set of the folder `data/<name>/{train,test}/<class>/*`, or None if there is no such folder.

    Classes are the names of the folders, sorted, or those of `data/<name>/classes.txt` in its order; images are in a fixed mixed
    order. `data/<name>/masks/` may have a mask for each, see `masks_of`. See `Album.entry` for the size of the images. A folder
    with train.jsonl and documents is one of texts.

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
    album = class_album(folder, {split: folder / split for split in TRAIN_AND_TEST})
    if not album:
        raise ValueError(
            f"{paths.relative(folder)}/ is not a data set: it needs images at {{train,test}}/<class>/*, or ERASER's files; name "
            f"pictures without classes by a reference, folder:{name}"
        )
    return album.entry(name, f"Load the folder of class folders data/{name}/.")
