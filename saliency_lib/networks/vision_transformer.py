"""A small vision transformer that learns CIFAR-10 in tens of minutes."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from saliency_lib.networks.fast import CIFAR_MEAN, CIFAR_STD
from saliency_lib.networks.pixels import PixelModel, Resize, for_channels
from saliency_lib.networks.table import MODELS, Side

GRID = 8  # positions of a side
HEADS = 4


class Layer(nn.Module):
    """Attention and two linear layers, each after a LayerNorm and added to what comes in."""

    def __init__(self, width: int):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mixed, self.after = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.feed = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, tokens: Tensor) -> Tensor:
        """Return tokens (B, N, width)."""
        query, key, value = self.mixed(self.norm1(tokens)).unflatten(2, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(query, key, value)
        tokens = tokens + self.after(seen.transpose(1, 2).flatten(2))
        return tokens + self.feed(self.norm2(tokens))


class Patches(nn.Module):
    """Two convolutions that make 8x8 tokens of an image of 32 pixels, and a class token, with learned positions."""

    def __init__(self, channels: int, width: int):
        super().__init__()
        first, second = nn.Conv2d(channels, width // 2, 4, 2, 1), nn.Conv2d(width // 2, width, 4, 2, 1)
        self.stem = nn.Sequential(first, nn.ReLU(), second, nn.ReLU())
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(0.02 * torch.randn(1, GRID**2 + 1, width))

    def forward(self, images: Tensor) -> Tensor:
        """Return tokens (B, 1 + 64, width), the class token first."""
        patches = self.stem(images).flatten(2).mT
        return torch.cat([self.class_token.expand(len(patches), -1, -1), patches], 1) + self.positions


class VisionTransformer(nn.Module):
    """Layers over patches and a class token, which alone is classified."""

    def __init__(self, classes: int, channels: int, width: int, layers: int):
        super().__init__()
        self.patches, self.layers = Patches(channels, width), nn.Sequential(*(Layer(width) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (B, K) of images (B, C, 32, 32)."""
        return self.head(self.norm(self.layers(self.patches(images))[:, 0]))


@MODELS.register
def cifar_vit(
    classes: int = 10, channels: int = 3, pretrained: bool = False, *, width: Side = 96, layers: Side = 4
) -> PixelModel:
    """Build a vision transformer of four layers for images of 32 pixels, normalised as CIFAR-10.

    Args:
        width: features of a token, a multiple of 4, the number of heads.

    Source: Dosovitskiy et al. 2021; Hassani et al. 2021 for convolutions in place of linear patches, without which so small a
    network learns little from 50,000 images.
    """
    if width % HEADS:
        raise ValueError(f"width of cifar_vit must be a multiple of {HEADS}, the number of its heads, got {width!r}")
    normalisation = for_channels(CIFAR_MEAN, CIFAR_STD, channels)
    return PixelModel(VisionTransformer(classes, channels, width, layers), *normalisation, Resize(channels, 4 * GRID, fixed=True))
