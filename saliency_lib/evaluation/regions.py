"""Removal of whole regions, one at a time: the most relevant first, by the mean of the map over each."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from saliency_lib.core.checks import check_images, check_maps, first_rows
from saliency_lib.core.fills import Fill, filled
from saliency_lib.core.options import Count, Draws, Positive, Seed
from saliency_lib.core.segments import Segments, numbered
from saliency_lib.core.streams import Indices, row_indices, sent
from saliency_lib.evaluation.curve import Curve, one_number
from saliency_lib.evaluation.perturbation import Score, fixed, scores_without, standard_error
from saliency_lib.evaluation.ranking import DRAWS, random_ranks, tied
from saliency_lib.evaluation.table import METRICS


def relevance_of(regions: Tensor, maps: Tensor) -> list[Tensor]:
    """Return per image the mean (n,) of the map over each of its n regions, on the CPU.

    It is in single precision, in which ties are exact.
    """
    flat = zip(regions.flatten(1).cpu(), maps.detach().flatten(1).double().cpu(), strict=True)
    return [(region.bincount(values) / region.bincount()).float() for region, values in flat]


def windows(images: Tensor, side: int) -> Tensor:
    """Divide each image into windows (B, H, W) of side x side pixels; the last ones of a row or column may be smaller."""
    rows, columns = (torch.arange(n, device=images.device) // side for n in images.shape[2:])
    return numbered(images, (rows[:, None] * len(columns) + columns).expand(len(images), -1, -1), 0)


def region_curves(
    model: nn.Module,
    images: Tensor,
    relevance: list[Tensor],
    targets: Tensor | int | None,
    regions: Tensor,
    *,
    most: int | None = None,
    draws: int,
    fill: Fill,
    score: Score,
    seed: int,
    indices: Indices,
    batch_size: int | None,
) -> list[Tensor]:
    """Score each image as its regions are removed, the most relevant first.

    Args:
        relevance: per image (n,), the value by which its regions are ranked, on the CPU.
        regions: (B, H, W), numbered from 0 without gaps.
        most: how many regions are removed, if there are so many; None: all of them.
        draws: how many random orders of regions of equal value.

    Returns:
        Per image (D, L + 1), the scores after 0, 1, ..., L regions in each of D orders; D is 1 if no regions tie.
    """
    numbers, substrate = row_indices(images, indices), filled(fill, model, images, indices=indices, seed=seed)
    found, inputs, shapes = [], [], []
    for image, values in enumerate(relevance):
        orders = draws if tied(values[None]).any() else 1
        last = min(most or len(values), len(values))
        number = torch.tensor(numbers[image : image + 1])
        found.append(random_ranks(values[None], orders, descending=True, seed=seed, indices=number)[:, 0])
        inputs.append(torch.cartesian_prod(torch.tensor([image]), torch.arange(orders), torch.arange(1, last + 1)))
        shapes.append((orders, last))
    ranked = torch.zeros(len(images), max(map(len, found)), max(map(len, relevance)), dtype=torch.long)
    for row, own in zip(ranked, found, strict=True):
        row[: own.shape[0], : own.shape[1]] = own
    removals, places = sent(torch.cat(inputs), images.device), sent(ranked, images.device)
    flat = regions.flatten(1)

    def missing(begin: int, end: int) -> Tensor:
        image, order, count = removals[begin:end].unbind(1)
        return (places[image, order].gather(1, flat[image]) < count[:, None]).unflatten(1, regions.shape[1:])

    options: dict[str, Any] = {"fill": fixed(substrate), "score": score, "batch_size": batch_size}
    whole, scores = scores_without(model, images, targets, removals[:, 0], missing, **options)
    parts = scores.split([orders * last for orders, last in shapes])
    return [
        torch.cat([first.expand(shape[0], 1), part.view(shape)], 1)
        for first, part, shape in zip(whole, parts, shapes, strict=True)
    ]


def over_orders(numbers: list[Tensor], relevance: list[Tensor]) -> Curve:
    """Return the mean over the orders (D,) of each image, with its error and the share of the regions that tie."""
    curve = one_number(torch.stack([orders.mean() for orders in numbers]))
    shares = sent(torch.cat([tied(values[None]) for values in relevance]), numbers[0].device)
    return replace(curve, tied=shares, error=torch.cat([standard_error(orders[:, None]) for orders in numbers]))


@METRICS.register(lower_is_better=False, paper="Samek et al. 2017", family="removal")
def aopc(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    targets: Tensor | None = None,
    *,
    window: Positive = 9,
    steps: Count = 100,
    draws: Draws = DRAWS,
    fill: Fill = "noise",
    score: Score = "probability",
    seed: Seed = 0,
    indices: Indices = None,
    batch_size: Positive | None = None,
) -> Curve:
    """Compute the mean fall of the score as the most relevant windows are replaced by noise (region perturbation).

    AOPC = 1 / (L + 1) sum_{k = 0}^{L} f(x) - f(x without the k most relevant windows).

    Args:
        images: (B, C, H, W) pixels in [0, 1].
        maps: (B, H, W); windows are ranked by their mean.
        targets: (B,) classes; None for the predicted ones.
        window: side of a window in pixels; 1 is pixel flipping.
        steps: L, the number of windows that are replaced; all if there are fewer.
        draws: random orders of windows of equal relevance.
        fill, score: see `perturbation_curve`.
        seed, indices: fix the orders of tied windows and a random fill.

    Returns:
        Curve of one point, at most 1 for probabilities; a large value is evidence for the map. `tied` is the share of the
        windows that tie.

    Source: Samek et al. 2017; pixel flipping is of Bach et al. 2015. Differs: each image has one draw of noise
    (there the mean of ten), and windows are ranked by their mean and not by their sum, so that smaller ones at the border
    count alike.
    """
    images = check_images(images)
    check_maps(maps, images)
    regions = windows(images, window)
    relevance = relevance_of(regions, maps)
    curves = region_curves(
        model, images, relevance, targets, regions, most=steps, draws=draws,
        fill=fill, score=score, seed=seed, indices=indices, batch_size=batch_size,
    )  # fmt: skip
    return over_orders([curve[:, 0] - curve.mean(1) for curve in curves], relevance)


@METRICS.register(lower_is_better=False, paper="Rieger, Hansen 2020", family="removal")
def irof(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    targets: Tensor | None = None,
    *,
    segments: Segments = "slic",
    draws: Draws = DRAWS,
    fill: Fill = "image_mean",
    score: Score = "probability",
    seed: Seed = 0,
    indices: Indices = None,
    batch_size: Positive | None = None,
) -> Curve:
    """Compute the area over the curve of f(x_k) / f(x) as superpixels turn into the mean colour, the most relevant first.

    This is the iterative removal of features: 1 - the area under f(x_k) / f(x), where x_k lacks the k most relevant of the n
    superpixels, over k / n from 0 to 1.

    Args:
        images: (B, C, H, W) pixels in [0, 1].
        maps: (B, H, W); superpixels are ranked by their mean.
        targets: (B,) classes; None for the predicted ones.
        segments: `slic` (about 50 superpixels), `quickshift`, `grid` (7 x 7 rectangles), (B, H, W) whole numbers, or a function
            from an image (C, H, W) to its segments (H, W).
        draws: random orders of superpixels of equal relevance.
        fill, score: see `perturbation_curve`. A score must be positive.
        seed, indices: fix the orders of tied superpixels and a random fill.

    Returns:
        Curve of one point, at most 1, negative if the score rises; a large value is evidence for the map. `tied` is the share
        of the superpixels that tie.

    Raises:
        ValueError: the segments do not fit or their name is unknown, or a score is negative.

    Source: Rieger, Hansen 2020. Differs: the area is divided by the number of superpixels, and includes the whole image, which
    Quantus's IROF leaves out.
    """
    images = check_images(images)
    check_maps(maps, images)
    regions = numbered(images, segments, seed)
    relevance = relevance_of(regions, maps)
    curves = region_curves(
        model, images, relevance, targets, regions, draws=draws, fill=fill, score=score,
        seed=seed, indices=indices, batch_size=batch_size,
    )  # fmt: skip
    first = torch.stack([curve[0, 0] for curve in curves])
    if negative := first_rows(first < 0):
        raise ValueError(
            f"irof is a share of the score, which is negative for images {negative}; use a score that is not, or srg"
        )
    shares = [curve / curve[:, :1].clamp_min(torch.finfo(curve.dtype).tiny) for curve in curves]
    return over_orders([1 - torch.trapezoid(share, dx=1 / (share.shape[1] - 1)) for share in shares], relevance)
