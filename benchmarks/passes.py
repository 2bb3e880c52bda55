"""How many passes a RISE map takes: its rank correlation with a map of many other masks, per estimator, design and photograph."""

import io
import sys
from collections.abc import Iterator
from functools import cache, partial

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode

import saliency_lib as sl
from benchmarks.scenes import device
from saliency_lib import paths
from saliency_lib.attribution.estimators import ESTIMATORS
from saliency_lib.attribution.masks import mask_scores, weighted_sum
from saliency_lib.attribution.rise import drawn_grids
from saliency_lib.core.batching import frozen, resolve_targets
from saliency_lib.core.files import replace_file
from saliency_lib.data.embedded import PHOTOS, packaged_file
from saliency_lib.data.splits import file_split, imagenet_crop

# Other pictures that scikit-image ships, after the photographs of `photos`: photographs first, then textures and a page of print.
MORE = [
    *("astronaut.png", "motorcycle_left.png", "clock_motion.png", "coins.png", "moon.png", "hubble_deep_field.jpg", "retina.jpg"),
    *("ihc.png", "page.png", "brick.png", "grass.png", "gravel.png", "cell.png", "text.png"),
]
PASSES = (50, 100, 150, 200, 250, 350, 500, 750, 1000, 1500, 2000)
MOST = {"independent": 2000, "antithetic": 500, "stratified": 500}  # masks; independent ones are the original's too
OTHERS = 8000  # masks of the map that the others are compared with
COLUMNS = ["picture", "estimator", "design", "passes", "correlation"]


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
    """Return the scores (1, count) of the predicted class for masks; they are stored, so that a run that ended goes on."""
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


def rows(model: nn.Module, picture: str, image: Tensor, most: dict[str, int], others: int) -> Iterator[dict]:
    """Give a row per estimator, design and number of passes of one picture.

    Args:
        image: (3, H, W).
        most: the most masks of each design.
        others: masks of the map that the others are compared with; it is centred, so that its noise is the least.
    """
    image = image[None]

    def made(estimator: str, design: str, kept: Tensor, count: int, seed: int) -> Tensor:
        grids = drawn_grids(image, count, 8, 0.5, seed, edge="mirror", design=design)
        weights, known = ESTIMATORS[estimator](grids, kept[:, :count])
        return weighted_sum(grids.masks, weights, image) / (count * 0.5) + (0 if known is None else known / 0.5)

    whole = made("centred", "independent", scores(model, picture, image, "independent", others, 1), others, 1)
    for design, count in most.items():
        kept = scores(model, picture, image, design, count, 0)
        for estimator in ESTIMATORS:
            for passes in [number for number in PASSES if number <= count]:
                correlation = float(sl.rank_correlation(made(estimator, design, kept, passes, 0), whole))
                yield dict(zip(COLUMNS, (picture, estimator, design, passes, correlation), strict=True))


def table(count: int) -> pd.DataFrame:
    """Measure the first `count` pictures, or take what is stored of them, on EfficientNet-Lite0 at 224 pixels."""
    model = sl.MODELS["efficientnet_lite0"](classes=1000, pretrained=True).eval().to(device())
    found: list[dict] = []
    for picture, image in list(pictures().items())[:count]:
        found += rows(model, picture, image, MOST, OTHERS)
        print(picture, file=sys.stderr, flush=True)
    return pd.DataFrame(found, columns=COLUMNS)


def summary(found: pd.DataFrame) -> pd.DataFrame:
    """Return the mean correlation over the pictures: a row per estimator and design, a column per number of passes.

    The last column is the least number of passes at which the mean reaches that of the original at its most passes.
    """
    mean = found.groupby(["estimator", "design", "passes"], sort=False)["correlation"].mean().unstack()
    goal = mean.loc[("original", "independent")].dropna().iloc[-1]
    reached = (mean >= goal).apply(lambda line: line.index[line][0] if line.any() else None, axis=1)
    return mean.assign(reached=reached)
