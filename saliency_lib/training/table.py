"""The table of training objectives."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

from torch import Tensor, nn

from saliency_lib.core.locks import GENERATOR
from saliency_lib.core.registry import Entry, Registry
from saliency_lib.core.series import of_series


@dataclass(frozen=True, eq=False)
class Objective(Entry):
    """A training objective: (model, images, labels, **options) -> scalar loss.

    Args:
        curved: whether it needs the second derivative of the network with respect to its input.
        paper: where the objective comes from.
    """

    curved: bool = False
    paper: str = ""

    @classmethod
    def adapt(cls, function: Callable, name: str, **facts: Any) -> Callable:
        """Return the objective, which then takes time series too; it alone draws from torch's global generators."""

        @wraps(function)
        def alone(*arguments: Any, **options: Any) -> Tensor:
            with GENERATOR:
                return function(*arguments, **options)

        return of_series(alone)

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, **options: Any) -> Tensor:
        """Return the loss of images (B, C, H, W), or of series (B, T, F), with labels (B,)."""
        return self.function(model, images, labels, **options)

    @property
    def row(self) -> dict[str, str]:
        """The objective's row when the table is printed."""
        return {"name": self.name, "second derivative": "yes" if self.curved else "no", "paper": self.paper}


OBJECTIVES: Registry[Objective] = Registry("objective", Objective)
