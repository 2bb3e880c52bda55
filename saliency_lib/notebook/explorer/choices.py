"""What the explorer offers: data sets, the networks of each, and pictures that the user uploads."""

import io

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from saliency_lib import paths
from saliency_lib.artefacts import store
from saliency_lib.artefacts.specs import Training
from saliency_lib.artefacts.trainings import predicts
from saliency_lib.data.pictures import seen
from saliency_lib.data.table import DATASETS
from saliency_lib.data.texts import is_eraser
from saliency_lib.networks.table import MODELS, Preparation

LARGEST_FILE = 8 * 2**20  # bytes; Jupyter's connection takes about 10 MB in one message
MOST_PIXELS = 40_000_000


def data_sets() -> list[str]:
    """Return the data sets of images and texts: the embedded ones first, then the table's, and the folders in data/."""
    folders = sorted(paths.DATA.iterdir()) if paths.DATA.is_dir() else []
    own = [
        folder.name for folder in folders if ((folder / "test").is_dir() or is_eraser(folder)) and not folder.name.startswith(".")
    ]
    images = [name for name in DATASETS if not name.startswith("series_")]
    return list(dict.fromkeys(("photos", "mnist5k", *sorted((*images, *own)))))


def networks(dataset: str) -> dict[str, Training]:
    """Return the networks for a data set by readable names: published weights, or those in the store."""
    known = sorted((name for name in MODELS if predicts(name, dataset)), key=lambda name: name != "efficientnet_lite0")
    published = {name: Training(dataset, name) for name in known}
    if DATASETS[dataset].imagenet:
        return published
    trainings = [spec for spec in store.known("training") if isinstance(spec, Training) and spec.dataset == dataset]
    stored = {label(training): training for training in trainings}
    return dict(sorted(stored.items(), key=lambda item: item[1].recipe != "standard")) | published


def label(training: Training) -> str:
    """Return a network's name, different from all others of its data set; published weights have the name of their model."""
    if training.recipe == "pretrained":
        return training.model
    parts = [training.model, str(training.recipe)]
    if training.start:
        parts.append(f"from {training.start.dataset} ({label(training.start)})")
    if (training.scale, training.seed) != ("embedded", 0):
        parts.append(f"{training.scale}, seed {training.seed}")
    return ", ".join(parts + [f"{name} {value}" for name, value in training.changes.items()])


def decode(content: bytes) -> Image.Image:
    """Return a PNG or JPEG file as an upright colour picture; transparent pixels become white.

    Raises:
        ValueError: the file is too large, damaged, or of another kind.
    """
    if len(content) > LARGEST_FILE:
        size = f"{len(content) / 2**20:.1f} MB"
        raise ValueError(f"the file has {size}, at most {LARGEST_FILE // 2**20} are accepted; save the picture smaller")
    most = f"at most {MOST_PIXELS:,} are accepted; save it smaller"
    try:
        with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as picture:
            width, height = picture.size
            if width * height <= MOST_PIXELS:
                return seen(picture).convert("RGB")
    except Image.DecompressionBombError as error:  # Pillow's own limit, which is above ours
        raise ValueError(f"the picture has too many pixels, {most}") from error
    except Exception as error:  # decoders raise anything for a damaged file
        raise ValueError(
            "the file cannot be read as a PNG or JPEG picture: it is damaged or of another kind; choose another"
        ) from error
    raise ValueError(f"the picture has {width} x {height} pixels, {most}")


def fit(picture: Image.Image, dataset: str, preparation: Preparation | None = None) -> Tensor:
    """Return a picture like the images of a data set, (1, C, H, W) in [0, 1].

    The centre square of the picture is resized (bicubic, antialiased), and grey if the images are. For ImageNet's classes the
    outer sixteenth at each edge is left out, as in the evaluation of ImageNet's networks, or what `preparation` crops.
    """
    channels, side = DATASETS[dataset].shape
    if DATASETS[dataset].imagenet and preparation is None:
        preparation = Preparation()
    side, whole = (preparation.side, preparation.resize) if preparation else (side, side)
    bleed = (1 - side / whole) / 2
    if preparation and preparation.stretched:
        picture = picture.resize((whole, whole), Image.Resampling.BICUBIC)
    return fitted(picture, channels, (side, side), bleed)


def fitted(picture: Image.Image, channels: int, size: tuple[int, int], bleed: float = 0.0) -> Tensor:
    """Return the largest centred part of a picture that has the proportions of a size (H, W), resized to (1, C, H, W) in [0, 1].

    Args:
        channels: 1 for grey, 3 for colour.
        bleed: the share of each side that is left out at each of its ends.
    """
    height, width = size
    colours = picture.convert("L" if channels == 1 else "RGB")
    pixels = np.asarray(ImageOps.fit(colours, (width, height), Image.Resampling.BICUBIC, bleed=bleed), np.float32)
    return torch.from_numpy(pixels.reshape(height, width, channels) / 255).permute(2, 0, 1)[None].contiguous()
