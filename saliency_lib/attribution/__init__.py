"""Attribution methods: each maps (model, images, targets) to maps (B, H, W). Importing this fills METHODS, family by family."""

# ruff: noqa: F401, I001
from saliency_lib.attribution import gradients
from saliency_lib.attribution import integrated, adaptive_path, deeplift
from saliency_lib.attribution import cam
from saliency_lib.attribution import masks, rise, sidu, superpixels
from saliency_lib.attribution import controls
