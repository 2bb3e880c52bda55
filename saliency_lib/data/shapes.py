"""Synthetic colour images with the true mask of the object."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from saliency_lib.data.table import DATASETS, TRAIN_AND_TEST, Split

# Signed distance to each outline at polar coordinates: negative inside; every outline is within the unit circle.


def _fold(angle: np.ndarray, sides: int) -> np.ndarray:
    """Return the angle from the nearest of `sides` evenly spaced directions."""
    sector = 2 * np.pi / sides
    return np.abs((angle + sector / 2) % sector - sector / 2)


def _cross(radius: np.ndarray, angle: np.ndarray) -> np.ndarray:
    along, across = radius * np.cos(_fold(angle, 4)), radius * np.sin(_fold(angle, 4))
    return np.maximum(along - 0.9, across - 0.3)


def _star(radius: np.ndarray, angle: np.ndarray, inner: float = 0.45) -> np.ndarray:
    folded = _fold(angle, 5)
    notch = inner * np.cos(np.pi / 5), inner * np.sin(np.pi / 5)
    normal = np.array([notch[1], 1 - notch[0]]) / np.hypot(notch[1], 1 - notch[0])  # of the edge from (1, 0) to the notch
    return normal[0] * (radius * np.cos(folded) - 1) + normal[1] * radius * np.sin(folded)


OUTLINES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "circle": lambda radius, angle: radius - 0.75,
    "square": lambda radius, angle: radius * np.cos(_fold(angle, 4)) - 0.68,
    "triangle": lambda radius, angle: radius * np.cos(_fold(angle, 3)) - 0.5,
    "cross": _cross,
    "ring": lambda radius, angle: np.abs(radius - 0.72) - 0.15,
    "star": _star,
}


@lru_cache(4)
def _grid(side: int, cells: int = 6) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the pixel centres x and y in (0, 1), and the weights (side, cells) that interpolate linearly between cells."""
    centres = ((np.arange(side) + 0.5) / side).astype(np.float32)
    weights = np.clip(1 - np.abs(centres[:, None] * (cells - 1) - np.arange(cells)), 0, 1)
    return centres[None, :], centres[:, None], weights.astype(np.float32)


def _paint(scene: np.ndarray, cover: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """Return the scene (3, H, W) with a colour (3,) on top, whose opacity is `cover` (H, W)."""
    return scene + cover * (colour[:, None, None] - scene)


def _scene(key: tuple[int, int], side: int) -> tuple[np.ndarray, int, np.ndarray]:
    """Draw one image (3, side, side) with its label and its mask (side, side), fixed by the key alone."""
    rng = np.random.default_rng(key)
    x, y, weights = _grid(side)
    label, radius = int(rng.integers(len(OUTLINES))), rng.uniform(0.18, 0.34)
    centre, turn = rng.uniform(radius + 0.03, 0.97 - radius, 2), rng.uniform(0, 2 * np.pi, 3)
    background = rng.uniform(0.3, 0.7, (2, 3))
    colours = rng.random((8, 3))
    contrast = np.linalg.norm(colours[:, None] - background, axis=-1).min(1)
    bar_centre, bar = (centre + rng.uniform(0.35, 0.65, 2)) % 1, rng.uniform((0.1, 0.02), (0.2, 0.05))
    bar_colour, has_bar, blotches = rng.random(3), rng.random() < 0.5, rng.uniform(-0.1, 0.1, (3, 6, 6))

    slope = np.clip(0.5 + (x - 0.5) * np.cos(turn[0]) + (y - 0.5) * np.sin(turn[0]), 0, 1)
    scene = _paint(background[0, :, None, None], slope, background[1]) + weights @ blotches @ weights.T
    if has_bar:
        along = (x - bar_centre[0]) * np.cos(turn[1]) + (y - bar_centre[1]) * np.sin(turn[1])
        across = (y - bar_centre[1]) * np.cos(turn[1]) - (x - bar_centre[0]) * np.sin(turn[1])
        outside = np.maximum(np.abs(along) - bar[0], np.abs(across) - bar[1])
        scene = _paint(scene, np.clip(0.5 - outside * side, 0, 1), bar_colour)
    distance, angle = np.hypot(x - centre[0], y - centre[1]) / radius, np.arctan2(y - centre[1], x - centre[0]) + turn[2]
    outline = list(OUTLINES.values())[label]
    cover = np.clip(0.5 - outline(distance, angle) * radius * side, 0, 1)  # one pixel of antialiasing
    scene = _paint(scene, cover, colours[contrast.argmax()])
    scene = np.clip(scene + rng.normal(0, 0.02, scene.shape), 0, 1).astype(np.float32)
    return scene, label, cover >= 0.5


@DATASETS.register(shape=(3, 64))
def shapes(split: str, download: bool) -> Split:
    """Draw 3,000 training and 600 test colour images of one of six shapes, with the true mask of the object.

    Position, scale, rotation and colour are random and independent of the class. The background is a gradient with blotches,
    in half of the images with a bar that is independent of the class. Image i depends on (split, i) only.
    """

    def read(chosen: range, side: int) -> dict[str, Any]:
        scenes = [_scene((TRAIN_AND_TEST.index(split), i), side) for i in chosen]
        images, labels, masks = zip(*scenes, strict=True)
        return {
            "images": torch.from_numpy(np.stack(images)),
            "labels": torch.tensor(labels),
            "masks": torch.from_numpy(np.stack(masks)),
        }

    return Split({"train": 3000, "test": 600}[split], tuple(OUTLINES), read, sources=())
