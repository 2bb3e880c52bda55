"""Class activation maps: the feature maps of one layer, weighed by what the class score says of them."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saliency_lib.attribution.table import METHODS
from saliency_lib.core.batching import arranged, chunk_size, classes_of, frozen, in_chunks, recording
from saliency_lib.core.checks import as_targets, check_images, check_model
from saliency_lib.core.registry import no_such


def spatial_layers(model: nn.Module, images: Tensor) -> dict[str, tuple[int, int]]:
    """The layers that one can put a class activation map on, in the order in which they finish.

    Args:
        images: (B, C, H, W); the first is sent through the model.

    Returns:
        Dotted name of each module whose last output is (B, channels, h, w) with more than one position: (h, w).
    """
    sizes: dict[str, tuple[int, int]] = {}

    def note(name: str):
        def hook(module: nn.Module, inputs: tuple, output: object) -> None:
            sizes.pop(name, None)
            if isinstance(output, Tensor) and output.ndim == 4 and output.shape[2] * output.shape[3] > 1:
                sizes[name] = (output.shape[2], output.shape[3])

        return hook

    handles = [module.register_forward_hook(note(name)) for name, module in model.named_modules() if name]
    try:
        with frozen(model), torch.no_grad():
            model(images[:1])
    finally:
        for handle in handles:
            handle.remove()
    return sizes


def find_layer(model: nn.Module, layer: nn.Module | str | None, images: Tensor) -> nn.Module:
    """The module meant by `layer`; None means the last one with 4x4 or more positions that is no pooling to a fixed size.

    On small images the last layers of a network have one or few positions, of which no map can be made; where none has
    4x4, the last that has more than one is taken.

    Names may be given as the network's own (`layer4`) where the model wraps it (`network.layer4`).

    Raises:
        ValueError: not a module of the model; the message lists the candidates.
    """
    check_model(model)
    modules = dict(model.named_modules())
    if isinstance(layer, nn.Module):
        if any(layer is module for module in modules.values()):
            return layer
        raise ValueError(f"layer {type(layer).__name__} is not a module of this model; pass one of its own or a name")
    for name in (layer, f"network.{layer}"):
        if name in modules:
            return modules[name]  # whether its output is spatial is seen when it is made
    candidates = spatial_layers(model, images)
    if layer is None:
        pools = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.Dropout, nn.Identity)
        names = [name for name in candidates if not isinstance(modules[name], pools)]
        if not names:
            raise ValueError("no layer of this model has a spatial output (B, channels, h, w) at this image size")
        return modules[next((name for name in reversed(names) if min(candidates[name]) >= 4), names[-1])]
    raise no_such("layer with a spatial output", layer, [name.removeprefix("network.") for name in candidates])


class _Reached(Exception):
    """The layer that was asked for has given its output."""


@contextmanager
def leaf_at(module: nn.Module, *, stop: bool = False) -> Iterator[list[Tensor]]:
    """While active, each output of `module` is cut off from what led to it and collected as a leaf of the graph.

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
        return leaves[-1].clone()  # an in-place activation may follow, and a leaf must not be written to

    handle = module.register_forward_hook(cut)
    try:
        yield leaves
    except _Reached:
        pass
    finally:
        handle.remove()


@METHODS.register(family="activation", passes="1 F + 1 B from the layer on", paper="Selvaraju et al. 2017")
def gradcam(
    model: nn.Module,
    images: Tensor,
    targets: Tensor | None = None,
    *,
    layer: nn.Module | str | None = None,
    batch_size: int | None = None,
) -> Tensor:
    """Feature maps of a layer weighed by their mean gradient, its positive part, enlarged to the image.

    L = ReLU(sum_k a_k A_k), a_k = mean over positions of d f_c / d A_k. The backward pass stops at the layer.

    Args:
        images: (B, C, H, W) pixels in [0, 1].
        targets: (B,) classes; None for the predicted ones.
        layer: a module or its dotted name; None takes the last layer that has 4x4 or more
            positions (`layer4` of a ResNet at 224 pixels). Of a layer that is used several times the last use counts.

    Returns:
        (B, H, W), not negative, bilinearly enlarged.

    Raises:
        ValueError: the layer is unknown or has no spatial output.

    Source: Selvaraju et al. 2017, section 3. Differs: f_c is the logit, also where the saliency benchmark's model ends
    in a softmax. Of a vision transformer the default is the patch embedding, its only layer with positions; a layer with
    channels last (inside Swin and ConvNeXt) must not be named, its axes are read as (channels, h, w).
    """
    images = check_images(images)
    module = find_layer(model, layer, images)
    maps: list[Tensor] = []
    with frozen(model):
        targets = None if targets is None else as_targets(targets, images)

        def add(start: int, stop: int) -> None:
            with recording(), leaf_at(module) as leaves:
                logits = model(arranged(images[start:stop]))
                if not leaves or leaves[-1].ndim != 4:
                    shape = tuple(leaves[-1].shape) if leaves else "none"
                    raise ValueError(f"the layer's output must be (B, channels, h, w), got {shape}")
                classes = classes_of(logits, None if targets is None else targets[start:stop])
                score = logits.gather(1, classes[:, None]).sum()
                gradient = torch.autograd.grad(score, leaves[-1], allow_unused=True)[0] if score.requires_grad else None
                if gradient is None:
                    raise ValueError("the class score does not depend on the layer; choose one that leads to the logits")
            weights = gradient.mean((2, 3), keepdim=True)
            small = (weights * leaves[-1].detach()).sum(1, keepdim=True).relu()
            enlarged = F.interpolate(small, images.shape[2:], mode="bilinear", align_corners=False)
            maps.append(enlarged[:, 0].to(images.dtype))

        in_chunks(add, len(images), chunk_size(images, batch_size))
    return torch.cat(maps)
