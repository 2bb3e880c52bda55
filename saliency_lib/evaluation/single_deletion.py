"""Single deletion: whether a map orders the patches of an image as the model's score does when one of them is deleted."""

import torch
from torch import Tensor, nn

from saliency_lib.core.checks import check_images, check_maps
from saliency_lib.core.fills import Fill, filled
from saliency_lib.core.options import Positive, Seed
from saliency_lib.core.segments import Side, grid, rectangles
from saliency_lib.core.streams import Indices
from saliency_lib.evaluation.curve import Curve, one_number
from saliency_lib.evaluation.fidelity import changes
from saliency_lib.evaluation.perturbation import Score
from saliency_lib.evaluation.sensitivity import correlation
from saliency_lib.evaluation.table import METRICS


def mean_ranks(values: Tensor) -> Tensor:
    """Return the ranks (B, n) of values (B, n), 1 for the smallest; equal values share the mean of their ranks."""
    below = (values[:, None] < values[:, :, None]).sum(2)
    equal = (values[:, None] == values[:, :, None]).sum(2)
    return below + (equal + 1) / 2


@METRICS.register(lower_is_better=False, paper="Hesse et al. 2024")
def single_deletion(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    targets: Tensor | int | None = None,
    *,
    side: Side = 4,
    fill: Fill = "mean",
    score: Score = "logit",
    seed: Seed = 0,
    indices: Indices = None,
    batch_size: Positive | None = None,
) -> Curve:
    """Correlate the ranks of the map's sums over patches with those of the score's falls when one patch is deleted.

    Spearman's correlation, over the patches Q of a grid, of sum_{p in Q} map_p with f(x) - f(x without Q). A single deletion is
    in the domain of a model that was trained with the recipe `patch_deletion` (IDSDS); of another model it is not.

    Args:
        images: (B, C, H, W) pixels in [0, 1].
        maps: (B, H, W).
        targets: (B,) classes, in the paper the labels; None for the predicted ones.
        side: patches per row and per column, one forward pass each; fewer if the image has fewer rows or columns.
        fill: what replaces a patch, see `fills.filled`.
        score: `logit`, `probability`, or another score of `perturbation_curve`.
        seed, indices: fix a random fill.

    Returns:
        Curve of one point in [-1, 1]; a large value is evidence for the map. It is 0 if all sums or all falls are equal.

    Source: Hesse, Schaub-Meyer, Roth 2024, and released code. Differs: images whose correlation is not defined count as 0, and
    are left out there; a grid that does not divide the image has patches of two sizes, and leaves a border out there.
    """
    images = check_images(images)
    check_maps(maps, images)
    numbers, count = grid(images[:1], side), rectangles(images, side)

    def removed(begin: int, end: int) -> Tensor:
        return numbers == (torch.arange(begin, end, device=images.device) % count)[:, None, None]

    substrate = filled(fill, model, images, indices=indices, seed=seed)
    sums, change = changes(model, images, maps, targets, removed, count, substrate, score, batch_size)
    return one_number(correlation(mean_ranks(sums.float()), mean_ranks(change)).to(change))
