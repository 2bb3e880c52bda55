"""Options that a user turns on, each with the time it saves and how far the maps keep their ranks."""

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import cache
from unittest import mock

import torch
from torch import Tensor, nn

import saliency_lib as sl
from benchmarks.measure import Race, Unavailable, rank_correlation
from benchmarks.scenes import device, network, photographs

Change = Callable[[nn.Module], AbstractContextManager[nn.Module]]
METHODS = {"rise": "masks", "integrated_gradients": "steps"}  # and what their passes are counted in


def _subject(name: str, images: int) -> tuple[nn.Module, Tensor]:
    """A network with published weights and ImageNet's sample images, or the photographs where they are not.

    The `cnn`, which has none, gets small photographs.
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
    """The method on the model as `plain` and as `changed` have it, for the classes that the model itself predicts."""
    whole, pixels = _subject(model, images)
    with torch.no_grad():
        targets = whole(pixels).argmax(1)

    def under(change: Change) -> Callable[[], Tensor]:
        def run() -> Tensor:
            with change(whole) as used:
                return sl.METHODS[method](used, pixels, targets, **{METHODS[method]: passes})

        return run

    return Race(under(changed), under(plain), rank_correlation(low))


class Cast(nn.Module):
    """A network that computes in bfloat16 and gives its logits in float32.

    The network alone is cast: around a whole kernel autocast would round its masks and its sums too.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        with torch.autocast(pixels.device.type, torch.bfloat16):
            return self.network(pixels).float()


def bfloat16(model: str, method: str, images: int, passes: int) -> Race:
    """Autocast to bfloat16, against float32.

    Raises:
        Unavailable: the hardware has no such arithmetic; emulated it is slower.
    """
    if torch.cuda.is_available():
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    if not native:
        raise Unavailable("not on this hardware: no bfloat16 arithmetic")
    # however far the maps drift, that is the result
    return _race(model, method, images, passes, nullcontext, lambda whole: nullcontext(Cast(whole)), -1)


@contextmanager
def _channels_first(model: nn.Module) -> Iterator[nn.Module]:
    with ExitStack() as stack:
        for name, module in list(sys.modules.items()):
            if name.startswith("saliency_lib.") and hasattr(module, "arranged"):
                stack.enter_context(mock.patch.object(module, "arranged", Tensor.contiguous))
        yield model


def channels_last(model: str, method: str, images: int, passes: int) -> Race:
    """Channels innermost in memory, as the kernels have them, against first."""
    return _race(model, method, images, passes, _channels_first, nullcontext, 0.99)


def compiled(model: str, method: str, images: int, passes: int) -> Race:
    """The network through torch.compile, against eager; compiling is not timed.

    Raises:
        Unavailable: there is no C++ compiler.
    """
    if shutil.which("g++") is None and not torch.cuda.is_available():
        raise Unavailable("not on this machine: torch.compile needs a C++ compiler")
    faster = cache(torch.compile)
    return _race(model, method, images, passes, nullcontext, lambda whole: nullcontext(faster(whole)), 0.99)
