"""Draw random numbers that are fixed by their purpose, a seed and the image that they are for."""

import hashlib
import operator
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from saliency_lib.core.options import shown

Indices = Tensor | Sequence[int] | None  # the number of each image in its data set; None: 0..B-1
Distribution = Callable[..., Tensor]  # torch.rand or torch.randn


def row_indices(images: Tensor, indices: Indices) -> list[int]:
    """Return the number of each image in its data set, 0..B-1 if `indices` is None.

    Together with a seed, this number fixes the image's random numbers, whatever batch the image is in.
    """
    if indices is None:
        return list(range(len(images)))
    try:
        numbers = [operator.index(number) for number in indices]
    except TypeError:
        numbers = []
    if len(numbers) != len(images):
        raise ValueError(f"indices must be {len(images)} whole numbers, one per image, got {shown(indices)}")
    return numbers


def seed_of(purpose: str, *key: int) -> int:
    """Return a seed that depends on a purpose and a key, for instance (seed, image, draw), and on nothing else."""
    try:
        numbers = [operator.index(part) for part in key]  # NumPy's integers count as Python's
    except TypeError:
        raise ValueError(f"seeds and indices must be whole numbers, got {key} for {purpose}") from None
    return int.from_bytes(hashlib.sha256(repr((purpose, *numbers)).encode()).digest()[:4])  # torch's CPU generator reads 32 bits


def generator(device: torch.device, purpose: str, *key: int) -> torch.Generator:
    """Return a generator whose random numbers depend on a purpose and a key, and on nothing else."""
    return torch.Generator(device).manual_seed(seed_of(purpose, *key))


def draw_one(like: Tensor, purpose: str, *key: int, law: Distribution = torch.rand) -> Tensor:
    """Return random numbers (C, H, W) for one of the images `like` (B, C, H, W).

    They are drawn in float32, so that images of every precision receive the same numbers.
    """
    return law(like.shape[1:], generator=generator(like.device, purpose, *key), device=like.device)


def noise(
    images: Tensor, numbers: list[int], seed: int, purpose: str = "noise", *draw: int, law: Distribution = torch.rand
) -> Tensor:
    """Return random numbers of the images' shape (B, C, H, W), drawn from one stream per image.

    Args:
        numbers, seed, purpose, draw: fix the numbers, see `seed_of`.
        law: torch.rand (uniform in [0, 1)) or torch.randn (normal).
    """
    return torch.stack([draw_one(images, purpose, seed, number, *draw, law=law) for number in numbers]).to(images.dtype)


def noise_by_draw(
    images: Tensor, purpose: str, law: Distribution, seed: int, indices: Indices
) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a function of image rows (n,) and draw numbers (n,) that gives their random numbers (n, C, H, W).

    Each is fixed by the seed, the image and the number of the draw, in whatever order they are asked for.
    """
    numbers = row_indices(images, indices)

    def at(rows: Tensor, draws: Tensor) -> Tensor:
        pairs = zip(rows.tolist(), draws.tolist(), strict=True)
        return torch.stack([draw_one(images, purpose, seed, numbers[row], draw, law=law) for row, draw in pairs]).to(images)

    return at
