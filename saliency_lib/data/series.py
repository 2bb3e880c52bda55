"""Synthetic multivariate time series whose salient features are known: seven processes, ten shapes of the salient box."""

from collections.abc import Callable

import numpy as np
import torch
from scipy.special import ndtr

from saliency_lib.data.table import DATASETS, TRAIN_AND_TEST, Split

SIDE = 50  # time steps, and features; the table of shapes is given for it
SPAN = 20.0  # of the times at which a process is observed
NOISE = 0.3  # standard deviation of what is added to every process but the Gaussian one

Corner = tuple[int | None, int | None]

# Time steps and features of the salient box, its first step and feature in class 0 and in class 1; None is anywhere.
SHAPES: dict[str, tuple[int, int, Corner, Corner]] = {
    "middle": (30, 30, (10, 10), (10, 10)),
    "small_middle": (14, 14, (18, 18), (18, 18)),
    "moving_middle": (30, 30, (None, None), (None, None)),
    "moving_small_middle": (15, 15, (None, None), (None, None)),
    "rare_time": (6, 40, (22, 5), (22, 5)),
    "moving_rare_time": (6, 40, (None, None), (None, None)),
    "rare_feature": (40, 6, (5, 22), (5, 22)),
    "moving_rare_feature": (40, 6, (None, None), (None, None)),
    "positional_time": (20, 20, (None, 29), (None, 1)),
    "positional_feature": (20, 20, (29, None), (1, None)),
}


# Each process makes series (N, T, F) of the times (N, T) at which it is observed and two blocks of normal numbers (N, T, F).


def _harmonic(times: np.ndarray, normal: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.broadcast_to(np.sin(2 * np.pi * 2 * times)[:, :, None], normal.shape)


def _pseudo_periodic(times: np.ndarray, normal: np.ndarray, other: np.ndarray) -> np.ndarray:
    return (1 + 0.5 * normal) * np.sin((2 + 0.01 * other) * times[:, :, None])


def _autoregressive(times: np.ndarray, normal: np.ndarray, other: np.ndarray) -> np.ndarray:
    series = 0.5 * normal
    for step in range(1, series.shape[1]):
        series[:, step] += 0.9 * series[:, step - 1]
    return series


def _continuous_autoregressive(times: np.ndarray, normal: np.ndarray, other: np.ndarray) -> np.ndarray:
    kept = 0.9 ** np.diff(times)[:, :, None]
    series = np.full(normal.shape, 0.01)
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
    "harmonic": _harmonic,
    "pseudo_periodic": _pseudo_periodic,
    "autoregressive": _autoregressive,
    "continuous_autoregressive": _continuous_autoregressive,
    "gaussian_process": _gaussian_process,
    "narma": _narma,
}


def _chance(key: tuple[int, int], side: int) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
    """Label, place of the box (2,) in [0, 1), times (T,) and normal numbers (3, T, F) of one series; the key alone fixes them."""
    rng = np.random.default_rng(key)
    label, place = int(rng.integers(2)), rng.random(2)
    grid = np.linspace(0, SPAN, 2 * side)
    times = np.sort(rng.choice(grid, side, replace=False) + rng.normal(0, SPAN / (2 * side), side))
    return label, place, times, rng.standard_normal((3, side, side), np.float32)


def _box(shape: str, label: int, place: np.ndarray, side: int) -> np.ndarray:
    """The mask (T, F) of the salient box of one series."""
    *size, corner, other = SHAPES[shape]
    extent = []
    for first, length, share in zip(other if label else corner, size, place, strict=True):
        length = max(1, round(length * side / SIDE))
        start = int(share * (side - length)) if first is None else round(first * side / SIDE)
        extent.append(slice(start, start + length))
    mask = np.zeros((side, side), bool)
    mask[tuple(extent)] = True
    return mask


def _series(process: str, shape: str) -> Callable[[str, bool], Split]:
    """The data set of one process and one shape, still to be registered."""

    def opened(split: str, download: bool) -> Split:
        def read(chosen: range, side: int) -> dict:
            drawn = [_chance((TRAIN_AND_TEST.index(split), index), side) for index in chosen]
            labels, places, times, normal = (np.array(part) for part in zip(*drawn, strict=True))
            masks = np.array([_box(shape, label, place, side) for label, place in zip(labels, places, strict=True)])
            series = PROCESSES[process](times, normal[:, 0], normal[:, 1])
            noise = 0 if process == "gaussian" else NOISE * normal[:, 2]
            positional = SHAPES[shape][2] != SHAPES[shape][3]
            height = np.where(labels | positional, 1, -1)[:, None, None]
            return {
                "images": torch.from_numpy((series + noise + height * masks).astype(np.float32)[:, None]),
                "labels": torch.from_numpy(labels),
                "masks": torch.from_numpy(masks),
            }

        return Split(1000, ("negative", "positive"), read)

    opened.__name__ = f"series_{process}_{shape}"
    opened.__doc__ = f"""1,000 and 1,000 series of 50 steps of 50 features: {process}, with a salient box, {shape}.

    A series (T, F) is an image of one channel, (1, T, F), of values of order 1 around 0 that are not limited to [0, 1]; its
    mask (T, F) is true on the box. The box is raised by 1 in class 1 and lowered by 1 in class 0; in the positional shapes
    it is always raised, and the class is its place among the features (`positional_time`, at any time) or in time
    (`positional_feature`, of any features). Series i depends on (split, i) only.

    Source: Ismail, Gunady, Corrada Bravo, Feizi 2020, section 3, and the released code with TimeSynth.
    Differs: 1,000 test series, there 100; values are not scaled to [0, 1] by the training set's extremes; NARMA follows its
    definition, bounded by 1, and its inputs differ between features and series, where the released one drops the sum over
    the last 10 steps and starts every feature from one seed.
    """
    return opened


for _process in PROCESSES:
    for _shape in SHAPES:
        DATASETS.register(_series(_process, _shape), shape=(1, SIDE))
