"""Comparisons on the same images: paired verdicts, controls, non-inferiority, similarity of maps."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import stats

from saliency_lib.core.options import no_such
from saliency_lib.statistics.intervals import LEVEL, MIN_IMAGES, UNTESTED, Areas, check_areas, format_p, wilson_interval
from saliency_lib.statistics.verdicts import SMALLEST, enough, p_value, verdict_table

CONTROLS = ("random", "edges")  # methods that do not look at the model
COLUMNS = ["claim", "ours", "p", "family", "verdict"]


def with_control(names: Sequence[str]) -> list[str]:
    """Return the methods to compare, after checking that the control `random` is one of them.

    Raises:
        ValueError: `random` is missing.
    """
    if "random" not in names:
        raise ValueError(f"methods {' '.join(names)!r} lack the control 'random', the reference for every area; add 'random'")
    return list(names)


def against_controls(areas: Mapping[str, np.ndarray], *, lower_is_better: bool) -> pd.DataFrame:
    """Test for each method whether its areas are better than each control's on the same images; see `paired`.

    Args:
        areas: per method (B,), with at least one of the controls `random` and `edges`.
        lower_is_better: whether a small area is good.

    Raises:
        ValueError: no control, values that are not finite, or methods measured on different numbers of images.
    """
    controls = [name for name in CONTROLS if name in areas]
    if not controls:
        raise ValueError(f"there is no control among {sorted(areas)}; add 'random'")
    pairs = [(name, control) for control in controls for name in areas if name not in CONTROLS]
    return paired(areas, pairs, lower_is_better=lower_is_better, family="methods against controls")


def paired(
    areas: Mapping[str, np.ndarray],
    pairs: Sequence[tuple[str, str]],
    *,
    lower_is_better: bool,
    family: str = "pairs of this table",
    smallest: float = SMALLEST,
) -> pd.DataFrame:
    """Test for each pair whether one method's areas are better than another's on the same images; see `verdict_table`.

    Args:
        areas: per method (B,), for example the area under the curve of each image, or (S, B) for several trainings.
        pairs: (better, worse) names, one claim each.
        lower_is_better: whether a small area is good.
        family: what the p-values are corrected over.
        smallest: the smallest difference that matters, see `direction`.

    Returns:
        One row per pair: claim, ours (mean difference with its interval, positive if it supports the claim), p, family, verdict
        (see `direction`, or `not tested` for fewer than 100 images), and seeds if there are several trainings.

    Raises:
        ValueError: a name without areas, values that are not finite, or methods measured on different numbers of images.
    """
    if not pairs:
        return pd.DataFrame(columns=COLUMNS)
    check_areas(areas)
    for name in {name for pair in pairs for name in pair}:
        if name not in areas:
            raise no_such("method with areas", name, areas)
    sign, word = (-1, "below") if lower_is_better else (1, "above")
    gains = [sign * difference(areas, *pair) for pair in pairs]
    claims = [f"{better} lies {word} {worse}" for better, worse in pairs]
    return _short(verdict_table(claims, gains, family=family, smallest=smallest))


def _short(table: pd.DataFrame) -> pd.DataFrame:
    """Return the columns of a table of comparisons; that of the trainings only if there are several."""
    return table[[*COLUMNS[:-1], *(["seeds"] if table["seeds"].any() else []), "verdict"]]


def difference(areas: Mapping[str, np.ndarray], name: str, reference: str) -> np.ndarray:
    """Return a method's values minus a reference's on each image, (B,), or on each training and image, (S, B)."""
    return np.asarray(areas[name], dtype=float) - np.asarray(areas[reference], dtype=float)


def paired_by_metric(
    areas: Areas,
    pairs: Sequence[tuple[str, str]],
    lower_is_better: Mapping[str, bool],
    smallest: Mapping[str, float] | None = None,
) -> pd.DataFrame:
    """Test the claims of `paired` for each metric, with Holm's correction within a metric.

    Args:
        areas: per metric and method (B,).
        pairs: (better, worse) names, one claim each.
        lower_is_better: per metric.
        smallest: per metric, see `paired`; left out, .01.

    Returns:
        One row per metric and pair: metric, then the columns of `paired`.
    """
    least = smallest or {}
    tables = [
        paired(
            rows,
            pairs,
            lower_is_better=lower_is_better[metric],
            family=f"pairs by {metric}",
            smallest=least.get(metric, SMALLEST),
        ).assign(metric=metric)
        for metric, rows in areas.items()
    ]
    return pd.concat(tables, ignore_index=True)[["metric", *COLUMNS]]


def paired_by_training(
    areas: Mapping[str, Areas],
    pairs: Sequence[tuple[str, str]],
    lower_is_better: Mapping[str, bool],
    smallest: Mapping[str, float] | None = None,
) -> pd.DataFrame:
    """Test the claims of `paired` for each training and metric, with Holm's correction within a training and a metric.

    Args:
        areas: per training, metric and method (B,).
        pairs: (better, worse) names, one claim each.
        lower_is_better, smallest: per metric, as in `paired_by_metric`.

    Returns:
        One row per training, metric and pair: training, metric, then the columns of `paired`.
    """
    tables = [
        paired_by_metric(rows, pairs, lower_is_better, smallest).assign(training=training) for training, rows in areas.items()
    ]
    return pd.concat(tables, ignore_index=True)[["training", "metric", *COLUMNS]]


def side_by_side(found: pd.DataFrame) -> pd.DataFrame:
    """Return the table of `paired_by_training` with one row per claim and metric, and one column per training.

    A cell is the mean difference with its interval, positive if it supports the claim, and the verdict unless the claim is
    supported; it is empty if it was not tested.
    """
    words = (" " + found["verdict"]).where(found["verdict"] != "supported", "")
    cells = (found["ours"] + words).where(found["verdict"] != UNTESTED, "")
    table = found.assign(cell=cells).pivot(index=["claim", "metric"], columns="training", values="cell")
    return table.loc[:, list(dict.fromkeys(found["training"]))].reset_index().rename_axis(columns=None)


def non_inferiority(values: Mapping[str, np.ndarray], pairs: Sequence[tuple[str, str]], *, margin: float) -> pd.DataFrame:
    """Test for each pair whether one mean is less than a margin below another's on the same images; larger is better.

    The p-value is that of a two-sided paired t-test against the margin, with Holm's correction. See `direction`, with a smallest
    effect of 0.

    Args:
        values: per name (B,), for example 1 for a correct prediction and 0 for a wrong one.
        pairs: (name, reference), one claim each.
        margin: the largest acceptable loss, in the unit of the values.

    Returns:
        The columns of `paired`.
    """
    check_areas(values)
    gains = [difference(values, *pair) for pair in pairs]
    claims = [f"{name} lies less than {margin:g} below {reference}" for name, reference in pairs]
    tests = [_t_test(gain + margin) for gain in gains if enough(gain)]
    return _short(verdict_table(claims, gains, family="margins", smallest=0, line=-margin, p_values=tests))


def _t_test(gains: np.ndarray) -> float:
    """Return the two-sided p-value that the mean of the gains, (B,) or (S, B), is 0, see `p_value` for several trainings."""
    if np.ndim(gains) == 2:
        return p_value(gains)
    return float(stats.ttest_1samp(gains, 0).pvalue) if np.ptp(gains) else float(gains[0] == 0)


def better_than_chance(accuracy: float, images: int, classes: int) -> pd.DataFrame:
    """Test whether a classifier is better than guessing among equally frequent classes.

    Args:
        accuracy: share of correctly classified images, in [0, 1].
        images: how many were classified.
        classes: how many there are.

    Returns:
        One row: claim, accuracy (with Wilson's 95 % interval), p (exact binomial test), verdict.
    """
    hits = round(accuracy * images)
    p = stats.binomtest(hits, images, 1 / classes, alternative="greater").pvalue
    low, high = wilson_interval(hits, images)
    verdict = "supported" if p < 1 - LEVEL else "inconclusive"
    row = {
        "claim": f"classifies better than chance ({1 / classes:.3f})",
        "accuracy": f"{accuracy:.3f} [{low:.3f}, {high:.3f}]",
        "p": format_p(p),
        "verdict": verdict if images >= MIN_IMAGES else UNTESTED,
    }
    return pd.DataFrame([row])


def map_agreement(maps: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Return Spearman's rank correlation between the maps of every two methods, averaged over the images.

    Args:
        maps: per method (B, H, W).

    Returns:
        One row per method: method, its correlation with each method, and images, the number of images on which its map is not
        constant. A constant map has no order, so its image is left out of that method's means.
    """
    ranks = {}
    for name, values in maps.items():
        rank = stats.rankdata(np.reshape(values, (len(values), -1)), axis=1)
        rank -= rank.mean(1, keepdims=True)
        length = np.linalg.norm(rank, axis=1, keepdims=True)
        ranks[name] = np.divide(rank, length, out=np.full_like(rank, np.nan), where=length > 0)
    rows = []
    for name, rank in ranks.items():
        means = {other: _finite_mean(np.sum(rank * ranks[other], axis=1)) for other in ranks}
        rows.append({"method": name, **means, "images": int(np.isfinite(rank[:, 0]).sum())})
    return pd.DataFrame(rows)


def _finite_mean(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else np.nan


def most_similar(table: pd.DataFrame, references: Sequence[str]) -> pd.DataFrame:
    """Return each method's correlation with some references, and the method whose maps are the most similar to its own.

    Args:
        table: as `map_agreement` returns it.
        references: names of methods; those that the table lacks are left out.

    Returns:
        One row per method: method, a column per reference, most_similar with its correlation, images.
    """
    known = [name for name in references if name in set(table["method"])]
    rows = []
    for row in table.to_dict("records"):
        others = {name: row[name] for name in table["method"] if name != row["method"] and np.isfinite(row[name])}
        nearest = max(others, key=lambda name: others[name], default=None)
        similar = f"{nearest} ({others[nearest]:.2f})" if nearest else "none"
        rows.append(
            {"method": row["method"], **{name: row[name] for name in known}, "most_similar": similar, "images": row["images"]}
        )
    return pd.DataFrame(rows)
