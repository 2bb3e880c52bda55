"""Figures: arrays in, a matplotlib Figure out. One colour a method, signed maps about 0, uncertainty drawn."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from saliency_lib.claims import bootstrap_interval, summary

# Colours that the colour-blind tell apart (after Okabe, Ito 2008 and Tol 2021); a method keeps its own in every figure.
COLOURS = {
    "gradient": "#0072B2",
    "input_x_gradient": "#56B4E9",
    "smoothgrad": "#009E73",
    "smoothgrad_squared": "#44AA99",
    "integrated_gradients": "#D55E00",
    "gradcam": "#CC79A7",
    "occlusion": "#E69F00",
    "random": "#999999",
    "edges": "#444444",
}
_SPARE = ("#332288", "#117733", "#882255", "#999933", "#AA4499", "#661100", "#6699CC", "#888888")
_DASHED = {"random": (0, (4, 2)), "edges": (0, (1, 1.5))}
_INK = "#222222"


def colour(name: str) -> str:
    """The colour of a method, the same in every figure."""
    return COLOURS.get(name) or _SPARE[sum(name.encode()) % len(_SPARE)]


def words(name: str) -> str:
    """A registered name as it is written in a figure."""
    return name.replace("_", " ")


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def _clean(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def draw_image(axes: Axes, image: np.ndarray) -> None:
    """Draw pixels (C, H, W) in [0, 1], one channel as grey."""
    picture = np.clip(np.moveaxis(np.asarray(image), 0, -1), 0, 1)
    axes.imshow(picture.squeeze(-1) if picture.shape[-1] == 1 else picture, cmap="gray", vmin=0, vmax=1)
    axes.set_axis_off()


def draw_map(
    axes: Axes, values: np.ndarray, *, signed: bool | None = None, image: np.ndarray | None = None, opacity: float = 1.0
) -> None:
    """Draw a map (H, W), on top of its image (C, H, W) where opacity is below 1.

    A signed map runs from blue over white (0) to red, symmetric about 0; any other from dark (0) to light. The scale ends
    at the 99.5th percentile, so that single pixels do not darken the rest.

    Args:
        signed: how to draw it; None looks for negative values.
    """
    values = np.asarray(values, dtype=float)
    limit = float(np.quantile(np.abs(values), 0.995)) or float(np.abs(values).max()) or 1.0
    signed = values.min() < 0 if signed is None else signed
    if image is not None and opacity < 1:
        draw_image(axes, np.broadcast_to(np.asarray(image).mean(0), (1, *values.shape)))
    axes.imshow(
        values,
        cmap=colormaps["RdBu_r" if signed else "inferno"],
        vmin=-limit if signed else 0,
        vmax=limit,
        alpha=opacity,
        interpolation="nearest",
    )
    axes.set_axis_off()


def gallery(images: np.ndarray, maps: Mapping[str, np.ndarray], titles: Sequence[str] = ()) -> Figure:
    """Images and their maps: one row an image, one column a method.

    Args:
        images: (B, C, H, W) in [0, 1].
        maps: per method (B, H, W), not rescaled.
        titles: (B,) words at the left of each row, for instance the predicted class and its probability.
    """
    images, maps = np.asarray(images), {name: np.asarray(values) for name, values in maps.items()}
    rows, columns = len(images), 1 + len(maps)
    figure = _figure(1.35 * columns + 0.9, 1.35 * rows + 0.35)
    grid = figure.subplots(rows, columns, squeeze=False)
    for row, image in enumerate(images):
        draw_image(grid[row, 0], image)
        for column, values in enumerate(maps.values(), 1):
            draw_map(grid[row, column], values[row], signed=bool(values.min() < 0))
        if row < len(titles):
            grid[row, 0].text(
                -0.08, 0.5, titles[row], transform=grid[row, 0].transAxes, ha="right", va="center", fontsize=8, color=_INK
            )
    for column, name in enumerate(["image", *maps]):
        grid[0, column].set_title(words(name).replace(" ", "\n", 1), fontsize=8, color=_INK)
    return figure


def curves(
    fractions: np.ndarray,
    values: Mapping[str, np.ndarray],
    *,
    changed: str,
    score: str,
    lower_is_better: bool,
) -> Figure:
    """Mean perturbation curves with 95 % bootstrap bands, and beside them each method's mean area with its interval.

    Args:
        fractions: (S+1,) share of the pixels changed.
        values: per method (B, S+1).
        changed, score: words for the axes, for instance "pixels removed" and "probability of the class".
        lower_is_better: whether a small area speaks for a method; the best stands at the top.
    """
    fractions = np.asarray(fractions)
    figure = _figure(9.2, 3.7)
    left, right = figure.subplots(1, 2, width_ratios=(1.5, 1))
    areas = {name: np.trapezoid(np.asarray(rows), fractions, axis=1) for name, rows in values.items()}
    table = summary(areas, lower_is_better=lower_is_better)
    for name in table["method"]:
        rows = np.asarray(values[name])
        low, high = bootstrap_interval(rows)
        left.fill_between(100 * fractions, low, high, color=colour(name), alpha=0.13, linewidth=0)
        left.plot(
            100 * fractions, rows.mean(0), color=colour(name), linestyle=_DASHED.get(name, "-"), linewidth=1.6, label=words(name)
        )
    left.set(
        xlabel=f"{changed} (% of the image)", ylabel=f"{score} (mean, 95 % band)", xlim=(0, 100 * fractions[-1]), ylim=(0, 1)
    )
    place = np.arange(len(table))[::-1]
    for y, row in zip(place, table.itertuples(), strict=True):
        right.plot([row.low, row.high], [y, y], color=colour(row.method), linewidth=2.4, solid_capstyle="round")
        right.plot(row.mean, y, "o", color=colour(row.method), markersize=6)
    right.set_yticks(place, [words(name) for name in table["method"]])
    better = "smaller is better" if lower_is_better else "larger is better"
    right.set(xlabel=f"area, 95 % interval ({better})", ylim=(-0.6, len(table) - 0.4))
    right.margins(x=0.12)
    right.grid(axis="x", color="#dddddd", linewidth=0.6)
    left.legend(fontsize=7.5, frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=4)  # above, free of the curves
    for axes in (left, right):
        _clean(axes)
        axes.xaxis.label.set_size(9)
        axes.yaxis.label.set_size(9)
    return figure


def training(
    history: pd.DataFrame, images: np.ndarray, words: Sequence[str], probabilities: np.ndarray, right: np.ndarray
) -> Figure:
    """Loss and accuracy epoch by epoch, and what the model says of some images.

    Args:
        history: columns epoch, loss, test_accuracy; empty where published weights were taken, then the images stand alone.
        images: (B, C, H, W) in [0, 1].
        words, probabilities, right: (B,) predicted class, its probability, whether it is the label.
    """
    columns = 6
    rows = -(-len(images) // columns)
    figure = _figure(9.2, 3.4 if len(history) else 1.9 * rows)
    pictures = figure
    if len(history):
        plots, pictures = figure.subfigures(1, 2, width_ratios=(1, 1.25))
        upper, lower = plots.subplots(2, 1, sharex=True)
        upper.plot(history["epoch"], history["loss"], "o-", color=COLOURS["gradient"], markersize=4)
        upper.set(ylabel="training loss (nats)", ylim=(0, None))
        lower.plot(history["epoch"], 100 * history["test_accuracy"], "o-", color=COLOURS["integrated_gradients"], markersize=4)
        lower.set(xlabel="epoch", ylabel="test accuracy (%)", ylim=(0, 100))
        for axes in (upper, lower):
            _clean(axes)
            axes.xaxis.label.set_size(9)
            axes.yaxis.label.set_size(9)
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    grid = pictures.subplots(rows, columns, squeeze=False).flatten()
    for axes in grid:
        axes.set_axis_off()
    for axes, image, word, probability, good in zip(grid, np.asarray(images), words, probabilities, right, strict=False):
        draw_image(axes, image)
        axes.set_title(f"{shorten(word)}\n{probability:.0%}", fontsize=8, color=_INK if good else COLOURS["integrated_gradients"])
    return figure


def shorten(word: str, most: int = 16) -> str:
    """A class name that fits above a small picture."""
    return word if len(word) <= most else word[: most - 1].rstrip() + "…"
