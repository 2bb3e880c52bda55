"""Sanity: does a map depend on the model's weights, and does it stay the same when the image hardly changes?"""

import copy
import math
from collections.abc import Callable
from typing import Annotated

import numpy as np
import torch
from torch import Tensor, nn

from saliency_lib.core.batching import frozen, resolve_targets
from saliency_lib.core.checks import check_images, check_map_shape, check_maps, refuse_damaged_maps
from saliency_lib.core.locks import Stream
from saliency_lib.core.optional import optional
from saliency_lib.core.options import Count, Names, NotNegative, Positive, Seed
from saliency_lib.core.streams import Indices, noise, row_indices, seed_of
from saliency_lib.evaluation.curve import Curve, one_number
from saliency_lib.evaluation.table import METRICS

Explain = Callable[[nn.Module, Tensor, Tensor], Tensor]


class _Explained:
    """The maps of a method, whose values are checked together, so that a GPU is asked once."""

    def __init__(self, explain: Explain, images: Tensor):
        self.explain, self.damaged = explain, torch.zeros(len(images), dtype=torch.bool, device=images.device)

    def maps(self, model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
        """Return maps of the images, refuse those of another shape, and note those that are not finite."""
        maps = self.explain(model, images, targets)
        check_map_shape(maps, images)
        self.damaged |= ~torch.isfinite(maps).flatten(1).all(1)
        return maps.detach()

    def check(self) -> None:
        """Refuse maps that are not finite."""
        refuse_damaged_maps(self.damaged)


def _checked(explain: Explain | None, images: Tensor, maps: Tensor) -> tuple[Explain, Tensor]:
    """Return the method and the images without a graph, and refuse what does not fit."""
    images = check_images(images)
    check_maps(maps, images)
    if not callable(explain):
        raise ValueError(
            "explain is missing; pass explain=, a function of (model, images, targets) that returns the method's maps"
        )
    return explain, images


@METRICS.register(lower_is_better=True, paper="Yeh et al. 2019")
def max_sensitivity(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    targets: Tensor | None = None,
    *,
    explain: Explain | None = None,
    radius: NotNegative = 0.02,
    samples: Count = 10,
    seed: Seed = 0,
    indices: Indices = None,
    batch_size: Positive | None = None,
) -> Curve:
    """Measure the largest relative change of the map when the image changes by very little.

    max over d of |map(x + d) - map(x)| / |map(x)| (Euclidean norms), where d is uniform with |d_p| <= radius at every pixel p.

    Args:
        images: (B, C, H, W) pixels in [0, 1].
        maps: (B, H, W), the maps that `explain` returns for the images.
        targets: (B,) classes to explain; None for those predicted for the unchanged images.
        explain: the method, (model, images, targets) -> maps; its own random numbers must be fixed.
        radius: largest change of a pixel value.
        samples: draws of d; the maximum grows with their number.
        seed, indices: fix the draws of each image.

    Returns:
        Curve of one point, not negative; a small value is evidence for the map. A map that is 0 everywhere has the norm 1.

    Raises:
        ValueError: explain is missing, or one of its maps does not fit or contains NaN.

    Source: Yeh et al. 2019, section 4; constants of captum's sensitivity_max.
    """
    explain, images = _checked(explain, images, maps)
    numbers = row_indices(images, indices)
    precise = torch.promote_types(maps.dtype, torch.float32)
    flat = maps.detach().flatten(1).to(precise)
    worst = flat.new_zeros(len(flat))
    explained = _Explained(explain, images)
    with frozen(model):
        targets = resolve_targets(model, images, targets, batch_size)
        for sample in range(samples):
            moved = images + radius * (2 * noise(images, numbers, seed, "max_sensitivity", sample) - 1)
            change = explained.maps(model, moved, targets).flatten(1).to(flat) - flat
            worst = torch.maximum(worst, change.norm(dim=1))
    explained.check()
    norm = flat.norm(dim=1)
    return one_number(worst / norm.where(norm > 0, 1))


def average_ranks(values: Tensor) -> Tensor:
    """Return the ranks (B, n) of values (B, n) from 0; equal values share the mean of their ranks."""
    ordered = values.sort(1).values
    return (torch.searchsorted(ordered, values) + torch.searchsorted(ordered, values, right=True) - 1).double() / 2


def rank_correlation(one: Tensor, other: Tensor, compared: Tensor | None = None) -> Tensor:
    """Return Spearman's correlation (B,) of maps (B, H, W): 1 for two constant maps, 0 for a constant map and another.

    Args:
        compared: (B, H, W) bool, the pixels that are correlated; None for all.
    """
    pixels = (torch.ones_like(one, dtype=torch.bool) if compared is None else compared).flatten(1)
    ranked = [average_ranks(maps.flatten(1).where(pixels, math.inf)) * pixels for maps in (one, other)]
    a, b = ((values - values.sum(1, keepdim=True) / pixels.sum(1, keepdim=True)) * pixels for values in ranked)
    size = (a.square().sum(1) * b.square().sum(1)).sqrt()
    constant = a.eq(0).all(1) & b.eq(0).all(1)
    return ((a * b).sum(1) / size.where(size > 0, 1)).where(~constant, 1)


def most_frequent(values: Tensor) -> Tensor:
    """Return the most frequent of each row of values (B, n), (B, 1); of several, the smallest.

    `torch.mode` asks a GPU about every row.
    """
    ordered = values.sort(1).values
    times = torch.searchsorted(ordered, ordered, right=True) - torch.searchsorted(ordered, ordered)
    return ordered.gather(1, times.argmax(1, keepdim=True))


def foreground(maps: Tensor) -> Tensor:
    """Return which pixels (B, H, W) of the maps differ from the most frequent value, the background.

    All pixels are the foreground of a map in which no value is repeated, or whose foreground would be constant.
    """
    values = maps.flatten(1)
    background = values.eq(most_frequent(values))
    least = values.where(~background, math.inf).amin(1, keepdim=True)
    greatest = values.where(~background, -math.inf).amax(1, keepdim=True)
    everywhere = (background.sum(1, keepdim=True) == 1) | (least >= greatest)
    return (~background | everywhere).view(maps.shape)


def foreground_correlation(original: Tensor, other: Tensor) -> Tensor:
    """Return Spearman's correlation (B,) of maps (B, H, W) over the foreground of the original ones."""
    return rank_correlation(original, other, foreground(original))


def structure(one: Tensor, other: Tensor) -> Tensor:
    """Return the SSIM (B,) of the maps' absolute values, each scaled to [0, 1]; a constant map becomes 0.

    Raises:
        ValueError: a side of the maps is shorter than 3 pixels.
    """
    window = min(7, (min(one.shape[1:]) - 1) // 2 * 2 + 1)
    if window < 3:
        raise ValueError(f"ssim needs maps of at least 3x3 pixels, got {tuple(one.shape[1:])}; choose similarity='spearman'")
    with optional("methods"):
        from skimage.metrics import structural_similarity

    pairs = zip(_unit(one), _unit(other), strict=True)
    return torch.tensor([structural_similarity(a, b, win_size=window, data_range=1.0) for a, b in pairs]).to(one.device)


def _unit(maps: Tensor) -> np.ndarray:
    """Scale the absolute values of each map to [0, 1]."""
    values = maps.abs().double()
    least, greatest = values.amin((1, 2), keepdim=True), values.amax((1, 2), keepdim=True)
    spread = greatest - least
    return ((values - least) / spread.where(spread > 0, 1)).cpu().numpy()


def unless_constant(similarity: Callable[[Tensor, Tensor], Tensor], original: Tensor, other: Tensor) -> Tensor:
    """Return the similarity (B,) of maps (B, H, W), and 1 if one of them is constant, which shows no dissimilarity."""
    varies = [maps.amin((1, 2)) < maps.amax((1, 2)) for maps in (original, other)]
    return similarity(original, other).where(varies[0] & varies[1], 1)


SIMILARITIES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "spearman": lambda original, other: unless_constant(foreground_correlation, original.abs(), other.abs()),
    "spearman_signed": lambda original, other: unless_constant(foreground_correlation, original, other),
    "ssim": lambda original, other: unless_constant(structure, original.abs(), other.abs()),
}


def _initialise(layer: nn.Module, seed: int) -> None:
    """Draw the layer's own parameters again; a seed gives the same ones for every device, precision and global generator.

    The layer's `reset_parameters` runs on the CPU in float32. A parameter that it leaves as it was is drawn from the normal
    distribution with the mean and the standard deviation of its values.
    """
    own = dict(layer.named_parameters(recurse=False))
    trained = {name: parameter.detach().clone() for name, parameter in own.items()}
    reset = getattr(layer, "reset_parameters", None) or getattr(layer, "_reset_parameters", None)
    with Stream(seed).drawn(), torch.no_grad():
        if reset:
            weight = next(iter(own.values()))
            device, dtype = weight.device, weight.dtype
            layer.to("cpu", torch.float32)
            reset()
            layer.to(device, dtype)
        for name, parameter in layer.named_parameters(recurse=False):
            if torch.equal(parameter, trained[name]):
                values = trained[name].to("cpu", torch.float32)
                parameter.copy_(values.mean() + values.std(correction=0) * torch.randn(values.shape))


@METRICS.register(lower_is_better=True, paper="Adebayo et al. 2018")
def model_randomisation(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    targets: Tensor | None = None,
    *,
    explain: Explain | None = None,
    steps: Count = 8,
    similarity: Annotated[str, Names(SIMILARITIES)] = "spearman",
    seed: Seed = 0,
    batch_size: Positive | None = None,
) -> Curve:
    """Measure how similar the map stays as the model's layers are initialised again, from the last to the first.

    Args:
        images: (B, C, H, W) pixels in [0, 1].
        maps: (B, H, W), the maps that `explain` returns for the images.
        targets: (B,) classes to explain; None for those predicted by the unchanged model.
        explain: the method, (model, images, targets) -> maps. It receives copies of the model, so give a layer by its name.
        steps: number of groups of layers, each explained once; fewer if the model has fewer layers.
        similarity: `spearman` correlation of absolute values, `spearman_signed`, or `ssim` of absolute values in [0, 1].
        seed: fixes the new weights of each layer, whatever the steps.

    Returns:
        Curve over the share of layers that are random, in [0, 1], with values of at most 1, the first of them 1. A small area
        is evidence for the map; a method that ignores the weights has 1.

    Raises:
        ValueError: explain is missing, one of its maps does not fit or contains NaN, or the model has no parameters.

    Source: Adebayo et al. 2018, section 3.1, cascading randomisation. Differs: layers are the modules with parameters of their
    own, in the order of their definition. New weights are those of a layer's own initialisation; parameters that it does not
    cover, such as class tokens, position embeddings and layer scales, are drawn from a normal distribution with their own mean
    and standard deviation, so a parameter with a single value stays. Spearman's correlation leaves out the background, the
    pixels with the original map's most frequent value: on digits four fifths of a map multiplied by the image are 0 for any
    weights, and these ties alone keep the correlation high. If a map is constant, its similarity is 1: a correlation with it is
    undefined, and a map that vanishes, for instance behind dead units, is no evidence of dissimilarity. SSIM has its usual
    7-pixel window.
    """
    explain, images = _checked(explain, images, maps)
    similarity_of = SIMILARITIES[similarity]
    with frozen(model):
        targets = resolve_targets(model, images, targets, batch_size)
    random = copy.deepcopy(model)
    layers = [layer for layer in random.modules() if list(layer.parameters(recurse=False))][::-1]
    if not layers:
        raise ValueError(f"{type(model).__name__} has no parameters, so no layer can be initialised again; pass a network")
    groups = np.array_split(np.arange(len(layers)), min(steps, len(layers)))
    values, explained = [maps.new_ones(len(maps), dtype=torch.float64)], _Explained(explain, images)
    for group in groups:
        for number in group.tolist():
            _initialise(layers[number], seed_of("model_randomisation", seed, number))
        with frozen(random):
            values.append(similarity_of(maps.detach(), explained.maps(random, images, targets)))
    explained.check()
    ends = [0, *(int(group[-1]) + 1 for group in groups)]
    shares = torch.tensor(ends, dtype=torch.float64, device=images.device) / len(layers)
    curve = torch.stack(values, 1).to(torch.promote_types(images.dtype, torch.float32))
    return Curve(shares.to(curve), curve, torch.trapezoid(curve, shares.to(curve), dim=1))
