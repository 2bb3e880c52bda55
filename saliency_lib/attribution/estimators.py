"""How a sum over random masks is estimated from their scores, and how large its standard error is."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from saliency_lib.attribution.masks import Masks, weighted_sum

PARTS = 16  # groups of masks whose maps are compared for the standard error
FIRST = 64  # masks before the first look at the standard error
GROWTH = 1.25  # of the number of masks between two looks
RIDGE = 12  # shrinkage of the regression on the masks, in units of a cell's variance


@dataclass(frozen=True)
class Grids:
    """Random grids, enlarged and shifted, with what is known of their distribution.

    Args:
        masks: the masks.
        keep: probability that a cell is 1.
        together: how many consecutive masks depend on one another: 2 for pairs, else 1.
        down, across: (shifts, cells, H) and (shifts, cells, W), the weights that enlarge a grid at each shift.
        known: the features of the first masks, in parts; those of each mask are computed once.
    """

    masks: Masks
    keep: float
    together: int
    down: Tensor
    across: Tensor
    known: list[Tensor] = field(default_factory=list, repr=False)

    @property
    def bands(self) -> tuple[Tensor, Tensor]:
        """Return the means over bands of each side, (k, H) and (k, W), whose products are the means over rectangles."""
        return _bands(self.down), _bands(self.across)

    def features(self, count: int) -> Tensor:
        """Return the means of the first `count` masks over (cells - 1)^2 rectangles, minus the expected mask, (count, q)."""
        rows, columns = self.bands
        for start in range(sum(map(len, self.known)), count, 32):
            numbers = torch.arange(start, min(start + 32, count), device=rows.device)
            self.known.append((rows @ self.masks.at(numbers.new_zeros(1), numbers)[0].double() @ columns.T).flatten(1))
        return torch.cat(self.known)[:count] - self.keep

    def part(self, start: int, stop: int) -> Masks:
        """Return the masks start, ..., stop - 1."""
        return Masks(stop - start, lambda rows, numbers: self.masks.at(rows, numbers + start))


Weights = Callable[[Grids, Tensor], tuple[Tensor, Tensor | None]]  # scores (B, n) -> weights (B, n), (B, H, W) to add


def as_scored(grids: Grids, scores: Tensor) -> tuple[Tensor, None]:
    """Return the scores as the weights of the masks."""
    return scores, None


def centred(grids: Grids, scores: Tensor) -> tuple[Tensor, None]:
    """Return each score minus the mean score of the masks that were drawn without it, (B, n)."""
    weights, _ = _left_out(scores.new_ones(scores.shape[1], 1, dtype=torch.float64), scores, grids.together, 0.0)
    return weights, None


def controlled(grids: Grids, scores: Tensor) -> tuple[Tensor, Tensor]:
    """Return what a linear model of the masks leaves of each score, (B, n), and the exact expected map of that model.

    The model is a ridge regression on the means of the mask over (cells - 1)^2 rectangles, fitted without the mask's own draw.
    So the sum has the expectation of the centred one. Source: control variates; the regression with each draw left out is ours.
    """
    (rows, columns), features = grids.bands, grids.features(scores.shape[1])
    variance = grids.keep * (1 - grids.keep)
    design = torch.cat([torch.ones_like(features[:, :1]), features], 1)
    weights, slopes = _left_out(design, scores, grids.together, RIDGE * variance)
    slopes = slopes[1:].T.unflatten(1, (len(rows), len(columns)))
    down, across = (torch.einsum("scy,scz->yz", lines, lines) / len(lines) for lines in (grids.down, grids.across))
    expected = (down.double() @ rows.T) @ slopes @ (columns @ across.double())
    return weights, variance * expected.to(scores)


ESTIMATORS: dict[str, Weights] = {"original": as_scored, "centred": centred, "controlled": controlled}


def _bands(lines: Tensor) -> Tensor:
    """Return the means (k, L) over k = cells - 1 bands of a side of L pixels, for weights (shifts, cells, L)."""
    cells, side = lines.shape[1:]
    count = max(1, cells - 1)
    member = torch.arange(side, device=lines.device) * count // side == torch.arange(count, device=lines.device)[:, None]
    return member.double() / member.sum(1, keepdim=True)


def _left_out(design: Tensor, scores: Tensor, together: int, ridge: float) -> tuple[Tensor, Tensor]:
    """Fit a ridge regression with a free intercept without each draw, and return its residuals there and its mean coefficients.

    Args:
        design: (n, q), the first column ones.
        scores: (B, n).
        together: masks per draw; n is a multiple of it.

    Returns:
        (B, n) and (q, B).
    """
    values = (scores - scores[:, :1]).double().T  # of a constant model exactly 0
    shrinkage = torch.full_like(design[0], ridge)
    shrinkage[0] = 0
    inverse = torch.linalg.inv(design.T @ design + torch.diag(shrinkage))
    slopes = inverse @ (design.T @ values)
    draws, residuals = design.unflatten(0, (-1, together)), (values - design @ slopes).unflatten(0, (-1, together))
    unity = torch.eye(together).to(design)
    without = torch.linalg.solve(unity - draws @ inverse @ draws.mT, residuals).flatten(0, 1)
    return without.T.to(scores), slopes - inverse @ (design.T @ without) * (together / len(design))


def estimated(grids: Grids, scores: Tensor, weights_of: Weights, images: Tensor, batch_size: int | None) -> tuple[Tensor, Tensor]:
    """Return the mean of the weighted masks, (B, H, W), and its standard error relative to the range of the map, (B,).

    The masks are divided into groups, and the standard error is that of the mean of their maps, up to a constant image: the root
    of its mean square over the pixels.

    Args:
        grids: as many masks as there are scores, or more.
        scores: (B, n).
        weights_of: an estimator.
    """
    weights, known = weights_of(grids, scores)
    size = grids.together * max(1, scores.shape[1] // (PARTS * grids.together))
    edges = [*range(0, min(PARTS, scores.shape[1] // size) * size, size), scores.shape[1]]
    total, first, second = (torch.zeros_like(images[:, 0]) for _ in range(3))
    for start, stop in itertools.pairwise(edges):
        part = weighted_sum(grids.part(start, stop), weights[:, start:stop], images, batch_size)
        total += part
        mean = part / (stop - start)
        mean = mean - mean.mean((1, 2), keepdim=True)
        first += mean
        second += mean.square()
    parts = len(edges) - 1
    variance = (second - first.square() / parts).clamp_min(0).mean((1, 2)) / max(1, parts - 1) / parts
    maps = total / scores.shape[1] + (0 if known is None else known)
    span = maps.amax((1, 2)) - maps.amin((1, 2))
    error = torch.where(variance > 0, variance.sqrt() / span, 0) if parts > 1 else torch.full_like(span, torch.inf)
    return maps, error


def looks(count: int, together: int) -> list[int]:
    """Return the numbers of masks at which the standard error is looked at, the last of them `count`."""
    step, found = 16 * together, []
    number = FIRST
    while number < count:
        found.append(number)
        number = -(-int(number * GROWTH) // step) * step
    return [*found, count]
