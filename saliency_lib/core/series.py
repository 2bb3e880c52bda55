"""Time series through kernels that were written for images."""

import functools
from collections.abc import Callable
from typing import Any


def of_series(function: Callable) -> Callable:
    """Make a function of a model and its images take series (B, T, F) as well.

    The function is given them as images of one channel, (B, 1, T, F). While it runs, the model is given series again.
    """

    @functools.wraps(function)
    def lifted(model: Any, images: Any, *arguments: Any, **options: Any) -> Any:
        if getattr(images, "ndim", None) != 3 or not hasattr(model, "register_forward_pre_hook"):
            return function(model, images, *arguments, **options)
        hook = model.register_forward_pre_hook(lambda model, inputs: (inputs[0].squeeze(1), *inputs[1:]))
        try:
            return function(model, images.unsqueeze(1), *arguments, **options)
        except Exception as error:
            error.add_note(f"{tuple(images.shape)} was taken for series (B, T, F); one image is images[None]")
            raise
        finally:
            hook.remove()

    return lifted
