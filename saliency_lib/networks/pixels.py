"""Models of pixels in [0, 1]: the normalisation is their first layer."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saliency_lib.networks.table import Side


def for_channels(mean: Sequence[float], std: Sequence[float], channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the normalisation of colours for images with that many channels: for grey ones, the means of both."""
    return (tuple(mean), tuple(std)) if channels == 3 else ((sum(mean) / 3,), (sum(std) / 3,))


class Normalise(nn.Module):
    """(pixels - mean) / std, with mean and std of shape (C, 1, 1)."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the normalised pixels (N, C, H, W)."""
        return (pixels - self.mean) / self.std


class Resize(nn.Module):
    """Brings normalised images to what a network accepts: repeats a grey channel, and resizes bilinearly.

    Args:
        channels: of the network, 1 or 3.
        side: the least side in pixels; a shorter one is enlarged to it.
        fixed: whether the network accepts no other side.
    """

    def __init__(self, channels: int, side: Side = 1, fixed: bool = False):
        super().__init__()
        self.channels, self.side, self.fixed = channels, side, fixed

    def forward(self, images: Tensor) -> Tensor:
        """Return images (N, channels, H, W) of a size that the network accepts."""
        images = images.expand(-1, self.channels, -1, -1)
        size = [self.side if self.fixed else max(length, self.side) for length in images.shape[2:]]
        if size == list(images.shape[2:]):
            return images
        return F.interpolate(images, size=size, mode="bilinear", align_corners=False)


class PixelModel(nn.Module):
    """A network with its normalisation as the first layer: pixels (N, C, H, W) in [0, 1] to logits (N, K).

    A grey model of a colour network repeats the channel after the normalisation, so that `pixel_mean` stays exact.

    Args:
        network: maps normalised and resized images to logits.
        mean, std: of the normalisation, one number per channel of the pixels.
        resize: brings the normalised images to what the network accepts; if it is None, they are left as they are.
    """

    normalise: Normalise
    resize: nn.Module
    network: nn.Module

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float], resize: nn.Module | None = None):
        super().__init__()
        self.normalise = Normalise(mean, std)
        self.resize = resize or nn.Identity()
        self.network = network

    @property
    def pixel_mean(self) -> Tensor:
        """The colour (C,) that is zero after the normalisation."""
        return self.normalise.mean.flatten()

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the logits (N, K) of pixels (N, C, H, W)."""
        channels = len(self.normalise.mean)
        if pixels.ndim != 4 or pixels.shape[1] != channels:
            raise ValueError(
                f"the model needs pixels (N, {channels}, H, W), got {tuple(pixels.shape)}; build it with another channels="
            )
        return self.network(self.resize(self.normalise(pixels)))
