"""Integrated gradients along lines to the image: plain, guided (GNL), active, and over many noisy lines."""

from functools import partial
from typing import Any

from torch import Tensor, nn

from saliency_lib.attribution.backward import (
    Nodes,
    Reduction,
    Slope,
    active_slope,
    class_slope,
    noisy_lines,
    path_gradient,
    reduced,
    straight_line,
)
from saliency_lib.attribution.bisection import bisected_gradient
from saliency_lib.attribution.rules import PoolRule, Rule, guided_by, plain
from saliency_lib.attribution.table import METHODS
from saliency_lib.core.batching import frozen, logits_of, resolve_targets
from saliency_lib.core.calls import kernel
from saliency_lib.core.checks import check_images, check_maps
from saliency_lib.core.fills import Fill, filled
from saliency_lib.core.options import Above0, Count, NotNegative, Positive, Seed
from saliency_lib.core.streams import Indices


def _integrated(
    model: nn.Module,
    images: Tensor,
    targets: Tensor | None,
    steps: int,
    baseline: Fill,
    reduction: Reduction,
    seed: int,
    indices: Indices,
    batch_size: int | None,
    tolerance: float | None,
    *,
    slope: Slope = class_slope,
    rule: Rule = plain,
) -> Tensor:
    images = check_images(images)
    start = filled(baseline, model, images, indices=indices, seed=seed, name="baseline")
    options: dict[str, Any] = {"slope": slope, "rule": rule, "batch_size": batch_size}
    if tolerance is None:
        average = path_gradient(model, images, targets, straight_line(images, start, steps), **options)
    else:
        average = bisected_gradient(model, images, start, targets, tolerance=tolerance, most=steps, **options)
    return reduced((images - start) * average, reduction)


@METHODS.register(family="path", passes="50 F + 50 B", paper="Sundararajan et al. 2017", added=("tolerance",))
def integrated_gradients(
    model: nn.Module,
    images: Tensor,
    targets: Tensor | None = None,
    *,
    steps: Nodes = 50,
    tolerance: Above0 | None = None,
    baseline: Fill = "mean",
    reduction: Reduction = "sum",
    seed: Seed = 0,
    indices: Indices = None,
    batch_size: Positive | None = None,
) -> Tensor:
    """Attribute the change of the score from the baseline to the image to the pixels.

    A = (x - x') * integral over a in [0, 1] of d f_c / d x at x' + a (x - x'), summed over the channels.

    Args:
        steps: Gauss-Legendre nodes; `completeness_error` tells whether they suffice. With a tolerance, the most nodes.
        tolerance: largest error of completeness relative to |f_c(x) - f_c(x')|. Each image then takes as many nodes of a
            trapezoid rule as it needs, placed where the rule misses the change of the score; see `bisected_gradient`, and
            `estimate` for how many they were. None is the fixed rule.
        baseline: x', see `fills.filled`.
        seed, indices: fix a `noise` baseline.

    Returns:
        (B, H, W), signed, in logits; each map sums to f_c(x) - f_c(x') up to the integration's error.

    Source: Sundararajan, Taly, Yan 2017, section 3; 50 nodes and the mean colour as Kwon, Koo, Cho 2020.
    Differs: the 2017 paper starts from black (`baseline="black"`).
    """
    return _integrated(model, images, targets, steps, baseline, reduction, seed, indices, batch_size, tolerance)


@METHODS.register(family="path", passes="50 F + 50 B", paper="Kwon et al. 2020", added=("tolerance",))
def gnl_integrated_gradients(
    model: nn.Module,
    images: Tensor,
    targets: Tensor | None = None,
    *,
    steps: Nodes = 50,
    tolerance: Above0 | None = None,
    baseline: Fill = "mean",
    pool_rule: PoolRule = "exact",
    reduction: Reduction = "sum",
    seed: Seed = 0,
    indices: Indices = None,
    batch_size: Positive | None = None,
) -> Tensor:
    """Compute integrated gradients under the guided rule, which only positive gradients pass.

    The rule applies to ReLU, ReLU6, Softplus and max-pool units. PAIR's guided integrated gradients, which change the path
    instead, are `guided_path_integrated_gradients`.

    Args:
        steps, tolerance, baseline, seed, indices: as in integrated_gradients. The tolerance is relative to the sum of the map.
        pool_rule: `exact` (the arg-max receives the positive part) or `released` (its nearest-neighbour approximation).

    Returns:
        (B, H, W), signed; the maps do not sum to the change of the score. The paper ranks by |sum over channels|
        (`reduction="abs_sum"`, or the metrics' preset `gnl`).

    Raises:
        ValueError: the network has no such unit, or has another non-linearity.

    Source: Kwon, Koo, Cho 2020, and its released code.
    """
    rule = guided_by(pool_rule)
    return _integrated(model, images, targets, steps, baseline, reduction, seed, indices, batch_size, tolerance, rule=rule)


@METHODS.register(family="path", passes="50 F + 50 B per class", paper="combination of the compendium", added=("tolerance",))
def active_integrated_gradients(
    model: nn.Module,
    images: Tensor,
    targets: Tensor | None = None,
    *,
    steps: Nodes = 50,
    tolerance: Above0 | None = None,
    baseline: Fill = "mean",
    classes: Positive | None = None,
    reduction: Reduction = "sum",
    seed: Seed = 0,
    indices: Indices = None,
    batch_size: Positive | None = None,
) -> Tensor:
    """Compute integrated gradients of the active gradient: at each point of the path, 0 where another class gains as much.

    Args:
        steps, tolerance, baseline, seed, indices: as in integrated_gradients. The tolerance is relative to the sum of the map.
        classes: how many classes are compared, see active_gradient; each takes one backward pass per step.

    Returns:
        (B, H, W), signed.

    Source: a combination of the compendium, PAG's slopes along the path of integrated gradients.
    """
    slope = partial(active_slope, classes=classes)
    return _integrated(model, images, targets, steps, baseline, reduction, seed, indices, batch_size, tolerance, slope=slope)


@METHODS.register(family="path", passes="25 F + 25 B", paper="Lundberg, Lee 2017", revision=1)
def gradient_shap(
    model: nn.Module,
    images: Tensor,
    targets: Tensor | None = None,
    *,
    samples: Count = 25,
    sigma: NotNegative = 0.09,
    reduction: Reduction = "sum",
    seed: Seed = 0,
    indices: Indices = None,
    batch_size: Positive | None = None,
) -> Tensor:
    """Estimate expected integrated gradients from random points on lines between noise images and noisy copies of the image.

    Args:
        samples: lines, each with one point and its own noise image as baseline; one forward and backward pass each.
        sigma: standard deviation of the copies' noise, in units of pixel value; for series, as a share of the range of the
            noise images (`fills.noise_range`).
        seed, indices: fix the draws of each image, whatever batch it is in.

    Returns:
        (B, H, W), signed, in logits; sums to f_c(x) minus the mean of f_c over noise images, in expectation.

    Source: Lundberg, Lee 2017, and Erion et al. 2021; noise images and 0.09 as Ismail et al. 2021, released code.
    Differs: captum's GradientShap draws from a given set of baselines and from the global random state.
    """
    path = noisy_lines(check_images(images), samples, sigma, seed, indices)
    return reduced(path_gradient(model, images, targets, path, batch_size=batch_size), reduction)


@kernel
def completeness_error(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    targets: Tensor | None = None,
    *,
    baseline: Fill = "mean",
    seed: Seed = 0,
    indices: Indices = None,
    batch_size: Positive | None = None,
) -> Tensor:
    """Measure how far signed maps are from summing to the change of the score: |sum of the map - (f_c(x) - f_c(x'))|.

    Args:
        maps: (B, H, W), summed over channels, as integrated_gradients gives them.

    Returns:
        (B,), not negative, in logits; near 0 if the integration has converged.

    Source: Sundararajan, Taly, Yan 2017, axiom of completeness.
    """
    images = check_images(images)
    check_maps(maps, images)
    with frozen(model):
        rows = resolve_targets(model, images, targets, batch_size)[:, None]
        start = filled(baseline, model, images, indices=indices, seed=seed, name="baseline")
        change = logits_of(model, images, batch_size).gather(1, rows) - logits_of(model, start, batch_size).gather(1, rows)
    return (maps.flatten(1).sum(1) - change[:, 0]).abs()
