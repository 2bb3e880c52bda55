"""The non-linear units of a network: met as its forward pass calls them, and looked for in its autograd graph afterwards."""

from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import Node
from torch.overrides import TorchFunctionMode

from saliency_lib.core.locks import lock_of

Output = Any  # a tensor, or a pair of tensors for a max-pool that returns its indices


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Functions by name, without the underscore of those that work in place.
RELUS = _names("relu relu6")
CLAMPS = {"hardtanh": -1, "clamp": None, "clip": None}  # with their default lower bound
CURVES = _names(
    "abs celu clamp_max clamp_min elu gelu hardshrink hardsigmoid hardswish leaky_relu logsigmoid mish prelu rrelu selu "
    "sigmoid silu softplus softshrink softsign tanh tanhshrink threshold"
)
MIXERS = _names("glu lstm gru rnn_tanh rnn_relu multi_head_attention_forward scaled_dot_product_attention")
# Nodes of the autograd graph by name: the units above, and what a ReLU or a max-pool may also be written with.
NODES = frozenset(name.replace("_", "") for name in RELUS | set(CLAMPS) | CURVES) | _names(
    "amax amin aminmax cummax erf fmax fmin glu kthvalue maskedfill max maximum median min minimum "
    "prelukernel rreluwithnoise topk where"
)
NORMALISERS = _names("normalize cosine_similarity")  # they clamp a norm away from 0
POOLS: dict[Callable[..., Output], Callable[..., tuple[Tensor, Tensor]]] = {
    F.max_pool2d: F.max_pool2d_with_indices,
    F.max_pool2d_with_indices: F.max_pool2d_with_indices,
    torch.max_pool2d: F.max_pool2d_with_indices,
    F.adaptive_max_pool2d: F.adaptive_max_pool2d_with_indices,
}


class Units(TorchFunctionMode):
    """Pass each non-linear unit that a forward pass calls to the method of its kind, and call everything else unchanged."""

    relu: Callable[..., Output]
    curve: Callable[..., Output]
    pool: Callable[..., Output]

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model, self.met = model, 0
        self.replaced: set[Node | None] = set()  # nodes of the graph that carry the rule or pass their derivative
        for name, module in model.named_modules():
            if isinstance(module, (torch.jit.ScriptModule, torch._dynamo.OptimizedModule)):
                raise ValueError(
                    f"{name or 'the model'} is scripted or compiled, which hides its units; pass the original module"
                )

    def __torch_function__(self, function: Callable, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        name, kwargs = name_of(function).removesuffix("_"), kwargs or {}
        if function in POOLS:
            unit = self.pool
        elif name in RELUS or (name in CLAMPS and _lower_bound(name, *args[1:], **kwargs) == 0):
            unit = self.relu
        elif name in CURVES or name in CLAMPS:
            unit = self.curve
        elif name in MIXERS:
            raise ValueError(
                f"the rule does not support {name}, whose gradient would pass unchanged; use a method without a rule"
            )
        else:
            output = function(*args, **kwargs)
            if name in NORMALISERS:
                self.replaced.update(nodes_between(output, args))
            return output
        if args and torch._C._functorch.is_functorch_wrapped_tensor(args[0]):  # under vmap
            raise _not_reached(name)
        self.met += 1
        output = unit(function, *args, **kwargs)
        self.replaced.add(first(output).grad_fn)
        return output

    def __enter__(self) -> Self:
        self.lock = lock_of(self.model)
        self.lock.__enter__()
        super().__enter__()
        self.hook = self.model.register_forward_hook(self._refuse_what_was_missed)
        return self

    def _refuse_what_was_missed(self, model: nn.Module, inputs: tuple, output: Any) -> None:
        nodes = nodes_between(output, inputs) if isinstance(output, Tensor) else ()  # the caller refuses what is no tensor
        if missed := next(filter(None, (kind_of(node) for node in nodes if node not in self.replaced)), ""):
            raise _not_reached(missed)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        super().__exit__(kind, error, traceback)
        self.hook.remove()
        self.lock.__exit__(kind, error, traceback)
        self.replaced.clear()
        if kind is None and not self.met:
            raise ValueError(
                "the rule found no unit that it supports (ReLU, ReLU6, Softplus, max-pool), so it changed nothing; use a network "
                "of such modules (a model that an engine runs shows none)"
            )


def _not_reached(name: str) -> ValueError:
    return ValueError(
        f"the rule did not act on {name}, whose gradient would pass unchanged; write a ReLU as nn.ReLU, outside scripted "
        "functions and vmap, or use a method without a rule"
    )


def name_of(function: Callable) -> str:
    """Return the name of a function; that of an operator's overload, such as relu.default, ends before the point."""
    return getattr(function, "__name__", "").split(".")[0]


def in_place(function: Callable, args: tuple, kwargs: dict[str, Any]) -> bool:
    """Return whether a unit was called so that it works in place."""
    return bool(name_of(function).endswith("_") or kwargs.get("inplace") or (len(args) > 1 and args[-1] is True))


def nodes_between(output: Tensor, inputs: Iterable[Any]) -> Iterator[Node]:
    """Yield the nodes of the autograd graph from an output back to the inputs that are tensors."""
    seen = {value.grad_fn for value in inputs if isinstance(value, Tensor)}
    waiting = [output.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting.extend(following for following, _ in node.next_functions)
            yield node


def kind_of(node: Node) -> str:
    """Return the name of a node's operation if it is non-linear or opaque, else ""."""
    name = node.name().split("::")[-1].rstrip("0123456789").removesuffix("Backward")
    if name == "DifferentiableGraph":
        return "a scripted function"
    known = name.lower() in NODES or "MaxPool" in name or "ScaledDotProduct" in name
    return name.lower() if known or isinstance(node, BackwardCFunction) else ""


def _lower_bound(name: str, *bounds: object, **named: object) -> object:
    """Return the lower bound of a clamp as it was called."""
    positional = bounds[0] if bounds else CLAMPS[name]
    return next((named[key] for key in ("min_val", "min") if key in named), positional)


def first(output: Output) -> Tensor:
    """Return the values of a unit, without the indices of a max-pool."""
    return output[0] if isinstance(output, tuple) else output
