"""Networks: each maps pixels in [0, 1], or time series, to logits. Importing this fills MODELS."""

from saliency_lib.networks import convolutional, fast, pretrained, recurrent, residual
from saliency_lib.networks.table import MODELS, Model

__all__ = ["MODELS", "Model", "convolutional", "fast", "pretrained", "recurrent", "residual"]
