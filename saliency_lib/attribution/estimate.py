"""What a map took: the passes of each image and the error at which they ended, for methods that stop at a tolerance."""

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from saliency_lib.attribution.table import METHODS
from saliency_lib.core.calls import tell


@dataclass(frozen=True)
class Estimate:
    """Maps, and what they took.

    Args:
        maps: (B, H, W), as the method returns them.
        passes: (B,) masks or nodes of each image. A mask is a forward pass, a node a forward and a backward pass.
        error: (B,) error at the end, in the units of the method's option `tolerance`.
    """

    maps: Tensor
    passes: Tensor
    error: Tensor


_found: ContextVar[list[tuple[Tensor, Tensor]] | None] = ContextVar("the passes and errors of a running method", default=None)


def estimate(method: str, model: nn.Module, images: Tensor, targets: Tensor | None = None, **options: Any) -> Estimate:
    """Compute the maps of a method that stops at a tolerance, with the passes that each image took and its error at the end.

    Args:
        method: a name in METHODS, for instance `rise` or `integrated_gradients`.
        images: (B, C, H, W) pixels in [0, 1], or series (B, T, F).
        targets: (B,) classes; None for the predicted ones.
        options: of the method. `tolerance` is required.

    Raises:
        ValueError: the method has no option `tolerance`, or none is given.

    Source: ours.
    """
    METHODS.check_options(method, {"tolerance": None} | options)
    if options.get("tolerance") is None:
        raise ValueError(f"{method} stops where its error is at most a tolerance; pass one, for instance tolerance=0.02")
    token = _found.set([])
    try:
        maps = METHODS[method](model, images, targets, **options)
        passes, error = (torch.cat(parts) for parts in zip(*(_found.get() or ()), strict=True))
    finally:
        _found.reset(token)
    return Estimate(maps, passes, error)


def note_estimate(passes: Tensor, error: Tensor, tolerance: float, most: int, words: str) -> None:
    """Hand what each image took to `estimate`, and warn of images that did not reach the tolerance.

    Args:
        passes: (B,) what each image took.
        error: (B,) its error at the end.
        tolerance: the largest error that ends an image.
        most: the largest number of passes that an image may take.
        words: the name of the option that sets this number.
    """
    found = _found.get()
    if found is not None:
        found.append((passes, error))
    if count := int((error > tolerance).sum()):
        tell(
            f"{count} of {len(error)} images have an error of up to {float(error.max()):.2g} after {most} {words}, "
            f"above the tolerance of {tolerance:g}; raise {words} or the tolerance"
        )
