"""From a specification to its result: load the artefact, or build it and what it needs."""

import functools
import time
from collections.abc import Callable, Hashable, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar, overload

import pandas as pd
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from saliency_lib import paths
from saliency_lib.artefacts import store
from saliency_lib.artefacts.inputs import (
    check_images,
    device,
    fingerprint,
    images_of,
    images_sha256,
    load,
    new_model,
    predict,
    preparation_of,
)
from saliency_lib.artefacts.results import Explained, Scored, Trained
from saliency_lib.artefacts.specs import Explanation, Samples, Score, Spec, Training
from saliency_lib.artefacts.store import Artefact
from saliency_lib.attribution.table import METHODS
from saliency_lib.core.files import write_tensors
from saliency_lib.data.table import Images
from saliency_lib.evaluation.curve import Curve, concatenated
from saliency_lib.evaluation.generative import activation_maximisation
from saliency_lib.evaluation.table import METRICS
from saliency_lib.networks.heads import head_of
from saliency_lib.networks.table import MODELS
from saliency_lib.training.loop import fit
from saliency_lib.training.selection import accuracy

WEIGHTS, HISTORY, MAPS, CURVES = "weights.safetensors", "history.csv", "maps.safetensors", "curves.safetensors"
IMAGES = "images.safetensors"
MEASURED = 1000  # test images, at most, on which published weights are measured
BLOCK = 32  # images that are explained or scored per step of the progress bar
MADE = 64  # samples that are made per step of the progress bar

K = TypeVar("K", bound=Hashable)

# A progress bar for each of hundreds of scores sends more messages than a notebook's kernel can queue.
_one_bar: ContextVar[bool] = ContextVar("one progress bar for many scores", default=False)


def train(spec: Training) -> Trained:
    """Return the trained model of a specification; train it, with a progress bar, if it is not stored.

    A run that is stopped continues from its last whole epoch when it is called again.

    Raises:
        FileNotFoundError: the data set or the published weights are missing; the message says what to do.
        ValueError: the artefact or the checkpoint is damaged, or the training diverges.
    """
    artefact = store.fetch(spec, functools.partial(_train, spec))
    classes = len(load(spec.dataset, stop=1).classes)
    if classes != artefact.facts["classes"]:
        place = paths.relative(artefact.folder)
        raise ValueError(
            f"{spec.dataset} has {classes} classes, but {place} was trained with {artefact.facts['classes']}; "
            "put the data back, or delete that folder to train again"
        )
    model = new_model(spec)
    if spec.recipe == "pretrained":
        if fingerprint(model.state_dict().values()) != artefact.facts["weights_sha256"]:
            raise ValueError(
                f"the published weights of {spec.model} are not those that {paths.relative(artefact.folder)} was made with; "
                "delete that folder and the artefacts that were made from it, and run again"
            )
        history = pd.DataFrame()
    else:
        model.load_state_dict(_tensors(artefact, WEIGHTS))
        history = pd.read_csv(artefact.folder / HISTORY)
    return Trained(model.to(device()).eval(), history, artefact)


def _train(spec: Training, folder: Path) -> dict[str, Any]:
    begun = train(spec.start).model.cpu() if spec.start else None
    model = new_model(spec, begun)
    published = spec.recipe == "pretrained"
    test = load(spec.dataset, stop=MEASURED if published else None, preparation=preparation_of(spec, spec.dataset))
    facts: dict[str, Any] = {"classes": len(test.classes), "test_images": len(test)}
    if published or (spec.settings["start"] and not begun):
        facts |= {"weights": MODELS[spec.model].weights, "weights_sha256": fingerprint(model.state_dict().values())}
    clock = _Timed()
    if published:
        model = model.to(device()).eval()
        return facts | {"test_accuracy": accuracy(model, test.images, test.labels), **clock.ended()}
    images = load(spec.dataset, "train", stop=spec.settings["images"])
    checkpoint = store.checkpoint(spec)
    model = model.to(device())
    history = fit(
        model,
        images.images,
        images.labels,
        spec.settings,
        seed=spec.seed,
        head=head_of(model) if spec.settings["trainable"] == "head" else None,
        test=(test.images, test.labels),
        checkpoint=checkpoint,
        title=f"training {spec.slug}",
    )
    _write(folder / WEIGHTS, model.state_dict())
    pd.DataFrame(history).to_csv(folder / HISTORY, index=False)
    checkpoint.unlink(missing_ok=True)
    kept = next((row for row in reversed(history) if row.get("best")), history[-1])  # the best epoch so far, or the last
    return facts | {
        "test_accuracy": kept["test_accuracy"],
        "epoch": kept["epoch"],
        "images_sha256": images_sha256(images),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        **clock.ended(),
    }


def explain(spec: Explanation) -> Explained:
    """Return the maps of a specification; compute them, with a progress bar, if they are not stored.

    Raises:
        FileNotFoundError: the data set or the published weights are missing; the message says what to do.
        ValueError: the artefact is damaged, the images have changed, or a map has values that are not finite.
    """
    artefact = store.fetch(spec, functools.partial(_explain, spec))
    check_images(spec, artefact)
    tensors = _tensors(artefact, MAPS)
    return Explained(tensors["maps"], tensors["targets"], tensors["indices"], (artefact,))


def _explain(spec: Explanation, folder: Path) -> dict[str, Any]:
    model, images = train(spec.training).model, images_of(spec)
    clock = _Timed()
    maps, targets = [], []
    for rows in _blocks(images, f"{spec.method} of {spec.dataset}"):
        block = images.images[rows].to(device())
        wanted = (images.labels[rows] if spec.targets == "label" else predict(model, block)[1]).to(device())
        result = _method(spec, images.indices[rows])(model, block, wanted).cpu()
        if not torch.isfinite(result).all():
            bad = images.indices[rows][(~torch.isfinite(result)).flatten(1).any(1)].tolist()
            raise ValueError(
                f"method {spec.method!r} gave NaN or infinity for images {bad[:5]} of {spec.dataset}; nothing was stored"
            )
        maps.append(result)
        targets.append(wanted.cpu())
    tensors = {"maps": torch.cat(maps), "targets": torch.cat(targets), "indices": images.indices}
    _write(folder / MAPS, tensors)
    return {"images": len(images), "images_sha256": images_sha256(images), **clock.ended()}


def score(spec: Score) -> Scored:
    """Return the curves of a specification; compute them, with a progress bar, if they are not stored.

    Raises:
        FileNotFoundError: the data set or the published weights are missing; the message says what to do.
        ValueError: the artefact is damaged, or the images have changed.
    """
    artefact = store.fetch(spec, functools.partial(_score, spec))
    check_images(spec.explanation, artefact)
    tensors = _tensors(artefact, CURVES)
    indices = tensors.pop("indices")
    return Scored(Curve(**tensors), indices, (artefact,))


def _score(spec: Score, folder: Path) -> dict[str, Any]:
    explained = explain(spec.explanation)
    model, images = train(spec.judge or spec.explanation.training).model, images_of(spec.explanation)
    clock = _Timed()
    curves = []
    for rows in _blocks(images, f"{spec.metric} of {spec.explanation.method}"):
        wanted = images.labels[rows].to(device()) if spec.targets == "label" else None
        given = {
            "seed": spec.seed,
            "indices": images.indices[rows],
            "explain": _method(spec.explanation, images.indices[rows]),
            "objects": None if images.masks is None else images.masks[rows].to(device()),
        }
        block, maps = images.images[rows].to(device()), explained.maps[rows].to(device())
        curves.append(METRICS[spec.metric](model, block, maps, wanted, **spec.options, **METRICS.taken(spec.metric, given)))
    curve = concatenated(curves)
    tensors = {name: value for name, value in vars(curve).items() if value is not None}
    _write(folder / CURVES, tensors | {"indices": images.indices})
    mean = float(curve.area.cpu().mean())
    return {"images": len(images), "images_sha256": images_sha256(images), "mean_area": mean, **clock.ended()}


def score_all(specs: Mapping[K, Score]) -> dict[K, Scored]:
    """Return the result of `score` for each key, with one progress bar for all."""
    token = _one_bar.set(True)
    try:
        return {key: score(spec) for key, spec in tqdm(specs.items(), desc="scores", unit="score", mininterval=1)}
    finally:
        _one_bar.reset(token)


def sample(spec: Samples) -> Images:
    """Return the images of a specification, labelled with their classes; make them, with a progress bar, if they are not stored.

    Raises:
        ValueError: the artefact is damaged.
    """
    artefact = store.fetch(spec, functools.partial(_sample, spec))
    tensors = _tensors(artefact, IMAGES)
    return Images(tensors["images"], tensors["labels"], load(spec.training.dataset, stop=1).classes, tensors["indices"])


def _sample(spec: Samples, folder: Path) -> dict[str, Any]:
    model, dataset = train(spec.training).model, spec.training.dataset
    test = load(dataset, preparation=preparation_of(spec.training, dataset))
    clock = _Timed()
    labels = test.labels[torch.arange(spec.count) % len(test)]
    channels, height, width = test.images.shape[1:]
    made = []
    for start in tqdm(range(0, spec.count, MADE), desc=f"samples of {spec.training.slug}", unit="block"):
        rows = torch.arange(start, min(start + MADE, spec.count))
        ascent: dict[str, Any] = {"steps": spec.steps, "rate": spec.rate, "decay": spec.decay, "seed": spec.seed, "indices": rows}
        block = activation_maximisation(model, labels[rows].to(device()), shape=(channels, height, width), **ascent)
        made.append(block.cpu())
    tensors = {"images": torch.cat(made), "labels": labels, "indices": torch.arange(spec.count)}
    _write(folder / IMAGES, tensors)
    return {"images": spec.count, "labels_sha256": fingerprint([labels]), **clock.ended()}


@overload
def build(spec: Training) -> Trained: ...
@overload
def build(spec: Explanation) -> Explained: ...
@overload
def build(spec: Score) -> Scored: ...
@overload
def build(spec: Samples) -> Images: ...
@overload
def build(spec: Spec) -> Trained | Explained | Scored | Images: ...
def build(spec: Spec) -> Trained | Explained | Scored | Images:
    """Return the result of any specification; build what is not stored."""
    makers: dict[type[Spec], Callable[[Any], Trained | Explained | Scored | Images]] = {
        Training: train, Explanation: explain, Score: score, Samples: sample,
    }  # fmt: skip
    return makers[type(spec)](spec)


class _Timed:
    """The time that an artefact takes, without the time of the artefacts that it needs."""

    def __init__(self) -> None:
        self._begun = time.perf_counter()

    def ended(self) -> dict[str, Any]:
        return {"device": str(device()), "seconds": round(time.perf_counter() - self._begun, 2)}


def _write(file: Path, tensors: Mapping[str, Tensor]) -> None:
    write_tensors(file, {name: value.cpu().numpy() for name, value in tensors.items()})


def _tensors(artefact: Artefact, file: str) -> dict[str, Tensor]:
    return {name: torch.from_numpy(value) for name, value in artefact.tensors(file).items()}


def _blocks(images: Images, title: str) -> list[slice]:
    starts = range(0, len(images), BLOCK)
    silent = {"disable": True} if _one_bar.get() else {}
    return tqdm([slice(start, start + BLOCK) for start in starts], desc=title, unit="block", **silent)


def _method(spec: Explanation, indices: Tensor) -> Callable[[nn.Module, Tensor, Tensor], Tensor]:
    """Return the method of an explanation with its options, for the images at these positions."""
    given = METHODS.taken(spec.method, {"seed": spec.seed, "indices": indices})
    return functools.partial(METHODS[spec.method], **spec.options, **given)
