"""Try every method once on a network, and say which work and what stops the others."""

import time
from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor, nn

from saliency_lib.attribution.table import METHODS, PARTICULAR_METHODS

WORKS, CONSTANT, REFUSED = "works", "constant map", "refused"


class Trial(NamedTuple):
    """What became of one method.

    Args:
        outcome: `works`, `constant map` (it works, and the map of this image has one value) or `refused`.
        reason: of a refusal, the first line of the error; else empty.
        seconds: how long it took, with few masks, samples and steps.
    """

    method: str
    outcome: str
    reason: str
    seconds: float


def tried(model: nn.Module, image: Tensor) -> Iterator[Trial]:
    """Explain an image by every method but those of texts, with few masks and steps, and give each outcome as it is known.

    Args:
        image: (1, C, H, W) in [0, 1], on the model's device.
    """
    part = max(1, min(image.shape[-2:]) // 4)
    for name in (*METHODS, *(name for name, method in PARTICULAR_METHODS.items() if method.needs != "words")):
        few = METHODS.cheap(name)
        few |= {"window": part, "stride": part} if "window" in few else {}
        begun, reason = time.perf_counter(), ""
        try:
            maps = METHODS[name](model, image, **few)
            if not maps.isfinite().all():
                raise ValueError("the map has values that are not finite")
            outcome = CONSTANT if bool((maps == maps.flatten()[0]).all()) else WORKS
        except Exception as error:  # whatever stops a method is what the reader wants to know
            outcome, reason = REFUSED, next(iter(str(error).splitlines()), type(error).__name__)
        yield Trial(name, outcome, reason, time.perf_counter() - begun)
