"""Deletion: the class probability as the most relevant pixels are taken away, with the presets of the papers that measure it."""

from torch import Tensor, nn

from saliency_lib.core.checks import check_images, check_maps
from saliency_lib.core.fills import Fill
from saliency_lib.evaluation.curve import Curve
from saliency_lib.evaluation.perturbation import Score, choose, even_fractions, perturbation_curve, strides
from saliency_lib.evaluation.table import METRICS

# What the papers that measure deletion and insertion chose; a stride in pixels, None being one row of them.
PRESETS: dict[str, dict] = {
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
    score: str | Score | None,
    **options,
) -> Curve:
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


@METRICS.register(lower_is_better=True, presets=PRESETS, paper="Petsiuk et al. 2018")
def deletion(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    targets: Tensor | None = None,
    *,
    preset: str = "rise",
    steps: int | None = None,
    fill: Fill | None = None,
    score: str | Score | None = None,
    seed: int = 0,
    indices: Tensor | None = None,
    batch_size: int | None = None,
) -> Curve:
    """The class probability as the most relevant pixels are taken away; a small area speaks for the map.

    Args:
        maps: (B, H, W).
        targets: (B,) classes; None for the predicted ones. The saliency benchmark follows the label.
        preset: `rise`: one row's worth of pixels a step (224 steps at 224), filled with the mean colour; `gnl`: the same by
            the absolute value of the map; `saliency_benchmark`: 500 pixels a step, black.
        steps: strides from the whole image to none of it; 28 at 224 pixels is RISE's setting for whole data sets.
        fill, score: in place of the preset's.

    Returns:
        Curve over [0, 1], values and area in [0, 1].

    Source: Petsiuk, Das, Saenko 2018, section 4.1 and the released evaluation code; Kwon, Koo, Cho 2020, released code;
    saliency-benchmark (Parola et al.), released code. Differs: ties go by index (there by an unstable sort, read
    backwards), a shorter last step counts with its own width (there all steps are equally wide), and the benchmark's
    probability is one softmax of the logits (there two or three), its maps are not rounded to float16.
    """
    return preset_curve(
        "image", model, images, maps, targets,
        preset=preset, steps=steps, fill=fill, score=score, seed=seed, indices=indices, batch_size=batch_size,
    )  # fmt: skip
