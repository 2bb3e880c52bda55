"""What the stages of the pipeline start from: images, untrained models, the device, and how images and weights are recognised."""

import functools
import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode

from saliency_lib import paths
from saliency_lib.artefacts.specs import Explanation
from saliency_lib.artefacts.store import Artefact
from saliency_lib.artefacts.trainings import Training
from saliency_lib.core.batching import device_of, frozen, logits_of
from saliency_lib.core.locks import Stream
from saliency_lib.data.splits import crop
from saliency_lib.data.table import DATASETS, Images
from saliency_lib.networks.heads import with_head
from saliency_lib.networks.table import MODELS, Preparation

IMAGENET = 1000  # classes that published weights predict


def device() -> torch.device:
    """Return the device on which kernels run: the first GPU if there is one, and else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@functools.lru_cache(maxsize=4)
def load(
    dataset: str,
    split: str = "test",
    start: int = 0,
    stop: int | None = None,
    stride: int = 1,
    preparation: Preparation | None = None,
) -> Images:
    """Return images of a data set; the last few results are kept in memory.

    Args:
        dataset: a name in DATASETS.
        split: one of its splits.
        start: the first image.
        stop: the image before which to stop; None means the end of the split.
        stride: the distance between images.
        preparation: replaces the set's own side and way of resizing.
    """
    way: dict[str, Any] = {}
    if preparation:
        border, interpolation = preparation.resize / preparation.side, InterpolationMode(preparation.interpolation)
        way = {"size": preparation.side, "resize": functools.partial(crop, border=border, interpolation=interpolation)}
    return DATASETS[dataset](split, start=start, stop=stop, stride=stride, **way)


def preparation_of(spec: Training, dataset: str) -> Preparation | None:
    """Return how a data set's pictures are prepared for a model; None means as the set does it.

    Published weights get pictures with ImageNet's classes as in their own evaluation, if that is not the usual one, which the
    data sets have already.
    """
    own = MODELS[spec.model].preparation
    return own if own and own.unusual and spec.recipe == "pretrained" and DATASETS[dataset].imagenet else None


def images_of(spec: Explanation) -> Images:
    """Return the images that an explanation covers."""
    dataset = str(spec.dataset)
    return load(dataset, spec.split, spec.start, spec.stop, spec.stride, preparation_of(spec.training, dataset))


def new_model(spec: Training, begun: nn.Module | None = None) -> nn.Module:
    """Return the model of a specification before its training; the seed determines its random weights.

    Args:
        spec: the training.
        begun: the trained model that it starts from, which is changed in place. If it is None, the specification's `start`
            contributes its architecture only.
    """
    settings, classes = spec.settings, len(load(spec.dataset, stop=1).classes)
    build = functools.partial(MODELS[spec.model], channels=DATASETS[spec.dataset].shape[0], **settings.get("model_options", {}))
    with Stream(spec.seed).drawn():
        if not settings["start"] and not settings["head"]:
            return build(classes=classes, pretrained=spec.recipe == "pretrained")
        published = settings["start"] is not None
        model = begun or (new_model(spec.start) if spec.start else build(classes=IMAGENET, pretrained=published))
        return with_head(model, classes, settings["head"] or "linear")


def predict(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the probability (B,) and the index (B,) of the predicted class of each image (B, C, H, W), on the CPU."""
    with frozen(model):
        logits = logits_of(model, images.to(device_of(model))).cpu()
    probabilities, predicted = logits.softmax(1).max(1)
    return probabilities, predicted


def fingerprint(tensors: Iterable[Tensor]) -> str:
    """Return the SHA-256 of the values of tensors."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(np.ascontiguousarray(tensor.detach().cpu().numpy()).data)
    return digest.hexdigest()


@functools.lru_cache(maxsize=8)
def images_sha256(images: Images) -> str:
    """Return the SHA-256 of the pixels of images."""
    return fingerprint([images.images])


def check_images(spec: Explanation, artefact: Artefact) -> None:
    """Check that an artefact was made from the images that its data set has now.

    Raises:
        ValueError: the images have changed.
    """
    if artefact.facts["images_sha256"] != images_sha256(images_of(spec)):
        raise ValueError(
            f"the images of {spec.dataset} are not those that {paths.relative(artefact.folder)} was made from; "
            "put them back, or delete that folder and run again"
        )
