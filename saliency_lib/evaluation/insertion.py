"""Insertion: the class probability as the most relevant pixels appear on a blurred image."""

from dataclasses import replace
from typing import Annotated

import torch
from torch import Tensor, nn

from saliency_lib.core.fills import Fill
from saliency_lib.core.options import Count, Names, Positive, Seed
from saliency_lib.core.streams import Indices
from saliency_lib.evaluation.curve import Curve
from saliency_lib.evaluation.deletion import PRESETS, preset_curve
from saliency_lib.evaluation.perturbation import Score, Variant
from saliency_lib.evaluation.ranking import Ties
from saliency_lib.evaluation.table import METRICS


@METRICS.register(lower_is_better=False, presets=PRESETS, paper="Petsiuk et al. 2018")
def insertion(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    targets: Tensor | None = None,
    *,
    preset: Annotated[str, Names(PRESETS)] = "rise",
    variant: Variant = "corrected",
    steps: Count | None = None,
    fill: Fill | None = None,
    score: Score | None = None,
    ties: Ties = "random",
    seed: Seed = 0,
    indices: Indices = None,
    batch_size: Positive | None = None,
) -> Curve:
    """Follow the class probability as the most relevant pixels appear on a blurred image; a large area is evidence for the map.

    Args:
        images: (B, C, H, W) pixels in [0, 1].
        maps: (B, H, W).
        targets: (B,) classes; None for the predicted ones. The saliency benchmark uses the labels.
        preset: `rise`: one row of pixels per step, from a Gaussian blur (11 pixels, sigma 5); `gnl`: the same, ranked by the
            absolute value of the map; `saliency_benchmark`: 500 pixels per step, from a blur of 127 pixels, sigma 17.
        variant: `corrected`, or `released`, in which the first point is the score of the whole image, as in the benchmark.
        steps: number of strides from the blurred image to the whole one.
        fill, score: replace the preset's, see `perturbation_curve`; areas with different fills cannot be compared.
        ties: the order of pixels of equal value, as in deletion.
        seed, indices: fix the order of tied pixels and a random fill.

    Returns:
        Curve over [0, 1], values and area in [0, 1].

    Source: as in deletion. Differs: as in deletion; and the curve starts at the blurred image, while the saliency
    benchmark's code scores the whole image there.
    """
    released = variant == "released"
    if released and preset != "saliency_benchmark":
        raise ValueError(f"variant 'released' needs preset 'saliency_benchmark', got preset {preset!r}")
    curve = preset_curve(
        "fill", model, images, maps, targets,
        preset=preset, steps=steps, fill=fill, score=score, ties=ties, seed=seed, indices=indices, batch_size=batch_size,
    )  # fmt: skip
    if not released:
        return curve
    values = torch.cat([curve.values[:, -1:], curve.values[:, 1:]], 1)
    return replace(curve, values=values, area=torch.trapezoid(values, curve.fractions, dim=1))
