"""Mask attribution: masks made a chunk at a time, each weighed by what the model says of the masked image, and summed."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from saliency_lib.batching import arranged, chunk_size, frozen, in_chunks
from saliency_lib.inputs import Fill, check_images, filled, resolve_targets
from saliency_lib.registry import METHODS, no_such


@dataclass(frozen=True)
class Masks:
    """A family of masks that is never held whole.

    Args:
        count: how many masks an image gets.
        at: `at(rows, numbers)` gives masks (b, m, H, W) in [0, 1] for image rows (b,) and mask numbers (m,), or
            (1, m, H, W) where all images share them; 1 keeps a pixel, 0 fills it.
    """

    count: int
    at: Callable[[Tensor, Tensor], Tensor]

    def inverse(self) -> "Masks":
        """The masks that keep what these fill."""
        return Masks(self.count, lambda rows, numbers: 1 - self.at(rows, numbers))


SCORES: dict[str, Callable[[Tensor], Tensor]] = {
    "probability": lambda logits: logits.softmax(-1),
    "logit": lambda logits: logits,
}


def mask_scores(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    masks: Masks,
    *,
    fill: Fill = "mean",
    score: str = "probability",
    indices: Tensor | None = None,
    seed: int = 0,
    batch_size: int | None = None,
) -> Tensor:
    """The target's score for every masked copy M * x + (1 - M) * fill of every image, one forward pass each.

    Args:
        images: (B, C, H, W); targets: (B,).
        score: `probability` or `logit`.
        batch_size: most copies in one forward pass; with it grows the memory, with the number of masks it does not.

    Returns:
        (B, count).
    """
    if score not in SCORES:
        raise no_such("score", score, SCORES)
    substrate = filled(fill, model, images, indices=indices, seed=seed)
    size = chunk_size(images, batch_size)
    scores = images.new_empty(len(images), masks.count)
    rows, numbers = torch.arange(len(images), device=images.device), torch.arange(masks.count, device=images.device)

    def block(start: int, stop: int) -> None:
        image, behind = images[start:stop, None], substrate[start:stop, None]

        def chunk(first: int, last: int) -> None:
            stack = masks.at(rows[start:stop], numbers[first:last])[:, :, None]
            copies = torch.lerp(behind, image, stack).flatten(0, 1)
            values = SCORES[score](model(arranged(copies))).unflatten(0, (stop - start, last - first))
            wanted = targets[start:stop, None, None].expand(-1, last - first, 1)
            scores[start:stop, first:last] = values.gather(2, wanted)[..., 0].to(scores.dtype)

        in_chunks(chunk, masks.count, max(1, size // (stop - start)))

    with frozen(model), torch.no_grad():
        in_chunks(block, len(images), min(size, len(images)))
    return scores


def weighted_sum(masks: Masks, weights: Tensor, images: Tensor, batch_size: int | None = None) -> Tensor:
    """Sum over the masks of weight times mask, (B, H, W), for weights (B, count)."""
    total = torch.zeros_like(images[:, 0])
    rows, numbers = torch.arange(len(images), device=images.device), torch.arange(masks.count, device=images.device)

    def chunk(first: int, last: int) -> None:
        stack = masks.at(rows, numbers[first:last])
        if len(stack) == 1:
            total.add_((weights[:, first:last] @ stack[0].flatten(1)).view_as(total))
        else:
            total.add_(torch.einsum("bm,bmhw->bhw", weights[:, first:last], stack))

    in_chunks(chunk, masks.count, chunk_size(images, batch_size))
    return total


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


@METHODS.register
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
