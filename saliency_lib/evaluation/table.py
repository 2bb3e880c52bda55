"""The table of metrics."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from saliency_lib.core.calls import kernel
from saliency_lib.core.registry import Entry, Registry
from saliency_lib.core.series import of_series
from saliency_lib.core.texts import of_texts
from saliency_lib.evaluation.curve import Curve


@dataclass(frozen=True, eq=False)
class Metric(Entry):
    """A metric of maps: (model, images, maps, targets, **options) -> Curve.

    Args:
        lower_is_better: whether a small area is evidence for the map.
        presets: the settings of each preset; they are part of a specification's digest.
        paper: the paper that introduced the metric.
        family: metrics of one family ask the same question and share one vote in the leaderboard; empty: the metric's own name.
        smallest: the smallest difference that matters, in the metric's unit; 0 for a unit without bounds, of which none is known.
    """

    lower_is_better: bool
    presets: Mapping[str, dict] = field(default_factory=dict)
    paper: str = ""
    family: str = ""
    smallest: float = 0.01

    @classmethod
    def adapt(cls, function: Callable, name: str, **facts: Any) -> Callable:
        """Return the metric, which then checks its options and accepts time series and texts as well."""
        return kernel(of_texts(of_series(function)), name, "metric")

    def __call__(
        self, model: nn.Module, images: Tensor, maps: Tensor, targets: Tensor | int | None = None, **options: Any
    ) -> Curve:
        """Call the function."""
        return self.function(model, images, maps, targets, **options)

    @property
    def row(self) -> dict[str, str]:
        """The metric's row when the table is printed."""
        return {"name": self.name, "better": "lower" if self.lower_is_better else "higher", "paper": self.paper}


METRICS: Registry[Metric] = Registry("metric", Metric)
