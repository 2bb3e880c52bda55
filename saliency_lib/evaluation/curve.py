"""What a metric returns."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Curve:
    """The score of a model as more and more of each image is changed.

    A metric that gives one number per image is a curve of one point at fraction 1, whose area is that number.

    Args:
        fractions: (S+1,) share of the pixels changed, never falling; with ties="together", the share asked for.
        values: (B, S+1) score at each fraction.
        area: (B,) area under the curve.
    """

    fractions: Tensor
    values: Tensor
    area: Tensor


def one_number(values: Tensor) -> Curve:
    """Return one number per image, (B,), as a curve of one point."""
    return Curve(values.new_ones(1), values[:, None], values)
