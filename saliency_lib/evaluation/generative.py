"""A classifier as a density of images: what it considers typical, and how fast the density changes around the data."""

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor, nn

from saliency_lib.core.batching import arranged, chunk_size, classes_of, frozen, in_chunks, logits_of, recording
from saliency_lib.core.calls import kernel
from saliency_lib.core.checks import check_images, check_logits, check_model, check_targets, not_negative
from saliency_lib.core.options import MOST, Count, NotNegative, Positive, Range, Seed, typed
from saliency_lib.core.streams import Indices, noise, noise_by_draw, pairs, row_indices
from saliency_lib.evaluation.perturbation import check_scores


@typed
def activation_maximisation(
    model: nn.Module,
    labels: Tensor,
    *,
    shape: tuple[int, int, int],
    steps: Annotated[int, Range(0, MOST)] = 500,
    rate: NotNegative = 0.1,
    decay: NotNegative = 0.01,
    seed: Seed = 0,
    indices: Indices = None,
    batch_size: Positive | None = None,
) -> Tensor:
    """Make images that a model considers typical of their classes, by ascent of the class's logit from noise around grey.

    x_0 ~ N(1/2, 0.2^2) clipped to [0, 1];  x <- clip(x + rate (d f_y / d x - decay (x - 1/2))), `steps` times.

    The share of them that a network with another training recognises is the GAN-test, the accuracy of that network on the
    samples and their labels. Each step takes one forward and one backward pass; memory grows with `batch_size`.

    Args:
        labels: (B,) classes y.
        shape: (C, H, W) of an image.
        steps: number of steps of the ascent; 0 returns the noise.
        rate: length of a step, in pixel values per unit of the gradient.
        decay: pull towards grey; a larger value keeps pixels with little effect on the logit nearer to grey.
        seed, indices: fix the start of each image; indices (B,) are 0..B-1 if they are None.

    Returns:
        (B, C, H, W) in [0, 1], on the model's device and in its parameters' precision.

    Raises:
        ValueError: the labels are not (B,) classes of the model, or a gradient is NaN or infinite.

    Source: Srinivas and Fleuret 2021, GAN-test, released code (1024 samples; 1000 steps for pictures). As in that code, no
    noise is added during the ascent, although the code calls it Langevin dynamics. Shmelkov, Schmid, Alahari 2018 introduced
    the test for generators.
    """
    check_model(model)
    like = next(model.parameters(), torch.empty(0))
    labels = torch.as_tensor(labels, device=like.device)
    if labels.ndim != 1 or not len(labels):
        raise ValueError(f"labels must be (B,) classes, one per image to make, got {tuple(labels.shape)}")
    if len(shape) != 3:
        raise ValueError(f"shape must be (C, H, W), got {tuple(shape)}")
    blank = torch.empty((), dtype=like.dtype, device=like.device).expand(len(labels), *shape)
    start = (0.5 + 0.2 * noise(blank, row_indices(blank, indices), seed, "samples", law=torch.randn)).clamp(0, 1)
    made: list[Tensor] = []
    with frozen(model):
        labels = check_targets(labels, logits_of(model, start[:1]).expand(len(labels), -1))

        def climb(begin: int, end: int) -> None:
            images, classes = start[begin:end], labels[begin:end, None]
            for _ in range(steps):
                with recording():
                    inputs = arranged(images).requires_grad_()
                    (slope,) = torch.autograd.grad(model(inputs).gather(1, classes).sum(), inputs)
                images = inputs.detach()
                images = (images + rate * (slope - decay * (images - 0.5))).clamp(0, 1)
            made.append(images)

        in_chunks(climb, len(start), chunk_size(start, batch_size))
    images = torch.cat(made).contiguous()
    if not torch.isfinite(images).all():
        raise ValueError("the gradient of a logit became NaN or infinite during the ascent; check the model's weights")
    return images


@kernel
def density_ratio(
    model: nn.Module,
    images: Tensor,
    targets: Tensor | None = None,
    *,
    sigmas: Sequence[float],
    samples: Count = 10,
    seed: Seed = 0,
    indices: Indices = None,
    batch_size: Positive | None = None,
) -> Tensor:
    """Measure how the density that a logit implies changes from an image to noisy copies: mean over n of f_c(x + n) - f_c(x).

    If exp f_c(x) is a density of class c up to a constant, this is the logarithm of p(x + n | c) / p(x | c), averaged over
    n ~ N(0, sigma^2). To second order it is sigma^2 / 2 times the trace of the logit's Hessian. A density with its mass at
    the data decreases around them: **smaller is better**.

    Args:
        images: (B, C, H, W) pixels in [0, 1]; the noise may move them outside.
        targets: (B,) classes c; None for the predicted ones.
        sigmas: (S,) standard deviations of the noise, in pixel values; 0 gives 0.
        samples: draws of the noise per image, scaled by each sigma; one forward pass per draw and sigma.
        seed, indices: fix the noise of each image.

    Returns:
        (B, S), signed, in logits.

    Source: Srinivas and Fleuret 2021, density ratios (not in the released code). Differs: the mean of the
    logarithm, not of the ratio, which overflows and is dominated by the largest of a few draws.
    """
    images = check_images(images)
    sigmas = [not_negative("each of sigmas", float(sigma)) for sigma in sigmas]
    if not sigmas:
        raise ValueError("sigmas are empty; pass at least one standard deviation of the noise")
    noise_of = noise_by_draw(images, "density_ratio", torch.randn, seed, indices)
    precise = torch.promote_types(images.dtype, torch.float32)
    noisy = images.new_empty(len(images), samples, len(sigmas), dtype=precise)

    with frozen(model), torch.no_grad():
        logits = logits_of(model, images, batch_size)
        classes = classes_of(logits, targets)[:, None]

        def measure(begin: int, end: int) -> None:
            rows, column = pairs(begin, end, samples, images.device)
            unit = noise_of(rows, column)
            for place, sigma in enumerate(sigmas):
                found = check_logits(model(arranged(images[rows] + sigma * unit)))
                noisy[rows, column, place] = found.gather(1, classes[rows])[:, 0].to(precise)

        in_chunks(measure, len(images) * samples, chunk_size(images, batch_size))
    check_scores(noisy.flatten(1))
    return (noisy - logits.gather(1, classes).to(precise)[:, None]).mean(1)
