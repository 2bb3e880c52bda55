"""A method and a metric of one's own. Copy this file to a name without the underscore, and change it."""

import torch

import saliency_lib as sl
from saliency_lib.evaluation.curve import one_number


@sl.METHODS.register(family="gradient", passes="1 F + 1 B", paper="ours")
def my_method(model, images, targets=None, *, power: float = 2.0):
    """Compute the gradient's absolute value to a power, summed over channels.

    Args:
        images: (B, C, H, W) in [0, 1].
        targets: (B,) classes; None for the predicted ones.
        power: of the absolute value.

    Returns:
        (B, H, W), not negative.
    """
    pixels = images.detach().requires_grad_()
    logits = model(pixels)
    targets = logits.argmax(1) if targets is None else targets
    (gradient,) = torch.autograd.grad(logits.gather(1, targets[:, None]).sum(), pixels)
    return gradient.abs().pow(power).sum(1)


@sl.METRICS.register(lower_is_better=False, paper="ours")
def my_metric(model, images, maps, targets=None):
    """Compute the share of a map's absolute values in the middle quarter of the image."""
    height, width = maps.shape[-2:]
    middle = maps[:, height // 4 : height - height // 4, width // 4 : width - width // 4].abs().sum((1, 2))
    return one_number(middle / maps.abs().sum((1, 2)).clamp(min=1e-12))
