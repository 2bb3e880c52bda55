"""Heads: the last layers of a network, which map its features to the logits of the classes."""

from collections.abc import Callable

from torch import nn

HEADS: dict[str, Callable[[nn.Module, int, int], nn.Module]] = {  # from the old head, the features it reads, and the classes
    "linear": lambda old, features, classes: nn.Linear(features, classes),
    "appended": lambda old, features, classes: nn.Sequential(old, nn.Linear(_last_linear(old)[1].out_features, classes)),
    "two_layers": lambda old, features, classes: nn.Sequential(
        nn.Dropout(0.5), nn.Linear(features, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, classes)
    ),
}


def _last_linear(module: nn.Module) -> tuple[str, nn.Linear]:
    found = [(name, part) for name, part in module.named_modules() if isinstance(part, nn.Linear)]
    if not found:
        raise ValueError(f"{type(module).__name__} has no linear layer, so it has no head to replace or to train alone")
    return found[-1]


def _head_name(model: nn.Module) -> str:
    """Return the dotted name of the last linear layer, or of the Sequential of plain layers that ends with it."""
    name, _ = _last_linear(model)
    parent = name.rpartition(".")[0]
    parts = model.get_submodule(parent)
    plain = isinstance(parts, nn.Sequential) and all(isinstance(part, (nn.Linear, nn.ReLU, nn.Dropout)) for part in parts)
    return parent if parent and plain else name


def with_head(model: nn.Module, classes: int, head: str) -> nn.Module:
    """Replace the head of a model, in place, with one of random weights.

    Args:
        head: `linear`; `appended`, a linear layer after the old head, which stays (PAG); `two_layers`: dropout, 64 features,
            ReLU, dropout, classes (the saliency benchmark). `linear` and `two_layers` replace the whole old classifier if it
            has several layers (VGG).

    Raises:
        ValueError: unknown head, or a model without a linear layer.
    """
    if head not in HEADS:
        raise ValueError(f"head must be one of {', '.join(HEADS)}, got {head!r}")
    name = _head_name(model)
    old = model.get_submodule(name)
    first = next(part for part in old.modules() if isinstance(part, nn.Linear))
    parent, _, own = name.rpartition(".")
    setattr(model.get_submodule(parent), own, HEADS[head](old, first.in_features, classes))
    return model


def head_of(model: nn.Module) -> nn.Module:
    """Return what is trained if only the head is: the last linear layer, or the `two_layers` that it belongs to."""
    name, last = _last_linear(model)
    parent = model.get_submodule(name.rpartition(".")[0])
    kinds = [type(part) for part in parent.children()] if isinstance(parent, nn.Sequential) else []
    return parent if kinds == [nn.Dropout, nn.Linear, nn.ReLU, nn.Dropout, nn.Linear] else last
