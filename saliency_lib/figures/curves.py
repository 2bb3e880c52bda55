"""Curves with bands: perturbation curves, training histories, density ratios."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from saliency_lib.figures.maps import draw_image
from saliency_lib.figures.style import BAD, GOOD, INK, add_axes, colour, key, line_style, row_label, shorten, styled, wrap
from saliency_lib.figures.tables import draw_intervals
from saliency_lib.statistics.intervals import bootstrap_interval, mean_interval, proportions, summary


def draw_bands(axes: Axes, places: np.ndarray, values: Mapping[str, np.ndarray]) -> None:
    """Draw the mean of each method at some places with its 95 % bootstrap band.

    Args:
        places: (S,), for example fractions of the pixels.
        values: per method (B, S), one row per image.
    """
    for name, rows in values.items():
        low, high = bootstrap_interval(rows)
        axes.fill_between(places, low, high, color=colour(name), alpha=0.13 if len(values) <= 9 else 0.06, linewidth=0)
        axes.plot(places, np.mean(rows, axis=0), color=colour(name), linestyle=line_style(name))


@styled
def mean_curves(
    fractions: np.ndarray,
    values: Mapping[str, np.ndarray],
    *,
    changed: str,
    score: str,
    lower_is_better: bool,
    of: str = " of the image",
) -> Figure:
    """Draw mean curves with 95 % bootstrap bands, and at the right each method's mean area with its interval.

    Args:
        fractions: (S+1,) share of the pixels changed.
        values: per method (B, S+1).
        changed, score: words for the axes, for example "pixels removed" and "probability of the class".
        lower_is_better: whether a small area is good; the best method is at the top.
        of: what the fractions are a share of.
    """
    fractions = np.asarray(fractions)
    areas = {name: np.trapezoid(np.asarray(rows), fractions, axis=1) for name, rows in values.items()}
    table = summary(areas, lower_is_better=lower_is_better)
    figure = Figure(figsize=(9.2, 3.7 if len(table) <= 9 else max(3.7, 0.21 * len(table) + 0.8)))
    left, right = add_axes(figure, 2, 2, width_ratios=(1.5, 1))
    draw_bands(left, 100 * fractions, {name: values[name] for name in table["method"]})
    least = left.dataLim.y0  # of the bands
    left.set(xlabel=f"{changed} (%{of})", ylabel=f"{score} (mean, 95 % band)")
    left.set(xlim=(0, 100 * fractions[-1]), ylim=(0 if least >= 0 else np.floor(10 * least) / 10, 1))
    draw_intervals(right, table, "area", lower_is_better)
    return figure


@styled
def panels(
    fractions: np.ndarray, values: Mapping[str, Mapping[str, np.ndarray]], *, changed: str, score: str, columns: int = 4
) -> Figure:
    """Draw mean curves with 95 % bootstrap bands, one panel per case; cases with the same lines share one legend.

    Args:
        fractions: (S+1,) share of the pixels changed.
        values: per panel and line (B, S+1).
        changed, score: words for the axes.
        columns: most panels side by side.
    """
    shared = len({tuple(lines) for lines in values.values()}) == 1
    columns = min(columns, len(values))
    figure = Figure(figsize=(9.2, 2.3 * -(-len(values) // columns) + 0.6 if shared else 3.6))
    grid = add_axes(figure, len(values), columns, sharex=True, sharey=True)
    for axes, (name, lines) in zip(grid, values.items(), strict=True):
        draw_bands(axes, 100 * np.asarray(fractions), lines)
        axes.set(title=wrap(name, 34), xlim=(0, 100 * fractions[-1]), ylim=(0, 1))
        axes.grid(axis="y")
        axes.tick_params(labelbottom=True)
        if not shared:
            axes.set_xlabel(f"{changed} (%)")
            axes.legend(handles=key(lines), loc="upper center", bbox_to_anchor=(0.5, -0.2))
    if shared:
        handles = key(next(iter(values.values())))
        figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
        figure.supxlabel(f"{changed} (% of the image)")
    figure.supylabel(f"{score} (mean, 95 % band)")
    return figure


@styled
def correlations(table: pd.DataFrame) -> Figure:
    """Draw how near maps of few passes are to a map of many, one line per estimator and one panel per design of the masks.

    Lines are means over the pictures and the seeds of their masks, bands their 95 % intervals. The dotted line is the mean of the
    original estimator at its largest number of passes.

    Args:
        table: columns picture, seed, estimator, design, passes, correlation; the estimator `original` has the design
            `independent`.
    """
    designs, estimators = (list(table[column].unique()) for column in ("design", "estimator"))
    figure = Figure(figsize=(3.1 * len(designs) + 0.6, 3.4))
    usual = table[(table["design"] == "independent") & (table["estimator"] == "original")]
    goal = usual[usual["passes"] == usual["passes"].max()]["correlation"].mean()
    for axes, design in zip(add_axes(figure, len(designs), len(designs), sharey=True), designs, strict=True):
        for name in estimators:
            part = table[(table["design"] == design) & (table["estimator"] == name)]
            mean = part.groupby("passes")["correlation"].mean()
            tables = (some.pivot(index="seed", columns="picture", values="correlation") for _, some in part.groupby("passes"))
            low, high = np.transpose([mean_interval(values.to_numpy()) for values in tables])
            axes.fill_between(mean.index, low, high, color=colour(name), alpha=0.13, linewidth=0)
            axes.plot(mean.index, mean, color=colour(name), linewidth=2, marker="o", markersize=3)
        axes.axhline(goal, color=INK, linestyle=":", linewidth=1)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set(title=f"{design} masks", ylim=(min(0, table["correlation"].min()), 1))
        axes.grid(axis="y")
    figure.supxlabel("passes (masks)")
    figure.supylabel("rank correlation (mean, 95 % band)")
    figure.legend(handles=key(estimators), loc="outside upper center", ncols=len(estimators))
    return figure


@styled
def training_history(
    history: pd.DataFrame, images: np.ndarray, predicted: Sequence[str], probabilities: np.ndarray, correct: np.ndarray
) -> Figure:
    """Draw loss and accuracy per epoch, and what the model predicts for some images; wrong predictions are orange.

    Args:
        history: columns epoch, loss, test_accuracy; empty for published weights, then only the images are drawn.
        images: (B, C, H, W) in [0, 1].
        predicted, probabilities, correct: (B,) predicted class, its probability, whether it is the label.
    """
    columns = 6
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(9.2, 3.4 if len(history) else 1.9 * rows))
    *plots, pictures = figure.subfigures(1, 2, squeeze=False, width_ratios=(1, 1.25)).flat if len(history) else [figure]
    if plots:
        upper, lower = add_axes(plots[0], 2, 1, sharex=True)
        upper.plot(history["epoch"], history["loss"], "o-", color=GOOD)
        upper.set(ylabel="training loss (nats)", ylim=(0, None))
        lower.plot(history["epoch"], 100 * history["test_accuracy"], "o-", color=BAD)
        lower.set(xlabel="epoch", ylabel="test accuracy (%)", ylim=(0, 100))
        lower.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
        for axes in (upper, lower):
            axes.grid(axis="y")
    grid = add_axes(pictures, rows * columns, columns)
    for axes in grid:
        axes.set_axis_off()
    for axes, image, word, probability, right in zip(grid, images, predicted, probabilities, correct, strict=False):
        draw_image(axes, image)
        axes.set_title(f"{shorten(word)}\n{probability:.0%}{'' if right else ', wrong'}", color=INK if right else BAD)
    return figure


@styled
def sample_quality(
    images: Mapping[str, np.ndarray],
    labels: np.ndarray,
    classes: Sequence[str],
    recognised: Mapping[str, np.ndarray],
    sigmas: np.ndarray,
    log_ratios: Mapping[str, np.ndarray],
) -> Figure:
    """Draw samples of each training, the share of them that a proxy recognises, and the change of the density with noise.

    Args:
        images: per training (N, C, H, W) in [0, 1]; one sample per class is drawn, for at most ten classes.
        labels: (N,) the classes that the samples were made for.
        classes: their names.
        recognised: per training (N,) whether the proxy recognises that class; a sample that it does not recognise is framed.
        sigmas: (S,) standard deviations of the noise.
        log_ratios: per training (B, S) change of the logarithm of the density, in logits.
    """
    columns = np.unique(np.asarray(labels), return_index=True)[1][:10]
    figure = Figure(figsize=(9.2, 0.82 * len(images) + 3.3))
    upper, lower = figure.subfigures(2, 1, squeeze=False, height_ratios=(0.82 * len(images) + 0.3, 3.0)).flat
    grid = iter(add_axes(upper, len(images) * len(columns), len(columns)))
    for row, (name, pictures) in enumerate(images.items()):
        for column, (sample, axes) in enumerate(zip(columns, grid, strict=False)):
            draw_image(axes, pictures[sample])
            if not recognised[name][sample]:
                axes.add_patch(Rectangle((0, 0), 1, 1, transform=axes.transAxes, fill=False, edgecolor=BAD, linewidth=2.5))
            if row == 0:
                axes.set_title(shorten(classes[labels[sample]], 12))
            if column == 0:
                row_label(axes, wrap(name, 15))
    left, right = add_axes(lower, 2, 2, width_ratios=(1, 1.2))
    draw_intervals(left, proportions(recognised), "samples that the proxy recognises (share)", False)
    left.axvline(1 / len(classes), color=INK, linewidth=0.8)
    left.text(1 / len(classes) + 0.01, -0.55, "chance")
    left.set_xlim(-0.02, 1.02)
    draw_bands(right, sigmas, log_ratios)
    right.axhline(0, color=INK, linewidth=0.8)
    right.set(xlabel="noise, standard deviation (pixel value)", ylabel="log density ratio\n(logits; mean, 95 % band)")
    right.set_xlim(0, sigmas[-1])
    return figure
