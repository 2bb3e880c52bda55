"""Backward rules: how a gradient passes the non-linear units of a network.

A rule is a context manager around the forward pass. It acts on units as they are called, whether as modules or as functions,
in place or not, and however often a module is used. It changes neither the network nor its hooks. What was computed inside
may be differentiated outside, any number of times, because the rule is recorded in the graph.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saliency_lib.attribution.units import POOLS, Output, Units, first, in_place, name_of
from saliency_lib.core.options import Names, no_such

Rule = Callable[[nn.Module, Tensor | None], AbstractContextManager]


def plain(model: nn.Module, reference: Tensor | None = None) -> AbstractContextManager:
    """Use the true derivative."""
    return nullcontext()


class guided(Units):
    """Let only positive gradients pass the ReLU, ReLU6, Softplus and max-pool units of a forward pass.

        ReLU, ReLU6:  g_in = 1[0 < z (< 6)] * max(g_out, 0)
        Softplus:     g_in = sigmoid(beta z) * max(g_out, 0), which tends to the rule of ReLU as beta grows
        max-pool:     the arg-max receives max(g_out, 0) (`exact`), or the true gradient where the gradient of the pooled
                      output, enlarged to the input by nearest neighbours, is positive (`released`)

    Linear layers, normalisation, softmax and arithmetic pass their derivative. A unit that is written as arithmetic, for
    instance z * (z > 0), is not recognised. Other writings of a unit (a maximum with 0, a scripted function, vmap, a custom
    autograd function) are found in the autograd graph of the model's output and refused.

    Args:
        model: the network that will be called.
        pool_rule: `exact` or `released`. Both agree on windows that do not overlap.

    Raises:
        ValueError: at once if the network is scripted or compiled; at the unit, or at the end of the model's forward pass,
            for a non-linearity that the rule does not support or did not reach; on leaving if the rule found no unit.

    Source: Kwon, Koo, Cho 2020; for ReLU the same as Springenberg et al. 2015, section 3.4 (guided backpropagation).
    Differs: the released code registers hooks on modules, which miss functional units (GoogLeNet's) and are not removed. The
    paper has no rule for Softplus, which networks of smooth units need (score matching).
    """

    def __init__(self, model: nn.Module, pool_rule: str = "exact"):
        super().__init__(model)
        if pool_rule not in POOL_RULES:
            raise no_such("pool_rule", pool_rule, POOL_RULES)
        self.pool = POOL_RULES[pool_rule]

    def relu(self, function: Callable, *args: Any, **kwargs: Any) -> Tensor:
        """Pass the positive part of the gradient."""
        if args and args[0]._is_view() and in_place(function, args, kwargs):  # the graph of its base would go round a hook
            output = self.relu(function, args[0].clone(), *args[1:], **kwargs)
            self.replaced.add(output.grad_fn)
            return args[0].copy_(output)
        return _positive_part(function(*args, **kwargs))

    def curve(self, function: Callable, *args: Any, **kwargs: Any) -> Tensor:
        """Treat Softplus as a ReLU, and refuse other activations."""
        if name_of(function) == "softplus":
            return self.relu(function, *args, **kwargs)
        raise ValueError(
            f"the guided rule supports ReLU, ReLU6, Softplus and max-pooling; this network also has {name_of(function)}; "
            "use a network of ReLUs, or a method without the rule"
        )


def guided_by(pool_rule: str) -> Rule:
    """Return the rule `guided` with one of its pooling rules."""
    return lambda model, reference: guided(model, pool_rule)


def _positive_part(output: Tensor) -> Tensor:
    if output.requires_grad:
        output.register_hook(lambda gradient: gradient.clamp(min=0))
    return output


def _exact(function: Callable, *args: Any, **kwargs: Any) -> Output:
    output = function(*args, **kwargs)
    _positive_part(first(output))
    return output


def _released(function: Callable, features: Tensor, *args: Any, **kwargs: Any) -> Output:
    if not features.requires_grad:
        return function(features, *args, **kwargs)
    inlet = features.view_as(features)  # a separate node, so that other branches that use the features keep their gradient
    output = function(inlet, *args, **kwargs)
    gates: list[Tensor] = []

    def note(gradient: Tensor) -> None:
        gates.append((gradient > 0).to(gradient.dtype))

    def gate(gradient: Tensor) -> Tensor:
        return gradient * F.interpolate(gates.pop(), size=gradient.shape[2:], mode="nearest")

    first(output).register_hook(note)
    inlet.register_hook(gate)
    return output


POOL_RULES = {"exact": _exact, "released": _released}
PoolRule = Annotated[str, Names(POOL_RULES)]


class rescaled(Units):
    """Let each non-linear unit pass the ratio of the change of its output to the change of its input from a reference.

        element-wise units:  g_in = g_out * (y - y') / (z - z'), or the derivative if z and z' differ by rounding alone
        max-pool:            g_out (y - y') is split between the arg-maxima of z and of z', and divided there by z - z'

    Normalisation, softmax and arithmetic (powers, products of features) pass their derivative.

    Args:
        model: the network that will be called once, with inputs of the reference's shape.
        reference: (n, C, H, W); it is sent through the model first, without a graph. Its logits are `start`.

    Raises:
        ValueError: as `guided`, and for units that mix features in other ways (attention, GLU).

    Source: Shrikumar, Greenside, Kundaje 2017, section 3.5.1 (rescale rule); max-pool as Lundberg, Lee 2017.
    """

    def __init__(self, model: nn.Module, reference: Tensor | None):
        super().__init__(model)
        self.references: list[Tensor] = []
        with torch.no_grad(), _Recorded(model, self.references):
            self.start = model(reference)
        self.references.reverse()

    def relu(self, function: Callable, z: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Replace the unit's derivative by the ratio of its changes."""
        other, point = self.references.pop(), z.detach().clone().requires_grad_()
        with torch.enable_grad():
            output = function(point.clone(), *args, **kwargs)
            slope = torch.autograd.grad(output.sum(), point)[0]
        with torch.no_grad():
            ratio = (output - function(other.clone(), *args, **kwargs)) / (point - other)
            ratio = torch.where(_apart(point, other), ratio, slope)
        output = output.detach() + ratio * (z - point.detach())  # the value of the unit with the ratio as its derivative
        return z.copy_(output) if in_place(function, (z, *args), kwargs) else output

    curve = relu

    def pool(self, function: Callable, z: Tensor, *args: Any, **kwargs: Any) -> Output:
        """Split the change of the output between the arg-maxima of the input and of the reference."""
        if kwargs.get("return_indices"):
            raise ValueError("the rescale rule does not support a max-pool that returns its indices; use a method without a rule")
        return _RescaledPool.apply(z, self.references.pop(), lambda inputs: POOLS[function](inputs, *args, **kwargs))


class _Recorded(Units):
    """Keep the input of each unit of a forward pass."""

    def __init__(self, model: nn.Module, kept: list[Tensor]):
        super().__init__(model)
        self.kept = kept

    def relu(self, function: Callable, z: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        self.kept.append(z.clone())  # the unit may work in place
        return function(z, *args, **kwargs)

    curve = pool = relu


class _RescaledPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, other: Tensor, pool: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Tensor:
        (y, here), (y_other, there) = pool(z), pool(other)
        ctx.save_for_backward(z, other, y, y_other, here, there)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple:
        z, other, y, y_other, here, there = ctx.saved_tensors
        top = torch.maximum(y, y_other)
        flow = _put(gradient * (top - y_other), here, z) + _put(gradient * (y - top), there, z)
        return torch.where(_apart(z, other), flow / (z - other), _put(gradient, here, z)), None, None


def _apart(z: Tensor, other: Tensor) -> Tensor:
    """Return where two values differ by more than rounding."""
    return (z - other).abs() > 4 * torch.finfo(z.dtype).eps * torch.maximum(z.abs(), other.abs())


def _put(values: Tensor, places: Tensor, like: Tensor) -> Tensor:
    """Add values at their places (flat positions in their channel) to zeros of the shape of `like`."""
    return torch.zeros_like(like).flatten(2).scatter_add(2, places.flatten(2), values.flatten(2)).view(like.shape)
