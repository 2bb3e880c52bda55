"""The engine of mask attribution: masks made in chunks, each weighted by the model's answer to the masked image, and summed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from saliency_lib.core.batching import arranged, chunk_size, frozen, in_chunks, without_autocast
from saliency_lib.core.fills import Fill, filled
from saliency_lib.core.options import Names, Positive, Seed, no_such
from saliency_lib.core.scores import probabilities
from saliency_lib.core.streams import Indices, sent


@dataclass(frozen=True)
class Masks:
    """A set of masks that is never held in memory as a whole.

    Args:
        count: the number of masks per image.
        at: `at(rows, numbers)` returns masks (b, m, H, W) in [0, 1] for image rows (b,) and mask numbers (m,), or
            (1, m, H, W) if all images share them; 1 keeps a pixel, 0 fills it.
    """

    count: int
    at: Callable[[Tensor, Tensor], Tensor]

    def inverse(self) -> "Masks":
        """Return the masks that keep what these fill."""
        return Masks(self.count, lambda rows, numbers: 1 - self.at(rows, numbers))


CLASS_SCORES: dict[str, Callable[[Tensor], Tensor]] = {
    "probability": probabilities,
    "logit": lambda logits: logits,
    "softmax_twice": lambda logits: probabilities(probabilities(logits)),
}


ClassScore = Annotated[str, Names(CLASS_SCORES)]


def class_scores(score: str) -> Callable[[Tensor], Tensor]:
    """Return the function from logits (n, K) to scores (n, K) that has this name in CLASS_SCORES."""
    if score not in CLASS_SCORES:
        raise no_such("score", score, CLASS_SCORES)
    return CLASS_SCORES[score]


def masked_readings(
    model: nn.Module,
    images: Tensor,
    masks: Masks,
    read: Callable[[Tensor, Tensor], Tensor],
    *,
    fill: Fill = "mean",
    indices: Indices = None,
    seed: Seed = 0,
    batch_size: Positive | None = None,
) -> Tensor:
    """Apply `read` to every masked copy M * x + (1 - M) * fill of every image, one call per chunk of copies.

    Args:
        images: (B, C, H, W).
        read: `read(copies, rows)` returns values (n, ...) for masked copies (n, C, H, W) of the image rows (n,).
        batch_size: most copies in one forward pass. Memory grows with it, not with the number of masks.

    Returns:
        (B, count, ...), in the images' dtype.
    """
    substrate = filled(fill, model, images, indices=indices, seed=seed)
    return readings(model, images, masks, read, substrate, batch_size)


def readings(
    model: nn.Module,
    images: Tensor,
    masks: Masks,
    read: Callable[[Tensor, Tensor], Tensor],
    substrate: Tensor,
    batch_size: int | None = None,
) -> Tensor:
    """Return `masked_readings` for values (B, C, H, W) of the fill that are finite. Nothing makes the host wait for a GPU."""
    size = chunk_size(images, batch_size)
    rows, numbers = torch.arange(len(images), device=images.device), torch.arange(masks.count, device=images.device)
    blocks: list[Tensor] = []

    def block(start: int, stop: int) -> None:
        image, behind = images[start:stop, None], substrate[start:stop, None]
        found: list[Tensor] = []  # one tensor for all chunks: many small ones between large ones would break up the memory

        def chunk(first: int, last: int) -> None:
            with without_autocast(images):
                stack = masks.at(rows[start:stop], numbers[first:last])[:, :, None]
                copies = torch.lerp(behind, image, stack).flatten(0, 1)
            values = read(arranged(copies), rows[start:stop].repeat_interleave(last - first))
            if not found:
                found.append(images.new_empty(stop - start, masks.count, *values.shape[1:]))
            found[0][:, first:last] = values.unflatten(0, (stop - start, last - first))

        in_chunks(chunk, masks.count, max(1, size // (stop - start)))
        blocks.extend(found)

    with frozen(model), torch.no_grad():
        in_chunks(block, len(images), min(size, len(images)))
    return torch.cat(blocks)


def mask_scores(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    masks: Masks,
    *,
    score: str = "probability",
    **options: Any,
) -> Tensor:
    """Return the target's score for every masked copy of every image; each takes one forward pass.

    Args:
        images: (B, C, H, W).
        targets: (B,) classes.
        score: `probability`, `logit`, or `softmax_twice` (the softmax of the probabilities); for a model of one output, see
            `networks.wrappers.Scalar`, each of them is that output.
        options: `fill`, `indices`, `seed` and `batch_size` of `masked_readings`.

    Returns:
        (B, count).
    """
    scores = class_scores(score)

    def read(copies: Tensor, rows: Tensor) -> Tensor:
        return scores(model(copies)).gather(1, targets[rows, None])[:, 0]

    return masked_readings(model, images, masks, read, **options)


def weighted_sum(masks: Masks, weights: Tensor, images: Tensor, batch_size: Positive | None = None) -> Tensor:
    """Return the sum over the masks of weight times mask, (B, H, W), for weights (B, count)."""
    total = torch.zeros_like(images[:, 0])
    rows, numbers = torch.arange(len(images), device=images.device), torch.arange(masks.count, device=images.device)

    def chunk(first: int, last: int) -> None:
        stack = masks.at(rows, numbers[first:last])
        if len(stack) == 1:
            total.add_((weights[:, first:last] @ stack[0].flatten(1)).view_as(total))
        else:
            total.add_(torch.einsum("bm,bmhw->bhw", weights[:, first:last], stack))

    with without_autocast(images):
        in_chunks(chunk, masks.count, chunk_size(images, batch_size))
    return total


def interpolation(small: int, large: int, edge: str, like: Tensor) -> Tensor:
    """Return weights (small, large) that enlarge a row of `small` values linearly to `large`; each column sums to 1.

    Args:
        edge: what is beyond the outermost values: their mirror image (`mirror`, scikit-image at order 1 with mode
            `reflect`), the outermost values themselves (`clamp`, torch without align_corners), or nothing, because they are
            at the corners (`corners`, torch with align_corners).
        like: gives the dtype and the device.
    """
    last, places = small - 1, torch.arange(large, dtype=torch.float64)
    places = places * last / max(1, large - 1) if edge == "corners" else (places + 0.5) * small / large - 0.5
    if edge == "mirror":
        places = last - (last - places.abs()).abs()
    return sent((1 - (places.clamp(0, last) - torch.arange(small)[:, None]).abs()).clamp_min(0).to(like.dtype), like.device)


def variant_settings(method: str, variants: dict[str, dict], variant: str, **given: object) -> dict[str, Any]:
    """Return the settings of a method's variant; options that are given (not None) replace the variant's own."""
    if variant not in variants:
        raise no_such(f"variant of {method}", variant, variants)
    return variants[variant] | {name: value for name, value in given.items() if value is not None}
