"""Attribution methods, each from (model, images, targets) to maps (B, H, W). Importing this package fills METHODS."""

# ruff: noqa: F401, I001
from saliency_lib.attribution.table import METHODS, PARTICULAR_METHODS, Method
from saliency_lib.attribution import gradients
from saliency_lib.attribution import integrated, adaptive_path, deeplift, xrai
from saliency_lib.attribution import cam
from saliency_lib.attribution import occlusion, rise, sidu, lime
from saliency_lib.attribution import controls
from saliency_lib.attribution import attention, attention_relevance
from saliency_lib.core.plugins import accept_plugins

__all__ = ["METHODS", "PARTICULAR_METHODS", "Method"]

accept_plugins(METHODS)
