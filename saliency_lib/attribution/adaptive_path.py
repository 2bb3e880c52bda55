"""Guided integrated gradients of PAIR: a path on which the features with large gradients move last."""

import itertools

import torch
from torch import Tensor, nn

from saliency_lib.attribution.backward import Reduction, averaged, check_damage, point, reduced
from saliency_lib.attribution.table import METHODS
from saliency_lib.core.batching import frozen, resolve_targets
from saliency_lib.core.checks import check_images
from saliency_lib.core.fills import Fill, filled
from saliency_lib.core.options import Count, Positive, Seed, Share, ShareAbove0
from saliency_lib.core.streams import Indices

CLOSE = 1e-6  # of the whole distance; float32 cannot distinguish smaller ones
ROUNDS = 16  # of moves on a GPU without asking it whether any image is waiting, which makes the host wait


@METHODS.register(family="path", passes="200 F + 200 B", paper="Kapishnikov et al. 2021")
def guided_path_integrated_gradients(
    model: nn.Module,
    images: Tensor,
    targets: Tensor | None = None,
    *,
    steps: Count = 200,
    baseline: Fill = "black",
    fraction: ShareAbove0 = 0.25,
    band: Share = 0.02,
    reduction: Reduction = "sum",
    seed: Seed = 0,
    indices: Indices = None,
    batch_size: Positive | None = None,
) -> Tensor:
    """Compute integrated gradients along a path on which the features with the smallest gradients move first.

    After step t of T the image has covered t/T of the distance from the baseline (in L1). No feature is further than `band`
    from this share.

    Args:
        images: (B, C, H, W) pixels in [0, 1].
        targets: (B,) classes; None for the predicted ones.
        steps: T, one forward and one backward pass each, in sequence.
        baseline: the start of the path, see `fills.filled`.
        fraction: share of the features that move at a time, those with the smallest |gradient|; in (0, 1].
        band: in [0, 1]; with 0 the path is straight.
        seed, indices: fix a `noise` baseline.

    Returns:
        (B, H, W), signed, in logits; each map sums to the change of the score up to the error of `steps` rectangles.

    Raises:
        ValueError: steps, fraction or band are out of range, or a gradient is not finite, so that features cannot be ordered.

    Source: Kapishnikov et al. 2021 (guided IG), with the constants of the authors' code. Differs: the share of the distance
    that each feature has covered is stored, not computed from its value, so that rounding does not decide which features may
    move.
    """
    images = check_images(images)
    start = filled(baseline, model, images, indices=indices, seed=seed, name="baseline")
    distance = images - start
    covered = torch.zeros_like(images).flatten(1)  # share of its distance that each feature has covered
    total = torch.zeros_like(images)
    counts = torch.zeros(len(images), dtype=torch.int32, device=images.device)
    with frozen(model):
        targets = resolve_targets(model, images, targets, batch_size)
        for step in range(1, steps + 1):
            here = start + covered.view_as(images) * distance
            slope, damaged = averaged(model, here, targets, point(here), batch_size=batch_size, known=True)
            counts += damaged
            low, high = max(step / steps - band, 0.0), min(step / steps + band, 1.0)
            ahead = _moved(covered, distance.flatten(1).abs(), slope.flatten(1).abs(), step / steps, low, high, fraction)
            total += (ahead - covered).view_as(images) * distance * slope
            covered = ahead
    check_damage(counts)
    return reduced(total, reduction)


def _moved(covered: Tensor, length: Tensor, slope: Tensor, goal: float, low: float, high: float, fraction: float) -> Tensor:
    """Move the features with the smallest slopes until every image has covered the share `goal` of its distance.

    Args:
        covered: (B, n) share of its distance that each feature has covered.
        length: (B, n) distance of each feature.
        slope: (B, n) size of its gradient.
        low, high: bounds of the share that a feature may have covered afterwards.
    """
    whole = length.sum(1, keepdim=True)
    covered = covered.clamp(min=low)
    slope = slope.nan_to_num()  # every feature has a place in the order, until the caller refuses gradients that are NaN
    place = 1 + int(fraction * (slope.shape[1] - 1))
    most = -(-slope.shape[1] // place)  # each round moves so many features, or all that are free, as far as they may go
    asked = slope.device.type == "cpu" or most > ROUNDS
    for _ in itertools.count() if asked else range(most):
        missing = (length * covered).sum(1, keepdim=True).neg() + goal * whole
        free = (covered < high) & (length > 0)
        waiting = (missing > CLOSE * whole) & free.any(1, keepdim=True)
        if asked and not waiting.any():
            break
        waiting_slope = slope.masked_fill(~free, torch.inf)
        moving = free & (waiting_slope <= waiting_slope.kthvalue(place, dim=1, keepdim=True).values)
        room = ((high - covered) * length * moving).sum(1, keepdim=True)
        share = (missing / room).clamp(max=1)
        covered = torch.where(waiting & moving, torch.where(share < 1, covered + share * (high - covered), high), covered)
    return covered
