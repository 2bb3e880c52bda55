"""Put the pixels of a map in the order of their values, and deal with those that tie."""

from typing import Annotated

import torch
from torch import Tensor

from saliency_lib.core.options import Names
from saliency_lib.core.streams import Indices, noise, row_indices

TIES = ("random", "index", "together")
Ties = Annotated[str, Names(TIES)]
DRAWS = 4  # random orders of tied pixels over which a metric is averaged


def ranks(maps: Tensor, *, descending: bool = True, together: bool = False) -> Tensor:
    """Return the place (B, H*W) of each pixel in the order of its map (B, H, W); pixels of equal value are ordered by index.

    Args:
        together: pixels of equal value share the last of their places.
    """
    values, order, places = _in_order(maps, descending)
    if together:
        follows = torch.nn.functional.pad(values[:, 1:] == values[:, :-1], (0, 1))
        places = places.masked_fill(follows, order.shape[1]).flip(1).cummin(1).values.flip(1)
    return torch.empty_like(order).scatter_(1, order, places)


def _in_order(maps: Tensor, descending: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return the sorted values of maps, their pixels, and their places 0, ..., H*W - 1, each (B, H*W)."""
    values, order = maps.flatten(1).sort(dim=1, descending=descending, stable=True)
    return values, order, torch.arange(order.shape[1], device=maps.device).expand_as(order)


def random_ranks(maps: Tensor, draws: int, *, descending: bool, seed: int, indices: Indices) -> Tensor:
    """Return the places (draws, B, H*W) of the pixels, tied pixels in an order that is fixed by seed, image and draw."""
    values, order, every = _in_order(maps, descending)
    like, numbers = torch.empty_like(values, dtype=torch.float32), row_indices(maps, indices)
    places = torch.empty_like(order).scatter_(1, order, every).repeat(draws, 1, 1)
    follows = torch.nn.functional.pad(values[:, 1:] == values[:, :-1], (1, 0))
    first = every.masked_fill(follows, 0).cummax(1).values  # where each tie begins
    row, place = _in_tie(values).nonzero().unbind(1)
    group, pixel = row * order.shape[1] + first[row, place], order[row, place]
    for draw in range(draws if len(row) else 0):
        by_key = noise(like, numbers, seed, "ties", draw)[row, pixel].argsort(stable=True)
        drawn = by_key[group[by_key].argsort(stable=True)]
        places[draw, row, pixel[drawn]] = place
    return places


def _in_tie(values: Tensor) -> Tensor:
    """Return which of the sorted values (B, N) equal one of their neighbours."""
    same = values[:, 1:] == values[:, :-1]
    edge = same.new_zeros(len(same), 1)
    return torch.cat([same, edge], 1) | torch.cat([edge, same], 1)


def tied(maps: Tensor) -> Tensor:
    """Return the share (B,) of the pixels whose value another pixel of the map also has; their order is arbitrary."""
    return _in_tie(maps.flatten(1).sort(dim=1).values).float().mean(1)


def mean_of_tied(ordered: Tensor, numbers: Tensor) -> Tensor:
    """Replace each number by the mean over the pixels that tie with it: its expectation if ties are in a random order.

    Args:
        ordered: (B, N) values in rising or falling order.
        numbers: (B, N), one per value.

    Returns:
        (B, N) in double precision.
    """
    group = torch.nn.functional.pad(ordered[:, 1:] != ordered[:, :-1], (1, 0)).cumsum(1)
    sums, counts = torch.zeros(2, *ordered.shape, dtype=torch.float64, device=ordered.device)
    sums.scatter_add_(1, group, numbers.double())
    counts.scatter_add_(1, group, torch.ones_like(sums))
    return (sums / counts.clamp_min(1)).gather(1, group)


def cuts_ties(maps: Tensor, counts: Tensor, *, descending: bool) -> Tensor:
    """Return whether a cut after so many pixels (S,) of the order falls between pixels of equal value, (B, S)."""
    values = maps.flatten(1).sort(dim=1, descending=descending).values
    last = values.shape[1] - 1
    equal = values[:, (counts - 1).clamp(0, last)] == values[:, counts.clamp(0, last)]
    return equal & (counts > 0) & (counts <= last)
