"""Measure all cases and keep the table, or measure some and print them. Progress goes to stderr."""

import argparse
import shlex
import sys
import time
import warnings

import torch

from benchmarks import passes, table
from benchmarks.cases import CASES
from benchmarks.measure import cpu_seconds, gpu_seconds
from saliency_lib.core.registry import no_such


def main(words: list[str] | None = None) -> int:
    """Run the cases one after the other.

    Returns:
        0, 1 if a case failed, or 2 if a word of the command line is wrong.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--cases", nargs="+", metavar="NAME", help="only these cases; they are printed, and kept if --write is given"
    )
    parser.add_argument("--rounds", type=int, default=5, help="maximum number of rounds per case (default: 5)")
    parser.add_argument("--write", action="store_true", help="replace the rows of these cases in the kept table")
    parser.add_argument(
        "--passes",
        type=int,
        metavar="PICTURES",
        help="measure instead how many passes a RISE map takes, on the first 1 to 20 embedded pictures (four minutes each on one "
        "core; an interrupted run resumes), and keep the table with --write",
    )
    parser.add_argument("--list", action="store_true", help="list the cases' names and settings")
    chosen = parser.parse_args(words)
    if chosen.list:
        print("\n".join(f"{case.name:34}{case.setting}, against {case.peer}" for case in CASES.values()))
        return 0
    for name in chosen.cases or ():
        if name not in CASES:
            parser.error(str(no_such("case", name, CASES)))
    if chosen.rounds < 1:
        parser.error(f"--rounds must be at least 1, got {chosen.rounds}")
    command = shlex.join(["python", "-m", "benchmarks", *(sys.argv[1:] if words is None else words)])
    if chosen.passes is not None:
        if not 1 <= chosen.passes <= len(passes.pictures()):
            parser.error(f"--passes must be from 1 to {len(passes.pictures())}, got {chosen.passes}")
        return _passes(chosen.passes, command if chosen.write else None)
    return _run(chosen.cases or list(CASES), chosen.rounds, command if chosen.write or not chosen.cases else None)


def _passes(pictures: int, command: str | None) -> int:
    torch.set_num_threads(1)
    found = passes.table(pictures)
    for part in (passes.intervals(found), passes.summary(found)):
        print(part.to_string(float_format="%.3g", na_rep=""), end="\n\n")
    if command:
        table.write(found, table.CSV.with_name("rise_passes.csv"), command, engine=passes.ENGINE)
    return 0


def _run(names: list[str], rounds: int, command: str | None) -> int:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # warnings of the peers
    clock = gpu_seconds if torch.cuda.is_available() else cpu_seconds
    rows, failed = [], []
    for name in names:
        begun = time.perf_counter()
        try:
            rows.append(table.row(CASES[name], rounds, clock))
            outcome = rows[-1].get("note") or f"{rows[-1]['ratio']:.2f}"
        except Exception as error:
            failed.append(name)
            rows.append(table.failure(CASES[name], error))
            outcome = rows[-1]["note"]
        print(f"{name:34}{outcome}  ({time.perf_counter() - begun:.0f} s)", file=sys.stderr, flush=True)
    found = table.frame(rows)
    print(table.text(found))
    if failed:
        print(f"failed, so nothing was kept: {', '.join(failed)}", file=sys.stderr)
    elif command:
        table.write(found, command=command, some=len(names) < len(CASES))
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
