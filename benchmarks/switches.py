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
from benchmarks.scenes import device

Change = Callable[[nn.Module], AbstractContextManager[nn.Module]]
METHODS = {"rise": "masks", "integrated_gradients": "steps"}  # and what their passes are counted in


def _subject(images: int) -> tuple[nn.Module, Tensor]:
    """EfficientNet-Lite0 with its published weights and ImageNet's sample images, or the photographs where they are not."""
    model = sl.MODELS["efficientnet_lite0"](classes=1000, pretrained=True).eval().to(device())
    try:
        pixels = sl.DATASETS["imagenet_samples"](split="test").images[::150]
    except FileNotFoundError:
        pixels = sl.DATASETS["photos"](split="test").images
    return model, pixels[:images].to(device())


def _race(method: str, images: int, passes: int, plain: Change, changed: Change, low: float) -> Race:
    """The method on the model as `plain` and as `changed` have it, for the classes that the model itself predicts."""
    model, pixels = _subject(images)
    with torch.no_grad():
        targets = model(pixels).argmax(1)

    def under(change: Change) -> Callable[[], Tensor]:
        def run() -> Tensor:
            with change(model) as used:
                return sl.METHODS[method](used, pixels, targets, **{METHODS[method]: passes})

        return run

    return Race(under(changed), under(plain), rank_correlation(low))


@contextmanager
def _cast(model: nn.Module) -> Iterator[nn.Module]:
    with torch.autocast(device().type, torch.bfloat16):
        yield model


def bfloat16(method: str, images: int, passes: int) -> Race:
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
    return _race(method, images, passes, nullcontext, _cast, 0.5)


@contextmanager
def _channels_first(model: nn.Module) -> Iterator[nn.Module]:
    with ExitStack() as stack:
        for name, module in list(sys.modules.items()):
            if name.startswith("saliency_lib.") and hasattr(module, "arranged"):
                stack.enter_context(mock.patch.object(module, "arranged", Tensor.contiguous))
        yield model


def channels_last(method: str, images: int, passes: int) -> Race:
    """Channels innermost in memory, as the kernels have them, against first."""
    return _race(method, images, passes, _channels_first, nullcontext, 0.99)


def compiled(method: str, images: int, passes: int) -> Race:
    """The network through torch.compile, against eager; compiling is not timed.

    Raises:
        Unavailable: there is no C++ compiler.
    """
    if shutil.which("g++") is None and not torch.cuda.is_available():
        raise Unavailable("not on this machine: torch.compile needs a C++ compiler")
    faster = cache(torch.compile)
    return _race(method, images, passes, nullcontext, lambda model: nullcontext(faster(model)), 0.99)
