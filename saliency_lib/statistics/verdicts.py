"""Verdicts: what the mean of paired differences says of a claim, in which setting, and whether it survives other choices."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from saliency_lib.statistics.intervals import (
    LEVEL,
    MIN_IMAGES,
    MIN_TRAININGS,
    UNTESTED,
    check_areas,
    format_difference,
    format_p,
    mean_interval,
    spread_over_trainings,
)

Scores = Mapping[tuple[str, str], np.ndarray]  # per quantity and name (B,), or (S, B) for several trainings
SMALLEST = 0.01  # the smallest effect of interest, of an area, a share or an accuracy
DIRECTIONS = ("supported", "contradicted", "no difference", "inconclusive")
UNAFFECTED = "not affected"  # by a choice, see `robustness`
ROUNDING = 1e-3  # two settings whose scores differ by less on average are one setting
REPRODUCED = "reproduced"  # the verdict `supported` in the paper's own setting
PARTS_OF = {"mnist5k": "mnist", "imagenet_samples": "imagenet"}  # data sets that are parts of a larger one


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Adjust p-values so that the chance of any false rejection among them stays at the level.

    Args:
        p_values: (K,), one per test.

    Returns:
        (K,), in the same order.

    Source: Holm 1979.
    """
    raw = np.asarray(p_values, dtype=float)
    order = np.argsort(raw, kind="stable")
    steps = raw[order] * np.arange(len(raw), 0, -1)
    adjusted = np.empty_like(raw)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(steps))
    return adjusted


def p_value(gains: np.ndarray) -> float:
    """Return the two-sided p-value that the gains are centred at 0; 1 if all are 0.

    Args:
        gains: (B,), one per image: Wilcoxon's signed-rank test. (S, B), one per training and image: Student's test with
            `spread_over_trainings`.
    """
    gains = np.asarray(gains, dtype=float)
    if not gains.any():
        return 1.0
    if gains.ndim == 1 or len(gains) == 1:
        return float(stats.wilcoxon(gains.reshape(-1)).pvalue)
    error, freedom = spread_over_trainings(gains)
    return float(2 * stats.t.sf(abs(gains.mean()) / error, freedom)) if error else 0.0


def direction(mean: float, low: float, high: float, p: float, *, smallest: float = SMALLEST) -> str:
    """Return what an interval says of a claim that the mean is positive.

    Args:
        mean, low, high: the mean difference and its interval, positive if it supports the claim.
        p: the corrected two-sided p-value.
        smallest: the smallest effect of interest.

    Returns:
        `supported`: the interval is above 0, the mean at least the smallest effect, and p < 0.05. `contradicted`: the same on
        the other side. `no difference`: the interval is within the smallest effect of 0. `inconclusive`: anything else.
    """
    if p < 1 - LEVEL and low > 0 and mean >= smallest:
        return "supported"
    if p < 1 - LEVEL and high < 0 and mean <= -smallest:
        return "contradicted"
    return "no difference" if -smallest <= low and high <= smallest else "inconclusive"


def enough(gain: np.ndarray) -> bool:
    """Return whether a gain, (B,) or (S, B), is measured on enough images, and if it is about trainings, on enough of them."""
    return np.shape(gain)[-1] >= MIN_IMAGES and (np.ndim(gain) == 1 or len(gain) >= MIN_TRAININGS)


def verdict_table(
    claims: Sequence[str],
    gains: Sequence[np.ndarray | None],
    *,
    family: str,
    smallest: float = SMALLEST,
    line: float = 0.0,
    p_values: Sequence[float] | None = None,
) -> pd.DataFrame:
    """Return one row per claim that a gain lies above a line.

    Args:
        claims: one sentence each.
        gains: per claim (B,), or (S, B) for S trainings, positive if it supports the claim; None if it was not measured.
        family: what the p-values are corrected over.
        smallest: the smallest effect of interest, see `direction`.
        line: what the gains are compared with.
        p_values: raw, one per gain that is measured on enough images; None: those of `p_value`.

    Returns:
        Columns claim, ours (mean with its interval), effect (Cohen's d over images), p (Holm's correction over the family),
        family, images, seeds (how many trainings have a mean on the claimed side, empty for a single one), verdict (`not tested`
        for fewer than 100 images, or for (S, B) with fewer than 5 trainings).
    """
    tested = [gain is not None and enough(gain) for gain in gains]
    shifted = [np.asarray(gain, dtype=float) - line for gain, known in zip(gains, tested, strict=True) if known]
    raw = [p_value(gain) for gain in shifted] if p_values is None else p_values
    results = iter(zip(shifted, holm(raw), strict=True))
    words = f"{len(shifted)} {'test' if len(shifted) == 1 else 'tests'}: {family}"
    rows = []
    for claim, known, gain in zip(claims, tested, gains, strict=True):
        if known:
            rows.append((claim, *_verdict(*next(results), words, smallest, line)))
        else:
            ours = "" if gain is None else format_difference(np.mean(gain), *mean_interval(gain))
            rows.append((claim, ours, None, "", "", "" if gain is None else str(np.shape(gain)[-1]), "", UNTESTED))
    return pd.DataFrame(rows, columns=["claim", "ours", "effect", "p", "family", "images", "seeds", "verdict"])


def _verdict(gain: np.ndarray, p: float, family: str, smallest: float, line: float) -> tuple:
    low, high = mean_interval(gain)
    mean, by_image = gain.mean(), gain.reshape(-1, gain.shape[-1]).mean(0)
    spread = by_image.std(ddof=1)
    effect = float(mean / spread) if spread else 0.0
    agree = f"{int((gain.mean(1) > 0).sum())} of {len(gain)}" if gain.ndim == 2 and len(gain) > 1 else ""
    ours = format_difference(mean + line, low + line, high + line)
    verdict = direction(mean, low, high, p, smallest=smallest)
    return ours, effect, format_p(p), family, str(gain.shape[-1]), agree, verdict


def setting(claim: Mapping[Any, Any], dataset: str, model: str, *, as_trained: bool) -> str:
    """Return how near a measurement is to the claim's own setting.

    Args:
        claim: with the paper's `dataset` and `networks`, names separated by spaces.
        dataset, model: what was measured.
        as_trained: whether the model was trained as in the paper.

    Returns:
        `paper`, `reduced` (the paper's data set or network, or a part of its data set) or `other`, and what was measured.
    """
    known, networks = claim["dataset"].split(), claim["networks"].split()
    if dataset in known and model in networks and as_trained:
        kind = "paper"
    else:
        kind = "reduced" if PARTS_OF.get(dataset, dataset) in known or model in networks else "other"
    return f"{kind}: {dataset}, {model}"


def claim_verdicts(
    claimed: pd.DataFrame,
    scores: Scores,
    *,
    dataset: str,
    model: str,
    as_trained: bool = False,
) -> pd.DataFrame:
    """Return a verdict on each claim of a paper: whether one mean lies above another on the same images.

    Args:
        claimed: columns statement, where, quantity, higher, lower, reported, dataset, networks, as `notebook.reported` returns
            them.
        scores: per (quantity, name) (B,), one number per image, or (S, B), for S trainings with different seeds.
        dataset, model, as_trained: what was measured, see `setting`.

    Returns:
        One row per claim: claim, where (in the paper), reported, ours (mean of higher minus lower with its interval), effect, p,
        family, images, seeds, setting, verdict. The verdict is one of DIRECTIONS, `not tested` (no scores, or too few, see
        `verdict_table`), or `reproduced` if the claim is supported in the paper's own setting.

    Raises:
        ValueError: scores that are not finite, or two sides measured on different numbers of images.
    """
    gains = [_gain(scores, *side) for side in _sides(claimed)]
    papers = ", ".join(dict.fromkeys(claimed["paper"])) if "paper" in claimed else "the paper"
    table = verdict_table(list(claimed["statement"]), gains, family=f"claims of {papers}")
    where = [setting(claim, dataset, model, as_trained=as_trained) for claim in claimed.to_dict("records")]
    in_paper = np.array([one.startswith("paper") for one in where], dtype=bool)
    verdicts = table["verdict"].mask((table["verdict"] == "supported") & in_paper, REPRODUCED)
    told = claimed[["where", "reported"]].reset_index(drop=True)
    numbers = table.drop(columns=["claim", "verdict"])
    return pd.concat([table[["claim"]], told, numbers], axis=1).assign(setting=where, verdict=verdicts)


def _gain(scores: Scores, quantity: str, higher: str, lower: str) -> np.ndarray | None:
    sides = {name: scores[quantity, name] for name in (higher, lower) if (quantity, name) in scores}
    if len(sides) < 2:
        return None
    check_areas(sides)
    return np.asarray(sides[higher], dtype=float) - np.asarray(sides[lower], dtype=float)


def robustness(claimed: pd.DataFrame, choices: Mapping[str, Scores], **where: Any) -> pd.DataFrame:
    """Return each claim's verdict beside those that other choices give, and whether it survives them.

    Args:
        claimed, where: as in `claim_verdicts`.
        choices: the scores of `claim_verdicts` for each choice, for instance another baseline or another order of ties; the first
            is the one that the others are compared with.

    Returns:
        Columns claim, ours, verdict, then ours and verdict for each other choice, and survives: `yes`, or the choices that
        change the verdict. A claim whose scores a choice does not change has the verdict `not affected` there.
    """
    (_, scores), *others = choices.items()
    found = claim_verdicts(claimed, scores, **where)
    table = found[["claim", "ours", "verdict"]].copy()
    changes: list[list[str]] = [[] for _ in range(len(table))]
    for name, other_scores in others:
        other = claim_verdicts(claimed, other_scores, **where)
        same = np.array([_alike(_gain(scores, *side), _gain(other_scores, *side)) for side in _sides(claimed)])
        table[f"ours, {name}"] = other["ours"].mask(same, "")
        table[f"verdict, {name}"] = other["verdict"].mask(same, UNAFFECTED)
        for row, differs in zip(changes, (other["verdict"] != found["verdict"]).mask(same, False), strict=True):
            row += [name] if differs else []
    return table.assign(survives=["yes" if not row else "not " + ", not ".join(row) for row in changes])


def _sides(claimed: pd.DataFrame) -> Iterator[tuple[str, str, str]]:
    """Yield the quantity of each claim, and the names of its higher and lower side."""
    yield from claimed[["quantity", "higher", "lower"]].itertuples(index=False, name=None)


def _alike(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    """Return whether two measurements of a gain differ by no more than roundings."""
    if one is None or other is None or np.shape(one) != np.shape(other):
        return False
    return float(np.abs(np.subtract(one, other)).mean()) < ROUNDING


def gains(claimed: pd.DataFrame, choices: Mapping[str, Scores]) -> dict[str, dict[str, np.ndarray]]:
    """Return the differences (B,) or (S, B) on the claimed side, per claim (its id) and choice; arguments as in `robustness`."""
    sides = zip(claimed["id"], _sides(claimed), strict=True)
    found = {claim: {name: _gain(scores, *side) for name, scores in choices.items()} for claim, side in sides}
    return {claim: {name: gain for name, gain in row.items() if gain is not None} for claim, row in found.items()}


def findings(found: pd.DataFrame) -> list[str]:
    """Return one sentence per claim of a table of `claim_verdicts` or of `paired`, written from its numbers."""
    sentences = []
    for row in found.to_dict("records"):
        place = f" on {row['setting'].split(': ')[1]}" if row.get("setting") else ""
        trainings = f", {row['seeds']} trainings agree" if row.get("seeds") else ""
        numbers = f" ({row['ours']}, {row['images']} images{trainings})" if row["ours"] else ""
        sentences.append(f"{row['claim'][0].upper()}{row['claim'][1:]}: {row['verdict']}{place}{numbers}.")
    return sentences


def gist(found: pd.DataFrame, most: int = 16) -> list[str]:
    """Return one sentence per verdict of a table of claims: which claims have it.

    Args:
        found: a table with the verdict in its last column, the claim in the column `claim` or else in the first, and perhaps the
            metric in the column `metric`.
        most: rows of a table whose claims are named; of a longer one they are counted.
    """
    rows = found.to_dict("records")
    verdicts, names = list(found.iloc[:, -1]), found["claim"] if "claim" in found else found.iloc[:, 0]
    order = [word for word in (REPRODUCED, *DIRECTIONS, UNTESTED) if word in verdicts]
    sentences = []
    for verdict in dict.fromkeys((*order, *verdicts)):
        sides: dict[str, list[str]] = {}  # claims of one side, such as "below random", are named together
        for row, name, word in zip(rows, names, verdicts, strict=True):
            if word == verdict:
                left, *right = re.split(r" lies (?=below |above )", name)
                own = sides.setdefault(right[0] if right else "", [])
                own.append(f"{left} ({row['metric']})" if "metric" in row else left)
        named = "; ".join(f"{side}: {', '.join(own)}" if side else "; ".join(own) for side, own in sides.items())
        count = f"{verdict[0].upper()}{verdict[1:]}, {verdicts.count(verdict)} of {len(found)}"
        sentences.append(f"{count}: {named}." if len(found) <= most else f"{count}.")
    return sentences
