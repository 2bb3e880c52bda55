"""Sensitivity-n: whether sums of a map over random sets of pixels are the changes of the score without them."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from saliency_lib.core.checks import check_images, check_maps
from saliency_lib.core.fills import Fill, filled
from saliency_lib.core.options import Count, Positive, Seed
from saliency_lib.core.streams import Indices, noise_by_draw, pairs
from saliency_lib.evaluation.curve import Curve
from saliency_lib.evaluation.fidelity import changes
from saliency_lib.evaluation.perturbation import Score, checked_fractions
from saliency_lib.evaluation.table import METRICS


def correlation(one: Tensor, other: Tensor) -> Tensor:
    """Return Pearson's correlation over the last dimension; 0 if the values of one of them are equal up to rounding."""
    pair = [values.double() for values in (one, other)]
    a, b = (values - values.mean(-1, keepdim=True) for values in pair)
    varies = (a.norm(dim=-1) > 1e-9 * pair[0].norm(dim=-1)) & (b.norm(dim=-1) > 1e-9 * pair[1].norm(dim=-1))
    return ((a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1)).where(varies, 1)).where(varies, 0)


@METRICS.register(lower_is_better=False, paper="Ancona et al. 2018")
def sensitivity_n(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    targets: Tensor | None = None,
    *,
    fractions: Sequence[float] = (0.01, 0.03, 0.1, 0.2, 0.4, 0.6, 0.8),
    samples: Count = 100,
    fill: Fill = "mean",
    score: Score = "logit",
    seed: Seed = 0,
    indices: Indices = None,
    batch_size: Positive | None = None,
) -> Curve:
    """Correlate the map's sum over n random pixels with the fall of the score when they are removed, for several n.

    Pearson's correlation, over random sets S of n pixels, of sum_{p in S} map_p with f(x) - f(x without S).

    Args:
        images: (B, C, H, W) pixels in [0, 1].
        maps: (B, H, W), signed shares in the score, as path methods give them.
        targets: (B,) classes; None for the predicted ones.
        fractions: non-decreasing shares n / (H W), rounded to whole pixels, at least one.
        samples: the number of sets for each n, one forward pass each.
        fill: what replaces removed pixels, see `fills.filled`.
        score: `logit`, `probability`, or another score of `perturbation_curve`.
        seed, indices: fix the sets of each image and a random fill.

    Returns:
        Curve over n / (H W), with values in [-1, 1]; 0 if all sums or all falls are equal. The area is from the first fraction
        to the last, so within [-0.79, 0.79] by default. A large area is evidence for the map; the contributions of a linear
        model's pixels have the correlation 1 for each n.

    Source: Ancona, Ceolini, Oztireli, Gross 2018, sensitivity-n. Differs: a set is of pixels with all their channels, because
    the channels of a map are summed already.
    """
    images = check_images(images)
    check_maps(maps, images)
    pixels = maps[0].numel()
    counts = torch.tensor([max(1, round(share * pixels)) for share in checked_fractions(fractions)], device=images.device)
    keys = noise_by_draw(images[:, :1].float(), "sensitivity_n", torch.rand, seed, indices)
    total = len(counts) * samples

    def removed(begin: int, end: int) -> Tensor:
        rows, draws = pairs(begin, end, total, images.device)
        places = keys(rows, draws).flatten(1).argsort(dim=1, stable=True).argsort(dim=1)
        return (places < counts[draws // samples, None]).view(-1, *maps.shape[1:])

    substrate = filled(fill, model, images, indices=indices, seed=seed)
    sums, change = changes(model, images, maps, targets, removed, total, substrate, score, batch_size)
    values = correlation(sums.unflatten(1, (-1, samples)), change.unflatten(1, (-1, samples))).to(change)
    stated = (counts.double() / pixels).to(values)
    return Curve(stated, values, torch.trapezoid(values, stated, dim=1))
