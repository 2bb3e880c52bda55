"""Compare two ways to compute one result: whether they agree, how long each takes, how much memory each needs."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import saliency_lib as sl
from saliency_lib import paths

BUDGET = 12.0  # seconds of a case after which no further round starts
# With fixed thresholds glibc returns large blocks as soon as they are freed, so that the peak excludes its pools.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}

Work = Callable[[], Tensor]
Clock = Callable[[Work], float]


class Disagreement(ValueError):
    """The two sides of a race have different results, so that their times cannot be compared."""


class Unavailable(RuntimeError):
    """This machine cannot run the case; the message says why."""


@dataclass(frozen=True)
class Agreement:
    """How two results are compared before they are timed.

    Args:
        measure: name of the number that is compared.
        of: computes the number from our result and the peer's.
        low, high: bounds within which the results agree.
    """

    measure: str
    of: Callable[[Tensor, Tensor], float]
    low: float
    high: float

    def between(self, ours: Tensor, theirs: Tensor) -> str:
        """Return the measure and its number, in words.

        Raises:
            Disagreement: the number is out of bounds or NaN, or the shapes differ.
        """
        if ours.shape != theirs.shape:
            raise Disagreement(f"our result has shape {tuple(ours.shape)}, the peer's has {tuple(theirs.shape)}")
        number = self.of(ours, theirs)
        if not self.low <= number <= self.high:
            raise Disagreement(f"{self.measure} is {number:.3g}, must be from {self.low:g} to {self.high:g}")
        return f"{self.measure} {number:.2g}"


def difference(high: float) -> Agreement:
    """Compare by the largest difference, as a share of the peer's largest value."""
    return Agreement("largest difference", lambda a, b: float((a - b).abs().max() / b.abs().max()), 0, high)


def rank_correlation(low: float) -> Agreement:
    """Compare maps (B, H, W) by Spearman's correlation, averaged over the images: for other draws or number formats."""
    return Agreement("rank correlation", lambda a, b: float(sl.rank_correlation(a, b).mean()), low, 1 + 1e-9)


# Passes beyond the definition. One of one image is allowed: it checks the target or finds the class.
SAME_PASSES = Agreement("surplus passes", lambda a, b: float(a - b), 0, 1)


@dataclass(frozen=True)
class Race:
    """The sides of a case, ready to run.

    Args:
        ours, peer: return their results.
        agreement: how these results are compared.
        passes: the network's own passes, which both sides need; None if there are none.
    """

    ours: Work
    peer: Work
    agreement: Agreement
    passes: Work | None = None


def cpu_seconds(work: Work) -> float:
    """Return the seconds that this process spent on the CPU, without those of other processes."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


def gpu_seconds(work: Work) -> float:
    """Return the seconds between two events on the GPU, including the time it waits for the host."""
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    work()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1000


def interleaved(sides: dict[str, Work], rounds: int, clock: Clock, budget: float = BUDGET) -> dict[str, list[float]]:
    """Return the seconds of each side, round by round. Each side runs once per round, so that a slow period affects all."""
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, work in sides.items():
            taken[name].append(clock(work))
        if sum(map(sum, taken.values())) >= budget:
            break
    return taken


def ratio(above: list[float], below: list[float]) -> float:
    """Return the median over the rounds of one side's seconds divided by the other's."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def peak(case: str, side: str, tiny: bool = False) -> tuple[float, Tensor]:
    """Return the megabytes by which one side of a case raises the peak of a new process, and the side's result.

    Raises:
        RuntimeError: the process failed; the message contains the end of its output.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "result.npy"
        words = [sys.executable, "-m", "benchmarks.memory", case, side, str(file), *(["tiny"] if tiny else [])]
        ended = subprocess.run(words, cwd=paths.ROOT, env=os.environ | MALLOC, capture_output=True, text=True)
        if ended.returncode:
            raise RuntimeError(f"the process of {case}, {side} failed: {ended.stderr.strip()[-500:]}")
        return json.loads(ended.stdout.splitlines()[-1])["megabytes"], torch.from_numpy(np.load(file))
