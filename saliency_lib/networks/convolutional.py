"""The papers' own convolutional networks of images."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Annotated

from torch import Tensor, nn

from saliency_lib.core.options import Names
from saliency_lib.networks.pixels import PixelModel
from saliency_lib.networks.table import MODELS, Side

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "softplus": lambda: nn.Softplus(beta=10),
}
Activation = Annotated[str, Names(ACTIVATIONS)]


def _without_normalisation(network: nn.Module, channels: int) -> PixelModel:
    return PixelModel(network, mean=[0.0] * channels, std=[1.0] * channels)


@MODELS.register
def cnn(
    classes: int = 10,
    channels: int = 3,
    pretrained: bool = False,
    *,
    width: Side = 32,
    batch_norm: bool = False,
    activation: Activation = "relu",
) -> PixelModel:
    """Build PAG's convolutional network for images of 28 pixels and more, without normalisation.

    Args:
        width: of the stem and the first block; the second and third have twice and four times as many features.
        batch_norm: BatchNorm after every convolution. The paper's network has none, and without it does not learn `shapes`.
        activation: `relu`, as in the paper; `gelu` or `softplus` (beta 10), whose second derivatives score matching needs. With
            these two the max-pool is an average-pool.

    Source: Llorente et al. 2023, released code.
    """
    act, pool = ACTIVATIONS[activation], nn.MaxPool2d(3, 2, 1) if activation == "relu" else nn.AvgPool2d(3, 2, 1)

    def norm(outputs: int) -> list[nn.Module]:
        return [nn.BatchNorm2d(outputs)] if batch_norm else []

    layers: list[nn.Module] = [nn.Conv2d(channels, width, 7, 2, 3), *norm(width), act(), pool]
    features = width
    for wider in (width, 2 * width, 4 * width):
        for inputs, stride in ((features, 1), (wider, 2), (wider, 1)):
            layers += [nn.Conv2d(inputs, wider, 3, stride, 1), *norm(wider), act()]
        features = wider
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(features, classes)]
    return _without_normalisation(nn.Sequential(*layers), channels)


@MODELS.register
def sgt_cnn(classes: int = 10, channels: int = 3, pretrained: bool = False) -> PixelModel:
    """Build SGT's network for MNIST, with MNIST's normalisation (.1307, .3081) in every channel.

    Source: Ismail et al. 2021, released code.
    Differs: returns logits, not their log-softmax; features are averaged to 12x12, the size that they have at 28 pixels.
    """
    network = nn.Sequential(
        nn.Conv2d(channels, 32, 3),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.AdaptiveAvgPool2d(12),
        nn.Dropout(0.25),
        nn.Flatten(),
        nn.Linear(64 * 12 * 12, 128),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(128, classes),
    )
    return PixelModel(network, mean=[0.1307] * channels, std=[0.3081] * channels)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with BatchNorm, and a shortcut that is a 1x1 convolution if the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int, activation: Callable[[], nn.Module]):
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            activation(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = nn.Sequential()
        if (inputs, stride) != (outputs, 1):
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        self.activation = activation()

    def forward(self, features: Tensor) -> Tensor:
        """Return features (N, outputs, H / stride, W / stride)."""
        return self.activation(self.residual(features) + self.shortcut(features))


def _cifar_resnet(blocks: Sequence[int], classes: int, channels: int, activation: str, width: Side = 64) -> PixelModel:
    act = ACTIVATIONS[activation]
    stem = nn.Sequential(nn.Conv2d(channels, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), act())
    parts: dict[str, nn.Module] = {"stem": stem}
    inputs = width
    for stage, (depth, outputs) in enumerate(zip(blocks, (width, 2 * width, 4 * width, 8 * width), strict=True), 1):
        strides = [1 if stage == 1 else 2] + [1] * (depth - 1)
        layers = [BasicBlock(outputs if i else inputs, outputs, stride, act) for i, stride in enumerate(strides)]
        parts[f"layer{stage}"] = nn.Sequential(*layers)
        inputs = outputs
    parts |= {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "fc": nn.Linear(8 * width, classes)}
    return _without_normalisation(nn.Sequential(OrderedDict(parts)), channels)


@MODELS.register
def cifar_resnet9(
    classes: int = 10, channels: int = 3, pretrained: bool = False, *, activation: Activation = "softplus", width: Side = 64
) -> PixelModel:
    """Build RG's ResNet with one block per stage, a stem of one 3x3 convolution and no normalisation.

    Args:
        activation: `softplus` (beta 10) or `gelu`, whose second derivatives score matching needs, or `relu`.
        width: of the first stage; each of the others is twice as wide as the one before.

    Source: Srinivas and Fleuret 2021, released code.
    """
    return _cifar_resnet((1, 1, 1, 1), classes, channels, activation, width)


@MODELS.register
def cifar_resnet18(
    classes: int = 10, channels: int = 3, pretrained: bool = False, *, activation: Activation = "softplus"
) -> PixelModel:
    """Build RG's ResNet-18, otherwise like `cifar_resnet9`. Source: Srinivas and Fleuret 2021, released code."""
    return _cifar_resnet((2, 2, 2, 2), classes, channels, activation)


@MODELS.register
def cifar_resnet34(
    classes: int = 10, channels: int = 3, pretrained: bool = False, *, activation: Activation = "softplus"
) -> PixelModel:
    """Build RG's ResNet-34, otherwise like `cifar_resnet9`. Source: Srinivas and Fleuret 2021, released code."""
    return _cifar_resnet((3, 4, 6, 3), classes, channels, activation)
