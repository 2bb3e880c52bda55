"""Pixel perturbation: whether the prediction is right as the least relevant pixels are taken away."""

import numpy as np
from torch import Tensor, nn

from saliency_lib.core.checks import check_images
from saliency_lib.core.fills import Fill
from saliency_lib.evaluation.curve import Curve
from saliency_lib.evaluation.perturbation import VARIANTS, choose, perturbation_curve
from saliency_lib.evaluation.table import METRICS


@METRICS.register(lower_is_better=False, paper="Srinivas, Fleuret 2021")
def pixel_perturbation(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    targets: Tensor | None = None,
    *,
    variant: str = "corrected",
    order: str = "least_relevant_first",
    fill: Fill = "grey",
    seed: int = 0,
    indices: Tensor | None = None,
    batch_size: int | None = None,
) -> Curve:
    """Whether the prediction is right as the least relevant pixels are taken away; a large area speaks for the map.

    Args:
        maps: (B, H, W).
        targets: (B,) labels; None for the predicted classes.
        variant: `corrected` takes k = int(m H W) pixels away for a share m; `released` those below the k-th smallest value,
            which are k - 1, or fewer where values tie.
        order: `least_relevant_first`, or `most_relevant_first`, where a small area speaks for the map.
        fill: `grey` (0.5), as in the released code, or `image_mean`, as in the paper.

    Returns:
        Curve over 25 shares m, evenly spaced in their logarithm from 0.01 to 1, stated as the k (or k - 1) pixels asked
        for; values 1 (right) or 0; area from the first share to the last, not from 0.

    Source: Srinivas, Fleuret 2021, discriminative pixel perturbation, and the released code. Differs: the released code
    ranks the standard deviation over channels of the signed gradient, and adds noise of 1e-20 against ties, which float32
    does not feel; here any map is ranked as it is.
    """
    released = choose("variant", variant, VARIANTS)
    pixels = check_images(images)[0, 0].numel()
    counts = [max(0, int(share * pixels) - released) for share in np.logspace(-2, 0, 25)]
    return perturbation_curve(
        model, images, maps, targets,
        fractions=[count / pixels for count in counts], order=order, ties="together" if released else "index",
        fill=fill, score="correct", seed=seed, indices=indices, batch_size=batch_size,
    )  # fmt: skip
