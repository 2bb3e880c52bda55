"""Verdicts on the claims of papers."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from saliency_lib.statistics.comparisons import difference, holm, wilcoxon
from saliency_lib.statistics.intervals import (
    LEVEL,
    MIN_IMAGES,
    UNTESTED,
    bootstrap_interval,
    check_areas,
    format_difference,
    format_p,
)


def claim_verdicts(claimed: pd.DataFrame, scores: Mapping[tuple[str, str], np.ndarray], *, level: float = LEVEL) -> pd.DataFrame:
    """Return a verdict on each claim of a paper: whether one mean lies above another on the same images.

    A claim is reproduced if the bootstrap interval of the mean difference lies above 0 and p < 1 - level. The p-value is that of
    Wilcoxon's signed-rank test with Holm's correction over all claims of the paper that could be tested.

    Args:
        claimed: columns statement, where, quantity, higher, lower, reported, as `notebook.reported` returns them.
        scores: per (quantity, name) (B,), one number per image.
        level: coverage of the intervals, in (0, 1).

    Returns:
        One row per claim: claim, where (in the paper), reported, ours (mean of higher minus lower with its interval), effect
        (Cohen's d of the differences), p, images, and verdict: `reproduced`, `not reproduced`, or `not tested at this scale`
        (no scores, or fewer than 20 images).

    Raises:
        ValueError: scores that are not finite, or two sides measured on different numbers of images.
    """
    claims = claimed.to_dict("records")
    gains: dict[int, np.ndarray] = {}
    for number, claim in enumerate(claims):
        sides = {name: scores.get((claim["quantity"], name)) for name in (claim["higher"], claim["lower"])}
        known = {name: values for name, values in sides.items() if values is not None}
        if len(known) == len(sides):
            check_areas(known)
            if len(known[claim["higher"]]) >= MIN_IMAGES:
                gains[number] = difference(known, claim["higher"], claim["lower"])
    adjusted = dict(zip(gains, holm([wilcoxon(gain) for gain in gains.values()]), strict=True))
    rows = []
    for number, claim in enumerate(claims):
        found = _verdict(gains[number], adjusted[number], level) if number in gains else ("", None, "", "", UNTESTED)
        rows.append((claim["statement"], claim["where"], claim["reported"], *found))
    return pd.DataFrame(rows, columns=["claim", "where", "reported", "ours", "effect", "p", "images", "verdict"])


def _verdict(gain: np.ndarray, p: float, level: float) -> tuple[str, float, str, str, str]:
    low, high = map(float, bootstrap_interval(gain, level=level))
    spread = gain.std(ddof=1)
    effect = float(gain.mean() / spread) if spread else 0.0
    verdict = "reproduced" if low > 0 and p < 1 - level else "not reproduced"
    return format_difference(gain.mean(), low, high), effect, format_p(p), str(len(gain)), verdict
