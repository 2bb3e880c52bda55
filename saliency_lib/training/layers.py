"""What a training does to single layers: it fits some to their inputs, and says which passes BatchNorm's statistics follow."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from saliency_lib.core.batching import frozen

AT_FIRST = 1000  # images to which layers are fitted before the first epoch


def fit_layers(model: nn.Module, images: Tensor) -> None:
    """Fit the layers that are not `fitted` yet, by their method `fit_to_inputs`, to images (N, C, H, W) that pass through."""

    def fit_first(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        cast(Any, layer).fit_to_inputs(*inputs)

    layers = [module for module in model.modules() if hasattr(module, "fit_to_inputs") and not module.fitted]
    if not layers:
        return
    handles = [layer.register_forward_pre_hook(fit_first) for layer in layers]
    with frozen(model), torch.no_grad():
        model(images)
    for handle in handles:
        handle.remove()


def norms_of(model: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """Return the BatchNorms of a model."""
    return [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


def freeze_batch_norm(model: nn.Module) -> None:
    """Let BatchNorm normalise with the statistics that it has, without updating them."""
    for norm in norms_of(model):
        norm.eval()


@contextmanager
def clean_statistics(model: nn.Module) -> Iterator[None]:
    """Let only the first forward pass in training mode, which is of the clean images, update the statistics of BatchNorm."""
    tracking = [norm for norm in norms_of(model) if norm.track_running_stats]

    def rest(module: nn.Module, inputs: object, output: object) -> None:
        if module.training:
            for norm in tracking:
                norm.track_running_stats = False

    handle = model.register_forward_hook(rest)
    try:
        yield
    finally:
        handle.remove()
        for norm in tracking:
            norm.track_running_stats = True
