"""Relevance that is passed back through attention: LRP as a gradient under rules for products, norms and activations."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from saliency_lib.attribution.attention import Steps
from saliency_lib.attribution.backward import Reduction, path_gradient, point, reduced
from saliency_lib.attribution.table import PARTICULAR_METHODS
from saliency_lib.attribution.units import name_of
from saliency_lib.core.checks import check_images
from saliency_lib.core.fills import filled
from saliency_lib.core.options import Positive

PRODUCTS = ("matmul", "__matmul__", "bmm", "mul", "__mul__", "__rmul__", "multiply")
ACTIVATIONS = ("gelu", "silu", "hardswish", "mish")


class Relevance(Steps):
    """Make gradients times inputs the relevances of AttnLRP in a forward pass.

        products of two things that depend on the image:  half of the relevance goes to each
        LayerNorm and RMSNorm:                            the standard deviation is a constant
        GELU, SiLU and the like:                          f(x) / x is a constant
        softmax, linear layers and sums:                  the derivative

    Raises:
        ValueError: on leaving, if the model has no attention.
    """

    def __init__(self, model: nn.Module, reference: Tensor | None = None):
        super().__init__()

    def product(self, first: Tensor, second: Tensor) -> Tensor:
        """Multiply, and give half of the derivative to each."""
        return _halved(first @ second)

    def other(self, function: Callable, *args: Any, **kwargs: Any) -> Any:
        """Call a function under the rule of its kind."""
        name = name_of(function)
        if name == "layer_norm":
            return _layer_norm(*args, **kwargs)
        if name == "rms_norm":
            return _rms_norm(*args, **kwargs)
        output = function(*args, **kwargs)
        if name in ACTIVATIONS:
            share = torch.where(args[0] == 0, 0.5, output / torch.where(args[0] == 0, 1, args[0]))  # x = 0 has no relevance
            return args[0] * share.detach()
        both = sum(isinstance(one, Tensor) and one.requires_grad for one in args[:2])
        return _halved(output) if name in PRODUCTS and both == 2 else output

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        super().__exit__(kind, error, traceback)
        if kind is None and not self.weights:
            raise ValueError("the model has no attention between tokens; take a transformer, or another method")


def _halved(values: Tensor) -> Tensor:
    return (values + values.detach()) / 2


def _rms_norm(values: Tensor, shape: tuple[int, ...], weight: Tensor | None = None, eps: float | None = None) -> Tensor:
    """Divide by the root mean square over the last axes, which the derivative takes for a constant."""
    axes = tuple(range(-len(shape), 0))
    eps = torch.finfo(values.dtype).eps if eps is None else eps
    scaled = values * (values.square().mean(axes, keepdim=True) + eps).rsqrt().detach()
    return scaled if weight is None else scaled * weight


def _layer_norm(
    values: Tensor, shape: tuple[int, ...], weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5, *_: Any
) -> Tensor:
    """Normalise over the last axes; the derivative takes the standard deviation for a constant."""
    scaled = _rms_norm(values - values.mean(tuple(range(-len(shape), 0)), keepdim=True), shape, weight, eps)
    return scaled if bias is None else scaled + bias


@PARTICULAR_METHODS.register(family="gradient", passes="1 F + 1 B", paper="Achtibat et al. 2024", needs="attention")
def attn_lrp(
    model: nn.Module,
    images: Tensor,
    targets: Tensor | None = None,
    *,
    reduction: Reduction = "sum",
    batch_size: Positive | None = None,
) -> Tensor:
    """Distribute the class score over the pixels layer by layer, with rules for attention, norms and activations.

    It is the difference from the mean colour, times the gradient under these rules (see `Relevance`).

    Args:
        images: (B, C, H, W) images, or (B, 1, 1, T) texts.
        targets: (B,) classes; None for the predicted ones.

    Returns:
        (B, H, W) or (B, 1, T), signed, in logits.

    Raises:
        ValueError: the model has no attention.

    Source: Achtibat et al. 2024 (AttnLRP), propositions 3.1 to 3.4. Differs: linear layers have the rule epsilon with 0 alone,
    where the paper has gamma in vision transformers; activations other than GELU, SiLU, Hardswish, Mish and ReLU pass their
    derivative.
    """
    images = check_images(images)
    difference = images - filled("mean", model, images)
    slopes = path_gradient(model, images, targets, point(images), rule=Relevance, batch_size=batch_size)
    return reduced(difference * slopes, reduction)
