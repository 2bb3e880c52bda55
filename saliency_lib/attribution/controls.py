"""Controls: maps that do not depend on the model. A method has to be better than they are."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saliency_lib.attribution.table import METHODS, PARTICULAR_METHODS
from saliency_lib.core.batching import without_autocast
from saliency_lib.core.checks import check_images
from saliency_lib.core.options import Seed
from saliency_lib.core.streams import Indices, noise, row_indices


@METHODS.register(family="control", passes="none", paper="control")
def random(model: nn.Module, images: Tensor, targets: Tensor | None = None, *, seed: Seed = 0, indices: Indices = None) -> Tensor:
    """Return uniform noise in [0, 1), fixed for each image by the seed and the image's index.

    Returns:
        (B, H, W).
    """
    return noise(check_images(images)[:, 0], row_indices(images, indices), seed, "random")


@METHODS.register(family="control", passes="none", paper="Adebayo et al. 2018")
def edges(model: nn.Module, images: Tensor, targets: Tensor | None = None) -> Tensor:
    """Compute the Sobel edge strength of each image's mean over channels.

    Returns:
        (B, H, W), not negative; 0 where the image is flat.

    Source: Adebayo et al. 2018, section 4: an edge detector looks like a saliency map and explains nothing.
    """
    images = check_images(images)
    smooth, slope = images.new_tensor([1, 2, 1]) / 4, images.new_tensor([1, 0, -1])
    kernels = torch.stack([torch.outer(slope, smooth), torch.outer(smooth, slope)])[:, None]
    grey = F.pad(images.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    with without_autocast(images):
        return F.conv2d(grey, kernels).square().mean(1).sqrt()


@PARTICULAR_METHODS.register(family="control", passes="none", paper="control", needs="words")
def rarity(model: nn.Module, images: Tensor, targets: Tensor | None = None) -> Tensor:
    """Return how rare each word is in its text: minus the logarithm of its share of the words. It does not look at the model.

    Args:
        images: (B, 1, 1, T) texts.

    Returns:
        (B, 1, T), not negative.
    """
    words = check_images(images)[:, :, 0].transpose(1, 2)
    same = (words[:, None] == words[:, :, None]).all(3).to(images.dtype)
    return -same.mean(2).log()[:, None]
