"""Masked accuracy: whether the prediction is right as the most relevant pixels are masked."""

from torch import Tensor, nn

from saliency_lib.core.checks import check_images, check_maps
from saliency_lib.core.fills import Fill
from saliency_lib.core.options import Positive, Seed
from saliency_lib.core.streams import Indices
from saliency_lib.evaluation.curve import Curve
from saliency_lib.evaluation.perturbation import perturbation_curve
from saliency_lib.evaluation.ranking import Ties
from saliency_lib.evaluation.table import METRICS


@METRICS.register(lower_is_better=True, paper="Ismail et al. 2021", family="removal")
def masked_accuracy(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    targets: Tensor | None = None,
    *,
    fill: Fill = "corner",
    ties: Ties = "random",
    seed: Seed = 0,
    indices: Indices = None,
    batch_size: Positive | None = None,
) -> Curve:
    """Test whether the prediction is right as the pixels of largest |map| are masked, without training again.

    Args:
        images: (B, C, H, W) pixels in [0, 1].
        maps: (B, H, W), ranked by absolute value.
        targets: (B,) labels; None for the predicted classes.
        fill: `corner` (the image's top left pixel), `image_mean`, `uniform`, `gaussian`, a constant tensor, or another fill.
        ties: the order of pixels of equal value: `random`, averaged over a few orders, or `index` or `together`.
        seed, indices: fix the order of tied pixels and a random fill.

    Returns:
        Curve over 0, then max(1, int(H W d)) pixels for d = 0.1, ..., 0.9; with values in [0, 1], the share of
        the orders of tied pixels after which the prediction is right. The area is over these, at most 0.9; a small area is
        evidence for the map.

    Source: Ismail, Corrada Bravo, Feizi 2021, accuracy drop, and the released MNIST code. Differs: the released code
    computes only the curve; it averages the attribution over channels before ranking; its `gaussian` adds a constant that the
    user chooses, ours adds the image's mean colour. In colour images the corner and the mean are those of each channel.
    """
    images = check_images(images)
    check_maps(maps, images)
    pixels = maps[0].numel()
    counts = [0, *(max(1, pixels * tenth // 10) for tenth in range(1, 10))]
    return perturbation_curve(
        model, images, maps.abs(), targets,
        fractions=[count / pixels for count in counts], fill=fill, score="correct", ties=ties,
        seed=seed, indices=indices, batch_size=batch_size,
    )  # fmt: skip
