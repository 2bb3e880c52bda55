"""Allegiance: whether the prediction stays the same as relevant pixels turn black or white."""

from torch import Tensor, nn

from saliency_lib.core.fills import Fill
from saliency_lib.core.options import Positive, Seed
from saliency_lib.core.streams import Indices
from saliency_lib.evaluation.curve import Curve
from saliency_lib.evaluation.perturbation import perturbation_curve
from saliency_lib.evaluation.table import METRICS

ALLEGIANCE_FRACTIONS = (0, 0.03, 0.05, 0.07, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@METRICS.register(lower_is_better=True, paper="Llorente et al. 2023", family="removal")
def allegiance(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    targets: Tensor | None = None,
    *,
    fill: Fill = "black",
    seed: Seed = 0,
    indices: Indices = None,
    batch_size: Positive | None = None,
) -> Curve:
    """Test whether the prediction stays that of the whole image as the most relevant pixels turn black or white.

    Args:
        images: (B, C, H, W) pixels in [0, 1].
        maps: (B, H, W), not negative. A pixel changes if its value is above that of the pixel at the cut, so pixels that tie
            with it stay, including all zeros.
        targets: not used; the class predicted for the whole image counts, right or wrong.
        fill: `black` for maps of pixels whose brightness is evidence for the class, `white` for inactive and negative
            gradients.
        seed, indices: fix a random fill.

    Returns:
        Curve over 13 requested fractions from 0 to 0.9, with values 1 (unchanged) or 0, the first of them 1. The area is over
        [0, 0.9], so that a model that always gives the same answer has 0.9; a small area is evidence for the map.

    Source: Llorente, Boal, Sanchez-Ubeda 2023, black and white deletion, and the released code. Differs: in maps with
    negative values the released code also never changes a pixel whose value is exactly 0.
    """
    return perturbation_curve(
        model, images, maps, targets,
        fractions=ALLEGIANCE_FRACTIONS, ties="together", fill=fill, score="unchanged",
        seed=seed, indices=indices, batch_size=batch_size,
    )  # fmt: skip
