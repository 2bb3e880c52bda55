"""Find the layer whose feature maps a class activation map is made of, and cut the graph at it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from saliency_lib.core.batching import frozen
from saliency_lib.core.checks import check_model
from saliency_lib.core.registry import no_such

POOLS = (
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool2d,
    nn.Dropout,
    nn.Identity,
)  # no default: they pool to a fixed size, or do nothing
LEAST = 4  # positions along each side of the default layer, if any layer has as many


@dataclass(frozen=True)
class Spatial:
    """What a layer with positions gives.

    Args:
        size: (h, w) of its last output.
        uses: how often the model uses it in one forward pass.
    """

    size: tuple[int, int]
    uses: int


def channels_last(features: Tensor, images: Tensor) -> bool:
    """Return whether the second and third axes of features (B, ., ., .) have the images' proportions, and not the last two."""
    _, first, second, third = features.shape
    height, width = images.shape[2:]
    return abs(first * width - second * height) < abs(second * width - third * height)


def spatial_layers(model: nn.Module, images: Tensor) -> dict[str, Spatial]:
    """Find the layers that a class activation map can be made of, by dotted name, in the order in which they finish.

    They are the modules whose last output is (B, channels, h, w) with more than one position, after the first parameters.

    Args:
        images: (B, C, H, W); the first is sent through the model.
    """
    found: dict[str, Spatial] = {}
    uses: dict[str, int] = {}
    learned = [False]  # whether a module with parameters has finished

    def note(name: str) -> Callable[[nn.Module, tuple, object], None]:
        def hook(module: nn.Module, inputs: tuple, output: object) -> None:
            uses[name] = uses.get(name, 0) + 1
            found.pop(name, None)
            learned[0] |= next(module.parameters(), None) is not None
            if learned[0] and isinstance(output, Tensor) and output.ndim == 4 and not channels_last(output, images):
                height, width = output.shape[2:]
                if height * width > 1:
                    found[name] = Spatial((height, width), uses[name])

        return hook

    handles = [module.register_forward_hook(note(name)) for name, module in model.named_modules() if name]
    try:
        with frozen(model), torch.no_grad():
            model(images[:1])
    finally:
        for handle in handles:
            handle.remove()
    return found


def every_path_crosses(model: nn.Module, module: nn.Module, uses: int, images: Tensor) -> bool:
    """Return whether the logits depend on the image through the last use of the module alone.

    The first image is sent through the model, with that output cut off from what it was computed from. If the logits then have no
    graph, no other path leads to them.
    """
    calls = 0

    def cut(module: nn.Module, inputs: tuple, output: Tensor) -> Tensor | None:
        nonlocal calls
        calls += 1
        return output.detach() if calls == uses else None

    handle = module.register_forward_hook(cut)
    try:
        with frozen(model), torch.enable_grad():
            return not model(images[:1].detach().clone().requires_grad_()).requires_grad
    finally:
        handle.remove()


def find_layer(model: nn.Module, layer: nn.Module | str | None, images: Tensor) -> nn.Module:
    """Return the module that `layer` names.

    None is the last module with at least 4x4 positions that every path from the image to the logits crosses and that does not
    pool to a fixed size. A module inside a branch would miss what the other branches carry. On small images the last layers of a
    network have few positions, too few for a map. If no such module has 4x4, the last with more than one position is used.

    A name may be the network's own (`layer4`) if the model wraps it (`network.layer4`). The images may be on another device than
    the model, or of another precision.

    Raises:
        ValueError: the model has no such module; the message lists the candidates.
    """
    check_model(model)
    modules = dict(model.named_modules())
    if isinstance(layer, nn.Module):
        if any(layer is module for module in modules.values()):
            return layer
        raise ValueError(f"layer {type(layer).__name__} is not a module of this model; pass one of its modules or a name")
    for name in (layer, f"network.{layer}"):
        if name in modules:
            return modules[name]  # its output is checked when it is computed
    images = images[:1].to(next(model.parameters(), images))
    candidates = spatial_layers(model, images)
    if layer is not None:
        raise no_such("layer with a spatial output", layer, [name.removeprefix("network.") for name in candidates])
    names = [name for name in candidates if not isinstance(modules[name], POOLS)][::-1]
    large = [name for name in names if min(candidates[name].size) >= LEAST]
    for name in (*large, *(name for name in names if name not in large)):
        if every_path_crosses(model, modules[name], candidates[name].uses, images):
            return modules[name]
    raise ValueError(
        "no layer with an output (B, channels, h, w) lies on every path from the image to the logits at this image size; "
        f"choose one with layer=, for instance of {', '.join(names[:5]) or 'a larger image'}"
    )


class _Reached(Exception):
    """The requested layer has produced its output."""


@contextmanager
def leaf_at(module: nn.Module, *, stop: bool = False) -> Iterator[list[Tensor]]:
    """While active, cut each output of `module` off from its inputs and collect it as a leaf of the graph.

    Args:
        stop: end the forward pass at the first output, and leave the block.
    """
    leaves: list[Tensor] = []

    def cut(module: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
        if not isinstance(output, Tensor):
            raise ValueError(f"the layer's output must be a tensor, got {type(output).__name__}; choose another layer")
        leaves.append(output.detach().requires_grad_())
        if stop:
            raise _Reached
        return leaves[-1].clone()  # an in-place activation may follow, and a leaf must not be overwritten

    handle = module.register_forward_hook(cut)
    try:
        yield leaves
    except _Reached:
        pass
    finally:
        handle.remove()


def spatial_output(leaves: list[Tensor], images: Tensor) -> Tensor:
    """Return the last output that `leaf_at` collected, and refuse it if it is not (B, channels, h, w)."""
    if not leaves or leaves[-1].ndim != 4:
        got = tuple(leaves[-1].shape) if leaves else "no output"
        raise ValueError(f"the layer's output must be (B, channels, h, w), got {got}; choose another layer")
    if channels_last(leaves[-1], images):
        got = tuple(leaves[-1].shape)
        raise ValueError(
            f"the layer's output {got} has its channels last, (B, h, w, channels); choose a layer with channels first"
        )
    return leaves[-1]
