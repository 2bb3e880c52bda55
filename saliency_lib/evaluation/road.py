"""ROAD: remove pixels, fill them from their neighbours, and compare the most relevant with the least relevant ones."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy import sparse
from scipy.linalg import solveh_banded
from torch import Tensor, nn

from saliency_lib.core.checks import check_images
from saliency_lib.core.options import NotNegative, Positive, Seed
from saliency_lib.core.streams import Indices, noise, row_indices
from saliency_lib.evaluation.curve import Curve, difference
from saliency_lib.evaluation.perturbation import Imputed, Score, perturbation_curve
from saliency_lib.evaluation.ranking import Ties
from saliency_lib.evaluation.table import METRICS

DRAWS = 2  # random orders of tied pixels: a linear system per order costs more than a forward pass of a small network


@functools.lru_cache(maxsize=4)
def _neighbours(height: int, width: int) -> tuple[sparse.csr_array, list[tuple[np.ndarray, np.ndarray, float]]]:
    """Return the weights (H W, H W) of a pixel's eight neighbours, 1/6 along the edges and 1/12 across the corners.

    Also return the pairs of neighbours behind them: numbers of the first pixels, numbers of the later pixels, weight.
    """
    grid = np.arange(height * width).reshape(height, width)
    pairs = [
        (grid[:, :-1].ravel(), grid[:, 1:].ravel(), 1 / 6),
        (grid[:-1].ravel(), grid[1:].ravel(), 1 / 6),
        (grid[:-1, :-1].ravel(), grid[1:, 1:].ravel(), 1 / 12),
        (grid[:-1, 1:].ravel(), grid[1:, :-1].ravel(), 1 / 12),
    ]
    first, later = (np.concatenate([pair[side] for pair in pairs]) for side in (0, 1))
    weights = np.concatenate([np.full(len(one), weight) for one, _, weight in pairs])
    upper = sparse.coo_array((weights, (first, later)), (grid.size, grid.size))
    return (upper + upper.T).tocsr(), pairs


def imputed(images: Tensor, missing: Tensor) -> Tensor:
    """Replace the missing pixels of images by the weighted mean of their neighbours, missing neighbours included.

    One banded linear system per image, for all channels at once. Weights are renormalised at the border. An image without
    any pixel left becomes its mean colour, since any constant is a solution.

    Args:
        images: (n, C, H, W).
        missing: (n, H, W) bool.

    Returns:
        (n, C, H, W).

    Source: Rong et al. 2022, noisy linear imputation, without its noise.
    """
    weights, pairs = _neighbours(*images.shape[2:])
    total, width = weights.sum(1), images.shape[3]
    values, holes = images.flatten(2).double().cpu().numpy(), missing.flatten(1).cpu().numpy()
    known = (weights @ np.where(holes[:, None], 0, values).reshape(-1, weights.shape[0]).T).T.reshape(values.shape)
    for image, gone, right in zip(values, holes, known, strict=True):
        if gone.all():
            image[:] = image.mean(1, keepdims=True)
        elif gone.any():
            number = np.cumsum(gone) - 1  # of each missing pixel among the missing ones
            system = np.zeros((width + 2, number[-1] + 1))
            system[0] = total[gone]
            for first, later, weight in pairs:
                both = gone[first] & gone[later]
                column = number[first[both]]
                system[number[later[both]] - column, column] = -weight
            image[:, gone] = solveh_banded(system, right[:, gone].T, lower=True, check_finite=False).T
    return torch.from_numpy(values).view(images.shape).to(images)


@METRICS.register(lower_is_better=False, paper="Rong et al. 2022")
def road(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    targets: Tensor | None = None,
    *,
    fractions: Sequence[float] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
    sigma: NotNegative = 0.01,
    score: Score = "probability",
    ties: Ties = "random",
    seed: Seed = 0,
    indices: Indices = None,
    batch_size: Positive | None = None,
) -> Curve:
    """Compute half the difference between the score without the least relevant and without the most relevant pixels.

    This is ROAD, remove and debias. Missing pixels are imputed from their neighbours, so that the shape of the hole tells
    the model little.

    Args:
        images: (B, C, H, W) pixels in [0, 1].
        maps: (B, H, W).
        targets: (B,) classes; None for the predicted ones.
        fractions: shares of the pixels that are removed.
        sigma: standard deviation of the noise on imputed pixels; each image has one draw of it for all fractions.
        score: see `perturbation_curve`.
        ties: the order of pixels of equal value: `random`, averaged over two orders, or `index` or `together`.
        seed, indices: fix the noise and the order of tied pixels of each image.

    Returns:
        Curve over the fractions, with values in [-1/2, 1/2], 0 for a map without order; a large area is evidence for the
        map. The area is from the first fraction to the last, so within [-0.4, 0.4] by default.

    Source: Rong et al. 2022, section 4; combined score as in the pytorch-grad-cam library. Differs: Quantus's ROAD is the
    accuracy, most relevant first, after removing int(H W p) pixels for p = 1 %, 3 %, ..., 99 %. grad-cam cuts at percentiles,
    averages over fractions and draws new noise for each.
    """
    images = check_images(images)
    here = images.cpu()
    field = sigma * noise(here, row_indices(images, indices), seed, "road", law=torch.randn)
    fill = Imputed(lambda rows, missing: imputed(here[rows], missing) + field[rows], on_host=True)
    options: dict[str, Any] = {"fractions": fractions, "ties": ties, "draws": DRAWS, "seed": seed, "indices": indices}
    options["batch_size"] = batch_size
    most, least = (
        perturbation_curve(model, images, maps, targets, order=order, fill=fill, score=score, **options)
        for order in ("most_relevant_first", "least_relevant_first")
    )
    return difference(least, most, scale=1 / 2)
