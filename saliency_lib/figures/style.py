"""What all figures share: one colour and line style per method, the style sheet, axes, legends, words."""

import functools
import textwrap
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ParamSpec

import matplotlib.style
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.typing import LineStyleType

P = ParamSpec("P")


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Decorate a function that draws a figure: in our style, and with texts as they are written, not as formulas.

    The reader's settings come back afterwards. Only a logarithmic axis has formulas, its powers of ten.
    """
    styled_draw = matplotlib.style.context(Path(__file__).with_name("style.mplstyle"))(draw)

    @functools.wraps(draw)
    def drawn(*args: P.args, **options: P.kwargs) -> Figure:
        figure = styled_draw(*args, **options)
        texts = figure.findobj(Text)
        axes = [axis for one in figure.axes for axis in (one.xaxis, one.yaxis) if axis.get_scale() == "log"]
        powers = {id(tick.label1) for axis in axes for tick in (*axis.majorTicks, *axis.minorTicks)}
        for text in texts:
            if isinstance(text, Text) and id(text) not in powers:
                text.set_parse_math(False)
        return figure

    return drawn


INK = "#222222"
GOOD, BAD = "#0072B2", "#D55E00"

# A method has the same colour in every figure. Its family gives the hue (blue and green gradients, red and brown paths, violet
# and yellow masks, grey controls); lightness and line style tell its members apart, also for colour-blind readers.
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
    "kernel_shap": "#6E6A00",
    "score_cam": "#8C3B7A",
    "xrai": "#E0483E",
    "random": "#999999",
    "edges": "#444444",
    # trainings and variants, which are never drawn together with methods
    "original": "#555555",
    "centred": "#D55E00",
    "controlled": "#0072B2",
    "corrected": "#0072B2",
    "released": "#D55E00",
    "standard": "#555555",
    "saliency_guided": "#D55E00",
    "saliency_guided_text": "#D55E00",
    "saliency_guided_absolute": "#0072B2",
    "softplus": "#555555",
    "score_matching": "#0072B2",
    "anti_score_matching": "#D55E00",
    "gradient_norm": "#009E73",
    # choices under which a claim is tested again
    "paper's settings": "#222222",
    "first training": "#0072B2",
    "another training": "#0072B2",
    "other fill": "#D55E00",
    "image's mean": "#D55E00",
    "mean colour as baseline": "#D55E00",
    "ties in raster order": "#009E73",
    "relative to a random order": "#CC79A7",
}
_SPARE = ("#332288", "#117733", "#882255", "#999933", "#AA4499", "#661100", "#6699CC", "#888888")

_LINE_STYLES: dict[str, LineStyleType] = {
    "random": (0, (4, 2)),
    "edges": (0, (1, 1.5)),
    **dict.fromkeys(("active_gradient", "active_smoothgrad", "active_integrated_gradients", "sidu_grids"), (0, (6, 1.5))),
    **dict.fromkeys(("guided_backprop", "guided_smoothgrad", "gnl_integrated_gradients", "deeplift_shap"), (0, (3, 1, 1, 1))),
    "anti_score_matching": (0, (4, 2)),
    "gradient_norm": (0, (3, 1, 1, 1)),
}


def colour(name: str) -> str:
    """Return the colour of a method, training or variant, the same in every figure."""
    return COLOURS.get(name) or _SPARE[sum(name.encode()) % len(_SPARE)]


def line_style(name: str) -> LineStyleType:
    """Return the line style of a method, training or variant, the same in every figure."""
    return _LINE_STYLES.get(name, "-")


def display_name(name: str) -> str:
    """Return a registered name as it is written in figures, with spaces."""
    return name.replace("_", " ")


def shorten(text: str, most: int = 16) -> str:
    """Cut a class name to `most` characters, so that it fits above a small picture."""
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def wrap(name: str, width: int) -> str:
    """Return a display name broken into lines of at most `width` characters."""
    return "\n".join(textwrap.wrap(display_name(name), width))


def add_axes(figure: Figure | SubFigure, count: int, columns: int, **options: Any) -> list[Axes]:
    """Add axes in rows of `columns` to a figure; the places that remain in the last row stay empty.

    Args:
        options: of `Figure.subplots`.
    """
    grid = list(figure.subplots(-(-count // columns), columns, squeeze=False, **options).flat)
    for axes in grid:  # matplotlib creates ticks when it draws, which is outside the style
        size, tint, width = (rcParams[key] for key in ("xtick.labelsize", "grid.color", "grid.linewidth"))
        axes.tick_params(labelsize=size, grid_color=tint, grid_linewidth=width)
    for axes in grid[count:]:
        axes.set_axis_off()
    return grid[:count]


def row_label(axes: Axes, text: str) -> None:
    """Write text at the left of a picture."""
    axes.text(-0.1, 0.5, text, transform=axes.transAxes, ha="right", va="center")


def key(names: Iterable[str]) -> list[Line2D]:
    """Return handles for a legend, with the colour and line style of each name."""
    return [Line2D([], [], color=colour(name), linestyle=line_style(name), label=display_name(name)) for name in names]
