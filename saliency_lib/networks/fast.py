"""A network that learns CIFAR-10 in minutes: whitened patches, three groups of convolutions, and logits made small."""

from collections import OrderedDict
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from saliency_lib.networks.convolutional import ACTIVATIONS, Activation
from saliency_lib.networks.pixels import PixelModel, Resize, for_channels
from saliency_lib.networks.table import MODELS, Side

CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
PATCH = 2  # pixels of a side
SMALLEST_VARIANCE = 5e-4
LOGITS = 1 / 9
LEAST = 25  # pixels of a side; smaller images are enlarged
MOMENTUM = 0.4  # of BatchNorm: the share of the new batch


class Whitening(nn.Conv2d):
    """Filters that give patches of the training images variance 1, each with both signs; only their bias is trained."""

    fitted: Tensor  # whether it has such filters, which a training that starts from them keeps

    def __init__(self, channels: int):
        super().__init__(channels, 2 * channels * PATCH**2, PATCH)
        self.weight.requires_grad_(False)
        self.register_buffer("fitted", torch.tensor(False))
        with torch.no_grad():
            cast(Tensor, self.bias).zero_()

    def forward(self, images: Tensor) -> Tensor:
        """Return features in the layout in which all later layers are fastest."""
        return super().forward(images.contiguous(memory_format=torch.channels_last))

    def fit_to_inputs(self, images: Tensor) -> None:
        """Set the filters to the eigenvectors of the patches of images (N, C, H, W), over the roots of their variances."""
        patches = images.unfold(2, PATCH, 1).unfold(3, PATCH, 1).permute(0, 2, 3, 1, 4, 5).flatten(0, 2).flatten(1)
        variances, vectors = torch.linalg.eigh(patches.double().T.cov().cpu())
        filters = (vectors / (variances + SMALLEST_VARIANCE).sqrt()).T.reshape(-1, *self.weight.shape[1:])
        with torch.no_grad():
            self.weight.copy_(torch.cat([filters, -filters]))
            self.fitted.fill_(True)


class Times(nn.Module):
    """Multiply by a number."""

    def __init__(self, factor: float):
        super().__init__()
        self.factor = factor

    def forward(self, values: Tensor) -> Tensor:
        """Return the values times the factor."""
        return values * self.factor

    def extra_repr(self) -> str:
        """Return the factor, for the representation of a network."""
        return f"{self.factor:.3g}"


def _convolution(inputs: int, outputs: int) -> nn.Conv2d:
    """Return a 3x3 convolution that begins by passing on its inputs, as the first of its outputs."""
    layer = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    nn.init.dirac_(layer.weight.data[:inputs])
    return layer


def _norm(features: int) -> nn.BatchNorm2d:
    """Return a BatchNorm whose scale stays 1."""
    norm = nn.BatchNorm2d(features, momentum=MOMENTUM)
    norm.weight.requires_grad_(False)
    return norm


def _group(inputs: int, outputs: int, act: Callable[[], nn.Module], pool: nn.Module) -> nn.Sequential:
    return nn.Sequential(
        _convolution(inputs, outputs), pool, _norm(outputs), act(), _convolution(outputs, outputs), _norm(outputs), act()
    )


@MODELS.register
def cifar_fast(
    classes: int = 10, channels: int = 3, pretrained: bool = False, *, activation: Activation = "relu", width: Side = 64
) -> PixelModel:
    """Build a network of seven convolutions for images of 32 pixels that learns CIFAR-10 in minutes, normalised as CIFAR-10.

    The filters of the first layer whiten patches of the training images: a training sets them before its first epoch.

    Args:
        activation: `relu`, `gelu`, or `softplus` (beta 10), with which the max-pools are average-pools.
        width: of the first group; the second and third have twice as many features.

    Source: Jordan 2024, arXiv 2404.00498.
    Differs: other activations than GELU are possible; there is no test-time augmentation and no average of weights.
    """
    act, pool = ACTIVATIONS[activation], nn.AvgPool2d if activation == "softplus" else nn.MaxPool2d
    whitening = Whitening(channels)
    head = nn.Linear(2 * width, classes, bias=False)
    with torch.no_grad():
        head.weight /= head.weight.std()
    parts = {
        "whitening": whitening,
        "act": act(),
        "group1": _group(whitening.out_channels, width, act, pool(2)),
        "group2": _group(width, 2 * width, act, pool(2)),
        "group3": _group(2 * width, 2 * width, act, pool(2)),
        "pool": pool(3),
        "mean": nn.AdaptiveAvgPool2d(1),  # of 32 pixels one position is left already
        "flatten": nn.Flatten(),
        "head": head,
        "times": Times(LOGITS),
    }
    normalisation = for_channels(CIFAR_MEAN, CIFAR_STD, channels)
    return PixelModel(nn.Sequential(OrderedDict(parts)), *normalisation, Resize(channels, LEAST))
