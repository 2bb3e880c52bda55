"""A matrix of small forest plots, claims by data: effects, intervals and reported values on one scale per paper."""

import math
from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from saliency_lib.figures.style import BAD, GOOD, INK, styled
from saliency_lib.statistics.intervals import parse_difference
from saliency_lib.statistics.verdicts import DIRECTIONS, REPRODUCED

MARKS = {  # colour and shape of each verdict; an arrow points to the side that the effect is on
    REPRODUCED: (GOOD, "*", 8.5),
    "supported": (GOOD, ">", 5),
    "contradicted": (BAD, "<", 5),
    "no difference": ("#666666", "s", 3.8),
    "inconclusive": ("#8A8A8A", "x", 4.2),
}
_WORDS, _CELL, _LINE, _PAD, _HEAD = 2.4, 0.8, 0.09, 0.078, 0.37  # inches: labels, a cell's width; a line, a row's rest, a title
_FILL, _EMPTY = "#F4F6F8", "#FFFFFF"


@styled
def claims_by_data(table: pd.DataFrame, columns: Sequence[str]) -> Figure:
    """Draw a row per claim and a column per data set; each cell is a forest plot, right of its line is the claimed side.

    Args:
        table: one row per measurement, with `title` (the paper, whose rows share a scale), `measures` (the quantity), `claim`
            (its key), `words`, `data` (the column), `ours` (as tables of verdicts have it; empty if it was not measured),
            `verdict`, `control` (the verdict against a random order, or empty) and `reported` (the paper's value, or missing).
        columns: the columns from left to right.

    Raises:
        ValueError: nothing was measured, or a row is in none of the columns.
    """
    if unknown := set(table["data"]) - set(columns):
        raise ValueError(f"the columns are {', '.join(columns)}; rows of the table are in {', '.join(sorted(map(str, unknown)))}")
    if not (table["ours"] != "").any():
        raise ValueError("no claim is measured; nothing can be drawn")
    lines = table.groupby(["claim", "data"]).size().groupby("claim").max()
    claims = table["claim"].nunique()
    height = claims * _PAD + lines.sum() * _LINE + _HEAD * table["title"].nunique() + 0.24
    width = _WORDS + _CELL * len(columns)
    figure = Figure(figsize=(width, height + 0.62))
    figure.set_layout_engine("none")
    axes = figure.add_axes((0, 0.62 / (height + 0.62), 1, height / (height + 0.62)))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    for number, column in enumerate(columns):
        axes.text(_middle(number), 0.14, column, ha="center", va="center", fontsize=9.5, weight="bold")
    y = 0.24
    for title, own in table.groupby("title", sort=False):
        scale = _scale(own)
        y = _titled(axes, y, str(title), own["measures"].iloc[0], scale, len(columns))
        for claim, rows in own.groupby("claim", sort=False):
            tall = lines[claim] * _LINE + _PAD
            axes.text(0.12, y + tall / 2, rows["words"].iloc[0], va="center", fontsize=9)
            for number, column in enumerate(columns):
                _cell(axes, rows[rows["data"] == column], _middle(number), y, tall, scale)
            y += tall
    figure.legend(handles=_key(), loc="lower center", ncols=4, fontsize=8.5, handletextpad=0.4, columnspacing=1.4, borderpad=0.2)
    return figure


def _middle(number: int) -> float:
    return _WORDS + _CELL * (number + 0.5)


def _scale(rows: pd.DataFrame) -> float:
    """Return the effect at the edge of a cell: the largest one of a paper's rows and of its intervals, rounded up."""
    known = [abs(value) for text in rows["ours"] if text for value in parse_difference(text)]
    most = max([*known, *rows["reported"].dropna().abs(), 0.01])
    step = 10 ** math.floor(math.log10(most)) / 2
    return math.ceil(most / step - 1e-9) * step


def _titled(axes: Axes, y: float, title: str, measures: str, scale: float, columns: int) -> float:
    """Write the title of a paper's rows, and the ends of their scale above each column; return where the rows begin."""
    axes.text(0.02, y + 0.15, title, va="center", fontsize=9.5, weight="bold")
    axes.text(0.02, y + 0.29, measures, va="center", fontsize=7.5, color="#555555")
    for number in range(columns):
        for place, ha in ((-0.47, "left"), (0.47, "right")):
            text = f"{math.copysign(scale, place):+g}".replace("0.", ".").replace("-", "−")
            axes.text(_middle(number) + place * _CELL, y + _HEAD - 0.07, text, ha=ha, va="center", fontsize=7, color="#555555")
    return y + _HEAD


def _cell(axes: Axes, rows: pd.DataFrame, middle: float, top: float, tall: float, scale: float) -> None:
    """Draw the measurements of one claim on one kind of data, one below the other."""
    measured = bool((rows["ours"] != "").any())
    left, wide = middle - 0.48 * _CELL, 0.96 * _CELL
    box = Rectangle((left, top + 0.015), wide, tall - 0.03, hatch=None if measured else "////", linewidth=0)
    box.set(facecolor=_FILL if measured else _EMPTY, edgecolor="none" if measured else "#D9DEE3")
    axes.add_patch(box)
    if measured or rows["reported"].notna().any():
        axes.plot([middle, middle], [top + 0.015, top + tall - 0.015], color=INK, linewidth=0.7)
    start = top + (tall - _LINE * (len(rows) - 1)) / 2
    for number, row in enumerate(rows.to_dict("records")):
        y = start + number * _LINE
        if row["ours"]:
            mean, low, high = (middle + 0.46 * _CELL * value / scale for value in parse_difference(row["ours"]))
            tint, marker, size = MARKS.get(row["verdict"], (INK, ".", 4))
            axes.plot([low, high], [y, y], color=tint, linewidth=1.3)
            axes.plot(mean, y, marker, color=tint, markersize=size, markeredgewidth=1.3 if marker == "x" else 0)
        if pd.notna(row["reported"]):
            place = middle + 0.46 * _CELL * row["reported"] / scale
            axes.plot(place, y, "o", markersize=5, markerfacecolor="none", markeredgecolor=INK, markeredgewidth=0.9)
        if row["control"] and row["control"] not in ("supported", REPRODUCED):
            axes.text(left + 0.01, y, "†", ha="left", va="center", fontsize=7.5, color=INK, weight="bold")


def _key() -> list[Line2D | Patch]:
    """Return what explains the marks."""
    words = (REPRODUCED, *DIRECTIONS)
    marks: list[Line2D | Patch] = [
        Line2D([], [], color=MARKS[word][0], marker=MARKS[word][1], markersize=MARKS[word][2], linewidth=1.3, label=word)
        for word in words
    ]
    hollow = Line2D([], [], marker="o", markersize=5, linestyle="none", label="the paper's value")
    hollow.set(markerfacecolor="none", markeredgecolor=INK)
    marks.append(hollow)
    marks.append(Line2D([], [], marker="$†$", color=INK, linestyle="none", label="no better than random"))
    marks.append(Patch(facecolor=_EMPTY, edgecolor="#B9C1C9", hatch="////", linewidth=0, label="not measured"))
    return marks
