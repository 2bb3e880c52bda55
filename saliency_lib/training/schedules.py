"""How weights are updated: optimisers, schedules of the learning rate; the images, kept as bytes, and their augmentations."""

import functools
import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from saliency_lib.core.streams import sent

PIECE = 1000  # images that are looked at at once

OPTIMISERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "sgd": torch.optim.SGD,
    "nesterov": functools.partial(torch.optim.SGD, nesterov=True),
    "adadelta": torch.optim.Adadelta,
}


def one_cycle(progress: float, rise: float = 0.3) -> float:
    """Return the rate of a cosine that rises from 0.04 to 1 in the first `rise` of the steps, and then falls to 0."""
    if progress < rise:
        return 0.04 + 0.96 * (1 - math.cos(math.pi * progress / rise)) / 2
    return (1 + math.cos(math.pi * (progress - rise) / (1 - rise))) / 2


def triangle(progress: float, start: float = 0.2, peak: float = 0.23, end: float = 0.07) -> float:
    """Return the rate of two lines: from `start` to 1 in the first `peak` of the steps, and then to `end`."""
    return start + (1 - start) * progress / peak if progress < peak else 1 - (1 - end) * (progress - peak) / (1 - peak)


# The learning rate as a multiple of the recipe's, from the step, the number of steps, the epoch and the milestones.
SCHEDULES: dict[str, Callable[[int, int, int, Sequence[int]], float]] = {
    "constant": lambda step, steps, epoch, milestones: 1.0,
    "cosine": lambda step, steps, epoch, milestones: (1 + math.cos(math.pi * (step / steps))) / 2,
    "triangle": lambda step, steps, epoch, milestones: triangle(step / steps),
    "one_cycle": lambda step, steps, epoch, milestones: one_cycle(step / steps),
    "step": lambda step, steps, epoch, milestones: 0.1 ** sum(epoch >= milestone for milestone in milestones),
    "oscillating": lambda step, steps, epoch, milestones: 5.5 - 4.5 * math.cos(math.pi * step / 20),
}


def crop_flip(images: Tensor, generator: torch.Generator, mirrored: Tensor) -> Tensor:
    """Shift each image (B, C, H, W) by up to 4 pixels over a black border, and mirror it with probability 1/2."""
    down, across = _shifts(images, 4, generator)
    flip = sent(torch.rand(len(images), 1, 1, generator=generator) < 0.5, images.device)
    return _cut(F.pad(images, (4, 4, 4, 4)), images.shape[2:], down, across, flip)


def shift_flip(images: Tensor, generator: torch.Generator, mirrored: Tensor) -> Tensor:
    """Shift each image (B, C, H, W) by up to 2 pixels over its reflection, and mirror it in every second epoch."""
    down, across = _shifts(images, 2, generator)
    return _cut(F.pad(images, (2, 2, 2, 2), "reflect"), images.shape[2:], down, across, mirrored[:, None, None])


def _shifts(images: Tensor, most: int, generator: torch.Generator) -> Tensor:
    return sent(torch.randint(0, 2 * most + 1, (2, len(images), 1, 1), generator=generator), images.device)


def _cut(padded: Tensor, size: torch.Size, down: Tensor, across: Tensor, flip: Tensor) -> Tensor:
    """Return the part of each padded image that begins at (down, across), or its mirror."""
    height, width = size
    rows = torch.arange(height, device=padded.device).view(1, -1, 1) + down
    columns = torch.arange(width, device=padded.device).view(1, 1, -1)
    columns = torch.where(flip, width - 1 - columns, columns) + across
    batches = torch.arange(len(padded), device=padded.device).view(-1, 1, 1)
    return padded.permute(0, 2, 3, 1)[batches, rows, columns].permute(0, 3, 1, 2).contiguous()


# From a batch (B, C, H, W), a generator, and which of its images (B,) an augmentation that alternates mirrors in this epoch.
AUGMENTATIONS: dict[str, Callable[[Tensor, torch.Generator, Tensor], Tensor]] = {
    "none": lambda images, generator, mirrored: images,
    "crop_flip": crop_flip,
    "shift_flip": shift_flip,
}


def as_bytes(images: Tensor) -> Tensor:
    """Return images as bytes, a quarter of the memory, if all their values are bytes over 255; or else as they are."""
    found = torch.empty(images.shape, dtype=torch.uint8)
    for rows, kept in zip(images.cpu().split(PIECE), found.split(PIECE), strict=True):
        if rows.dtype != torch.float32 or rows.amin() < 0 or rows.amax() > 1:
            return images
        kept.copy_((rows * 255).round())
        if not torch.equal(pixels_of(kept), rows):
            return images
    return found


def pixels_of(images: Tensor) -> Tensor:
    """Return images that may be kept as bytes, as numbers."""
    return images.float() / 255 if images.dtype == torch.uint8 else images
