"""Compare methods on one model and a batch of images, without a store: maps, areas, and a table with intervals and verdicts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from saliency_lib import statistics
from saliency_lib.attribution.table import METHODS
from saliency_lib.core.batching import device_of, frozen, logits_of
from saliency_lib.core.checks import as_targets, check_images, check_model
from saliency_lib.core.options import no_such
from saliency_lib.evaluation.table import METRICS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Explain = Callable[[nn.Module, Tensor, Any], Tensor]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What `evaluate` found.

    Args:
        images: (B, C, H, W) in [0, 1].
        targets: (B,) the classes that were explained.
        maps: per method (B, H, W), not rescaled.
        areas: per metric and method (B,).
        table: one row per metric and method, see `evaluate`.
    """

    images: Tensor
    targets: Tensor
    maps: Mapping[str, Tensor]
    areas: Mapping[str, Mapping[str, np.ndarray]]
    table: pd.DataFrame

    def __repr__(self) -> str:
        return self.table.to_string(index=False, float_format="%.3f")

    def _repr_html_(self) -> str:
        return self.table.to_html(index=False, float_format="{:.3f}".format)

    def gallery(self, images: int = 6, titles: Sequence[str] = ()) -> "Figure":
        """Draw the first images with their maps; `titles` stand at the left of the rows."""
        from saliency_lib.figures.maps import gallery  # here, since a comparison does without matplotlib

        count = min(images, len(self.images))
        maps = {name: values[:count].float().numpy() for name, values in self.maps.items()}
        return gallery(self.images[:count].float().numpy(), maps, [*titles][:count])


def _methods(methods: Sequence[str] | Mapping[str, str | Explain]) -> dict[str, str | Explain]:
    """Return the methods by their names in the table, with the control `random`."""
    if isinstance(methods, str):
        raise TypeError(f"methods must be a list of names or a mapping, got the text {methods!r}; write [{methods!r}]")
    named: dict[str, str | Explain] = {**methods} if isinstance(methods, Mapping) else {name: name for name in methods}
    for name in named.values():
        if isinstance(name, str):
            METHODS[name]  # an unknown name is an error at once
        elif not callable(name):
            raise TypeError(f"a method must be a name in METHODS or a function of (model, images, targets), got {name!r}")
    return named if "random" in named else named | {"random": "random"}


def _rows(metric: str, areas: Mapping[str, np.ndarray]) -> pd.DataFrame:
    lower = METRICS[metric].lower_is_better
    rows = statistics.summary(areas, lower_is_better=lower)
    ranks = statistics.mean_ranks({metric: areas}, {metric: lower}).set_index("method")["rank"]
    pairs = [(name, "random") for name in areas if name != "random"]
    tested = statistics.paired(areas, pairs, lower_is_better=lower, smallest=METRICS[metric].smallest)
    verdicts = dict(zip([name for name, _ in pairs], zip(tested["ours"], tested["verdict"], strict=True), strict=True))
    found = [verdicts.get(name, ("", "control")) for name in rows["method"]]
    return pd.DataFrame(
        {
            "metric": metric,
            "better": "lower" if lower else "higher",
            "method": rows["method"],
            **{column: rows[column] for column in ("mean", "low", "high")},
            "mean rank": ranks.loc[rows["method"]].to_numpy(),
            "gain over random": [gain for gain, _ in found],
            "verdict": [verdict for _, verdict in found],
            "images": rows["images"],
        }
    )


def evaluate(
    model: nn.Module,
    images: Tensor,
    methods: Sequence[str] | Mapping[str, str | Explain] = ("gradient", "integrated_gradients", "gradcam"),
    metrics: Sequence[str] = ("deletion", "insertion"),
    *,
    targets: Tensor | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Evaluation:
    """Explain images by several methods, measure the maps by several metrics, and compare them with a random order.

    Args:
        model: maps pixels in [0, 1] to logits; wrap a network that needs normalised pixels: `sl.PixelModel(network, mean, std)`.
        images: (B, C, H, W) in [0, 1]; moved to the model's device.
        methods: names in METHODS, or per name of your own such a name or a function (model, images, targets) -> maps (B, H, W).
            The control `random` is added.
        metrics: names in METRICS that need no masks of objects.
        targets: (B,) classes; None for the predicted ones.
        options: per method or metric its keyword options.
        seed: fixes the random numbers of methods and metrics.
        progress: whether to show a bar with the time to go.

    Returns:
        The maps, the areas, and the table: per metric and method, the best first, the mean with its 95 % interval over the
        images, the mean rank over the images, the gain over a random order (positive is better) and the verdict, corrected by
        Holm's method within a metric; `not tested` for fewer than 100 images.

    Raises:
        ValueError: an unknown name or option, wrong images, or a map that does not fit.
    """
    check_model(model)
    named, options = _methods(methods), dict(options or {})
    for name in metrics:
        METRICS[name]
    for name in options:
        if name not in named and name not in metrics:
            raise no_such("method or metric with options", name, [*named, *metrics])
    pixels = check_images(images).to(device_of(model))
    if targets is None:
        with frozen(model):
            targets = logits_of(model, pixels).argmax(1)
    targets = as_targets(targets, pixels)
    shared = {"seed": seed, "indices": torch.arange(len(pixels))}
    maps: dict[str, Tensor] = {}
    areas: dict[str, dict[str, np.ndarray]] = {metric: {} for metric in metrics}
    with tqdm(total=len(named) * (1 + len(metrics)), disable=not progress, unit="step") as bar:
        for name, method in named.items():
            bar.set_description(name)
            explain = _explain(method, options.get(name, {}), seed)
            maps[name] = explain(model, pixels, targets)
            bar.update()
            for metric in metrics:
                bar.set_description(f"{metric} of {name}")
                given = METRICS.taken(metric, shared | {"explain": explain}) | dict(options.get(metric, {}))
                areas[metric][name] = METRICS[metric](model, pixels, maps[name], targets, **given).area.cpu().numpy()
                bar.update()
    table = pd.concat([_rows(metric, rows) for metric, rows in areas.items()], ignore_index=True) if metrics else pd.DataFrame()
    return Evaluation(pixels.cpu(), targets.cpu(), {name: value.cpu() for name, value in maps.items()}, areas, table)


def _explain(method: str | Explain, options: Mapping[str, Any], seed: int) -> Explain:
    """Return a method as a function of (model, images, targets), for the metrics that explain changed models or images."""

    def explain(model: nn.Module, images: Tensor, targets: Tensor | None) -> Tensor:
        if not isinstance(method, str):
            return torch.as_tensor(method(model, images, targets)).to(images)
        given = METHODS.taken(method, {"seed": seed, "indices": torch.arange(len(images))}) | dict(options)
        return METHODS[method](model, images, targets, **given)

    return explain
