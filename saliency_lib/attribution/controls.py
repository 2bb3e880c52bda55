"""Controls: maps that know nothing of the model. A method that does not beat them has shown nothing."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saliency_lib.attribution.table import METHODS
from saliency_lib.core.batching import exact
from saliency_lib.core.checks import check_images
from saliency_lib.core.streams import generator, row_indices


@METHODS.register(family="control", passes="0", paper="control")
def random(
    model: nn.Module, images: Tensor, targets: Tensor | None = None, *, seed: int = 0, indices: Tensor | None = None
) -> Tensor:
    """Uniform noise in [0, 1), fixed for each image by seed and index.

    Returns:
        (B, H, W).
    """
    check_images(images)
    sources = [generator(images.device, "random", seed, number) for number in row_indices(images, indices)]
    draws = [torch.rand(images.shape[2:], generator=source, device=images.device) for source in sources]
    return torch.stack(draws).to(images.dtype)


@METHODS.register(family="control", passes="0", paper="Adebayo et al. 2018")
def edges(model: nn.Module, images: Tensor, targets: Tensor | None = None) -> Tensor:
    """Sobel edge strength of the image's mean over channels.

    Returns:
        (B, H, W), not negative; 0 where the image is flat.

    Source: Adebayo et al. 2018, section 4: an edge detector looks like a saliency map and explains nothing.
    """
    images = check_images(images)
    smooth, slope = images.new_tensor([1, 2, 1]) / 4, images.new_tensor([1, 0, -1])
    kernels = torch.stack([torch.outer(slope, smooth), torch.outer(smooth, slope)])[:, None]
    grey = F.pad(images.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    with exact(images):
        return F.conv2d(grey, kernels).square().mean(1).sqrt()
