"""Two ways to one result: that they agree, how long each takes in turn, how much memory each needs."""

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
from scipy.stats import spearmanr
from torch import Tensor

from saliency_lib import paths

BUDGET = 12.0  # seconds of a case after which no further round begins
# With fixed thresholds glibc gives large blocks back as they are freed, so that a peak is of what was held and not of its pools.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}

Work = Callable[[], Tensor]
Clock = Callable[[Work], float]


class Disagreement(ValueError):
    """Two sides of a race have different results, so that their times must not be compared."""


class Unavailable(RuntimeError):
    """This machine cannot run the case; the message says why."""


@dataclass(frozen=True)
class Agreement:
    """How two results are compared before they are timed.

    Args:
        measure: what the number is.
        of: the number for our result and the peer's.
        low, high: bounds between which the two agree.
    """

    measure: str
    of: Callable[[Tensor, Tensor], float]
    low: float
    high: float

    def between(self, ours: Tensor, theirs: Tensor) -> str:
        """The measure and its number, in words.

        Raises:
            Disagreement: it is out of bounds or NaN, or the shapes differ.
        """
        if ours.shape != theirs.shape:
            raise Disagreement(f"our result has shape {tuple(ours.shape)}, the peer's {tuple(theirs.shape)}")
        number = self.of(ours, theirs)
        if not self.low <= number <= self.high:
            raise Disagreement(f"{self.measure} is {number:.3g}, must lie from {self.low:g} to {self.high:g}")
        return f"{self.measure} {number:.2g}"


def difference(high: float) -> Agreement:
    """The largest difference as a share of the peer's largest value."""
    return Agreement("largest difference", lambda a, b: float((a - b).abs().max() / b.abs().max()), 0, high)


def rank_correlation(low: float) -> Agreement:
    """Spearman's rank correlation of maps (B, H, W), the mean over the images: for draws or number formats that differ."""

    def mean(ours: Tensor, theirs: Tensor) -> float:
        pairs = zip(ours.flatten(1).cpu().float().numpy(), theirs.flatten(1).cpu().float().numpy(), strict=True)
        return float(np.mean([spearmanr(a, b).statistic for a, b in pairs]))

    return Agreement("rank correlation", mean, low, 1 + 1e-9)


# more passes than the definition needs; one, of one image, checks the target or finds the class
SAME_PASSES = Agreement("surplus passes", lambda a, b: float(a - b), 0, 1)


@dataclass(frozen=True)
class Race:
    """The sides of a case, ready to run.

    Args:
        ours, peer: give their results.
        agreement: of these results.
        passes: the bare passes through the network without which no side can do; None where there are none.
    """

    ours: Work
    peer: Work
    agreement: Agreement
    passes: Work | None = None


def cpu_seconds(work: Work) -> float:
    """Seconds that the process spent on the CPU; those of other processes do not count."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


def gpu_seconds(work: Work) -> float:
    """Seconds between two events on the GPU, the waiting for the host in between among them."""
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    work()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1000


def interleaved(sides: dict[str, Work], rounds: int, clock: Clock, budget: float = BUDGET) -> dict[str, list[float]]:
    """Seconds of each side, round by round, every side once a round, so that a slow spell of the machine meets all."""
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, work in sides.items():
            taken[name].append(clock(work))
        if sum(map(sum, taken.values())) >= budget:
            break
    return taken


def ratio(above: list[float], below: list[float]) -> float:
    """The median over the rounds of one side's seconds over the other's."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def peak(case: str, side: str, tiny: bool = False) -> tuple[float, Tensor]:
    """Megabytes by which one side of a case raises the peak of a fresh process, and its result.

    Raises:
        RuntimeError: the process failed; with the end of what it said.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "result.npy"
        words = [sys.executable, "-m", "benchmarks.memory", case, side, str(file), *(["tiny"] if tiny else [])]
        ended = subprocess.run(words, cwd=paths.ROOT, env=os.environ | MALLOC, capture_output=True, text=True)
        if ended.returncode:
            raise RuntimeError(f"the process of {case}, {side} failed: {ended.stderr.strip()[-500:]}")
        return json.loads(ended.stdout.splitlines()[-1])["megabytes"], torch.from_numpy(np.load(file))
