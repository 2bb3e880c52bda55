"""From a specification to its result: load the artefact, or build it and what it needs."""

import functools
import hashlib
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from saliency_lib import paths
from saliency_lib.artefacts import store
from saliency_lib.artefacts.specs import Explanation, Samples, Score, Spec, Training
from saliency_lib.artefacts.store import Artefact
from saliency_lib.attribution.table import METHODS
from saliency_lib.core.batching import device_of, frozen, logits_of
from saliency_lib.core.files import write_tensors
from saliency_lib.data.table import DATASETS, Images
from saliency_lib.evaluation.curve import Curve
from saliency_lib.evaluation.generative import activation_maximisation
from saliency_lib.evaluation.table import METRICS
from saliency_lib.networks.models import head_of, with_head
from saliency_lib.networks.table import MODELS
from saliency_lib.training.loop import fit
from saliency_lib.training.selection import accuracy

WEIGHTS, HISTORY, MAPS, CURVES = "weights.safetensors", "history.csv", "maps.safetensors", "curves.safetensors"
IMAGES = "images.safetensors"
AT_ONCE = 64  # samples made between two moves of the progress bar
MEASURED = 1000  # test images, at most, on which published weights are measured
IMAGENET = 1000  # classes that published weights know
BLOCK = 32  # images explained or scored between two moves of the progress bar

# Bars of their own for hundreds of scores are more messages than a notebook's kernel can queue.
_many: ContextVar[bool] = ContextVar("many scores have one progress bar", default=False)


@dataclass(frozen=True)
class Trained:
    """A model in evaluation mode on the device, the history of its training (empty for published weights), its artefact."""

    model: nn.Module
    history: pd.DataFrame
    artefact: Artefact

    @property
    def accuracy(self) -> float:
        """Share of the test images classified right, in [0, 1]."""
        return self.artefact.facts["test_accuracy"]


@dataclass(frozen=True)
class Explained:
    """Maps (B, H, W) of one method, with the classes (B,) they explain and the images' numbers (B,) in their split."""

    maps: Tensor
    targets: Tensor
    indices: Tensor
    artefacts: tuple[Artefact, ...]


@dataclass(frozen=True)
class Scored:
    """The curve of one metric, with the images' numbers (B,) in their split."""

    curve: Curve
    indices: Tensor
    artefacts: tuple[Artefact, ...]


def device() -> torch.device:
    """Where kernels run: the first GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@functools.lru_cache(maxsize=4)
def load(dataset: str, split: str = "test", start: int = 0, stop: int | None = None, stride: int = 1) -> Images:
    """Images of a data set, kept for the next caller."""
    return DATASETS[dataset](split, start=start, stop=stop, stride=stride)


def images_of(spec: Explanation) -> Images:
    """The images that an explanation covers."""
    return load(spec.dataset, spec.split, spec.start, spec.stop, spec.stride)


def new_model(spec: Training, begun: nn.Module | None = None) -> nn.Module:
    """The model of a specification before it is trained, what is random in it fixed by the seed.

    Args:
        begun: the trained model that it begins with, which is changed; left out, a specification's `start` gives the
            architecture alone.
    """
    settings, classes = spec.settings, len(load(spec.dataset, stop=1).classes)
    build = functools.partial(MODELS[spec.model], channels=DATASETS[spec.dataset].shape[0], **settings.get("model_options", {}))
    with torch.random.fork_rng(devices=[]):  # models are made on the CPU
        torch.manual_seed(spec.seed)
        if not settings["start"] and not settings["head"]:
            return build(classes=classes, pretrained=spec.recipe == "pretrained")
        published = settings["start"] is not None
        model = begun or (new_model(spec.start) if spec.start else build(classes=IMAGENET, pretrained=published))
        return with_head(model, classes, settings["head"] or "linear")


def train(spec: Training) -> Trained:
    """The trained model of a specification; trained, with a progress bar, if it is not in the store.

    A run that is stopped goes on from its last whole epoch when it is asked for again.

    Raises:
        FileNotFoundError: the data set or the published weights are missing; the message names the remedy.
        ValueError: a damaged artefact or checkpoint, or a run that diverges.
    """
    artefact = store.fetch(spec, functools.partial(_train, spec))
    classes = len(load(spec.dataset, stop=1).classes)
    if classes != artefact.facts["classes"]:
        place = paths.relative(artefact.folder)
        raise ValueError(
            f"{spec.dataset} has {classes} classes, but {place} was trained with {artefact.facts['classes']}; "
            "put the data back or delete that folder to train again"
        )
    model = new_model(spec)
    if spec.recipe == "pretrained":
        if _fingerprint(model.state_dict().values()) != artefact.facts["weights_sha256"]:
            raise ValueError(
                f"the published weights of {spec.model} are not those that {paths.relative(artefact.folder)} was made with; "
                "delete that folder and what was built on it, and run again"
            )
        history = pd.DataFrame()
    else:
        weights = {name: torch.from_numpy(value) for name, value in artefact.tensors(WEIGHTS).items()}
        model.load_state_dict(weights)
        history = pd.read_csv(artefact.folder / HISTORY)
    return Trained(model.to(device()).eval(), history, artefact)


def _train(spec: Training, folder: Path) -> dict:
    begun = train(spec.start).model.cpu() if spec.start else None
    model = new_model(spec, begun)
    published = spec.recipe == "pretrained"
    test = load(spec.dataset, stop=MEASURED if published else None)
    facts = {"classes": len(test.classes), "test_images": len(test)}
    if published or (spec.settings["start"] and not begun):
        facts |= {"weights": MODELS[spec.model].weights, "weights_sha256": _fingerprint(model.state_dict().values())}
    clock = _Timed()
    if published:
        model = model.to(device()).eval()
        return facts | {
            "test_accuracy": accuracy(model, test.images, test.labels),
            **clock.ended(),
        }
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
    write_tensors(folder / WEIGHTS, {name: value.cpu().numpy() for name, value in model.state_dict().items()})
    pd.DataFrame(history).to_csv(folder / HISTORY, index=False)
    checkpoint.unlink(missing_ok=True)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return facts | {
        "test_accuracy": _kept(history)["test_accuracy"],
        "epoch": _kept(history)["epoch"],
        "images_sha256": _images_sha256(images),
        "parameters": parameters,
        **clock.ended(),
    }


def _kept(history: list[dict]) -> dict:
    """The row of the epoch whose weights were kept: the last that was the best so far, or the last."""
    return next((row for row in reversed(history) if row.get("best")), history[-1])


def predict(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """The probability (B,) and the index (B,) of the predicted class of each image (B, C, H, W), on the CPU."""
    with frozen(model):
        logits = logits_of(model, images.to(device_of(model))).cpu()
    probabilities, predicted = logits.softmax(1).max(1)
    return probabilities, predicted


def explain(spec: Explanation) -> Explained:
    """The maps of a specification; made, with a progress bar, if they are not in the store.

    Raises:
        ValueError: a map came out with NaN, or the artefact is damaged.
    """
    artefact = store.fetch(spec, functools.partial(_explain, spec))
    _check_images(spec, artefact)
    tensors = {name: torch.from_numpy(value) for name, value in artefact.tensors(MAPS).items()}
    return Explained(tensors["maps"], tensors["targets"], tensors["indices"], (artefact,))


def _explain(spec: Explanation, folder: Path) -> dict:
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
    write_tensors(folder / MAPS, {name: value.numpy() for name, value in tensors.items()})
    return {"images": len(images), "images_sha256": _images_sha256(images), **clock.ended()}


def score(spec: Score) -> Scored:
    """The curve of a specification; computed, with a progress bar, if it is not in the store."""
    artefact = store.fetch(spec, functools.partial(_score, spec))
    _check_images(spec.explanation, artefact)
    tensors = {name: torch.from_numpy(value) for name, value in artefact.tensors(CURVES).items()}
    curve = Curve(tensors["fractions"], tensors["values"], tensors["area"])
    return Scored(curve, tensors["indices"], (artefact,))


def _score(spec: Score, folder: Path) -> dict:
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
    tensors = {
        "fractions": curves[0].fractions.cpu(),
        "values": torch.cat([curve.values.cpu() for curve in curves]),
        "area": torch.cat([curve.area.cpu() for curve in curves]),
        "indices": images.indices,
    }
    write_tensors(folder / CURVES, {name: value.numpy() for name, value in tensors.items()})
    return {
        "images": len(images),
        "images_sha256": _images_sha256(images),
        "mean_area": float(tensors["area"].mean()),
        **clock.ended(),
    }


def score_all(specs: Mapping[Hashable, Score]) -> dict[Hashable, Scored]:
    """Many scores under one progress bar, by their keys; each as `score` gives it."""
    token = _many.set(True)
    try:
        return {key: score(spec) for key, spec in tqdm(specs.items(), desc="scores", unit="score", mininterval=1)}
    finally:
        _many.reset(token)


def sample(spec: Samples) -> Images:
    """The images of a specification and the classes that they were made for; made, with a progress bar, if not in the store."""
    artefact = store.fetch(spec, functools.partial(_sample, spec))
    tensors = {name: torch.from_numpy(value) for name, value in artefact.tensors(IMAGES).items()}
    return Images(tensors["images"], tensors["labels"], load(spec.training.dataset, stop=1).classes, tensors["indices"])


def _sample(spec: Samples, folder: Path) -> dict:
    model, test = train(spec.training).model, load(spec.training.dataset)
    clock = _Timed()
    labels = test.labels[torch.arange(spec.count) % len(test)]
    made = []
    for start in tqdm(range(0, spec.count, AT_ONCE), desc=f"samples of {spec.training.slug}", unit="block"):
        rows = torch.arange(start, min(start + AT_ONCE, spec.count))
        options = {"shape": tuple(test.images.shape[1:]), "steps": spec.steps, "rate": spec.rate, "decay": spec.decay}
        block = activation_maximisation(model, labels[rows].to(device()), **options, seed=spec.seed, indices=rows)
        made.append(block.cpu())
    tensors = {"images": torch.cat(made), "labels": labels, "indices": torch.arange(spec.count)}
    write_tensors(folder / IMAGES, {name: value.numpy() for name, value in tensors.items()})
    return {"images": spec.count, "labels_sha256": _fingerprint([labels]), **clock.ended()}


def _check_images(spec: Explanation, artefact: Artefact) -> None:
    if artefact.facts["images_sha256"] != _images_sha256(images_of(spec)):
        place = paths.relative(artefact.folder)
        raise ValueError(
            f"the images of {spec.dataset} are not those that {place} was made from; "
            "put them back or delete that folder and run again"
        )


def join(parts: Sequence[Explained] | Sequence[Scored]) -> Explained | Scored:
    """The results of several shards as one, in the order of the images.

    Raises:
        ValueError: nothing to join, mixed kinds, shards that share an image, or curves over different fractions.
    """
    parts = list(parts)
    if not parts or len({type(part) for part in parts}) != 1:
        raise ValueError(f"join needs results of one kind, got {[type(part).__name__ for part in parts]}")
    indices = torch.cat([part.indices for part in parts])
    if len(indices.unique()) != len(indices):
        raise ValueError("the shards share images; join takes each image once")
    order = indices.argsort()
    artefacts = tuple(artefact for part in parts for artefact in part.artefacts)
    if isinstance(parts[0], Explained):
        maps, targets = (torch.cat([getattr(part, name) for part in parts])[order] for name in ("maps", "targets"))
        return Explained(maps, targets, indices[order], artefacts)
    fractions = parts[0].curve.fractions
    if any(not torch.equal(part.curve.fractions, fractions) for part in parts):
        raise ValueError("the shards' curves were taken at different fractions")
    values, area = (torch.cat([getattr(part.curve, name) for part in parts])[order] for name in ("values", "area"))
    return Scored(Curve(fractions, values, area), indices[order], artefacts)


def build(spec: Spec) -> Trained | Explained | Scored | Images:
    """The result of any specification."""
    makers: dict[type, Callable] = {Training: train, Explanation: explain, Score: score, Samples: sample}
    return makers[type(spec)](spec)


class _Timed:
    """The time that an artefact took, without that of what it needs."""

    def __init__(self) -> None:
        self._begun = time.perf_counter()

    def ended(self) -> dict:
        return {"device": str(device()), "seconds": round(time.perf_counter() - self._begun, 2)}


def _blocks(images: Images, title: str) -> list[slice]:
    starts = range(0, len(images), BLOCK)
    silent = {"disable": True} if _many.get() else {}
    return tqdm([slice(start, start + BLOCK) for start in starts], desc=title, unit="block", **silent)


def _method(spec: Explanation, indices: Tensor) -> Callable[[nn.Module, Tensor, Tensor], Tensor]:
    """The method of an explanation with its options, for the images of these numbers."""
    given = METHODS.taken(spec.method, {"seed": spec.seed, "indices": indices})
    return functools.partial(METHODS[spec.method], **spec.options, **given)


@functools.lru_cache(maxsize=8)
def _images_sha256(images: Images) -> str:
    return _fingerprint([images.images])


def _fingerprint(tensors) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(np.ascontiguousarray(tensor.detach().cpu().numpy()))
    return digest.hexdigest()
