"""Integrals along the line from a baseline to an image, by trapezoids that are halved where their error is largest."""

from bisect import bisect_left
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from saliency_lib.attribution.backward import Path, Slope, averaged, check_damage, class_slope
from saliency_lib.attribution.estimate import note_estimate
from saliency_lib.attribution.rules import Rule, plain
from saliency_lib.core.batching import chunk_size, frozen, resolve_targets
from saliency_lib.core.streams import sent

FIRST = 8  # intervals of the first round
AT_ONCE = 4  # fewest intervals that are halved in a round


@dataclass
class _Line:
    """The nodes of one image, in order, and the errors of the intervals between them.

    Args:
        exact: whether the scores tell the integral over each interval, so that its error is known.
    """

    exact: bool
    places: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    slopes: list[float] = field(default_factory=list)  # along the line
    gradients: list[Tensor] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)

    def start(self) -> list[float]:
        """Return the places of the first nodes."""
        return [node / FIRST for node in range(FIRST + 1)]

    def add(self, place: float, score: float, slope: float, gradient: Tensor) -> None:
        """Insert a node. Between two others it halves their interval; the first nodes come in order."""
        at = bisect_left(self.places, place)
        inside = 0 < at < len(self.places)
        before = self._trapezoid(at - 1) if inside else 0.0
        for known, value in ((self.places, place), (self.scores, score), (self.slopes, slope)):
            known.insert(at, value)
        self.gradients.insert(at, gradient)
        if inside:
            halving = (self._trapezoid(at - 1) + self._trapezoid(at) - before) / 2
            self.errors[at - 1 : at] = [self._error(at - 1, halving), self._error(at, halving)]
        elif at:
            self.errors.append(self._error(at - 1, 0.0))
            if not self.exact and at % 2 == 0:  # two first intervals are compared with one that spans both
                wide = (place - self.places[at - 2]) * (slope + self.slopes[at - 2]) / 2
                self.errors[at - 2 :] = [(self._trapezoid(at - 2) + self._trapezoid(at - 1) - wide) / 2] * 2

    def _trapezoid(self, k: int) -> float:
        return (self.places[k + 1] - self.places[k]) * (self.slopes[k] + self.slopes[k + 1]) / 2

    def _error(self, k: int, halving: float) -> float:
        return self._trapezoid(k) - (self.scores[k + 1] - self.scores[k]) if self.exact else halving

    @property
    def change(self) -> float:
        """What errors are relative to: the change of the score, or the sum of the map, without its sign."""
        return abs(self.scores[-1] - self.scores[0] if self.exact else sum(map(self._trapezoid, range(len(self.errors)))))

    @property
    def error(self) -> float:
        """The larger of the whole error and that of the worst interval, relative to the change."""
        worst = max(abs(sum(self.errors)), *map(abs, self.errors))
        return worst / self.change if self.change else 0.0 if worst == 0 else float("inf")

    def halves(self, tolerance: float, most: int) -> list[float]:
        """Return the middles of the worst intervals, an eighth of all, without those whose error is negligible in the sum.

        Together with the nodes there are, they are no more than `most`.
        """
        count = min(max(AT_ONCE, len(self.errors) // 8), most - len(self.places))
        worst = sorted(range(len(self.errors)), key=lambda k: -abs(self.errors[k]))[:count]
        least = tolerance * self.change / len(self.errors)
        return [(self.places[k] + self.places[k + 1]) / 2 for k in worst if abs(self.errors[k]) > least]

    def average(self) -> Tensor:
        """Return the trapezoid rule of the gradients, (C, H, W)."""
        edges = [self.places[0], *self.places, self.places[-1]]
        total = torch.zeros_like(self.gradients[0])
        for gradient, left, right in zip(self.gradients, edges[:-2], edges[2:], strict=True):
            total.add_(gradient, alpha=(right - left) / 2)
        return total


def bisected_gradient(
    model: nn.Module,
    images: Tensor,
    baseline: Tensor,
    targets: Tensor | None,
    *,
    tolerance: float,
    most: int,
    slope: Slope = class_slope,
    rule: Rule = plain,
    batch_size: int | None = None,
) -> Tensor:
    """Average a gradient over the line from the baseline to the image, with nodes where they are needed.

    The line is divided into intervals, on each of which the trapezoid rule is compared with the change of the score between its
    ends, which the forward passes at the nodes give. The worst intervals are halved until the error of completeness, and that of
    every single interval, is at most the tolerance. All nodes are kept, each costs one forward and one backward pass.
    For another slope or rule, whose integral is not the change of the score, the error of an interval is half of what the last
    halving changed.

    Args:
        images, baseline: (B, C, H, W).
        targets: (B,) classes; None for the predicted ones.
        tolerance: largest error relative to the change of the score, or to the sum of the map for another slope or rule.
        most: most nodes per image.
        slope, rule, batch_size: as in `path_gradient`. Memory grows with the nodes of the images that are integrated at the same
            time: one, or an eighth of `batch_size`.

    Returns:
        (B, C, H, W).

    Raises:
        ValueError: `most` is below the nodes of the first round, or a gradient or a logit is as `path_gradient` refuses it.
    """
    if most <= FIRST:
        raise ValueError(f"with a tolerance, steps must be at least {FIRST + 1}, the nodes of the first round, got {most}")
    size = max(1, chunk_size(images, batch_size) // 8)
    averages: list[Tensor] = []
    taken: list[int] = []
    errors: list[float] = []
    damages: list[Tensor] = []
    with frozen(model):
        targets = resolve_targets(model, images, targets, batch_size)
        for first in range(0, len(images), size):
            block = slice(first, first + size)
            ends = images[block], baseline[block], targets[block]
            lines, damage = _bisected(model, *ends, tolerance, most, slope, rule, batch_size)
            damages.append(damage)
            averages += [line.average() for line in lines]
            taken += [len(line.places) for line in lines]
            errors += [line.error for line in lines]
    check_damage(torch.cat(damages))
    note_estimate(
        torch.tensor(taken).to(images.device), torch.tensor(errors, dtype=torch.float64).to(images), tolerance, most, "steps"
    )
    return torch.stack(averages)


def _bisected(
    model: nn.Module,
    images: Tensor,
    baseline: Tensor,
    targets: Tensor,
    tolerance: float,
    most: int,
    slope: Slope,
    rule: Rule,
    batch_size: int | None,
) -> tuple[list[_Line], Tensor]:
    """Return the lines of images (b, C, H, W) with all their nodes, or none if a gradient is damaged, and the damage (b,)."""
    lines = [_Line(exact=slope is class_slope and rule is plain) for _ in images]
    damage = torch.zeros(len(images), dtype=torch.int32, device=images.device)
    waiting = [(row, place) for row, line in enumerate(lines) for place in line.start()]
    while waiting:
        rows = sent(torch.tensor([row for row, _ in waiting]), images.device)
        places = sent(torch.tensor([place for _, place in waiting], dtype=torch.float64).to(images.dtype), images.device)
        inputs = torch.lerp(baseline[rows], images[rows], places.view(-1, 1, 1, 1))
        scores, gradients, damaged = _at(model, inputs, targets[rows], slope, rule, batch_size)
        damage.index_add_(0, rows, damaged)
        along = (gradients * (images - baseline)[rows]).flatten(1).double().sum(1)
        numbers = torch.stack([scores, along, damaged.double()], 1).tolist()  # the only wait for a GPU in a round
        if any(broken for _, _, broken in numbers):
            return [], damage
        for (row, place), (score, steepness, _), gradient in zip(waiting, numbers, gradients, strict=True):
            lines[row].add(place, score, steepness, gradient)
        open_ = [row for row in dict.fromkeys(row for row, _ in waiting) if lines[row].error > tolerance]
        waiting = [(row, place) for row in open_ for place in lines[row].halves(tolerance, most)]
    return lines, damage


def _at(
    model: nn.Module, inputs: Tensor, targets: Tensor, slope: Slope, rule: Rule, batch_size: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the target's logit (n,), the slope (n, C, H, W) and whether it is damaged (n,), at inputs (n, C, H, W)."""
    scores = inputs.new_empty(len(inputs), dtype=torch.float64)
    chunk: list[Tensor] = []

    def at(rows: Tensor, points: Tensor) -> Tensor:
        chunk[:] = [rows]
        return inputs[rows]

    def watched(logits: Tensor, pixels: Tensor, classes: Tensor) -> Tensor:
        scores[chunk[0]] = logits.detach().gather(1, classes[:, None])[:, 0].double()
        return slope(logits, pixels, classes)

    path = Path(inputs.new_ones(1), at, stays=True)
    found = averaged(model, inputs, targets, path, slope=watched, rule=rule, batch_size=batch_size, known=True)
    return scores, *found
