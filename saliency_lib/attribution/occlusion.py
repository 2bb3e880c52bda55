"""Occlusion: sliding windows as masks, each weighed by how far the score falls without it."""

import torch
from torch import Tensor, nn

from saliency_lib.attribution.masks import Masks, mask_scores, weighted_sum
from saliency_lib.attribution.table import METHODS
from saliency_lib.core.batching import frozen, resolve_targets
from saliency_lib.core.checks import check_images
from saliency_lib.core.fills import Fill


def windows(images: Tensor, window: int, stride: int) -> Masks:
    """Square windows (1 inside) at every `stride` pixels, the last of a row or column cut off at the border."""
    height, width = images.shape[2:]
    if not 1 <= window <= min(height, width):
        raise ValueError(f"window must be from 1 to {min(height, width)} for images of {height}x{width}, got {window}")
    if not 1 <= stride <= window:
        raise ValueError(f"stride must be from 1 to the window ({window}), or pixels are left out; got {stride}")

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


@METHODS.register(family="mask", passes="169 to 225 F", paper="Zeiler, Fergus 2014")
def occlusion(
    model: nn.Module,
    images: Tensor,
    targets: Tensor | None = None,
    *,
    window: int | None = None,
    stride: int | None = None,
    fill: Fill = "mean",
    score: str = "probability",
    seed: int = 0,
    indices: Tensor | None = None,
    batch_size: int | None = None,
) -> Tensor:
    """How far the score falls when a window that covers the pixel is filled, averaged over the windows that do.

    Args:
        images: (B, C, H, W) pixels in [0, 1].
        targets: (B,) classes; None for the predicted ones.
        window: side in pixels; None takes a seventh of the shorter side.
        stride: pixels between windows; None takes half a window, 169 to 225 windows on a square
            image. One forward pass a window.
        fill: what stands in the window, see `inputs.filled`.
        score: `probability` or `logit`.

    Returns:
        (B, H, W), signed, in units of the score; positive where the pixel speaks for the class.

    Raises:
        ValueError: a window larger than the image, or a stride that leaves pixels out.

    Source: Zeiler, Fergus 2014, section 4.2.
    """
    images = check_images(images)
    window = max(1, min(images.shape[2:]) // 7) if window is None else window
    hidden = windows(images, window, max(1, window // 2) if stride is None else stride)
    whole = Masks(1, lambda rows, numbers: images.new_ones(1, 1, *images.shape[2:]))
    with frozen(model):
        targets = resolve_targets(model, images, targets, batch_size)
        options = dict(fill=fill, score=score, indices=indices, seed=seed, batch_size=batch_size)
        drop = mask_scores(model, images, targets, whole, **options) - mask_scores(
            model, images, targets, hidden.inverse(), **options
        )
    covering = weighted_sum(hidden, torch.ones_like(drop), images, batch_size)
    return weighted_sum(hidden, drop, images, batch_size) / covering
