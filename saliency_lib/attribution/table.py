"""The table of attribution methods."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from saliency_lib.core.registry import Entry, Registry
from saliency_lib.core.series import of_series


@dataclass(frozen=True, eq=False)
class Method(Entry):
    """An attribution method: (model, images, targets, **options) -> maps (B, H, W).

    Args:
        family: `gradient`, `path`, `activation`, `mask` or `control`.
        passes: passes of the network per image with the default options; F is a forward pass, B a backward pass.
        paper: where the method comes from.
    """

    family: str = "own"
    passes: str = ""
    paper: str = ""

    @classmethod
    def adapt(cls, function: Callable, name: str, **facts: Any) -> Callable:
        """Return the method, which then takes time series too."""
        return of_series(function)

    def __call__(self, model: nn.Module, images: Tensor, targets: Tensor | int | None = None, **options: Any) -> Tensor:
        return self.function(model, images, targets, **options)

    @property
    def row(self) -> dict[str, str]:
        """The method's row when the table is printed."""
        return {"name": self.name, "family": self.family, "passes per image": self.passes, "paper": self.paper}


METHODS: Registry[Method] = Registry("method", Method)
