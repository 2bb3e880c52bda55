"""LIME and KernelSHAP on images: superpixels as masks, weighted by a regression."""

import threading
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

from saliency_lib.attribution.masks import ClassScore, Masks, class_scores, mask_scores, variant_settings
from saliency_lib.attribution.table import METHODS
from saliency_lib.core.batching import chunk_size, frozen, logits_of, resolve_targets
from saliency_lib.core.checks import check_images
from saliency_lib.core.fills import Fill, filled
from saliency_lib.core.optional import optional
from saliency_lib.core.options import MOST, Count, Names, Positive, Range, Seed
from saliency_lib.core.segments import Segments, mean_colours, numbered
from saliency_lib.core.streams import Indices, generator, row_indices, seed_of, sent


def ridge(rows: Tensor, values: Tensor, weights: Tensor, alpha: float = 1.0) -> Tensor:
    """Return the coefficients of a weighted ridge regression with a free intercept, in closed form.

    b = (X' W X + alpha I)^-1 X' W y, where X and y are centred on their weighted means.

    Args:
        rows: X (S, n).
        values: y (S,).
        weights: the diagonal of W (S,).
        alpha: shrinkage; a larger value brings b nearer to 0.

    Returns:
        (n,).
    """
    share = weights / weights.sum()
    rows, values = rows - share @ rows, values - share @ values
    weighted = (rows * weights[:, None]).T
    shrunk = weighted @ rows + alpha * torch.eye(rows.shape[1], dtype=rows.dtype, device=rows.device)
    return torch.linalg.solve_ex(shrunk, weighted @ values).result  # it is positive definite; asking makes a GPU wait


def proximity(rows: Tensor) -> Tensor:
    """Return the weight (S,) of each perturbation (S, n), sqrt(exp(-d^2 / 0.25^2)) at cosine distance d from the whole image."""
    distance = 1 - rows.mean(1).sqrt()
    return torch.exp(-distance.square() / (2 * 0.25**2))


def perturbations(samples: int, parts: int, seed: int, number: int, paired: bool = False) -> Tensor:
    """Draw which regions an image keeps, (samples, parts): all in the first row, each with probability 1/2 in the others.

    Args:
        paired: whether the third row keeps what the second does not, the fifth what the fourth does not, and so on.
    """
    source = generator(torch.device("cpu"), "lime", seed, number)
    rows = torch.randint(2, (samples, parts), generator=source, dtype=torch.bool)
    if paired:
        rows[2::2] = ~rows[1 : samples - 1 : 2]
    rows[0] = True
    return rows


def local_ridge(rows: Tensor, values: Tensor) -> Tensor:
    """Return LIME's coefficients (n,): a ridge regression of values (S,) on rows (S, n), weighted by their proximity."""
    return ridge(rows, values, proximity(rows))


def coalitions(samples: int, parts: int, seed: int, number: int, paired: bool = True) -> Tensor:
    """Draw which regions an image keeps, (samples, parts), as KernelSHAP's weights ask: all, none, and pairs of opposite rows.

    A row keeps k of n regions with a probability in proportion to 1 / (k (n - k)), any k of them.
    """
    source = generator(torch.device("cpu"), "kernel_shap", seed, number)
    rows = torch.zeros(samples, parts, dtype=torch.bool)
    rows[0] = True
    pairs = (samples - 1) // 2
    if parts > 1 and pairs:
        kept = torch.arange(1, parts, dtype=torch.float64)
        sizes = 1 + torch.multinomial(1 / (kept * (parts - kept)), pairs, replacement=True, generator=source)
        order = torch.rand(pairs, parts, generator=source, dtype=torch.float64).argsort(1).argsort(1)
        half = order < sizes[:, None]
        rows[2 : 2 + 2 * pairs : 2] = half[: len(rows[2::2])]
        rows[3 : 3 + 2 * pairs : 2] = ~half[: len(rows[3::2])]
    return rows


def shapley(rows: Tensor, values: Tensor, prior: float = 0.001) -> Tensor:
    """Return the coefficients (n,) with the least squares of the rows (S, n) but the first two, whose difference is their sum.

    Args:
        prior: weight, in rows, of equal coefficients, which decide where few rows are drawn.

    Source: Lundberg, Lee 2017, theorem 2: with weights 1 / (k (n - k)) these are the Shapley values, and the rows are drawn with
    these weights.
    """
    inner, count = rows[2:], rows.shape[1]
    equal = (values[0] - values[1]) / count
    matrix = inner.T @ inner + prior * torch.eye(count, dtype=rows.dtype, device=rows.device)
    surplus = values[2:] - values[1] - inner.sum(1) * equal
    right = torch.stack([inner.T @ surplus, rows.new_ones(count)], 1)
    free, ones = torch.linalg.solve_ex(matrix, right).result.unbind(1)  # it is positive definite; asking makes a GPU wait
    return equal + free - ones * free.sum() / ones.sum()


def fitted(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    regions: Tensor,
    hidden: Tensor,
    *,
    samples: int,
    score: str,
    seed: int,
    numbers: list[int],
    paired: bool,
    batch_size: int | None,
    draw: Callable[[int, int, int, int, bool], Tensor] = perturbations,
    solve: Callable[[Tensor, Tensor], Tensor] = local_ridge,
) -> Tensor:
    """Fit LIME's coefficients (B, n), or others by `draw` and `solve`; they are 0 for regions that an image does not have.

    Args:
        images: (B, C, H, W).
        targets: (B,) classes.
        regions: (B, H, W), numbered from 0.
        hidden: (B, C, H, W), the values that replace a hidden region.
        numbers: the images' numbers in their data set.
        paired: see `perturbations`.
        draw: like `perturbations`.
        solve: `solve(rows, values)` returns the coefficients (n,) of rows (S, n) with the scores (S,).
    """
    counts = (regions.flatten(1).amax(1) + 1).tolist()
    rows = torch.zeros(len(images), samples, max(counts), dtype=torch.bool)
    for row, number, parts in zip(rows, numbers, counts, strict=True):
        row[:, :parts] = draw(samples, parts, seed, number, paired)
    rows, places = sent(rows, images.device), regions.flatten(1)

    def at(which: Tensor, draws: Tensor) -> Tensor:
        kept = rows[which[:, None], draws].to(images.dtype)
        return kept.gather(2, places[which, None].expand(-1, len(draws), -1)).unflatten(2, images.shape[2:])

    values = mask_scores(model, images, targets, Masks(samples, at), fill=hidden, score=score, batch_size=batch_size).double()
    coefficients = values.new_zeros(len(images), max(counts))
    for row, parts in enumerate(counts):
        coefficients[row, :parts] = solve(rows[row, :, :parts].double(), values[row])
    return coefficients


_WITHOUT_BAR = threading.RLock()  # held while the package is patched


def fitted_by_lime(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    regions: Tensor,
    hidden: Tensor,
    *,
    samples: int,
    score: str,
    seed: int,
    numbers: list[int],
    paired: bool,
    batch_size: int | None,
) -> Tensor:
    """Return the coefficients that the package lime finds with its own perturbations; arguments as those of `fitted`."""
    if paired:
        raise ValueError("the backend 'lime' draws its own rows; use the design 'antithetic' with the backend 'torch'")
    with optional("methods"):
        from lime import lime_image

    scores = class_scores(score)

    def classify(copies: np.ndarray) -> np.ndarray:
        pixels = torch.as_tensor(copies).permute(0, 3, 1, 2).to(images)
        return scores(logits_of(model, pixels, batch_size)).double().cpu().numpy()

    pictures, behind = (pixels.permute(0, 2, 3, 1).double().cpu().numpy() for pixels in (images, hidden))
    parts = regions.cpu().numpy()
    coefficients = torch.zeros(len(images), int(parts.max()) + 1, dtype=torch.float64)
    for row, (number, target) in enumerate(zip(numbers, targets.tolist(), strict=True)):
        explainer = lime_image.LimeImageExplainer(random_state=seed_of("lime", seed, number))
        with _WITHOUT_BAR, mock.patch.object(lime_image, "tqdm", iter):  # its progress bar
            found = explainer.explain_instance(
                pictures[row],
                classify,
                labels=(target,),
                top_labels=None,
                hide_color=behind[row],
                num_samples=samples,
                batch_size=chunk_size(images, batch_size),
                segmentation_fn=lambda picture, row=row: parts[row],
            )
        for part, weight in found.local_exp[target]:
            coefficients[row, part] = weight
    return coefficients.to(images.device)


def signs_of_the_largest(coefficients: Tensor, features: int = 15) -> Tensor:
    """Return the signs of the `features` largest of each row (B, n) by absolute value, 0 elsewhere; ties go by index."""
    order = coefficients.abs().sort(dim=1, descending=True, stable=True).indices[:, :features]
    return torch.zeros_like(coefficients).scatter(1, order, coefficients.gather(1, order).sign())


def as_they_are(coefficients: Tensor) -> Tensor:
    """Return coefficients unchanged."""
    return coefficients


def _by_regions(
    fit: Callable[..., Tensor],
    finish: Callable[[Tensor], Tensor],
    model: nn.Module,
    images: Tensor,
    targets: Tensor | None,
    fill: Fill | None,
    seed: int,
    indices: Indices,
    batch_size: int | None,
    *,
    samples: int,
    segments: Segments | None,
    score: str,
) -> Tensor:
    """Return maps (B, H, W), constant on segments: the coefficients that `fit` finds, after `finish`; options as in lime."""
    images = check_images(images)
    numbers, regions = row_indices(images, indices), numbered(images, segments, seed)
    fill = "mean" if fill is None and images.shape[2] == 1 else fill
    with frozen(model):
        targets = resolve_targets(model, images, targets, batch_size)
        hidden = mean_colours(images, regions) if fill is None else filled(fill, model, images, indices=indices, seed=seed)
        options: dict[str, Any] = dict(samples=samples, score=score, seed=seed, numbers=numbers, batch_size=batch_size)
        found = fit(model, images, targets, regions, hidden, **options)
    return finish(found).gather(1, regions.flatten(1)).view(regions.shape).to(images.dtype)


BACKENDS = {"torch": fitted, "lime": fitted_by_lime}
VARIANT_SETTINGS: dict[str, dict[str, Any]] = {
    "weights": {"samples": 1000, "segments": None, "score": "probability", "finish": as_they_are},
    "saliency_benchmark": {"samples": 100, "segments": "quickshift", "score": "softmax_twice", "finish": signs_of_the_largest},
}


@METHODS.register(family="mask", passes="1,000 F", paper="Ribeiro et al. 2016", revision=1, added=("design",), forward_only=True)
def lime(
    model: nn.Module,
    images: Tensor,
    targets: Tensor | None = None,
    *,
    samples: Count | None = None,
    segments: Segments | None = None,
    fill: Fill | None = None,
    score: ClassScore | None = None,
    variant: Annotated[str, Names(VARIANT_SETTINGS)] = "weights",
    backend: Annotated[str, Names(BACKENDS)] = "torch",
    design: Annotated[str, Names(("independent", "antithetic"))] = "independent",
    seed: Seed = 0,
    indices: Indices = None,
    batch_size: Positive | None = None,
) -> Tensor:
    """Estimate how much each superpixel adds to the score, with a ridge regression over copies in which half are hidden.

    A pixel's value is the weight of its segment in the regression of f_c on rows z of Bernoulli(1/2), the first all ones.
    Each row is weighted by exp(-d^2 / (2 * 0.25^2)), where d is the cosine distance between z and the row of ones; the
    shrinkage is 1.

    Args:
        images: (B, C, H, W) pixels in [0, 1].
        targets: (B,) classes; None for the predicted ones.
        samples: the number of rows z, one forward pass each.
        segments: `quickshift`, `slic` (about 50 superpixels of similar size), `grid` (7 x 7 rectangles), `tokens` (each
            pixel, or word of a text), (B, H, W) whole numbers, or a function from an image (C, H, W) to its segments (H, W).
            None is `tokens` for texts, `quickshift` for images of at least 64 pixels and `slic` for smaller ones, in the
            variant `saliency_benchmark` always `quickshift`.
        fill: what replaces a hidden segment, see `fills.filled`; None is the segment's mean colour, and the padding for texts.
        score: `probability`, `logit` or `softmax_twice`.
        variant: `weights` (1000 samples) or `saliency_benchmark` (100). Options that are given replace the variant's.
        backend: `torch`, or `lime` for that package, image by image, with the same settings and its own rows.
        design: `independent` rows, or `antithetic`: after the first, every second one keeps what the one before it hides,
            which brings the weights nearer to their limit.
        seed, indices: fix the rows of each image, whatever batch it is in, and a `noise` fill; the seed also fixes the
            segments.

    Returns:
        (B, H, W), signed, in units of the score; constant on each segment. With the variant `saliency_benchmark`: -1, 0
        or 1.

    Raises:
        ValueError: the segments do not fit, or their name, the variant, the backend or the score is unknown.

    Source: Ribeiro, Singh, Guestrin 2016, section 3.4; numbers of the package lime 0.2.
    Differs: the package has quickshift for images of every size. It finds 1.8 segments per digit of 28 pixels, whose map then
    ranks hardly any pixels; SLIC finds 38. The variant `saliency_benchmark` (Parola et al.) takes the softmax of the
    probabilities and returns only the signs of the 15 largest weights, 0 elsewhere. A weight of 0 stays 0, which the package
    would treat as positive.
    """
    settings = variant_settings("lime", VARIANT_SETTINGS, variant, samples=samples, segments=segments, score=score)
    given = {name: settings[name] for name in ("samples", "segments", "score")}
    fit = partial(BACKENDS[backend], paired=design == "antithetic")
    return _by_regions(fit, settings["finish"], model, images, targets, fill, seed, indices, batch_size, **given)


@METHODS.register(family="mask", passes="1,000 F", paper="Lundberg, Lee 2017", forward_only=True)
def kernel_shap(
    model: nn.Module,
    images: Tensor,
    targets: Tensor | None = None,
    *,
    samples: Annotated[int, Range(4, MOST)] = 1000,
    segments: Segments | None = None,
    fill: Fill | None = None,
    score: ClassScore = "logit",
    seed: Seed = 0,
    indices: Indices = None,
    batch_size: Positive | None = None,
) -> Tensor:
    """Estimate each superpixel's Shapley value: its mean gain of the score over all orders in which superpixels could be added.

    It is LIME's regression with KernelSHAP's weights: rows are drawn as in `coalitions`, and the values add up to the score's
    change from the image without any segment to the whole image.

    Args:
        samples: the number of rows, one forward pass each.
        segments, fill, score, seed, indices: as in lime.

    Returns:
        (B, H, W), signed, in units of the score: the value of the pixel's segment.

    Raises:
        ValueError: as in lime.

    Source: Lundberg, Lee 2017, theorem 2. Differs: rows come in pairs, as in Covert, Lee 2021. If segments interact only two by
    two, a few rows per segment then give the exact values.
    """
    fit = partial(fitted, paired=True, draw=coalitions, solve=shapley)
    given: dict[str, Any] = dict(samples=samples, segments=segments, score=score)
    return _by_regions(fit, as_they_are, model, images, targets, fill, seed, indices, batch_size, **given)
