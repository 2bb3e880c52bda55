"""Backward rules: how a gradient passes the non-linear units of a network.

A rule is a context manager around the forward pass. It meets the units as they are called, modules and functions alike, in
place or not, however often a module is used; neither the network nor its hooks are touched, and nothing is left behind. It
goes with the graph: what was computed inside may be differentiated outside, as often as wanted.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from saliency_lib.core.registry import no_such

Rule = Callable[[nn.Module, Tensor | None], AbstractContextManager]

RELUS = {"relu", "relu_", "relu6"}
CLAMPS = {
    "hardtanh": -1,
    "hardtanh_": -1,
    "clamp": None,
    "clamp_": None,
    "clip": None,
    "clip_": None,
}  # with the floor that they have by default
CURVES = {
    *(
        "abs",
        "abs_",
        "celu",
        "celu_",
        "clamp_max",
        "clamp_max_",
        "clamp_min",
        "clamp_min_",
        "elu",
        "elu_",
        "gelu",
        "hardshrink",
        "hardsigmoid",
        "hardswish",
        "leaky_relu",
    ),
    *(
        "leaky_relu_",
        "logsigmoid",
        "mish",
        "prelu",
        "rrelu",
        "rrelu_",
        "selu",
        "selu_",
        "sigmoid",
        "sigmoid_",
        "silu",
        "softplus",
    ),
    *("softshrink", "softsign", "tanh", "tanh_", "tanhshrink", "threshold", "threshold_"),
}
POOLS = {
    F.max_pool2d: F.max_pool2d_with_indices,
    F.max_pool2d_with_indices: F.max_pool2d_with_indices,
    torch.max_pool2d: F.max_pool2d_with_indices,
    F.adaptive_max_pool2d: F.adaptive_max_pool2d_with_indices,
}
MIXERS = {
    *("fmax", "fmin", "masked_fill", "masked_fill_", "maximum", "minimum", "where"),  # a ReLU may be written with these
    "glu",
    "max_pool1d",
    "max_pool3d",
    "fractional_max_pool2d",
    "multi_head_attention_forward",
    "scaled_dot_product_attention",
    *("lstm", "gru", "rnn_tanh", "rnn_relu"),
}


def plain(model: nn.Module, reference: Tensor | None = None) -> AbstractContextManager:
    """The true derivative."""
    return nullcontext()


class _Units(TorchFunctionMode):
    """Sends each non-linear unit that a forward pass calls to a method of its kind, and all else on its way."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.met = 0
        for name, module in model.named_modules():
            if isinstance(module, (torch.jit.ScriptModule, torch._dynamo.OptimizedModule)):
                raise ValueError(
                    f"{name or 'the model'} is scripted or compiled: its units cannot be seen; pass it as it was before"
                )

    def __torch_function__(self, function: Callable, types: tuple, args: tuple = (), kwargs: dict | None = None):
        name, kwargs = getattr(function, "__name__", ""), kwargs or {}
        if function in POOLS:
            unit = self.pool
        elif name in RELUS or (name in CLAMPS and _floor(name, *args[1:], **kwargs) == 0):
            unit = self.relu
        elif name in CURVES or name in CLAMPS:
            unit = self.curve
        elif name in MIXERS:
            raise ValueError(f"the rule does not know {name}, which would pass untouched; use a method without a rule")
        else:
            return function(*args, **kwargs)
        self.met += 1
        return unit(function, *args, **kwargs)

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        super().__exit__(kind, error, trace)
        if kind is None and not self.met:
            raise ValueError("the rule met no unit that it knows (ReLU, ReLU6, Softplus, max-pool); it would change nothing")


def _floor(name: str, *bounds: object, **named: object) -> object:
    """The lower bound of a clamp as it was called."""
    lower = bounds[0] if bounds else CLAMPS[name]
    return next((named[key] for key in ("min_val", "min") if key in named), lower)


class guided(_Units):
    """While active, only positive gradients pass the ReLU, ReLU6, Softplus and max-pool units of a forward pass.

        ReLU, ReLU6:  g_in = 1[0 < z (< 6)] * max(g_out, 0)
        Softplus:     g_in = sigmoid(beta z) * max(g_out, 0), which becomes that of ReLU as beta grows
        max-pool:     the arg-max receives max(g_out, 0) (`exact`), or the true gradient where the pooled output's gradient,
                      enlarged to the input by nearest neighbours, is positive (`released`)

    Args:
        model: the network that will be called.
        pool_rule: `exact` or `released`. They agree on windows that do not overlap.

    Raises:
        ValueError: at once for a scripted or compiled network; at the unit for a non-linearity that the rule does not know;
            on leaving where it has met none. What passes by its derivative is linear layers, normalisation, softmax and
            arithmetic, from which a unit written as such, like z * (z > 0), cannot be told.

    Source: Kwon, Koo, Cho 2020; for ReLU the same as Springenberg et al. 2015, section 3.4 (guided backpropagation).
    Differs: the released code hangs hooks on modules, which miss functional units (GoogLeNet's) and stay behind; the paper has no
    Softplus, which networks of smooth units have (score matching).
    """

    def __init__(self, model: nn.Module, pool_rule: str = "exact"):
        super().__init__(model)
        if pool_rule not in POOL_RULES:
            raise no_such("pool_rule", pool_rule, POOL_RULES)
        self.pool = POOL_RULES[pool_rule]

    def relu(self, function: Callable, *args: object, **kwargs: object) -> Tensor:
        return _positive_part(function(*args, **kwargs))

    def curve(self, function: Callable, *args: object, **kwargs: object) -> Tensor:
        if function.__name__ == "softplus":
            return self.relu(function, *args, **kwargs)
        raise ValueError(
            "the guided rule knows ReLU, ReLU6, Softplus and max-pooling; "
            f"this network also has {function.__name__}, which would pass unguided; "
            "use a network of ReLUs, or a method without the rule"
        )


def guided_by(pool_rule: str) -> Rule:
    """The rule `guided` with one of its pooling rules."""
    return lambda model, reference: guided(model, pool_rule)


def _positive_part(output: Tensor) -> Tensor:
    if output.requires_grad:
        output.register_hook(lambda gradient: gradient.clamp(min=0))
    return output


def _exact(function: Callable, *args: object, **kwargs: object) -> Tensor | tuple:
    output = function(*args, **kwargs)
    _positive_part(output[0] if isinstance(output, tuple) else output)
    return output


def _released(function: Callable, features: Tensor, *args: object, **kwargs: object) -> Tensor | tuple:
    if not features.requires_grad:
        return function(features, *args, **kwargs)
    inlet = features.view_as(features)  # a node of its own: other branches that use the features keep their gradient
    output = function(inlet, *args, **kwargs)
    gates: list[Tensor] = []

    def note(gradient: Tensor) -> None:
        gates.append((gradient > 0).to(gradient.dtype))

    def gate(gradient: Tensor) -> Tensor:
        return gradient * F.interpolate(gates.pop(), size=gradient.shape[2:], mode="nearest")

    (output[0] if isinstance(output, tuple) else output).register_hook(note)
    inlet.register_hook(gate)
    return output


POOL_RULES = {"exact": _exact, "released": _released}


class rescaled(_Units):
    """While active, a non-linear unit passes the ratio of what it changes to what it was changed by, from a reference on.

        element-wise units:  g_in = g_out * (y - y') / (z - z'), the derivative where rounding alone parts z and z'
        max-pool:            g_out (y - y') is split between the arg-maxima of z and of z', and divided by z - z' there

    Args:
        model: the network that will be called, once, with inputs of the reference's shape.
        reference: (n, C, H, W); sent through the model first, without a graph.

    Raises:
        ValueError: as `guided`, and for units that mix features otherwise (attention, GLU). Normalisation, softmax and
            arithmetic (powers, products of features) are no units: they pass their derivative.

    Source: Shrikumar, Greenside, Kundaje 2017, section 3.5.1 (rescale rule); max-pool as Lundberg, Lee 2017 have it.
    """

    def __init__(self, model: nn.Module, reference: Tensor):
        super().__init__(model)
        self.references: list[Tensor] = []
        with torch.no_grad(), _Recorded(model, self.references):
            model(reference)
        self.references.reverse()

    def relu(self, function: Callable, z: Tensor, *args: object, **kwargs: object) -> Tensor:
        other, point = self.references.pop(), z.detach().clone().requires_grad_()
        with torch.enable_grad():
            output = function(point.clone(), *args, **kwargs)
            slope = torch.autograd.grad(output.sum(), point)[0]
        with torch.no_grad():
            ratio = (output - function(other.clone(), *args, **kwargs)) / (point - other)
            ratio = torch.where(_apart(point, other), ratio, slope)
        output = output.detach() + ratio * (z - point.detach())  # the value of the unit with the ratio as its derivative
        in_place = function.__name__.endswith("_") or kwargs.get("inplace") or (args and args[-1] is True)
        return z.copy_(output) if in_place else output

    curve = relu

    def pool(self, function: Callable, z: Tensor, *args: object, **kwargs: object) -> Tensor | tuple:
        if kwargs.get("return_indices"):
            raise ValueError("the rescale rule does not know a max-pool that returns its indices")
        return _RescaledPool.apply(z, self.references.pop(), lambda inputs: POOLS[function](inputs, *args, **kwargs))


class _Recorded(_Units):
    """Keeps what each unit of a forward pass is given."""

    def __init__(self, model: nn.Module, kept: list[Tensor]):
        super().__init__(model)
        self.kept = kept

    def relu(self, function: Callable, z: Tensor, *args: object, **kwargs: object) -> Tensor:
        self.kept.append(z.clone())  # the unit may work in place
        return function(z, *args, **kwargs)

    curve = pool = relu


class _RescaledPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z: Tensor, other: Tensor, pool: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Tensor:
        (y, here), (y_other, there) = pool(z), pool(other)
        ctx.save_for_backward(z, other, y, y_other, here, there)
        return y

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple:
        z, other, y, y_other, here, there = ctx.saved_tensors
        top = torch.maximum(y, y_other)
        flow = _put(gradient * (top - y_other), here, z) + _put(gradient * (y - top), there, z)
        return torch.where(_apart(z, other), flow / (z - other), _put(gradient, here, z)), None, None


def _apart(z: Tensor, other: Tensor) -> Tensor:
    return (z - other).abs() > 4 * torch.finfo(z.dtype).eps * torch.maximum(z.abs(), other.abs())


def _put(values: Tensor, places: Tensor, like: Tensor) -> Tensor:
    """Values added at the places (flat positions of their channel) in zeros of a tensor's shape."""
    return torch.zeros_like(like).flatten(2).scatter_add(2, places.flatten(2), values.flatten(2)).view(like.shape)
