"""Call a method from elsewhere: with results on the CPU whatever the model's device, or as Quantus's `explain_func`."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from saliency_lib.attribution.backward import Reduction, reduced
from saliency_lib.attribution.table import METHODS
from saliency_lib.core.options import check, shown


def compute(
    kernel: Callable[..., Tensor], model: nn.Module, images: Tensor, targets: Tensor | None = None, **options: Any
) -> Tensor:
    """Run a kernel on the model's device and in the model's precision, and return the result on the CPU.

    Args:
        kernel: (model, images, targets, **options) -> tensor, for instance a method of METHODS or `density_ratio`.
        images: (B, C, H, W), on any device.
        targets: (B,) classes; None for the predicted ones.
        options: the kernel's options.
    """
    like = next(model.parameters(), torch.empty(0))
    targets = None if targets is None else targets.to(like.device)
    return kernel(model, images.to(like), targets, **options).cpu()


def as_maps(attributions: Tensor | np.ndarray, reduction: Reduction = "sum") -> Tensor:
    """Reduce attributions of another package, one number per pixel and channel, to maps that metrics accept.

    Args:
        attributions: (B, C, H, W), a tensor or an array.
        reduction: of the channels, a name in `backward.REDUCTIONS` (`sum`, `abs_sum`, `max_abs`, `mean`, ...) or a function.

    Returns:
        (B, H, W), without a graph.

    Raises:
        ValueError: the attributions have another shape or are not floats, or the reduction is unknown.
    """
    check("reduction of as_maps", Reduction, reduction)
    values = torch.as_tensor(attributions) if isinstance(attributions, np.ndarray) else attributions
    if not isinstance(values, Tensor) or values.ndim != 4 or not values.is_floating_point():
        raise ValueError(
            f"attributions must be floats of shape (B, C, H, W), a tensor or an array, got {shown(attributions)}; "
            "pass one image's as attributions[None], and maps (B, H, W) as they are"
        )
    return reduced(values.detach(), reduction)


def explain_func(method: str, **options: Any) -> Callable[..., np.ndarray]:
    """Return a method as the function that Quantus calls as its `explain_func`, with arrays as inputs and outputs.

    Args:
        method: a name in METHODS.
        options: its keyword options.

    Returns:
        A function (model, inputs (B, C, H, W), targets (B,), **options) -> maps (B, 1, H, W). Options of the call override
        those given here. Two arguments that Quantus adds are ignored: `device`, because the model's device is used, and
        `method`.

    Raises:
        ValueError: the method or an option is unknown.

    Source: Hedstroem et al. 2023 (Quantus).
    """
    METHODS.check_options(method, options)

    def explain(model: nn.Module, inputs: np.ndarray, targets: np.ndarray, **added: Any) -> np.ndarray:
        more = {name: value for name, value in added.items() if name not in ("device", "method")}
        METHODS.check_options(method, more)
        classes = torch.as_tensor(targets).long()
        return compute(METHODS[method], model, torch.as_tensor(inputs), classes, **options | more)[:, None].numpy()

    return explain
