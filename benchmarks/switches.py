"""Races of options that a user can turn on: the time that each saves, and how well the maps keep their ranks."""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from unittest import mock

import torch
from torch import Tensor, nn

import saliency_lib as sl
from benchmarks.measure import Race, Unavailable, rank_correlation
from benchmarks.scenes import device, network, photographs

Change = Callable[[nn.Module], AbstractContextManager[nn.Module]]
PASSES_OPTION = {"rise": "masks", "integrated_gradients": "steps"}  # the option that sets a method's number of passes


def _subject(name: str, images: int) -> tuple[nn.Module, Tensor]:
    """Return a network with published weights and ImageNet's sample images, or the photographs if they are not installed.

    The `cnn` has no published weights and gets small photographs.
    """
    if name == "cnn":
        return network(name, 32), photographs(images, 32)
    model = sl.MODELS[name](classes=1000, pretrained=True).eval().to(device())
    try:
        pixels = sl.DATASETS["imagenet_samples"](split="test").images[::150]
    except FileNotFoundError:
        pixels = sl.DATASETS["photos"](split="test").images
    return model, pixels[:images].to(device())


def _race(model: str, method: str, images: int, passes: int, plain: Change, changed: Change, low: float) -> Race:
    """Build the race of a method on the model under two changes, for the classes that the unchanged model predicts."""
    whole, pixels = _subject(model, images)
    with torch.no_grad():
        targets = whole(pixels).argmax(1)

    def under(change: Change) -> Callable[[], Tensor]:
        def run() -> Tensor:
            with change(whole) as used:
                return sl.METHODS[method](used, pixels, targets, **{PASSES_OPTION[method]: passes})

        return run

    return Race(under(changed), under(plain), rank_correlation(low))


class Cast(nn.Module):
    """A network that computes in bfloat16 and returns its logits in float32.

    Only the network is cast, because autocast around a whole kernel would also round its masks and sums.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        with torch.autocast(pixels.device.type, torch.bfloat16):
            return self.network(pixels).float()


def bfloat16(model: str, method: str, images: int, passes: int) -> Race:
    """Build the race of autocast to bfloat16 against float32.

    Raises:
        Unavailable: the hardware has no bfloat16 arithmetic, and emulation is slower.
    """
    if torch.cuda.is_available():
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    if not native:
        raise Unavailable("not on this hardware: no bfloat16 arithmetic")
    # the correlation is a result here, not a condition
    return _race(model, method, images, passes, nullcontext, lambda whole: nullcontext(Cast(whole)), -1)


@contextmanager
def _channels_first(model: nn.Module) -> Iterator[nn.Module]:
    with ExitStack() as stack:
        for name, module in list(sys.modules.items()):
            if name.startswith("saliency_lib.") and hasattr(module, "arranged"):
                stack.enter_context(mock.patch.object(module, "arranged", Tensor.contiguous))
        yield model


def channels_last(model: str, method: str, images: int, passes: int) -> Race:
    """Build the race of channels last in memory, as in the kernels, against channels first."""
    return _race(model, method, images, passes, _channels_first, nullcontext, 0.99)
