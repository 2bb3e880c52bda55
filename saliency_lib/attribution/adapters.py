"""Methods as others call them: on the CPU whatever the device of the model, or as Quantus's `explain_func`."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from saliency_lib.attribution.table import METHODS


def compute(kernel: Callable[..., Tensor], model: nn.Module, images: Tensor, targets: Tensor | None = None, **options) -> Tensor:
    """What a kernel gives, on the CPU; computed where the model is and in its precision, wherever the images are.

    Args:
        kernel: (model, images, targets, **options) -> tensor, for instance a method of METHODS or `density_ratio`.
    """
    like = next(model.parameters(), torch.empty(0))
    targets = None if targets is None else targets.to(like.device)
    return kernel(model, images.to(like), targets, **options).cpu()


def explain_func(method: str, **options) -> Callable[..., np.ndarray]:
    """A method as Quantus calls it: its `explain_func`, arrays in, arrays out.

    Args:
        method: a name in METHODS; options: its keyword options.

    Returns:
        A function (model, inputs (B, C, H, W), targets (B,), **options) -> maps (B, 1, H, W). Options of the call go before
        those given here. What Quantus adds is left aside: `device`, the work being done where the model is, and `method`.

    Raises:
        ValueError: an unknown method or option.

    Source: Hedstroem et al. 2023 (Quantus).
    """
    METHODS.check_options(method, options)

    def explain(model: nn.Module, inputs: np.ndarray, targets: np.ndarray, **added) -> np.ndarray:
        more = {name: value for name, value in added.items() if name not in ("device", "method")}
        METHODS.check_options(method, more)
        classes = torch.as_tensor(targets).long()
        return compute(METHODS[method], model, torch.as_tensor(inputs), classes, **options | more)[:, None].numpy()

    return explain
