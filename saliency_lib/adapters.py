"""Methods in the shape that other libraries call them in."""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from saliency_lib.registry import METHODS


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
        like = next(model.parameters(), torch.empty(0))
        images, classes = torch.as_tensor(inputs).to(like), torch.as_tensor(targets, device=like.device).long()
        return METHODS[method](model, images, classes, **options | more)[:, None].cpu().numpy()

    return explain
