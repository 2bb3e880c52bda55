"""Efficiency: the time of the network's own passes over that of the kernel; 1 is a kernel without any overhead."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

import saliency_lib as sl
from benchmarks.measure import SAME_PASSES, Race
from benchmarks.scenes import bare_passes, counted, network, photographs
from saliency_lib.attribution.layers import features_at
from saliency_lib.attribution.sidu import feature_masks


def _race(model: nn.Module, pixels: Tensor, work: Callable[[], object], count: int, backward: bool = False) -> Race:
    """Build a race in which both sides return how many images they sent through the network, to compare with the definition."""
    return Race(counted(model, work), counted(model, bare_passes(model, pixels, count, backward)), SAME_PASSES)


def method(name: str, side: int, passes: int, images: int = 1, backward: bool = False, **options: object) -> Race:
    """Build the race of a method with given targets.

    Args:
        passes: passes of the network per image, according to the method's definition.
    """
    model, pixels = network("resnet18", side), photographs(images, side)
    targets = torch.zeros(images, dtype=torch.long, device=pixels.device)
    return _race(model, pixels, lambda: sl.METHODS[name](model, pixels, targets, **options), images * passes, backward)


def curve(name: str, side: int, maps: int, steps: int) -> Race:
    """Build the race of a perturbation curve of several maps, each of its own image."""
    model, pixels = network("resnet18", side), photographs(maps, side)
    ranking = torch.rand(maps, side, side, generator=torch.Generator().manual_seed(1)).to(pixels)
    return _race(model, pixels, lambda: sl.METRICS[name](model, pixels, ranking, steps=steps), maps * (steps + 1))


def sidu(side: int, layer: str) -> Race:
    """Build the race of SIDU, which takes one pass per distinct mask and one for the image."""
    model, pixels = network("resnet18", side), photographs(1, side)
    _, features, _, _ = features_at(model, model.get_submodule(layer), pixels, None)
    masks, _ = feature_masks(features[0], pixels, 0.1)
    return _race(model, pixels, lambda: sl.METHODS["sidu"](model, pixels, layer=layer), masks.count + 1)


def lime(side: int, samples: int, segments: int) -> Race:
    """Build the race of LIME with given square segments."""
    place = torch.arange(side) * segments // side
    regions = (place[:, None] * segments + place)[None]
    return method("lime", side, samples, samples=samples, segments=regions)
