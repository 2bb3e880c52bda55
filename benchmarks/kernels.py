"""Efficiency: the time of the bare passes that a kernel needs, over its own; 1 is a kernel that costs nothing itself."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

import saliency_lib as sl
from benchmarks.measure import SAME_PASSES, Race
from benchmarks.scenes import bare_passes, counted, network, photographs
from saliency_lib.attribution.sidu import feature_masks, features_at


def _race(model: nn.Module, pixels: Tensor, work: Callable[[], object], count: int, backward: bool = False) -> Race:
    """Both sides give how many images they sent through the network: the kernel no more than was counted by hand."""
    return Race(counted(model, work), counted(model, bare_passes(model, pixels, count, backward)), SAME_PASSES)


def method(name: str, side: int, passes: int, images: int = 1, backward: bool = False, **options: object) -> Race:
    """A method with its target given.

    Args:
        passes: through the network an image, by the method's definition.
    """
    model, pixels = network("resnet18", side), photographs(images, side)
    targets = torch.zeros(images, dtype=torch.long, device=pixels.device)
    return _race(model, pixels, lambda: sl.METHODS[name](model, pixels, targets, **options), images * passes, backward)


def curve(name: str, side: int, maps: int, steps: int) -> Race:
    """A perturbation curve of several maps, each with an image of its own."""
    model, pixels = network("resnet18", side), photographs(maps, side)
    ranking = torch.rand(maps, side, side, generator=torch.Generator().manual_seed(1)).to(pixels)
    return _race(model, pixels, lambda: sl.METRICS[name](model, pixels, ranking, steps=steps), maps * (steps + 1))


def sidu(side: int, layer: str) -> Race:
    """SIDU: a pass for each mask that differs from the others, one for the image."""
    model, pixels = network("resnet18", side), photographs(1, side)
    _, features, _ = features_at(model, model.get_submodule(layer), pixels, None)
    masks, _ = feature_masks(features[0], pixels, 0.1)
    return _race(model, pixels, lambda: sl.METHODS["sidu"](model, pixels, layer=layer), masks.count + 1)


def lime(side: int, samples: int, segments: int) -> Race:
    """LIME with square segments given."""
    place = torch.arange(side) * segments // side
    regions = (place[:, None] * segments + place)[None]
    return method("lime", side, samples, samples=samples, segments=regions)
