"""Localisation: is the map's relevance on the object, if the object is known?"""

import math
from dataclasses import replace
from typing import Annotated

import torch
from torch import Tensor, nn

from saliency_lib.core.checks import check_images, check_maps, first_rows
from saliency_lib.core.options import Range
from saliency_lib.evaluation.curve import Curve, one_number
from saliency_lib.evaluation.ranking import mean_of_tied, tied
from saliency_lib.evaluation.table import METRICS


def checked_objects(objects: Tensor | None, images: Tensor, maps: Tensor) -> Tensor:
    """Return the objects' masks on the maps' device, and refuse what does not fit."""
    check_maps(maps, check_images(images))
    if objects is None:
        raise ValueError(
            "objects are missing; pass objects=, the true masks (B, H, W), of a data set that has them (shapes, series_...)"
        )
    if not isinstance(objects, Tensor) or objects.dtype != torch.bool or objects.shape != maps.shape:
        got = f"{tuple(objects.shape)} of {objects.dtype}" if isinstance(objects, Tensor) else type(objects).__name__
        raise ValueError(f"objects must be bool masks of the maps' shape {tuple(maps.shape)}, got {got}")
    if empty := first_rows(~objects.flatten(1).any(1)):
        raise ValueError(f"the object of images {empty} has no pixel; leave these images out")
    return objects.to(maps.device)


@METRICS.register(lower_is_better=False, paper="Zhang et al. 2018")
def pointing_game(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    targets: Tensor | None = None,
    *,
    objects: Tensor | None = None,
    tolerance: Annotated[float, Range(0, math.inf)] = 0,
) -> Curve:
    """Test whether the largest value of the map is on the object; of several, the share that is.

    Args:
        images: (B, C, H, W) pixels in [0, 1].
        maps: (B, H, W).
        objects: (B, H, W) bool, true on the object.
        tolerance: how many pixels away the object may be; the original allows 15 at ImageNet's size.

    Returns:
        Curve of one point in [0, 1], 1 (hit) or 0 if one value is the largest; its mean over images is the accuracy.

    Raises:
        ValueError: the objects are missing, do not fit, or are empty.

    Source: Zhang et al. 2018, section 4.2. Differs: their accuracy is the mean over classes of hits / (hits + misses);
    here all images count alike. The distance is to the object's mask, which their data give as a box.
    """
    objects = checked_objects(objects, images, maps)
    largest = maps == maps.amax((1, 2), keepdim=True)
    hits = (largest & _near(objects, tolerance)).sum((1, 2)).double() / largest.sum((1, 2))
    return ranked(hits, maps)


def _near(objects: Tensor, tolerance: float) -> Tensor:
    """Return which pixels (B, H, W) are at most so many pixels away from the object."""
    tolerance = min(tolerance, sum(objects.shape[1:]))
    reach = int(tolerance)
    away = torch.arange(-reach, reach + 1, device=objects.device)
    disc = (away[:, None] ** 2 + away**2 <= tolerance**2).float()[None, None]
    return torch.nn.functional.conv2d(objects[:, None].float(), disc, padding=reach)[:, 0] > 0


def ranked(numbers: Tensor, maps: Tensor) -> Curve:
    """Return one number per image as the curve of a metric that ranks the pixels of maps."""
    return replace(one_number(numbers.to(torch.promote_types(maps.dtype, torch.float32))), tied=tied(maps))


@METRICS.register(lower_is_better=False, paper="Arras et al. 2022")
def relevance_mass(
    model: nn.Module, images: Tensor, maps: Tensor, targets: Tensor | None = None, *, objects: Tensor | None = None
) -> Curve:
    """Measure the share of the map's positive relevance that is on the object.

    Args:
        images: (B, C, H, W) pixels in [0, 1].
        maps: (B, H, W); negative values count as 0.
        objects: (B, H, W) bool, true on the object.

    Returns:
        Curve of one point in [0, 1]; 0 for a map without positive values, the object's share of the area for a constant one.

    Raises:
        ValueError: the objects are missing, do not fit, or are empty.

    Source: Arras, Osman, Samek 2022, relevance mass accuracy.
    """
    objects = checked_objects(objects, images, maps)
    positive = maps.detach().to(torch.promote_types(maps.dtype, torch.float32)).clamp_min(0)
    positive = positive / positive.amax((1, 2), keepdim=True).clamp_min(torch.finfo(positive.dtype).tiny)
    total = positive.sum((1, 2))
    return one_number((positive * objects).sum((1, 2)) / total.where(total > 0, 1))


@METRICS.register(lower_is_better=False, paper="Arras et al. 2022")
def relevance_rank(
    model: nn.Module, images: Tensor, maps: Tensor, targets: Tensor | None = None, *, objects: Tensor | None = None
) -> Curve:
    """Measure the share of the K most relevant pixels that are on the object, where K is the object's size.

    Args:
        images: (B, C, H, W) pixels in [0, 1].
        maps: (B, H, W). Of tied pixels of which only some are among the K, each counts with the same weight, as on average
            over random orders.
        objects: (B, H, W) bool, true on the object.

    Returns:
        Curve of one point in [0, 1].

    Raises:
        ValueError: the objects are missing, do not fit, or are empty.

    Source: Arras, Osman, Samek 2022, relevance rank accuracy.
    """
    objects = checked_objects(objects, images, maps).flatten(1)
    size = objects.sum(1, keepdim=True)
    values, order = maps.flatten(1).sort(dim=1, descending=True)
    hits = mean_of_tied(values, objects.gather(1, order)).cumsum(1).gather(1, size - 1)
    return ranked((hits / size)[:, 0], maps)


LEVELS = tuple(tenth / 10 for tenth in range(1, 10))  # shares of a map's relevance


def _relevance(maps: Tensor, objects: Tensor | None, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sum the relevance above each map's smallest value over its most relevant pixels, up to each level of the total.

    Returns:
        The sum over these pixels (B, 9), the part of it on the object (B, 9), and the sum over the whole object (B, 1).
    """
    objects = checked_objects(objects, images, maps).flatten(1)
    weights = maps.detach().double().abs().flatten(1)
    weights, order = (weights - weights.amin(1, keepdim=True)).sort(dim=1, descending=True)
    reached, found = weights.cumsum(1), (weights * mean_of_tied(weights, objects.gather(1, order))).cumsum(1)
    last = torch.searchsorted(reached, reached[:, -1:] * reached.new_tensor(LEVELS))
    return reached.gather(1, last), found.gather(1, last), found[:, -1:]


def _over_levels(part: Tensor, whole: Tensor, maps: Tensor) -> Curve:
    values = (part / whole.where(whole > 0, 1)).to(torch.promote_types(maps.dtype, torch.float32))
    levels = values.new_tensor(LEVELS)
    return Curve(levels, values, torch.trapezoid(values, levels, dim=1), tied(maps.abs()))


@METRICS.register(lower_is_better=False, paper="Ismail et al. 2020")
def aup(model: nn.Module, images: Tensor, maps: Tensor, targets: Tensor | None = None, *, objects: Tensor | None = None) -> Curve:
    """Compute the area under the precision: the share of the most relevant pixels' relevance that is on what is salient.

    P(p) = sum_{i in S_p and O} w_i / sum_{i in S_p} w_i, where w = |map| - min |map| and S_p is the smallest set of the most
    relevant pixels that holds a share p of the sum of w.

    Args:
        images: (B, C, H, W) pixels, or (B, T, F) series.
        maps: (B, H, W), or (B, T, F) for series; ranked and weighted by absolute value. Tied pixels count
            as on average over random orders.
        objects: (B, H, W) bool, O, true on what is salient.

    Returns:
        Curve over p = 0.1, ..., 0.9, with values in [0, 1]. The area is over these, at most 0.8, and 0 for a constant map;
        a random map has on average the salient share of the pixels, times 0.8.

    Raises:
        ValueError: the objects are missing, do not fit, or are empty.

    Source: Ismail, Gunady, Corrada Bravo, Feizi 2020, section 4 and the released code; its difference from the control
    `random` is the Diff(AUP) of Ismail, Corrada Bravo, Feizi 2021. Differs: in that code the mean over series
    excludes those whose precision is 0 / 0, and the control is another method's maps, shuffled.
    """
    reached, found, _ = _relevance(maps, objects, images)
    return _over_levels(found, reached, maps)


@METRICS.register(lower_is_better=False, paper="Ismail et al. 2020")
def aur(model: nn.Module, images: Tensor, maps: Tensor, targets: Tensor | None = None, *, objects: Tensor | None = None) -> Curve:
    """Compute the area under the recall: the share of the relevance on what is salient that the most relevant pixels hold.

    R(p) = sum_{i in S_p and O} w_i / sum_{i in O} w_i, in the symbols of aup.

    Args:
        images, maps, objects: as in aup.

    Returns:
        Curve over p = 0.1, ..., 0.9, with values in [0, 1]. The area is over these, at most 0.8, and 0 for a map whose
        smallest value is on everything that is salient. A random map has 0.4 on average, and so has a map whose relevance is
        all on what is salient.

    Raises:
        ValueError: as in aup.

    Source: as in aup. Differs: as in aup.
    """
    _, found, whole = _relevance(maps, objects, images)
    return _over_levels(found, whole.expand_as(found), maps)
