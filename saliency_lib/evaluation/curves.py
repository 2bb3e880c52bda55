"""Perturbation curves: rank pixels by a map, change a growing fraction of them, score the model."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from saliency_lib.batching import arranged, chunk_size, frozen, in_chunks
from saliency_lib.inputs import Fill, check_images, check_maps, check_targets, filled, logits_of
from saliency_lib.registry import METRICS, no_such


@dataclass(frozen=True)
class Curve:
    """A score of the model as ever more of each image is changed.

    Args:
        fractions: (S+1,) share of the pixels changed, rising.
        values: (B, S+1) score at each.
        area: (B,) area under the curve.
    """

    fractions: Tensor
    values: Tensor
    area: Tensor


Score = Callable[[Tensor, Tensor, Tensor], Tensor]

# Each scores logits (n, K) given targets (n,) and the classes (n,) predicted for the images as they were.
SCORES: dict[str, Score] = {
    "probability": lambda logits, targets, predicted: logits.softmax(1).gather(1, targets[:, None])[:, 0],
    "logit": lambda logits, targets, predicted: logits.gather(1, targets[:, None])[:, 0],
    "unchanged": lambda logits, targets, predicted: (logits.argmax(1) == predicted).to(logits.dtype),
    "correct": lambda logits, targets, predicted: (logits.argmax(1) == targets).to(logits.dtype),
}

ORDERS = {"most_relevant_first": True, "least_relevant_first": False}
STARTS = ("image", "fill")


def ranks(maps: Tensor, *, descending: bool = True) -> Tensor:
    """The place (B, H*W) of each pixel in the order of its map (B, H, W); ties go by index."""
    order = maps.flatten(1).sort(dim=1, descending=descending, stable=True).indices
    places = torch.arange(order.shape[1], device=maps.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places)


def tied(maps: Tensor) -> Tensor:
    """Share (B,) of the pixels whose value another pixel of the map has too; their order is arbitrary."""
    values = maps.flatten(1).sort(dim=1).values
    same = values[:, 1:] == values[:, :-1]
    edge = same.new_zeros(len(same), 1)
    return (torch.cat([same, edge], 1) | torch.cat([edge, same], 1)).float().mean(1)


def perturbation_curve(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    targets: Tensor | None = None,
    *,
    fractions: Sequence[float],
    order: str = "most_relevant_first",
    start: str = "image",
    fill: Fill = "mean",
    score: str | Score = "probability",
    seed: int = 0,
    indices: Tensor | None = None,
    batch_size: int | None = None,
) -> Curve:
    """Change the pixels of each image in the order of its map and score the model after each step.

    Args:
        images: (B, C, H, W) pixels in [0, 1].
        maps: (B, H, W); only the order of their values counts, ties go by index.
        targets: (B,) classes whose score is followed; None for those predicted for the whole images.
        fractions: shares of the pixels changed, rising within [0, 1]; each is rounded to whole pixels, and the curve
            states the share that was changed.
        order: `most_relevant_first` or `least_relevant_first`.
        start: `image`, whose pixels the fill replaces (deletion), or `fill`, which the image's pixels replace (insertion).
        fill: see `inputs.filled`.
        score: `probability`, `logit`, `unchanged` (the prediction is that of the whole image: 1, else 0), `correct` (it
            is the target: 1, else 0), or a function of logits (n, K), targets (n,), predicted (n,).
        seed, indices: fix a `noise` fill.
        batch_size: most inputs in one forward pass; None chooses. Memory grows with it, not with the steps.

    Returns:
        Curve; `area` by the trapezoid rule over the fractions.

    Raises:
        ValueError: maps that do not fit or hold NaN, fractions that do not rise, unknown order, start, fill or score, or a
            model whose score is not finite.
    """
    images = check_images(images)
    check_maps(maps, images)
    descending = _choose("order", order, ORDERS)
    deleting = _choose("start", start, {"image": True, "fill": False})
    score_of = score if callable(score) else _choose("score", score, SCORES)
    counts = _counts(fractions, maps[0].numel())
    substrate = filled(fill, model, images, indices=indices, seed=seed)
    first, second = (images, substrate) if deleting else (substrate, images)
    place = ranks(maps, descending=descending).view(maps.shape)
    precise = torch.promote_types(images.dtype, torch.float32)
    values = torch.empty(len(images), len(counts), dtype=precise, device=images.device)
    steps = torch.tensor(counts, device=images.device)

    with frozen(model), torch.no_grad():
        logits = logits_of(model, images, batch_size)
        predicted = logits.argmax(1)
        targets = predicted if targets is None else check_targets(targets, logits)
        untouched = 0 if deleting else maps[0].numel()  # the count at which the input is the image itself
        values[:, steps == untouched] = score_of(logits, targets, predicted).to(precise)[:, None]
        inner = (steps != untouched).nonzero()[:, 0]

        def add(begin: int, end: int) -> None:
            pairs = torch.arange(begin, end, device=images.device)
            rows, column = pairs // len(inner), inner[pairs % len(inner)]
            changed = (place[rows] < steps[column].view(-1, 1, 1))[:, None]
            inputs = torch.where(changed, second[rows], first[rows])
            values[rows, column] = score_of(model(arranged(inputs)), targets[rows], predicted[rows]).to(precise)

        in_chunks(add, len(images) * len(inner), chunk_size(images, batch_size))
    if not torch.isfinite(values).all():
        bad = (~torch.isfinite(values)).any(1).nonzero().flatten().tolist()
        raise ValueError(f"the score is NaN or infinite for images {bad[:5]}; look at the model's weights")
    shares = steps.to(precise) / maps[0].numel()
    return Curve(shares, values, torch.trapezoid(values, shares, dim=1))


def _choose(kind: str, name: str, table: dict):
    if name not in table:
        raise no_such(kind, name, table)
    return table[name]


def _counts(fractions: Sequence[float], pixels: int) -> list[int]:
    shares = [float(fraction) for fraction in fractions]
    rising = all(a < b for a, b in itertools.pairwise(shares))
    if len(shares) < 2 or not rising or shares[0] < 0 or shares[-1] > 1:
        raise ValueError(f"fractions must be at least two rising numbers within [0, 1], got {shares[:8]}")
    return [round(share * pixels) for share in shares]


def even_fractions(pixels: int, steps: int) -> list[float]:
    """0 to 1 in at most `steps` equal strides of whole pixels, the last one shorter where they do not divide."""
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps must be a whole number from 1, got {steps!r}")
    stride = -(-pixels // steps)
    return [count / pixels for count in (*range(0, pixels, stride), pixels)]


# What the papers that measure deletion and insertion chose; `None` steps is one row of pixels a step.
PRESETS: dict[str, dict] = {
    "rise": {"steps": None, "score": "probability", "deletion_fill": "mean", "insertion_fill": "blur"},
}


def _preset(name: str, metric: str, images: Tensor, steps: int | None, fill: Fill | None, score: str | Score | None) -> dict:
    chosen = _choose("preset", name, PRESETS)
    height, width = images.shape[2:]
    rows = chosen["steps"] or height
    return {
        "fractions": even_fractions(height * width, rows if steps is None else steps),
        "fill": chosen[f"{metric}_fill"] if fill is None else fill,
        "score": chosen["score"] if score is None else score,
    }


def _with_presets(function: Callable) -> Callable:
    """Decorator: what a preset comes to is known from the function, so that it enters a specification's digest."""
    function.presets = PRESETS
    return function


@METRICS.register
@_with_presets
def deletion(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    targets: Tensor | None = None,
    *,
    preset: str = "rise",
    steps: int | None = None,
    fill: Fill | None = None,
    score: str | Score | None = None,
    seed: int = 0,
    indices: Tensor | None = None,
    batch_size: int | None = None,
) -> Curve:
    """The class probability as the most relevant pixels are taken away; a small area speaks for the map.

    Args:
        maps: (B, H, W).
        targets: (B,) classes; None for the predicted ones.
        preset: `rise`: one row's worth of pixels a step (224 steps at 224), filled with the mean colour.
        steps: strides from the whole image to none of it; 28 at 224 pixels is RISE's setting for whole data sets.
        fill, score: in place of the preset's.

    Returns:
        Curve over [0, 1], values and area in [0, 1].

    Source: Petsiuk, Das, Saenko 2018, section 4.1 and the released evaluation code. Differs: ties go by index (there by
    an unstable sort), and a shorter last step counts with its own width.
    """
    return perturbation_curve(
        model, images, maps, targets, **_preset(preset, "deletion", images, steps, fill, score),
        start="image", seed=seed, indices=indices, batch_size=batch_size,
    )  # fmt: skip


@METRICS.register
@_with_presets
def insertion(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    targets: Tensor | None = None,
    *,
    preset: str = "rise",
    steps: int | None = None,
    fill: Fill | None = None,
    score: str | Score | None = None,
    seed: int = 0,
    indices: Tensor | None = None,
    batch_size: int | None = None,
) -> Curve:
    """The class probability as the most relevant pixels appear on a blurred image; a large area speaks for the map.

    Args:
        maps: (B, H, W).
        targets: (B,) classes; None for the predicted ones.
        preset: `rise`: one row's worth of pixels a step, from a Gaussian blur (11 pixels, sigma 5).
        steps: strides from the blurred image to the whole one.
        fill, score: in place of the preset's; areas over different fills must not be compared.

    Returns:
        Curve over [0, 1], values and area in [0, 1].

    Source: Petsiuk, Das, Saenko 2018, section 4.1 and the released evaluation code. Differs: as deletion.
    """
    return perturbation_curve(
        model, images, maps, targets, **_preset(preset, "insertion", images, steps, fill, score),
        start="fill", seed=seed, indices=indices, batch_size=batch_size,
    )  # fmt: skip
