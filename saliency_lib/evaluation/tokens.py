"""Agreement with a human rationale: are the tokens that a map ranks first those that a reader marked?"""

from dataclasses import replace
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from saliency_lib.core.options import Draws, Range, Seed, ShareAbove0
from saliency_lib.core.streams import Indices
from saliency_lib.evaluation.curve import Curve
from saliency_lib.evaluation.localisation import checked_objects, ranked
from saliency_lib.evaluation.perturbation import standard_error
from saliency_lib.evaluation.ranking import DRAWS, Ties, mean_of_tied, random_ranks, ranks
from saliency_lib.evaluation.table import METRICS


def _size(share: float, maps: Tensor) -> int:
    """Return the number of tokens in the predicted rationale of each map."""
    return max(1, round(share * maps[0].numel()))


@METRICS.register(lower_is_better=False, paper="DeYoung et al. 2020")
def token_f1(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    targets: Tensor | None = None,
    *,
    objects: Tensor | None = None,
    share: ShareAbove0 = 0.1,
) -> Curve:
    """Compute the F1 score of the predicted rationale, the tokens with the largest values, against the human rationale.

    F1 = 2 P R / (P + R) = 2 |S and O| / (|S| + |O|), where S is the predicted rationale, P = |S and O| / |S| and
    R = |S and O| / |O|.

    Args:
        model, targets: not used.
        images: (B, C, H, W), not used except for their size; a text of T tokens is (B, E, 1, T), with embeddings of size E.
        maps: (B, H, W), for texts (B, 1, T). Of tied tokens of which only some are among the predicted ones, each counts with
            the same weight, as on average over random orders.
        objects: (B, H, W) bool, O, true on the tokens of the human rationale.
        share: size of the predicted rationale as a share of the tokens, in (0, 1], rounded to at least one token. ERASER takes
            the mean share of the tokens that the human rationales of the data set have.

    Returns:
        Curve of one point in [0, 1]; 1 if the predicted rationale is the human one.

    Raises:
        ValueError: the objects are missing, do not fit, or are empty.

    Source: DeYoung et al. 2020 (ERASER), their measures of agreement with human rationales, and the released code. Differs: the
    mean over texts is ERASER's macro F1. Its micro F1, which pools the tokens of all texts, is not computed, since it has no
    value per text.
    """
    objects = checked_objects(objects, images, maps).flatten(1)
    size = _size(share, maps)
    values, order = maps.flatten(1).sort(dim=1, descending=True)
    common = mean_of_tied(values, objects.gather(1, order))[:, :size].sum(1)
    return ranked(2 * common / (size + objects.sum(1)), maps)


def _spans(chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Return where the spans of the chosen tokens (..., T) begin, and for each chosen token the length of its span."""
    begins = chosen & ~pad(chosen[..., :-1], (1, 0))
    number = begins.cumsum(-1)
    lengths = pad(torch.zeros_like(number), (0, 1)).scatter_add_(-1, number, chosen.long())
    return begins, lengths.gather(-1, number)


@METRICS.register(lower_is_better=False, paper="DeYoung et al. 2020")
def iou_f1(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    targets: Tensor | None = None,
    *,
    objects: Tensor | None = None,
    share: ShareAbove0 = 0.1,
    threshold: Annotated[float, Range(0.5, 1)] = 0.5,
    draws: Draws = DRAWS,
    seed: Seed = 0,
    indices: Indices = None,
) -> Curve:
    """Compute the F1 score of the predicted spans, where a span is correct if it overlaps enough with a true span.

    A span is a run of consecutive tokens of a rationale, in raster order. A predicted span is a hit if its largest
    intersection over union with a true span is at least the threshold. P = hits / predicted spans, R = hits / true spans, and
    F1 = 2 P R / (P + R), or 0 without a hit.

    Args:
        model, targets: not used.
        images, objects, share: as in token_f1.
        maps: (B, H, W), for texts (B, 1, T). Tied tokens are in random orders, over which F1 is averaged.
        threshold: in [0.5, 1]. Below 0.5 several predicted spans could hit the same true span, and R could exceed 1.
        draws: how many random orders.
        seed, indices: fix the order of the tied tokens of each text.

    Returns:
        Curve of one point in [0, 1]; 1 if the predicted spans are the true ones. `error` is the standard error from the order
        of tied tokens.

    Raises:
        ValueError: the objects are missing, do not fit, or are empty.

    Source: as in token_f1; the recall of the released code also counts the predicted spans that are hits. Differs: F1 is
    computed per text, so that its mean has an interval over texts. The released code averages P and R over texts, and computes
    the F1 of these averages. Annotated spans that touch each other are one span here, and two spans there.
    """
    objects = checked_objects(objects, images, maps).flatten(1)
    predicted = random_ranks(maps, draws, descending=True, seed=seed, indices=indices) < _size(share, maps)
    (ours, length), (true, true_length) = _spans(predicted), _spans(objects)
    # What two spans have in common is one run. At a threshold of at least 0.5 no span reaches it with two others.
    common, common_length = _spans(predicted & objects)
    iou = common_length.double() / (length + true_length - common_length)
    hits = (common & (iou >= threshold)).sum(-1)
    scores = 2 * hits.double() / (ours.sum(-1) + true.sum(-1))
    curve = ranked(scores.mean(0), maps)
    return replace(curve, error=standard_error(scores).to(curve.area))


@METRICS.register(lower_is_better=False, paper="DeYoung et al. 2020")
def auprc(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    targets: Tensor | None = None,
    *,
    objects: Tensor | None = None,
    ties: Ties = "random",
    draws: Draws = DRAWS,
    seed: Seed = 0,
    indices: Indices = None,
) -> Curve:
    """Compute the area under the precision-recall curve of the map as a score of the tokens of the human rationale.

    The curve has one point per number of tokens, the precision and the recall of the first ones in the order of the map, and the
    end point of recall 0 and precision 1. The area is that of the trapezoid rule over the recall.

    Args:
        model, targets: not used.
        images, objects: as in token_f1.
        maps: (B, H, W), for texts (B, 1, T).
        ties: `random`: tied tokens are in random orders, over which the area is averaged; `index`: in raster order; `together`:
            as in ERASER, all of them pass the threshold at once, so that the curve has one point per distinct value.
        draws: how many random orders.
        seed, indices: fix the order of the tied tokens of each text.

    Returns:
        Curve of one point in (0, 1]; 1 if the tokens of the rationale have the largest values. A random map has about the share s
        of the tokens that are in the rationale, for long texts. `error` is the standard error from the order of tied tokens.

    Raises:
        ValueError: the objects are missing, do not fit, or are empty.

    Source: as in token_f1; the released code calls scikit-learn's precision_recall_curve and auc. Differs: there, tied
    tokens pass together, so that a constant map has (1 + s) / 2, on the line from its only point to the end point, and maps with
    many ties beat maps with few. Texts without a human rationale are refused here, and counted there.
    """
    objects = checked_objects(objects, images, maps).flatten(1)
    if ties == "random":
        places = random_ranks(maps, draws, descending=True, seed=seed, indices=indices)
    else:
        places = ranks(maps, descending=True, together=False)[None]
    found = torch.zeros_like(places).scatter_(2, places, objects.long().expand_as(places)).cumsum(2).double()
    count = torch.arange(1, found.shape[2] + 1, device=maps.device).expand_as(found)
    if ties == "together":
        values = maps.flatten(1).sort(dim=1, descending=True).values
        follows = pad(values[:, 1:] == values[:, :-1], (0, 1))
        last = (count - 1).masked_fill(follows, found.shape[2]).flip(2).cummin(2).values.flip(2)  # where each tie ends
        found, count = found.gather(2, last), last + 1
    precision, recall = pad(found / count, (1, 0), value=1), pad(found / objects.sum(1, keepdim=True), (1, 0))
    areas = torch.trapezoid(precision, recall, dim=2)
    curve = ranked(areas.mean(0), maps)
    return replace(curve, error=standard_error(areas).to(curve.area)) if ties == "random" else curve
