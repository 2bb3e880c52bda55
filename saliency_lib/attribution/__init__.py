"""Attribution methods: each maps (model, images, targets) to maps (B, H, W). Importing this fills METHODS."""

from saliency_lib.attribution import (  # noqa: F401
    adaptive_path,
    cam,
    controls,
    deeplift,
    gradients,
    integrated,
    masks,
    rise,
    sidu,
    superpixels,
)
