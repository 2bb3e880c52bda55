"""DeepLIFT: the change from a baseline, handed back through the network by ratios in place of derivatives."""

import torch
from torch import Tensor, nn

from saliency_lib.attribution.backward import Path, Reduction, noise_images, path_gradient, reduced
from saliency_lib.attribution.rules import rescaled
from saliency_lib.attribution.table import METHODS
from saliency_lib.core.batching import chunk_size, frozen, in_chunks, recording, resolve_targets
from saliency_lib.core.checks import check_images, positive
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
    """Share of each pixel in the change of the score from the baseline to the image, by the rescale rule.

    Two forward passes and one backward pass an image.

    Args:
        images: (B, C, H, W) pixels in [0, 1].
        targets: (B,) classes; None for the predicted ones.
        baseline: as integrated_gradients'.
        backend: `rule` (`rules.rescaled`, any network) or `captum`, which refuses networks that use a module twice
            (ResNets), passes ReLU6 and functional units (GoogLeNet's) by their derivative without a word, and is wrong where
            a unit feeds a max-pool directly and out of place.
        seed, indices: fix a `noise` baseline.

    Returns:
        (B, H, W), signed, in logits; each map sums to f_c(x) - f_c(x') for networks of linear layers, activations
        and max-pools, see `completeness_error`.

    Raises:
        ValueError: the network has no such unit or one that mixes features otherwise (attention), or an unknown backend.

    Source: Shrikumar, Greenside, Kundaje 2017. Differs: where max-pool windows overlap, captum keeps one of the shares of a
    pixel that is the maximum of several; here they add up, so that completeness holds.
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
    """DeepLIFT averaged over noise images as baselines.

    Args:
        samples: baselines an image, uniform noise in [0, 1]; two forward passes and one backward pass each.
        seed, indices: fix the baselines of each image, whatever batch it comes in.

    Returns:
        (B, H, W), signed, in logits; each map sums to f_c(x) minus the mean of f_c over its baselines.

    Raises:
        ValueError: as deeplift.

    Source: Lundberg, Lee 2017, section 4.2; noise images as Ismail et al. 2021, released code. Differs: there all images of
    a batch share 5 B noise images.
    """
    images = check_images(images)
    noise = noise_images(images, seed, indices)
    path = Path(
        images.new_full((positive("samples", samples),), 1 / samples),
        lambda rows, points: images[rows],
        lambda rows, points: images[rows] - noise(rows, points),
    )
    return reduced(path_gradient(model, images, targets, path, rule=rescaled, batch_size=batch_size), reduction)
