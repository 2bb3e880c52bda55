"""How weights are updated: optimisers, schedules of the learning rate, and augmentations of the images."""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from saliency_lib.core.streams import sent

OPTIMISERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "sgd": torch.optim.SGD,
    "adadelta": torch.optim.Adadelta,
}


def one_cycle(progress: float, rise: float = 0.3) -> float:
    """Return the rate of a cosine that rises from 0.04 to 1 in the first `rise` of the steps, and then falls to 0."""
    if progress < rise:
        return 0.04 + 0.96 * (1 - math.cos(math.pi * progress / rise)) / 2
    return (1 + math.cos(math.pi * (progress - rise) / (1 - rise))) / 2


# The learning rate as a multiple of the recipe's, from the step, the number of steps, the epoch and the milestones.
SCHEDULES: dict[str, Callable[[int, int, int, Sequence[int]], float]] = {
    "constant": lambda step, steps, epoch, milestones: 1.0,
    "cosine": lambda step, steps, epoch, milestones: (1 + math.cos(math.pi * (step / steps))) / 2,
    "one_cycle": lambda step, steps, epoch, milestones: one_cycle(step / steps),
    "step": lambda step, steps, epoch, milestones: 0.1 ** sum(epoch >= milestone for milestone in milestones),
    "oscillating": lambda step, steps, epoch, milestones: 5.5 - 4.5 * math.cos(math.pi * step / 20),
}


def crop_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Shift each image (B, C, H, W) by up to 4 pixels over a black border, and mirror it with probability 1/2."""
    batch, _, height, width = images.shape
    padded = F.pad(images, (4, 4, 4, 4))
    down, across = sent(torch.randint(0, 9, (2, batch, 1, 1), generator=generator), images.device)
    flip = sent(torch.rand(batch, 1, 1, generator=generator) < 0.5, images.device)
    rows = torch.arange(height, device=images.device).view(1, -1, 1) + down
    columns = torch.arange(width, device=images.device).view(1, 1, -1)
    columns = torch.where(flip, width - 1 - columns, columns) + across
    batches = torch.arange(batch, device=images.device).view(-1, 1, 1)
    return padded.permute(0, 2, 3, 1)[batches, rows, columns].permute(0, 3, 1, 2).contiguous()


AUGMENTATIONS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "none": lambda images, generator: images,
    "crop_flip": crop_flip,
}
