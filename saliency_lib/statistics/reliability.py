"""How far metrics can be relied on: whether images agree on the order of methods, and which metrics repeat each other."""

import itertools

import numpy as np
import pandas as pd

from saliency_lib.core.options import no_such

LEVELS = ("ordinal", "interval")


def krippendorff_alpha(ratings: pd.DataFrame | np.ndarray, *, level: str = "ordinal") -> float:
    """Return Krippendorff's alpha, the agreement of raters on units beyond chance.

    alpha = 1 - D_o / D_e, where D_o is the mean difference of two ratings of one unit by different raters, and D_e that of any
    two ratings. For the reliability of a metric the raters are images and the units methods, as `block_ranks` returns them.

    Args:
        ratings: (raters, units), for example ranks; NaN where a rater does not rate a unit.
        level: `ordinal`: two ratings differ by the squared number of ratings from one to the other, both counted half;
            `interval`: by their squared difference.

    Returns:
        At most 1: full agreement; about 0: what chance gives; negative: systematic disagreement. NaN if all ratings are equal.

    Raises:
        ValueError: the level is unknown, or no unit has two ratings.

    Source: Krippendorff 2004; for saliency metrics Tomsett et al. 2020, ordinal.
    """
    if level not in LEVELS:
        raise no_such("level", level, LEVELS)
    table = np.asarray(ratings, dtype=float)
    if table.ndim != 2:
        raise ValueError(f"ratings must be (raters, units), got {table.shape}; pass one row per rater")
    table = table[:, (~np.isnan(table)).sum(0) >= 2]
    if not table.size:
        raise ValueError("no unit has two ratings, so there is no agreement to measure; pass at least two raters")
    values = np.unique(table[~np.isnan(table)])
    counts = (table.T[:, :, None] == values).sum(1)  # of each value per unit
    total = counts.sum(0)
    places = total.cumsum() - total / 2 if level == "ordinal" else values
    distances = (places[:, None] - places) ** 2
    observed = (np.einsum("uc,uk,ck->u", counts, counts, distances) / (counts.sum(1) - 1)).sum() / total.sum()
    expected = total @ distances @ total / (total.sum() * (total.sum() - 1))
    return float(1 - observed / expected) if expected else float("nan")


def redundant_metrics(agreement: pd.DataFrame, *, threshold: float = 0.9) -> pd.DataFrame:
    """Return the pairs of metrics that put the methods in nearly the same order, the most similar first.

    Args:
        agreement: rank correlations over methods, one row per metric, as `metric_agreement` returns them.
        threshold: the smallest correlation of a redundant pair.

    Returns:
        Columns one, other, correlation; metrics keep the order of the table.
    """
    names, numbers = list(agreement["metric"]), agreement.set_index("metric").to_numpy()
    pairs = [
        (names[row], names[column], float(numbers[row, column]))
        for row, column in itertools.combinations(range(len(names)), 2)
        if numbers[row, column] >= threshold
    ]
    table = pd.DataFrame(pairs, columns=["one", "other", "correlation"])
    return table.sort_values("correlation", ascending=False, kind="stable", ignore_index=True)
