"""Models and kernels in the shape that something else needs: wrappers of a network, methods as notebooks or Quantus call them."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from saliency_lib.registry import METHODS


class _Wrapped(nn.Module):
    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        self.training = model.training  # self.train() would set the mode of every layer

    @property
    def pixel_mean(self) -> Tensor | None:
        """The colour (C,) that is zero after the model's normalisation; None where the model does not say."""
        return getattr(self.model, "pixel_mean", None)


class LogProbabilities(_Wrapped):
    """A model whose logits are the logarithms of another's probabilities, so that a method of logits explains the loss.

    log p_c = f_c - log sum_k exp f_k, minus the cross-entropy of class c. The probabilities are those of the model.

    Args:
        model: pixels (B, C, H, W) to logits (B, K).
    """

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images).log_softmax(1)


class Shifted(_Wrapped):
    """A model that adds the same linear function of the image to the logit of every class: f_c(x) + <a, x>.

    No probability changes, and the gradient of every logit does, by a.

    Args:
        model: pixels (B, C, H, W) to logits (B, K).
        direction: a, (C, H, W), the shape of an image, in logits per unit of pixel value.

    Raises:
        ValueError: a direction that is no tensor of floats, or images of another shape.

    Source: Srinivas and Fleuret 2021, section 2, with the arbitrary function g taken linear.
    """

    def __init__(self, model: nn.Module, direction: Tensor):
        super().__init__(model)
        if not isinstance(direction, Tensor) or not direction.is_floating_point():
            got = direction.dtype if isinstance(direction, Tensor) else type(direction).__name__
            raise ValueError(f"direction must be a tensor of floats, the shape of one image, got {got}")
        self.register_buffer("direction", direction.detach().to(next(model.parameters(), direction), copy=True))

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[1:] != self.direction.shape:
            raise ValueError(f"images {tuple(images.shape)} do not fit the direction {tuple(self.direction.shape)}")
        return self.model(images) + (images * self.direction).flatten(1).sum(1, keepdim=True)


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
