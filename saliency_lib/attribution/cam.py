"""Class activation maps: the feature maps of one layer, weighted by their effect on the class score."""

from collections.abc import Callable
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saliency_lib.attribution.layers import find_layer, leaf_at, spatial_output
from saliency_lib.attribution.table import METHODS
from saliency_lib.core.batching import arranged, chunk_size, classes_at, frozen, in_chunks, recording
from saliency_lib.core.checks import as_targets, check_images
from saliency_lib.core.options import Names, Positive


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
        ValueError: the layer is unknown, has no spatial output or has its channels last (inside Swin and ConvNeXt), or the class
            score does not depend on it.

    Source: Selvaraju et al. 2017, section 3; Chattopadhay et al. 2018 (Grad-CAM++), Draelos, Carin 2020 (HiResCAM), Jiang et al.
    2021 (LayerCAM). Differs: f_c is the logit, also where the saliency benchmark's model ends
    in a softmax. In a vision transformer the default is the patch embedding, the only layer with positions; in Swin it is the
    last norm, with its channels moved first.
    """
    images = check_images(images)
    module = find_layer(model, layer, images)
    maps: list[Tensor] = []
    with frozen(model):
        targets = None if targets is None else as_targets(targets, images)

        def add(start: int, stop: int) -> None:
            with recording(), leaf_at(module) as leaves:
                logits = model(arranged(images[start:stop]))
                features = spatial_output(model, module, images, leaves)
                classes = classes_at(logits, targets, slice(start, stop), check=start == 0)
                score = logits.gather(1, classes[:, None]).sum()
                gradient = torch.autograd.grad(score, features, allow_unused=True)[0] if score.requires_grad else None
                if gradient is None:
                    raise ValueError("the class score does not depend on the layer; choose a layer that leads to the logits")
            weights = WEIGHTINGS[weighting](features.detach(), gradient)
            small = (weights * features.detach()).sum(1, keepdim=True).relu()
            enlarged = F.interpolate(small, images.shape[2:], mode="bilinear", align_corners=False)
            maps.append(enlarged[:, 0].to(images.dtype))

        in_chunks(add, len(images), chunk_size(images, batch_size))
    return torch.cat(maps)
