"""Backward attribution: the gradient of a class score averaged along a path of inputs, then reduced to a map."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from saliency_lib.batching import arranged, chunk_size, frozen, in_chunks, recording
from saliency_lib.inputs import Fill, check_images, check_maps, filled, generator, logits_of, resolve_targets, row_indices
from saliency_lib.registry import METHODS, no_such


@dataclass(frozen=True)
class Path:
    """The inputs at which the gradient of each image is taken.

    Args:
        weights: (K,) weight of each point; they sum to 1.
        at: `at(rows, points)` gives the inputs (n, C, H, W) for image rows (n,) and point numbers (n,).
    """

    weights: Tensor
    at: Callable[[Tensor, Tensor], Tensor]


def point(images: Tensor) -> Path:
    """The image itself."""
    return Path(images.new_ones(1), lambda rows, points: images[rows])


def straight_line(images: Tensor, baseline: Tensor, steps: int) -> Path:
    """Gauss-Legendre nodes between the baseline and the image, which integrate polynomials up to degree 2 steps - 1."""
    nodes, weights = np.polynomial.legendre.leggauss(_positive("steps", steps))
    alphas = torch.as_tensor((1 + nodes) / 2).to(images)

    def at(rows: Tensor, points: Tensor) -> Tensor:
        return torch.lerp(baseline[rows], images[rows], alphas[points].view(-1, 1, 1, 1))

    return Path(torch.as_tensor(weights / 2).to(images), at)


def gaussian_ball(images: Tensor, samples: int, sigma: float, seed: int, indices: Tensor | None) -> Path:
    """Draws of Gaussian noise around the image; `sigma` is in units of the image's own range (max - min)."""
    if not math.isfinite(sigma) or sigma < 0:
        raise ValueError(f"sigma must be a number from 0, got {sigma}")
    numbers = row_indices(images, indices)
    spread = sigma * (images.flatten(1).amax(1) - images.flatten(1).amin(1))

    def draw(row: int, sample: int) -> Tensor:
        source = generator(images.device, "smoothgrad", seed, numbers[row], sample)
        return torch.randn(images.shape[1:], generator=source, device=images.device, dtype=images.dtype)

    def at(rows: Tensor, points: Tensor) -> Tensor:
        noise = torch.stack([draw(row, sample) for row, sample in zip(rows.tolist(), points.tolist(), strict=True)])
        return images[rows] + spread[rows].view(-1, 1, 1, 1) * noise

    return Path(images.new_full((_positive("samples", samples),), 1 / samples), at)


def path_gradient(
    model: nn.Module,
    images: Tensor,
    targets: Tensor | None,
    path: Path,
    *,
    transform: Callable[[Tensor], Tensor] | None = None,
    batch_size: int | None = None,
) -> Tensor:
    """The weighted mean over a path of the gradient of the target's logit.

    G = sum_k w_k T(d f_c / d x at x_k), one forward and one backward pass a point; memory grows with `batch_size` alone.

    Args:
        images: (B, C, H, W) pixels.
        targets: (B,) classes; None for the predicted ones.
        path: the points and their weights.
        transform: applied to each point's gradient before the mean (squaring, say).
        batch_size: most inputs in one pass; None chooses.

    Returns:
        (B, C, H, W), the images' dtype.
    """
    images = check_images(images)
    steps = len(path.weights)
    total = torch.zeros_like(images)
    with frozen(model):
        targets = resolve_targets(model, images, targets, batch_size)

        def add(start: int, stop: int) -> None:
            pairs = torch.arange(start, stop, device=images.device)
            rows, points = pairs // steps, pairs % steps
            with recording():
                inputs = arranged(path.at(rows, points).detach()).requires_grad_()
                scores = model(inputs).gather(1, targets[rows, None])
                gradient = torch.autograd.grad(scores.sum(), inputs)[0]
            gradient = transform(gradient) if transform else gradient
            total.index_add_(0, rows, gradient * path.weights[points].view(-1, 1, 1, 1))

        in_chunks(add, len(images) * steps, chunk_size(images, batch_size))
    return total


REDUCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "max_abs": lambda values: values.abs().amax(1),
    "max": lambda values: values.amax(1),
    "sum": lambda values: values.sum(1),
    "abs_sum": lambda values: values.sum(1).abs(),
    "mean": lambda values: values.mean(1),
}

Reduction = str | Callable[[Tensor], Tensor]


def reduced(values: Tensor, reduction: Reduction) -> Tensor:
    """Maps (B, H, W) from values (B, C, H, W) by a named reduction over the channels or a function."""
    if callable(reduction):
        return reduction(values)
    if reduction not in REDUCTIONS:
        raise no_such("reduction", reduction, REDUCTIONS)
    return REDUCTIONS[reduction](values)


def _positive(name: str, number: int) -> int:
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise ValueError(f"{name} must be a whole number from 1, got {number!r}")
    return number


@METHODS.register
def gradient(
    model: nn.Module,
    images: Tensor,
    targets: Tensor | None = None,
    *,
    reduction: Reduction = "max_abs",
    batch_size: int | None = None,
) -> Tensor:
    """How strongly each pixel moves the class score: max over channels of |d f_c / d x|.

    Args:
        images: (B, C, H, W) pixels in [0, 1].
        targets: (B,) classes; None for the predicted ones.

    Returns:
        (B, H, W), not negative, in logits per unit of pixel value; larger moves the score more.

    Source: Simonyan, Vedaldi, Zisserman 2014, section 3.
    """
    return reduced(path_gradient(model, images, targets, point(images), batch_size=batch_size), reduction)


@METHODS.register
def input_x_gradient(
    model: nn.Module,
    images: Tensor,
    targets: Tensor | None = None,
    *,
    reduction: Reduction = "sum",
    batch_size: int | None = None,
) -> Tensor:
    """First-order share of each pixel in the score: sum over channels of x * d f_c / d x.

    Returns:
        (B, H, W), signed, in logits.

    Source: Shrikumar et al. 2016. Differs: x is the pixel value in [0, 1] (black contributes nothing), not the
    normalised one.
    """
    images = check_images(images)
    return reduced(images * path_gradient(model, images, targets, point(images), batch_size=batch_size), reduction)


@METHODS.register
def smoothgrad(
    model: nn.Module,
    images: Tensor,
    targets: Tensor | None = None,
    *,
    samples: int = 25,
    sigma: float = 0.15,
    reduction: Reduction = "max_abs",
    seed: int = 0,
    indices: Tensor | None = None,
    batch_size: int | None = None,
) -> Tensor:
    """The gradient averaged over noisy copies of the image.

    Args:
        samples: noisy copies; more is smoother and costs one forward and backward pass each.
        sigma: standard deviation of the noise as a share of the image's range; 0 gives the gradient.
        seed, indices: fix the noise of each image, whatever batch it comes in.

    Returns:
        (B, H, W), not negative.

    Source: Smilkov et al. 2017, section 3 (10-20 % noise).
    """
    path = gaussian_ball(images, samples, sigma, seed, indices)
    return reduced(path_gradient(model, images, targets, path, batch_size=batch_size), reduction)


@METHODS.register
def smoothgrad_squared(
    model: nn.Module,
    images: Tensor,
    targets: Tensor | None = None,
    *,
    samples: int = 25,
    sigma: float = 0.15,
    reduction: Reduction = "max_abs",
    seed: int = 0,
    indices: Tensor | None = None,
    batch_size: int | None = None,
) -> Tensor:
    """The squared gradient averaged over noisy copies of the image; options as smoothgrad's.

    Returns:
        (B, H, W), not negative, in squared logits per squared unit of pixel value.

    Source: Hooker et al. 2019, section 4.1.
    """
    path = gaussian_ball(images, samples, sigma, seed, indices)
    return reduced(path_gradient(model, images, targets, path, transform=torch.square, batch_size=batch_size), reduction)


@METHODS.register
def integrated_gradients(
    model: nn.Module,
    images: Tensor,
    targets: Tensor | None = None,
    *,
    steps: int = 50,
    baseline: Fill = "mean",
    reduction: Reduction = "sum",
    seed: int = 0,
    indices: Tensor | None = None,
    batch_size: int | None = None,
) -> Tensor:
    """Share of each pixel in the change of the score from the baseline to the image.

    A = (x - x') * integral over a in [0, 1] of d f_c / d x at x' + a (x - x'), summed over the channels.

    Args:
        steps: Gauss-Legendre nodes; `completeness_error` says whether they suffice.
        baseline: x', named as a fill, a tensor that broadcasts, or a function of the images.
        seed, indices: fix a `noise` baseline.

    Returns:
        (B, H, W), signed, in logits; each map sums to f_c(x) - f_c(x') up to the integration's error.

    Source: Sundararajan, Taly, Yan 2017, section 3; 50 nodes and the mean colour as Kwon, Koo, Cho 2020.
    Differs: the 2017 paper starts from black (`baseline="black"`).
    """
    images = check_images(images)
    start = filled(baseline, model, images, indices=indices, seed=seed)
    average = path_gradient(model, images, targets, straight_line(images, start, steps), batch_size=batch_size)
    return reduced((images - start) * average, reduction)


def completeness_error(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    targets: Tensor | None = None,
    *,
    baseline: Fill = "mean",
    seed: int = 0,
    indices: Tensor | None = None,
    batch_size: int | None = None,
) -> Tensor:
    """How far signed maps are from summing to the change of the score: |sum of the map - (f_c(x) - f_c(x'))|.

    Args:
        maps: (B, H, W), summed over channels, as integrated_gradients gives them.

    Returns:
        (B,), not negative, in logits; near 0 where an integration has converged.

    Source: Sundararajan, Taly, Yan 2017, axiom of completeness.
    """
    images = check_images(images)
    check_maps(maps, images)
    with frozen(model):
        rows = resolve_targets(model, images, targets, batch_size)[:, None]
        start = filled(baseline, model, images, indices=indices, seed=seed)
        change = logits_of(model, images, batch_size).gather(1, rows) - logits_of(model, start, batch_size).gather(1, rows)
    return (maps.flatten(1).sum(1) - change[:, 0]).abs()
