"""Random numbers that are fixed by what they are for, a seed and an image."""

import hashlib
import operator
from collections.abc import Callable

import torch
from torch import Tensor

Draw = Callable[..., Tensor]


def row_indices(images: Tensor, indices: Tensor | None) -> list[int]:
    """The number of each image in its data set, which with a seed fixes its random numbers; 0..B-1 if left out."""
    if indices is None:
        return list(range(len(images)))
    numbers = [int(i) for i in indices]
    if len(numbers) != len(images):
        raise ValueError(f"indices has {len(numbers)} entries for {len(images)} images")
    return numbers


def stream(purpose: str, *key: int) -> int:
    """A seed fixed by what it is for and by a key, for instance (seed, image, draw), unrelated to that of any other key."""
    try:
        numbers = [operator.index(part) for part in key]  # NumPy's whole numbers count as Python's
    except TypeError:
        raise ValueError(f"seeds and indices must be whole numbers, got {key} for {purpose}") from None
    return int.from_bytes(hashlib.sha256(repr((purpose, *numbers)).encode()).digest()[:4])  # torch's CPU generator reads 32 bits


def generator(device: torch.device, purpose: str, *key: int) -> torch.Generator:
    """A generator whose random numbers are fixed by what they are for and by a key."""
    return torch.Generator(device).manual_seed(stream(purpose, *key))


def noise(images: Tensor, numbers: list[int], seed: int, purpose: str = "noise", draw: Draw = torch.rand) -> Tensor:
    """Random numbers the shape of the images (B, C, H, W), drawn for each in float32 from a stream of its own.

    Args:
        numbers, seed, purpose: fix the numbers, see `stream`.
        draw: torch.rand (uniform in [0, 1)) or torch.randn.
    """
    sources = [generator(images.device, purpose, seed, number) for number in numbers]
    draws = [draw(images.shape[1:], generator=source, device=images.device) for source in sources]
    return torch.stack(draws).to(images.dtype)
