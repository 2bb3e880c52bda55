"""The engine of backward attribution: a gradient averaged along a path of inputs under a rule, then reduced to a map."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from saliency_lib.attribution.rules import Rule, plain
from saliency_lib.core.batching import arranged, chunk_size, classes_of, frozen, in_chunks, recording, resolve_targets
from saliency_lib.core.checks import as_targets, check_images, positive
from saliency_lib.core.registry import no_such
from saliency_lib.core.streams import generator, row_indices

Draw = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Path:
    """The inputs at which the gradient of each image is taken.

    Args:
        weights: (K,) weight of each point; they sum to 1.
        at: `at(rows, points)` gives the inputs (n, C, H, W) for image rows (n,) and point numbers (n,).
        reach: `reach(rows, points)` gives how far each input lies from its reference, (n, C, H, W), by which its gradient is
            multiplied; None is a path without references, whose gradients stay as they are.
        stays: whether every point is the image itself, so that the predicted class shows on the way.
    """

    weights: Tensor
    at: Callable[[Tensor, Tensor], Tensor]
    reach: Callable[[Tensor, Tensor], Tensor] | None = None
    stays: bool = False


def point(images: Tensor) -> Path:
    """The image itself."""
    return Path(images.new_ones(1), lambda rows, points: images[rows], stays=True)


def straight_line(images: Tensor, baseline: Tensor, steps: int) -> Path:
    """Gauss-Legendre nodes between the baseline and the image, which integrate polynomials up to degree 2 steps - 1."""
    nodes, weights = np.polynomial.legendre.leggauss(positive("steps", steps))
    alphas = torch.as_tensor((1 + nodes) / 2).to(images)

    def at(rows: Tensor, points: Tensor) -> Tensor:
        return torch.lerp(baseline[rows], images[rows], alphas[points].view(-1, 1, 1, 1))

    return Path(torch.as_tensor(weights / 2).to(images), at)


def gaussian_ball(images: Tensor, samples: int, sigma: float, seed: int, indices: Tensor | None) -> Path:
    """Draws of Gaussian noise around the image; `sigma` is in units of the image's own range (max - min)."""
    _check_sigma(sigma)
    spread = sigma * (images.flatten(1).amax(1) - images.flatten(1).amin(1)).view(-1, 1, 1, 1)
    noise = _draws("smoothgrad", torch.randn, images, seed, indices)

    def at(rows: Tensor, points: Tensor) -> Tensor:
        return images[rows] + spread[rows] * noise(rows, points)

    return Path(images.new_full((positive("samples", samples),), 1 / samples), at)


def noise_images(images: Tensor, seed: int, indices: Tensor | None) -> Draw:
    """Images of uniform noise in [0, 1]."""
    return _draws("baselines", torch.rand, images, seed, indices)


def noisy_lines(images: Tensor, samples: int, sigma: float, seed: int, indices: Tensor | None) -> Path:
    """Uniform points on lines that lead from noise images to noisy copies of the image; `sigma` is in units of pixel value."""
    _check_sigma(sigma)
    noise = _draws("copies", torch.randn, images, seed, indices)
    start = noise_images(images, seed, indices)
    place = _draws("places", torch.rand, images[:, :1, :1, :1], seed, indices)

    def reach(rows: Tensor, points: Tensor) -> Tensor:
        return images[rows] + sigma * noise(rows, points) - start(rows, points)

    def at(rows: Tensor, points: Tensor) -> Tensor:
        return start(rows, points) + place(rows, points) * reach(rows, points)

    return Path(images.new_full((positive("samples", samples),), 1 / samples), at, reach)


def _check_sigma(sigma: float) -> None:
    if not math.isfinite(sigma) or sigma < 0:
        raise ValueError(f"sigma must be a number from 0, got {sigma}")


def _draws(purpose: str, law: Callable, images: Tensor, seed: int, indices: Tensor | None) -> Draw:
    """Random tensors of an image's shape, each fixed by seed, image and number, in whatever order they are asked for."""
    numbers = row_indices(images, indices)

    def draw(row: int, sample: int) -> Tensor:
        source = generator(images.device, purpose, seed, numbers[row], sample)
        return law(images.shape[1:], generator=source, device=images.device)  # of float32, that another precision sees the same

    def at(rows: Tensor, points: Tensor) -> Tensor:
        return torch.stack([draw(row, sample) for row, sample in zip(rows.tolist(), points.tolist(), strict=True)]).to(images)

    return at


Slope = Callable[[Tensor, Tensor, Tensor], Tensor]


def class_slope(logits: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
    """The gradient (n, C, H, W) of each target's logit."""
    return torch.autograd.grad(logits.gather(1, targets[:, None]).sum(), inputs)[0]


def slopes_of_all_classes(logits: Tensor, inputs: Tensor, targets: Tensor, classes: int | None = None) -> Tensor:
    """The gradient of the target's logit, and the largest and the smallest of the other classes' at each pixel.

    One backward pass a class on one graph; memory holds three gradients, however many classes there are.

    Args:
        classes: how many classes take part, the target and those with the highest other logits; None is all.

    Returns:
        (n, 3, C, H, W); with one class the other two are -inf and inf.
    """
    count = logits.shape[1] if classes is None else min(positive("classes", classes), logits.shape[1])
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
    """The target's gradient where it is strictly above every other class's, else 0; slopes (n, 3, C, H, W)."""
    own, highest, _ = slopes.unbind(1)
    return torch.where(own > highest, own, 0)


def active_slope(logits: Tensor, inputs: Tensor, targets: Tensor, classes: int | None = None) -> Tensor:
    """The target's gradient where it is active, (n, C, H, W)."""
    return where_active(slopes_of_all_classes(logits, inputs, targets, classes))


def where_inactive(slopes: Tensor) -> Tensor:
    """The target's gradient where it is strictly below every other class's, else 0; slopes (n, 3, C, H, W)."""
    own, _, lowest = slopes.unbind(1)
    return torch.where(own < lowest, own, 0)


def path_gradient(
    model: nn.Module,
    images: Tensor,
    targets: Tensor | None,
    path: Path,
    *,
    slope: Slope = class_slope,
    rule: Rule = plain,
    batch_size: int | None = None,
) -> Tensor:
    """The weighted mean over a path of a gradient, taken under a backward rule.

    G = sum_k w_k slope(f at x_k); with `class_slope` one forward and one backward pass a point. Memory grows with
    `batch_size` alone.

    Args:
        images: (B, C, H, W) pixels.
        targets: (B,) classes; None for the predicted ones.
        path: the points and their weights.
        slope: `slope(logits, inputs, targets)` gives what is averaged, (n, ...) for n points.
        rule: how the gradient passes non-linear units, `rules.plain` or `rules.guided`.
        batch_size: most inputs in one pass; None chooses.

    Returns:
        (B, ...), as `slope` gives it for one point: (B, C, H, W) with `class_slope`; the images' dtype.
    """
    images = check_images(images)
    steps = len(path.weights)
    total: list[Tensor] = []
    with frozen(model):
        if targets is not None:
            targets = as_targets(targets, images)
        elif not path.stays:
            targets = resolve_targets(model, images, None, batch_size)

        def add(start: int, stop: int) -> None:
            pairs = torch.arange(start, stop, device=images.device)
            rows, points = pairs // steps, pairs % steps
            with recording():
                inputs = arranged(path.at(rows, points).detach()).requires_grad_()
                reach = None if path.reach is None else path.reach(rows, points)
                with rule(model, None if reach is None else inputs.detach() - reach):
                    logits = model(inputs)
                values = slope(logits, inputs, classes_of(logits, None if targets is None else targets[rows]))
            values = values if reach is None else values * reach
            if not total:
                total.append(values.new_zeros(len(images), *values.shape[1:]))
            total[0].index_add_(0, rows, values * path.weights[points].view(-1, *[1] * (values.ndim - 1)))

        in_chunks(add, len(images) * steps, chunk_size(images, batch_size))
    return total[0]


REDUCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "max_abs": lambda values: values.abs().amax(1),
    "max": lambda values: values.amax(1),
    "max_positive": lambda values: values.relu().amax(1),
    "max_negative": lambda values: values.neg().relu().amax(1),
    "sum": lambda values: values.sum(1),
    "abs_sum": lambda values: values.sum(1).abs(),
    "mean": lambda values: values.mean(1),
    "std": lambda values: values.std(1),
}

Reduction = str | Callable[[Tensor], Tensor]


def reduced(values: Tensor, reduction: Reduction) -> Tensor:
    """Maps (B, H, W) from values (B, C, H, W) by a named reduction over the channels or a function."""
    if callable(reduction):
        return reduction(values)
    if reduction not in REDUCTIONS:
        raise no_such("reduction", reduction, REDUCTIONS)
    if reduction == "std" and values.shape[1] < 2:
        raise ValueError("the reduction 'std' needs two channels or more, the images have one; use 'max_abs'")
    return REDUCTIONS[reduction](values)
