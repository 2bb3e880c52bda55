"""Pixel perturbation: whether the prediction is right as the least relevant pixels are removed."""

import numpy as np
from torch import Tensor, nn

from saliency_lib.core.checks import check_images
from saliency_lib.core.fills import Fill
from saliency_lib.core.options import Positive, Seed
from saliency_lib.core.streams import Indices
from saliency_lib.evaluation.curve import Curve
from saliency_lib.evaluation.perturbation import Order, Variant, perturbation_curve
from saliency_lib.evaluation.ranking import Ties
from saliency_lib.evaluation.table import METRICS


@METRICS.register(lower_is_better=False, paper="Srinivas, Fleuret 2021")
def pixel_perturbation(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    targets: Tensor | None = None,
    *,
    variant: Variant = "corrected",
    order: Order = "least_relevant_first",
    fill: Fill = "grey",
    ties: Ties | None = None,
    seed: Seed = 0,
    indices: Indices = None,
    batch_size: Positive | None = None,
) -> Curve:
    """Test whether the prediction is right as the least relevant pixels are removed; a large area is evidence for the map.

    Args:
        images: (B, C, H, W) pixels in [0, 1].
        maps: (B, H, W).
        targets: (B,) labels; None for the predicted classes.
        variant: `corrected` removes k = int(m H W) pixels for a share m; `released` removes those below the k-th smallest
            value, which are k - 1, or fewer if values tie.
        order: `least_relevant_first`, or `most_relevant_first`, for which a small area is evidence for the map.
        fill: `grey` (0.5), as in the released code, or `image_mean`, as in the paper.
        ties: the order of pixels of equal value: `random`, averaged over a few orders, or `index` or `together`; None:
            `together` if released, else `random`.
        seed, indices: fix the order of tied pixels and a random fill.

    Returns:
        Curve over 25 shares m, evenly spaced in their logarithm from 0.01 to 1, stated as the k (or k - 1) requested pixels,
        with values in [0, 1], the share of the orders of tied pixels after which the prediction is right. The area is from
        the first share to the last, not from 0.

    Source: Srinivas, Fleuret 2021, discriminative pixel perturbation, and the released code. Differs: the released code
    ranks the standard deviation over channels of the signed gradient, and adds noise of 1e-20 against ties, which has no
    effect in float32; here any map is ranked as it is.
    """
    released = variant == "released"
    pixels = check_images(images)[0, 0].numel()
    counts = [max(0, int(share * pixels) - released) for share in np.logspace(-2, 0, 25)]
    return perturbation_curve(
        model, images, maps, targets,
        fractions=[count / pixels for count in counts], order=order, ties=ties or ("together" if released else "random"),
        fill=fill, score="correct", seed=seed, indices=indices, batch_size=batch_size,
    )  # fmt: skip
