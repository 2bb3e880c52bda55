"""Verdicts as pictures: effects with intervals on many networks, and a matrix of what other choices change."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from saliency_lib.figures.style import BAD, GOOD, INK, add_axes, display_name, styled, wrap
from saliency_lib.statistics.intervals import parse_difference
from saliency_lib.statistics.verdicts import DIRECTIONS, REPRODUCED, UNAFFECTED

_TINTS = {"supported": GOOD, REPRODUCED: GOOD, "contradicted": BAD, "no difference": "#888888", "inconclusive": "#C9C9C9"}
_MARKS = {"supported": "✓", REPRODUCED: "✓✓", "contradicted": "✗", "no difference": "=", "inconclusive": "?", UNAFFECTED: "·"}


@styled
def effects(table: pd.DataFrame, rows: str, panels: str, columns: int = 2) -> Figure:
    """Draw mean differences with their 95 % intervals, coloured by verdict; a dot right of 0 supports the claim.

    Args:
        table: with the columns `ours` (as tables of verdicts have it) and `verdict`, empty where nothing was measured.
        rows: the column that names the rows of every panel, the first at the top.
        panels: the column that names the panels.
        columns: panels side by side.

    Raises:
        ValueError: nothing was measured.
    """
    names, known = list(dict.fromkeys(table[rows])), table[table["ours"].notna()]
    if known.empty:
        raise ValueError(f"none of {', '.join(map(str, names))} is measured; nothing can be drawn")
    titles = list(dict.fromkeys(known[panels]))
    columns = min(columns, len(titles))
    figure = Figure(figsize=(1.6 + 3.3 * columns, (0.24 * len(names) + 0.75) * -(-len(titles) // columns) + 0.4))
    place = {name: len(names) - 1 - number for number, name in enumerate(names)}
    for number, (axes, title) in enumerate(zip(add_axes(figure, len(titles), columns, sharex=True), titles, strict=True)):
        for row in known[known[panels] == title].to_dict("records"):
            mean, low, high = parse_difference(row["ours"])
            tint, y = _TINTS.get(row["verdict"], INK), place[row[rows]]
            axes.plot([low, high], [y, y], color=tint, linewidth=2.2)
            inside = "white" if row["verdict"] == "inconclusive" else tint
            axes.plot(mean, y, "o", color=tint, markersize=5, markerfacecolor=inside)
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.set_title(display_name(title), fontsize=8.5, loc="left")
        axes.set_ylim(-0.6, len(names) - 0.4)
        axes.grid(axis="x")
        _name_rows(axes, names, place, set(known[rows])) if number % columns == 0 else axes.set_yticks(list(place.values()), [])
    dots = [Line2D([], [], color=_TINTS[word], marker="o", linewidth=2.2, label=word) for word in DIRECTIONS]
    dots[-1].set_markerfacecolor("white")
    figure.legend(handles=dots, loc="outside upper center", ncols=len(dots))
    figure.supxlabel("mean difference with 95 % interval; right of 0: on the claimed side", fontsize=8.5)
    return figure


def _name_rows(axes: Axes, names: list[str], place: dict[str, int], measured: set[str]) -> None:
    words = [name if name in measured else f"{name} (not measured)" for name in names]
    axes.set_yticks([place[name] for name in names], words)


@styled
def verdict_matrix(table: pd.DataFrame) -> Figure:
    """Draw verdicts as coloured cells with a mark: one row per claim, one column per choice under which it was tested.

    Args:
        table: indexed by the words of the claims; a column per choice, whose values are verdicts, empty where a choice was not
            tried.
    """
    words = [wrap(claim, 78) for claim in table.index]
    heights = [0.17 * (text.count("\n") + 1) + 0.08 for text in words]
    figure = Figure(figsize=(5.0 + 0.85 * len(table.columns), sum(heights) + 1.3))
    (axes,) = add_axes(figure, 1, 1)
    y, middles = 0.0, []
    for height, (_, row) in zip(heights, table.iterrows(), strict=True):
        for x, verdict in enumerate(row):
            known = isinstance(verdict, str) and verdict
            axes.bar(x, height, width=1, bottom=y, color=to_rgba(_TINTS.get(str(verdict), "white"), 0.75), edgecolor="white")
            mark = _MARKS.get(verdict, verdict) if known else ""
            axes.text(
                x, y + height / 2, mark, ha="center", va="center", fontsize=11, color="white" if verdict in _STRONG else INK
            )
        middles.append(y + height / 2)
        y += height
    axes.set(xlim=(-0.5, len(table.columns) - 0.5), ylim=(y, 0))
    axes.set_xticks(range(len(table.columns)), [wrap(name, 13) for name in table.columns], fontsize=7.5)
    axes.xaxis.tick_top()
    axes.set_yticks(middles, words, fontsize=7.5)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    cells = [Patch(facecolor=to_rgba(_TINTS[word], 0.75), label=f"{_MARKS[word]} {word}") for word in DIRECTIONS]
    cells.append(Patch(facecolor="white", edgecolor=INK, label=f"{_MARKS[UNAFFECTED]} {UNAFFECTED}; empty: not tried"))
    figure.legend(handles=cells, loc="outside lower center", ncols=len(cells))
    return figure


_STRONG = ("supported", REPRODUCED, "contradicted", "no difference")
