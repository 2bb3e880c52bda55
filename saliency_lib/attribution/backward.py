"""The engine of backward attribution: a gradient averaged along a path of inputs under a rule, then reduced to a map."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor, nn

from saliency_lib.attribution.rules import Rule, plain
from saliency_lib.core.batching import arranged, chunk_size, classes_at, frozen, in_chunks, recording, resolve_targets
from saliency_lib.core.checks import as_targets, check_images, check_kind, first_rows
from saliency_lib.core.fills import noise_range
from saliency_lib.core.options import Names, Positive, Range, no_such
from saliency_lib.core.streams import Indices, noise_by_draw, pairs

Nodes = Annotated[int, Range(1, 2000)]  # of a quadrature; finding more takes minutes, and would change nothing
PointsOf = Callable[[Tensor, Tensor], Tensor]  # image rows (n,) and point numbers (n,) -> (n, C, H, W)


@dataclass(frozen=True)
class Path:
    """The inputs at which the gradient of each image is taken.

    Args:
        weights: (K,) weight of each point; they sum to 1.
        at: `at(rows, points)` returns the inputs (n, C, H, W) for image rows (n,) and point numbers (n,).
        difference: `difference(rows, points)` returns each input minus its reference, (n, C, H, W); the gradient is
            multiplied by it. None is a path without references, whose gradients stay as they are.
        stays: whether every point is the image itself, so that the path's own logits show the predicted class.
    """

    weights: Tensor
    at: PointsOf
    difference: PointsOf | None = None
    stays: bool = False


def point(images: Tensor) -> Path:
    """Return the path of one point, the image itself."""
    check_kind("images", images, 4)
    return Path(images.new_ones(1), lambda rows, points: images[rows], stays=True)


def straight_line(images: Tensor, baseline: Tensor, steps: int) -> Path:
    """Return the Gauss-Legendre nodes between the baseline and the image, exact for polynomials up to degree 2 steps - 1."""
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    alphas = torch.as_tensor((1 + nodes) / 2).to(images)

    def at(rows: Tensor, points: Tensor) -> Tensor:
        return torch.lerp(baseline[rows], images[rows], alphas[points].view(-1, 1, 1, 1))

    return Path(torch.as_tensor(weights / 2).to(images), at)


def gaussian_ball(images: Tensor, samples: int, sigma: float, seed: int, indices: Indices, *, paired: bool = False) -> Path:
    """Return noisy copies of the image; `sigma` is in units of the image's own range (maximum minus minimum).

    Args:
        paired: whether the copies come in pairs with opposite noise.
    """
    check_kind("images", images, 4)
    spread = sigma * (images.flatten(1).amax(1) - images.flatten(1).amin(1)).view(-1, 1, 1, 1)
    noise = noise_by_draw(images, "smoothgrad", torch.randn, seed, indices, shared=2 if paired else 1)

    def at(rows: Tensor, points: Tensor) -> Tensor:
        signs = (1 - 2 * (points % 2)).to(images).view(-1, 1, 1, 1) if paired else 1
        return images[rows] + signs * spread[rows] * noise(rows, points)

    return Path(even_weights(images, samples), at)


def noisy_lines(images: Tensor, samples: int, sigma: float, seed: int, indices: Indices) -> Path:
    """Return one random point on each of several lines from noise images to noisy copies of the image.

    The points are uniform on the lines. `sigma`, the standard deviation of the copies' noise, is a share of the width of the
    noise images' range, which is 1 for pixels in [0, 1].
    """
    least, greatest = noise_range(images)
    noise = noise_by_draw(images, "copies", torch.randn, seed, indices)
    start = noise_images(images, seed, indices)
    place = noise_by_draw(images[:, :1, :1, :1], "places", torch.rand, seed, indices)

    def difference(rows: Tensor, points: Tensor) -> Tensor:
        return images[rows] + sigma * ((greatest - least)[rows] * noise(rows, points)) - start(rows, points)

    def at(rows: Tensor, points: Tensor) -> Tensor:
        return start(rows, points) + place(rows, points) * difference(rows, points)

    return Path(even_weights(images, samples), at, difference)


def noise_images(images: Tensor, seed: int, indices: Indices) -> PointsOf:
    """Return a function that gives images of uniform noise in [0, 1], or as far as a series goes beyond (`noise_range`).

    They are the baselines of the SHAP methods.
    """
    least, greatest = noise_range(images)
    shares = noise_by_draw(images, "baselines", torch.rand, seed, indices)
    return lambda rows, points: torch.lerp(least[rows], greatest[rows], shares(rows, points))


def even_weights(images: Tensor, samples: int) -> Tensor:
    """Return the weights (samples,) of points that count alike."""
    return images.new_full((samples,), 1 / samples)


Slope = Callable[[Tensor, Tensor, Tensor], Tensor]  # logits (n, K), inputs (n, C, H, W), targets (n,) -> (n, ...)


def class_slope(logits: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
    """Return the gradient (n, C, H, W) of each target's logit."""
    return torch.autograd.grad(logits.gather(1, targets[:, None]).sum(), inputs)[0]


def slopes_of_all_classes(logits: Tensor, inputs: Tensor, targets: Tensor, classes: Positive | None = None) -> Tensor:
    """Return the gradient of the target's logit, and at each pixel the largest and the smallest gradient of the others.

    This takes one backward pass per class on one graph. Memory holds three gradients, however many classes there are.

    Args:
        classes: how many classes are compared, the target and those with the highest other logits; None is all.

    Returns:
        (n, 3, C, H, W); with one class the other two gradients are -inf and inf.
    """
    count = logits.shape[1] if classes is None else min(classes, logits.shape[1])
    rivals = logits.detach().scatter(1, targets[:, None], -math.inf).argsort(dim=1, descending=True, stable=True)[:, : count - 1]
    scores = logits.gather(1, torch.cat([targets[:, None], rivals], 1)).sum(0)
    own = torch.autograd.grad(scores[0], inputs, retain_graph=count > 1)[0]
    highest, lowest = torch.full_like(own, -math.inf), torch.full_like(own, math.inf)
    for number in range(1, count):
        other = torch.autograd.grad(scores[number], inputs, retain_graph=number < count - 1)[0]
        torch.maximum(highest, other, out=highest)
        torch.minimum(lowest, other, out=lowest)
    return torch.stack([own, highest, lowest], 1)


def where_active(slopes: Tensor) -> Tensor:
    """Return the target's gradient if it is strictly above every other class's, else 0; slopes are (n, 3, C, H, W)."""
    own, highest, _ = slopes.unbind(1)
    return torch.where(own > highest, own, 0)


def where_inactive(slopes: Tensor) -> Tensor:
    """Return the target's gradient if it is strictly below every other class's, else 0; slopes are (n, 3, C, H, W)."""
    own, _, lowest = slopes.unbind(1)
    return torch.where(own < lowest, own, 0)


def active_slope(logits: Tensor, inputs: Tensor, targets: Tensor, classes: Positive | None = None) -> Tensor:
    """Return the target's gradient where it is active, else 0; (n, C, H, W)."""
    return where_active(slopes_of_all_classes(logits, inputs, targets, classes))


def path_gradient(
    model: nn.Module,
    images: Tensor,
    targets: Tensor | None,
    path: Path,
    *,
    batch_size: Positive | None = None,
    **options: Any,
) -> Tensor:
    """Average a gradient over a path, computed under a backward rule.

    G = sum_k w_k slope(f at x_k). With `class_slope` each point takes one forward and one backward pass. Memory grows with
    `batch_size` alone.

    Args:
        images: (B, C, H, W) pixels.
        targets: (B,) classes; None for the predicted ones.
        path: the points and their weights.
        batch_size: most inputs in one pass; None chooses.
        options: `slope` and `rule`, as in `averaged`.

    Returns:
        (B, ...), as `slope` gives it for one point: (B, C, H, W) with `class_slope`, in the images' dtype.

    Raises:
        ValueError: a gradient is NaN or infinite, or a logit is NaN; also where the slope or the reduction would drop it.
    """
    images = check_images(images)
    with frozen(model):
        if targets is not None:
            targets = as_targets(targets, images)
        elif not path.stays:
            targets = resolve_targets(model, images, None, batch_size)
        average, damaged = averaged(model, images, targets, path, batch_size=batch_size, **options)
    check_damage(damaged)
    return average


def averaged(
    model: nn.Module,
    images: Tensor,
    targets: Tensor | None,
    path: Path,
    *,
    slope: Slope = class_slope,
    rule: Rule = plain,
    batch_size: int | None = None,
    known: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return `path_gradient` of a frozen model, and the number (B,) of damaged gradients of each image, for `check_damage`.

    Args:
        slope: `slope(logits, inputs, targets)` returns what is averaged, (n, ...) for n points.
        rule: how the gradient passes non-linear units: `rules.plain`, `rules.guided` or `rules.rescaled`.
        known: whether the targets are known to be classes of the model. Nothing then makes the host wait for a GPU.
    """
    steps = len(path.weights)
    total: list[Tensor] = []
    counts = torch.zeros(len(images), dtype=torch.int32, device=images.device)

    def add(start: int, stop: int) -> None:
        rows, points = pairs(start, stop, steps, images.device)
        with recording():
            inputs = arranged(path.at(rows, points).detach()).requires_grad_()
            damaged = torch.zeros(len(rows), dtype=torch.bool, device=images.device)
            inputs.register_hook(partial(_note_not_finite, damaged))
            difference = None if path.difference is None else path.difference(rows, points)
            with rule(model, None if difference is None else inputs.detach() - difference):
                logits = model(inputs)
            classes = classes_at(logits, targets, rows, check=start == 0 and not known)
            if not logits.requires_grad:
                raise ValueError(
                    "no gradient leads from the model's output to the image: something detaches or rounds it, for instance "
                    "argmax or numpy; use a method that takes forward passes alone (rise, occlusion, lime)"
                )
            values = slope(logits, inputs, classes)
        damaged |= logits.detach().isnan().any(1)
        values = values if difference is None else values * difference
        if not total:
            total.append(values.new_zeros(len(images), *values.shape[1:]))
        counts.index_add_(0, rows, damaged.to(counts))
        total[0].index_add_(0, rows, values * path.weights[points].view(-1, *[1] * (values.ndim - 1)))

    in_chunks(add, len(images) * steps, chunk_size(images, batch_size))
    return total[0], counts


def check_damage(counts: Tensor) -> None:
    """Refuse gradients of which some (B,) are damaged.

    Raises:
        ValueError: the message says of which images.
    """
    if numbers := first_rows(counts > 0):
        raise ValueError(f"the gradient is NaN or infinite for images {numbers} of the batch; check the model's weights")


def _note_not_finite(damaged: Tensor, gradient: Tensor) -> None:
    """Set the rows (n,) of `damaged` whose gradient (n, C, H, W) is NaN or infinite."""
    damaged.logical_or_(~torch.isfinite(gradient).flatten(1).all(1))


REDUCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "max_abs": lambda values: values.abs().amax(1),
    "max": lambda values: values.amax(1),
    "max_positive": lambda values: values.relu().amax(1),
    "max_negative": lambda values: values.neg().relu().amax(1),
    "sum": lambda values: values.sum(1),
    "abs_sum": lambda values: values.sum(1).abs(),
    "mean": lambda values: values.mean(1),
    "std": lambda values: values.std(1),
    "norm": lambda values: values.norm(dim=1),
}


Reduction = Annotated[str, Names(REDUCTIONS)] | Callable[[Tensor], Tensor]


def reduced(values: Tensor, reduction: Reduction) -> Tensor:
    """Reduce values (B, C, H, W) over their channels to maps (B, H, W).

    Args:
        reduction: a name in REDUCTIONS, or a function of the values.
    """
    if callable(reduction):
        return reduction(values)
    if reduction not in REDUCTIONS:
        raise no_such("reduction", reduction, REDUCTIONS)
    if reduction == "std" and values.shape[1] < 2:
        raise ValueError("reduction 'std' needs at least two channels, and the images have one; use 'max_abs'")
    return REDUCTIONS[reduction](values)
