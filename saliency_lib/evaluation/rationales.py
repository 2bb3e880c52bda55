"""Comprehensiveness and sufficiency: what the score loses without a rationale, and with the rationale alone."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from saliency_lib.core.fills import Fill
from saliency_lib.core.options import Positive, Seed
from saliency_lib.core.streams import Indices
from saliency_lib.evaluation.curve import Curve, one_number
from saliency_lib.evaluation.perturbation import Score, perturbed_scores, standard_error
from saliency_lib.evaluation.ranking import Ties, tied
from saliency_lib.evaluation.table import METRICS

SHARES = (0.01, 0.05, 0.1, 0.2, 0.5)  # of an input, each a rationale


def _falls(
    start: str, model: nn.Module, images: Tensor, maps: Tensor, targets: Tensor | None, fractions: Sequence[float], **options: Any
) -> Curve:
    """Return the mean fall of the score over the fractions of deletion or insertion, which the start tells apart."""
    shares = [0.0, *fractions] if start == "image" else [*fractions, 1.0]
    _, scores = perturbed_scores(model, images, maps, targets, fractions=shares, start=start, **options)
    whole, rest = (0, slice(1, None)) if start == "image" else (-1, slice(None, -1))
    falls = (scores[:, :, whole, None] - scores[:, :, rest]).mean(2)
    error = standard_error(falls) if options["ties"] == "random" else None
    return replace(one_number(falls.mean(0)), tied=tied(maps), error=error)


@METRICS.register(lower_is_better=False, paper="DeYoung et al. 2020", family="removal")
def comprehensiveness(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    targets: Tensor | None = None,
    *,
    fractions: Sequence[float] = SHARES,
    fill: Fill = "mean",
    score: Score = "probability",
    ties: Ties = "random",
    seed: Seed = 0,
    indices: Indices = None,
    batch_size: Positive | None = None,
) -> Curve:
    """Average the fall of the score without the most relevant 1, 5, 10, 20 and 50 % of the pixels.

    Args:
        images: (B, C, H, W) pixels in [0, 1].
        maps: (B, H, W).
        targets: (B,) classes; None for the predicted ones.
        fractions: non-decreasing shares in [0, 1] that are removed, one rationale each.
        fill, score: see `perturbation_curve`.
        ties: the order of pixels of equal value: `random`, averaged over a few orders, or `index` or `together`.
        seed, indices: fix the order of tied pixels and a random fill.

    Returns:
        Curve of one point in [-1, 1] for probabilities; a large value is evidence for the map.

    Source: DeYoung et al. 2020 (ERASER), their measures of faithfulness, over five bins; the mean over the bins as in the
    released code, while the paper's formula also counts the empty rationale. Differs: pixels in place of tokens, and they are
    replaced and not cut out.
    """
    return _falls(
        "image", model, images, maps, targets, fractions,
        fill=fill, score=score, ties=ties, seed=seed, indices=indices, batch_size=batch_size,
    )  # fmt: skip


@METRICS.register(lower_is_better=True, paper="DeYoung et al. 2020")
def sufficiency(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    targets: Tensor | None = None,
    *,
    fractions: Sequence[float] = SHARES,
    fill: Fill = "mean",
    score: Score = "probability",
    ties: Ties = "random",
    seed: Seed = 0,
    indices: Indices = None,
    batch_size: Positive | None = None,
) -> Curve:
    """Average the fall of the score with nothing but the most relevant 1, 5, 10, 20 and 50 % of the pixels.

    Args:
        images: (B, C, H, W) pixels in [0, 1].
        maps: (B, H, W).
        targets: (B,) classes; None for the predicted ones.
        fractions: non-decreasing shares in [0, 1] that stay, one rationale each.
        fill, score: see `perturbation_curve`.
        ties: the order of pixels of equal value: `random`, averaged over a few orders, or `index` or `together`.
        seed, indices: fix the order of tied pixels and a random fill.

    Returns:
        Curve of one point in [-1, 1] for probabilities; a small value is evidence for the map. On some data a random order has
        the best one, so compare with it.

    Source: as in `comprehensiveness`. Differs: as there.
    """
    return _falls(
        "fill", model, images, maps, targets, fractions,
        fill=fill, score=score, ties=ties, seed=seed, indices=indices, batch_size=batch_size,
    )  # fmt: skip
