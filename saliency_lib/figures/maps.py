"""Pictures of images and maps."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from saliency_lib.figures.style import add_axes, row_label, styled, wrap


def draw_image(axes: Axes, image: np.ndarray) -> None:
    """Draw an image (C, H, W) with pixels in [0, 1]; one channel is drawn in grey."""
    picture = np.clip(np.moveaxis(np.asarray(image), 0, -1), 0, 1)
    axes.imshow(picture.squeeze(-1) if picture.shape[-1] == 1 else picture, cmap="gray", vmin=0, vmax=1)
    axes.set_axis_off()


def draw_map(
    axes: Axes, values: np.ndarray, *, signed: bool | None = None, image: np.ndarray | None = None, opacity: float = 1.0
) -> None:
    """Draw a map, on top of its image in grey if opacity is below 1.

    A signed map is drawn from blue through white (0) to red, symmetric about 0; any other map from dark (its smallest values) to
    light. The colours end at the 99.5th percentile (and begin at the 0.5th), so that single pixels do not darken the rest.

    Args:
        values: (H, W).
        signed: whether the map is signed; None means that it is if it has negative values.
        image: (C, H, W) in [0, 1].
        opacity: of the map, in [0, 1].
    """
    values = np.asarray(values, dtype=float)
    limit = float(np.quantile(np.abs(values), 0.995)) or float(np.abs(values).max()) or 1.0
    signed = bool(values.min() < 0) if signed is None else signed
    if image is not None and opacity < 1:
        draw_image(axes, np.broadcast_to(np.asarray(image).mean(0), (1, *values.shape)))
    axes.imshow(
        values,
        cmap="RdBu_r" if signed else "inferno",
        vmin=-limit if signed else min(float(np.quantile(values, 0.005)), 0.9 * limit),
        vmax=limit,
        alpha=opacity,
        interpolation="nearest",
    )
    axes.set_axis_off()


@styled
def gallery(images: np.ndarray, maps: Mapping[str, np.ndarray], titles: Sequence[str] = (), *, most: int = 9) -> Figure:
    """Draw images with their maps: one row per image, one column per method.

    If there are many methods, they are drawn in bands below each other, each with the images at the left.

    Args:
        images: (B, C, H, W) in [0, 1].
        maps: per method (B, H, W), not rescaled.
        titles: (B,) words at the left of each row, for example the predicted class and its probability.
        most: methods side by side.
    """
    images, maps = np.asarray(images), {name: np.asarray(values) for name, values in maps.items()}
    bands = -(-len(maps) // most)
    across = -(-len(maps) // bands)  # as even as possible
    figure = Figure(figsize=(1.35 * (across + 1) + 0.9, bands * (1.35 * len(images) + 0.45)))
    for number, part in enumerate(figure.subfigures(bands, 1, squeeze=False).flat):
        names = list(maps)[number * across : (number + 1) * across]
        grid = add_axes(part, len(images) * (across + 1), across + 1)
        for axes in grid:
            axes.set_axis_off()
        for axes, name in zip(grid, ["image", *names], strict=False):
            axes.set_title(wrap(name, 15))
        for row, image in enumerate(images):
            first, *others = grid[row * (across + 1) :]
            draw_image(first, image)
            for axes, name in zip(others, names, strict=False):
                draw_map(axes, maps[name][row], signed=bool(maps[name].min() < 0))
            if row < len(titles):
                row_label(first, titles[row])
    return figure
