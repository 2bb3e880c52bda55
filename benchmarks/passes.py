"""How many passes a RISE map takes: its rank correlation with one of many others, per picture, seed, estimator and design."""

import io
import sys
from collections.abc import Iterator, Sequence
from functools import cache, partial

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode

import saliency_lib as sl
from benchmarks.scenes import device, optimised
from saliency_lib import paths
from saliency_lib.attribution.estimators import ESTIMATORS
from saliency_lib.attribution.masks import mask_scores, weighted_sum
from saliency_lib.attribution.rise import drawn_grids
from saliency_lib.core.batching import frozen, resolve_targets
from saliency_lib.core.files import replace_file
from saliency_lib.data.embedded import PHOTOS, packaged_file
from saliency_lib.data.splits import file_split, imagenet_crop
from saliency_lib.statistics import mean_interval

# Other pictures that scikit-image ships, after the photographs of `photos`: photographs first, then textures and a page of print.
MORE = [
    *("astronaut.png", "motorcycle_left.png", "clock_motion.png", "coins.png", "moon.png", "hubble_deep_field.jpg", "retina.jpg"),
    *("ihc.png", "page.png", "brick.png", "grass.png", "gravel.png", "cell.png", "text.png"),
]
PASSES = (50, 100, 150, 200, 250, 350, 500, 750, 1000, 1500, 2000)
MOST = {"independent": 2000, "antithetic": 500, "stratified": 500}  # masks; independent ones are the original's too
SEEDS = (0, 2)  # of the masks
OTHERS, OTHER_SEED = 8000, 1  # masks of the map that the others are compared with
ENGINE = "openvino"  # that runs the network
COLUMNS = ["picture", "seed", "estimator", "design", "passes", "correlation"]


@cache
def pictures() -> dict[str, Tensor]:
    """Return the embedded pictures (3, 224, 224) by name, the six photographs of the data set `photos` first."""
    crop = partial(imagenet_crop, interpolation=InterpolationMode.BICUBIC)
    files = [packaged_file("skimage", f"data/{name}", extra="data") for name in MORE]
    names = tuple(name.split(".")[0] for name in MORE)
    more = file_split(files, [0] * len(files), ("none",), 3, crop, names=names)
    images = torch.cat([sl.DATASETS["photos"]().images, more.read(range(len(files)), 224)["images"]])
    return dict(zip([*PHOTOS, *names], images.to(device()), strict=True))


def scores(model: nn.Module, picture: str, image: Tensor, design: str, count: int, seed: int) -> Tensor:
    """Return the scores (1, count) of the predicted class for masks; they are stored, so that an interrupted run resumes."""
    file = paths.OUTPUTS / "benchmarks" / "passes" / f"{picture}-{design}-{count}-{seed}.npy"
    grids = drawn_grids(image, count, 8, 0.5, seed, edge="mirror", design=design)
    with frozen(model):
        targets = resolve_targets(model, image, None)
        if file.is_file():
            kept = torch.from_numpy(np.load(file)).to(image)
            again = mask_scores(model, image, targets, grids.part(0, 4))
            if kept.shape == (1, count) and (again - kept[:, :4]).abs().max() <= 0.01 * kept.std():
                return kept
            print(f"{paths.relative(file)} has the scores of other masks and is made again", file=sys.stderr)
        found = mask_scores(model, image, targets, grids.masks)
    paths.made(file.parent)
    content = io.BytesIO()
    np.save(content, found.cpu().numpy())
    replace_file(file, lambda draft: draft.write_bytes(content.getvalue()))
    return found


def rows(
    model: nn.Module, picture: str, image: Tensor, most: dict[str, int], others: int, seeds: Sequence[int] = SEEDS
) -> Iterator[dict]:
    """Give a row per seed, estimator, design and number of passes of one picture.

    The masks of a seed and a design are scored once, for all estimators and numbers of passes.

    Args:
        image: (3, H, W).
        most: the most masks of each design.
        others: masks of the map that the others are compared with; it is centred, so that its noise is small.
        seeds: of the masks; `OTHER_SEED` is that of the map that the others are compared with.
    """
    image = image[None]

    def made(estimator: str, design: str, kept: Tensor, count: int, seed: int) -> Tensor:
        grids = drawn_grids(image, count, 8, 0.5, seed, edge="mirror", design=design)
        weights, known = ESTIMATORS[estimator](grids, kept[:, :count])
        return weighted_sum(grids.masks, weights, image) / (count * 0.5) + (0 if known is None else known / 0.5)

    kept = scores(model, picture, image, "independent", others, OTHER_SEED)
    whole = made("centred", "independent", kept, others, OTHER_SEED)
    for seed in seeds:
        for design, count in most.items():
            kept = scores(model, picture, image, design, count, seed)
            for estimator in ESTIMATORS:
                for passes in [number for number in PASSES if number <= count]:
                    correlation = float(sl.rank_correlation(made(estimator, design, kept, passes, seed), whole))
                    yield dict(zip(COLUMNS, (picture, seed, estimator, design, passes, correlation), strict=True))


def table(count: int, most: dict[str, int] = MOST, others: int = OTHERS) -> pd.DataFrame:
    """Measure the first `count` pictures, or take what is stored of them, on EfficientNet-Lite0 at 224 pixels, by `ENGINE`.

    Args:
        most, others: as in `rows`.
    """
    model = sl.MODELS["efficientnet_lite0"](classes=1000, pretrained=True).eval().to(device())
    model = optimised(model, next(iter(pictures().values()))[None], ENGINE)
    found: list[dict] = []
    for picture, image in list(pictures().items())[:count]:
        for seed in SEEDS:
            found += rows(model, picture, image, most, others, [seed])
            print(picture, f"seed {seed}", file=sys.stderr, flush=True)
    return pd.DataFrame(found, columns=COLUMNS)


def intervals(found: pd.DataFrame) -> pd.DataFrame:
    """Return the mean correlation with its 95 % interval over the pictures and the seeds, per estimator, design and passes."""
    lines = {}
    for key, part in found.groupby(["estimator", "design", "passes"], sort=False):
        values = part.pivot(index="seed", columns="picture", values="correlation").to_numpy()
        lines[key] = (values.mean(), *mean_interval(values))
    index = pd.MultiIndex.from_tuples(lines, names=["estimator", "design", "passes"])
    return pd.DataFrame([*lines.values()], index=index, columns=["mean", "low", "high"])


def summary(found: pd.DataFrame) -> pd.DataFrame:
    """Return how many passes reach the goal: a row per estimator and design.

    The goal of a seed is the mean correlation over the pictures of the original estimator with independent masks at its most
    passes. A row has the fewest passes whose mean over the seeds reaches the mean goal, and the least and the greatest factor by
    which the passes that reach the goal of a seed are fewer than the original's most; none if a seed does not reach its goal.
    """

    def reached(part: pd.DataFrame) -> tuple[pd.Series, int]:
        mean = part.groupby(["estimator", "design", "passes"], sort=False)["correlation"].mean().unstack()
        usual = mean.loc[("original", "independent")].dropna()
        first = (mean >= usual.iloc[-1]).apply(lambda line: line.index[line][0] if line.any() else np.nan, axis=1)
        return first.astype(float), int(usual.index[-1])

    factors = pd.DataFrame({seed: most / first for seed, part in found.groupby("seed") for first, most in [reached(part)]})
    least, greatest = factors.min(axis=1, skipna=False), factors.max(axis=1, skipna=False)
    return pd.DataFrame({"reached": reached(found)[0], "least factor": least, "greatest factor": greatest})
