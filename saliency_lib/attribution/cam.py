"""Class activation maps: the feature maps of one layer, weighted by their effect on the class score."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saliency_lib.attribution.table import METHODS
from saliency_lib.core.batching import arranged, chunk_size, classes_of, frozen, in_chunks, recording
from saliency_lib.core.checks import as_targets, check_images, check_model
from saliency_lib.core.registry import no_such


def spatial_layers(model: nn.Module, images: Tensor) -> dict[str, tuple[int, int]]:
    """Find the layers that a class activation map can be made of, in the order in which they finish.

    Args:
        images: (B, C, H, W); the first is sent through the model.

    Returns:
        The size (h, w) of each module whose last output is (B, channels, h, w) with more than one position, by dotted name.
    """
    sizes: dict[str, tuple[int, int]] = {}

    def note(name: str) -> Callable[[nn.Module, tuple, object], None]:
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
    """Return the module that `layer` names.

    None is the last module with at least 4x4 positions that does not pool to a fixed size. On small images the last layers of
    a network have few positions, too few for a map. If no layer has 4x4, the last with more than one position is used.

    A name may be the network's own (`layer4`) if the model wraps it (`network.layer4`).

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
    candidates = spatial_layers(model, images)
    if layer is None:
        pools = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.Dropout, nn.Identity)
        names = [name for name in candidates if not isinstance(modules[name], pools)]
        if not names:
            raise ValueError("no layer of this model has a spatial output (B, channels, h, w) at this image size")
        return modules[next((name for name in reversed(names) if min(candidates[name]) >= 4), names[-1])]
    raise no_such("layer with a spatial output", layer, [name.removeprefix("network.") for name in candidates])


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


def spatial_output(leaves: list[Tensor]) -> Tensor:
    """Return the last output that `leaf_at` collected, and refuse it if it is not (B, channels, h, w)."""
    if not leaves or leaves[-1].ndim != 4:
        got = tuple(leaves[-1].shape) if leaves else "no output"
        raise ValueError(f"the layer's output must be (B, channels, h, w), got {got}; choose another layer")
    return leaves[-1]


@METHODS.register(family="activation", passes="1 F + 1 B", paper="Selvaraju et al. 2017")
def gradcam(
    model: nn.Module,
    images: Tensor,
    targets: Tensor | None = None,
    *,
    layer: nn.Module | str | None = None,
    batch_size: int | None = None,
) -> Tensor:
    """Sum the feature maps of a layer, weighted by their mean gradient, and enlarge the positive part to the image.

    L = ReLU(sum_k a_k A_k), where a_k is the mean over positions of d f_c / d A_k. The backward pass stops at the layer.

    Args:
        images: (B, C, H, W) pixels in [0, 1].
        targets: (B,) classes; None for the predicted ones.
        layer: a module or its dotted name; None is the last layer with at least 4x4 positions (`layer4` of a ResNet at 224
            pixels). If the model uses the layer several times, the last use counts.

    Returns:
        (B, H, W), not negative, bilinearly enlarged.

    Raises:
        ValueError: the layer is unknown or has no spatial output, or the class score does not depend on it.

    Source: Selvaraju et al. 2017, section 3. Differs: f_c is the logit, also where the saliency benchmark's model ends
    in a softmax. In a vision transformer the default is the patch embedding, the only layer with positions. A layer with
    channels last (inside Swin and ConvNeXt) cannot be used, because its axes are read as (channels, h, w).
    """
    images = check_images(images)
    module = find_layer(model, layer, images)
    maps: list[Tensor] = []
    with frozen(model):
        targets = None if targets is None else as_targets(targets, images)

        def add(start: int, stop: int) -> None:
            with recording(), leaf_at(module) as leaves:
                logits = model(arranged(images[start:stop]))
                features = spatial_output(leaves)
                classes = classes_of(logits, None if targets is None else targets[start:stop])
                score = logits.gather(1, classes[:, None]).sum()
                gradient = torch.autograd.grad(score, features, allow_unused=True)[0] if score.requires_grad else None
                if gradient is None:
                    raise ValueError("the class score does not depend on the layer; choose a layer that leads to the logits")
            weights = gradient.mean((2, 3), keepdim=True)
            small = (weights * features.detach()).sum(1, keepdim=True).relu()
            enlarged = F.interpolate(small, images.shape[2:], mode="bilinear", align_corners=False)
            maps.append(enlarged[:, 0].to(images.dtype))

        in_chunks(add, len(images), chunk_size(images, batch_size))
    return torch.cat(maps)
