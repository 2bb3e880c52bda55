"""The explorer's pictures: maps, deletion curves, and how they become HTML."""

import base64
import html
import io
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from saliency_lib.figures.maps import draw_image, draw_map
from saliency_lib.figures.style import add_axes, colour, display_name, line_style, shorten, styled
from saliency_lib.figures.texts import highlighted
from saliency_lib.notebook.explorer.state import Shown


@styled
def draw_maps(shown: Shown, methods: Sequence[str], opacity: float, columns: int = 4, side: float = 1.76) -> Figure:
    """Draw the picture and its maps, on the grey picture with an opacity in [0, 1]; panels are `side` inches wide.

    A text is drawn once per map instead, each word on the colour of its value.
    """
    image, (word, share) = shown.image[0].numpy(), shown.says()
    if shown.tokens:
        text = {f"{shown.name}: {word} {share}": np.zeros(len(shown.tokens))}
        return highlighted(shown.tokens, text | {display_name(method): shown.maps[method][0].numpy() for method in methods})
    figure = Figure(figsize=(side * columns, (side + 0.45) * -(-(len(methods) + 1) // columns)))
    first, *others = add_axes(figure, len(methods) + 1, columns)
    draw_image(first, image)
    title = f"{shorten(shown.name, 28)}\n{shorten(word, 20)} {share}"
    first.set_title(title, fontsize=9)
    for axes, method in zip(others, methods, strict=True):
        draw_map(axes, shown.maps[method].numpy(), image=image, opacity=opacity)
        axes.set_title(display_name(method), fontsize=9)
    return figure


@styled
def draw_curves(shown: Shown, methods: Sequence[str]) -> Figure:
    """Draw the deletion curves as far as they were computed."""
    figure = Figure(figsize=(7.05, 2.7))
    (axes,) = add_axes(figure, 1, 1)
    for method in methods:
        fractions, values = shown.curves[method]
        name = f"{display_name(method)} {shown.area(method):.3f}"
        axes.plot(100 * np.asarray(fractions), values, label=name, color=colour(method), linestyle=line_style(method))
    axes.set(
        xlim=(0, 100),
        ylim=None if shown.of_number else (0, 1),
        xlabel=f"{'words' if shown.tokens else 'pixels'} removed (% of the {'text' if shown.tokens else 'image'})",
    )
    axes.set_ylabel(("" if shown.of_number else "probability of ") + shorten(shown.says()[0], 20))
    axes.grid(axis="y")
    figure.legend(title="method, area", loc="outside right upper")
    return figure


def picture(figure: Figure, alt: str) -> str:
    """Return a figure as HTML that carries its own words; ipywidgets' Image has no place for them."""
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=100)
    code = base64.b64encode(png.getvalue()).decode()
    style = "max-width: 100%; height: auto"
    return f'<img src="data:image/png;base64,{code}" alt="{html.escape(alt, quote=True)}" style="{style}">'
