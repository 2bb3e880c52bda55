"""The layer that an activation map is made of: all that the logits see of an image passes through its positions."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from graphlib import TopologicalSorter
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge

from saliency_lib.core.batching import arranged, chunk_size, frozen, in_chunks
from saliency_lib.core.checks import check_logits, check_model
from saliency_lib.core.options import no_such

POOLS = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.Dropout, nn.Identity)
MOST_EXTRA_TOKENS = 8  # before those of the positions: class, distillation, registers
Vertex = tuple[Node, int]  # of the autograd graph: a node and the number of one of its outputs


class Output(NamedTuple):
    """The shape of a module's last output, and its place in the autograd graph, None if no gradient passes it."""

    shape: tuple[int, ...]
    vertex: Vertex | None


class Layout(NamedTuple):
    """How a layer's output holds features at positions.

    Args:
        kind: `channels_first` (B, K, h, w), `channels_last` (B, h, w, K), or `tokens` (B, N, K) in the order of the rows.
        height, width: h and w.
        extra: how many of the N tokens come first and have no position, such as a class token.
    """

    kind: str
    height: int
    width: int
    extra: int = 0

    def maps(self, output: Tensor) -> Tensor:
        """Return the layer's output, or its gradient, as (B, K, h, w)."""
        if self.kind == "tokens":
            return output[:, self.extra :].mT.unflatten(2, (self.height, self.width))
        return output.permute(0, 3, 1, 2) if self.kind == "channels_last" else output


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


def _of_tokens(shape: tuple[int, ...], grids: set[tuple[int, int]]) -> Layout | None:
    """Return the layout of an output (1, N, K) if N is the number of positions of a grid (h, w), or a little more.

    As in Swin, tokens without extra ones may also have been merged, by two along each side, any number of times.
    """
    for height, width in sorted(grids, reverse=True):
        if 0 <= (extra := shape[1] - height * width) <= MOST_EXTRA_TOKENS:
            return Layout("tokens", height, width, extra)
        while height % 2 == width % 2 == 0:
            height, width = height // 2, width // 2
            if shape[1] == height * width:
                return Layout("tokens", height, width)
    return None


def spatial_layers(model: nn.Module, images: Tensor) -> dict[str, tuple[Layout, bool]]:
    """Find the layers that an activation map can be made of, in the order in which they finish.

    Args:
        images: (B, C, H, W); the first is sent through the model, and once more at twice the height if `channels_last` needs it.

    Returns:
        For each module whose last output has features at more than one position, by dotted name: its layout, and whether every
        path from the image to the logits crosses that output and the logits see its positions (those of a class token alone do
        not see what its layer gives the others). If there is no path (the logits are constant or have no gradient), every one
        counts. Tokens (1, N, K) have positions if an output with four axes has their grid, such as that of a patch embedding.
    """
    with frozen(model), torch.inference_mode(False), torch.enable_grad():
        image = images[:1].detach().clone(memory_format=torch.contiguous_format).requires_grad_()
        logits, outputs = outputs_of(model, image.clone())  # a leaf must not be overwritten, as an in-place layer would
        end, start = vertex_of(check_logits(logits)), vertex_of(image)
        crossed = crossings(end, start) if end and start else None
        found = _layouts(model, image.detach(), {name: shape for name, (shape, _) in outputs.items() if min(shape) > 0})
        passed = {name for name in found if crossed is None or outputs[name].vertex in crossed}
        tokens = [name for name in found if found[name].kind == "tokens" and name in passed] if crossed else []
        ends = [GradientEdge(*vertex) for name in tokens if (vertex := outputs[name].vertex)]
        slopes = torch.autograd.grad(logits.amax(1).sum(), ends) if ends else ()
    unseen = {name for name, slope in zip(tokens, slopes, strict=True) if slope.any() and not found[name].maps(slope).any()}
    return {name: (layout, name in passed - unseen) for name, layout in found.items()}


def _layouts(model: nn.Module, image: Tensor, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Layout]:
    """Return the layouts of those outputs of a model for one image, by the module's dotted name, that have several positions."""
    whole = {name: shape for name, shape in shapes.items() if len(shape) == 4 and shape[0] == 1}
    last = channels_last(model, image, whole)
    found: dict[str, Layout] = {}
    for name, shape in shapes.items():
        if name in whole:
            kind, (height, width) = ("channels_last", shape[1:3]) if name in last else ("channels_first", shape[2:])
            found[name] = Layout(kind, height, width)
        elif len(shape) == 3 and shape[0] == 1:
            grids = {layout[1:3] for layout in found.values() if layout.height * layout.width > 1}
            if layout := _of_tokens(shape, grids):
                found[name] = layout
    return {name: layout for name, layout in found.items() if layout.height * layout.width > 1}


def wrapped(modules: Mapping[str, nn.Module]) -> list[str]:
    """Return what comes before the names of a network's own modules if a model wraps it, once or several times, and ""."""
    prefixes = [""]
    while inner := next((part for part in ("network", "model") if f"{prefixes[-1]}{part}" in modules), None):
        prefixes.append(f"{prefixes[-1]}{inner}.")
    return prefixes


def short(name: str, modules: Mapping[str, nn.Module]) -> str:
    """Return a module's name in the network that a model wraps."""
    return name.removeprefix(max((prefix for prefix in wrapped(modules) if name.startswith(prefix)), key=len))


def find_layer(model: nn.Module, layer: nn.Module | str | None, images: Tensor) -> nn.Module:
    """Return the module that `layer` names.

    None is the last module that every path from the image to the logits crosses, that has at least 4x4 positions which the logits
    see, and does not pool to a fixed size. A module inside a branch would miss what the other branches carry. On small images the
    last layers of a network have few positions, too few for a map. If no layer has 4x4, the last with more than one position is
    used. In a vision transformer it is the last block before the attention that the class token reads from, or the last norm if
    the tokens are averaged.

    A name may be the network's own (`layer4`) if the model wraps it (`network.layer4`, `model.network.layer4`). The images may be
    on another device than the model, or of another precision.

    Raises:
        ValueError: the model has no such module; the message lists the candidates. Or it is a script module.
    """
    check_model(model)
    modules = dict(model.named_modules())
    if any(isinstance(module, torch.jit.ScriptModule) for module in modules.values()):
        raise ValueError(
            "the model is a script module, whose layers cannot be read; pass the original, or use a method without layers"
        )
    if isinstance(layer, nn.Module):
        if any(layer is module for module in modules.values()):
            return layer
        raise ValueError(f"layer {type(layer).__name__} is not a module of this model; pass one of its modules or a name")
    for prefix in wrapped(modules):
        if f"{prefix}{layer}" in modules:
            return modules[f"{prefix}{layer}"]  # its output is checked when it is computed
    candidates = spatial_layers(model, images[:1].to(next(model.parameters(), images)))
    if layer is not None:
        raise no_such("layer with features at positions", layer, [short(name, modules) for name in candidates])
    unpooled = {name: found for name, found in candidates.items() if not isinstance(modules[name], POOLS)}
    if not unpooled:
        raise ValueError(
            f"no layer of this model has features at positions for images {tuple(images.shape)}; "
            "use larger images, or a method that needs no layer"
        )
    names = [name for name, (_, complete) in unpooled.items() if complete]
    if not names:
        raise ValueError(
            "no layer of this model has features at positions that every path from the image to the logits crosses; "
            f"choose the layer of one branch, one of: {', '.join(unpooled)}"
        )
    enough = [name for name in names if min(candidates[name][0][1:3]) >= 4]
    return modules[(enough or names)[-1]]


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


def last_output(leaves: list[Tensor]) -> Tensor:
    """Return the last output that `leaf_at` collected.

    Raises:
        ValueError: there is none.
    """
    if not leaves:
        raise ValueError("the model does not use this layer; choose another layer")
    return leaves[-1]


def layout_of(model: nn.Module, module: nn.Module, output: Tensor, images: Tensor) -> Layout:
    """Return how the output of one of the model's modules holds features at positions.

    Args:
        output: the module's, of some of the images (B, C, H, W).

    Raises:
        ValueError: it holds none.
    """
    shape = tuple(output.shape)
    if output.ndim == 4 and min(shape) > 0:
        name = next(name for name, part in model.named_modules() if part is module)
        first = not channels_last(model, images[:1], {name: shape})
        return Layout("channels_first", *shape[2:]) if first else Layout("channels_last", *shape[1:3])
    candidates = spatial_layers(model, images[:1]) if output.ndim == 3 else {}
    for name, (layout, _) in candidates.items():
        if model.get_submodule(name) is module:
            return layout
    raise ValueError(
        f"the layer's output must be features at positions, (B, K, h, w), (B, h, w, K) or tokens (B, N, K), got {shape}; "
        "choose another layer"
    )


def features_at(
    model: nn.Module, module: nn.Module, images: Tensor, batch_size: int | None
) -> tuple[Tensor, Tensor, Layout, bool]:
    """Run a frozen model on images and record the last output of one of its modules.

    Returns:
        The logits (B, K), the module's features (B, N, h, w), how its output holds them, and whether the model uses the module
        once, so that a forward pass can end there.
    """
    found: list[tuple[Tensor, Tensor]] = []
    layouts: list[Layout] = []
    uses: set[int] = set()

    def add(start: int, stop: int) -> None:
        with torch.no_grad(), leaf_at(module) as leaves:
            logits = model(arranged(images[start:stop]))
        output = last_output(leaves).detach()
        if not layouts:
            layouts.append(layout_of(model, module, output, images))
        uses.add(len(leaves))
        found.append((logits, layouts[0].maps(output)))

    in_chunks(add, len(images), chunk_size(images, batch_size))
    logits, features = zip(*found, strict=True)
    return torch.cat(logits), torch.cat(features), layouts[0], uses == {1}
