"""The engine of perturbation curves: rank pixels by a map, change a growing fraction of them, score the model."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, TypeVar

import torch
from torch import Tensor, nn

from saliency_lib.core.batching import arranged, chunk_size, classes_of, frozen, in_chunks, logits_of
from saliency_lib.core.calls import kernel
from saliency_lib.core.checks import check_images, check_maps, positive, rows_not_finite
from saliency_lib.core.fills import Fill, filled
from saliency_lib.core.options import Draws, Names, Positive, Seed, no_such
from saliency_lib.core.scores import predictions, probabilities
from saliency_lib.core.streams import Indices, sent
from saliency_lib.evaluation.curve import Curve
from saliency_lib.evaluation.ranking import DRAWS, Ties, cuts_ties, random_ranks, ranks, tied


@dataclass(frozen=True)
class Imputed:
    """A fill that depends on which pixels are missing.

    Args:
        at: `at(rows, missing)` returns the values (n, C, H, W) that replace the missing pixels (n, H, W) of the image rows
            (n,).
        on_host: whether `at` works on the CPU, whatever the images' device. It then receives and returns tensors there, so that
            a GPU is not asked for the missing pixels of each pass.
    """

    at: Callable[[Tensor, Tensor], Tensor]
    on_host: bool = False


ScoreFunction = Callable[[Tensor, Tensor, Tensor], Tensor]  # logits (n, K), targets (n,), predicted (n,) -> (n,)
Choice = TypeVar("Choice")


def _answers(logits: Tensor, classes: Tensor) -> Tensor:
    return (predictions(logits) == classes) + 0 * logits.amax(1)  # keeps NaN, which argmax would treat as a class


# `predicted` are the classes predicted for the unchanged images.
SCORES: dict[str, ScoreFunction] = {
    "probability": lambda logits, targets, predicted: probabilities(logits).gather(1, targets[:, None])[:, 0],
    "logit": lambda logits, targets, predicted: logits.gather(1, targets[:, None])[:, 0],
    "unchanged": lambda logits, targets, predicted: _answers(logits, predicted),
    "correct": lambda logits, targets, predicted: _answers(logits, targets),
}

ORDERS = {"most_relevant_first": True, "least_relevant_first": False}
Score = Annotated[str, Names(SCORES)] | ScoreFunction
Order = Annotated[str, Names(ORDERS)]
Variant = Annotated[str, Names(("corrected", "released"))]
STARTS = {"image": True, "fill": False}


@kernel
def perturbation_curve(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    targets: Tensor | None = None,
    *,
    fractions: Sequence[float],
    order: Order = "most_relevant_first",
    start: Annotated[str, Names(STARTS)] = "image",
    ties: Ties = "random",
    draws: Draws = DRAWS,
    fill: Fill | Imputed = "mean",
    score: Score = "probability",
    seed: Seed = 0,
    indices: Indices = None,
    batch_size: Positive | None = None,
) -> Curve:
    """Change the pixels of each image in the order of its map, and score the model after each step.

    Args:
        images: (B, C, H, W) pixels in [0, 1].
        maps: (B, H, W); only the order of their values matters.
        targets: (B,) classes whose score is followed; None for the classes predicted for the whole images.
        fractions: non-decreasing shares in [0, 1] of the pixels to change. Each is rounded to whole pixels, and the curve
            states the share that was changed.
        order: `most_relevant_first` or `least_relevant_first`.
        start: `image`: its pixels are replaced by the fill (deletion); `fill`: it is replaced by the image's pixels
            (insertion).
        ties: `random`: pixels of equal value are in a random order, fixed by seed and image, and the values are averaged over
            several such orders; `index`: they are in raster order, which is not neutral; `together`: they change only when
            all of them are within the fraction, so that fewer pixels change than requested, and the curve states the
            requested fractions.
        draws: how many random orders. They cost passes only at fractions that divide tied pixels.
        fill: see `fills.filled`, or `Imputed`, whose values depend on which pixels are missing.
        score: `probability` (of a model of one output, see `sl.Scalar`, that output), `logit`, `unchanged` (1 if the prediction
            is that of the whole image, else 0), `correct` (1 if it is the target, else 0), or a function of logits (n, K),
            targets (n,) and the classes (n,) predicted for the whole images.
        seed, indices: fix the order of tied pixels and a random fill of each image.
        batch_size: most inputs in one forward pass; None chooses. Memory grows with it, not with the steps.

    Returns:
        Curve; `area` by the trapezoid rule over the fractions, `tied` and `error` say what the order of ties decides.

    Raises:
        ValueError: the maps do not fit or contain NaN, the fractions decrease, the order, start, ties, fill or score is
            unknown, or the model's score is not finite.
    """
    stated, values = perturbed_scores(
        model, images, maps, targets, fractions=fractions, order=order, start=start, ties=ties, draws=draws,
        fill=fill, score=score, seed=seed, indices=indices, batch_size=batch_size,
    )  # fmt: skip
    areas = torch.trapezoid(values, stated, dim=2)
    return Curve(stated, values.mean(0), areas.mean(0), tied(maps), standard_error(areas) if ties == "random" else None)


def perturbed_scores(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    targets: Tensor | None,
    *,
    fractions: Sequence[float],
    start: str,
    ties: str,
    fill: Fill | Imputed,
    score: Score,
    order: str = "most_relevant_first",
    draws: int = DRAWS,
    seed: int = 0,
    indices: Indices = None,
    batch_size: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the shares (S,) of the pixels that were changed, and the scores (D, B, S) for each order of tied pixels.

    The arguments are those of `perturbation_curve`.
    """
    images = check_images(images)
    check_maps(maps, images)
    descending = ORDERS[order]
    deleting = STARTS[start]
    shares, pixels = checked_fractions(fractions), maps[0].numel()
    counts = [round(share * pixels) for share in shares]
    imputed = fill if isinstance(fill, Imputed) else fixed(filled(fill, model, images, indices=indices, seed=seed))
    steps = torch.tensor(counts, device=images.device)
    if ties == "random":
        places = random_ranks(maps, draws, descending=descending, seed=seed, indices=indices)
        divided = cuts_ties(maps, steps, descending=descending)
    else:
        places = ranks(maps, descending=descending, together=ties == "together")[None]
        divided = steps.new_zeros(len(images), len(counts), dtype=torch.bool)
    if not deleting:  # a pixel that is not yet inserted is missing: this is deletion in the other order, read backwards
        places, steps = pixels - 1 - places, pixels - steps
    places = places.view(-1, *maps.shape)
    needed = divided.repeat(len(places), 1, 1)  # where the ties are not divided, all draws remove the same pixels
    needed[0] = True
    needed[:, :, steps == 0] = False
    draw, row, step = needed.nonzero().unbind(1)
    at = torch.device("cpu") if imputed.on_host else images.device
    order_at, draw_at, row_at, step_at, steps_at = (part.to(at) for part in (places, draw, row, step, steps))

    def missing(begin: int, end: int) -> Tensor:
        return order_at[draw_at[begin:end], row_at[begin:end]] < steps_at[step_at[begin:end]].view(-1, 1, 1)

    whole, scores = scores_without(model, images, targets, row_at, missing, fill=imputed, score=score, batch_size=batch_size)
    values = whole[:, None].repeat(len(places), 1, len(counts))
    values[draw, row, step] = scores
    values = values.where(divided | (steps == 0), values[0])
    stated = torch.tensor(shares if ties == "together" else [count / pixels for count in counts], dtype=torch.float64)
    return stated.to(values), values


def standard_error(draws: Tensor) -> Tensor:
    """Return the standard error (B,) of the mean over draws (D, B); 0 for a single draw."""
    return draws.std(0) / len(draws) ** 0.5 if len(draws) > 1 else torch.zeros_like(draws[0])


def scores_without(
    model: nn.Module,
    images: Tensor,
    targets: Tensor | int | None,
    rows: Tensor,
    missing: Callable[[int, int], Tensor],
    *,
    fill: Imputed,
    score: Score,
    batch_size: Positive | None = None,
) -> tuple[Tensor, Tensor]:
    """Score inputs that are made from images by replacing some of their pixels.

    Args:
        images, targets, score, batch_size: as in `perturbation_curve`.
        rows: (n,) the row of the image that each input is made from; on the CPU if the fill works there, as `missing`.
        missing: `missing(begin, end)` returns the pixels (end - begin, H, W), bool, that the inputs begin, ..., end - 1 lack.
        fill: the values that replace them.

    Returns:
        The scores of the whole images (B,) and of the inputs (n,), in at least single precision.

    Raises:
        ValueError: the targets do not fit, the score is unknown, or a score is not finite.
    """
    score_of = score_function(score)
    scores = torch.empty(len(rows), dtype=torch.promote_types(images.dtype, torch.float32), device=images.device)
    with frozen(model), torch.no_grad():
        logits = logits_of(model, images, batch_size)
        predicted, targets = logits.argmax(1), classes_of(logits, targets)
        whole = score_of(logits, targets, predicted).to(scores)

        def add(begin: int, end: int) -> None:
            row, gone = rows[begin:end], missing(begin, end)
            row, gone, values = (sent(part, images.device) for part in (row, gone, fill.at(row, gone)))
            inputs = torch.where(gone[:, None], values, images[row])
            scores[begin:end] = score_of(model(arranged(inputs)), targets[row], predicted[row]).to(scores)

        in_chunks(add, len(rows), chunk_size(images, batch_size))
    check_scores(whole.index_add(0, sent(rows, images.device), scores)[:, None])
    return whole, scores


def fixed(substrate: Tensor) -> Imputed:
    """Return the fill whose values (B, C, H, W) do not depend on which pixels are missing."""
    return Imputed(lambda rows, missing: substrate[rows])


def check_scores(values: Tensor) -> None:
    """Refuse scores (B, ...) of a model that are not finite.

    Raises:
        ValueError: the message says for which images.
    """
    if damaged := rows_not_finite(values):
        raise ValueError(f"the score is NaN or infinite for images {damaged}; check the model's weights")


def score_function(score: Score) -> ScoreFunction:
    """Return the score with this name in SCORES, or the function itself."""
    return score if callable(score) else choose("score", score, SCORES)


def choose(kind: str, name: str, table: Mapping[str, Choice]) -> Choice:
    """Return an entry of a table of options, or raise the error that names the nearest entry."""
    if name not in table:
        raise no_such(kind, name, table)
    return table[name]


def checked_fractions(fractions: Sequence[float]) -> list[float]:
    """Return the fractions if they are at least two non-decreasing numbers in [0, 1], and refuse them otherwise."""
    shares = [float(fraction) for fraction in fractions]
    decreasing = any(a > b for a, b in itertools.pairwise(shares))
    if len(shares) < 2 or decreasing or not (shares[0] >= 0 and shares[-1] <= 1):
        raise ValueError(f"fractions must be at least two non-decreasing numbers in [0, 1], got {shares[:8]}")
    return shares


def even_fractions(pixels: int, steps: int) -> list[float]:
    """Return fractions from 0 to 1 in at most `steps` equal strides of whole pixels; the last may be shorter."""
    return strides(pixels, -(-pixels // positive("steps", steps)))


def strides(pixels: int, stride: int) -> list[float]:
    """Return fractions from 0 to 1 in strides of `stride` pixels; the last may be shorter."""
    return [count / pixels for count in (*range(0, pixels, stride), pixels)]
