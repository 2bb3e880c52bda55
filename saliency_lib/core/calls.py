"""One call of a kernel: its options are checked, and what would make its numbers meaningless is said once."""

import functools
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from saliency_lib.core.options import typed
from saliency_lib.core.scores import gives_number

P = ParamSpec("P")
R = TypeVar("R")
LIBRARY = str(Path(__file__).parents[1])
OVER = 1e-3  # how far rounding may carry pixels beyond [0, 1]
PIXEL_VALUES = {"black": 0, "white": 1, "grey": 0.5}


@dataclass
class _Call:
    """The outermost call of a kernel.

    Args:
        model: what it was given as the model.
        images: what it was given as the images.
        looked_at: what has been checked.
        reach: the least and the greatest pixel of images that are not in [0, 1].
    """

    model: object
    images: object
    looked_at: set[str] = field(default_factory=set)
    reach: tuple[float, float] | None = None

    def first(self, what: str) -> bool:
        """Return whether this is the first time that something is looked at."""
        new = what not in self.looked_at
        self.looked_at.add(what)
        return new

    @property
    def of_series(self) -> bool:
        """Whether the inputs are series, which may have any values."""
        parts = self.model.modules() if isinstance(self.model, nn.Module) else ()
        return getattr(self.images, "ndim", 4) == 3 or any(getattr(part, "takes_series", False) for part in parts)


_call: ContextVar[_Call | None] = ContextVar("the outermost call of a kernel", default=None)


def kernel(function: Callable[P, R], owner: str = "", kind: str = "") -> Callable[P, R]:
    """Make a function of a model and its images check its options, and warn once per call of what is misused in silence.

    Args:
        function: (model, images, ...), with options as in `typed`.
        owner, kind: as in `typed`.
    """

    @functools.wraps(function)
    def called(*arguments: P.args, **options: P.kwargs) -> R:
        given: tuple[object, ...] = arguments
        with _outermost(*(*given, None, None)[:2]):
            return function(*arguments, **options)

    return typed(called, owner, kind)


@contextmanager
def _outermost(model: object, images: object) -> Iterator[None]:
    if _call.get() is not None:
        yield
        return
    token = _call.set(_Call(model, images))
    try:
        yield
    finally:
        _call.reset(token)


def tell(message: str) -> None:
    """Warn with the line of the first caller outside this library."""
    frame, level = sys._getframe(1), 2
    while frame.f_back and frame.f_code.co_filename.startswith(LIBRARY):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, UserWarning, stacklevel=level)


def look_at_pixels(images: Tensor) -> None:
    """Warn of images (B, C, H, W) that are not in [0, 1], unless they are series."""
    call = _call.get()
    if call is None or not call.first("pixels"):
        return
    low, high = torch.stack(images.detach().aminmax()).tolist()
    if (low < -OVER or high > 1 + OVER) and not call.of_series:
        call.reach = low, high
        tell(
            f"images are expected in [0, 1], and these range from {low:.3g} to {high:.3g}; pass pixels in [0, 1] and let the "
            "model normalise them in its first layer"
        )


def look_at_fill(fill: object) -> None:
    """Warn of a fill that is a colour of pixels in [0, 1] if the images are not."""
    call = _call.get()
    if call and call.reach and isinstance(fill, str) and fill in PIXEL_VALUES and call.first("fill"):
        low, high = call.reach
        tell(
            f"fill {fill!r} is the pixel value {PIXEL_VALUES[fill]}, another colour in images that range from "
            f"{low:.3g} to {high:.3g}; give the fill as a tensor (C, 1, 1) in their units, or pass pixels in [0, 1]"
        )


def look_at_logits(logits: Tensor) -> None:
    """Warn of a model whose first outputs (B, K) in a call are probabilities, or one logit for two classes.

    Raises:
        ValueError: a number of `sl.Scalar` is not finite.
    """
    call = _call.get()
    if call is None or not call.first("logits"):
        return
    if gives_number(call.model):
        if not logits.detach().isfinite().all():
            raise ValueError(
                "the number that sl.Scalar gives is NaN or infinite for some images; check its function and the weights"
            )
    elif logits.shape[1] == 1:
        tell(
            "the model has one output, so its scores are that number and no probabilities; wrap it: for a number, "
            "sl.Scalar(model, lambda output: output[:, 0]); for two classes, so that it returns a logit per class, "
            "torch.cat([torch.zeros_like(logit), logit], 1)"
        )
    elif _are_probabilities(logits.detach()):
        tell(
            "the outputs of the model are probabilities (not below 0, with the sum 1), to which scores apply another softmax; "
            "remove the softmax at its end, or wrap the model so that it returns their logarithm"
        )


def _are_probabilities(outputs: Tensor) -> bool:
    rounding = max(1e-5, 4 * torch.finfo(outputs.dtype).eps)
    return bool((outputs.amin() >= 0) & ((outputs.sum(1) - 1).abs().amax() < rounding))
