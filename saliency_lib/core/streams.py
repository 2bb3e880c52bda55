"""Draw random numbers that are fixed by their purpose, a seed and the image that they are for.

They are drawn on the CPU for every device, so that all devices get the same ones, and moved in one block.
"""

import hashlib
import operator
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from saliency_lib.core.options import shown

Indices = Tensor | Sequence[int] | None  # the number of each image in its data set; None: 0..B-1
Distribution = Callable[..., Tensor]  # torch.rand or torch.randn

_on_host: WeakTensorKeyDictionary = WeakTensorKeyDictionary()  # the values of tensors on a GPU that the host knows as well


def row_indices(images: Tensor, indices: Indices) -> list[int]:
    """Return the number of each image in its data set, 0..B-1 if `indices` is None.

    Together with a seed, this number fixes the image's random numbers, whatever batch the image is in.
    """
    if indices is None:
        return list(range(len(images)))
    try:
        numbers = [operator.index(number) for number in (indices.cpu() if isinstance(indices, Tensor) else indices)]
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


def sent(values: Tensor, device: torch.device) -> Tensor:
    """Return values on a device. If they come from the CPU, the host does not wait for a GPU to take them."""
    if device.type != "cuda" or values.device.type != "cpu":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


def drawn(like: Tensor, purpose: str, keys: Sequence[tuple[int, ...]], law: Distribution = torch.rand) -> Tensor:
    """Return random numbers (n, C, H, W) on the device of the images `like` (B, C, H, W), one row per key.

    They are drawn in float32, so that images of every precision receive the same numbers.
    """
    pinned, source = like.device.type == "cuda", torch.Generator()
    block = torch.empty(len(keys), *like.shape[1:], pin_memory=pinned)
    for row, key in zip(block, keys, strict=True):
        law(row.shape, generator=source.manual_seed(seed_of(purpose, *key)), out=row)
    return block.to(like.device, non_blocking=pinned)


def pairs(start: int, stop: int, each: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the rows and the draws (stop - start,) of the pairs start, ..., stop - 1, of which every row has `each`.

    They are on a device, and the host knows them too, so that `noise_by_draw` does not have to fetch them.
    """
    numbers = torch.arange(start, stop, device=device)
    rows, draws = numbers // each, numbers % each
    if device.type != "cpu":
        _on_host[rows] = [number // each for number in range(start, stop)]
        _on_host[draws] = [number % each for number in range(start, stop)]
    return rows, draws


def noise(
    images: Tensor, numbers: list[int], seed: int, purpose: str = "noise", *draw: int, law: Distribution = torch.rand
) -> Tensor:
    """Return random numbers of the images' shape (B, C, H, W), drawn from one stream per image.

    Args:
        numbers, seed, purpose, draw: fix the numbers, see `seed_of`.
        law: torch.rand (uniform in [0, 1)) or torch.randn (normal).
    """
    return drawn(images, purpose, [(seed, number, *draw) for number in numbers], law).to(images.dtype)


def noise_by_draw(
    images: Tensor, purpose: str, law: Distribution, seed: int, indices: Indices, *, shared: int = 1
) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a function of image rows (n,) and draw numbers (n,) that gives their random numbers (n, C, H, W).

    Each is fixed by the seed, the image and the number of the draw, in whatever order they are asked for. Rows and draws that
    `pairs` returned are known without waiting for a GPU.

    Args:
        shared: how many draws that follow each other have the same numbers.
    """
    numbers = row_indices(images, indices)

    def at(rows: Tensor, draws: Tensor) -> Tensor:
        known = (_on_host.get(each) or each.tolist() for each in (rows, draws))
        keys = [(seed, numbers[row], draw // shared) for row, draw in zip(*known, strict=True)]
        return drawn(images, purpose, keys, law).to(images.dtype)

    return at
