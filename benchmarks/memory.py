"""Run one side of a case in its own process: `python -m benchmarks.memory CASE ours|peer FILE [tiny]`."""

import contextlib
import json
import resource
import sys
from pathlib import Path

import numpy as np
import torch

from benchmarks.cases import CASES

STATUS = Path("/proc/self/status")


def highest() -> float:
    """Return the peak memory of this process in megabytes, on the GPU if there is one and resident otherwise."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    if STATUS.exists():  # on Linux ru_maxrss starts at the peak of the parent process
        return next(int(line.split()[1]) / 2**10 for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # macOS counts bytes


def main(case: str, side: str, file: str, size: str = "") -> None:
    """Build the case, run the side once, store its result, and print by how much the peak rose."""
    torch.set_num_threads(1)
    race = CASES[case].race(tiny=size == "tiny")
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # Linux resets the peak of the imports
    before = highest()
    result = getattr(race, side)()
    print(json.dumps({"megabytes": highest() - before}))
    np.save(file, result.cpu().numpy())


if __name__ == "__main__":
    main(*sys.argv[1:])
