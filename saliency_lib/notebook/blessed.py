"""Blessed tables: the tables of a notebook's stored run as data, and whether another run agrees with them.

The last digits of a number differ between processors, and a metric that counts right answers jumps when a number is rounded. So
a notebook is not checked by the text of its tables. Each number is compared with the blessed one within a tolerance, and the
notebook prints whether they agree, which is the same text on every processor.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from saliency_lib import paths
from saliency_lib.core.files import replace_file
from saliency_lib.core.markup import plain
from saliency_lib.statistics.verdicts import SMALLEST, gist

Value = str | int | float | None

LEAST = 0.01  # the smallest tolerance of areas, shares and probabilities
MOST_IMAGES = 1.5  # how many images may count differently
EQUIVALENT = ("engine", "processes")  # parameters of a notebook that change roundings alone
FOLLOWS = ("p", "effect")  # columns that are not compared: they follow from numbers that are, and magnify their differences
NEAR_P = 0.01, 0.2  # a p-value between these may lie on the other side of 0.05 on another processor
MOST = 20  # disagreements that are listed
MISSING = "(missing)"
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?%?")
INTERVAL = re.compile(r"([-+.\d]+) \[([-+.\d]+), ([-+.\d]+)\]")


class Difference(NamedTuple):
    """One entry of a table in which two runs disagree."""

    table: str
    row: str
    column: str
    this_run: Value
    blessed: Value
    tolerance: float


@dataclass(frozen=True)
class Table:
    """A table as it is compared.

    Args:
        tolerance: how far a number may lie from the blessed one; if that is above 1, as a share of it.
        columns: the values of each column; numbers have six digits, None is a missing value.
        line: the value with which the table's means are compared, see `verdict_table`.
    """

    tolerance: float
    columns: dict[str, list[Value]]
    line: float = 0.0

    @classmethod
    def of(cls, frame: pd.DataFrame, tolerance: float, line: float = 0.0, uncompared: Iterable[str] = ()) -> "Table":
        """Return a data frame as a table, without the columns that are not compared.

        The shares of tied pixels never are: whether two numbers are equal to the last bit depends on the processor.
        """
        left_out = {"tied", *uncompared}
        return cls(tolerance, {str(name): [_value(one) for one in frame[name]] for name in frame if name not in left_out}, line)

    def rows(self) -> dict[str, dict[str, Value]]:
        """Return the rows by name. The name is the text in as many of the first columns as tell the rows apart."""
        count = len(next(iter(self.columns.values()), []))
        names, rest = [""] * count, dict(self.columns)
        for column, values in self.columns.items():
            if len(set(names)) == count or not all(isinstance(value, str) for value in values):
                break
            names = [f"{name}, {value}".removeprefix(", ") for name, value in zip(names, values, strict=True)]
            del rest[column]
        if len(set(names)) < count:
            names = [f"{name} (row {number})".strip() for number, name in enumerate(names, 1)]
        return {name: {column: rest[column][number] for column in rest} for number, name in enumerate(names)}


@dataclass(frozen=True)
class Blessed:
    """The default parameters of a notebook and the tables of its run with them, which a file beside it holds."""

    parameters: dict[str, Value]
    tables: dict[str, Table]

    @classmethod
    def read(cls, file: Path) -> "Blessed":
        """Return the content of a file that `write` wrote."""
        content = json.loads(file.read_text())
        return cls(content["parameters"], {name: Table(**table) for name, table in content["tables"].items()})

    @classmethod
    def of(cls, notebook: str) -> "Blessed":
        """Return the content of the file beside a notebook.

        Raises:
            FileNotFoundError: there is none.
        """
        return cls.read(paths.NOTEBOOKS / "blessed" / f"{notebook}.json")

    def write(self, file: Path) -> None:
        """Write the parameters and the tables to a JSON file, one line per column."""
        file.parent.mkdir(exist_ok=True)
        replace_file(file, lambda draft: draft.write_text(_json(asdict(self)) + "\n"))


def tolerance(images: float | None) -> float:
    """Return the tolerance of an area, a share or a probability over so many images: .01 or 1.5 images, whichever is more."""
    return max(LEAST, MOST_IMAGES / images) if images else LEAST


def differences(run: Mapping[str, Table], blessed: Mapping[str, Table]) -> list[Difference]:
    """Return the entries of a run's tables that disagree with the blessed ones, or that only one of the two has.

    Numbers agree within the tolerance of the blessed table. Texts agree if their words are equal and the numbers in them agree.
    A verdict (a column whose name begins with `verdict`) may differ if the blessed run nearly gave another: if the mean before it
    in the row, or a bound of its interval, lies within the tolerance of a number that decides (the table's line, or the smallest
    effect on either side of it), or if the row's p-value is near 0.05.
    """
    ours, theirs = _entries(run), _entries(blessed)
    found = []
    for key in dict.fromkeys((*theirs, *ours)):
        within, (name, row, column) = blessed[key[0]].tolerance if key[0] in blessed else 0, key
        pair = ours.get(key, MISSING), theirs.get(key, MISSING)
        free = column.startswith("verdict") and MISSING not in pair and _is_near_the_line(blessed[name], row, column)
        if not free and not _agree(*pair, within):
            found.append(Difference(*key, *pair, within))
    return found


def summary(blessed: Mapping[str, Table], found: Sequence[Difference]) -> str:
    """Return the text that a run prints: it agrees, or a list of the entries in which it does not."""
    if found:
        lines = [
            f"- {plain(', '.join(filter(None, one[:3])))}: "
            f"{plain(one.this_run)} now, {plain(one.blessed)} blessed, tolerance {one.tolerance:g}"
            for one in found[:MOST]
        ]
        more = [f"- and {len(found) - MOST} more"] if len(found) > MOST else []
        entries = "1 entry" if len(found) == 1 else f"{len(found)} entries"
        return "\n".join([f"Disagrees with the blessed run in {entries}:", "", *lines, *more])
    values, tolerances = _entries(blessed).values(), sorted({table.tolerance for table in blessed.values()})
    count = sum(len(NUMBER.findall(value)) if isinstance(value, str) else value is not None for value in values)
    tables = "1 table" if len(blessed) == 1 else f"{len(blessed)} tables"
    within = " to ".join(f"{value:.2g}" for value in dict.fromkeys((*tolerances[:1], *tolerances[-1:])))
    return f"Agrees with the blessed run: {tables}, {count} numbers, each within {within}."


def _entries(tables: Mapping[str, Table]) -> dict[tuple[str, str, str], Value]:
    return {
        (name, row, column): value
        for name, table in tables.items()
        for row, values in table.rows().items()
        for column, value in values.items()
        if column not in FOLLOWS
    }


def _agree(value: Value, blessed: Value, within: float) -> bool:
    if isinstance(value, str) and isinstance(blessed, str):
        pairs = zip(NUMBER.findall(value), NUMBER.findall(blessed), strict=False)
        return NUMBER.split(value) == NUMBER.split(blessed) and all(_agree(_number(a), _number(b), within) for a, b in pairs)
    if isinstance(value, str | None) or isinstance(blessed, str | None) or (isinstance(value, int) and isinstance(blessed, int)):
        return value == blessed
    return abs(value - blessed) <= within * max(1, abs(blessed)) + 1e-9  # a decimal fraction is not exact


def _is_near_the_line(table: Table, row: str, column: str) -> bool:
    values = table.rows()[row]
    before = list(values)[: list(values).index(column)]
    numbers = [found.groups() for name in before if (found := INTERVAL.search(str(values[name])))]
    decide = [table.line + shift for shift in (-SMALLEST, 0, SMALLEST)]
    p = str(values.get("p") or "").removeprefix("< ")
    close = bool(NUMBER.fullmatch(p)) and NEAR_P[0] <= float(p) <= NEAR_P[1]
    return close or (bool(numbers) and any(abs(float(one) - line) <= table.tolerance for one in numbers[-1] for line in decide))


def _number(text: str) -> int | float:
    if text.endswith("%"):
        return float(text[:-1]) / 100
    return int(text) if re.fullmatch(r"[-+]?\d+", text) else float(text)


def _value(value: object) -> Value:
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(f"{value:.6g}") if math.isfinite(value) else None if math.isnan(value) else str(value)
    return None if value is None else str(value)


def _json(value: object, indent: str = "") -> str:
    """Return JSON in which a list is one line."""
    if not isinstance(value, dict) or not value:
        return json.dumps(value)
    inner = ",\n".join(f"{indent} {json.dumps(key)}: {_json(one, indent + ' ')}" for key, one in value.items())
    return f"{{\n{inner}\n{indent}}}"


def finding(tables: Mapping[str, Table]) -> str:
    """Return what a stored run found, as Markdown: the best methods of a table `ranks`, and one line per verdict on its claims.

    Raises:
        KeyError: the run has no table `claims` or `verdicts`.
    """
    sentences = gist(pd.DataFrame(tables["claims" if "claims" in tables else "verdicts"].columns))
    if "ranks" in tables:
        ranks = pd.DataFrame(tables["ranks"].columns).set_index("method")
        best = ((name, column.nsmallest(3)) for name, column in ranks.items())
        words = (f"{name}: {', '.join(f'{one} ({rank:.1f})' for one, rank in ranked.items())}" for name, ranked in best)
        sentences = [f"The best mean ranks of {len(ranks)} methods. {'; '.join(words)}.", *sentences]
    return "\n".join(["**Finding** of the stored run with these parameters:", "", *(f"- {plain(one)}" for one in sentences)])
