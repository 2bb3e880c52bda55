"""Run the cases, collect one row per case in a table, and write the table together with its origin."""

import json
import platform
import statistics
from pathlib import Path

import pandas as pd
import torch

from benchmarks.cases import CASES, Case
from benchmarks.measure import Clock, Race, Unavailable, interleaved, peak, ratio
from saliency_lib import paths
from saliency_lib.artefacts import store, tables

CSV = paths.ROOT / "data" / "measured" / "benchmarks.csv"
COLUMNS = ["case", "quantity", "setting", "peer", "ratio", "at_least", "aim", "met", "ceiling", "ours", "theirs", "unit"]
COLUMNS += ["rounds", "agreement", "note"]


def row(case: Case, rounds: int, clock: Clock, tiny: bool = False) -> dict:
    """Return the row of a case: its results are compared, then it is measured. A note says if the machine cannot run it.

    Args:
        rounds: maximum number of rounds.
        tiny: use the size of the quick test.

    Raises:
        Disagreement: the results differ.
    """
    try:
        race = case.race(tiny)
    except Unavailable as reason:
        return {**_known(case), "note": str(reason)}
    measured = _memory(case, race, tiny) if case.quantity in ("memory", "growth") else _seconds(race, rounds, clock)
    return {**_known(case), **measured, "met": case.met(measured["ratio"], measured.get("ceiling"))}


def failure(case: Case, error: Exception) -> dict:
    """Return the row of a case that could not be measured."""
    return {**_known(case), "met": "no", "note": f"failed: {type(error).__name__}: {error}"}


def _known(case: Case) -> dict:
    facts = ("quantity", "setting", "peer", "at_least", "aim")
    return {"case": case.name} | {name: getattr(case, name) for name in facts}


def _seconds(race: Race, rounds: int, clock: Clock) -> dict:
    agreement = race.agreement.between(race.ours(), race.peer())
    sides = {"ours": race.ours, "theirs": race.peer} | ({"passes": race.passes} if race.passes else {})
    taken = interleaved(sides, rounds, clock)
    return {
        "ratio": ratio(taken["theirs"], taken["ours"]),
        "ceiling": ratio(taken["theirs"], taken["passes"]) if race.passes else None,
        "ours": statistics.median(taken["ours"]),
        "theirs": statistics.median(taken["theirs"]),
        "unit": "s",
        "rounds": len(taken["ours"]),
        "agreement": agreement,
    }


def _memory(case: Case, race: Race, tiny: bool) -> dict:
    (ours, result), (theirs, other) = (peak(case.name, side, tiny) for side in ("ours", "peer"))
    agreement = race.agreement.between(result, other)
    return {"ratio": theirs / max(ours, 1.0), "ours": ours, "theirs": theirs, "unit": "MB", "rounds": 1, "agreement": agreement}


def frame(rows: list[dict]) -> pd.DataFrame:
    """Return the rows as a table."""
    return pd.DataFrame(rows, columns=COLUMNS)


def text(table: pd.DataFrame) -> str:
    """Return the table as text for a terminal."""
    shown = table.drop(columns=["quantity", "unit"])
    return shown.to_string(index=False, na_rep="", float_format=lambda number: f"{number:.3g}")


def machine() -> dict:
    """Return what the numbers depend on: processor, device, versions, commit."""
    cpus = Path("/proc/cpuinfo")
    names = (
        [line.split(":")[1].strip() for line in cpus.read_text().splitlines() if "model name" in line] if cpus.exists() else []
    )
    return {
        "processor": names[0] if names else platform.processor(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu, one thread",
        **store.surroundings(),
    }


def write(table: pd.DataFrame, file: Path = CSV, command: str = "make bench", *, some: bool = False, **facts: str) -> None:
    """Write the table as CSV and its origin as a JSON file beside it, each whole or not at all.

    The JSON file contains the digest of the CSV, so that a mismatch is noticed.

    Args:
        facts: more that the origin says.
        some: the table has only some cases. Their rows replace the kept ones, and the JSON file says which were replaced.
    """
    origin: dict = {"command": command, **facts, **machine()}
    if some and file.exists():
        kept = pd.read_csv(file).set_index("case")
        later = {"cases": list(table["case"]), **origin}
        origin = json.loads(file.with_suffix(".json").read_text())
        origin["measured later"] = [*origin.get("measured later", []), later]
        new = table.set_index("case")
        both = pd.concat([kept.drop(new.index, errors="ignore"), new])
        table = both.loc[[name for name in CASES if name in both.index]].reset_index()
    tables.keep(file, table, origin, float_format="%.4g")
