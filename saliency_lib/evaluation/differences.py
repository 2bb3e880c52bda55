"""Differences of two deletion curves, in which much of what the fill does to both cancels."""

from typing import Any

import torch
from torch import Tensor, nn

from saliency_lib.core.checks import check_images, check_maps
from saliency_lib.core.fills import Fill
from saliency_lib.core.options import Count, Draws, Positive, Seed
from saliency_lib.core.streams import Indices
from saliency_lib.evaluation.curve import Curve, difference
from saliency_lib.evaluation.perturbation import Score, even_fractions, perturbation_curve
from saliency_lib.evaluation.ranking import Ties
from saliency_lib.evaluation.table import METRICS


@METRICS.register(lower_is_better=False, paper="Blücher et al. 2024", family="removal")
def srg(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    targets: Tensor | None = None,
    *,
    steps: Count = 28,
    fill: Fill = "mean",
    score: Score = "probability",
    ties: Ties = "random",
    seed: Seed = 0,
    indices: Indices = None,
    batch_size: Positive | None = None,
) -> Curve:
    """Subtract the score without the most relevant pixels from the score without the least relevant ones.

    This is the symmetric relevance gain. What a fill does to every image without so many pixels cancels.

    Args:
        images: (B, C, H, W) pixels in [0, 1].
        maps: (B, H, W).
        targets: (B,) classes; None for the predicted ones.
        steps: number of strides from the whole image to none of it.
        fill, score: see `perturbation_curve`.
        ties: the order of pixels of equal value: `random`, averaged over a few orders, or `index` or `together`.
        seed, indices: fix the order of tied pixels and a random fill.

    Returns:
        Curve over [0, 1], with values and area in [-1, 1], 0 at both ends and on average for a map without order; a large
        area is evidence for the map. The error is at most that of both orders together.

    Source: Blücher, Vielhaben, Strodthoff 2024. The area between perturbation curves (ABPC) of Samek et al. 2017 is
    the mean of the values over the L + 1 points of the curve, `curve.values.mean(1)`. With equal strides it is L / (L + 1)
    times the area, so it puts methods in the same order. Differs: their units are superpixels and their fills are imputers.
    """
    images = check_images(images)
    check_maps(maps, images)
    options: dict[str, Any] = {"fractions": even_fractions(maps[0].numel(), steps), "fill": fill, "score": score, "ties": ties}
    options |= {"seed": seed, "indices": indices, "batch_size": batch_size}
    most, least = (
        perturbation_curve(model, images, maps, targets, order=order, **options)
        for order in ("most_relevant_first", "least_relevant_first")
    )
    return difference(least, most)


@METRICS.register(lower_is_better=True, paper="Petsiuk et al. 2018", family="removal")
def relative_deletion(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    targets: Tensor | None = None,
    *,
    steps: Count = 28,
    orders: Draws = 10,
    fill: Fill = "mean",
    score: Score = "probability",
    ties: Ties = "random",
    seed: Seed = 0,
    indices: Indices = None,
    batch_size: Positive | None = None,
) -> Curve:
    """Subtract the mean deletion curve of random orders of the image's pixels from that of its map.

    Args:
        images: (B, C, H, W) pixels in [0, 1].
        maps: (B, H, W).
        targets: (B,) classes; None for the predicted ones.
        steps: number of strides from the whole image to none of it.
        orders: number of random orders, fixed by seed and image. Each costs as many passes as the map's own order.
        fill, score: see `perturbation_curve`.
        ties: the order of pixels of equal value: `random`, averaged over a few orders, or `index` or `together`.
        seed, indices: fix the random orders and a random fill.

    Returns:
        Curve over [0, 1], with values and area in [-1, 1], 0 at both ends; a small area is evidence for the map, and 0 is a map
        as good as chance. The error includes that of the random orders.

    Source: deletion of Petsiuk, Das, Saenko 2018, section 4.1 and released code, relative to random
    orders as in Samek et al. 2017.
    """
    images = check_images(images)
    check_maps(maps, images)
    options: dict[str, Any] = {"fractions": even_fractions(maps[0].numel(), steps), "fill": fill, "score": score}
    options |= {"seed": seed, "indices": indices, "batch_size": batch_size}
    found = perturbation_curve(model, images, maps, targets, ties=ties, **options)
    chance = perturbation_curve(model, images, torch.zeros_like(maps), targets, ties="random", draws=orders, **options)
    return difference(found, chance)
