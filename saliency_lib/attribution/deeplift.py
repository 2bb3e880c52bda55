"""DeepLIFT: the change from a baseline, propagated back through the network with ratios instead of derivatives."""

import torch
from torch import Tensor, nn

from saliency_lib.attribution.backward import Path, Reduction, even_weights, noise_images, path_gradient, reduced
from saliency_lib.attribution.rules import rescaled
from saliency_lib.attribution.table import METHODS
from saliency_lib.core.batching import chunk_size, frozen, in_chunks, recording, resolve_targets
from saliency_lib.core.checks import check_images
from saliency_lib.core.fills import Fill, filled
from saliency_lib.core.optional import optional
from saliency_lib.core.registry import no_such


@METHODS.register(family="path", passes="2 F + 1 B", paper="Shrikumar et al. 2017")
def deeplift(
    model: nn.Module,
    images: Tensor,
    targets: Tensor | None = None,
    *,
    baseline: Fill = "mean",
    backend: str = "rule",
    reduction: Reduction = "sum",
    seed: int = 0,
    indices: Tensor | None = None,
    batch_size: int | None = None,
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

    Source: Shrikumar, Greenside, Kundaje 2017. Differs: if a pixel is the maximum of several overlapping
    max-pool windows, captum keeps one of its shares; here they add up, so that completeness holds.
    """
    images = check_images(images)
    start = filled(baseline, model, images, indices=indices, seed=seed)
    if backend == "captum":
        return reduced(_by_captum(model, images, start, targets, batch_size), reduction)
    if backend != "rule":
        raise no_such("backend", backend, ("rule", "captum"))
    path = Path(images.new_ones(1), lambda rows, points: images[rows], lambda rows, points: (images - start)[rows])
    return reduced(path_gradient(model, images, targets, path, rule=rescaled, batch_size=batch_size), reduction)


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
    return total


@METHODS.register(family="path", passes="20 F + 10 B", paper="Lundberg, Lee 2017")
def deeplift_shap(
    model: nn.Module,
    images: Tensor,
    targets: Tensor | None = None,
    *,
    samples: int = 10,
    reduction: Reduction = "sum",
    seed: int = 0,
    indices: Tensor | None = None,
    batch_size: int | None = None,
) -> Tensor:
    """Average DeepLIFT over noise images as baselines.

    Args:
        samples: baselines per image, uniform noise in [0, 1]; two forward passes and one backward pass each.
        seed, indices: fix the baselines of each image, whatever batch it is in.

    Returns:
        (B, H, W), signed, in logits; each map sums to f_c(x) minus the mean of f_c over its baselines.

    Raises:
        ValueError: as in deeplift.

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
    return reduced(path_gradient(model, images, targets, path, rule=rescaled, batch_size=batch_size), reduction)
