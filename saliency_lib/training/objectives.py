"""Training objectives: each maps (model, images, labels) to the scalar loss that one step minimises.

All are cross-entropy plus weight x regulariser; here those of saliency guided training, in density.py those of the density that
a classifier implies. Random numbers come from torch's global generator, as dropout's do; the training loop seeds it. The model is
in training mode: BatchNorm updates its statistics in every forward pass, and the gradient of one image depends on the others of
its batch.
"""

import math
from collections.abc import Callable
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saliency_lib.core.batching import arranged, frozen, in_chunks
from saliency_lib.core.fills import filled, image_mean, within
from saliency_lib.core.options import Names, NotNegative, Share
from saliency_lib.core.segments import Side, grid, rectangles
from saliency_lib.core.texts import real_tokens, text_model, vectors_of
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
SLOPES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {  # of gradients and images (B, C, H, W), one number (B, H, W) per pixel
    "mean": lambda slopes, images: slopes.mean(1),
    "norm": lambda slopes, images: slopes.norm(dim=1),
    "times_input": lambda slopes, images: (slopes * images).sum(1),
}


def _another_word(images: Tensor) -> Tensor:
    """Return each text (B, E, 1, T) with words that are drawn from its own."""
    flat, words = images.flatten(2), real_tokens(images).sum(1, keepdim=True)
    drawn = (torch.rand(len(flat), flat.shape[2], device=images.device) * words).long()
    return flat.gather(2, drawn[:, None].expand_as(flat)).view_as(images)


TRAINING_FILLS: dict[str, Callable[[Tensor], Tensor]] = {
    "uniform": lambda images: within(images, torch.rand_like(images)),
    "corner": lambda images: images[:, :, :1, :1].expand_as(images),
    "image_mean": lambda images: image_mean(images).expand_as(images),
    "previous": lambda images: torch.cat([images[..., :1], images[..., :-1]], 3),
    "padding": torch.zeros_like,
    "another_word": _another_word,
}
DIVERGENCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {  # from the log-probabilities (B, K) of image and masked image
    "clean_to_masked": lambda clean, masked: F.kl_div(masked, clean, log_target=True, reduction="batchmean"),
    "masked_to_clean": lambda clean, masked: F.kl_div(clean, masked, log_target=True, reduction="batchmean"),
}


def least_salient(
    model: nn.Module, images: Tensor, labels: Tensor, fraction: float, ranking: str = "signed", slope: str = "mean"
) -> Tensor:
    """Find the pixels of each image on which the log-probability of its label depends least.

    The gradient is taken in evaluation mode (without dropout) and reduced over channels. Of pixels with equal gradients the
    first count as less salient. The padding of a text is never among them.

    Returns:
        (B, 1, H, W) bool, true for int(fraction H W) pixels per image, or for int(fraction t) of the t tokens of a text.
    """
    slopes: list[Tensor] = []

    def slope_of(start: int, stop: int) -> None:
        pixels = arranged(images[start:stop].detach()).requires_grad_()
        logs = F.log_softmax(model(pixels), 1).gather(1, labels[start:stop, None]).sum()
        slopes.append(SLOPES[slope](torch.autograd.grad(logs, pixels)[0], pixels.detach()).flatten(1))

    with frozen(model), torch.enable_grad():
        in_chunks(slope_of, len(images), len(images))
    values = RANKINGS[ranking](torch.cat(slopes))
    real = torch.ones_like(values, dtype=torch.bool) if text_model(model) is None else real_tokens(images.detach())
    order = values.masked_fill(~real, math.inf).argsort(dim=1, stable=True)
    few = torch.arange(order.shape[1], device=order.device) < (fraction * real.sum(1, keepdim=True).double()).long()
    return torch.zeros_like(real).scatter_(1, order, few).view_as(images[:, :1])


@OBJECTIVES.register(paper="Ismail et al. 2021", added=("slope",))
def saliency_guided(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    weight: NotNegative = 1.0,
    fraction: Share = 0.5,
    ranking: Annotated[str, Names(RANKINGS)] = "signed",
    slope: Annotated[str, Names(SLOPES)] = "mean",
    fill: Annotated[str, Names(TRAINING_FILLS)] = "uniform",
    divergence: Annotated[str, Names(DIVERGENCES)] = "clean_to_masked",
) -> Tensor:
    """Add to cross-entropy the change of the prediction when the pixels with the smallest gradients are overwritten.

    L = CE(f(x), y) + weight KL(p(x) || p(x')), where x' is the image whose `least_salient` pixels have the values of the fill.

    Args:
        images: (B, C, H, W) pixels in [0, 1], or texts (B, 1, 1, T) if the model is one of texts, whose pixels are the vectors of
            their words; labels: (B,) classes.
        weight: of the divergence; 0 is cross_entropy, at the same cost.
        fraction: share of the pixels that are overwritten, in [0, 1]; int(fraction H W) pixels.
        ranking: `signed`, the released default, for which the most negative gradients are the smallest, or `absolute` (--abs).
        slope: how the gradient is reduced over channels: `mean`, `norm` (Euclidean), or `times_input` (the sum of gradient times
            input, for words how much their vector adds to the log-probability to first order).
        fill: `uniform` in the range of the image's channel, `corner` (the image's top left pixel) or `image_mean`; for texts
            `previous` (the word before; the first word stays), `padding` (0) or `another_word` (drawn from the text).
        divergence: `clean_to_masked` or `masked_to_clean`; the gradient flows through both predictions.

    Returns:
        (), not negative, in nats.

    Source: Ismail, Corrada Bravo, Feizi 2021, algorithm 1, and released code; `previous` as the paper has it for texts.
    Differs: the released code indexes colour images such that only the first channel is overwritten; here a pixel is overwritten
    in all its channels. Its constant fill is the corner of the batch's first image, here the corner of the image itself. As in
    the released code, the two predictions have different dropout, so their divergence is not 0 for fraction=0.
    """
    if weight == 0:
        return cross_entropy(model, images, labels)
    if (network := text_model(model)) is not None:
        images = vectors_of(network, images)
    mask = least_salient(model, images, labels, fraction, ranking, slope)
    clean = F.log_softmax(model(images), 1)
    masked = F.log_softmax(model(torch.where(mask, TRAINING_FILLS[fill](images), images)), 1)
    return F.nll_loss(clean, labels) + weight * DIVERGENCES[divergence](clean, masked)
