"""Occlusion: sliding windows as masks, each weighted by how far the score falls when the window is filled."""

from typing import Any

import torch
from torch import Tensor, nn

from saliency_lib.attribution.masks import ClassScore, Masks, mask_scores, weighted_sum
from saliency_lib.attribution.table import METHODS
from saliency_lib.core.batching import frozen, resolve_targets
from saliency_lib.core.checks import check_images
from saliency_lib.core.fills import Fill
from saliency_lib.core.options import Positive, Seed
from saliency_lib.core.streams import Indices


def windows(images: Tensor, window: int, stride: int) -> Masks:
    """Return square windows (1 inside) at every `stride` pixels; the last of a row or column is cut off at the border."""
    height, width = images.shape[2:]
    if not 1 <= window <= min(height, width):
        raise ValueError(f"window must be from 1 to {min(height, width)} for images of {height}x{width}, got {window}")
    if not 1 <= stride <= window:
        raise ValueError(f"stride must be from 1 to {window}, the window, so that every pixel is covered; got {stride}")

    def starts(side: int) -> Tensor:
        return torch.arange(-(-(side - window) // stride) + 1, device=images.device) * stride

    tops, lefts = starts(height), starts(width)

    def inside(first: Tensor, side: int) -> Tensor:
        place = torch.arange(side, device=images.device)
        return ((place >= first[:, None]) & (place < first[:, None] + window)).to(images.dtype)

    def at(rows: Tensor, numbers: Tensor) -> Tensor:
        down, across = inside(tops[numbers // len(lefts)], height), inside(lefts[numbers % len(lefts)], width)
        return (down[:, :, None] * across[:, None, :])[None]

    return Masks(len(tops) * len(lefts), at)


@METHODS.register(family="mask", passes="170 F at 224 px", paper="Zeiler, Fergus 2014", forward_only=True)
def occlusion(
    model: nn.Module,
    images: Tensor,
    targets: Tensor | None = None,
    *,
    window: Positive | None = None,
    stride: Positive | None = None,
    fill: Fill = "mean",
    score: ClassScore = "probability",
    seed: Seed = 0,
    indices: Indices = None,
    batch_size: Positive | None = None,
) -> Tensor:
    """Measure how far the score falls when a window that covers the pixel is filled, averaged over these windows.

    Args:
        images: (B, C, H, W) pixels in [0, 1].
        targets: (B,) classes; None for the predicted ones.
        window: side in pixels; None is a seventh of the image's shorter side.
        stride: pixels between windows; None is half a window, which gives 169 windows on a square image of 28 or 224 pixels
            and 225 at 32. Each window takes one forward pass, and the whole image one more.
        fill: what replaces the pixels in the window, see `fills.filled`.
        score: `probability` or `logit`.
        seed, indices: fix a `noise` fill.

    Returns:
        (B, H, W), signed, in units of the score; positive where the pixel is evidence for the class.

    Raises:
        ValueError: the window is larger than the image, or the stride leaves pixels out.

    Source: Zeiler, Fergus 2014, section 4.2.
    """
    images = check_images(images)
    window = max(1, min(images.shape[2:]) // 7) if window is None else window
    hidden = windows(images, window, max(1, window // 2) if stride is None else stride)
    whole = Masks(1, lambda rows, numbers: images.new_ones(1, 1, *images.shape[2:]))
    options: dict[str, Any] = dict(fill=fill, score=score, indices=indices, seed=seed, batch_size=batch_size)
    with frozen(model):
        targets = resolve_targets(model, images, targets, batch_size)
        before, after = (mask_scores(model, images, targets, masks, **options) for masks in (whole, hidden.inverse()))
    covering = weighted_sum(hidden, torch.ones_like(after), images, batch_size)
    return weighted_sum(hidden, before - after, images, batch_size) / covering
