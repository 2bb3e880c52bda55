"""DeepLIFT: the change from a baseline, propagated back through the network with ratios instead of derivatives."""

from typing import Annotated

import torch
from torch import Tensor, nn

from saliency_lib.attribution.backward import Path, Reduction, class_slope, even_weights, noise_images, path_gradient, reduced
from saliency_lib.attribution.rules import rescaled
from saliency_lib.attribution.table import METHODS
from saliency_lib.core.batching import chunk_size, frozen, in_chunks, logits_of, recording, resolve_targets
from saliency_lib.core.calls import tell
from saliency_lib.core.checks import check_images
from saliency_lib.core.fills import Fill, filled
from saliency_lib.core.optional import optional
from saliency_lib.core.options import Count, Names, Positive, Seed
from saliency_lib.core.streams import Indices

INCOMPLETE = 0.05  # largest error of completeness without a warning, relative to the change of the score
FLOOR = 0.01  # errors are relative to at least this share of the summed sizes of a map's shares,
ROUNDING = 1000  # and to at least this many rounding errors of the score


@METHODS.register(family="path", passes="2 F + 1 B", paper="Shrikumar et al. 2017")
def deeplift(
    model: nn.Module,
    images: Tensor,
    targets: Tensor | None = None,
    *,
    baseline: Fill = "mean",
    backend: Annotated[str, Names(("rule", "captum"))] = "rule",
    reduction: Reduction = "sum",
    seed: Seed = 0,
    indices: Indices = None,
    batch_size: Positive | None = None,
) -> Tensor:
    """Attribute the change of the score from the baseline to the image to the pixels, using the rescale rule.

    Args:
        images: (B, C, H, W) pixels in [0, 1].
        targets: (B,) classes; None for the predicted ones.
        baseline: as in integrated_gradients.
        backend: `rule` (`rules.rescaled`, any network) or `captum`. The latter refuses networks that use a module twice
            (ResNets), uses the derivative for ReLU6 and functional units (GoogLeNet's) without a warning, and is wrong if a
            unit feeds a max-pool directly and out of place.
        seed, indices: fix a `noise` baseline.

    Returns:
        (B, H, W), signed, in logits; each map sums to f_c(x) - f_c(x') for networks of linear layers, activations
        and max-pools, see `completeness_error`.

    Raises:
        ValueError: the network has no such unit, or mixes features in other ways (attention), or the backend is unknown.

    Warns:
        UserWarning: the shares of an image (before the reduction) miss the change of the score by more than 5 % of it, or of 1 %
            of their summed sizes if this is larger. Such a network has units that the rule passes by their derivative, for
            instance softmax, LayerNorm or products of features.

    Source: Shrikumar, Greenside, Kundaje 2017. Differs: if a pixel is the maximum of several overlapping
    max-pool windows, captum keeps one of its shares; here they add up, so that completeness holds.
    """
    images = check_images(images)
    start = filled(baseline, model, images, indices=indices, seed=seed, name="baseline")
    if backend == "captum":
        return reduced(_by_captum(model, images, start, targets, batch_size), reduction)
    path = Path(images.new_ones(1), lambda rows, points: images[rows], lambda rows, points: (images - start)[rows])
    return reduced(_by_rule(model, images, targets, path, batch_size), reduction)


def _by_rule(model: nn.Module, images: Tensor, targets: Tensor | None, path: Path, batch_size: int | None) -> Tensor:
    """Return the shares (B, C, H, W) under the rescale rule, and warn if they do not sum to the change of the score."""
    pairs: list[Tensor] = []
    units: list[rescaled] = []
    scores, starts = images.new_zeros(2, len(images), len(path.weights))

    def at(rows: Tensor, points: Tensor) -> Tensor:
        pairs[:] = rows, points
        return path.at(rows, points)

    def rule(model: nn.Module, reference: Tensor | None) -> rescaled:
        units[:] = [rescaled(model, reference)]
        return units[0]

    def slope(logits: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
        for ends, values in ((scores, logits.detach()), (starts, units[0].start)):
            ends[pairs[0], pairs[1]] = values.gather(1, targets[:, None])[:, 0].to(ends)
        return class_slope(logits, inputs, targets)

    watched = Path(path.weights, at, path.difference)
    shares = path_gradient(model, images, targets, watched, slope=slope, rule=rule, batch_size=batch_size)
    _warn_if_incomplete(shares, scores @ path.weights, starts @ path.weights)
    return shares


def _warn_if_incomplete(shares: Tensor, scores: Tensor, starts: Tensor) -> None:
    flat, change = shares.flatten(1), scores - starts
    rounding = ROUNDING * torch.finfo(scores.dtype).eps * torch.maximum(scores.abs(), starts.abs())
    size = torch.stack([change.abs(), FLOOR * flat.abs().sum(1), rounding]).amax(0)
    error = (flat.sum(1) - change).abs() / size.where(size > 0, 1)
    if count := int((error > INCOMPLETE).sum()):
        tell(
            f"DeepLIFT is not complete for {count} of {len(error)} images: their shares miss the change of the score by up to "
            f"{error.max():.0%} of it (above {INCOMPLETE:.0%} is reported), because the network has units that the rule does not "
            "cover; use integrated_gradients, or check the maps with completeness_error"
        )


def _by_captum(model: nn.Module, images: Tensor, start: Tensor, targets: Tensor | None, batch_size: int | None) -> Tensor:
    with optional("methods"):
        from captum.attr import DeepLift

    total = torch.zeros_like(images)
    with frozen(model):
        targets = resolve_targets(model, images, targets, batch_size)

        def add(first: int, last: int) -> None:
            with recording():
                shares = DeepLift(model).attribute(images[first:last], start[first:last].contiguous(), target=targets[first:last])
            total[first:last] = shares.detach()

        in_chunks(add, len(images), chunk_size(images, batch_size))
        after, before = (logits_of(model, inputs, batch_size).gather(1, targets[:, None])[:, 0] for inputs in (images, start))
    _warn_if_incomplete(total, after, before)
    return total


@METHODS.register(family="path", passes="20 F + 10 B", paper="Lundberg, Lee 2017", revision=1)
def deeplift_shap(
    model: nn.Module,
    images: Tensor,
    targets: Tensor | None = None,
    *,
    samples: Count = 10,
    reduction: Reduction = "sum",
    seed: Seed = 0,
    indices: Indices = None,
    batch_size: Positive | None = None,
) -> Tensor:
    """Average DeepLIFT over noise images as baselines.

    Args:
        samples: baselines per image, uniform noise in [0, 1], or as far as a series goes beyond (`fills.noise_range`); two
            forward passes and one backward pass each.
        seed, indices: fix the baselines of each image, whatever batch it is in.

    Returns:
        (B, H, W), signed, in logits; each map sums to f_c(x) minus the mean of f_c over its baselines.

    Raises:
        ValueError: as in deeplift.

    Warns:
        UserWarning: as in deeplift, for the mean over the baselines.

    Source: Lundberg, Lee 2017, section 4.2; noise images as Ismail et al. 2021, released code. Differs: in that code all
    images of a batch share 5 B noise images.
    """
    images = check_images(images)
    noise = noise_images(images, seed, indices)
    path = Path(
        even_weights(images, samples),
        lambda rows, points: images[rows],
        lambda rows, points: images[rows] - noise(rows, points),
    )
    return reduced(_by_rule(model, images, targets, path, batch_size), reduction)
