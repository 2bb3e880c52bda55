"""The layer that an activation map is made of: all that the logits see of an image passes through it, channels first."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from graphlib import TopologicalSorter
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node, get_gradient_edge

from saliency_lib.core.batching import frozen
from saliency_lib.core.checks import check_logits, check_model
from saliency_lib.core.options import no_such

POOLS = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.Dropout, nn.Identity)
Vertex = tuple[Node, int]  # of the autograd graph: a node and the number of one of its outputs


class Output(NamedTuple):
    """The shape of a module's last output, and its place in the autograd graph, None if no gradient passes it."""

    shape: tuple[int, ...]
    vertex: Vertex | None


def vertex_of(tensor: Tensor) -> Vertex | None:
    """Return a tensor's place in the autograd graph, which an in-place layer may change later."""
    return get_gradient_edge(tensor)[:2] if tensor.requires_grad else None


def layered(model: nn.Module) -> nn.Module:
    """Return a network whose layers can be read: the model, or the network behind one that an engine runs."""
    own: Any = getattr(type(model), "layered", None)  # of the class, since a network may have a part of this name
    return own.__get__(model) if isinstance(own, property) else model


def outputs_of(model: nn.Module, image: Tensor) -> tuple[Tensor, dict[str, Output]]:
    """Run a model on images (1, C, H, W) and return its logits, and the last output of each module that returns a tensor.

    The outputs are in the order in which the modules finish, by dotted name.
    """
    outputs: dict[str, Output] = {}

    def note(name: str) -> Callable[[nn.Module, tuple, object], None]:
        def hook(module: nn.Module, inputs: tuple, output: object) -> None:
            outputs.pop(name, None)
            if isinstance(output, Tensor):
                outputs[name] = Output(output.shape, vertex_of(output))

        return hook

    handles = [module.register_forward_hook(note(name)) for name, module in model.named_modules() if name]
    try:
        return model(image), outputs
    finally:
        for handle in handles:
            handle.remove()


def crossings(end: Vertex, start: Vertex) -> set[Vertex]:
    """Find the places in the autograd graph that every path from `start` to `end` crosses, both included.

    (paths from start to v) x (paths from v to end) is the number of paths through v, which is that of all paths if v is one.
    """
    graph: dict[Vertex, list[Vertex]] = {}
    unseen = [end]
    while unseen:
        vertex = unseen.pop()
        if vertex not in graph:
            graph[vertex] = [(node, number) for node, number in vertex[0].next_functions if node is not None]
            unseen += graph[vertex]
    from_start, to_end = Counter({start: 1}), Counter({end: 1})  # whole numbers in Python are exact, whatever their size
    order = list(TopologicalSorter(graph).static_order())
    for vertex in order:
        from_start[vertex] += sum(from_start[earlier] for earlier in graph[vertex])
    for vertex in reversed(order):
        for earlier in graph[vertex]:
            to_end[earlier] += to_end[vertex]
    return {vertex for vertex in order if from_start[vertex] * to_end[vertex] == from_start[end]}


def channels_last(model: nn.Module, image: Tensor, shapes: Mapping[str, tuple[int, ...]]) -> set[str]:
    """Return the names of those outputs whose axes are (B, h, w, channels), not (B, channels, h, w).

    An output has channels first if its last two axes have the proportions of the image, and the two before do not. Otherwise an
    image of twice the height decides: the axis that it makes longer is the height. If the model refuses such an image or resizes
    it to one size, the axes are those that have the image's proportions best.

    Args:
        image: (1, C, H, W).
        shapes: of outputs with four axes, by the dotted name of the module.
    """

    def distortion(shape: tuple[int, ...], axis: int) -> float:
        return abs(math.log(shape[axis] * image.shape[3] / (shape[axis + 1] * image.shape[2])))

    doubtful = {name for name, shape in shapes.items() if distortion(shape, 1) <= distortion(shape, 2)}
    taller: dict[str, Output] = {}
    if doubtful:
        try:
            with frozen(model), torch.no_grad():
                _, taller = outputs_of(model, torch.cat([image, image], 2))
        except Exception:  # whatever a model raises that accepts only one size
            taller = {}

    def height_comes_first(name: str) -> bool:
        shape = shapes[name]
        longer = [name in taller and taller[name].shape[axis] != shape[axis] for axis in (1, 2, 3)]
        return longer[0] if any(longer) else distortion(shape, 1) < distortion(shape, 2)

    return {name for name in doubtful if height_comes_first(name)}


def spatial_layers(model: nn.Module, images: Tensor) -> dict[str, tuple[int, int, bool]]:
    """Find the layers that an activation map can be made of, in the order in which they finish.

    Args:
        images: (B, C, H, W); the first is sent through the model, and once more at twice the height if `channels_last` needs it.

    Returns:
        For each module whose last output is (B, channels, h, w) with more than one position, by dotted name: h, w, and whether
        every path from the image to the logits crosses that output. If there is no path (the logits are constant or have no
        gradient), every one counts.
    """
    with frozen(model), torch.inference_mode(False), torch.enable_grad():
        image = images[:1].detach().clone(memory_format=torch.contiguous_format).requires_grad_()
        logits, outputs = outputs_of(model, image.clone())  # a leaf must not be overwritten, as an in-place layer would
        end, start = vertex_of(check_logits(logits)), vertex_of(image)
    crossed = crossings(end, start) if end and start else None
    shapes = {name: shape for name, (shape, _) in outputs.items() if len(shape) == 4 and min(shape) > 0}
    last = channels_last(model, image.detach(), shapes)
    return {
        name: (shape[2], shape[3], crossed is None or outputs[name].vertex in crossed)
        for name, shape in shapes.items()
        if name not in last and shape[2] * shape[3] > 1
    }


def find_layer(model: nn.Module, layer: nn.Module | str | None, images: Tensor) -> nn.Module:
    """Return the module that `layer` names.

    None is the last module that every path from the image to the logits crosses, that has at least 4x4 positions and does not
    pool to a fixed size. A module inside a branch would miss what the other branches carry. On small images the last layers of a
    network have few positions, too few for a map. If no layer has 4x4, the last with more than one position is used.

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
    candidates = spatial_layers(model, images[:1].to(next(model.parameters(), images)))
    if layer is not None:
        raise no_such("layer with a spatial output", layer, [name.removeprefix("network.") for name in candidates])
    unpooled = {name: found for name, found in candidates.items() if not isinstance(modules[name], POOLS)}
    if not unpooled:
        raise ValueError(
            f"no layer of this model has a spatial output (B, channels, h, w) for images {tuple(images.shape)}; "
            "use larger images, or a method that needs no layer"
        )
    names = [name for name, (_, _, crossed) in unpooled.items() if crossed]
    if not names:
        raise ValueError(
            "no layer of this model has a spatial output (B, channels, h, w) that every path from the image to the logits "
            f"crosses; choose the layer of one branch, one of: {', '.join(unpooled)}"
        )
    return modules[next((name for name in reversed(names) if min(candidates[name][:2]) >= 4), names[-1])]


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


def spatial_output(model: nn.Module, module: nn.Module, images: Tensor, leaves: list[Tensor]) -> Tensor:
    """Return the last output that `leaf_at` collected from a module of the model.

    Raises:
        ValueError: it is not (B, channels, h, w).
    """
    if not leaves or leaves[-1].ndim != 4:
        got = tuple(leaves[-1].shape) if leaves else "no output"
        raise ValueError(f"the layer's output must be (B, channels, h, w), got {got}; choose another layer")
    features = leaves[-1]
    name = next(name for name, part in model.named_modules() if part is module)
    if channels_last(model, images[:1], {name: features.shape}):
        layer, *others = (other.removeprefix("network.") for other in (name, *spatial_layers(model, images)))
        raise ValueError(
            f"the layer's output must be (B, channels, h, w); that of layer {layer!r} is (B, h, w, channels), "
            f"{tuple(features.shape)}; choose another layer, one of: {', '.join(others)}"
        )
    return features
