"""Guided integrated gradients of PAIR: a path that puts off the features with large gradients."""

import torch
from torch import Tensor, nn

from saliency_lib.attribution.backward import Path, Reduction, path_gradient, reduced
from saliency_lib.attribution.table import METHODS
from saliency_lib.core.batching import chunk_size, frozen, in_chunks, resolve_targets
from saliency_lib.core.checks import check_images, positive
from saliency_lib.core.fills import Fill, filled

CLOSE = 1e-6  # of the whole way; float32 cannot tell smaller distances apart


@METHODS.register(family="path", passes="200 F + 200 B", paper="Kapishnikov et al. 2021")
def guided_path_integrated_gradients(
    model: nn.Module,
    images: Tensor,
    targets: Tensor | None = None,
    *,
    steps: int = 200,
    baseline: Fill = "black",
    fraction: float = 0.25,
    band: float = 0.02,
    reduction: Reduction = "sum",
    seed: int = 0,
    indices: Tensor | None = None,
    batch_size: int | None = None,
) -> Tensor:
    """Integrated gradients along a path on which the features with the smallest gradients move first.

    After step t of T the image has come t/T of the way (in L1); no feature is further than `band` from there.

    Args:
        images: (B, C, H, W) pixels in [0, 1].
        targets: (B,) classes; None for the predicted ones.
        steps: T, one forward and backward pass each, one after the other.
        baseline: where the path begins.
        fraction: share of the features, those with the smallest |gradient|, that move at a time; in (0, 1].
        band: in [0, 1]; with 0 the path is straight.
        seed, indices: fix a `noise` baseline.

    Returns:
        (B, H, W), signed, in logits; each map sums to the change of the score up to the error of `steps` rectangles.

    Raises:
        ValueError: steps, fraction or band out of range, or a gradient that is NaN, by which nothing can be ordered.

    Source: Kapishnikov et al. 2021 (guided IG), with the constants of the authors' code. Differs: the way that each feature
    has come is kept itself and not computed back from its value, so that no rounding decides which features may move.
    """
    images = check_images(images)
    positive("steps", steps)
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction must lie in (0, 1], got {fraction}")
    if not 0 <= band <= 1:
        raise ValueError(f"band must lie in [0, 1], got {band}")
    start = filled(baseline, model, images, indices=indices, seed=seed)
    total = torch.zeros_like(images)
    with frozen(model):
        targets = resolve_targets(model, images, targets, batch_size)

        def add(first: int, last: int) -> None:
            total[first:last] = _attribution(
                model, images[first:last], start[first:last], targets[first:last], steps, fraction, band
            )

        in_chunks(add, len(images), chunk_size(images, batch_size))
    return reduced(total, reduction)


def _attribution(
    model: nn.Module, images: Tensor, start: Tensor, targets: Tensor, steps: int, fraction: float, band: float
) -> Tensor:
    way = images - start
    come = torch.zeros_like(images).flatten(1)  # how far each feature has come, in [0, 1]
    total = torch.zeros_like(images)
    for step in range(1, steps + 1):
        here = start + come.view_as(way) * way
        slope = path_gradient(model, here, targets, Path(here.new_ones(1), lambda rows, points, here=here: here[rows]))
        if not torch.isfinite(slope).all():
            bad = (~torch.isfinite(slope)).flatten(1).any(1).nonzero().flatten().tolist()
            raise ValueError(f"the gradient is NaN or infinite on the path to images {bad[:5]} of the batch; look at the model")
        low, high = max(step / steps - band, 0.0), min(step / steps + band, 1.0)
        ahead = _moved(come, way.flatten(1).abs(), slope.flatten(1).abs(), step / steps, low, high, fraction)
        total += (ahead - come).view_as(way) * way * slope
        come = ahead
    return total


def _moved(come: Tensor, length: Tensor, slope: Tensor, goal: float, low: float, high: float, fraction: float) -> Tensor:
    """How far each feature has come after a step that brings every image to `goal` of its way, the smallest slopes first."""
    whole = length.sum(1, keepdim=True)
    come = come.clamp(min=low)
    place = 1 + int(fraction * (slope.shape[1] - 1))
    while True:
        missing = (length * come).sum(1, keepdim=True).neg() + goal * whole
        free = (come < high) & (length > 0)
        waiting = (missing > CLOSE * whole) & free.any(1, keepdim=True)
        if not waiting.any():
            return come
        waited = slope.masked_fill(~free, torch.inf)
        moving = free & (waited <= waited.kthvalue(place, dim=1, keepdim=True).values)
        room = ((high - come) * length * moving).sum(1, keepdim=True)
        share = (missing / room).clamp(max=1)
        come = torch.where(waiting & moving, torch.where(share < 1, come + share * (high - come), high), come)
