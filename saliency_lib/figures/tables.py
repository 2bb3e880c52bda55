"""Tables as pictures: means with intervals, ratios, mean ranks with critical differences, heat maps."""

from collections.abc import Collection, Iterable, Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator
from matplotlib.transforms import ScaledTranslation, blended_transform_factory

from saliency_lib.figures.style import BAD, GOOD, INK, add_axes, colour, display_name, key, styled
from saliency_lib.statistics.intervals import Areas, mean_interval, summary
from saliency_lib.statistics.ranks import cliques


def _interval(axes: Axes, mean: float, low: float, high: float, y: float, name: str, width: float, size: float) -> None:
    axes.plot([low, high], [y, y], color=colour(name), linewidth=width)
    axes.plot(mean, y, "o", color=colour(name), markersize=size)


def draw_intervals(axes: Axes, table: pd.DataFrame, quantity: str, lower_is_better: bool) -> None:
    """Draw the mean and interval of each method, the best at the top, with a piece of its line as in the curves.

    Args:
        table: as `statistics.summary` returns it.
        quantity: words for the axis.
        lower_is_better: whether a small mean is good.
    """
    place = np.arange(len(table))[::-1]
    left_edge = ScaledTranslation(0, 0, axes.transAxes)  # type: ignore[arg-type]  # matplotlib's own stub is too narrow
    inches = axes.figure.dpi_scale_trans + left_edge
    left_of_axes = blended_transform_factory(inches, axes.transData)
    for y, row in zip(place, table.to_dict("records"), strict=True):
        name = row["method"]
        _interval(axes, row["mean"], row["low"], row["high"], y, name, 2.4, 6 if len(table) < 12 else 4.5)
        (piece,) = key([name])
        piece.set(data=([-0.29, -0.06], [y, y]), transform=left_of_axes, clip_on=False)
        axes.add_line(piece)
    axes.set_yticks(place, [display_name(name) for name in table["method"]])
    axes.tick_params(axis="y", length=0, pad=24)
    better = "smaller is better" if lower_is_better else "larger is better"
    axes.set(xlabel=f"{quantity}\n95 % interval, {better}", ylim=(-0.6, len(table) - 0.4))
    axes.margins(x=0.12)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.grid(axis="x")


@styled
def intervals(values: Areas, lower_is_better: Mapping[str, bool]) -> Figure:
    """Draw the mean of each method with its 95 % bootstrap interval, one panel per metric, each with its best at the top.

    Args:
        values: per metric and method (B,).
        lower_is_better: per metric.
    """
    columns = 2 if len(values) == 4 else min(3, len(values))
    height = 0.21 * max(map(len, values.values())) + 0.9
    figure = Figure(figsize=(4.0 * columns, height * -(-len(values) // columns)))
    for axes, (name, rows) in zip(add_axes(figure, len(values), columns), values.items(), strict=True):
        table = summary(rows, lower_is_better=lower_is_better[name])
        draw_intervals(axes, table, display_name(name), lower_is_better[name])
    return figure


@styled
def against_reported(values: Areas, lower_is_better: Mapping[str, bool], reported: pd.DataFrame, setting: str = "") -> Figure:
    """Draw the mean of each method with its 95 % bootstrap interval, and what a paper reports as hollow markers.

    Args:
        values: per quantity and method (B,), one panel per quantity.
        lower_is_better: per quantity.
        reported: rows of data/reported/: columns quantity, method, value, one marker per row.
        setting: words for the legend, after "reported".
    """
    figure = Figure(figsize=(4.6 * len(values), 0.3 * max(map(len, values.values())) + 1.3))
    for axes, (name, rows) in zip(add_axes(figure, len(values), len(values)), values.items(), strict=True):
        table = summary(rows, lower_is_better=lower_is_better[name])
        draw_intervals(axes, table, display_name(name), lower_is_better[name])
        place = {method: len(table) - 1 - row for row, method in enumerate(table["method"])}
        points = reported[(reported["quantity"] == name) & reported["method"].isin(place)]
        axes.scatter(points["value"], points["method"].map(place), facecolors="none", edgecolors=INK, marker="D", s=26, zorder=3)
    ours = Line2D([], [], marker="o", markersize=6, color="#777777", label="this run, with 95 % interval")
    hollow = Line2D([], [], marker="D", markersize=6, linestyle="", color=INK, markerfacecolor="none", label=f"reported{setting}")
    figure.legend(handles=[ours, hollow], loc="outside upper center", ncols=2)
    return figure


@styled
def intervals_by_training(
    values: Mapping[str, Areas],
    reported: Mapping[tuple[str, str, str], float] | None = None,
    *,
    smaller_is_better: Collection[str] = (),
) -> Figure:
    """Draw the means of several trainings side by side for many cases, with 95 % bootstrap intervals, one panel per quantity.

    Args:
        values: per quantity (words for the axis), case and training (B,), or (S, B) for S seeds, which are drawn as small dots.
        reported: per quantity, case and training what a paper reports, drawn as hollow markers.
        smaller_is_better: the quantities of which a small value is good.
    """
    cases = next(iter(values.values()))
    most = max(map(len, cases.values()))
    place = np.arange(len(cases))[::-1]
    figure = Figure(figsize=(9.2, (0.09 * most + 0.12) * len(cases) + 1.1))
    grid = add_axes(figure, len(values), len(values), sharey=True)
    for axes, (quantity, rows) in zip(grid, values.items(), strict=True):
        for y, (case, trainings) in zip(place, rows.items(), strict=True):
            for shift, (name, gains) in zip(np.linspace(0.26, -0.26, most), trainings.items(), strict=False):
                _interval(axes, float(np.mean(gains)), *mean_interval(gains), y + shift, name, 2, 4)
                axes.lines[-1].set_label(display_name(name))
                if np.ndim(gains) == 2:
                    axes.scatter(np.mean(gains, axis=1), [y + shift] * len(gains), s=7, color=INK, alpha=0.6, zorder=4)
                if reported and (quantity, case, name) in reported:
                    (hollow,) = axes.plot(reported[quantity, case, name], y + shift, "D", color=colour(name), markersize=4.5)
                    hollow.set(markerfacecolor="none", label=f"{display_name(name)}, reported")
        axes.axvline(0, color=INK, linewidth=0.8)
        better = "smaller" if quantity in smaller_is_better else "larger"
        axes.set(xlabel=f"{quantity}\nmean, 95 % interval; {better} is better", ylim=(-0.6, len(cases) - 0.4))
        axes.grid(axis="x")
    grid[0].set_yticks(place, [display_name(name) for name in cases])
    handles, labels = grid[0].get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    figure.legend(unique.values(), unique, loc="outside upper center", ncols=len(unique))
    return figure


@styled
def ratios(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw how many times better than its peer each case is, on logarithmic axes, one panel above the other.

    Args:
        tables: per panel, by the words for its axis: columns case, ratio and, if there is a limit to the ratio, ceiling, which is
            empty where there is none; one row per case.
    """
    tables = {words: table[table["ratio"].notna()] for words, table in tables.items()}
    counts = [len(table) for table in tables.values()]
    figure = Figure(figsize=(7.2, 0.27 * sum(counts) + 0.8 * len(counts) + 0.4))
    grid = figure.subplots(len(counts), 1, squeeze=False, height_ratios=[count + 0.4 for count in counts])
    for axes, (words, table) in zip(grid[:, 0], tables.items(), strict=True):
        place = np.arange(len(table))[::-1]
        colours = [BAD if round(ratio, 2) < 1 else GOOD for ratio in table["ratio"]]
        axes.hlines(place, 1, table["ratio"], color=colours, linewidth=2.4)
        axes.scatter(table["ratio"], place, color=colours, s=36, zorder=3, label="measured")
        if "ceiling" in table:
            limit = "limit: cost of the network's own passes"
            axes.scatter(table["ceiling"], place, facecolors="none", edgecolors=INK, marker="D", s=26, label=limit)
        axes.axvline(1, color=INK, linewidth=0.8)
        axes.set_xscale("log")
        axes.set_xlim(right=max(2.2, axes.get_xlim()[1]))
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("")
        axes.set_yticks(place, [display_name(name) for name in table["case"]])
        axes.set(xlabel=words, ylim=(-0.6, len(table) - 0.4))
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


@styled
def critical_difference_diagram(ranks: Mapping[str, pd.DataFrame], difference: float) -> Figure:
    """Draw mean ranks with their intervals, one panel per training, and join methods that do not differ significantly.

    The bars at the right join runs of methods that do not differ. The bar at the top is as long as the critical difference.

    Args:
        ranks: per training as `statistics.mean_ranks` returns it.
        difference: as `statistics.critical_difference` returns it; with NaN no bar is drawn, and the figure says why.
    """
    tested = not np.isnan(difference)
    columns = min(3, len(ranks))
    methods = max(map(len, ranks.values()))
    figure = Figure(figsize=(max(5.0, 3.9 * columns), (0.175 * methods + 1.2) * -(-len(ranks) // columns)))
    for axes, (training, table) in zip(add_axes(figure, len(ranks), columns), ranks.items(), strict=True):
        place = np.arange(len(table))[::-1]
        for y, row in zip(place, table.to_dict("records"), strict=True):
            _interval(axes, row["rank"], row["rank_low"], row["rank_high"], y, row["method"], 2, 3.5)
        for (first, last), column in _columns(cliques(list(table["rank"]), difference) if tested else ()):
            x = methods + 1 + 0.055 * methods * column
            axes.plot([x, x], [place[first] + 0.25, place[last] - 0.25], color=INK)
        axes.plot([1, 1 + difference], [len(table) + 0.2] * 2, color=INK, linewidth=2.2)
        words = f"critical difference {difference:.2f}" if tested else "too few images to test pairs"
        white = {"facecolor": "white", "edgecolor": "none", "pad": 1}  # keeps the grid from crossing the words
        axes.text(1.5 + np.nan_to_num(difference), len(table) + 0.2, words, fontsize=7, va="center", bbox=white)
        axes.set(xlim=(0.5, methods * 1.45 + 1), ylim=(-0.7, len(table) + 0.9), xlabel="mean rank (1: best), 95 % interval")
        axes.set_xticks([1, *range(5, methods + 1, 5)])
        axes.set_yticks(place, [display_name(name) for name in table["method"]])
        axes.set_title(display_name(training), fontsize=9, loc="left")
        axes.grid(axis="x")
        axes.tick_params(axis="y", labelsize=7)
    return figure


def _columns(runs: Iterable[tuple[int, int]]) -> list[tuple[tuple[int, int], int]]:
    """Return each run with the first column in which it touches no other."""
    ends: list[int] = []  # the last position of each column so far
    found = []
    for first, last in runs:
        column = next((number for number, end in enumerate(ends) if end < first), len(ends))
        ends[column:] = [last, *ends[column + 1 :]]
        found.append(((first, last), column))
    return found


@styled
def heatmap(table: pd.DataFrame, label: str, *, correlation: bool = False) -> Figure:
    """Draw a table of numbers as coloured cells, each with its number.

    Args:
        table: indexed by the names of the rows, one column per name.
        label: words for the colour bar, with the unit or what is better.
        correlation: whether numbers are in [-1, 1] and colours are symmetric about 0; otherwise small numbers are dark.
    """
    values = table.to_numpy(float)
    figure = Figure(figsize=(1.9 + 0.78 * values.shape[1] + 1.2, 1.5 + 0.24 * len(values)))
    (axes,) = add_axes(figure, 1, 1)
    limits = (-1, 1) if correlation else (None, None)
    drawn = axes.imshow(values, aspect="auto", cmap="PuOr_r" if correlation else "cividis", vmin=limits[0], vmax=limits[1])
    for (row, column), value in np.ndenumerate(values):
        red, green, blue, _ = drawn.to_rgba(value)
        ink = "white" if 0.3 * red + 0.59 * green + 0.11 * blue < 0.5 else "black"
        text = "" if np.isnan(value) else f"{value:.{2 if correlation else 1}f}".replace("-", "−")
        axes.text(column, row, text, ha="center", va="center", fontsize=7.5, color=ink)
    axes.set_xticks(range(values.shape[1]), [display_name(name).replace(" ", "\n") for name in table.columns], fontsize=7.5)
    axes.set_yticks(range(len(values)), [display_name(name) for name in table.index], fontsize=7.5)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    bar = figure.colorbar(drawn, ax=axes, fraction=0.05, pad=0.02)
    bar.set_label(label)
    bar.ax.tick_params(labelsize=7.5)
    return figure
