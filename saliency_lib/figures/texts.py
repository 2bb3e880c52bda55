"""Pictures of texts: words in the colours of their maps."""

import html
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from saliency_lib.figures.style import INK, add_axes, display_name, styled

LETTERS = 92  # per line of a figure
MOST = 120  # words that are shown of a text


def _colours(values: np.ndarray) -> list[str]:
    """Return a background per word: red for positive values, blue for negative ones, relative to the map's largest."""
    largest = float(np.abs(values).max()) or 1.0
    return [to_hex(colormaps["RdBu_r"](0.5 + 0.27 * value / largest)) for value in values]


def _lines(words: Sequence[str]) -> list[tuple[int, int]]:
    """Return the line and the column at which each word begins."""
    line, column, places = 0, 0, []
    for word in words:
        if column and column + len(word) > LETTERS:
            line, column = line + 1, 0
        places.append((line, column))
        column += len(word) + 1
    return places


@styled
def highlighted(words: Sequence[str], maps: Mapping[str, np.ndarray], marked: np.ndarray | None = None) -> Figure:
    """Draw a text once per map, each word on the colour of its value: red is evidence for the class, blue against it.

    Args:
        words: (T,); the first 120 are drawn.
        maps: per name (T,) or longer, not rescaled; each is relative to its own largest absolute value.
        marked: (T,) bool, the words of the human rationale, which are underlined.
    """
    words = list(words)[:MOST]
    places = _lines(words)
    height = 1 + max(line for line, _ in places)
    figure = Figure(figsize=(9.2, len(maps) * (0.21 * height + 0.3) + 0.1))
    for axes, (name, values) in zip(add_axes(figure, len(maps), 1), maps.items(), strict=True):
        axes.set(xlim=(-0.5, LETTERS + 0.5), ylim=(height - 0.4, -0.6))
        axes.set_axis_off()
        axes.set_title(display_name(name), loc="left")
        for place, (word, (line, column), colour) in enumerate(
            zip(words, places, _colours(np.asarray(values, dtype=float)[: len(words)]), strict=True)
        ):
            axes.axhspan(
                line - 0.42,
                line + 0.42,
                (column + 0.2) / (LETTERS + 1),
                (column + 0.8 + len(word)) / (LETTERS + 1),
                color=colour,
                linewidth=0,
            )
            axes.text(column, line, word, family="monospace", fontsize=8.6, va="center_baseline", parse_math=False)
            if marked is not None and marked[place]:
                axes.plot([column, column + len(word)], [line + 0.42] * 2, color=INK, linewidth=1.4)
    return figure


def highlighted_html(words: Sequence[str], values: np.ndarray, marked: np.ndarray | None = None) -> str:
    """Return HTML of a text with the colours of one map, its values as tooltips, and the human rationale underlined."""
    parts = []
    for place, (word, colour) in enumerate(zip(words, _colours(np.asarray(values, dtype=float)[: len(words)]), strict=True)):
        under = "; text-decoration: underline 2px" if marked is not None and marked[place] else ""
        style = f"background: {colour}; color: #111{under}"
        parts.append(f'<span style="{style}" title="{float(values[place]):.3g}">{html.escape(word)}</span>')
    return f'<p style="line-height: 1.7; max-width: 60em">{" ".join(parts)}</p>'
