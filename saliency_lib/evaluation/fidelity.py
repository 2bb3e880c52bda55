"""How truly a map tells what the model does: ROAD, infidelity, average drop and increase."""

import functools
import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy import sparse
from scipy.linalg import solveh_banded
from torch import Tensor, nn

from saliency_lib.core.batching import arranged, chunk_size, frozen, in_chunks, logits_of
from saliency_lib.core.checks import check_images, check_maps, check_targets, positive
from saliency_lib.core.fills import Fill, filled
from saliency_lib.core.streams import generator, noise, row_indices
from saliency_lib.evaluation.curve import Curve, one_number
from saliency_lib.evaluation.perturbation import SCORES, Imputed, Score, check_scores, choose, perturbation_curve
from saliency_lib.evaluation.table import METRICS


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
    sigma: float = 0.01,
    score: str | Score = "probability",
    seed: int = 0,
    indices: Tensor | None = None,
    batch_size: int | None = None,
) -> Curve:
    """Remove and debias: half the score without the least relevant pixels less that without the most relevant ones.

    Missing pixels are imputed from their neighbours, so that the shape of the hole tells the model little.

    Args:
        maps: (B, H, W).
        targets: (B,) classes; None for the predicted ones.
        fractions: shares of the pixels removed.
        sigma: standard deviation of the noise on imputed pixels; an image has one draw of it, at every fraction.
        seed, indices: fix the noise of each image.

    Returns:
        Curve over the fractions, values in [-1/2, 1/2], 0 for a map without order; area from the first fraction to the last,
        so within [-0.4, 0.4] by default.

    Source: Rong et al. 2022, section 4; combined score as in the pytorch-grad-cam library. Differs: ties go by index;
    Quantus's ROAD is the accuracy, most relevant first, int(H W p) pixels of p = 1 %, 3 %, ..., 99 %; grad-cam cuts at
    percentiles, averages over fractions and draws new noise for each.
    """
    images = check_images(images)
    if not (math.isfinite(sigma) and sigma >= 0):
        raise ValueError(f"sigma must be a number from 0, got {sigma}")
    field = sigma * noise(images, row_indices(images, indices), seed, "road", law=torch.randn)
    fill = Imputed(lambda rows, missing: imputed(images[rows], missing) + field[rows])
    most, least = (
        perturbation_curve(
            model, images, maps, targets, fractions=fractions, order=order, fill=fill, score=score, batch_size=batch_size
        )
        for order in ("most_relevant_first", "least_relevant_first")
    )
    values = (least.values - most.values) / 2
    return Curve(most.fractions, values, torch.trapezoid(values, most.fractions, dim=1))


def squares(images: Tensor, samples: int, *, seed: int = 0, indices: Tensor | None = None) -> Tensor:
    """Random squares (B, samples, 3) as top, left, side; sides uniform from 1 to half the image's shorter side."""
    positive("samples", samples)
    sources = [generator(images.device, "infidelity", seed, number) for number in row_indices(images, indices)]
    draws = torch.stack([torch.rand(3, samples, generator=source, device=images.device) for source in sources]).double()
    height, width = images.shape[2:]
    side = 1 + (draws[:, 2] * max(1, min(height, width) // 2)).floor()
    top, left = (draws[:, 0] * (height - side + 1)).floor(), (draws[:, 1] * (width - side + 1)).floor()
    return torch.stack([top, left, side], 2).long()


@METRICS.register(lower_is_better=True, paper="Yeh et al. 2019")
def infidelity(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    targets: Tensor | None = None,
    *,
    samples: int = 100,
    scaling: str = "optimal",
    fill: Fill = "mean",
    score: str | Score = "logit",
    seed: int = 0,
    indices: Tensor | None = None,
    batch_size: int | None = None,
) -> Curve:
    """How far the map's sum over a random square is from the change of the score when that square is removed.

    INFD = mean over squares Q of (b sum_{p in Q} map_p - (f(x) - f(x without Q)))^2.

    Args:
        maps: (B, H, W), signed shares in the score, as path methods give them.
        targets: (B,) classes; None for the predicted ones.
        samples: squares, one forward pass each; more estimate the mean better.
        scaling: `optimal`: b is the least-squares fit for each image, as maps have different units; `none`: b is 1.
        fill: what stands in a removed square.
        score: `logit`, `probability`, or another of perturbation_curve's.
        seed, indices: fix the squares of each image and a random fill.

    Returns:
        Curve of one point, not negative, in squared units of the score; 0 where the map tells all. A map that is 0 on every
        square has the mean squared change.

    Source: Yeh et al. 2019, section 2, square removal and optimal scaling. Differs: theirs weighs a map of the input's shape
    with x times the square, ours sums the map over the square, its channels being summed already.
    """
    images = check_images(images)
    check_maps(maps, images)
    optimal = choose("scaling", scaling, {"optimal": True, "none": False})
    score_of = score if callable(score) else choose("score", score, SCORES)
    boxes = squares(images, samples, seed=seed, indices=indices)
    substrate = filled(fill, model, images, indices=indices, seed=seed)
    precise = torch.promote_types(images.dtype, torch.float32)
    told, seen = torch.empty(2, len(images), samples, dtype=precise, device=images.device)
    y, x = (torch.arange(n, device=images.device) for n in images.shape[2:])

    with frozen(model), torch.no_grad():
        logits = logits_of(model, images, batch_size)
        predicted = logits.argmax(1)
        targets = predicted if targets is None else check_targets(targets, logits)
        whole = score_of(logits, targets, predicted).to(precise)

        def add(begin: int, end: int) -> None:
            pairs = torch.arange(begin, end, device=images.device)
            rows, column = pairs // samples, pairs % samples
            top, left, side = boxes[rows, column].view(-1, 3, 1, 1).unbind(1)
            inside = (y[:, None] >= top) & (y[:, None] < top + side) & (x >= left) & (x < left + side)
            inputs = torch.where(inside[:, None], substrate[rows], images[rows])
            change = whole[rows] - score_of(model(arranged(inputs)), targets[rows], predicted[rows]).to(precise)
            told[rows, column] = (maps[rows].to(precise) * inside).sum((1, 2))
            seen[rows, column] = change

        in_chunks(add, len(images) * samples, chunk_size(images, batch_size))
    check_scores(seen)
    if optimal:
        size = told.square().sum(1, keepdim=True)
        told = told * (told * seen).sum(1, keepdim=True) / size.where(size > 0, 1)
    return one_number((told - seen).square().mean(1))


def _confidence(
    model: nn.Module, images: Tensor, maps: Tensor, targets: Tensor | None, batch_size: int | None
) -> tuple[Tensor, Tensor]:
    """The target's probability (B,) for the images and for the images times the positive part of their maps, scaled to 1."""
    images = check_images(images)
    check_maps(maps, images)
    weights = maps.detach().clamp_min(0)
    weights = weights / weights.amax((1, 2), keepdim=True).clamp_min(torch.finfo(weights.dtype).tiny)
    with frozen(model), torch.no_grad():
        logits = logits_of(model, images, batch_size)
        targets = logits.argmax(1) if targets is None else check_targets(targets, logits)
        pair = logits, logits_of(model, images * weights[:, None].to(images), batch_size)
    precise = torch.promote_types(images.dtype, torch.float32)
    whole, masked = (each.to(precise).softmax(1).gather(1, targets[:, None])[:, 0] for each in pair)
    check_scores(torch.stack([whole, masked], 1))
    return whole, masked


@METRICS.register(lower_is_better=True, paper="Chattopadhay et al. 2018")
def average_drop(
    model: nn.Module, images: Tensor, maps: Tensor, targets: Tensor | None = None, *, batch_size: int | None = None
) -> Curve:
    """Share of the class probability that is lost when each pixel is weighed with its relevance.

    max(0, f(x) - f(x S)) / f(x), S being the positive part of the map, scaled to a largest value of 1.

    Args:
        maps: (B, H, W); a map without positive values leaves black.
        targets: (B,) classes; None for the predicted ones.

    Returns:
        Curve of one point in [0, 1]; its mean over images is the average drop.

    Source: Chattopadhay et al. 2018, section 4.1.
    """
    whole, masked = _confidence(model, images, maps, targets, batch_size)
    return one_number((whole - masked).clamp_min(0) / whole.clamp_min(torch.finfo(whole.dtype).tiny))


@METRICS.register(lower_is_better=False, paper="Chattopadhay et al. 2018")
def average_increase(
    model: nn.Module, images: Tensor, maps: Tensor, targets: Tensor | None = None, *, batch_size: int | None = None
) -> Curve:
    """Whether the class probability rises when each pixel is weighed with its relevance; as average_drop.

    Returns:
        Curve of one point, 1 (it rises) or 0; its mean over images is the increase in confidence.

    Source: Chattopadhay et al. 2018, section 4.1.
    """
    whole, masked = _confidence(model, images, maps, targets, batch_size)
    return one_number((masked > whole).to(whole.dtype))
