"""Training objectives: each maps (model, images, labels) to the scalar loss that one step minimises.

All are cross-entropy plus weight x regulariser; here those of saliency guided training, in density.py those of the density that
a classifier implies. Random numbers come from torch's global generator, as dropout's do; the training loop seeds it. The model is
in training mode: BatchNorm updates its statistics in every forward pass, and the gradient of one image depends on the others of
its batch.
"""

from collections.abc import Callable
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saliency_lib.core.batching import arranged, frozen, in_chunks
from saliency_lib.core.fills import filled, image_mean, within
from saliency_lib.core.options import Names, NotNegative, Share
from saliency_lib.core.segments import Side, grid, rectangles
from saliency_lib.training.table import OBJECTIVES


@OBJECTIVES.register(paper="standard")
def cross_entropy(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    label_smoothing: Share = 0.0,
    variant: Annotated[str, Names(("paper", "saliency_benchmark"))] = "paper",
) -> Tensor:
    """Compute the mean cross-entropy of the logits with the labels.

    Args:
        images: (B, C, H, W) pixels in [0, 1]; labels: (B,) classes.
        label_smoothing: share of the target that is spread over all classes, in [0, 1].
        variant: `paper`, or `saliency_benchmark`, whose network ends in a softmax to which the loss applies another one.

    Returns:
        (), not negative, in nats.

    Source: the saliency benchmark's released code, for the variant. With it the loss of K classes cannot fall below
    log(1 + (K - 1)/e), and the gradient of a confident error almost vanishes.
    """
    logits = model(images)
    return F.cross_entropy(logits if variant == "paper" else logits.softmax(1), labels, label_smoothing=label_smoothing)


DELETED = ("mean", "black", "white", "grey", "image_mean", "blur")


@OBJECTIVES.register(paper="Hesse et al. 2024")
def patch_deletion(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    side: Side = 4,
    share: Share = 0.5,
    fill: Annotated[str, Names(DELETED)] = "mean",
) -> Tensor:
    """Compute the mean cross-entropy of images of which a share lacks a random patch, which brings such images into the domain.

    Args:
        images: (B, C, H, W) pixels in [0, 1]; labels: (B,) classes.
        side: patches per row and per column.
        share: with this probability an image lacks one patch, in [0, 1].
        fill: what replaces the patch, see `fills.filled`; `mean` is 0 after the normalisation.

    Returns:
        (), not negative, in nats.

    Source: Hesse, Schaub-Meyer, Roth 2024, and released code.
    """
    chosen = torch.randint(rectangles(images, side), (len(images), 1, 1), device=images.device)
    lacking = torch.rand(len(images), 1, 1, device=images.device) < share
    gone = (grid(images, side) == chosen) & lacking
    return cross_entropy(model, torch.where(gone[:, None], filled(fill, model, images), images), labels)


RANKINGS: dict[str, Callable[[Tensor], Tensor]] = {"signed": lambda slope: slope, "absolute": Tensor.abs}
TRAINING_FILLS: dict[str, Callable[[Tensor], Tensor]] = {
    "uniform": lambda images: within(images, torch.rand_like(images)),
    "corner": lambda images: images[:, :, :1, :1].expand_as(images),
    "image_mean": lambda images: image_mean(images).expand_as(images),
}
DIVERGENCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {  # from the log-probabilities (B, K) of image and masked image
    "clean_to_masked": lambda clean, masked: F.kl_div(masked, clean, log_target=True, reduction="batchmean"),
    "masked_to_clean": lambda clean, masked: F.kl_div(clean, masked, log_target=True, reduction="batchmean"),
}


def least_salient(model: nn.Module, images: Tensor, labels: Tensor, fraction: float, ranking: str = "signed") -> Tensor:
    """Find the pixels of each image on which the log-probability of its label depends least.

    The gradient is taken in evaluation mode (without dropout) and averaged over channels. Of pixels with equal gradients the
    first count as less salient.

    Returns:
        (B, 1, H, W) bool, true for int(fraction H W) pixels per image.
    """
    slopes: list[Tensor] = []

    def slope_of(start: int, stop: int) -> None:
        pixels = arranged(images[start:stop].detach()).requires_grad_()
        logs = F.log_softmax(model(pixels), 1).gather(1, labels[start:stop, None]).sum()
        slopes.append(torch.autograd.grad(logs, pixels)[0].mean(1).flatten(1))

    with frozen(model), torch.enable_grad():
        in_chunks(slope_of, len(images), len(images))
    slope = RANKINGS[ranking](torch.cat(slopes))
    least = slope.argsort(dim=1, stable=True)[:, : int(fraction * slope.shape[1])]
    return torch.zeros_like(slope, dtype=torch.bool).scatter_(1, least, True).view_as(images[:, :1])


@OBJECTIVES.register(paper="Ismail et al. 2021")
def saliency_guided(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    weight: NotNegative = 1.0,
    fraction: Share = 0.5,
    ranking: Annotated[str, Names(RANKINGS)] = "signed",
    fill: Annotated[str, Names(TRAINING_FILLS)] = "uniform",
    divergence: Annotated[str, Names(DIVERGENCES)] = "clean_to_masked",
) -> Tensor:
    """Add to cross-entropy the change of the prediction when the pixels with the smallest gradients are overwritten.

    L = CE(f(x), y) + weight KL(p(x) || p(x')), where x' is the image whose `least_salient` pixels have the values of the fill.

    Args:
        images: (B, C, H, W) pixels in [0, 1]; labels: (B,) classes.
        weight: of the divergence; 0 is cross_entropy, at the same cost.
        fraction: share of the pixels that are overwritten, in [0, 1]; int(fraction H W) pixels.
        ranking: `signed`, the released default, for which the most negative gradients are the smallest, or `absolute` (--abs).
        fill: `uniform` in the range of the image's channel, `corner` (the image's top left pixel) or `image_mean`.
        divergence: `clean_to_masked` or `masked_to_clean`; the gradient flows through both predictions.

    Returns:
        (), not negative, in nats.

    Source: Ismail, Corrada Bravo, Feizi 2021, algorithm 1, and released code.
    Differs: the released code indexes colour images such that only the first channel is overwritten; here a pixel is overwritten
    in all its channels. Its constant fill is the corner of the batch's first image, here the corner of the image itself. As in
    the released code, the two predictions have different dropout, so their divergence is not 0 for fraction=0.
    """
    if weight == 0:
        return cross_entropy(model, images, labels)
    mask = least_salient(model, images, labels, fraction, ranking)
    clean = F.log_softmax(model(images), 1)
    masked = F.log_softmax(model(torch.where(mask, TRAINING_FILLS[fill](images), images)), 1)
    return F.nll_loss(clean, labels) + weight * DIVERGENCES[divergence](clean, masked)
