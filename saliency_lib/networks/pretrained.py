"""torchvision's classifiers and a compressed SqueezeNet, with ImageNet's published weights."""

import re
from collections.abc import Callable

import torch
import torchvision
from torch import Tensor
from torchvision.models import WeightsEnum

from saliency_lib import paths
from saliency_lib.networks.pixels import PixelModel, Resize, for_channels
from saliency_lib.networks.published import load_weights, read_named, stored
from saliency_lib.networks.table import IMAGENET_MEAN, IMAGENET_STD, MODELS, Preparation, Side

DEEP_COMPRESSION = "songhan/SqueezeNet-Deep-Compression"
COMPRESSED = Preparation(227, 256, mean=(123 / 255, 117 / 255, 104 / 255), std=(1 / 255,) * 3, stretched=True)


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
    return {older.sub(r"\1\2", key): value for key, value in read_named(file).items() if not key.lower().startswith("aux")}


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
            load_weights(network, _downloaded(_weights(name).url), 1000, classes)
        mean, std = (preparation.mean, preparation.std) if pretrained else (IMAGENET_MEAN, IMAGENET_STD)
        mean, std = for_channels(mean, std, channels)
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


@MODELS.register(weights=DEEP_COMPRESSION, preparation=COMPRESSED)
def squeezenet1_0_compressed(classes: int = 10, channels: int = 3, pretrained: bool = False, *, side: Side = 21) -> PixelModel:
    """Build SqueezeNet 1.0, normalised as the weights that Deep Compression compressed: mean (123, 117, 104)/255, std 1/255.

    Args:
        side: the least side in pixels; smaller images are enlarged to it inside the model, bilinearly.

    Source: Iandola et al. 2016; Han, Mao, Dally 2016, weights of songhan/SqueezeNet-Deep-Compression (BSD licence), for pictures
    of 227 pixels. `squeezenet1_0` has torchvision's own weights.
    """
    network = torchvision.models.squeezenet1_0(num_classes=classes)
    if pretrained:
        load_weights(network, stored("squeezenet1_0", "cdc5b73f", DEEP_COMPRESSION), 1000, classes)
    return PixelModel(network, *for_channels(COMPRESSED.mean, COMPRESSED.std, channels), Resize(3, side))
