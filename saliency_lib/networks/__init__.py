"""Networks: each maps pixels in [0, 1], or time series, to logits. Importing this fills MODELS."""

# ruff: noqa: I001
from saliency_lib.networks.table import MODELS, Model
from saliency_lib.networks import models, recurrent

__all__ = ["MODELS", "Model", "models", "recurrent"]
