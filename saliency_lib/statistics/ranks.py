"""Many methods under many metrics: mean ranks, critical differences, agreement between metrics."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import stats

from saliency_lib.statistics.intervals import LEVEL, MIN_RANKED, Areas, bootstrap_interval, leaderboard


def block_ranks(areas: Areas, lower_is_better: Mapping[str, bool], families: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Rank the methods on each image: 1 is the best, and ties share the mean of their ranks.

    With several metrics, a method's ranks on an image are averaged over the metrics of each family, then over the families, and
    these averages are ranked again. So each family has the same weight, whatever the units and however many metrics it has.

    Args:
        areas: per metric and method (B,), the same methods and images for every metric.
        lower_is_better: per metric.
        families: per metric the name of its family; None: each metric is its own.

    Returns:
        (B, M), one row per image, one column per method.

    Raises:
        ValueError: no metric, fewer than two methods, methods or images that differ between metrics, or numbers that are not
            finite.
    """
    if not areas:
        raise ValueError("ranks need at least one metric, got none")
    reference = next(iter(areas.values()))
    methods = list(reference)
    if len(methods) < 2:
        raise ValueError(f"ranks need at least two methods, got {methods}")
    count = len(reference[methods[0]])
    own = families or {}
    sizes = pd.Series([own.get(metric, metric) for metric in areas]).value_counts()
    total = np.zeros((count, len(methods)))
    for metric, rows in areas.items():
        if set(rows) != set(methods):
            raise ValueError(
                f"{metric} was measured for {sorted(rows)}, the first metric for {sorted(methods)}; use the same methods"
            )
        counts = {name: len(values) for name, values in rows.items()}
        if set(counts.values()) != {count}:
            raise ValueError(
                f"every method needs {count} images, as {methods[0]} has for the first metric; {metric} has {counts}"
            )
        values = np.stack([np.asarray(rows[name], dtype=float) for name in methods], axis=1)
        if not np.isfinite(values).all():
            raise ValueError(f"{metric} contains NaN or infinity, which cannot be ranked; remove or recompute the values")
        total += stats.rankdata(values if lower_is_better[metric] else -values, axis=1) / sizes[own.get(metric, metric)]
    return pd.DataFrame(stats.rankdata(total.round(9), axis=1), columns=methods)  # equal averages tie, whatever their rounding


def mean_ranks(areas: Areas, lower_is_better: Mapping[str, bool], families: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Return one row per method, the best first: its mean rank over the images with its 95 % bootstrap interval.

    Args:
        areas, lower_is_better, families: as in `block_ranks`.

    Returns:
        Columns method, rank, rank_low, rank_high, images; ranks are in [1, M].
    """
    ranks = block_ranks(areas, lower_is_better, families)
    low, high = bootstrap_interval(ranks.to_numpy())
    table = pd.DataFrame({"method": ranks.columns, "rank": ranks.mean().to_numpy(), "rank_low": low, "rank_high": high})
    return table.assign(images=len(ranks)).sort_values("rank", ignore_index=True, kind="stable")


def critical_difference(methods: int, images: int, *, level: float = LEVEL) -> float:
    """Return the smallest significant difference of two mean ranks (Nemenyi's test, all pairs at once).

    Args:
        methods, images: how many methods were ranked, on how many images.
        level: 1 minus the chance that any pair of equal methods is called different.

    Returns:
        A difference of ranks; NaN for fewer than 20 images (`MIN_RANKED`).

    Raises:
        ValueError: fewer than two methods, or no image.

    Source: Demsar 2006, section 3.2.2.
    """
    if methods < 2 or images < 1:
        raise ValueError(f"a critical difference needs at least two methods and one image, got {methods} and {images}")
    if images < MIN_RANKED:
        return float("nan")
    studentized = stats.studentized_range.ppf(level, methods, np.inf) / np.sqrt(2)
    return float(studentized * np.sqrt(methods * (methods + 1) / (6 * images)))


def friedman(areas: Areas, lower_is_better: Mapping[str, bool], families: Mapping[str, str] | None = None) -> float:
    """Return the p-value of Friedman's test that all methods have the same ranks; 1 if all ranks are tied.

    Args:
        areas, lower_is_better, families: as in `block_ranks`.

    Returns:
        A p-value; NaN for fewer than three methods or fewer than 20 images (`MIN_RANKED`).

    Source: Demsar 2006, section 3.2.2.
    """
    ranks = block_ranks(areas, lower_is_better, families).to_numpy()
    if ranks.shape[1] < 3 or len(ranks) < MIN_RANKED:
        return float("nan")
    return 1.0 if (ranks == ranks[:, :1]).all() else float(stats.friedmanchisquare(*ranks.T).pvalue)


def cliques(ranks: Sequence[float], difference: float) -> list[tuple[int, int]]:
    """Find the longest runs of ranks whose ends differ by less than the critical difference.

    Args:
        ranks: in rising order.
        difference: as `critical_difference` returns it.

    Returns:
        (first, last) positions of each run of two or more; none is part of another.
    """
    found: list[tuple[int, int]] = []
    for first, rank in enumerate(ranks):
        last = int(np.searchsorted(ranks, rank + difference)) - 1
        if last > first and (not found or last > found[-1][1]):
            found.append((first, last))
    return found


def metric_agreement(areas: Mapping[str, Areas], lower_is_better: Mapping[str, bool]) -> pd.DataFrame:
    """Return Spearman's rank correlation between the orders in which every two metrics put the methods.

    Args:
        areas: per training, metric and method (B,).
        lower_is_better: per metric; every metric is signed so that larger is better.

    Returns:
        One row per metric: metric, and its correlation with each metric, averaged over the trainings; NaN if a metric gives all
        methods the same mean.
    """
    metrics = list(next(iter(areas.values())))
    correlations = np.zeros((len(metrics), len(metrics)))
    for rows in areas.values():
        signed = [
            [(-1 if lower_is_better[metric] else 1) * float(np.mean(values)) for _, values in sorted(rows[metric].items())]
            for metric in metrics
        ]
        correlations += [[_spearman(one, other) for other in signed] for one in signed]
    table = pd.DataFrame(correlations / len(areas), columns=metrics)
    table.insert(0, "metric", metrics)
    return table


def _spearman(one: list[float], other: list[float]) -> float:
    return float(stats.spearmanr(one, other).statistic) if min(np.ptp(one), np.ptp(other)) else np.nan


def ranks_by_training(
    areas: Mapping[str, Areas], lower_is_better: Mapping[str, bool], families: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """Return the mean rank of each method (rows, the best over all trainings first) for each training (columns).

    Args:
        areas: per training, metric and method (B,).
        lower_is_better, families: per metric, as in `block_ranks`.

    Returns:
        Indexed by method, one column per training.
    """
    ranks = {
        training: mean_ranks(rows, lower_is_better, families).set_index("method")["rank"] for training, rows in areas.items()
    }
    table = pd.DataFrame(ranks)
    return table.loc[table.mean(axis=1).sort_values(kind="stable").index]


def ranks_by_image(areas: Mapping[str, Areas], lower_is_better: Mapping[str, bool]) -> pd.DataFrame:
    """Return the rank of each method on each image by each metric alone, from which ranks by any weights can be made.

    Args:
        areas: per training, metric and method (B,).
        lower_is_better: per metric.

    Returns:
        One row per training, metric and image, with these three columns and one per method: images from 0, ranks in [1, M] as in
        `block_ranks`.
    """
    tables = {
        (training, metric): block_ranks({metric: values}, lower_is_better)
        for training, rows in areas.items()
        for metric, values in rows.items()
    }
    return pd.concat(tables, names=["training", "metric", "image"]).reset_index()


def leaderboard_by_training(
    areas: Mapping[str, Areas],
    lower_is_better: Mapping[str, bool],
    options: Mapping[str, Mapping[str, object]],
    families: Mapping[str, str] | None = None,
    tied: Mapping[str, Mapping[str, np.ndarray]] | None = None,
) -> pd.DataFrame:
    """Return one row per training and method with its ranks and all means, the best rank of each training first.

    Args:
        areas: per training, metric and method (B,).
        lower_is_better: per metric.
        options: per method the options that differ from the defaults.
        families: per metric, as in `block_ranks`.
        tied: per training and method, as in `summary`.

    Returns:
        Columns training, method, options, images, tied if it is given, rank with its bounds, and each metric's mean with its
        bounds.
    """
    tables = []
    for training, rows in areas.items():
        means = leaderboard(rows, lower_is_better, options, None if tied is None else tied[training])
        table = (
            mean_ranks(rows, lower_is_better, families).drop(columns="images").merge(means, on="method").assign(training=training)
        )
        first = ["training", "method", "options", "images", "rank", "rank_low", "rank_high"]
        known = [name for name in first if name in table]
        tables.append(table[[*known, *(name for name in table if name not in known)]])
    return pd.concat(tables, ignore_index=True)
