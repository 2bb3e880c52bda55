"""Many methods by many metrics: ranks with their uncertainty, critical differences, agreement between metrics. No torch."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import stats

from saliency_lib.statistics.claims import FEWEST, LEVEL, UNTESTED, bootstrap_interval, leaderboard, paired_over

Areas = Mapping[str, Mapping[str, np.ndarray]]  # per metric and method (B,), one number an image


def block_ranks(areas: Areas, lower_is_better: Mapping[str, bool]) -> pd.DataFrame:
    """The rank of each method on each image: 1 is the best, ties share the mean of their ranks.

    With several metrics a method's ranks on an image are averaged over the metrics, and these averages ranked again, so that each
    metric has the same weight whatever its unit.

    Args:
        areas: per metric and method (B,), the same methods and images under every metric.
        lower_is_better: per metric.

    Returns:
        (B, M), one row an image, one column a method.

    Raises:
        ValueError: no metric, fewer than two methods, methods or images that differ between metrics, or numbers that are not
            finite.
    """
    if not areas:
        raise ValueError("there is no metric to rank by")
    methods = list(next(iter(areas.values())))
    if len(methods) < 2:
        raise ValueError(f"ranks need two methods or more, got {methods}")
    first = next(iter(areas.values()))[methods[0]]
    total = np.zeros((len(first), len(methods)))
    for metric, rows in areas.items():
        if set(rows) != set(methods) or len({len(values) for values in rows.values()}) != 1:
            raise ValueError(f"{metric} was not measured for the same methods on equally many images as the other metrics")
        values = np.stack([np.asarray(rows[name], float) for name in methods], axis=1)
        if not np.isfinite(values).all():
            raise ValueError(f"{metric} holds NaN or infinity; no rank can be given")
        if len(total) != len(values):
            raise ValueError(f"{metric} was measured on {len(values)} images, the metrics before it on {len(total)}")
        total += stats.rankdata(values if lower_is_better[metric] else -values, axis=1)
    return pd.DataFrame(stats.rankdata(total, axis=1), columns=methods)


def standings(areas: Areas, lower_is_better: Mapping[str, bool]) -> pd.DataFrame:
    """One row a method, the best first: its mean rank over the images with its 95 % bootstrap interval; see `block_ranks`.

    Returns:
        Columns method, rank, rank_low, rank_high, images; ranks lie in [1, M].
    """
    ranks = block_ranks(areas, lower_is_better)
    low, high = bootstrap_interval(ranks.to_numpy())
    table = pd.DataFrame({"method": ranks.columns, "rank": ranks.mean().to_numpy(), "rank_low": low, "rank_high": high})
    return table.assign(images=len(ranks)).sort_values("rank", ignore_index=True, kind="stable")


def critical_difference(methods: int, images: int, *, level: float = LEVEL) -> float:
    """By how much two mean ranks must differ so that their methods do (Nemenyi's test, all pairs at once).

    NaN where there are too few images for a verdict (`claims.FEWEST`).

    Args:
        methods, images: how many were ranked, and on how many images.
        level: 1 less the chance that any of the pairs is told apart wrongly.

    Source: Demsar 2006, section 3.2.2.
    """
    if methods < 2 or images < 1:
        raise ValueError(f"a critical difference needs two methods or more and an image, got {methods} and {images}")
    if images < FEWEST:
        return float("nan")
    studentized = stats.studentized_range.ppf(level, methods, np.inf) / np.sqrt(2)
    return float(studentized * np.sqrt(methods * (methods + 1) / (6 * images)))


def friedman(areas: Areas, lower_is_better: Mapping[str, bool]) -> float:
    """The p-value that all methods are alike, by their ranks over the images (Friedman's test); 1 where all ranks are tied.

    NaN where the test has no use: fewer than three methods, or too few images for a verdict (`claims.FEWEST`).
    """
    ranks = block_ranks(areas, lower_is_better)
    if ranks.shape[1] < 3 or len(ranks) < FEWEST:
        return float("nan")
    if (ranks.to_numpy() == ranks.to_numpy()[:, :1]).all():
        return 1.0
    return float(stats.friedmanchisquare(*ranks.to_numpy().T).pvalue)


def cliques(ranks: Sequence[float], difference: float) -> list[tuple[int, int]]:
    """The longest runs of ranks, best first, whose ends differ by less than the critical difference.

    Args:
        ranks: in rising order.

    Returns:
        (first, last) positions of each run of two or more, none inside another.
    """
    ranks = np.asarray(ranks, float)
    found: list[tuple[int, int]] = []
    for first in range(len(ranks)):
        last = int(np.searchsorted(ranks, ranks[first] + difference)) - 1
        if last > first and (not found or last > found[-1][1]):
            found.append((first, last))
    return found


def metric_agreement(areas: Mapping[str, Areas], lower_is_better: Mapping[str, bool]) -> pd.DataFrame:
    """How far metrics put the methods into one order: Spearman's rank correlation of the methods' mean scores.

    Args:
        areas: per training, metric and method (B,).
        lower_is_better: per metric; every metric is turned so that more is better.

    Returns:
        One row a metric: its name, and its correlation with each metric, the mean over the trainings; NaN where a metric gives
        all methods the same mean.
    """
    metrics = list(next(iter(areas.values())))
    order = {
        (training, metric): [
            (-1 if lower_is_better[metric] else 1) * float(np.mean(values)) for _, values in sorted(rows[metric].items())
        ]
        for training, rows in areas.items()
        for metric in metrics
    }

    def correlation(training: str, one: str, other: str) -> float:
        pair = order[training, one], order[training, other]
        return float(stats.spearmanr(*pair).statistic) if min(map(np.ptp, pair)) else np.nan

    rows = []
    for one in metrics:
        means = {other: float(np.mean([correlation(training, one, other) for training in areas])) for other in metrics}
        rows.append({"metric": one} | means)
    return pd.DataFrame(rows)


def by_training(areas: Mapping[str, Areas], lower_is_better: Mapping[str, bool]) -> pd.DataFrame:
    """The mean rank of each method (rows, the best over all trainings first) on the network of each training (columns).

    Returns:
        Indexed by method, one column a training.
    """
    table = pd.DataFrame(
        {training: standings(rows, lower_is_better).set_index("method")["rank"] for training, rows in areas.items()}
    )
    return table.loc[table.mean(axis=1).sort_values(kind="stable").index]


def duels(areas: Mapping[str, Areas], pairs: Sequence[tuple[str, str]], lower_is_better: Mapping[str, bool]) -> pd.DataFrame:
    """Whether one method beats another on the network of each training, by each metric; see `claims.paired`.

    Args:
        areas: per training, metric and method (B,).
        pairs: (better, worse) names, one claim each; Holm's correction is over the pairs within a training and a metric.

    Returns:
        Columns training, metric, claim, ours, p, verdict.
    """
    tables = [paired_over(rows, pairs, lower_is_better).assign(training=training) for training, rows in areas.items()]
    return pd.concat(tables, ignore_index=True)[["training", "metric", "claim", "ours", "p", "verdict"]]


def side_by_side(found: pd.DataFrame) -> pd.DataFrame:
    """What `duels` found, one row a claim and a metric, one column a training: the mean difference, or `no`.

    `no` stands where the claim does not hold. Claims that could not be tested have an empty cell.
    """
    said = found["ours"].where(found["verdict"] == "holds", "no").where(found["verdict"] != UNTESTED, "")
    table = found.assign(said=said).pivot(index=["claim", "metric"], columns="training", values="said")
    return table.loc[:, list(dict.fromkeys(found["training"]))].reset_index().rename_axis(columns=None)


def boards(areas: Mapping[str, Areas], lower_is_better: Mapping[str, bool], options: Mapping[str, Mapping]) -> pd.DataFrame:
    """Everything in one table: a row a training and a method, the best rank of each training first.

    Args:
        areas: per training, metric and method (B,).
        lower_is_better: per metric.
        options: per method the options that were not the defaults.

    Returns:
        Columns training, method, options, images, rank with its bounds, and each metric's mean with its bounds.
    """
    tables = []
    for training, rows in areas.items():
        ranks = standings(rows, lower_is_better)
        means = leaderboard(rows, lower_is_better, options).drop(columns="images")
        table = ranks.merge(means, on="method").assign(training=training)
        first = ["training", "method", "options", "images", "rank", "rank_low", "rank_high"]
        tables.append(table[[*first, *(name for name in table if name not in first)]])
    return pd.concat(tables, ignore_index=True)
