"""Synthetic multivariate time series whose salient features are known: seven processes, ten boxes of salient features."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.special import ndtr

from saliency_lib.data.table import DATASETS, TRAIN_AND_TEST, Split

SIDE = 50  # time steps, and features; BOXES is given for it
SPAN = 20.0  # of the times at which a process is observed
NOISE = 0.3  # standard deviation of what is added to every process but the Gaussian one


@dataclass(frozen=True)
class Box:
    """The salient features of a series: how many steps and features, and the first of each in class 0 and in class 1.

    A corner that is None is random.
    """

    steps: int
    features: int
    corner: tuple[int | None, int | None] = (None, None)
    other_corner: tuple[int | None, int | None] | None = None  # in class 1, if the class is the position and not the sign


BOXES = {
    "middle": Box(30, 30, (10, 10)),
    "small_middle": Box(14, 14, (18, 18)),
    "moving_middle": Box(30, 30),
    "moving_small_middle": Box(15, 15),
    "rare_time": Box(6, 40, (22, 5)),
    "moving_rare_time": Box(6, 40),
    "rare_feature": Box(40, 6, (5, 22)),
    "moving_rare_feature": Box(40, 6),
    "positional_time": Box(20, 20, (None, 29), (None, 1)),
    "positional_feature": Box(20, 20, (29, None), (1, None)),
}


# Each process makes series (N, T, F) from the times (N, T) at which it is observed and two arrays of normal numbers (N, T, F).


def _autoregressive(times: np.ndarray, normal: np.ndarray, other: np.ndarray) -> np.ndarray:
    series = 0.5 * normal
    for step in range(1, series.shape[1]):
        series[:, step] += 0.9 * series[:, step - 1]
    return series


def _continuous_autoregressive(times: np.ndarray, normal: np.ndarray, other: np.ndarray) -> np.ndarray:
    kept = 0.9 ** np.diff(times)[:, :, None]
    series = np.full_like(normal, 0.01, dtype=float)
    for step in range(1, series.shape[1]):
        share = kept[:, step - 1]
        series[:, step] = share * series[:, step - 1] + 0.01 * np.sqrt(1 - share) * normal[:, step]
    return series


def _gaussian_process(times: np.ndarray, normal: np.ndarray, other: np.ndarray) -> np.ndarray:
    distance = np.sqrt(3) * np.abs(times[:, :, None] - times[:, None])
    covariance = (1 + distance) * np.exp(-distance)  # Matern, 3/2, of unit variance and length
    return np.linalg.cholesky(covariance + 1e-6 * np.eye(times.shape[1])) @ normal


def _narma(times: np.ndarray, normal: np.ndarray, other: np.ndarray, order: int = 10) -> np.ndarray:
    inputs = ndtr(np.concatenate([other, normal], 1)) / 2  # uniform in (0, 0.5); the first half lets the process settle
    series = np.zeros(inputs.shape)
    for step in range(order, series.shape[1]):
        last, sum_of_last = series[:, step - 1], series[:, step - order : step].sum(1)
        driven = 1.5 * inputs[:, step - order] * inputs[:, step - 1]
        series[:, step] = np.minimum(0.3 * last + 0.05 * last * sum_of_last + driven + 0.1, 1)  # beyond it diverges
    return series[:, -times.shape[1] :]


PROCESSES: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]] = {
    "gaussian": lambda times, normal, other: normal,
    "harmonic": lambda times, normal, other: np.broadcast_to(np.sin(2 * np.pi * 2 * times)[:, :, None], normal.shape),
    "pseudo_periodic": lambda times, normal, other: (1 + 0.5 * normal) * np.sin((2 + 0.01 * other) * times[:, :, None]),
    "autoregressive": _autoregressive,
    "continuous_autoregressive": _continuous_autoregressive,
    "gaussian_process": _gaussian_process,
    "narma": _narma,
}


def _draws(key: tuple[int, int], side: int) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
    """Draw the label, the position of the box (2,) in [0, 1), the times (T,) and normal numbers (3, T, F), fixed by the key."""
    rng = np.random.default_rng(key)
    label, position = int(rng.integers(2)), rng.random(2)
    grid = np.linspace(0, SPAN, 2 * side)
    times = np.sort(rng.choice(grid, side, replace=False) + rng.normal(0, SPAN / (2 * side), side))
    return label, position, times, rng.standard_normal((3, side, side), np.float32)


def _mask(box: Box, label: int, position: np.ndarray, side: int) -> np.ndarray:
    """Return the mask (T, F) of the box in one series."""
    corner = box.other_corner if box.other_corner and label else box.corner
    extent = []
    for first, length, share in zip(corner, (box.steps, box.features), position, strict=True):
        length = max(1, round(length * side / SIDE))
        start = int(share * (side - length)) if first is None else round(first * side / SIDE)
        extent.append(slice(start, start + length))
    mask = np.zeros((side, side), bool)
    mask[tuple(extent)] = True
    return mask


def _series(process: str, box: str) -> Callable[[str, bool], Split]:
    """Return the data set of one process and one box, which is not registered yet."""

    def load(split: str, download: bool) -> Split:
        def read(chosen: range, side: int) -> dict[str, Any]:
            drawn = [_draws((TRAIN_AND_TEST.index(split), index), side) for index in chosen]
            labels, positions, times, normal = (np.array(part) for part in zip(*drawn, strict=True))
            masks = np.array([_mask(BOXES[box], *item, side) for item in zip(labels, positions, strict=True)])
            series = PROCESSES[process](times, normal[:, 0], normal[:, 1])
            noise = 0 if process == "gaussian" else NOISE * normal[:, 2]
            height = np.where(labels | (BOXES[box].other_corner is not None), 1, -1)[:, None, None]
            return {
                "images": torch.from_numpy((series + noise + height * masks).astype(np.float32)[:, None]),
                "labels": torch.from_numpy(labels),
                "masks": torch.from_numpy(masks),
            }

        return Split(1000, ("negative", "positive"), read, sources=())

    load.__doc__ = f"""Draw 1,000 training and 1,000 test series of 50 steps and 50 features: {process}, with the box {box}.

    A series (T, F) is an image of one channel, (1, T, F), with values of order 1 around 0 that are not limited to [0, 1]; its
    mask (T, F) is true in the salient box. The box is raised by 1 in class 1 and lowered by 1 in class 0; in the positional
    boxes it is always raised, and the class is its position among the features (`positional_time`, at any time) or in time
    (`positional_feature`, in any features). Series i depends on (split, i) only.

    Source: Ismail, Gunady, Corrada Bravo, Feizi 2020, section 3, and the released code with TimeSynth.
    Differs: 1,000 test series instead of 100; values are not scaled to [0, 1] by the training set's extremes; NARMA follows its
    definition, bounded by 1, with inputs that differ between features and series, whereas the released one drops the sum over
    the last 10 steps and starts every feature from one seed.
    """
    return load


for _process in PROCESSES:
    for _name in BOXES:
        DATASETS.register(name=f"series_{_process}_{_name}", shape=(1, SIDE))(_series(_process, _name))
