"""Read the boards of the page `leaderboard`: the kept tables of 05_leaderboard, and the ranks by image that its script weighs."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

import saliency_lib as sl
from docs.content import Measured, Page
from saliency_lib import paths
from saliency_lib.artefacts import tables
from saliency_lib.core.markup import one_line
from saliency_lib.core.optional import packaged_file

NOTEBOOK = "05_leaderboard"
COSTS = ("none", "at most 10", "at most 100", "more than 100", "depends on the network")


@dataclass(frozen=True)
class Board:
    """Methods with their ranks and areas on the same images, per training of one network.

    Args:
        name: of its files.
        title: the data, the network and the number of images.
        rows: of the kept table, as text.
        origin: the JSON file of the table.
        ranks: what `weighable` returns; None if the ranks by image were not kept with the table.
        files: the text of each file that a reader can download, by its name.
        page: the executed notebook; None if the table is one of data/measured/.
    """

    name: str
    title: str
    rows: list[dict[str, str]]
    origin: dict[str, Any]
    ranks: dict[str, Any] | None
    files: dict[str, str]
    page: Page | None = None

    @property
    def metrics(self) -> list[str]:
        """The metrics that the table has a column of."""
        return [name for name in self.rows[0] if name != "rank" and f"{name}_low" in self.rows[0]]

    @property
    def families(self) -> dict[str, list[str]]:
        """The metrics of each family."""
        return families(self.metrics)


def boards(run: Sequence[Page], kept: Sequence[Measured]) -> list[Board]:
    """Return the boards of every run of the notebook that kept one, then those of data/measured/.

    Raises:
        ValueError: a kept table was changed.
    """
    runs = [(page, page.kept["leaderboard"]) for page in run if page.step.notebook == NOTEBOOK and "leaderboard" in page.kept]
    found = [
        _board(file.parent.name, page.setting, file, page.kept.get("ranks"), page)
        for page, file in runs
        if file.is_file() and file.with_suffix(".json").is_file()
    ]
    for one in kept:
        if one.notebook == NOTEBOOK and one.name.endswith("_leaderboard"):
            file = paths.ROOT / "data" / "measured" / f"{one.name}.csv"
            ranks = file.with_name(f"{one.name.removesuffix('_leaderboard')}_ranks.csv")
            found.append(_board(one.name, f"{one.setting}, measured once", file, ranks))
    return found


def _board(name: str, title: str, file: Path, ranks: Path | None, page: Page | None = None) -> Board:
    rows, origin = tables.read_rows(file)
    if page:
        title = f"{title}: {origin['parameters']['dataset']}, {origin['parameters']['model']}, {rows[0]['images']} images"
    files, weighed = {f"{name}.csv": file.read_text()}, None
    if ranks and ranks.is_file() and ranks.with_suffix(".json").is_file():
        by_image, made = tables.read(ranks)
        if made["requires"] == origin["requires"]:  # the two tables are of one run
            weighed = weighable(by_image)
            files[f"{name}-ranks.csv"] = ranks.read_text()
    return Board(
        name, one_line(title), [{key: one_line(cell) for key, cell in row.items()} for row in rows], origin, weighed, files, page
    )


def families(metrics: Sequence[str]) -> dict[str, list[str]]:
    """Return the metrics of each family; a metric that has none, or is not registered, is its own."""
    found: dict[str, list[str]] = {}
    for metric in metrics:
        family = sl.METRICS[metric].family if metric in sl.METRICS else ""
        found.setdefault(family or metric, []).append(metric)
    return found


def weighable(by_image: pd.DataFrame) -> dict[str, Any]:
    """Return the ranks by image as the page's script reads them.

    Args:
        by_image: as `sl.statistics.ranks_by_image` returns it.

    Returns:
        `methods`, their names; `images`, how many; and `trainings`: per training and family of metrics a list of metrics, each a
        list of images, each a list of ranks, one per method.
    """
    facts = ["training", "metric", "image"]
    methods = [name for name in by_image if name not in facts]
    own = families(list(by_image["metric"].unique()))
    ranks = {
        key: [[int(rank) if rank == int(rank) else rank for rank in row] for row in part[methods].to_numpy(float).tolist()]
        for key, part in by_image.groupby(["training", "metric"])
    }
    trainings = {
        one_line(name): {family: [ranks[name, metric] for metric in metrics] for family, metrics in own.items()}
        for name in by_image["training"].unique()
    }
    return {"methods": methods, "images": by_image["image"].nunique(), "trainings": trainings}


def cost(passes: str) -> tuple[int, str]:
    """Return how many passes the registry names, and the group of costs (one of `COSTS`) that a reader can choose."""
    count = sum(int(number.replace(",", "")) for number in re.findall(r"([\d,]+) [FB]\b", passes))
    if " per " in passes:
        return count, COSTS[4]
    return count, next(group for most, group in zip((0, 10, 100, float("inf")), COSTS, strict=False) if count <= most)


def datatables() -> str:
    """Return DataTables as a script that needs no server: the package itables ships a module, which browsers load from none else.

    Raises:
        RuntimeError: the package's file is built in another way than the one that is known here.
    """
    file = packaged_file("itables", "html", "dt_bundle.js", extra="docs")
    text, count = re.subn(r"\bexport\{[^{}]*?([\w$]+) as default[^{}]*\};", r"window.DataTable=\1;", file.read_text())
    if count != 1 or re.search(r"^\s*import\b", text, re.MULTILINE):
        raise RuntimeError(f"{file.name} of itables has {count} exports by default and may have imports; expected 1 and none")
    return f"(() => {{\n{text}\n}})();\n"
