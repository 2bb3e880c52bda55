"""Fidelity: how well a map describes the model's behaviour, as infidelity, average drop and average increase."""

from collections.abc import Callable
from typing import Annotated

import torch
from torch import Tensor, nn

from saliency_lib.core.batching import classes_of, frozen, logits_of
from saliency_lib.core.checks import check_images, check_maps, first_rows
from saliency_lib.core.fills import Fill, filled
from saliency_lib.core.options import Count, Names, Positive, Seed
from saliency_lib.core.scores import probabilities
from saliency_lib.core.streams import Indices, noise, row_indices
from saliency_lib.evaluation.curve import Curve, one_number
from saliency_lib.evaluation.perturbation import Score, check_scores, fixed, scores_without
from saliency_lib.evaluation.table import METRICS


def squares(images: Tensor, samples: int, *, seed: Seed = 0, indices: Indices = None) -> Tensor:
    """Draw random squares (B, samples, 3) as top, left, side, with sides uniform from 1 to half the image's shorter side."""
    like = torch.empty(len(images), 3, samples, device=images.device)
    draws = noise(like, row_indices(images, indices), seed, "infidelity").double()
    height, width = images.shape[2:]
    side = 1 + (draws[:, 2] * max(1, min(height, width) // 2)).floor()
    top, left = (draws[:, 0] * (height - side + 1)).floor(), (draws[:, 1] * (width - side + 1)).floor()
    return torch.stack([top, left, side], 2).long()


def changes(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    targets: Tensor | int | None,
    removed: Callable[[int, int], Tensor],
    samples: int,
    substrate: Tensor,
    score: Score,
    batch_size: int | None,
) -> tuple[Tensor, Tensor]:
    """Compare maps with the model on pixels that are removed together.

    Args:
        removed: `removed(begin, end)` returns the pixels (end - begin, H, W), bool, of the sets begin, ..., end - 1, of which
            each image in turn has `samples`.
        substrate: (B, C, H, W), the values that replace removed pixels.

    Returns:
        The map's sum over each set, in double precision, and the fall of the score without it, (B, samples) each.
    """
    rows = torch.arange(len(images), device=images.device).repeat_interleave(samples)
    sums = torch.empty(len(rows), dtype=torch.float64, device=images.device)

    def missing(begin: int, end: int) -> Tensor:
        gone = removed(begin, end)
        sums[begin:end] = (maps.detach()[rows[begin:end]].double() * gone).sum((1, 2))
        return gone

    whole, scores = scores_without(
        model, images, targets, rows, missing, fill=fixed(substrate), score=score, batch_size=batch_size
    )
    return sums.view(-1, samples), whole[:, None] - scores.view(-1, samples)


@METRICS.register(lower_is_better=True, paper="Yeh et al. 2019", smallest=0)
def infidelity(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    targets: Tensor | None = None,
    *,
    samples: Count = 100,
    scaling: Annotated[str, Names(("optimal", "none"))] = "optimal",
    fill: Fill = "mean",
    score: Score = "logit",
    seed: Seed = 0,
    indices: Indices = None,
    batch_size: Positive | None = None,
) -> Curve:
    """Measure how far the map's sum over a random square is from the change of the score when that square is removed.

    INFD = mean over squares Q of (b sum_{p in Q} map_p - (f(x) - f(x without Q)))^2.

    Args:
        images: (B, C, H, W) pixels in [0, 1].
        maps: (B, H, W), signed shares in the score, as path methods give them.
        targets: (B,) classes; None for the predicted ones.
        samples: the number of squares, one forward pass each; more squares estimate the mean better.
        scaling: `optimal`: b is the least-squares fit for each image, because maps have different units; `none`: b is 1.
        fill: what replaces a removed square, see `fills.filled`.
        score: `logit`, `probability`, or another score of `perturbation_curve`.
        seed, indices: fix the squares of each image and a random fill.

    Returns:
        Curve of one point, not negative, in squared units of the score; a small value is evidence for the map, and 0 is a
        map that predicts every change. A map that is 0 on every square has the mean squared change.

    Source: Yeh et al. 2019, section 2, square removal and optimal scaling. Differs: theirs multiplies a map of the input's
    shape by x times the square; ours sums the map over the square, because its channels are summed already.
    """
    images = check_images(images)
    check_maps(maps, images)
    boxes = squares(images, samples, seed=seed, indices=indices).flatten(0, 1)
    y, x = (torch.arange(n, device=images.device) for n in images.shape[2:])

    def inside(begin: int, end: int) -> Tensor:
        top, left, side = boxes[begin:end].view(-1, 3, 1, 1).unbind(1)
        return (y[:, None] >= top) & (y[:, None] < top + side) & (x >= left) & (x < left + side)

    substrate = filled(fill, model, images, indices=indices, seed=seed)
    predicted_change, change = changes(model, images, maps, targets, inside, samples, substrate, score, batch_size)
    predicted_change = predicted_change.to(change)
    if scaling == "optimal":
        size = predicted_change.square().sum(1, keepdim=True)
        predicted_change = predicted_change * (predicted_change * change).sum(1, keepdim=True) / size.where(size > 0, 1)
    return one_number((predicted_change - change).square().mean(1))


def _confidence(
    model: nn.Module, images: Tensor, maps: Tensor, targets: Tensor | None, batch_size: int | None
) -> tuple[Tensor, Tensor]:
    """Return the target's probability (B,) for the images, and for the images times their maps.

    Negative values of a map count as 0, and its largest value is scaled to 1.
    """
    images = check_images(images)
    check_maps(maps, images)
    weights = maps.detach().clamp_min(0)
    weights = weights / weights.amax((1, 2), keepdim=True).clamp_min(torch.finfo(weights.dtype).tiny)
    with frozen(model), torch.no_grad():
        logits = logits_of(model, images, batch_size)
        classes = classes_of(logits, targets)
        pair = logits, logits_of(model, images * weights[:, None].to(images), batch_size)
    precise = torch.promote_types(images.dtype, torch.float32)
    whole, masked = (probabilities(each.to(precise)).gather(1, classes[:, None])[:, 0] for each in pair)
    check_scores(torch.stack([whole, masked], 1))
    return whole, masked


@METRICS.register(lower_is_better=True, paper="Chattopadhay et al. 2018")
def average_drop(
    model: nn.Module, images: Tensor, maps: Tensor, targets: Tensor | None = None, *, batch_size: Positive | None = None
) -> Curve:
    """Measure the share of the class probability that is lost when each pixel is multiplied by its relevance.

    max(0, f(x) - f(x S)) / f(x), where S is the positive part of the map, scaled to a largest value of 1.

    Args:
        images: (B, C, H, W) pixels in [0, 1].
        maps: (B, H, W); a map without positive values leaves a black image.
        targets: (B,) classes; None for the predicted ones.

    Returns:
        Curve of one point in [0, 1]; its mean over images is the average drop. A small value is evidence for the map.

    Raises:
        ValueError: the number that `sl.Scalar` gives, which takes the place of the probability, is negative.

    Source: Chattopadhay et al. 2018, section 4.1.
    """
    whole, masked = _confidence(model, images, maps, targets, batch_size)
    if negative := first_rows(whole < 0):  # which no probability is
        raise ValueError(
            f"average_drop is a share of the score, which is negative for images {negative}; use average_increase or deletion"
        )
    return one_number((whole - masked).clamp_min(0) / whole.clamp_min(torch.finfo(whole.dtype).tiny))


@METRICS.register(lower_is_better=False, paper="Chattopadhay et al. 2018")
def average_increase(
    model: nn.Module, images: Tensor, maps: Tensor, targets: Tensor | None = None, *, batch_size: Positive | None = None
) -> Curve:
    """Test whether the class probability rises when each pixel is multiplied by its relevance, as in average_drop.

    Returns:
        Curve of one point, 1 (it rises) or 0; its mean over images is the increase in confidence. A large value is evidence
        for the map.

    Source: Chattopadhay et al. 2018, section 4.1.
    """
    whole, masked = _confidence(model, images, maps, targets, batch_size)
    return one_number((masked > whole).to(whole.dtype))
