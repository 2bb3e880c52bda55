"""What may be said of scores: means with their uncertainty, paired comparisons, verdicts. Numbers only, no torch."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy import stats

FEWEST = 20  # images below which no verdict is given
LEVEL = 0.95
RESAMPLES = 2000


def bootstrap_interval(values: np.ndarray, *, level: float = LEVEL, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Percentile bootstrap interval of the mean over the first axis.

    Args:
        values: (B,) or (B, S), one row an image.
        level: coverage aimed at, in (0, 1).

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


def summary(areas: Mapping[str, np.ndarray], *, lower_is_better: bool) -> pd.DataFrame:
    """One row a method, best first: mean area, its 95 % interval, number of images.

    Args:
        areas: per method the area (B,) of each image's curve.
    """
    rows = []
    for name, values in areas.items():
        low, high = bootstrap_interval(values)
        rows.append(
            {"method": name, "mean": float(np.mean(values)), "low": float(low), "high": float(high), "images": len(values)}
        )
    return pd.DataFrame(rows).sort_values("mean", ascending=lower_is_better, ignore_index=True)


def holm(p_values: np.ndarray) -> np.ndarray:
    """P-values adjusted so that the chance of any false rejection among them stays at the level.

    Source: Holm 1979.
    """
    p_values = np.asarray(p_values, dtype=float)
    order = np.argsort(p_values, kind="stable")
    steps = p_values[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(steps))
    return adjusted


def against_control(areas: Mapping[str, np.ndarray], *, lower_is_better: bool, control: str = "random") -> pd.DataFrame:
    """For each method the claim that its areas beat the control's on the same images, and whether they do.

    The test is paired over images: a bootstrap interval of the mean difference, and Wilcoxon's signed ranks with Holm's
    correction over the methods. `reproduced` needs both: an interval that lies on the claimed side of 0 and p < 0.05.

    Args:
        areas: per method the area (B,) of each image's curve, the control among them.

    Returns:
        One row a method: claim, ours (mean difference with its interval), p, verdict, the verdict one of `reproduced`,
        `not reproduced`, `not tested at this scale` (fewer than 20 images).

    Raises:
        ValueError: the control is missing, or the methods were not measured on equally many images.
    """
    if control not in areas:
        raise ValueError(f"the control {control!r} is not among {sorted(areas)}; add it to the methods")
    if len({len(values) for values in areas.values()}) != 1:
        raise ValueError(f"areas are not paired: { ({name: len(values) for name, values in areas.items()}) } images")
    sign = -1 if lower_is_better else 1
    names = [name for name in areas if name != control]
    gains = {name: sign * (np.asarray(areas[name], float) - np.asarray(areas[control], float)) for name in names}
    p_values = holm([wilcoxon(gain) for gain in gains.values()])
    word = "below" if lower_is_better else "above"
    rows = []
    for (name, gain), p in zip(gains.items(), p_values, strict=True):
        low, high = bootstrap_interval(gain)
        bounds = sorted((sign * low, sign * high))
        verdict = "reproduced" if low > 0 and p < 1 - LEVEL else "not reproduced"
        rows.append(
            {
                "claim": f"{name} lies {word} {control}",
                "ours": f"{sign * gain.mean():+.3f} [{bounds[0]:+.3f}, {bounds[1]:+.3f}]",
                "p": _p(p),
                "verdict": verdict if len(gain) >= FEWEST else "not tested at this scale",
            }
        )
    return pd.DataFrame(rows, columns=["claim", "ours", "p", "verdict"])


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def wilcoxon(gains: np.ndarray) -> float:
    """One-sided p-value of Wilcoxon's signed ranks that the gains (B,) lie above 0; 1 where all are 0."""
    return float(stats.wilcoxon(gains, alternative="greater").pvalue) if np.any(gains) else 1.0


def better_than_chance(accuracy: float, images: int, classes: int) -> pd.DataFrame:
    """The claim that a classifier does better than guessing among equally frequent classes.

    Args:
        accuracy: share of the images classified right, in [0, 1].

    Returns:
        One row: claim, ours (accuracy with Wilson's 95 % interval), p (exact binomial), verdict.
    """
    test = stats.binomtest(round(accuracy * images), images, 1 / classes, alternative="greater")
    low, high = stats.binomtest(round(accuracy * images), images).proportion_ci(LEVEL, method="wilson")
    verdict = "reproduced" if test.pvalue < 1 - LEVEL else "not reproduced"
    return pd.DataFrame(
        {
            "claim": [f"classifies better than chance ({1 / classes:.3f})"],
            "ours": [f"{accuracy:.3f} [{low:.3f}, {high:.3f}]"],
            "p": [_p(test.pvalue)],
            "verdict": [verdict if images >= FEWEST else "not tested at this scale"],
        }
    )


def agreement(maps: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Spearman's rank correlation between the absolute values of each two methods' maps, mean over the images.

    Args:
        maps: per method (B, H, W).

    Returns:
        A square table with the methods' names in the column `method` and as the other columns; empty (NaN) where a map
        is constant.
    """
    ranks = {}
    for name, values in maps.items():
        rank = stats.rankdata(np.abs(values).reshape(len(values), -1), axis=1)
        rank -= rank.mean(1, keepdims=True)
        with np.errstate(invalid="ignore", divide="ignore"):
            ranks[name] = rank / np.linalg.norm(rank, axis=1, keepdims=True)
    rows = [
        {"method": one} | {other: float(np.mean(np.sum(ranks[one] * ranks[other], axis=1))) for other in maps} for one in maps
    ]
    return pd.DataFrame(rows)
