"""Figures: arrays in, a matplotlib Figure out. One colour a method, signed maps about 0, uncertainty drawn."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import ScaledTranslation, blended_transform_factory

from saliency_lib.statistics.claims import bootstrap_interval, shares, summary
from saliency_lib.statistics.ranks import cliques

# A method keeps its colour in every figure: the family gives the hue (blue and green gradients, red and brown paths, violet and
# yellow masks, grey controls), lightness and line tell its members apart, for the colour-blind too.
COLOURS = {
    "gradient": "#0072B2",
    "positive_gradient": "#3BA3F2",
    "negative_gradient": "#7F7FFF",
    "active_gradient": "#12206B",
    "inactive_gradient": "#9DB7DE",
    "input_x_gradient": "#56B4E9",
    "smoothgrad": "#009E73",
    "smoothgrad_squared": "#44AA99",
    "active_smoothgrad": "#7CB518",
    "guided_backprop": "#00506B",
    "guided_smoothgrad": "#1B5E20",
    "integrated_gradients": "#D55E00",
    "gnl_integrated_gradients": "#8E0B2E",
    "active_integrated_gradients": "#FF8066",
    "guided_path_integrated_gradients": "#A67C00",
    "gradient_shap": "#F2A65A",
    "deeplift": "#7A3B12",
    "deeplift_shap": "#C08A64",
    "gradcam": "#CC79A7",
    "rise": "#5B1F8A",
    "sidu": "#A63FB0",
    "sidu_grids": "#D9A5E8",
    "lime": "#B5B000",
    "occlusion": "#E69F00",
    "random": "#999999",
    "edges": "#444444",
    # trainings and variants, which never stand beside methods
    "corrected": "#0072B2",
    "released": "#D55E00",
    "standard": "#555555",
    "saliency_guided": "#D55E00",
    "saliency_guided_absolute": "#0072B2",
    "softplus": "#555555",
    "score_matching": "#0072B2",
    "anti_score_matching": "#D55E00",
    "gradient_norm": "#009E73",
}
_SPARE = ("#332288", "#117733", "#882255", "#999933", "#AA4499", "#661100", "#6699CC", "#888888")
_DASHED = {
    "random": (0, (4, 2)),
    "edges": (0, (1, 1.5)),
    **dict.fromkeys(("active_gradient", "active_smoothgrad", "active_integrated_gradients", "sidu_grids"), (0, (6, 1.5))),
    **dict.fromkeys(("guided_backprop", "guided_smoothgrad", "gnl_integrated_gradients", "deeplift_shap"), (0, (3, 1, 1, 1))),
    "anti_score_matching": (0, (4, 2)),
    "gradient_norm": (0, (3, 1, 1, 1)),
}
_INK = "#222222"


def colour(name: str) -> str:
    """The colour of a method, the same in every figure."""
    return COLOURS.get(name) or _SPARE[sum(name.encode()) % len(_SPARE)]


def line(name: str) -> str | tuple:
    """The line style of a method, the same in every figure."""
    return _DASHED.get(name, "-")


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

    A signed map runs from blue over white (0) to red, symmetric about 0; any other from dark, its least values, to light. The
    scale ends at the 99.5th percentile (and begins at the 0.5th), so that single pixels do not darken the rest.

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
        vmin=-limit if signed else min(float(np.quantile(values, 0.005)), 0.9 * limit),
        vmax=limit,
        alpha=opacity,
        interpolation="nearest",
    )
    axes.set_axis_off()


def gallery(images: np.ndarray, maps: Mapping[str, np.ndarray], titles: Sequence[str] = (), *, most: int = 9) -> Figure:
    """Images and their maps: one row an image, one column a method; many methods go below each other in bands.

    Args:
        images: (B, C, H, W) in [0, 1].
        maps: per method (B, H, W), not rescaled.
        titles: (B,) words at the left of each row, for instance the predicted class and its probability.
        most: methods side by side.
    """
    images, maps = np.asarray(images), {name: np.asarray(values) for name, values in maps.items()}
    bands = -(-len(maps) // most)
    across = -(-len(maps) // bands)  # as even as they come
    names = list(maps)
    figure = _figure(1.35 * (across + 1) + 0.9, bands * (1.35 * len(images) + 0.45))
    parts = np.atleast_1d(figure.subfigures(bands, 1))
    for part, start in zip(parts, range(0, len(names), across), strict=True):
        some = names[start : start + across]
        grid = part.subplots(len(images), across + 1, squeeze=False)
        for row, image in enumerate(images):
            draw_image(grid[row, 0], image)
            for axes, name in zip(grid[row, 1:], some, strict=False):
                draw_map(axes, maps[name][row], signed=bool(maps[name].min() < 0))
            for axes in grid[row, 1 + len(some) :]:
                axes.set_axis_off()
            if row < len(titles):
                place = {"transform": grid[row, 0].transAxes, "ha": "right", "va": "center", "fontsize": 8, "color": _INK}
                grid[row, 0].text(-0.08, 0.5, titles[row], **place)
        for axes, name in zip(grid[0], ["image", *some], strict=False):
            axes.set_title("\n".join(textwrap.wrap(words(name), 15)), fontsize=8, color=_INK)
    return figure


def curves(
    fractions: np.ndarray,
    values: Mapping[str, np.ndarray],
    *,
    changed: str,
    score: str,
    lower_is_better: bool,
    of: str = " of the image",
) -> Figure:
    """Mean curves with 95 % bootstrap bands; beside them each method's mean area with its interval, and the key to the lines.

    Args:
        fractions: (S+1,) share of the pixels changed.
        values: per method (B, S+1).
        changed, score: words for the axes, for instance "pixels removed" and "probability of the class".
        of: of what the fractions are.
        lower_is_better: whether a small area speaks for a method; the best stands at the top.
    """
    fractions = np.asarray(fractions)
    areas = {name: np.trapezoid(np.asarray(rows), fractions, axis=1) for name, rows in values.items()}
    table = summary(areas, lower_is_better=lower_is_better)
    few = len(table) <= 9
    figure = _figure(9.2, 3.7 if few else max(3.7, 0.21 * len(table) + 0.8))
    left, right = figure.subplots(1, 2, width_ratios=(1.5, 1))
    draw_bands(left, 100 * fractions, {name: values[name] for name in table["method"]})
    least = left.dataLim.y0  # of the bands
    left.set(
        xlabel=f"{changed} (%{of})",
        ylabel=f"{score} (mean, 95 % band)",
        xlim=(0, 100 * fractions[-1]),
        ylim=(0 if least >= 0 else np.floor(10 * least) / 10, 1),
    )
    draw_intervals(right, table, "area", lower_is_better)
    for axes in (left, right):
        _clean(axes)
        axes.xaxis.label.set_size(9)
        axes.yaxis.label.set_size(9)
    return figure


def panels(
    fractions: np.ndarray, values: Mapping[str, Mapping[str, np.ndarray]], *, changed: str, score: str, columns: int = 4
) -> Figure:
    """Mean curves with 95 % bootstrap bands, one panel a case; one key for all where they have the same lines.

    Args:
        fractions: (S+1,) share of the pixels changed.
        values: per panel and per line of it (B, S+1).
        changed, score: words for the axes.
        columns: panels side by side, at most.
    """
    shared = len({tuple(lines) for lines in values.values()}) == 1
    columns = min(columns, len(values))
    rows = -(-len(values) // columns)
    figure = _figure(9.2, 2.3 * rows + 0.6 if shared else 3.6)
    flat = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flatten()
    for axes, (name, lines) in zip(flat, values.items(), strict=False):
        draw_bands(axes, 100 * np.asarray(fractions), lines)
        axes.set_title("\n".join(textwrap.wrap(words(name), 34)), fontsize=8, color=_INK)
        axes.set(xlim=(0, 100 * fractions[-1]), ylim=(0, 1))
        axes.grid(axis="y", color="#dddddd", linewidth=0.6)
        axes.tick_params(labelbottom=True)
        _clean(axes)
        if not shared:
            axes.set_xlabel(f"{changed} (%)", fontsize=8)
            axes.legend(handles=_key(lines), fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.2))
    for axes in flat[len(values) :]:
        axes.set_axis_off()
    if shared:
        key = _key(next(iter(values.values())))
        figure.legend(handles=key, fontsize=8, frameon=False, loc="outside upper center", ncols=len(key))
        figure.supxlabel(f"{changed} (% of the image)", fontsize=9)
    figure.supylabel(f"{score} (mean, 95 % band)", fontsize=9)
    return figure


def _key(names: Iterable[str]) -> list[Line2D]:
    """For a legend: colour and style of each name's line."""
    return [Line2D([], [], color=colour(name), linestyle=line(name), linewidth=1.6, label=words(name)) for name in names]


def draw_bands(axes: Axes, places: np.ndarray, values: Mapping[str, np.ndarray]) -> None:
    """Draw each method's mean at some places (S,) with its 95 % bootstrap band; values (B, S) per method."""
    for name, rows in values.items():
        low, high = bootstrap_interval(np.asarray(rows))
        axes.fill_between(places, low, high, color=colour(name), alpha=0.13 if len(values) <= 9 else 0.06, linewidth=0)
        axes.plot(places, np.mean(rows, axis=0), color=colour(name), linestyle=line(name), linewidth=1.6)


def intervals(values: Mapping[str, Mapping[str, np.ndarray]], lower_is_better: Mapping[str, bool]) -> Figure:
    """Each method's mean with its 95 % bootstrap interval, one panel a metric, each with its best at the top.

    Args:
        values: per metric and method (B,).
        lower_is_better: per metric.
    """
    tables = {name: summary(rows, lower_is_better=lower_is_better[name]) for name, rows in values.items()}
    columns = 2 if len(tables) == 4 else min(3, len(tables))
    height = 0.21 * max(map(len, tables.values())) + 0.9
    figure = _figure(4.0 * columns, height * -(-len(tables) // columns))
    grid = figure.subplots(-(-len(tables) // columns), columns, squeeze=False).flatten()
    for axes, (name, table) in zip(grid, tables.items(), strict=False):
        draw_intervals(axes, table, words(name), lower_is_better[name])
        _clean(axes)
        axes.xaxis.label.set_size(8)
    for axes in grid[len(tables) :]:
        axes.set_axis_off()
    return figure


def beside(
    values: Mapping[str, Mapping[str, np.ndarray]], lower_is_better: Mapping[str, bool], reported: pd.DataFrame, setting: str = ""
) -> Figure:
    """Each method's mean with its 95 % bootstrap interval, and as hollow markers what a paper reports of it.

    Args:
        values: per quantity and method (B,), one panel a quantity.
        lower_is_better: per quantity.
        reported: rows of data/reported/: columns quantity, method, value, one marker a row.
        setting: words for the hollow markers.
    """
    tables = {name: summary(rows, lower_is_better=lower_is_better[name]) for name, rows in values.items()}
    figure = _figure(4.6 * len(tables), 0.3 * max(map(len, tables.values())) + 1.3)
    grid = figure.subplots(1, len(tables), squeeze=False)[0]
    for axes, (name, table) in zip(grid, tables.items(), strict=True):
        draw_intervals(axes, table, words(name), lower_is_better[name])
        _clean(axes)
        axes.xaxis.label.set_size(8)
        place = {method: len(table) - 1 - row for row, method in enumerate(table["method"])}
        told = reported[(reported["quantity"] == name) & reported["method"].isin(place)]
        axes.scatter(told["value"], told["method"].map(place), facecolors="none", edgecolors=_INK, marker="D", s=26, zorder=3)
    hollow = Line2D([], [], marker="D", linestyle="", markerfacecolor="none", markeredgecolor=_INK, label=f"reported{setting}")
    ours = Line2D([], [], marker="o", linestyle="-", color="#777777", label="ours, with 95 % interval")
    figure.legend(handles=[ours, hollow], fontsize=8, frameon=False, loc="outside upper center", ncols=2)
    return figure


def draw_intervals(axes: Axes, table: pd.DataFrame, quantity: str, lower_is_better: bool) -> None:
    """Draw each method's mean and interval, the best at the top, with a piece of its line as in the curves.

    Args:
        table: as `claims.summary` gives it.
        quantity: words for the axis.
    """
    place = np.arange(len(table))[::-1]
    from_axis = axes.figure.dpi_scale_trans + ScaledTranslation(0, 0, axes.transAxes)  # in inches
    beside_axis = blended_transform_factory(from_axis, axes.transData)
    for y, row in zip(place, table.itertuples(), strict=True):
        axes.plot([row.low, row.high], [y, y], color=colour(row.method), linewidth=2.4, solid_capstyle="round")
        axes.plot(row.mean, y, "o", color=colour(row.method), markersize=6 if len(table) < 12 else 4.5)
        key = {"transform": beside_axis, "clip_on": False, "linestyle": line(row.method), "linewidth": 1.6}
        axes.plot([-0.29, -0.06], [y, y], color=colour(row.method), **key)
    axes.set_yticks(place, [words(name) for name in table["method"]])
    axes.tick_params(axis="y", length=0, pad=24)
    better = "smaller is better" if lower_is_better else "larger is better"
    axes.set(xlabel=f"{quantity}\n95 % interval, {better}", ylim=(-0.6, len(table) - 0.4))
    axes.margins(x=0.12)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)


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


def samples(
    images: Mapping[str, np.ndarray],
    labels: np.ndarray,
    classes: Sequence[str],
    right: Mapping[str, np.ndarray],
    sigmas: np.ndarray,
    ratios: Mapping[str, np.ndarray],
) -> Figure:
    """What each training makes of the classes; below, how many samples a proxy recognises, and how the density changes.

    Args:
        images: per training (N, C, H, W) in [0, 1]; one of each class is drawn, of ten classes at most.
        labels: (N,) the classes that they were made for; classes: their words.
        right: per training (N,) whether the proxy finds that class; a picture of which it does not is framed.
        sigmas: (S,) standard deviations of noise.
        ratios: per training (B, S) change of the logarithm of the density, in logits.
    """
    columns = np.unique(np.asarray(labels), return_index=True)[1][:10]
    figure = _figure(9.2, 0.82 * len(images) + 3.3)
    upper, lower = figure.subfigures(2, 1, height_ratios=(0.82 * len(images) + 0.3, 3.0))
    grid = upper.subplots(len(images), len(columns), squeeze=False)
    for row, (name, pictures) in zip(grid, images.items(), strict=True):
        for axes, column in zip(row, columns, strict=True):
            draw_image(axes, pictures[column])
            if not right[name][column]:
                frame = {"fill": False, "edgecolor": COLOURS["integrated_gradients"], "linewidth": 2.5}
                axes.add_patch(Rectangle((0, 0), 1, 1, transform=axes.transAxes, **frame))
        place = {"transform": row[0].transAxes, "ha": "right", "va": "center", "fontsize": 8, "color": _INK}
        row[0].text(-0.12, 0.5, "\n".join(textwrap.wrap(words(name), 15)), **place)
    for axes, column in zip(grid[0], columns, strict=True):
        axes.set_title(shorten(classes[labels[column]], 12), fontsize=8, color=_INK)
    left, other = lower.subplots(1, 2, width_ratios=(1, 1.2))
    draw_intervals(left, shares(right), "samples that the proxy recognises (share)", False)
    left.axvline(1 / len(classes), color=_INK, linewidth=0.8)
    left.text(1 / len(classes) + 0.01, -0.55, "chance", fontsize=8, color=_INK)
    left.set_xlim(-0.02, 1.02)
    draw_bands(other, np.asarray(sigmas), ratios)
    other.axhline(0, color=_INK, linewidth=0.8)
    other.set(xlabel="noise, standard deviation (pixel value)", ylabel="log density ratio\n(logits; mean, 95 % band)")
    other.set_xlim(0, sigmas[-1])
    for axes in (left, other):
        _clean(axes)
        axes.xaxis.label.set_size(9)
        axes.yaxis.label.set_size(9)
    return figure


def by_training(
    values: Mapping[str, Mapping[str, Mapping[str, np.ndarray]]], reported: Mapping[tuple[str, str, str], float] | None = None
) -> Figure:
    """Several trainings side by side in many cases: means with their 95 % bootstrap intervals, one panel a quantity.

    Args:
        values: per quantity (words for the axis), case and training (B,).
        reported: per quantity, case and training what a paper reports of it, drawn as hollow markers.
    """
    cases = next(iter(values.values()))
    most = max(map(len, cases.values()))
    place = np.arange(len(cases))[::-1]
    figure = _figure(9.2, (0.09 * most + 0.12) * len(cases) + 1.1)
    grid = figure.subplots(1, len(values), sharey=True, squeeze=False)[0]
    for axes, (quantity, rows) in zip(grid, values.items(), strict=True):
        for y, (case, trainings) in zip(place, rows.items(), strict=True):
            for shift, (name, gains) in zip(np.linspace(0.26, -0.26, most), trainings.items(), strict=False):
                low, high = bootstrap_interval(gains)
                axes.plot([low, high], [y + shift] * 2, color=colour(name), linewidth=2, solid_capstyle="round")
                axes.plot(np.mean(gains), y + shift, "o", color=colour(name), markersize=4, label=words(name))
                if reported and (quantity, case, name) in reported:
                    hollow = {"color": colour(name), "markerfacecolor": "none", "label": f"{words(name)}, reported"}
                    axes.plot(reported[quantity, case, name], y + shift, "D", markersize=4.5, **hollow)
        axes.axvline(0, color=_INK, linewidth=0.8)
        axes.set(xlabel=f"{quantity}\nmean, 95 % interval; larger is better", ylim=(-0.6, len(cases) - 0.4))
        axes.grid(axis="x", color="#dddddd", linewidth=0.6)
        _clean(axes)
        axes.xaxis.label.set_size(8)
    grid[0].set_yticks(place, [words(name) for name in cases])
    keys = dict(zip(*grid[0].get_legend_handles_labels()[::-1], strict=True))
    figure.legend(keys.values(), keys, fontsize=8, frameon=False, loc="outside upper center", ncols=len(keys))
    return figure


def ratios(table: pd.DataFrame, quantity: str) -> Figure:
    """How many times better than its peer each case is, on a logarithmic axis, beside what was demanded and what is possible.

    Args:
        table: columns case, ratio, at_least, aim, ceiling; one row a case, empty where there is no such number.
        quantity: words for the axis.
    """
    table = table[table["ratio"].notna()]
    place = np.arange(len(table))[::-1]
    figure = _figure(7.2, 0.27 * len(table) + 1.1)
    axes = figure.subplots()
    missed = (table["ratio"] < table["at_least"]).to_numpy()
    colours = np.where(missed, COLOURS["integrated_gradients"], COLOURS["gradient"])
    axes.hlines(place, 1, table["ratio"], color=colours, linewidth=2.4)
    axes.scatter(table["ratio"], place, color=colours, s=36, zorder=3, label="ratio (orange: below what is demanded)")
    axes.scatter(table["at_least"], place, color=_INK, marker="|", s=90, linewidths=1.8, label="at least")
    axes.scatter(table["aim"], place, color="#999999", marker="|", s=90, linewidths=1.8, label="aim")
    label = "ceiling: the bare passes"
    axes.scatter(table["ceiling"], place, facecolors="none", edgecolors=_INK, marker="D", s=26, label=label)
    axes.axvline(1, color=_INK, linewidth=0.8)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_yticks(place, table["case"].map(words))
    axes.set(xlabel=quantity, ylim=(-0.6, len(table) - 0.4))
    axes.legend(fontsize=7.5, frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    _clean(axes)
    axes.xaxis.label.set_size(9)
    return figure


def critical_differences(standings: Mapping[str, pd.DataFrame], difference: float) -> Figure:
    """Mean ranks with their intervals, one panel a training, and which methods the critical difference does not tell apart.

    Bars at the right join runs of methods that do not differ; the bar at the top is as long as the critical difference.

    Args:
        standings: per training as `ranking.standings` gives it.
        difference: as `ranking.critical_difference` gives it; NaN draws neither, and says so.
    """
    tested = not np.isnan(difference)
    columns = min(3, len(standings))
    methods = max(map(len, standings.values()))
    figure = _figure(max(5.0, 3.9 * columns), (0.175 * methods + 1.2) * -(-len(standings) // columns))
    grid = figure.subplots(-(-len(standings) // columns), columns, squeeze=False).flatten()
    for axes, (training, table) in zip(grid, standings.items(), strict=False):
        place = np.arange(len(table))[::-1]
        for y, row in zip(place, table.itertuples(), strict=True):
            axes.plot([row.rank_low, row.rank_high], [y, y], color=colour(row.method), linewidth=2, solid_capstyle="round")
            axes.plot(row.rank, y, "o", color=colour(row.method), markersize=3.5)
        for (first, last), column in _columns(cliques(table["rank"], difference) if tested else ()):
            x = methods + 1 + 0.055 * methods * column
            axes.plot([x, x], [place[first] + 0.25, place[last] - 0.25], color=_INK, linewidth=1.6)
        axes.plot([1, 1 + difference], [len(table) + 0.2] * 2, color=_INK, linewidth=2.2)
        said = f"critical difference {difference:.2f}" if tested else "too few images to tell pairs apart"
        ground = {"facecolor": "white", "edgecolor": "none", "pad": 1}  # the grid does not strike the words out
        axes.text(1.5 + np.nan_to_num(difference), len(table) + 0.2, said, fontsize=7, va="center", bbox=ground)
        axes.set(xlim=(0.5, methods * 1.45 + 1), ylim=(-0.7, len(table) + 0.9), xlabel="mean rank (1: best), 95 % interval")
        axes.set_xticks([1, *range(5, methods + 1, 5)])
        axes.set_yticks(place, [words(name) for name in table["method"]])
        axes.set_title(words(training), fontsize=9, loc="left")
        axes.grid(axis="x", color="#e4e4e4", linewidth=0.6)
        _clean(axes)
        axes.tick_params(axis="y", labelsize=7)
        axes.xaxis.label.set_size(8)
    for axes in grid[len(standings) :]:
        axes.set_axis_off()
    return figure


def _columns(runs: Iterable[tuple[int, int]]) -> list[tuple[tuple[int, int], int]]:
    """Each run with the first column in which it touches no other."""
    ends: list[int] = []  # the last position of each column so far
    found = []
    for first, last in runs:
        column = next((number for number, end in enumerate(ends) if end < first), len(ends))
        ends[column:] = [last, *ends[column + 1 :]]
        found.append(((first, last), column))
    return found


def heat(table: pd.DataFrame, label: str, *, correlation: bool = False) -> Figure:
    """A table of numbers as coloured cells, each with its number.

    Args:
        table: indexed by the rows' names, one column a name.
        label: words for the colours, with the unit or what is better.
        correlation: numbers lie in [-1, 1] and colours about 0; else small numbers are dark.
    """
    values = table.to_numpy(float)
    figure = _figure(1.9 + 0.78 * values.shape[1] + 1.2, 1.5 + 0.24 * len(values))
    axes = figure.subplots()
    scale = {"cmap": "PuOr_r", "vmin": -1, "vmax": 1} if correlation else {"cmap": "cividis"}
    drawn = axes.imshow(values, aspect="auto", **scale)
    for (row, column), value in np.ndenumerate(values):
        red, green, blue, _ = drawn.cmap(drawn.norm(value))
        ink = "white" if 0.3 * red + 0.59 * green + 0.11 * blue < 0.5 else "black"
        text = "" if np.isnan(value) else f"{value:.2f}" if correlation else f"{value:.1f}"
        axes.text(column, row, text, ha="center", va="center", fontsize=7.5, color=ink)
    axes.set_xticks(range(values.shape[1]), [words(name).replace(" ", "\n") for name in table.columns], fontsize=7.5)
    axes.set_yticks(range(len(values)), [words(name) for name in table.index], fontsize=7.5)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    bar = figure.colorbar(drawn, ax=axes, fraction=0.05, pad=0.02)
    bar.set_label(label, fontsize=8)
    bar.ax.tick_params(labelsize=7.5)
    return figure


def shorten(word: str, most: int = 16) -> str:
    """A class name that fits above a small picture."""
    return word if len(word) <= most else word[: most - 1].rstrip() + "…"
