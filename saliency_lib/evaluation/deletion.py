"""Deletion: the class probability as the most relevant pixels are removed, with the presets of the papers that measure it."""

from typing import Annotated, Any

from torch import Tensor, nn

from saliency_lib.core.checks import check_images, check_maps
from saliency_lib.core.fills import Fill
from saliency_lib.core.options import Count, Names, Positive, Seed
from saliency_lib.core.streams import Indices
from saliency_lib.evaluation.curve import Curve
from saliency_lib.evaluation.perturbation import Score, choose, even_fractions, perturbation_curve, strides
from saliency_lib.evaluation.ranking import Ties
from saliency_lib.evaluation.table import METRICS

# The settings of the papers that measure deletion and insertion. Strides are in pixels; None is one row of the image.
PRESETS: dict[str, dict[str, Any]] = {
    "rise": {"stride": None, "ranking": "signed", "score": "probability", "deletion_fill": "mean", "insertion_fill": "blur"},
    "gnl": {"stride": None, "ranking": "absolute", "score": "probability", "deletion_fill": "mean", "insertion_fill": "blur"},
    "saliency_benchmark": {
        "stride": 500,
        "ranking": "signed",
        "score": "probability",
        "deletion_fill": "black",
        "insertion_fill": "wide_blur",
    },
}


def preset_curve(
    start: str,
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    targets: Tensor | None,
    *,
    preset: str,
    steps: int | None,
    fill: Fill | None,
    score: Score | None,
    **options: Any,
) -> Curve:
    """Compute the curve of a preset.

    Args:
        start: `image` (deletion) or `fill` (insertion).
        preset: a name in PRESETS.
        steps, fill, score: replace the preset's if they are not None.
        options: `ties`, `seed`, `indices` and `batch_size` of `perturbation_curve`.
    """
    chosen = choose("preset", preset, PRESETS)
    images = check_images(images)
    check_maps(maps, images)
    pixels, width = maps[0].numel(), maps.shape[2]
    return perturbation_curve(
        model,
        images,
        maps.abs() if chosen["ranking"] == "absolute" else maps,
        targets,
        fractions=strides(pixels, chosen["stride"] or width) if steps is None else even_fractions(pixels, steps),
        start=start,
        fill=chosen["deletion_fill" if start == "image" else "insertion_fill"] if fill is None else fill,
        score=chosen["score"] if score is None else score,
        **options,
    )


@METRICS.register(lower_is_better=True, presets=PRESETS, paper="Petsiuk et al. 2018", family="removal")
def deletion(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    targets: Tensor | None = None,
    *,
    preset: Annotated[str, Names(PRESETS)] = "rise",
    steps: Count | None = None,
    fill: Fill | None = None,
    score: Score | None = None,
    ties: Ties = "random",
    seed: Seed = 0,
    indices: Indices = None,
    batch_size: Positive | None = None,
) -> Curve:
    """Follow the class probability as the most relevant pixels are removed; a small area is evidence for the map.

    Args:
        images: (B, C, H, W) pixels in [0, 1].
        maps: (B, H, W).
        targets: (B,) classes; None for the predicted ones. The saliency benchmark uses the labels.
        preset: `rise`: one row of pixels per step (224 steps at 224 pixels), filled with the mean colour; `gnl`: the same,
            ranked by the absolute value of the map; `saliency_benchmark`: 500 pixels per step, filled with black.
        steps: number of strides from the whole image to none of it; 28 at 224 pixels is RISE's setting for whole data sets.
        fill, score: replace the preset's, see `perturbation_curve`.
        ties: the order of pixels of equal value: `random`, averaged over a few orders, or `index` or `together`.
        seed, indices: fix the order of tied pixels and a random fill.

    Returns:
        Curve over [0, 1], values and area in [0, 1].

    Source: Petsiuk, Das, Saenko 2018, section 4.1 and the released evaluation code; Kwon, Koo, Cho 2020, released code;
    saliency-benchmark (Parola et al.), released code. Differs: tied pixels are in random orders (there in that of
    an unstable sort, read backwards); a shorter last step counts with its own width (there all steps are equally wide); the
    benchmark's probability is one softmax of the logits (there two or three), and its maps are not rounded to float16.
    """
    return preset_curve(
        "image", model, images, maps, targets,
        preset=preset, steps=steps, fill=fill, score=score, ties=ties, seed=seed, indices=indices, batch_size=batch_size,
    )  # fmt: skip
