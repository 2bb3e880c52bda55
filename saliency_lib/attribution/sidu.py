"""SIDU: thresholded feature maps as masks, weighted by similarity and uniqueness."""

from typing import Annotated, Any

import torch
from torch import Tensor, nn

from saliency_lib.attribution.layers import Layout, features_at, find_layer, layered, leaf_at
from saliency_lib.attribution.masks import Masks, interpolation, readings, variant_settings, weighted_sum
from saliency_lib.attribution.rise import random_grids
from saliency_lib.attribution.table import METHODS
from saliency_lib.core.batching import classes_of, frozen, logits_of
from saliency_lib.core.checks import check_images
from saliency_lib.core.fills import Fill, filled
from saliency_lib.core.options import Above0, Count, Names, Number, Positive, Seed, ShareAbove0
from saliency_lib.core.scores import probabilities
from saliency_lib.core.streams import Indices, sent


def feature_masks(features: Tensor, image: Tensor, threshold: float, edge: str = "mirror") -> tuple[Masks, Tensor]:
    """Make masks of the positions where the feature maps of an image are above the threshold, enlarged bilinearly.

    Args:
        features: (N, h, w), or which of its positions are above the threshold, bool; best on the CPU, since the number of
            distinct masks has to be known there.
        image: (1, C, H, W), on any device.
        edge: see `interpolation`.

    Returns:
        The distinct masks (dead and saturated channels give equal ones), and how often each occurs, (n,).
    """
    above = features if features.dtype == torch.bool else features > threshold
    grids, times = (sent(part.to(image.dtype), image.device) for part in above.unique(dim=0, return_counts=True))
    down, across = (interpolation(grids.shape[i], image.shape[i + 1], edge, image) for i in (1, 2))
    return Masks(len(grids), lambda rows, numbers: (down.mT @ (grids[numbers] @ across))[None]), times


def similarity(difference: Tensor, sigma: float) -> Tensor:
    """Return a Gaussian of the difference with width sigma, 1 where there is no difference."""
    return torch.exp(-difference.square() / (2 * float(sigma) ** 2))


def prediction_weights(
    model: nn.Module,
    image: Tensor,
    target: Tensor,
    before: Tensor,
    masks: Masks,
    times: Tensor,
    sigma: float,
    **options: Any,
) -> Tensor:
    """Weight each mask of one image by the similarity of its prediction to the whole image's, times its uniqueness.

    w_i = exp(-(P_0c - P_ic)^2 / (2 sigma^2)) * U_i; U_i = sum over j of |P_i - P_j|, scaled to [0, 1] over the masks.

    Args:
        image: (1, C, H, W).
        target: (), the class c.
        before: (K,), the logits of the whole image.
        times: (n,), how often each mask occurs.
        options: `substrate` and `batch_size` of `readings`.

    Returns:
        (1, n), in [0, 1]; all 0 if every mask gives the same prediction.
    """
    after = readings(model, image, masks, lambda copies, rows: probabilities(model(copies)), **options)[0]
    # the faster way, a matrix product, gives distances above 0 between equal predictions, which the scaling would magnify
    after = after.to(torch.promote_types(after.dtype, torch.float32))
    uniqueness = torch.cdist(after, after, compute_mode="donot_use_mm_for_euclid_dist") @ times.to(after)
    rounding = 450 * torch.finfo(after.dtype).eps  # 1e-13 in double, as released
    uniqueness = (uniqueness - uniqueness.min()) / (uniqueness.max() - uniqueness.min() + rounding)
    change = (after - probabilities(before)).index_select(1, target[None])[:, 0]
    return (similarity(change, sigma) * uniqueness)[None].to(image.dtype)


def feature_weights(
    model: nn.Module,
    image: Tensor,
    module: nn.Module,
    before: Tensor,
    layout: Layout,
    masks: Masks,
    sigma: float,
    once: bool,
    **options: Any,
) -> Tensor:
    """Weight each mask of one image as pytorch_sidu does, using a layer's output and no class.

    w_i = mean over positions of exp(-(mean over channels of |F_i - F_0|)^2 / (2 sigma^2)), times the mean distance between
    the channels of F_i.

    Args:
        image: (1, C, H, W).
        module: the layer.
        before: (N, h, w), its features for the image.
        layout: how its output holds them.
        once: whether the model uses the layer once, so that the forward pass can end there.
        options: `substrate` and `batch_size` of `readings`.

    Returns:
        (1, N), not negative.
    """

    def read(copies: Tensor, rows: Tensor) -> Tensor:
        with leaf_at(module, stop=once) as leaves:
            model(copies)
        after = layout.maps(leaves[-1].detach())
        channels = after.flatten(2)
        return similarity((after - before).abs().mean(1), sigma).mean((1, 2)) * torch.cdist(channels, channels).mean((1, 2))

    return readings(model, image, masks, read, **options)


VARIANT_SETTINGS: dict[str, dict[str, Any]] = {
    "original": {"threshold": 0.1, "sigma": 0.25, "fill": "mean", "edge": "mirror"},
    "pytorch_sidu": {"threshold": 0.15, "sigma": 0.1, "fill": "black", "edge": "corners"},
}


@METHODS.register(
    family="mask", passes="1 F + 1 F per distinct mask", paper="Muddamsetty et al. 2020", revision=1, forward_only=True
)
def sidu(
    model: nn.Module,
    images: Tensor,
    targets: Tensor | None = None,
    *,
    layer: nn.Module | str | None = None,
    threshold: Number | None = None,
    sigma: Above0 | None = None,
    fill: Fill | None = None,
    variant: Annotated[str, Names(VARIANT_SETTINGS)] = "original",
    seed: Seed = 0,
    indices: Indices = None,
    batch_size: Positive | None = None,
) -> Tensor:
    """Sum a layer's thresholded feature maps, weighted by the similarity and uniqueness of the predictions behind them.

    S = 2 / N * sum over the N feature maps of w_i M_i, with w_i as in `prediction_weights`.

    Args:
        images: (B, C, H, W) pixels in [0, 1].
        targets: (B,) classes; None for the predicted ones.
        layer: a module or its dotted name, see `gradcam`. Each distinct mask takes one forward pass, and the whole image one
            more. If an engine runs the model, the module is one of `model.layered`, a copy of the original.
        threshold: a mask keeps the positions where its feature map is above it.
        sigma: width of the similarity, in units of probability (of the number that `sl.Scalar` gives; of the features in the
            variant `pytorch_sidu`).
        fill: what replaces a pixel where a mask is 0, see `fills.filled`.
        variant: `original` (threshold 0.1, sigma 0.25, fill mean) or `pytorch_sidu` (0.15, 0.1, black). Options that are
            given replace the variant's.
        seed, indices: fix a `noise` fill.

    Returns:
        (B, H, W), not negative; 0 if the predictions of all masked copies are the same.

    Raises:
        ValueError: the layer is unknown or has no features at positions, sigma is not above 0, or the variant is unknown.

    Source: Muddamsetty, Jahromi, Moeslund 2020, sections 2.1-2.2; numbers of the released code.
    Differs: the similarity is that of one class, as in the released code; the paper uses the norm over all classes. Equal
    masks go through the model once. If the predictions of the masks differ by less than their rounding, the uniqueness is
    scaled down instead of up, which avoids a map of rounding errors.
    The variant `pytorch_sidu` is the algorithm of that package, which the saliency benchmark calls. It compares the layer's
    output instead of predictions, so that no class is involved. Its uniqueness is a distance between the channels of one
    masked copy, not between masks; S = 1 / N * sum of w_i M_i, with w_i as in `feature_weights`. It reads the layer in every
    pass, so an engine does not make it faster.
    """
    images = check_images(images)
    settings = variant_settings("sidu", VARIANT_SETTINGS, variant, threshold=threshold, sigma=sigma, fill=fill)
    sigma = settings["sigma"]
    network = layered(model)
    module = find_layer(network, layer, images)
    maps: list[Tensor] = []
    with frozen(model), frozen(network):
        substrate = filled(settings["fill"], model, images, indices=indices, seed=seed)
        logits, features, layout, once = features_at(network, module, images, batch_size)
        if network is not model:
            logits = logits_of(model, images, batch_size)
        targets = classes_of(logits, targets)
        above = (features > settings["threshold"]).cpu()
        for row in range(len(images)):
            image = images[row : row + 1]
            options: dict[str, Any] = dict(substrate=substrate[row : row + 1], batch_size=batch_size)
            masks, times = feature_masks(above[row], image, settings["threshold"], settings["edge"])
            if variant == "original":
                weights = 2 * prediction_weights(model, image, targets[row], logits[row], masks, times, sigma, **options)
            else:
                weights = feature_weights(network, image, module, features[row], layout, masks, sigma, once, **options)
            maps.append(weighted_sum(masks, times * weights, image, batch_size) / times.sum())
    return torch.cat(maps)


@METHODS.register(family="mask", passes="2,001 F", paper="combination of the compendium", forward_only=True)
def sidu_grids(
    model: nn.Module,
    images: Tensor,
    targets: Tensor | None = None,
    *,
    masks: Count = 2000,
    cells: Positive = 8,
    keep: ShareAbove0 = 0.5,
    sigma: Above0 = 0.25,
    fill: Fill = "mean",
    seed: Seed = 0,
    indices: Indices = None,
    batch_size: Positive | None = None,
) -> Tensor:
    """Sum RISE's random grids with SIDU's weights, which needs no layer and uses more than each mask's score.

    Args:
        masks, cells, keep: as in `rise`.
        sigma: as in `sidu`.
        fill, seed, indices: as in both.

    Returns:
        (B, H, W), not negative; 0 if the predictions of all masked copies are the same.

    Source: masks as Petsiuk, Das, Saenko 2018, weights as Muddamsetty, Jahromi, Moeslund 2020; the combination is ours.
    """
    images = check_images(images)
    grids = random_grids(images, masks, cells, keep, seed)
    with frozen(model):
        substrate = filled(fill, model, images, indices=indices, seed=seed)
        logits = logits_of(model, images, batch_size)
        targets = classes_of(logits, targets)
        weights: list[Tensor] = []
        for row in range(len(images)):
            image, known = images[row : row + 1], (targets[row], logits[row], grids, images.new_ones(masks), sigma)
            weights.append(prediction_weights(model, image, *known, substrate=substrate[row : row + 1], batch_size=batch_size))
    return weighted_sum(grids, torch.cat(weights), images, batch_size) / (masks * keep)
