"""Splits of arrays in memory and of image files."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from saliency_lib.data.masks import read_mask
from saliency_lib.data.pictures import opened, seen
from saliency_lib.data.table import Split

THREADS = 8  # PIL releases the interpreter while it decodes
Resize = Callable[[Image.Image, int], Image.Image]  # brings a picture to a square of the given side


def as_pixels(raw: np.ndarray) -> Tensor:
    """Return uint8 values as float32 in [0, 1]."""
    return torch.from_numpy(raw).float().div_(255)


def array_split(raw: np.ndarray, labels: Iterable[int], classes: Sequence[str], sources: Sequence[Path] | None = None) -> Split:
    """Return a split of uint8 arrays (N, H, W) or (N, H, W, C), which are resized bilinearly with antialiasing.

    Args:
        sources: the files that the arrays were read from, see `Split`.
    """
    raw = raw[:, None] if raw.ndim == 3 else raw.transpose(0, 3, 1, 2)
    every_label = torch.as_tensor(labels, dtype=torch.int64)

    def read(chosen: range, side: int) -> dict[str, Any]:
        part = slice(chosen.start, chosen.stop, chosen.step)
        images = as_pixels(np.ascontiguousarray(raw[part]))
        if side != images.shape[-1]:
            images = F.interpolate(images, size=(side, side), mode="bilinear", antialias=True).clamp_(0, 1)
        return {"images": images, "labels": every_label[part]}

    return Split(len(raw), tuple(classes), read, sources)


def decoded(
    opened_at: Callable[[int], AbstractContextManager[Image.Image]],
    count: int,
    channels: int,
    side: int,
    resize: Resize,
    masks: Sequence[Path] | None = None,
) -> dict[str, Tensor]:
    """Return the images of pictures, which several threads decode, and their masks if there are any.

    Args:
        opened_at: opens the picture at a position.
        masks: the file of the mask of each.
    """
    raw = np.empty((count, channels, side, side), np.uint8)
    on = np.empty((count if masks else 0, side, side), bool)

    def decode(thread: int) -> None:
        for row in range(thread, count, THREADS):
            with opened_at(row) as picture:
                whole = seen(picture).convert("L" if channels == 1 else "RGB")
            raw[row] = np.asarray(resize(whole, side)).reshape(side, side, channels).transpose(2, 0, 1)
            if masks:
                on[row] = read_mask(masks[row], whole.size, side, resize)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(decode, range(THREADS)))
    return {"images": as_pixels(raw)} | ({"masks": torch.from_numpy(on)} if masks else {})


def file_split(
    files: Sequence[Path],
    labels: Sequence[int],
    classes: Sequence[str],
    channels: int,
    resize: Resize,
    names: Sequence[str] | None = None,
    masks: Sequence[Path] | None = None,
    sources: Sequence[Path] = (),
) -> Split:
    """Return a split of image files; their names are those of the files if none are given.

    `read` takes another `resize` as an option.

    Args:
        masks: the file of the mask of each picture.
        sources: further files that determine the split, see `Split`.
    """
    every_name = names or [file.stem for file in files]

    def read(chosen: range, side: int, resize: Resize = resize) -> dict[str, Any]:
        own = [masks[i] for i in chosen] if masks else None
        return {
            **decoded(lambda row: opened(files[chosen[row]]), len(chosen), channels, side, resize, own),
            "labels": torch.tensor([labels[i] for i in chosen]),
            "names": tuple(every_name[i] for i in chosen),
        }

    return Split(len(files), tuple(classes), read, [*files, *(masks or ()), *sources])


def crop(
    picture: Image.Image,
    side: int,
    border: float = 1.0,
    interpolation: str = "bilinear",
    stretched: bool = False,
) -> Image.Image:
    """Resize the shorter side to `side * border`, or both sides if the picture is stretched, and crop the centre.

    Args:
        interpolation: `bilinear` or `bicubic`, antialiased; `nearest` for a mask.
    """
    from torchvision.transforms import InterpolationMode, functional  # here, since importing it takes seconds

    size = [round(side * border)] * (2 if stretched else 1)
    return functional.center_crop(functional.resize(picture, size, InterpolationMode(interpolation)), [side])


def stretch(picture: Image.Image, side: int, interpolation: str = "bilinear") -> Image.Image:
    """Resize to a square, whatever the picture's proportions."""
    return crop(picture, side, 1.0, interpolation, stretched=True)


imagenet_crop = partial(crop, border=256 / 224)  # as ImageNet's networks are evaluated
