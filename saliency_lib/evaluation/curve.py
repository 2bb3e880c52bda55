"""The curve that every metric returns."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from saliency_lib.core.previews import table


@dataclass(frozen=True)
class Curve:
    """The score of a model as a growing share of each image is changed.

    A metric that gives one number per image is a curve of one point at fraction 1, whose area is that number.

    Args:
        fractions: (S+1,) non-decreasing share of the pixels changed; with ties="together", the requested share.
        values: (B, S+1) score at each fraction.
        area: (B,) area under the curve.
        tied: (B,) share of the pixels whose value another pixel of the map also has; None if the metric ranks no pixels.
        error: (B,) standard error of the area from the random order of tied pixels; None if no order is drawn.
    """

    fractions: Tensor
    values: Tensor
    area: Tensor
    tied: Tensor | None = None
    error: Tensor | None = None

    @property
    def summary(self) -> dict[str, str]:
        """Return the mean over the images of the score at up to six fractions, and of the area, as text by name."""
        steps = len(self.fractions) - 1
        shown = sorted({round(number * steps / 5) for number in range(6)}) if steps else []
        scores = {f"mean score at fraction {self.fractions[k]:.2g}": f"{self.values[:, k].mean():.3f}" for k in shown}
        facts = {"mean area" if steps else "mean": f"{self.area.mean():.3f}", "images": str(len(self.area))}
        facts |= {} if self.tied is None else {"tied pixels": f"{self.tied.mean():.0%}"}
        facts |= {} if self.error is None else {"standard error from ties": f"{self.monte_carlo_error:.4f}"}
        return scores | facts

    @property
    def monte_carlo_error(self) -> float:
        """Return the standard error of the mean area over the images that comes from the random order of tied pixels."""
        return 0.0 if self.error is None else float(self.error.double().norm()) / len(self.error)

    @classmethod
    def joined(cls, curves: "Sequence[Curve]", order: Tensor) -> "Curve":
        """Return the curves of several groups of texts as one, with the fractions of the group that has the most.

        Fractions are rounded to whole tokens, so they differ a little between texts of different lengths. Curves with fewer
        of them are interpolated linearly; areas stay as they are.
        """
        longest = max(curves, key=lambda curve: len(curve.fractions)).fractions
        return concatenated([curve.at(longest) for curve in curves]).rows(order)

    def at(self, fractions: Tensor) -> "Curve":
        """Return the same curves with other fractions: interpolated if their number differs, and else as they are."""
        if len(self.fractions) == len(fractions):
            return replace(self, fractions=fractions)
        right = torch.searchsorted(self.fractions, fractions).clamp(1, len(self.fractions) - 1)
        low, high = self.fractions[right - 1], self.fractions[right]
        share = ((fractions - low) / (high - low).where(high > low, 1)).clamp(0, 1)
        return replace(self, fractions=fractions, values=torch.lerp(self.values[:, right - 1], self.values[:, right], share))

    def rows(self, order: Tensor) -> "Curve":
        """Return the curves of some images, in that order."""
        per_image = {name: getattr(self, name) for name in ("values", "area", "tied", "error")}
        order = order.to(self.area.device)
        return replace(self, **{name: value[order] for name, value in per_image.items() if value is not None})

    def __repr__(self) -> str:
        if len(self.fractions) == 1:
            return f"Curve({len(self.area)} numbers, mean {self.area.mean():.3f})"
        return f"Curve({len(self.area)} curves over {len(self.fractions)} fractions, mean area {self.area.mean():.3f})"

    def _repr_html_(self) -> str:
        return table(repr(self), self.summary)


def one_number(values: Tensor) -> Curve:
    """Return one number per image, (B,), as a curve of one point."""
    return Curve(values.new_ones(1), values[:, None], values)


def concatenated(curves: Sequence[Curve]) -> Curve:
    """Return the curves of several groups of images, which have the same fractions, as one."""
    whole = {"fractions": curves[0].fractions}
    for name in ("values", "area", "tied", "error"):
        parts = [getattr(curve, name) for curve in curves]
        whole |= {name: torch.cat(parts)} if parts[0] is not None else {}
    return Curve(**whole)


def difference(one: Curve, other: Curve, *, scale: float = 1) -> Curve:
    """Return the first curve minus the second, over the same fractions, times the scale.

    Its error is at most the sum of theirs, whether or not they share random orders.
    """
    values = scale * (one.values - other.values)
    errors = [scale * curve.error for curve in (one, other) if curve.error is not None]
    area = torch.trapezoid(values, one.fractions, dim=1)
    return Curve(one.fractions, values, area, one.tied, torch.stack(errors).sum(0) if errors else None)
