"""Attribution methods: each maps (model, images, targets) to maps (B, H, W). Importing this fills METHODS."""

from saliency_lib.attribution import cam, controls, gradients, masks  # noqa: F401
