"""Options that a user turns on, each with the time it saves and how far the maps keep their ranks."""

import importlib
import shutil
import sys
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from unittest import mock

import torch
from torch import Tensor, nn

import saliency_lib as sl
from benchmarks.measure import Race, Unavailable, rank_correlation
from benchmarks.scenes import device

METHODS = {"rise": "masks", "integrated_gradients": "steps"}  # and what their passes are counted in


def _subject(images: int) -> tuple[nn.Module, Tensor]:
    """EfficientNet-Lite0 with its published weights and ImageNet's sample images, or the photographs where they are not."""
    model = sl.MODELS["efficientnet_lite0"](classes=1000, pretrained=True).eval().to(device())
    try:
        pixels = sl.DATASETS["imagenet_samples"](split="test").images[::150]
    except FileNotFoundError:
        pixels = sl.DATASETS["photos"](split="test").images
    return model, pixels[:images].to(device())


def _race(method: str, images: int, passes: int, plain: Callable, changed: Callable, low: float) -> Race:
    """The method on the model as `plain` and as `changed` have it; both are contexts that give the model to use."""
    model, pixels = _subject(images)

    def under(change: Callable) -> Callable[[], Tensor]:
        def run() -> Tensor:
            with change(model) as used:
                return sl.METHODS[method](used, pixels, **{METHODS[method]: passes})

        return run

    return Race(under(changed), under(plain), rank_correlation(low))


def _bfloat16_is_native() -> bool:
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def bfloat16(method: str, images: int, passes: int) -> Race:
    """Autocast to bfloat16, against float32.

    Raises:
        Unavailable: the hardware has no such arithmetic; emulated it is slower.
    """
    if not _bfloat16_is_native():
        raise Unavailable("not on this hardware: no bfloat16 arithmetic")

    class Cast(ExitStack):
        """The model under autocast."""

        def __init__(self, model: nn.Module):
            super().__init__()
            self.model = model

        def __enter__(self) -> nn.Module:
            self.enter_context(torch.autocast(device().type, torch.bfloat16))
            return self.model

    return _race(method, images, passes, nullcontext, Cast, 0.5)


def channels_last(method: str, images: int, passes: int) -> Race:
    """Channels innermost in memory, as the kernels have them by default, against first."""

    class First(ExitStack):
        """The model while inputs go to it as they are."""

        def __init__(self, model: nn.Module):
            super().__init__()
            self.model = model

        def __enter__(self) -> nn.Module:
            importlib.import_module("saliency_lib.attribution")
            for name, module in list(sys.modules.items()):
                if name.startswith("saliency_lib.") and hasattr(module, "arranged"):
                    self.enter_context(mock.patch.object(module, "arranged", torch.Tensor.contiguous))
            return self.model

    return _race(method, images, passes, First, nullcontext, 0.99)


def compiled(method: str, images: int, passes: int) -> Race:
    """The network through torch.compile, against eager; compiling is not timed.

    Raises:
        Unavailable: there is no C++ compiler.
    """
    if not torch.cuda.is_available() and shutil.which("g++") is None:
        raise Unavailable("no C++ compiler here, which torch.compile needs")
    made: list[nn.Module] = []

    def once(model: nn.Module) -> nullcontext:
        if not made:
            made.append(torch.compile(model))
        return nullcontext(made[0])

    return _race(method, images, passes, nullcontext, once, 0.99)
