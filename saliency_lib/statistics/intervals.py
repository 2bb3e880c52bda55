"""Means with their uncertainty: bootstrap and Wilson intervals, and tables with one row per method."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy import stats

LEVEL = 0.95  # coverage of every interval; a test is significant if p < 1 - LEVEL
MIN_IMAGES = 20  # fewer images get no verdict
RESAMPLES = 2000  # of a bootstrap
UNTESTED = "not tested at this scale"

HEADERS = {  # of the columns of tables, for readers; kept files have the short names
    "low": "95 % interval, lower end",
    "high": "95 % interval, upper end",
    "images": "images (n)",
    "where": "place in the paper",
    "reported": "reported in the paper",
    "ours": "mean difference [95 % interval]",
    "accuracy": "accuracy [95 % interval]",
    "effect": "effect size (Cohen's d)",
    "p": "p-value",
    "most_similar": "most similar method (correlation)",
}

Areas = Mapping[str, Mapping[str, np.ndarray]]  # per metric and method (B,), one number per image


def bootstrap_interval(values: np.ndarray, *, level: float = LEVEL, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return the percentile bootstrap interval of the mean over the first axis.

    Args:
        values: (B,) or (B, S), one row per image.
        level: intended coverage, in (0, 1).
        seed: of the resampling.

    Returns:
        Lower and upper bound, each () or (S,).

    Source: Efron, Tibshirani 1993, section 13.3.
    """
    values = np.asarray(values, dtype=float)
    draws = np.random.default_rng(seed).multinomial(len(values), np.full(len(values), 1 / len(values)), size=RESAMPLES)
    means = draws @ values / len(values)
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail], axis=0)
    return low, high


def wilson_interval(hits: int, trials: int, *, level: float = LEVEL) -> tuple[float, float]:
    """Return Wilson's interval of a proportion.

    Args:
        hits, trials: how many of how many.
        level: intended coverage, in (0, 1).

    Source: Wilson 1927.
    """
    interval = stats.binomtest(hits, trials).proportion_ci(level, method="wilson")
    return float(interval.low), float(interval.high)


def summary(areas: Mapping[str, np.ndarray], *, lower_is_better: bool) -> pd.DataFrame:
    """Return one row per method, the best first: its mean, the 95 % bootstrap interval, and the number of images.

    Args:
        areas: per method (B,), for example the area under the curve of each image.
        lower_is_better: whether a small mean is good.

    Returns:
        Columns method, mean, low, high, images.

    Raises:
        ValueError: values that are not finite, or methods measured on different numbers of images.
    """
    check_areas(areas)
    rows = [(name, np.mean(values), *bootstrap_interval(values), len(values)) for name, values in areas.items()]
    return _best_first(rows, lower_is_better)


def proportions(correct: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Return one row per method, the best first: its share of correct answers with Wilson's 95 % interval.

    Args:
        correct: per method (B,), whether each answer is correct.

    Returns:
        The columns of `summary`.
    """
    rows = [(name, np.mean(hits), *wilson_interval(int(np.sum(hits)), len(hits)), len(hits)) for name, hits in correct.items()]
    return _best_first(rows, lower_is_better=False)


def _best_first(rows: list[tuple], lower_is_better: bool) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["method", "mean", "low", "high", "images"])
    return table.sort_values("mean", ascending=lower_is_better, ignore_index=True)


def leaderboard(areas: Areas, lower_is_better: Mapping[str, bool], options: Mapping[str, Mapping[str, object]]) -> pd.DataFrame:
    """Return one row per method: its options, the number of images, and each metric's mean with its 95 % interval.

    The method with the best mean of the last metric comes first.

    Args:
        areas: per metric and method (B,).
        lower_is_better: per metric.
        options: per method the options that differ from the defaults.

    Returns:
        Columns method, options, images, and for each metric its mean, `<metric>_low` and `<metric>_high`.
    """
    tables = {name: summary(rows, lower_is_better=lower_is_better[name]).set_index("method") for name, rows in areas.items()}
    first, *_, last = [*tables.values()] * 2
    words = [", ".join(f"{key}={value}" for key, value in options.get(str(name), {}).items()) for name in last.index]
    board = pd.DataFrame({"method": last.index, "options": words, "images": first.loc[last.index, "images"].to_numpy()})
    for metric, table in tables.items():
        board[[metric, f"{metric}_low", f"{metric}_high"]] = table.loc[last.index, ["mean", "low", "high"]].to_numpy()
    return board


def check_areas(areas: Mapping[str, np.ndarray]) -> None:
    """Refuse values that are not finite, and methods that were not measured on the same number of images.

    Raises:
        ValueError: which methods, and how many images they have.
    """
    counts = {name: len(values) for name, values in areas.items()}
    if len(set(counts.values())) != 1:
        raise ValueError(
            f"all methods need the same number of images, got {counts or 'no method'}; measure them on the same images"
        )
    damaged = [name for name, values in areas.items() if not np.isfinite(values).all()]
    if damaged:
        raise ValueError(f"the values of {', '.join(damaged)} contain NaN or infinity; remove or recompute them")


def format_p(value: float) -> str:
    """Return a p-value as it is printed; NaN means that it was not tested."""
    if np.isnan(value):
        return UNTESTED
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def format_difference(mean: float, low: float, high: float) -> str:
    """Return a difference with its interval as they are printed, with signs."""
    return f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"


def labelled(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table of this package with full column headers, for readers; any other table is returned as it is."""
    return table.rename(columns=HEADERS) if {"claim", "mean", "most_similar"} & set(table.columns) else table
