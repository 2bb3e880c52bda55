"""Use kernels that were written for images on time series."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from saliency_lib.core.checks import check_fit
from saliency_lib.core.locks import lock_of


def of_series(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function of a model and its images accept series (B, T, F) as well, and hold the model's lock while it runs.

    The function receives series as images of one channel, (B, 1, T, F). While it runs, the model receives series.
    """

    @functools.wraps(function)
    def lifted(model: nn.Module, images: Tensor, *arguments: Any, **options: Any) -> Any:
        if not isinstance(model, nn.Module):
            return function(model, images, *arguments, **options)  # which refuses it
        with lock_of(model):
            try:
                if getattr(images, "ndim", None) != 3 or not isinstance(images, Tensor):
                    return function(model, images, *arguments, **options)
                with _receiving_series(model, images):
                    return function(model, images.unsqueeze(1), *arguments, **options)
            except RuntimeError as error:
                try:
                    check_fit(model, images)
                except ValueError as reason:
                    raise reason from error
                raise

    return lifted


@contextmanager
def _receiving_series(model: nn.Module, images: Tensor) -> Iterator[None]:
    """Turn the images of one channel that the model receives back into series, and say so in errors."""
    hook = model.register_forward_pre_hook(lambda model, inputs: (inputs[0].squeeze(1), *inputs[1:]))
    try:
        yield
    except Exception as error:
        shape = tuple(images.shape)
        error.add_note(f"images {shape} were read as time series (B, T, F); pass one image as images[None]")
        raise
    finally:
        hook.remove()
