"""Use kernels that were written for images on time series."""

import functools
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn


def of_series(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function of a model and its images accept series (B, T, F) as well.

    The function receives series as images of one channel, (B, 1, T, F). While it runs, the model receives series.
    """

    @functools.wraps(function)
    def lifted(model: nn.Module, images: Tensor, *arguments: Any, **options: Any) -> Any:
        if getattr(images, "ndim", None) != 3 or not hasattr(model, "register_forward_pre_hook"):
            return function(model, images, *arguments, **options)
        hook = model.register_forward_pre_hook(lambda model, inputs: (inputs[0].squeeze(1), *inputs[1:]))
        try:
            return function(model, images.unsqueeze(1), *arguments, **options)
        except Exception as error:
            shape = tuple(images.shape)
            error.add_note(f"images {shape} were read as time series (B, T, F); pass one image as images[None]")
            raise
        finally:
            hook.remove()

    return lifted
