"""Class activation maps: the feature maps of one layer, weighted by their effect on the class score."""

from collections.abc import Callable
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saliency_lib.attribution.layers import Layout, features_at, find_layer, last_output, layered, layout_of, leaf_at
from saliency_lib.attribution.masks import Masks, mask_scores
from saliency_lib.attribution.table import METHODS
from saliency_lib.core.batching import arranged, chunk_size, classes_at, classes_of, frozen, in_chunks, logits_of, recording
from saliency_lib.core.checks import as_targets, check_images
from saliency_lib.core.fills import Fill
from saliency_lib.core.options import Names, Positive, Seed
from saliency_lib.core.streams import Indices


def _plus_plus(features: Tensor, gradient: Tensor) -> Tensor:
    """Weigh channels by their positive gradients, each position by its share of the score's curvature."""
    square = gradient.square()
    curvature = 2 * square + features.sum((2, 3), keepdim=True) * square * gradient
    shares = torch.where(gradient != 0, square / torch.where(curvature != 0, curvature, 1), 0)
    return (shares * gradient.relu()).sum((2, 3), keepdim=True)


WEIGHTINGS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {  # of feature maps (B, K, h, w), by them and their gradients
    "mean": lambda features, gradient: gradient.mean((2, 3), keepdim=True),
    "plus_plus": _plus_plus,
    "elementwise": lambda features, gradient: gradient,
    "positive": lambda features, gradient: gradient.relu(),
}


@METHODS.register(family="activation", passes="1 F + 1 B", paper="Selvaraju et al. 2017", revision=1, added=("weighting",))
def gradcam(
    model: nn.Module,
    images: Tensor,
    targets: Tensor | None = None,
    *,
    layer: nn.Module | str | None = None,
    weighting: Annotated[str, Names(WEIGHTINGS)] = "mean",
    batch_size: Positive | None = None,
) -> Tensor:
    """Sum the feature maps of a layer, weighted by their mean gradient, and enlarge the positive part to the image.

    L = ReLU(sum_k a_k A_k), where a_k is the mean over positions of d f_c / d A_k. The backward pass stops at the layer.

    Args:
        images: (B, C, H, W) pixels in [0, 1].
        targets: (B,) classes; None for the predicted ones.
        layer: a module or its dotted name; None is the last layer with at least 4x4 positions that no path from the image to
            the logits bypasses (`layer4` of a ResNet at 224 pixels, `layer3` at 64), see `layers.find_layer`. If the model uses
            the layer several times, the last use counts.
        weighting: `mean` (Grad-CAM: the mean gradient of a channel), `plus_plus` (Grad-CAM++), `elementwise` (HiResCAM: the
            gradient at each position) or `positive` (LayerCAM: its positive part).

    Returns:
        (B, H, W), not negative, bilinearly enlarged.

    Raises:
        ValueError: the layer is unknown, has no features at positions, or the class score does not depend on it.

    Source: Selvaraju et al. 2017, section 3; Chattopadhay et al. 2018 (Grad-CAM++), Draelos, Carin 2020 (HiResCAM), Jiang et al.
    2021 (LayerCAM). Differs: f_c is the logit, also where the saliency benchmark's model ends in a softmax. A transformer's
    tokens are read as positions, without the class token.
    """
    images = check_images(images)
    module = find_layer(model, layer, images)
    maps: list[Tensor] = []
    layouts: list[Layout] = []
    with frozen(model):
        targets = None if targets is None else as_targets(targets, images)

        def add(start: int, stop: int) -> None:
            with recording(), leaf_at(module) as leaves:
                logits = model(arranged(images[start:stop]))
                features = last_output(leaves)
                classes = classes_at(logits, targets, slice(start, stop), check=start == 0)
                score = logits.gather(1, classes[:, None]).sum()
                gradient = torch.autograd.grad(score, features, allow_unused=True)[0] if score.requires_grad else None
                if gradient is None:
                    raise ValueError(
                        "the class score does not depend on the layer, or no gradient leads there; choose a layer that leads to "
                        "the logits, or a method that takes forward passes alone (rise, occlusion, lime)"
                    )
            if not layouts:
                layouts.append(layout_of(model, module, features, images))
            at_positions = layouts[0].maps(features.detach())
            weights = WEIGHTINGS[weighting](at_positions, layouts[0].maps(gradient))
            small = (weights * at_positions).sum(1, keepdim=True).relu()
            enlarged = F.interpolate(small, images.shape[2:], mode="bilinear", align_corners=False)
            maps.append(enlarged[:, 0].to(images.dtype))

        in_chunks(add, len(images), chunk_size(images, batch_size))
    return torch.cat(maps)


@METHODS.register(family="mask", passes="1 F + 1 F per channel", paper="Wang et al. 2020", forward_only=True)
def score_cam(
    model: nn.Module,
    images: Tensor,
    targets: Tensor | None = None,
    *,
    layer: nn.Module | str | None = None,
    fill: Fill = "mean",
    seed: Seed = 0,
    indices: Indices = None,
    batch_size: Positive | None = None,
) -> Tensor:
    """Sum the feature maps of a layer, each weighted by the class's logit for the image seen through this map.

    L = ReLU(sum_k a_k A_k), where a is the softmax over k of f_c at H_k * x + (1 - H_k) * fill, and H_k is A_k, enlarged and
    rescaled to [0, 1].

    Args:
        layer: as in gradcam.
        fill: what shows where a map is 0, see `fills.filled`; the mean is 0 after the model's normalisation, as in the paper.
        seed, indices: fix a `noise` fill.

    Returns:
        (B, H, W), not negative, bilinearly enlarged.

    Raises:
        ValueError: the layer is unknown or has no features at positions.

    Source: Wang et al. 2020, algorithm 1, where the softmax is in the released code.
    """
    images = check_images(images)
    network = layered(model)
    module = find_layer(network, layer, images)
    with frozen(model), frozen(network):
        logits, features, _, _ = features_at(network, module, images, batch_size)
        if network is not model:
            logits = logits_of(model, images, batch_size)
        classes = classes_of(logits, targets)
        least, most = features.amin((2, 3), keepdim=True), features.amax((2, 3), keepdim=True)
        scaled = (features - least) / torch.where(most > least, most - least, 1)

        def at(rows: Tensor, numbers: Tensor) -> Tensor:
            return F.interpolate(scaled[rows][:, numbers], images.shape[2:], mode="bilinear", align_corners=False).to(
                images.dtype
            )

        masks = Masks(features.shape[1], at)
        given: dict[str, Any] = dict(fill=fill, score="logit", indices=indices, seed=seed, batch_size=batch_size)
        weights = mask_scores(model, images, classes, masks, **given).to(features.dtype).softmax(1)
        small = torch.einsum("bk,bkhw->bhw", weights, features).relu()[:, None]
    return F.interpolate(small, images.shape[2:], mode="bilinear", align_corners=False)[:, 0].to(images.dtype)
