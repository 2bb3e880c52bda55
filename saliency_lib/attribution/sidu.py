"""SIDU: thresholded feature maps as masks, weighed by similarity and uniqueness."""

import torch
from torch import Tensor, nn

from saliency_lib.attribution.cam import find_layer, leaf_at
from saliency_lib.attribution.masks import Masks, chosen, interpolation, masked_readings, weighted_sum
from saliency_lib.attribution.rise import random_grids
from saliency_lib.attribution.table import METHODS
from saliency_lib.core.batching import arranged, chunk_size, classes_of, frozen, in_chunks, logits_of
from saliency_lib.core.checks import check_images
from saliency_lib.core.fills import Fill, filled


def features_at(model: nn.Module, module: nn.Module, images: Tensor, batch_size: int | None) -> tuple[Tensor, Tensor, bool]:
    """Logits (B, K) and the last output (B, N, h, w) of a module, of a model that the caller has frozen.

    Returns:
        Both, and whether the model uses the module once, so that a forward pass can end there.
    """
    found: list[tuple[Tensor, Tensor]] = []
    uses: set[int] = set()

    def add(start: int, stop: int) -> None:
        with torch.no_grad(), leaf_at(module) as leaves:
            logits = model(arranged(images[start:stop]))
        if not leaves or leaves[-1].ndim != 4:
            shape = tuple(leaves[-1].shape) if leaves else "none"
            raise ValueError(f"the layer's output must be (B, channels, h, w), got {shape}")
        uses.add(len(leaves))
        found.append((logits, leaves[-1].detach()))

    in_chunks(add, len(images), chunk_size(images, batch_size))
    logits, features = zip(*found, strict=True)
    return torch.cat(logits), torch.cat(features), uses == {1}


def feature_masks(features: Tensor, image: Tensor, threshold: float, edge: str = "mirror") -> tuple[Masks, Tensor]:
    """Where the feature maps (N, h, w) of an image (1, C, H, W) lie above the threshold, enlarged bilinearly to it.

    Args:
        edge: see `interpolation`.

    Returns:
        The masks that differ (dead and saturated channels give the same ones), and how often each occurs, (n,).
    """
    grids, times = (features > threshold).unique(dim=0, return_counts=True)
    grids, times = grids.to(image), times.to(image)
    down, across = (interpolation(grids.shape[i], image.shape[i + 1], edge, image) for i in (1, 2))
    return Masks(len(grids), lambda rows, numbers: (down.mT @ (grids[numbers] @ across))[None]), times


def similarity(difference: Tensor, sigma: float) -> Tensor:
    """1 where there is no difference, falling as a Gaussian of width sigma."""
    return torch.exp(-difference.square() / (2 * sigma**2))


def check_sigma(sigma: float) -> float:
    """The width; refused where it is not above 0."""
    if not sigma > 0:
        raise ValueError(f"sigma must be above 0, got {sigma}")
    return sigma


def prediction_weights(
    model: nn.Module,
    image: Tensor,
    target: Tensor,
    before: Tensor,
    masks: Masks,
    times: Tensor,
    sigma: float,
    **options: object,
) -> Tensor:
    """Weight of each mask of one image: similarity of its prediction to the whole image's, times uniqueness.

    w_i = exp(-(P_0c - P_ic)^2 / (2 sigma^2)) * U_i; U_i = sum over j of |P_i - P_j|, scaled to [0, 1] over the masks.

    Args:
        image: (1, C, H, W); target: ().
        before: (K,), its logits.
        times: (n,), how often each mask occurs.
        options: fill and batch_size as those of `masked_readings`.

    Returns:
        (1, n), in [0, 1]; all 0 where every mask gives the same prediction.
    """
    after = masked_readings(model, image, masks, lambda copies, rows: model(copies).softmax(-1), **options)[0]
    # the quicker distances by a matrix product are not 0 between equals, which the scaling would blow up
    after = after.to(torch.promote_types(after.dtype, torch.float32))
    uniqueness = torch.cdist(after, after, compute_mode="donot_use_mm_for_euclid_dist") @ times.to(after)
    rounding = 450 * torch.finfo(after.dtype).eps  # 1e-13 in double, as released
    uniqueness = (uniqueness - uniqueness.min()) / (uniqueness.max() - uniqueness.min() + rounding)
    return (similarity((after - before.softmax(-1))[:, target], sigma) * uniqueness)[None].to(image.dtype)


def feature_weights(
    model: nn.Module, image: Tensor, module: nn.Module, before: Tensor, masks: Masks, sigma: float, once: bool, **options: object
) -> Tensor:
    """Weight of each mask of one image as pytorch_sidu computes it, from a layer's output and without a class.

    w_i = mean over positions of exp(-(mean over channels of |F_i - F_0|)^2 / (2 sigma^2)), times the mean distance between
    the channels of F_i.

    Args:
        image: (1, C, H, W).
        module: the layer; before: (N, h, w), its output for the image.
        once: whether the model uses the layer once, and the forward pass ends there.

    Returns:
        (1, N), not negative.
    """

    def read(copies: Tensor, rows: Tensor) -> Tensor:
        with leaf_at(module, stop=once) as leaves:
            model(copies)
        after = leaves[-1].detach()
        channels = after.flatten(2)
        return similarity((after - before).abs().mean(1), sigma).mean((1, 2)) * torch.cdist(channels, channels).mean((1, 2))

    return masked_readings(model, image, masks, read, **options)


VARIANTS = {
    "original": {"threshold": 0.1, "sigma": 0.25, "fill": "mean", "edge": "mirror"},
    "pytorch_sidu": {"threshold": 0.15, "sigma": 0.1, "fill": "black", "edge": "corners"},
}


@METHODS.register(family="mask", passes="1 F per distinct feature map", paper="Muddamsetty et al. 2020")
def sidu(
    model: nn.Module,
    images: Tensor,
    targets: Tensor | None = None,
    *,
    layer: nn.Module | str | None = None,
    threshold: float | None = None,
    sigma: float | None = None,
    fill: Fill | None = None,
    variant: str = "original",
    seed: int = 0,
    indices: Tensor | None = None,
    batch_size: int | None = None,
) -> Tensor:
    """A layer's thresholded feature maps as masks, weighed by similarity and uniqueness of the predictions.

    S = 2 / N * sum over the N feature maps of w_i M_i, with w_i as `prediction_weights` has it.

    Args:
        images: (B, C, H, W) pixels in [0, 1].
        targets: (B,) classes; None for the predicted ones.
        layer: a module or its dotted name, see `gradcam`. One forward pass for each of its N masks that differs from
            the others, and one more.
        threshold: a mask keeps the positions where its feature map lies above.
        sigma: width of the similarity, in units of probability (of the features in the variant `pytorch_sidu`).
        fill: what stands where a mask is 0, see `inputs.filled`.
        variant: `original` (threshold 0.1, sigma 0.25, fill mean) or `pytorch_sidu` (0.15, 0.1, black); an option that is
            given replaces the variant's.
        seed, indices: fix a `noise` fill.

    Returns:
        (B, H, W), not negative; 0 where the predictions of all masked copies are the same.

    Raises:
        ValueError: the layer is unknown or has no spatial output, sigma not above 0, or an unknown variant.

    Source: Muddamsetty, Jahromi, Moeslund 2020, sections 2.1-2.2; numbers of the released code.
    Differs: the similarity is that of the one class, as in the released code, where the paper takes the norm over all;
    equal masks go through the model once; where the predictions of the masks lie closer together than their rounding, the
    uniqueness is scaled down and not up, so that a map of rounding errors does not arise.
    The variant `pytorch_sidu` is that package's algorithm, which the saliency benchmark calls: it compares the layer's
    output and not predictions, so that no class is involved, and its uniqueness is a distance between the channels of one
    masked copy and not between masks; S = 1 / N * sum of w_i M_i, with w_i as `feature_weights` has it.
    """
    images = check_images(images)
    settings = chosen("sidu", VARIANTS, variant, threshold=threshold, sigma=sigma, fill=fill)
    sigma = check_sigma(settings["sigma"])
    module = find_layer(model, layer, images)
    maps: list[Tensor] = []
    with frozen(model):
        substrate = filled(settings["fill"], model, images, indices=indices, seed=seed)
        logits, features, once = features_at(model, module, images, batch_size)
        targets = classes_of(logits, targets)
        for row in range(len(images)):
            image, options = images[row : row + 1], dict(fill=substrate[row : row + 1], batch_size=batch_size)
            masks, times = feature_masks(features[row], image, settings["threshold"], settings["edge"])
            if variant == "original":
                known = (targets[row], logits[row], masks, times, sigma)
                weights = 2 * prediction_weights(model, image, *known, **options)
            else:
                weights = feature_weights(model, image, module, features[row], masks, sigma, once, **options)
            maps.append(weighted_sum(masks, times * weights, image, batch_size) / times.sum())
    return torch.cat(maps)


@METHODS.register(family="mask", passes="2,000 F", paper="combination of the compendium")
def sidu_grids(
    model: nn.Module,
    images: Tensor,
    targets: Tensor | None = None,
    *,
    masks: int = 2000,
    cells: int = 8,
    keep: float = 0.5,
    sigma: float = 0.25,
    fill: Fill = "mean",
    seed: int = 0,
    indices: Tensor | None = None,
    batch_size: int | None = None,
) -> Tensor:
    """SIDU's weights on RISE's random grids: needs no layer, and weighs a mask by more than its score.

    Args:
        masks, cells, keep: see `rise`; sigma: see `sidu`; the others as both have them.

    Returns:
        (B, H, W), not negative; 0 where the predictions of all masked copies are the same.

    Source: masks as Petsiuk, Das, Saenko 2018, weights as Muddamsetty, Jahromi, Moeslund 2020; the combination is ours.
    """
    images = check_images(images)
    check_sigma(sigma)
    grids = random_grids(images, masks, cells, keep, seed)
    with frozen(model):
        substrate = filled(fill, model, images, indices=indices, seed=seed)
        logits = logits_of(model, images, batch_size)
        targets = classes_of(logits, targets)
        weights = torch.cat(
            [
                prediction_weights(
                    model,
                    images[row : row + 1],
                    targets[row],
                    logits[row],
                    grids,
                    images.new_ones(masks),
                    sigma,
                    fill=substrate[row : row + 1],
                    batch_size=batch_size,
                )
                for row in range(len(images))
            ]
        )
    return weighted_sum(grids, weights, images, batch_size) / (masks * keep)
