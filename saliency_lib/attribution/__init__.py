"""Attribution methods: each maps (model, images, targets) to maps (B, H, W). Importing this fills METHODS."""

from saliency_lib.attribution import adaptive_path, cam, controls, deeplift, gradients, masks, rise, sidu, superpixels  # noqa: F401
