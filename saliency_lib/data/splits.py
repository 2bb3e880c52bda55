"""Splits of arrays in memory and of image files."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

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


def file_split(
    files: Sequence[Path],
    labels: Sequence[int],
    classes: Sequence[str],
    channels: int,
    resize: Resize,
    names: Sequence[str] | None = None,
) -> Split:
    """Return a split of image files, which several threads decode; their names are those of the files if none are given.

    `read` takes another `resize` as an option.
    """
    every_name = names or [file.stem for file in files]

    def read(chosen: range, side: int, resize: Resize = resize) -> dict[str, Any]:
        raw = np.empty((len(chosen), channels, side, side), np.uint8)

        def decode(thread: int) -> None:
            for row in range(thread, len(chosen), THREADS):
                with opened(files[chosen[row]]) as picture:
                    resized = resize(seen(picture).convert("L" if channels == 1 else "RGB"), side)
                    raw[row] = np.asarray(resized).reshape(side, side, channels).transpose(2, 0, 1)

        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(decode, range(THREADS)))
        return {
            "images": as_pixels(raw),
            "labels": torch.tensor([labels[i] for i in chosen]),
            "names": tuple(every_name[i] for i in chosen),
        }

    return Split(len(files), tuple(classes), read, files)


def crop(
    picture: Image.Image,
    side: int,
    border: float = 1.0,
    interpolation: str = "bilinear",
    stretched: bool = False,
) -> Image.Image:
    """Resize the shorter side to `side * border`, or both sides if the picture is stretched, and crop the centre.

    Args:
        interpolation: `bilinear` or `bicubic`, antialiased.
    """
    from torchvision.transforms import InterpolationMode, functional  # here, since importing it takes seconds

    size = [round(side * border)] * (2 if stretched else 1)
    return functional.center_crop(functional.resize(picture, size, InterpolationMode(interpolation)), [side])


def stretch(picture: Image.Image, side: int) -> Image.Image:
    """Resize to a square, whatever the picture's proportions."""
    from torchvision.transforms import functional  # here, since importing it takes seconds

    return functional.resize(picture, [side, side])


imagenet_crop = partial(crop, border=256 / 224)  # as ImageNet's networks are evaluated
