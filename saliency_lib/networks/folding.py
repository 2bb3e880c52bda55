"""Fold BatchNorm into the layer before it: the same function with fewer operations."""

from collections import Counter
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node, get_gradient_edge
from torch.nn.utils import fuse_conv_bn_weights, fuse_linear_bn_weights, parametrize

LINEAR = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
ROUNDING = 1000  # units of the last place of the largest value by which a folded layer may differ from the two


class Pair(NamedTuple):
    """A layer, and the BatchNorm that alone reads its output, with the values of a pass: before, and after both."""

    linear: nn.Module
    norm: nn.Module
    before: Tensor
    after: Tensor


def fold(model: nn.Module, images: Tensor) -> nn.Module:
    """Make the BatchNorm layers of a model parts of the layers before them, in place, and return it.

    A convolution or a linear layer y = W x + b and the BatchNorm (y - mean) s + beta, s = gamma / sqrt(variance + eps), are
    the layer with weights s W and bias s (b - mean) + beta. The BatchNorm becomes an identity, so the names of all other modules
    stay. A pair is folded if one pass shows that nothing else reads the layer's output and that the folded layer gives the same
    values. Weights of two-dimensional convolutions have channels last in memory.

    Args:
        model: frozen.
        images: (B, ...); the first is sent through the model.
    """
    for linear, norm, before, after in pairs(model, images[:1]):
        if _merge(linear, norm, before, after):
            for name, module in list(model.named_modules(remove_duplicate=False)):
                if module is norm:
                    model.set_submodule(name, nn.Identity())
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.to(memory_format=torch.channels_last)
    return model


def pairs(model: nn.Module, image: Tensor) -> list[Pair]:
    """Return the layers of a model that a BatchNorm follows directly, in the order in which they run.

    Both run once in a pass, and the autograd graph shows that only the BatchNorm reads the layer's output.
    """
    runs: Counter[nn.Module] = Counter()
    made: list[tuple[nn.Module, Tensor, Tensor, tuple[Node, int]]] = []
    found: list[tuple[Pair, tuple[Node, int]]] = []

    def note(module: nn.Module, inputs: tuple, output: object) -> None:
        runs[module] += 1
        if not inputs or not isinstance(output, Tensor) or not output.requires_grad:
            return
        if isinstance(module, LINEAR):
            made.append((module, inputs[0].detach().clone(), output, get_gradient_edge(output)[:2]))
            return
        for linear, before, between, edge in made:
            if between is inputs[0]:
                found.append((Pair(linear, module, before, output.detach().clone()), edge))

    plain = [module for module in model.modules() if isinstance(module, LINEAR + NORMS) and _is_plain(module)]
    handles = [module.register_forward_hook(note) for module in plain]
    try:
        with torch.enable_grad():
            logits = model(image.detach().clone().requires_grad_())
    finally:
        for handle in handles:
            handle.remove()
    readers = _readers(logits)
    return [pair for pair, edge in found if runs[pair.linear] == runs[pair.norm] == readers[edge] == 1]


def _is_plain(module: nn.Module) -> bool:
    """Return whether a layer's weights are what it computes with, and nobody looks at or changes what it receives or returns."""
    return not (module._forward_hooks or module._forward_pre_hooks or parametrize.is_parametrized(module))


def _readers(logits: Tensor) -> Counter[tuple[Node, int]]:
    """Return how many operations of the autograd graph read each output of an operation."""
    readers: Counter[tuple[Node, int]] = Counter()
    unseen, seen = [logits.grad_fn] if logits.grad_fn else [], set()
    while unseen:
        node = unseen.pop()
        if node in seen:
            continue
        seen.add(node)
        for earlier, number in node.next_functions:
            if earlier is not None:
                readers[earlier, number] += 1
                unseen.append(earlier)
    return readers


def _merge(linear: Any, norm: Any, before: Tensor, after: Tensor) -> bool:
    """Fold a BatchNorm into a layer, and return whether the layer then gives its values; otherwise leave it as it was."""
    kept = linear.weight, linear.bias
    values: tuple[Any, ...] = (*kept, norm.running_mean, norm.running_var, norm.weight, norm.bias)
    double: list[Any] = [None if value is None else value.double() for value in values]
    weight, bias, mean, variance, gamma, beta = double
    fuse = fuse_linear_bn_weights if isinstance(linear, nn.Linear) else fuse_conv_bn_weights
    merged = fuse(weight, bias, mean, variance, norm.eps, gamma, beta)
    linear.weight, linear.bias = (nn.Parameter(value.to(kept[0].dtype), requires_grad=False) for value in merged)
    with torch.no_grad():
        result = linear(before)
    most = ROUNDING * torch.finfo(after.dtype).eps * after.abs().amax()
    if result.shape == after.shape and bool((result - after).abs().amax() <= most):
        return True
    linear.weight, linear.bias = kept
    return False
