"""What the stages of the pipeline start from: images, untrained models, the device."""

import contextlib
import functools
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from saliency_lib import paths
from saliency_lib.artefacts import parts
from saliency_lib.artefacts.parts import Part, described
from saliency_lib.artefacts.provenance import Artefact
from saliency_lib.artefacts.specs import Explanation, Samples, Score, Spec
from saliency_lib.artefacts.trainings import Training
from saliency_lib.core.batching import device_of, frozen, logits_of
from saliency_lib.core.files import replace_file
from saliency_lib.core.locks import Stream
from saliency_lib.data.table import DATASETS, Dataset, Images
from saliency_lib.networks.heads import with_head
from saliency_lib.networks.references import check_classes
from saliency_lib.networks.table import MODELS, Preparation

MEASURED = 1000  # test images, at most, on which published weights are measured


def device() -> torch.device:
    """Return the device on which kernels run: the first GPU if there is one, and else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Timed:
    """The time that an artefact takes, without the time of the artefacts that it needs."""

    def __init__(self) -> None:
        self._begun = time.perf_counter()

    def ended(self) -> dict[str, Any]:
        """Return the device and the seconds since the start."""
        return {"device": str(device()), "seconds": round(time.perf_counter() - self._begun, 2)}


def load(
    dataset: str,
    split: str = "test",
    start: int = 0,
    stop: int | None = None,
    stride: int = 1,
    preparation: Preparation | None = None,
) -> Images:
    """Return images of a data set, which may be changed; the last few results are kept in memory.

    Args:
        dataset: a name in DATASETS.
        split: one of its splits.
        start: the first image.
        stop: the image before which to stop; None means the end of the split.
        stride: the distance between images.
        preparation: replaces the set's own side and way of resizing.
    """
    return parts.copy(parts.borrow(Part(dataset, split, start, stop, stride, preparation)))


def forget() -> None:
    """Forget the images that are kept in memory, for instance because the files of a data set have changed."""
    parts.forget()
    _names_of.cache_clear()


def classes_of(dataset: str) -> tuple[str, ...]:
    """Return the readable class names of a data set."""
    return _names_of(dataset, parts.entry_of(dataset))[0]


def vocabulary_of(dataset: str) -> tuple[str, ...]:
    """Return the words of a data set of texts by their numbers."""
    return _names_of(dataset, parts.entry_of(dataset))[1]


@functools.lru_cache(maxsize=64)
def _names_of(dataset: str, entry: Dataset | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    one = DATASETS[dataset](stop=1)
    return one.classes, one.vocabulary


def preparation_of(spec: Training, dataset: str) -> Preparation | None:
    """Return how a data set's pictures are prepared for a model; None means as the set does it.

    Published weights get pictures with ImageNet's classes as in their own evaluation, if that is not the usual one, which the
    data sets have already.
    """
    own = MODELS[spec.model].preparation
    return own if own and own.unusual and spec.recipe == "pretrained" and DATASETS[dataset].imagenet else None


def part_of(spec: Explanation) -> Part:
    """Return the part of a data set that an explanation covers."""
    dataset = str(spec.dataset)
    return Part(dataset, spec.split, spec.start, spec.stop, spec.stride, preparation_of(spec.training, dataset))


def images_of(spec: Explanation) -> Images:
    """Return the images that an explanation covers; they may be changed."""
    return parts.copy(parts.borrow(part_of(spec)))


def parts_of(spec: Spec) -> list[Part]:
    """Return the parts of data sets that a specification is made from: the test images, and those that a model is trained on."""
    if isinstance(spec, Score):
        return [part_of(spec.explanation)]
    if isinstance(spec, Explanation):
        return [part_of(spec)]
    training = cast(Training, spec.training if isinstance(spec, Samples) else spec)
    published = training.recipe == "pretrained"
    test = Part(training.dataset, stop=MEASURED if published else None, preparation=preparation_of(training, training.dataset))
    if published or isinstance(spec, Samples):
        return [test]
    return [test, Part(training.dataset, "train", stop=training.settings["images"])]


@contextlib.contextmanager
def continued(used: Mapping[Part, Images], checkpoint: Path) -> Iterator[None]:
    """While active, a training may go on from its checkpoint; a file beside it describes the images that it was begun with.

    The test images count too, by which the history measures each epoch.

    Both stay until the artefact is stored, see `end`, so that a process that is killed before that loses nothing.

    Raises:
        ValueError: the images are others now, or the file is missing or damaged.
    """
    origin = _origin(checkpoint)
    if checkpoint.exists():
        try:
            recorded = dict(zip(used, json.loads(origin.read_text()), strict=True))
        except (OSError, TypeError, ValueError):
            name = paths.relative(checkpoint)
            raise ValueError(
                f"checkpoint {name} is damaged ({origin.name} cannot be read); delete {name} to train from the start"
            ) from None
        for part, begun in recorded.items():
            parts.check(part, begun, checkpoint)
    else:
        content = json.dumps([described(part, data) for part, data in used.items()])
        replace_file(origin, lambda draft: draft.write_text(content))
    try:
        yield
    except BaseException:
        if not checkpoint.exists():
            origin.unlink(missing_ok=True)
        raise


def end(checkpoint: Path) -> None:
    """Delete a checkpoint whose training is stored, and then the file beside it."""
    for left in (checkpoint, _origin(checkpoint)):
        if left.exists():
            left.unlink(missing_ok=True)


def _origin(checkpoint: Path) -> Path:
    return checkpoint.with_suffix(".json")


def check_data(spec: Spec, artefact: Artefact) -> None:
    """Check that an artefact, and those that it was made from as far as they are stored, fit the data sets as they are now.

    Raises:
        ValueError: images, labels or masks have changed.
    """
    for part, recorded in zip(parts_of(spec), artefact.facts["data"], strict=True):
        parts.check(part, recorded, artefact.folder)
    for one, above in zip(spec.upstream, artefact.upstream, strict=True):
        if above:
            check_data(one, above)


def new_model(spec: Training, begun: nn.Module | None = None) -> nn.Module:
    """Return the model of a specification before its training; the seed determines its random weights.

    Args:
        spec: the training.
        begun: the trained model that it starts from, which is changed in place. If it is None, the specification's `start`
            contributes its architecture only.
    """
    settings, classes = spec.settings, len(classes_of(spec.dataset))
    options = settings.get("model_options", {}) | ({"words": vocabulary_of(spec.dataset)} if MODELS[spec.model].texts else {})
    build = functools.partial(MODELS[spec.model], channels=DATASETS[spec.dataset].shape[0], **options)
    with Stream(spec.seed).drawn():
        if not settings["start"] and not settings["head"]:
            model = build(classes=classes, pretrained=spec.recipe == "pretrained")
            if spec.recipe == "pretrained" and MODELS[spec.model].predicts == "any":
                _check_classes(model, spec)
            return model
        published = settings["start"] is not None
        known = MODELS[spec.model].known
        model = begun or (new_model(spec.start) if spec.start else build(classes=known, pretrained=published))
        if settings["head"] == "kept":
            return model
        return with_head(model, classes, settings["head"] or "linear")


def _check_classes(model: nn.Module, spec: Training) -> None:
    own, shape = preparation_of(spec, spec.dataset), DATASETS[spec.dataset].shape
    side = own.side if own else shape[1]
    check_classes(model, (shape[0], side, side), len(classes_of(spec.dataset)), spec.model)


def predict(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the probability (B,) and the index (B,) of the predicted class of each image (B, C, H, W), on the CPU."""
    with frozen(model):
        logits = logits_of(model, images.to(device_of(model))).cpu()
    probabilities, predicted = logits.softmax(1).max(1)
    return probabilities, predicted
