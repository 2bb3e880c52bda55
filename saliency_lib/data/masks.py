"""Masks of the objects of pictures: PNG files beside the pictures that are not zero on the object."""

import inspect
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from saliency_lib import paths
from saliency_lib.data.pictures import opened

MASKS = "masks"  # the folder of masks, beside the pictures or the folders of them


def _some(files: Iterable[Path]) -> str:
    """Return the first of several files for a message, and how many there are."""
    found = sorted(map(paths.relative, files))
    return ", ".join(found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "")


def masks_of(root: Path, files: Sequence[Path], every: Iterable[Path], *, whole: bool = True) -> list[Path] | None:
    """Return the mask of each of some pictures, or None if none of them has one.

    The mask of `<root>/test/cat/tom.jpg` is `<root>/masks/test/cat/tom.png` or `<root>/masks/tom.png`.

    Args:
        root: the folder that has the folder of masks.
        files: the pictures of a split.
        every: the pictures of all splits.
        whole: whether each mask must be that of one of these pictures.

    Raises:
        ValueError: some of the pictures have a mask and others have none, a mask fits no picture or more than one, a picture
            has two masks, or a mask is no PNG.
    """
    folder = root / MASKS
    masks = sorted(file for file in folder.rglob("*") if not file.is_dir() and not file.name.startswith("."))
    if other := [file for file in masks if file.suffix.lower() != ".png"]:
        raise ValueError(f"masks must be PNG files, which keep every pixel; {_some(other)} is none; save it as PNG, or remove it")
    by_name = {file.relative_to(folder).with_suffix(""): file for file in masks}
    found: dict[Path, Path] = {}
    owners: dict[Path, list[Path]] = defaultdict(list)
    for file in dict.fromkeys(every):
        names = {Path(file.stem), *([file.relative_to(root).with_suffix("")] if file.is_relative_to(root) else [])}
        own = [by_name[name] for name in sorted(names) if name in by_name]
        if len(own) > 1:
            raise ValueError(f"{paths.relative(file)} has two masks, {_some(own)}; remove one")
        for mask in own:
            found[file] = mask
            owners[mask].append(file)
    for mask, several in owners.items():
        if len(several) > 1:
            raise ValueError(
                f"mask {paths.relative(mask)} fits {len(several)} pictures, {_some(several)}; put each mask at {MASKS}/ with the "
                "path that its picture has, and give pictures of one folder different names"
            )
    if whole and (strange := set(masks) - set(owners)):
        raise ValueError(f"masks that fit no picture: {_some(strange)}; give each the name of its picture, or remove it")
    if not any(file in found for file in files):
        return None
    if absent := [file for file in files if file not in found]:
        raise ValueError(
            f"pictures without a mask: {_some(absent)}; put a PNG for each into {paths.relative(folder)}/, or remove all masks"
        )
    return [found[file] for file in files]


def read_mask(file: Path, size: tuple[int, int], side: int, resize: Callable[..., Any]) -> np.ndarray:
    """Return a mask (side, side), true on the object, resized and cropped as its picture is, by nearest neighbours.

    Args:
        size: width and height of the picture.
        resize: what brings the picture to `side`; it takes an option `interpolation`.

    Raises:
        ValueError: the mask has another size, or no pixel of it is on the object, or only pixels that are cropped.
    """
    name = paths.relative(file)
    if "interpolation" not in inspect.signature(resize).parameters:
        raise ValueError(
            f"the picture of {name} has a mask, so resize must take an option interpolation, which is 'nearest' for it"
        )
    with opened(file) as mask:
        if mask.size != size:
            raise ValueError(
                f"mask {name} has {mask.size[0]} x {mask.size[1]} pixels, and its picture has {size[0]} x {size[1]} as it is "
                "seen; make them equal"
            )
        values = np.asarray(mask).reshape(size[1], size[0], -1)
        if mask.mode in ("LA", "RGBA"):  # a transparent pixel is not on the object, whatever its colour
            values = values[..., :-1] * (values[..., -1:] > 0)
    on = (values != 0).any(2)
    if not on.any():
        raise ValueError(
            f"mask {name} is empty: all its pixels are 0; make them other than 0 on the object, or leave the picture out"
        )
    fitted = np.asarray(resize(Image.fromarray(on.astype(np.uint8) * 255), side, interpolation="nearest")) > 0
    if not fitted.any():
        raise ValueError(f"mask {name} is empty after its picture is cropped to {side} x {side} pixels; leave the picture out")
    return fitted
