"""What may be said of scores: means with their uncertainty, paired comparisons, verdicts. Numbers only, no torch."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import stats

from saliency_lib.core.registry import no_such

FEWEST = 20  # images below which no verdict is given
UNTESTED = "not tested at this scale"
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
    _check_areas(areas)
    rows = []
    for name, values in areas.items():
        low, high = bootstrap_interval(values)
        rows.append(
            {"method": name, "mean": float(np.mean(values)), "low": float(low), "high": float(high), "images": len(values)}
        )
    return pd.DataFrame(rows).sort_values("mean", ascending=lower_is_better, ignore_index=True)


def shares(right: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """One row a method, best first, as `summary`: the share of hits (B,), with Wilson's 95 % interval."""
    rows = []
    for name, hits in right.items():
        test = stats.binomtest(int(np.sum(hits)), len(hits))
        low, high = test.proportion_ci(LEVEL, method="wilson")
        rows.append({"method": name, "mean": test.statistic, "low": low, "high": high, "images": len(hits)})
    return pd.DataFrame(rows).sort_values("mean", ascending=False, ignore_index=True)


def leaderboard(
    areas: Mapping[str, Mapping[str, np.ndarray]], lower_is_better: Mapping[str, bool], options: Mapping[str, Mapping]
) -> pd.DataFrame:
    """One row a method, the best by the last metric first: its options, the number of images, each metric with its interval.

    Args:
        areas: per metric and method (B,).
        lower_is_better: per metric.
        options: per method the options that were not the defaults.

    Returns:
        Columns method, options, images, and for each metric its mean, `<metric>_low` and `<metric>_high`.
    """
    tables = {name: summary(rows, lower_is_better=lower_is_better[name]) for name, rows in areas.items()}
    order = list(tables.values())[-1]["method"]
    board = pd.DataFrame({"method": order})
    board["options"] = [", ".join(f"{key}={value}" for key, value in options.get(name, {}).items()) for name in order]
    for number, (metric, table) in enumerate(tables.items()):
        found = table.set_index("method").loc[order].reset_index()
        if number == 0:
            board["images"] = found["images"]
        board[[metric, f"{metric}_low", f"{metric}_high"]] = found[["mean", "low", "high"]]
    return board


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


CONTROLS = ("random", "edges")  # methods that know nothing of the model


def with_control(names: Sequence[str]) -> list[str]:
    """The methods to be compared, the control `random` among them.

    Raises:
        ValueError: it is not.
    """
    if "random" not in names:
        raise ValueError(f"methods {' '.join(names)!r} lack the control 'random', without which no area means anything; add it")
    return list(names)


def against_controls(areas: Mapping[str, np.ndarray], *, lower_is_better: bool) -> pd.DataFrame:
    """For each method the claim that its areas beat each control's on the same images, and whether they do; see `paired`.

    Args:
        areas: per method the area (B,) of each image's curve; the controls are those of `random` and `edges` among them.

    Raises:
        ValueError: no control, areas that are not finite, or methods that were not measured on equally many images.
    """
    controls = [name for name in CONTROLS if name in areas]
    if not controls:
        raise ValueError(f"there is no control among {sorted(areas)}; add 'random'")
    pairs = [(name, control) for control in controls for name in areas if name not in CONTROLS]
    return paired(areas, pairs, lower_is_better=lower_is_better)


def paired(areas: Mapping[str, np.ndarray], pairs: Sequence[tuple[str, str]], *, lower_is_better: bool) -> pd.DataFrame:
    """The claims that one method's areas beat another's on the same images, and whether they do.

    The test is paired over images: a bootstrap interval of the mean difference, and Wilcoxon's signed ranks with Holm's
    correction over all rows. A claim holds where both say so: an interval on the claimed side of 0 and p < 0.05.

    Args:
        areas: per method the area (B,) of each image's curve.
        pairs: (better, worse) names, one claim each.

    Returns:
        One row a pair: claim, ours (mean difference with its interval), p, verdict, the verdict one of `holds`, `does not
        hold`, `not tested at this scale` (fewer than 20 images).

    Raises:
        ValueError: a name without areas, areas that are not finite, or methods measured on unequally many images.
    """
    if not pairs:
        return pd.DataFrame(columns=["claim", "ours", "p", "verdict"])
    _check_areas(areas)
    for name in {name for pair in pairs for name in pair}:
        if name not in areas:
            raise no_such("method with areas", name, areas)
    sign, word = (-1, "below") if lower_is_better else (1, "above")
    gains = [sign * (np.asarray(areas[better], float) - np.asarray(areas[worse], float)) for better, worse in pairs]
    rows = []
    for (better, worse), gain, p in zip(pairs, gains, holm([wilcoxon(gain) for gain in gains]), strict=True):
        low, high = bootstrap_interval(gain)
        bounds = sorted((sign * low, sign * high))
        verdict = "holds" if low > 0 and p < 1 - LEVEL else "does not hold"
        rows.append(
            {
                "claim": f"{better} lies {word} {worse}",
                "ours": f"{sign * gain.mean():+.3f} [{bounds[0]:+.3f}, {bounds[1]:+.3f}]",
                "p": p_words(p),
                "verdict": verdict if len(gain) >= FEWEST else UNTESTED,
            }
        )
    return pd.DataFrame(rows, columns=["claim", "ours", "p", "verdict"])


def paired_over(
    areas: Mapping[str, Mapping[str, np.ndarray]], pairs: Sequence[tuple[str, str]], lower_is_better: Mapping[str, bool]
) -> pd.DataFrame:
    """The claims of `paired` under several metrics, one below the other; Holm's correction is within a metric.

    Args:
        areas: per metric and method (B,).
        lower_is_better: per metric.

    Returns:
        The columns of `paired` behind a column `metric`.
    """
    tables = {metric: paired(areas[metric], pairs, lower_is_better=lower_is_better[metric]) for metric in areas}
    return pd.concat([table.assign(metric=metric) for metric, table in tables.items()], ignore_index=True)[
        ["metric", "claim", "ours", "p", "verdict"]
    ]


def verdicts(claimed: pd.DataFrame, scores: Mapping[tuple[str, str], np.ndarray], *, level: float = LEVEL) -> pd.DataFrame:
    """What becomes of a paper's claims: each says that one mean lies above another on the same images.

    Paired over images: a bootstrap interval of the mean difference, Wilcoxon's signed ranks with Holm's correction over all the
    paper's claims that could be tested, and Cohen's d of the differences. A claim is reproduced where the interval lies on the
    claimed side of 0 and p < 1 - level.

    Args:
        claimed: columns statement, where, quantity, higher, lower, reported; as `report.reported` gives it.
        scores: per (quantity, name) (B,), one number an image.
        level: of the intervals.

    Returns:
        One row a claim: claim, where, reported, ours (mean difference higher - lower with its interval), effect, p, images,
        verdict, the verdict one of `reproduced`, `not reproduced`, `not tested at this scale` (no scores, or fewer than 20
        images).

    Raises:
        ValueError: scores that are not finite, or two sides measured on unequally many images.
    """
    gains: dict[int, np.ndarray] = {}
    for number, claim in enumerate(claimed.itertuples()):
        sides = [(claim.quantity, claim.higher), (claim.quantity, claim.lower)]
        if all(side in scores for side in sides):
            _check_areas({name: scores[quantity, name] for quantity, name in sides})
            above, below = (np.asarray(scores[side], float) for side in sides)
            if len(above) >= FEWEST:
                gains[number] = above - below
    adjusted = dict(zip(gains, holm([wilcoxon(gain) for gain in gains.values()]), strict=True))
    rows = []
    for number, claim in enumerate(claimed.itertuples()):
        row = {"claim": claim.statement, "where": claim.where, "reported": claim.reported}
        if number in gains:
            gain, p = gains[number], adjusted[number]
            low, high = bootstrap_interval(gain, level=level)
            spread = gain.std(ddof=1)
            row |= {
                "ours": f"{gain.mean():+.3f} [{low:+.3f}, {high:+.3f}]",
                "effect": float(gain.mean() / spread) if spread else 0.0,
                "p": p_words(p),
                "images": str(len(gain)),
                "verdict": "reproduced" if low > 0 and p < 1 - level else "not reproduced",
            }
        else:
            row |= {"ours": "", "effect": None, "p": "", "images": "", "verdict": UNTESTED}
        rows.append(row)
    return pd.DataFrame(rows, columns=["claim", "where", "reported", "ours", "effect", "p", "images", "verdict"])


def not_worse(values: Mapping[str, np.ndarray], pairs: Sequence[tuple[str, str]], *, margin: float) -> pd.DataFrame:
    """The claims that one's mean lies less than a margin below another's on the same images, larger being better.

    Args:
        values: per name (B,), for instance 1 where the prediction is right and 0 where not.
        pairs: (name, reference), one claim each.
        margin: what may be lost, in the values' unit.

    Returns:
        The columns of `paired`; p is that of a paired t-test against the margin, with Holm's correction. A claim holds where the
        95 % bootstrap interval of the mean difference lies above -margin and p < 0.05.
    """
    _check_areas(values)
    gains = [np.asarray(values[name], float) - np.asarray(values[reference], float) for name, reference in pairs]
    rows = []
    for (name, reference), gain, p in zip(pairs, gains, holm([_t_test(gain + margin) for gain in gains]), strict=True):
        low, high = bootstrap_interval(gain)
        verdict = "holds" if low > -margin and p < 1 - LEVEL else "does not hold"
        rows.append(
            {
                "claim": f"{name} lies less than {margin:g} below {reference}",
                "ours": f"{gain.mean():+.3f} [{low:+.3f}, {high:+.3f}]",
                "p": p_words(p),
                "verdict": verdict if len(gain) >= FEWEST else UNTESTED,
            }
        )
    return pd.DataFrame(rows, columns=["claim", "ours", "p", "verdict"])


def _t_test(gains: np.ndarray) -> float:
    """One-sided p-value that the mean of the gains (B,) lies above 0; 0 or 1 where all are equal."""
    return float(stats.ttest_1samp(gains, 0, alternative="greater").pvalue) if np.ptp(gains) else float(gains[0] <= 0)


def _check_areas(areas: Mapping[str, np.ndarray]) -> None:
    if not areas or len({len(values) for values in areas.values()}) != 1:
        raise ValueError(f"areas are not paired: { ({name: len(values) for name, values in areas.items()}) } images")
    damaged = [name for name, values in areas.items() if not np.isfinite(values).all()]
    if damaged:
        raise ValueError(f"the areas of {', '.join(damaged)} hold NaN or infinity; no mean and no verdict can be given")


def p_words(value: float) -> str:
    """A p-value as it is written; NaN was not tested."""
    if np.isnan(value):
        return UNTESTED
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
    verdict = "holds" if test.pvalue < 1 - LEVEL else "does not hold"
    return pd.DataFrame(
        {
            "claim": [f"classifies better than chance ({1 / classes:.3f})"],
            "ours": [f"{accuracy:.3f} [{low:.3f}, {high:.3f}]"],
            "p": [p_words(test.pvalue)],
            "verdict": [verdict if images >= FEWEST else UNTESTED],
        }
    )


def agreement(maps: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Spearman's rank correlation between the values of each two methods' maps, mean over the images.

    Args:
        maps: per method (B, H, W).

    Returns:
        One row a method: its name, its correlation with each method, and `images`, on how many its map is not constant;
        a constant map has no order, and its image is left out of that method's means.
    """
    ranks = {}
    for name, values in maps.items():
        rank = stats.rankdata(np.reshape(values, (len(values), -1)), axis=1)
        rank -= rank.mean(1, keepdims=True)
        length = np.linalg.norm(rank, axis=1, keepdims=True)
        ranks[name] = np.divide(rank, length, out=np.full_like(rank, np.nan), where=length > 0)
    rows = []
    for one in maps:
        means = {other: _mean(np.sum(ranks[one] * ranks[other], axis=1)) for other in maps}
        rows.append({"method": one} | means | {"images": int(np.isfinite(ranks[one][:, 0]).sum())})
    return pd.DataFrame(rows)


def kinship(table: pd.DataFrame, references: Sequence[str]) -> pd.DataFrame:
    """What `agreement` found, in brief: each method's correlation with a few references, and the method most like it.

    Args:
        table: as `agreement` gives it.
        references: names of methods; those that the table lacks are left out.

    Returns:
        One row a method: its name, a column a reference, `most_alike` with its correlation, `images`.
    """
    names = list(table["method"])
    known = [name for name in references if name in names]
    rows = []
    for row in table.to_dict("records"):
        others = {name: row[name] for name in names if name != row["method"] and np.isfinite(row[name])}
        nearest = max(others, key=others.get) if others else None
        alike = f"{nearest} ({others[nearest]:.2f})" if nearest else "none"
        shown = {name: row[name] for name in known}
        rows.append({"method": row["method"]} | shown | {"most_alike": alike, "images": row["images"]})
    return pd.DataFrame(rows)


def _mean(values: np.ndarray) -> float:
    """The mean of the values that are numbers; NaN where none is."""
    numbers = values[np.isfinite(values)]
    return float(numbers.mean()) if len(numbers) else np.nan
