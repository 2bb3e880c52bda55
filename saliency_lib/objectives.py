"""Training objectives: each maps (model, images, labels) to the scalar loss that one step minimises."""

import torch.nn.functional as F
from torch import Tensor, nn

from saliency_lib.registry import OBJECTIVES


@OBJECTIVES.register
def cross_entropy(model: nn.Module, images: Tensor, labels: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy of the logits with the labels.

    Args:
        images: (B, C, H, W) pixels in [0, 1]; labels: (B,) classes.
        label_smoothing: share of the target spread over all classes, in [0, 1].

    Returns:
        (), not negative, in nats.
    """
    return F.cross_entropy(model(images), labels, label_smoothing=label_smoothing)
