"""Localisation: does the map lie on the object, where the object is known?"""

import torch
from torch import Tensor, nn

from saliency_lib.evaluation.curves import Curve, metric, one_number, ranks
from saliency_lib.inputs import check_images, check_maps


def _check_objects(objects: Tensor | None, images: Tensor, maps: Tensor) -> Tensor:
    check_maps(maps, check_images(images))
    if objects is None:
        raise ValueError("objects are missing; pass objects=, the true masks (B, H, W), from a data set that has them (shapes)")
    if not isinstance(objects, Tensor) or objects.dtype != torch.bool or objects.shape != maps.shape:
        got = f"{tuple(objects.shape)} of {objects.dtype}" if isinstance(objects, Tensor) else type(objects).__name__
        raise ValueError(f"objects must be bool masks {tuple(maps.shape)} like the maps, got {got}")
    empty = (~objects.flatten(1).any(1)).nonzero().flatten().tolist()
    if empty:
        raise ValueError(f"no pixel belongs to the object of images {empty[:5]}; leave these images out")
    return objects.to(maps.device)


@metric(lower_is_better=False)
def pointing_game(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    targets: Tensor | None = None,
    *,
    objects: Tensor | None = None,
    tolerance: float = 0,
) -> Curve:
    """Whether the largest value of the map lies on the object.

    Args:
        maps: (B, H, W); the first of several largest values counts.
        objects: (B, H, W) bool, true on the object.
        tolerance: how far, in pixels, the object may be; the original allows 15 at ImageNet's size.

    Returns:
        Curve of one point, 1 (hit) or 0; its mean over images is the accuracy.

    Raises:
        ValueError: objects that are missing, do not fit, or are empty.

    Source: Zhang et al. 2018, section 4.2. Differs: their accuracy is the mean over classes of hits / (hits + misses), here
    images count alike; the distance is to the object's mask, which their data give as a box.
    """
    objects = _check_objects(objects, images, maps)
    if not tolerance >= 0:
        raise ValueError(f"tolerance must be a number of pixels from 0, got {tolerance!r}")
    height, width = maps.shape[1:]
    rows, columns = torch.arange(height, device=maps.device)[:, None], torch.arange(width, device=maps.device)
    peak = maps.flatten(1).argmax(1).view(-1, 1, 1)
    distance = ((rows - peak // width) ** 2 + (columns - peak % width) ** 2).double().sqrt()
    hit = (objects & (distance <= tolerance)).flatten(1).any(1)
    return one_number(hit.to(torch.promote_types(maps.dtype, torch.float32)))


@metric(lower_is_better=False)
def relevance_mass(
    model: nn.Module, images: Tensor, maps: Tensor, targets: Tensor | None = None, *, objects: Tensor | None = None
) -> Curve:
    """Share of the map's positive relevance that lies on the object.

    Args:
        maps: (B, H, W); negative values count as 0.
        objects: (B, H, W) bool, true on the object.

    Returns:
        Curve of one point in [0, 1]; 0 for a map without positive values, the object's share of the area for a constant one.

    Raises:
        ValueError: objects that are missing, do not fit, or are empty.

    Source: Arras, Osman, Samek 2022, relevance mass accuracy.
    """
    objects = _check_objects(objects, images, maps)
    positive = maps.detach().to(torch.promote_types(maps.dtype, torch.float32)).clamp_min(0)
    positive = positive / positive.amax((1, 2), keepdim=True).clamp_min(torch.finfo(positive.dtype).tiny)
    total = positive.sum((1, 2))
    return one_number((positive * objects).sum((1, 2)) / total.where(total > 0, 1))


@metric(lower_is_better=False)
def relevance_rank(
    model: nn.Module, images: Tensor, maps: Tensor, targets: Tensor | None = None, *, objects: Tensor | None = None
) -> Curve:
    """Share of the K most relevant pixels that lie on the object, K being the object's size.

    Args:
        maps: (B, H, W); ties go by index.
        objects: (B, H, W) bool, true on the object.

    Returns:
        Curve of one point in [0, 1].

    Raises:
        ValueError: objects that are missing, do not fit, or are empty.

    Source: Arras, Osman, Samek 2022, relevance rank accuracy.
    """
    objects = _check_objects(objects, images, maps).flatten(1)
    size = objects.sum(1)
    hits = (objects & (ranks(maps) < size[:, None])).sum(1)
    return one_number(hits.to(torch.promote_types(maps.dtype, torch.float32)) / size)
