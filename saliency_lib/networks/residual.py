"""The residual networks of He et al. for CIFAR-10, and their published weights."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from saliency_lib.networks.pixels import PixelModel, Resize, for_channels
from saliency_lib.networks.published import load_weights, stored
from saliency_lib.networks.table import IMAGENET_MEAN, IMAGENET_STD, MODELS


class Block(nn.Module):
    """Two 3x3 convolutions with BatchNorm, and a shortcut without parameters."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu2 = nn.ReLU()
        self.stride, self.more = stride, outputs - inputs

    def forward(self, features: Tensor) -> Tensor:
        """Return features (N, outputs, H / stride, W / stride); a shortcut to more channels skips positions and adds zeros."""
        residual = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(features)))))
        if self.more:
            features = F.pad(features[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.more // 2, self.more // 2))
        return self.relu2(residual + features)


class ResNet(nn.Module):
    """A stem, three stages of 16, 32 and 64 channels, the mean over positions, and a linear layer."""

    def __init__(self, blocks: int, classes: int):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU()
        self.layer1 = nn.Sequential(*[Block(16, 16, 1) for _ in range(blocks)])
        self.layer2 = nn.Sequential(Block(16, 32, 2), *[Block(32, 32, 1) for _ in range(blocks - 1)])
        self.layer3 = nn.Sequential(Block(32, 64, 2), *[Block(64, 64, 1) for _ in range(blocks - 1)])
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(64, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, K) of normalised images (N, 3, H, W)."""
        features = self.layer3(self.layer2(self.layer1(self.relu(self.bn1(self.conv1(images))))))
        return self.linear(self.pool(features).flatten(1))


ORIGIN = "akamaster/pytorch_resnet_cifar10"
CONTENTS = {20: "bb7e61c2", 32: "60a5baf7", 44: "ba1e7c29", 56: "fad67685"}  # of the published weights by depth, see `stored`


def _resnet(depth: int) -> Callable[..., PixelModel]:
    """Return the function that builds the network of a depth."""

    def build(classes: int = 10, channels: int = 3, pretrained: bool = False) -> PixelModel:
        network = ResNet((depth - 2) // 6, classes)
        if pretrained:
            load_weights(network, stored(f"cifar10_resnet{depth}", CONTENTS[depth], ORIGIN), 10, classes)
        return PixelModel(network, *for_channels(IMAGENET_MEAN, IMAGENET_STD, channels), Resize(3))

    build.__qualname__ = f"cifar_resnet{depth}"
    build.__doc__ = f"""Build the ResNet-{depth} of He et al. for images of 32 pixels, with ImageNet's normalisation.

    The weights are those of akamaster/pytorch_resnet_cifar10 (BSD licence), which predict CIFAR-10's classes.

    Source: He, Zhang, Ren, Sun 2016, section 4.2, with shortcuts of option A."""
    return build


for _depth in CONTENTS:
    MODELS.register(name=f"cifar_resnet{_depth}", weights=ORIGIN, predicts="cifar10", known=10)(_resnet(_depth))
