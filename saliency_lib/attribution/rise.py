"""RISE: enlarged random grids as masks, each weighted by the score of what it keeps."""

from typing import Annotated, Any

import torch
from torch import Tensor, nn

from saliency_lib.attribution.estimate import note_estimate
from saliency_lib.attribution.estimators import ESTIMATORS, Grids, Weights, as_scored, estimated, looks
from saliency_lib.attribution.masks import ClassScore, Masks, interpolation, mask_scores, variant_settings, weighted_sum
from saliency_lib.attribution.table import METHODS
from saliency_lib.core.batching import frozen, resolve_targets
from saliency_lib.core.checks import check_images
from saliency_lib.core.fills import Fill, filled
from saliency_lib.core.options import Above0, Count, Names, Positive, Seed, ShareAbove0
from saliency_lib.core.streams import Indices, generator

DESIGNS = ("independent", "antithetic", "stratified")


def random_grids(images: Tensor, count: int, cells: int, keep: float, seed: Seed = 0, *, edge: str = "mirror") -> Masks:
    """Return RISE's masks, drawn independently; arguments as in `drawn_grids`."""
    return drawn_grids(images, count, cells, keep, seed, edge=edge, design="independent").masks


def drawn_grids(images: Tensor, count: int, cells: int, keep: float, seed: Seed, *, edge: str, design: str) -> Grids:
    """Return RISE's masks: random grids of zeros and ones, enlarged to one cell more than the image and cut at a random shift.

    Args:
        images: (B, C, H, W). All images share the masks; each mask is fixed by the seed, whatever the count and the device.
        count: the number of masks.
        cells: cells along each side; a cell covers ceil(H / cells) x ceil(W / cells) pixels, of a text
            ceil(T / cells) tokens. A cell of one token is not enlarged.
        keep: probability in (0, 1] that a cell is 1, which is also the expected mask at every pixel.
        edge: see `interpolation`.
        design: `independent`; `antithetic`: pairs at the same shift, a cell of the first being 1 for a uniform number u < keep,
            that of the second for 1 - u < keep, which is the complement at keep 0.5; `stratified`: as many masks as there are
            shifts of a cell have all of them, in random order. Each mask alone has the same distribution in all designs.

    Raises:
        ValueError: there are more cells than pixels along a side, or an odd number of masks for pairs.
    """
    height, width = images.shape[2:]
    shorter = width if height == 1 else min(height, width)  # a text has one row
    if cells > shorter:
        raise ValueError(f"cells must be from 1 to {shorter} for images of {height}x{width}, got {cells}")
    together = 2 if design == "antithetic" else 1
    if count % together:
        raise ValueError(f"the design 'antithetic' has pairs of masks, so their number must be even, got {count}")
    draws = count // together

    def source(part: str) -> torch.Generator:
        return generator(torch.device("cpu"), f"random grids: {part}", seed)

    def shifted(side: int, part: str) -> tuple[Tensor, Tensor]:
        along = min(cells, side)
        cell = -(-side // along)
        whole = height == 1 and cell == 1  # tokens: there is nothing between two of them
        enlarged = torch.eye(side).to(images) if whole else interpolation(along, (along + 1) * cell, edge, images)
        if design == "stratified":
            order = source(part)
            shifts = torch.cat([torch.randperm(cell, generator=order) for _ in range(-(-draws // cell))])[:draws]
        else:
            shifts = torch.randint(cell, (draws,), generator=source(part)).repeat_interleave(together)
        return enlarged.unfold(1, side, 1).transpose(0, 1)[:cell].contiguous(), shifts.to(images.device)

    drawn = torch.rand(draws, min(cells, height), cells, generator=source("cells"))
    pairs = torch.stack([drawn, 1 - drawn], 1)[:, :together].flatten(0, 1)
    grids = (pairs < keep).to(images)
    (down, tops), (across, lefts) = shifted(height, "rows"), shifted(width, "columns")

    def at(rows: Tensor, numbers: Tensor) -> Tensor:
        return (down[tops[numbers]].mT @ (grids[numbers] @ across[lefts[numbers]]))[None]

    return Grids(Masks(count, at), keep, together, down, across)


def unit_range(maps: Tensor) -> Tensor:
    """Shift and scale each map (B, H, W) to [0, 1]; a constant map becomes 0."""
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return (maps - low) / (high - low).clamp_min(torch.finfo(maps.dtype).tiny)


VARIANT_SETTINGS: dict[str, dict[str, Any]] = {
    "original": {
        "masks": 2000,
        "cells": 8,
        "keep": 0.5,
        "fill": "mean",
        "score": "probability",
        "edge": "mirror",
        "kept": lambda keep: keep,
        "finish": lambda maps: maps,
    },
    "saliency_benchmark": {
        "masks": 500,
        "cells": 7,
        "keep": 0.1,
        "fill": "black",
        "score": "softmax_twice",
        "edge": "clamp",
        "kept": lambda keep: torch.special.ndtr(torch.tensor(keep, dtype=torch.float64)).item(),  # a normal draw below keep
        "finish": unit_range,
    },
}


@METHODS.register(
    family="mask", passes="2,000 F", paper="Petsiuk et al. 2018", added=("estimator", "design", "tolerance"), forward_only=True
)
def rise(
    model: nn.Module,
    images: Tensor,
    targets: Tensor | None = None,
    *,
    masks: Count | None = None,
    cells: Positive | None = None,
    keep: ShareAbove0 | None = None,
    fill: Fill | None = None,
    score: ClassScore | None = None,
    variant: Annotated[str, Names(VARIANT_SETTINGS)] = "original",
    estimator: Annotated[str, Names(ESTIMATORS)] = "original",
    design: Annotated[str, Names(DESIGNS)] = "independent",
    tolerance: Above0 | None = None,
    seed: Seed = 0,
    indices: Indices = None,
    batch_size: Positive | None = None,
) -> Tensor:
    """Average random masks, weighted by the class probability of the image that each mask leaves.

    S = 1 / (N p) * sum over N masks M of f_c(M * x + (1 - M) * fill) * M, where p is the share that a mask keeps.

    Args:
        images: (B, C, H, W) pixels in [0, 1].
        targets: (B,) classes; None for the predicted ones.
        masks: N, one forward pass each; the noise of the map falls with the square root of N. With a tolerance, the most.
        cells: cells of the random grid along each side; more give a finer and noisier map. None for a text is one per token.
        keep: p in (0, 1].
        fill: what replaces a pixel where a mask is 0, see `fills.filled`.
        score: `probability`, `logit` or `softmax_twice`.
        variant: `original` (2000 masks, 8 cells, keep 0.5, fill mean) or `saliency_benchmark` (500, 7, 0.1, black). Options
            that are given replace the variant's.
        estimator: `original`; `centred`: f_c minus its mean over the masks that are drawn without M replaces f_c; `controlled`:
            f_c minus a linear model of the masks replaces it, and the model's exact map is added. Both have far less noise
            and, for every N, the expectation of the original minus a constant image. The constant is the mean score for
            `centred`, and differs from it by O(1/N) for `controlled`. This is exact for draws that are independent of each
            other, as masks are in the design `independent` and pairs in `antithetic`.
        design: how the masks depend on one another, see `drawn_grids`: `independent`, `antithetic` or `stratified`. In pairs
            of complements (`antithetic` at keep 0.5) the maps of `original` and `centred` are equal up to a constant image.
        tolerance: each image ends when the standard error of its map (up to a constant image, root mean square over the
            pixels) is at most this share of the map's range; see `estimate` for how many masks it took. A standard error is
            no bound: about one map in three ends further than that from its limit. None takes all masks.
        seed: fixes the masks, which all images share.
        indices: together with the seed, fix a `noise` fill.

    Returns:
        (B, H, W), not negative; near the mean score of the masked copies where a pixel does not matter. With another
        estimator: signed, near 0 there. With the variant `saliency_benchmark`: in [0, 1].

    Raises:
        ValueError: the image is smaller than the grid, there is no mask, keep is outside (0, 1], the variant is unknown, or
            there are too few masks for the estimator or the design.

    Source: Petsiuk, Das, Saenko 2018, section 3; numbers of the released example in Keras. The released notebooks for
    PyTorch use 6000 masks of 8 cells and 5000 of 10, both with keep 0.1; the paper uses 4000 (VGG-16) and 8000 (ResNet-50)
    of 7 with 0.5.
    Differs: the variant `saliency_benchmark` (Parola et al.) enlarges with torch's border, draws cells from a normal
    distribution and keeps those below `keep`, so that it keeps 0.54 of them instead of 0.1, fills with black, takes the
    softmax of the probabilities, and scales each map to [0, 1]. It draws new masks at every call; here the seed fixes them.
    """
    images = check_images(images)
    if cells is None and images.shape[2] == 1:
        cells = images.shape[3]
    settings = variant_settings("rise", VARIANT_SETTINGS, variant, masks=masks, cells=cells, keep=keep, fill=fill, score=score)
    count, kept = settings["masks"], settings["keep"]
    grids = drawn_grids(images, count, settings["cells"], settings["kept"](kept), seed, edge=settings["edge"], design=design)
    weights_of = ESTIMATORS[estimator]
    if weights_of is not as_scored and count < 2 * grids.together:
        raise ValueError(f"the estimator {estimator!r} needs at least {2 * grids.together} masks of this design, got {count}")
    options: dict[str, Any] = dict(score=settings["score"], batch_size=batch_size)
    with frozen(model):
        targets = resolve_targets(model, images, targets, batch_size)
        fill = filled(settings["fill"], model, images, indices=indices, seed=seed)
        if tolerance is not None:
            maps = _until(tolerance, model, images, targets, grids, weights_of, fill=fill, **options)
            return settings["finish"](maps / kept)
        scores = mask_scores(model, images, targets, grids.masks, fill=fill, **options)
    weights, known = weights_of(grids, scores)
    maps = weighted_sum(grids.masks, weights, images, batch_size) / (count * kept)
    return settings["finish"](maps if known is None else maps + known / kept)


def _until(
    tolerance: float,
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    grids: Grids,
    weights_of: Weights,
    *,
    fill: Tensor,
    score: str,
    batch_size: int | None,
) -> Tensor:
    """Return the mean weighted mask (B, H, W) of each image, of as many masks as it needs."""
    maps = torch.zeros_like(images[:, 0])
    passes, error = torch.zeros(len(images), dtype=torch.long, device=images.device), torch.zeros_like(images[:, 0, 0, 0])
    waiting, scores, done = torch.arange(len(images), device=images.device), images.new_zeros(len(images), 0), 0
    for stop in looks(grids.masks.count, grids.together):
        options: dict[str, Any] = dict(fill=fill[waiting], score=score, batch_size=batch_size)
        new = mask_scores(model, images[waiting], targets[waiting], grids.part(done, stop), **options)
        scores, done = torch.cat([scores, new], 1), stop
        maps[waiting], error[waiting] = estimated(grids, scores, weights_of, images[waiting], batch_size)
        passes[waiting] = done
        going = (error[waiting] > tolerance).nonzero()[:, 0]
        waiting, scores = waiting[going], scores[going]
        if not len(waiting):
            break
    note_estimate(passes, error, tolerance, grids.masks.count, "masks")
    return maps
