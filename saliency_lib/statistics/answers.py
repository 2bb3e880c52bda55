"""What many verdicts say together: on how many networks a claim holds, and which claims survive every choice."""

from collections.abc import Iterable

import pandas as pd

from saliency_lib.statistics.intervals import UNTESTED
from saliency_lib.statistics.verdicts import DIRECTIONS, REPRODUCED, UNAFFECTED


def tally(found: pd.DataFrame, over: str) -> str:
    """Return in words on how many networks, or other things, a claim has which verdict.

    Args:
        found: one row per network, with a column `verdict`, empty where nothing was measured.
        over: the column that names the networks.

    Returns:
        for instance "supported on 1 of 3 (a), contradicted on 2 (b, c); not measured on d".
    """
    known = found[found["verdict"].notna()]
    words, of = [], f" of {len(known)}"
    for verdict in dict.fromkeys([*DIRECTIONS, *known["verdict"]]):
        names = list(known.loc[known["verdict"] == verdict, over])
        if names or verdict == DIRECTIONS[0]:
            words.append(f"{verdict} on {len(names)}{of}" + (f" ({', '.join(names)})" if names else ""))
            of = ""
    left = list(found.loc[found["verdict"].isna(), over])
    return ", ".join(words) + (f"; not measured on {', '.join(left)}" if left else "")


def across_choices(robust: Iterable[pd.DataFrame], elsewhere: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Return verdicts side by side: one row per claim, one column per choice under which it was tested.

    Args:
        robust: tables of `robustness`, whose first verdict is in the column `defaults`.
        elsewhere: tables of verdicts on other networks, columns claim, measured (the network's name) and verdict.

    Returns:
        indexed by claim; empty where a claim was not tested.
    """
    tables = [table.set_index("claim").filter(regex="^verdict") for table in robust]
    table = pd.concat(tables).rename(columns=lambda name: name.removeprefix("verdict, ").replace("verdict", "defaults"))
    known = pd.concat(elsewhere).dropna(subset=["claim"])
    wide = known.pivot(index="claim", columns="measured", values="verdict")[list(dict.fromkeys(known["measured"]))]
    return table.join(wide.rename_axis(columns=None))


def survivors(table: pd.DataFrame) -> str:
    """Return in words how many claims keep one verdict under every choice that affects them; the table of `across_choices`.

    A claim that is reproduced is supported. One that no other choice affects is not counted.
    """
    told = table.where(~table.isin([UNAFFECTED, UNTESTED])).replace(REPRODUCED, DIRECTIONS[0])
    told = told[told.count(axis=1) > 1]
    lasting = told.bfill(axis=1).iloc[:, 0][told.nunique(axis=1) == 1]
    counts = ", ".join(f"{word} {number}" for word in DIRECTIONS if (number := int((lasting == word).sum())))
    return (
        f"Of {len(told)} claims that another choice affects, {len(lasting)} have the same verdict under every one that was tried"
        f"{f' ({counts})' if counts else ''}. Each of the others changes under at least one."
    )
