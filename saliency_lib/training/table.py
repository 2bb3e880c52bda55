"""The table of training objectives."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

from torch import Tensor, nn

from saliency_lib.core.calls import kernel
from saliency_lib.core.checks import as_targets, check_kind, check_model
from saliency_lib.core.locks import GENERATOR
from saliency_lib.core.registry import Entry, Registry
from saliency_lib.core.series import of_series


@dataclass(frozen=True, eq=False)
class Objective(Entry):
    """A training objective: (model, images, labels, **options) -> scalar loss.

    Args:
        curved: whether it needs the second derivative of the network with respect to its input.
        paper: where the objective comes from.
        added: options that came after results had been stored, see `Method`.
    """

    curved: bool = False
    paper: str = ""
    added: tuple[str, ...] = ()

    @classmethod
    def adapt(cls, function: Callable, name: str, **facts: Any) -> Callable:
        """Return the objective, which then checks its options, takes time series too, and draws random numbers alone."""

        @wraps(function)
        def alone(model: nn.Module, images: Tensor, labels: Tensor, **options: Any) -> Tensor:
            if not isinstance(model, nn.Module):
                check_model(model)
            check_kind("images", images, 4)
            labels = as_targets(labels, images, "labels")
            try:
                with GENERATOR:
                    return function(model, images, labels, **options)
            except (IndexError, RuntimeError) as error:
                if "out of bounds" not in str(error):
                    raise
                raise ValueError(
                    f"labels must be classes of the model, they range from {labels.min()} to {labels.max()}"
                ) from error

        return kernel(of_series(alone), name, "objective")

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, **options: Any) -> Tensor:
        """Return the loss of images (B, C, H, W), or of series (B, T, F), with labels (B,)."""
        return self.function(model, images, labels, **options)

    @property
    def row(self) -> dict[str, str]:
        """The objective's row when the table is printed."""
        return {"name": self.name, "second derivative": "yes" if self.curved else "no", "paper": self.paper}


OBJECTIVES: Registry[Objective] = Registry("objective", Objective)
