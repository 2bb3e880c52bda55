"""Networks: each maps pixels in [0, 1], time series or texts to logits. Importing this fills MODELS."""

from saliency_lib.core.plugins import accept_plugins
from saliency_lib.networks import (
    convolutional,
    efficientnet,
    fast,
    minilm,
    recurrent,
    references,
    residual,
    texts,
    vision_transformer,
)
from saliency_lib.networks.table import MODELS, Model

__all__ = [
    "MODELS",
    "Model",
    "convolutional",
    "efficientnet",
    "fast",
    "minilm",
    "recurrent",
    "references",
    "residual",
    "texts",
    "vision_transformer",
]


@MODELS.more
def _torchvision() -> None:
    from saliency_lib.networks import pretrained  # noqa: F401, here, since importing torchvision takes seconds


accept_plugins(MODELS)
