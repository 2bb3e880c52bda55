"""The claims of the five papers by data set: the rows of the start page's figure, and what each paper's rows say together."""

import io
import re
from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib
import pandas as pd

import saliency_lib as sl
from docs import content
from docs.content import PAPERS, Measured, Verdicts
from saliency_lib import figures, paths
from saliency_lib.artefacts import tables
from saliency_lib.notebook.blessed import Blessed
from workflow import plans

COLUMNS = {  # the data sets of each column, by the names of DATASETS and by those of data/reported/
    "digits": ("mnist5k", "mnist"),
    "CIFAR-10": ("cifar10",),
    "CIFAR-100": ("cifar100",),
    "ImageNet": ("imagenet_samples", "imagenette", "imagenet", "imagenet_first_10000"),
    "series": ("series_gaussian_moving_middle", "multivariate_time_series"),
    "texts": ("eraser_movies", "movies"),
}
UNMEASURED = "not measured"
HELD = ("supported", sl.statistics.REPRODUCED)
KINDS = ("paper", "reduced", "other")  # how near a measurement is to the paper's setting, the nearest first
FIELDS = ("source", "on", "ours", "verdict", "images", "setting", "control")  # of a measurement


def column_of(dataset: str) -> str | None:
    """Return the column of the figure in which a data set is; None if it is in none."""
    return next((column for column, names in COLUMNS.items() if dataset in names), None)


def stored(notebook: str, table: str, name: str) -> Measured:
    """Return a table of a notebook's stored run in the form of those of data/measured/."""
    command = f"papermill notebooks/{notebook}.ipynb out.ipynb"
    return Measured(name, content.blessed(notebook, table), {"command": command, "parameters": plans.defaults(notebook)})


def by_data(kept: Sequence[Measured]) -> pd.DataFrame:
    """Return every measurement of every claim of the five papers: in the notebooks' stored runs and in data/measured/.

    Args:
        kept: the tables of data/measured/, as `content.measured` returns them.

    Returns:
        One row per measurement, at least one per claim and data set, in the order of papers.yaml. Columns: paper, title (its
        short name), measures (the quantity), claim (its key), words (the claim in short), data (a key of COLUMNS), on (network
        or method), ours, verdict (UNMEASURED if there is no measurement), images, setting, control (the verdict on the same
        question against a random order, empty if it was not asked), reported (the paper's value or None), source (the table).
    """
    rows = []
    for paper in PAPERS:
        numbers = tables.reported(paper["key"])[1]
        found = [*_claims(paper["key"], kept), *_beyond(paper, kept)]
        sides = {claim["id"]: claim for claim in tables.claimed(paper["key"]).to_dict("records")}
        for key, words in paper["claims"].items():
            told = _reported(numbers, sides[key]) if key in sides else _improved(numbers, paper["beyond"][key])
            for column in COLUMNS:
                own = [one for one in found if one["claim"] == key and one["data"] == column]
                if key not in sides:  # the networks or methods of the paper alone
                    own = [one for one in own if one["on"] in told.get(column, {})]
                head = {
                    "paper": paper["key"],
                    "title": paper["short"],
                    "measures": paper["measures"],
                    "claim": key,
                    "words": words,
                    "data": column,
                }
                rows += [head | one for one in _with_reported(own, told.get(column, {}))]
    return pd.DataFrame(rows)


def _with_reported(own: list[dict[str, Any]], told: dict[str, float]) -> list[dict[str, Any]]:
    """Join measurements with the paper's values by network or method; if none is the paper's, the first gets its first value."""
    if not own:
        own = [dict.fromkeys(FIELDS, "") | {"verdict": UNMEASURED}]
    told = told if {one["on"] for one in own} & set(told) or not told else {own[0]["on"]: next(iter(told.values()))}
    return [one | {"reported": told.get(one["on"])} for one in own]


def _claims(paper: str, kept: Sequence[Measured]) -> list[dict[str, Any]]:
    """Return the measurements of a paper's claims: of its notebook's stored run, and of the tables that were measured once."""
    notebook = content.notebook_of(paper)
    name = f"notebooks/blessed/{notebook}"
    once = [one for one in kept if one.notebook == notebook and one.name.endswith("_verdicts")]
    rows = []
    for table in (stored(notebook, "claims", f"{name}_verdicts"), *once):
        base = table.name.removesuffix("_verdicts")
        own = {one.name.removeprefix(base): one.rows for one in kept if one.name.startswith(base)}
        if base == name:
            own = {f"_{each}": content.blessed(notebook, each) for each in Blessed.of(notebook).tables}
        (_, found) = content.verdicts(paper, [], [table])
        rows += _measurements(found, table, own)
    return rows


def _measurements(found: Verdicts, table: Measured, beside: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return the measurements in one table of verdicts; `beside` are the tables kept with it."""
    known = table.origin["parameters"]
    rows = []
    for claim in found.claims:
        finding = claim["findings"][""]
        if finding["ours"]:
            control = _control(claim, beside)
            facts = {"claim": claim["id"], "data": column_of(known["dataset"]), "on": known["model"], "source": table.name}
            facts |= {"images": claim["images"], "setting": claim["measured_on"], "control": control}
            rows.append(facts | finding)
    return rows


def _control(claim: dict[str, Any], beside: dict[str, list[dict[str, Any]]]) -> str:
    """Return the verdict on a claim relative to a random order or, if there is none, on its favoured method against one."""
    key = "verdict, relative to a random order"
    relative = (row[key] for row in beside.get("_robustness", []) if row["claim"] == claim["statement"] and key in row)
    favoured = claim["lower" if claim["quantity"].startswith(("allegiance", "deletion")) else "higher"]
    against = (
        row["verdict"]
        for name, rows in beside.items()
        if re.fullmatch(r"_controls(, \w+)?", name) and (", " not in name or name.split(", ")[1] in claim["quantity"])
        for row in rows
        if re.fullmatch(rf"{re.escape(favoured)} lies (above|below) random", row["claim"])
    )
    return next(relative, "") or next(against, "")


def _beyond(paper: dict[str, Any], kept: Sequence[Measured]) -> list[dict[str, Any]]:
    """Return the measurements of what a paper claims beyond data/reported/claims.csv: tables of pairs of trainings."""
    rows = []
    for key, asked in paper.get("beyond", {}).items():
        once = [one for one in kept if one.notebook == asked["notebook"] and one.name.endswith("_claims")]
        for table in once or [stored(asked["notebook"], "claims", f"notebooks/blessed/{asked['notebook']}_claims")]:
            relative = [one.rows for one in kept if one.name == re.sub("_claims$", "_relative", table.name)]
            known = table.origin["parameters"]
            column = column_of(known.get("dataset") or known["series"])
            for number, row in enumerate(table.rows):
                better = re.split(" lies (?:above|below) ", row["claim"])[0].split(" · ")
                if row["metric"] == asked["metric"] and better[-1] == asked["training"] and column:
                    control = relative[0][number]["verdict"] if relative else ""
                    facts = {"claim": key, "data": column, "on": better[0], "source": table.name, "control": control}
                    images = str(known["images"])
                    rows.append(facts | {"images": images, "setting": "", "ours": row["ours"], "verdict": row["verdict"]})
    return rows


def _reported(numbers: pd.DataFrame, claim: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Return what a paper reports of a claim, higher minus lower side, by column and network; the first of several trainings."""
    rows = numbers[numbers["quantity"] == claim["quantity"]]
    told: dict[tuple[str, str, str], dict[str, float]] = {}
    for row in rows.to_dict("records"):
        by_method = isinstance(row["method"], str)
        column, side = column_of(row["dataset"]), row["method"] if by_method else row["training"]
        if column:
            told.setdefault((column, row["model"], row["training"] if by_method else ""), {})[side] = row["value"]
    found: dict[str, dict[str, float]] = {}
    for (column, model, _), values in told.items():
        if {claim["higher"], claim["lower"]} <= set(values):
            found.setdefault(column, {}).setdefault(model, values[claim["higher"]] - values[claim["lower"]])
    return found


def _improved(numbers: pd.DataFrame, asked: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Return what a paper reports of guided minus usual training, by column and network (mean of the methods) or method."""
    rows = numbers[(numbers["quantity"] == asked["quantity"]) & numbers["dataset"].map(column_of).notna()]
    mean = rows.groupby(["dataset", asked["by"], "training"], sort=False)["value"].mean().unstack("training")
    gain = (mean["saliency_guided"] - mean["standard"]).dropna() * asked["sign"]
    found: dict[str, dict[str, float]] = {}
    for (dataset, name), value in gain.items():
        found.setdefault(column_of(dataset), {})[name] = float(value)
    return found


def answers(table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return what the measurements of each paper say together.

    Args:
        table: of `by_data`.

    Returns:
        by paper: `word` (see `answer`), `counts` (by column, how many of how many measurements support the claims),
        `supported`, `contradicted`, `tested`, `failed` and `controlled` (how many are not better than a random order, and how
        many were compared with one), and `nearest`, the measurement nearest to the paper's setting, on its first claim.
    """
    found = {}
    for paper, rows in table[table["verdict"] != UNMEASURED].groupby("paper", sort=False):
        held, controlled = rows["verdict"].isin(HELD), rows["control"] != ""
        counts = {column: (int(held[own.index].sum()), len(own)) for column, own in rows.groupby("data", sort=False)}
        first = rows[rows["claim"] == rows["claim"].iloc[0]]
        near = first["setting"].map(lambda text: KINDS.index(text.split(":")[0]) if text else len(KINDS))
        nearest = first.loc[near.sort_values(kind="stable").index[0]].to_dict()
        contradicted = int((rows["verdict"] == "contradicted").sum())
        found[str(paper)] = {
            "word": answer(int(held.sum()), contradicted, len(rows)),
            "counts": {column: counts[column] for column in COLUMNS if column in counts},
            "supported": int(held.sum()),
            "contradicted": contradicted,
            "tested": len(rows),
            "controlled": int(controlled.sum()),
            "failed": int((controlled & ~rows["control"].isin(HELD)).sum()),
            "nearest": nearest | {"reported": None if pd.isna(nearest["reported"]) else nearest["reported"]},
        }
    return found


def answer(supported: int, contradicted: int, tested: int) -> str:
    """Return in words what the measurements of a paper say, of which some support a claim and some contradict one."""
    if supported and contradicted:
        return "mixed"
    if 2 * supported > tested:
        return "mostly supported"
    return "mostly contradicted" if 2 * contradicted > tested else "undecided"


def best(kept: Iterable[Measured], most: int = 3) -> list[dict[str, Any]]:
    """Return the methods with the best mean rank on each network of the measured leaderboards, in its first training.

    Returns:
        per table: its `name`, `data`, `network`, `training` and `metrics`, the `first` methods with their mean `rank`, and
        `tried`, how many methods it has; controls are left out. Photographs come before digits.
    """
    found = []
    for one in (one for one in kept if one.name.endswith("_leaderboard")):
        rows = [row for row in one.rows if row["training"] == one.rows[0]["training"]]
        known = [row for row in rows if row["method"] not in ("random", "edges")]
        first, data = sorted(known, key=lambda row: float(row["rank"]))[:most], one.origin["parameters"]["dataset"]
        facts = {"first": [{"method": row["method"], "rank": _rank(row)} for row in first], "tried": len(known)}
        facts |= {"metrics": [name.removesuffix("_low") for name in rows[0] if name.endswith("_low") and name != "rank_low"]}
        facts |= {"network": one.origin["parameters"]["model"], "training": rows[0]["training"]}
        found.append({"name": one.name, "data": column_of(data) or data} | facts)
    order = list(COLUMNS)[::-1]
    return sorted(found, key=lambda one: order.index(one["data"]) if one["data"] in order else len(order))


def _rank(row: dict[str, str]) -> str:
    mean, low, high = (float(row[name]) for name in ("rank", "rank_low", "rank_high"))
    return f"{mean:.1f} [{low:.1f}, {high:.1f}]"


def alternative(table: pd.DataFrame) -> str:
    """Return in words what the figure of a table of `by_data` shows."""
    known = table[table["verdict"] != UNMEASURED]
    told = []
    for column, rows in known.groupby("data", sort=False):
        counts = ", ".join(f"{number} {word}" for word, number in rows["verdict"].value_counts(sort=False).items())
        told.append(f"{column}: {counts}")
    none = [column for column in COLUMNS if column not in set(known["data"])]
    left = f" {', '.join(none)}: {UNMEASURED}." if none else ""
    return f"{table['claim'].nunique()} claims of five papers by {len(COLUMNS)} kinds of data. {'. '.join(told)}.{left}"


def sources(table: pd.DataFrame) -> list[str]:
    """Return the files that a table of `by_data` was made from, those of data/measured/ by their common endings."""
    names = table.loc[table["source"] != "", "source"]
    once = sorted({f"data/measured/*_{name.rsplit('_', 1)[1]}.csv" for name in names if "/" not in name})
    runs = sorted({re.sub("_[a-z]+$", ".json", name) for name in names if "/" in name})
    return [*once, *runs, "data/reported/*.csv"]


def draw(table: pd.DataFrame) -> str:
    """Return the figure of a table of `by_data` as SVG; the same text for the same table."""
    drawn = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "claims"}):
        figures.claims_by_data(table, list(COLUMNS)).savefig(drawn, format="svg", metadata={"Date": None})
    return drawn.getvalue()


def readme_example() -> str:
    """Return README's example of `sl.evaluate`, which the tests run."""
    return re.search(r"```python\n(.*?)```", (paths.ROOT / "README.md").read_text(), re.DOTALL)[1].strip()
