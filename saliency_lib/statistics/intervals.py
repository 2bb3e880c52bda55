"""Means with their uncertainty: bootstrap and Wilson intervals, and tables with one row per method."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

LEVEL = 0.95  # coverage of every interval; a test is significant if p < 1 - LEVEL
MIN_IMAGES = 100  # fewer images get no verdict: intervals of the mean of skewed scores cover too little
MIN_TRAININGS = 5  # fewer trainings get no verdict about the training
MIN_RANKED = 20  # fewer images get no test of ranks, which depends less on the shape of the scores
RESAMPLES = 2000  # of a bootstrap
UNTESTED = "not tested"

HEADERS = {  # of the columns of tables, for readers; kept files have the short names
    "low": "95 % interval, lower end",
    "high": "95 % interval, upper end",
    "images": "images (n)",
    "where": "place in the paper",
    "reported": "reported in the paper",
    "ours": "mean difference [95 % interval]",
    "accuracy": "accuracy [95 % interval]",
    "effect": "effect size (Cohen's d)",
    "p": "p-value (two-sided, Holm)",
    "family": "corrected for",
    "seeds": "trainings that agree",
    "tied": "tied pixels (share)",
    "most_similar": "most similar method (correlation)",
}

Areas = Mapping[str, Mapping[str, np.ndarray]]  # per metric and method (B,), one number per image


def bootstrap_interval(values: np.ndarray, *, level: float = LEVEL, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return the bias-corrected and accelerated bootstrap interval (BCa) of the mean over the first axis.

    Args:
        values: (B,) or (B, S), one row per image.
        level: intended coverage, in (0, 1).
        seed: of the resampling.

    Returns:
        Lower and upper bound, each () or (S,).

    Source: Efron, Tibshirani 1993, sections 14.3 and 14.4. Differs: for a mean the acceleration has a closed form.
    """
    values = np.asarray(values, dtype=float)
    draws = np.random.default_rng(seed).multinomial(len(values), np.full(len(values), 1 / len(values)), size=RESAMPLES)
    means, centred = draws @ values / len(values), values - values.mean(0)
    below = ((means < values.mean(0)).mean(0) + (means <= values.mean(0)).mean(0)) / 2
    bias = stats.norm.ppf(np.clip(below, 1 / RESAMPLES, 1 - 1 / RESAMPLES))
    spread = np.square(centred).sum(0) ** 1.5
    acceleration = np.divide((centred**3).sum(0), 6 * spread, out=np.zeros_like(spread), where=spread > 0)
    low, high = (_quantile(means, bias, acceleration, tail) for tail in ((1 - level) / 2, (1 + level) / 2))
    return low, high


def _quantile(means: np.ndarray, bias: np.ndarray, acceleration: np.ndarray, tail: float) -> np.ndarray:
    """Return the adjusted quantile () or (S,) of resampled means (R,) or (R, S)."""
    reach = bias + stats.norm.ppf(tail)
    place = stats.norm.cdf(bias + reach / (1 - acceleration * reach)) * (len(means) - 1)
    ordered, below = np.sort(means, axis=0), np.floor(place).astype(int)
    ends = [np.take_along_axis(ordered, np.minimum(row, len(means) - 1)[None], 0)[0] for row in (below, below + 1)]
    return ends[0] + (place - below) * (ends[1] - ends[0])


def over_trainings(values: Mapping[tuple, np.ndarray]) -> dict[Any, np.ndarray]:
    """Stack the numbers of trainings that differ in the last part of their key, the seed.

    Args:
        values: per key and seed (B,) or (B, S).

    Returns:
        Per key without the seed (one part is no tuple) the numbers of all seeds, (trainings, B) or (trainings, B, S).
    """
    groups: dict[Any, list[np.ndarray]] = {}
    for (*key, _), numbers in values.items():
        groups.setdefault(key[0] if len(key) == 1 else tuple(key), []).append(np.asarray(numbers))
    return {key: np.stack(numbers) for key, numbers in groups.items()}


def spread_over_trainings(values: np.ndarray) -> tuple[float, float]:
    """Return the standard error of the mean of values (S, B) over trainings and images, and its degrees of freedom.

    Trainings and images are both drawn at random, and each training meets each image. The variance of the mean is that of the
    means of the trainings plus that of the means of the images minus what both hold of the rest; the degrees of freedom are
    Satterthwaite's. So few trainings that differ have few degrees of freedom, however many images there are.

    Source: Searle, Casella, McCulloch 1992, chapter 4, for the variances; Satterthwaite 1946. Differs: the variance is at least
    the larger of the two.
    """
    values = np.asarray(values, dtype=float)
    trainings, images = values.shape
    rows, columns = values.mean(1), values.mean(0)
    rest = values - rows[:, None] - columns + values.mean()
    free = np.array([trainings - 1, images - 1, (trainings - 1) * (images - 1)])
    parts = np.array([rows.var(ddof=1) / trainings, columns.var(ddof=1) / images, np.square(rest).mean() / free[2]])
    variance = max(parts @ [1, 1, -1], parts[0], parts[1])
    spread = (np.square(parts) / free).sum()
    return float(np.sqrt(variance)), float(variance**2 / spread) if spread else np.inf


def mean_interval(values: np.ndarray, *, level: float = LEVEL) -> tuple[float, float]:
    """Return the interval of the mean of one number per image, (B,), or per training and image, (S, B).

    For one training, or one image, it is `bootstrap_interval`. For several it is Student's, with `spread_over_trainings`: the
    training is the unit of replication. A bootstrap over five trainings would cover less than it says (.88 instead of .95 if
    they differ).
    """
    values = np.asarray(values, dtype=float)
    if values.ndim == 1 or 1 in values.shape:
        low, high = bootstrap_interval(values.reshape(-1), level=level)
        return float(low), float(high)
    error, freedom = spread_over_trainings(values)
    reach = error * stats.t.ppf((1 + level) / 2, freedom)
    return float(values.mean() - reach), float(values.mean() + reach)


def wilson_interval(hits: int, trials: int, *, level: float = LEVEL) -> tuple[float, float]:
    """Return Wilson's interval of a proportion.

    Args:
        hits, trials: how many of how many.
        level: intended coverage, in (0, 1).

    Source: Wilson 1927.
    """
    interval = stats.binomtest(hits, trials).proportion_ci(level, method="wilson")
    return float(interval.low), float(interval.high)


def summary(
    areas: Mapping[str, np.ndarray], *, lower_is_better: bool, tied: Mapping[str, np.ndarray] | None = None
) -> pd.DataFrame:
    """Return one row per method, the best first: its mean, the 95 % bootstrap interval, and the number of images.

    Args:
        areas: per method (B,), for example the area under the curve of each image, or (S, B) for several trainings.
        lower_is_better: whether a small mean is good.
        tied: per method the share of each image's pixels that tie with another, so that their order is arbitrary, (B,).

    Returns:
        Columns method, mean, low, high, images, and tied (mean over the images) if it is given.

    Raises:
        ValueError: values that are not finite, or methods measured on different numbers of images.
    """
    check_areas(areas)
    rows = [(name, np.mean(values), *mean_interval(values), np.shape(values)[-1]) for name, values in areas.items()]
    table = _best_first(rows, lower_is_better)
    return table if tied is None else table.assign(tied=[float(np.mean(tied[name])) for name in table["method"]])


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


def leaderboard(
    areas: Areas,
    lower_is_better: Mapping[str, bool],
    options: Mapping[str, Mapping[str, object]],
    tied: Mapping[str, np.ndarray] | None = None,
) -> pd.DataFrame:
    """Return one row per method: its options, the number of images, and each metric's mean with its 95 % interval.

    The method with the best mean of the last metric comes first.

    Args:
        areas: per metric and method (B,).
        lower_is_better: per metric.
        options: per method the options that differ from the defaults.
        tied: as in `summary`.

    Returns:
        Columns method, options (left out if there are none), images, tied (mean over the images) if it is given, and for each
        metric its mean, `<metric>_low` and `<metric>_high`.
    """
    tables = {name: summary(rows, lower_is_better=lower_is_better[name]).set_index("method") for name, rows in areas.items()}
    first, *_, last = [*tables.values()] * 2
    words = [", ".join(f"{key}={value}" for key, value in options.get(str(name), {}).items()) for name in last.index]
    board = pd.DataFrame({"method": last.index, "options": words, "images": first.loc[last.index, "images"].to_numpy()})
    board = board if any(words) else board.drop(columns="options")
    if tied is not None:
        board["tied"] = [float(np.mean(tied[str(name)])) for name in last.index]
    for metric, table in tables.items():
        board[[metric, f"{metric}_low", f"{metric}_high"]] = table.loc[last.index, ["mean", "low", "high"]].to_numpy()
    return board


def check_areas(areas: Mapping[str, np.ndarray]) -> None:
    """Refuse values that are not finite, and methods that were not measured on the same number of images.

    Raises:
        ValueError: which methods, and how many images they have.
    """
    counts = {name: np.shape(values)[-1] for name, values in areas.items()}
    if len({np.shape(values) for values in areas.values()}) != 1:
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
    mean, low, high = (round(number, 3) + 0.0 for number in (mean, low, high))  # no -0.000
    return f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"


def parse_difference(text: str) -> tuple[float, float, float]:
    """Return the mean and the bounds that `format_difference` has printed.

    Raises:
        ValueError: the text has another form.
    """
    found = re.fullmatch(r"([-+]\d+\.\d+) \[([-+]\d+\.\d+), ([-+]\d+\.\d+)\]", text)
    if not found:
        raise ValueError(f"a difference is printed as +0.123 [+0.100, +0.150], got {text!r}")
    mean, low, high = map(float, found.groups())
    return mean, low, high


def labelled(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table of this package with full column headers, for readers; any other table is returned as it is."""
    return table.rename(columns=HEADERS) if {"claim", "mean", "tied", "most_similar"} & set(table.columns) else table
