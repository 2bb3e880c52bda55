"""Performance information curves: the score of a blurred image that regains its most relevant pixels, over its information."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy.interpolate import LinearNDInterpolator
from torch import Tensor, nn

from saliency_lib.core.batching import classes_of, frozen, logits_of
from saliency_lib.core.checks import check_images, check_maps
from saliency_lib.core.fills import noise_range
from saliency_lib.core.options import Count, Draws, Positive, Seed
from saliency_lib.core.streams import Indices, noise, row_indices, sent
from saliency_lib.evaluation.curve import Curve
from saliency_lib.evaluation.perturbation import (
    Score,
    check_scores,
    checked_fractions,
    score_function,
    standard_error,
)
from saliency_lib.evaluation.ranking import DRAWS, cuts_ties, random_ranks, tied
from saliency_lib.evaluation.table import METRICS

THRESHOLDS = (0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.07, 0.1, 0.13, 0.21, 0.34, 0.5, 0.75)


def information(pixels: np.ndarray) -> int:
    """Return how many bytes an image (C, H, W) of 8 bits takes as a lossless WebP; channels other than three lie side by side."""
    file = io.BytesIO()
    picture = pixels.transpose(1, 2, 0) if len(pixels) == 3 else np.hstack(list(pixels))
    Image.fromarray(picture).save(file, format="webp", lossless=True, quality=100)
    return file.tell()


def interpolated(pixels: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Replace the unknown pixels of an image (C, H, W) of 8 bits by linear interpolation between the known ones (H, W), bool.

    The corners count as known. Differs from PAIR's code: an image of a single row or column is interpolated as well.
    """
    height, width = known.shape
    doubled = (1 + (height == 1), 1 + (width == 1))  # a line has no triangles
    whole, points = np.tile(pixels, (1, *doubled)), np.tile(known, doubled)
    points[np.ix_([0, -1], [0, -1])] = True
    if not points.all():
        found = LinearNDInterpolator(np.argwhere(points), whole[:, points].T.astype(float))(np.argwhere(~points)).T
        whole[:, ~points] = (
            np.where(np.isnan(found), pixels.mean((1, 2))[:, None], found).astype(np.float32).round()
        )  # halves are exact, as in PAIR's code
    return whole[:, :height, :width]


def seeds(images: Tensor, seed: int, indices: Indices, share: float = 0.01) -> Tensor:
    """Draw the pixels (B, H, W), bool, that the blurred images keep, a share of all."""
    keys = noise(images[:, 0].float(), row_indices(images, indices), seed, "pic").flatten(1)
    places = keys.argsort(dim=1, stable=True).argsort(dim=1)
    return (places < int(share * places.shape[1])).view(images[:, 0].shape)


def read(sizes: np.ndarray, scores: np.ndarray, orders: int, grid: np.ndarray) -> np.ndarray:
    """Return the curves (orders, S + 1) of one image at the places of the grid (S + 1,).

    Args:
        sizes, scores: (2 + orders * T,), of the blurred image, of the T images of each order, and of the whole image.
    """
    if sizes[-1] <= sizes[0] or scores[-1] <= scores[0]:
        return np.zeros((orders, len(grid)))
    x, y = (((v[1:-1] - v[0]) / (v[-1] - v[0])).clip(0, 1).reshape(orders, -1) for v in (sizes, scores))
    ends = np.tile([0.0, 1.0], (orders, 1))
    x, y = np.hstack([x, ends]), np.hstack([np.maximum.accumulate(y, axis=1), ends])
    order = x.argsort(axis=1, kind="stable")
    pairs = zip(np.take_along_axis(x, order, 1), np.take_along_axis(y, order, 1), strict=True)
    return np.stack([np.interp(grid, *pair) for pair in pairs])


@METRICS.register(lower_is_better=False, paper="Kapishnikov et al. 2019")
def pic(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    targets: Tensor | None = None,
    *,
    fractions: Sequence[float] = THRESHOLDS,
    steps: Count = 100,
    draws: Draws = DRAWS,
    score: Score = "probability",
    seed: Seed = 0,
    indices: Indices = None,
    batch_size: Positive | None = None,
) -> Curve:
    """Follow the score of a blurred image that regains its most relevant pixels, over the information that it regains.

    x is the size of the image as a lossless WebP and y the score, both scaled so that the blurred image has 0 and the whole
    image 1. y is the greatest so far as pixels are regained. The curve is linear between the points in the order of x.

    Args:
        images: (B, C, H, W) pixels in [0, 1], rounded to 8 bits. Series are scaled to their own range.
        maps: (B, H, W).
        targets: (B,) classes; None for the predicted ones.
        fractions: non-decreasing shares of the pixels that the blurred image regains.
        steps: intervals of x at whose ends the curve is read.
        draws: random orders of pixels of equal value.
        score: `probability` is the softmax information curve (SIC), `correct` with labels as targets the accuracy information
            curve (AIC).
        seed, indices: fix the 1 % of pixels that the blurred image keeps, and the order of tied pixels.

    Returns:
        Curve over x in [0, 1], with values and area in [0, 1]; a large area is evidence for the map. An image whose blurred
        version has its score or information already has the values 0 for each map; leave it out of means.

    Source: Kapishnikov et al. 2019 (XRAI), and the code of PAIR (package saliency). Differs: in that code an image that
    has no curve, or a score below 0.8, is an error; of tied pixels all are regained or none; the area of the median over
    images is reported; x has 1,000 steps.
    """
    images = check_images(images)
    check_maps(maps, images)
    score_of, numbers = score_function(score), row_indices(images, indices)
    low, high = (bound.double() for bound in noise_range(images))
    pixels = ((images.double() - low) / (high - low) * 255).round().byte().cpu().numpy()
    ranked = maps.detach().cpu()  # the versions of an image are made on the CPU, and a GPU is asked once for all their scores
    counts = torch.tensor([round(share * ranked[0].numel()) for share in checked_fractions(fractions)])
    kept, divided = seeds(images.cpu(), seed, indices), cuts_ties(ranked, counts, descending=True).any(1).tolist()
    grid = np.linspace(0, 1, steps + 1)
    orders, sizes, found = [draws if ties else 1 for ties in divided], [], []
    with frozen(model), torch.no_grad():
        logits = logits_of(model, images, batch_size)
        predicted, targets = logits.argmax(1), classes_of(logits, targets)
        for row, number in enumerate(numbers):
            own: dict[str, Any] = {"descending": True, "seed": seed, "indices": torch.tensor([number])}
            places = random_ranks(ranked[row : row + 1], orders[row], **own)
            known = (places < counts[:, None]).view(-1, *maps.shape[1:]) | kept[row]
            masks = torch.cat([kept[row : row + 1], known]).numpy()
            versions = np.stack([*(interpolated(pixels[row], mask) for mask in masks), pixels[row]])
            inputs = sent(torch.from_numpy(versions), images.device).to(low)
            inputs = (inputs / 255 * (high - low)[row] + low[row]).to(images)
            owners = torch.full((len(inputs),), row, device=images.device)
            found.append(score_of(logits_of(model, inputs, batch_size), targets[owners], predicted[owners]).double())
            sizes.append(np.array([information(version) for version in versions], dtype=float))
    check_scores(torch.stack([scores.sum() for scores in found])[:, None])
    scores = torch.cat(found).cpu().split([len(scores) for scores in found])
    curves = [torch.from_numpy(read(size, score.numpy(), n, grid)) for size, score, n in zip(sizes, scores, orders, strict=True)]
    stated = torch.from_numpy(grid).to(torch.promote_types(images.dtype, torch.float32)).to(images.device)
    values = torch.stack([curve.mean(0) for curve in curves]).to(stated)
    errors = torch.cat([standard_error(torch.trapezoid(curve, torch.from_numpy(grid))[:, None]) for curve in curves]).to(stated)
    return Curve(stated, values, torch.trapezoid(values, stated, dim=1), tied(maps), errors)
