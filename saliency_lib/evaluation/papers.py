"""Three papers' perturbation curves over predictions: allegiance, masked accuracy, pixel perturbation."""

import numpy as np
from torch import Tensor, nn

from saliency_lib.evaluation.curves import VARIANTS, Curve, choose, metric, perturbation_curve
from saliency_lib.inputs import Fill, check_images, check_maps

ALLEGIANCE_FRACTIONS = (0, 0.03, 0.05, 0.07, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@metric(lower_is_better=True)
def allegiance(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    targets: Tensor | None = None,
    *,
    fill: Fill = "black",
    seed: int = 0,
    indices: Tensor | None = None,
    batch_size: int | None = None,
) -> Curve:
    """Whether the prediction stays that of the whole image as the most relevant pixels turn black or white.

    Args:
        maps: (B, H, W), not negative; a pixel changes where its value is above that of the pixel at the cut, so pixels that
            tie with it stay, and with them all zeros.
        targets: not used; what counts is the class predicted for the whole image, right or wrong.
        fill: `black` for maps of what speaks for the class by being bright, `white` for the inactive and negative ones.

    Returns:
        Curve over 13 fractions from 0 to 0.9 as asked for; values 1 (unchanged) or 0, the first of them 1; area over
        [0, 0.9] as it is, so that a model of one answer has 0.9.

    Source: Llorente, Boal, Sanchez-Ubeda 2023, black and white deletion, and the released code. Differs: in maps with
    negative values the released code also never takes a pixel whose value is exactly 0.
    """
    return perturbation_curve(
        model, images, maps, targets,
        fractions=ALLEGIANCE_FRACTIONS, ties="together", fill=fill, score="unchanged",
        seed=seed, indices=indices, batch_size=batch_size,
    )  # fmt: skip


@metric(lower_is_better=True)
def masked_accuracy(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    targets: Tensor | None = None,
    *,
    fill: Fill = "corner",
    seed: int = 0,
    indices: Tensor | None = None,
    batch_size: int | None = None,
) -> Curve:
    """Whether the prediction is right as the pixels of largest |map| are masked, without training again.

    Args:
        maps: (B, H, W); ranked by absolute value.
        targets: (B,) labels; None for the predicted classes.
        fill: `corner` (the image's top left pixel), `image_mean`, `uniform`, `gaussian`, a constant tensor, or another.

    Returns:
        Curve over 0, then max(1, int(H W d)) pixels for d = 0.1, ..., 0.9; values 1 (right) or 0; area over these, at most
        0.9.

    Source: Ismail, Corrada Bravo, Feizi 2021, accuracy drop, and the released MNIST code. Differs: the released code gives
    the curve only; it averages the attribution over channels before it ranks; its `gaussian` adds a constant that the user
    chooses where ours adds the image's mean colour; in colour the corner and the mean are taken channel by channel.
    """
    images = check_images(images)
    check_maps(maps, images)
    pixels = maps[0].numel()
    counts = [0, *(max(1, pixels * tenth // 10) for tenth in range(1, 10))]
    return perturbation_curve(
        model, images, maps.abs(), targets,
        fractions=[count / pixels for count in counts], fill=fill, score="correct",
        seed=seed, indices=indices, batch_size=batch_size,
    )  # fmt: skip


@metric(lower_is_better=False)
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
