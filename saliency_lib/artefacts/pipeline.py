"""From a specification to its result: load the artefact, or build it and what it needs."""

import functools
from collections.abc import Callable, Hashable, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any, overload

import pandas as pd
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from saliency_lib import paths
from saliency_lib.artefacts import contents, store
from saliency_lib.artefacts.inputs import (
    Timed,
    check_data,
    classes_of,
    continued,
    device,
    end,
    new_model,
    part_of,
    parts_of,
    predict,
)
from saliency_lib.artefacts.parts import borrow, described, fingerprint
from saliency_lib.artefacts.provenance import Artefact
from saliency_lib.artefacts.results import Explained, Scored, Trained
from saliency_lib.artefacts.specs import Explanation, Samples, Score, Spec, Training
from saliency_lib.attribution.table import METHODS
from saliency_lib.core.files import write_tensors
from saliency_lib.data.table import DATASETS, Images
from saliency_lib.evaluation.curve import Curve, concatenated
from saliency_lib.evaluation.generative import activation_maximisation
from saliency_lib.evaluation.table import METRICS
from saliency_lib.networks.engines import optimise
from saliency_lib.networks.heads import head_of
from saliency_lib.networks.table import MODELS
from saliency_lib.training.loop import fit
from saliency_lib.training.selection import accuracy

WEIGHTS, HISTORY, MAPS, CURVES = "weights.safetensors", "history.csv", "maps.safetensors", "curves.safetensors"
IMAGES = "images.safetensors"
BLOCK = 32  # images that are explained or scored per step of the progress bar
ENGINES = 4  # models that engines run, kept in memory
MADE = 64  # samples that are made per step of the progress bar

# A progress bar for each of hundreds of scores sends more messages than a notebook's kernel can queue.
one_bar: ContextVar[bool] = ContextVar("one progress bar for many scores", default=False)


def train(spec: Training) -> Trained:
    """Return the trained model of a specification; train it, with a progress bar, if it is not stored.

    A run that is stopped continues from its last whole epoch when it is called again.

    Raises:
        FileNotFoundError: the data set or the published weights are missing; the message says what to do.
        ValueError: the artefact or the checkpoint is damaged, or the training diverges.
    """
    artefact = store.fetch(spec, functools.partial(_train, spec))
    end(store.checkpoint(spec))
    classes = len(classes_of(spec.dataset))
    if classes != artefact.facts["classes"]:
        place = paths.relative(artefact.folder)
        raise ValueError(
            f"{spec.dataset} has {classes} classes, but {place} was trained with {artefact.facts['classes']}; "
            "put the data back, or delete that folder to train again"
        )
    check_data(spec, artefact)
    model = new_model(spec)
    if spec.recipe == "pretrained":
        if fingerprint(model.state_dict().values()) != artefact.facts["weights_sha256"]:
            raise ValueError(
                f"the published weights of {spec.model} are not those that {paths.relative(artefact.folder)} was made with; "
                "delete that folder and the artefacts that were made from it, and run again"
            )
        history = pd.DataFrame()
    else:
        weights = _tensors(artefact, WEIGHTS)
        _refuse(artefact, WEIGHTS, contents.problem_of_weights(weights, model))
        model.load_state_dict(weights)
        text = (artefact.folder / HISTORY).read_text(errors="replace")
        read = contents.history_of(text)
        if read is None:
            raise store.damaged(artefact.folder, f"{HISTORY} has no row of finite numbers per epoch")
        history = read
    return Trained(model.to(device()).eval(), history, artefact)


def _train(spec: Training, folder: Path) -> dict[str, Any]:
    begun = train(spec.start).model.cpu() if spec.start else None
    model = new_model(spec, begun)
    published = spec.recipe == "pretrained"
    used = {part: borrow(part) for part in parts_of(spec)}
    test, *rest = used.values()
    facts: dict[str, Any] = {"classes": len(test.classes), "test_images": len(test)}
    if published or (spec.settings["start"] and not begun):
        facts |= {"weights": MODELS[spec.model].weights, "weights_sha256": fingerprint(model.state_dict().values())}
    clock = Timed()
    if published:
        model = model.to(device()).eval()
        facts["test_accuracy"] = accuracy(model, test.images, test.labels) if DATASETS[spec.dataset].labelled else None
        return facts | {"data": [described(*one) for one in used.items()], **clock.ended()}
    (images,) = rest
    checkpoint = store.checkpoint(spec)
    model = model.to(device())
    with continued(used, checkpoint):
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
        data = [described(*one) for one in used.items()]
    _write(folder / WEIGHTS, model.state_dict())
    pd.DataFrame(history).to_csv(folder / HISTORY, index=False)
    kept = next((row for row in reversed(history) if row.get("best")), history[-1])  # the best epoch so far, or the last
    return facts | {
        "test_accuracy": kept["test_accuracy"],
        "epoch": kept["epoch"],
        "data": data,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        **clock.ended(),
    }


_optimised: dict[Hashable, nn.Module] = {}  # the last few models that engines run, by weights, engine and shape of an image


def _running(trained: Trained, images: Images, engine: str | None) -> nn.Module:
    """Return a model as an engine runs it, which is built once per process; without an engine, the model itself."""
    if engine is None:
        return trained.model
    key = trained.artefact.content, engine, images.images.shape[1:]
    if key not in _optimised:
        if len(_optimised) == ENGINES:
            _optimised.pop(next(iter(_optimised)))
        _optimised[key] = optimise(trained.model, _copied(images.images[:BLOCK]), engine)
    return _optimised[key]


def explain(spec: Explanation) -> Explained:
    """Return the maps of a specification; compute them, with a progress bar, if they are not stored.

    Raises:
        FileNotFoundError: the data set or the published weights are missing; the message says what to do.
        ValueError: the artefact is damaged, the images have changed, or a map has values that are not finite.
    """
    artefact = store.fetch(spec, functools.partial(_explain, spec))
    check_data(spec, artefact)
    tensors = _tensors(artefact, MAPS)
    _refuse(artefact, MAPS, contents.problem_of_maps(tensors, artefact.facts["data"][0], len(classes_of(spec.training.dataset))))
    return Explained(tensors["maps"], tensors["targets"], tensors["indices"], (artefact,))


def _explain(spec: Explanation, folder: Path) -> dict[str, Any]:
    trained, images = train(spec.training), borrow(part_of(spec))
    clock = Timed()
    model = _running(trained, images, spec.engine)
    maps, targets = [], []
    for rows in _blocks(images, f"{spec.method} of {spec.dataset}"):
        block = _copied(images.images[rows])
        wanted = (images.labels[rows] if spec.targets == "label" else predict(trained.model, block)[1]).to(device())
        result = _method(spec, images.indices[rows])(model, block, wanted)
        shape = (len(wanted), *images.images.shape[2:])
        wrong = contents.problem({"maps": result}, {"maps": (shape, torch.float32)})
        if wrong.endswith("NaN or infinity"):
            bad = images.indices[rows][(~torch.isfinite(result.cpu())).flatten(1).any(1)].tolist()
            raise ValueError(
                f"method {spec.method!r} gave NaN or infinity for images {bad[:5]} of {spec.dataset}; nothing was stored"
            )
        _refuse_to_store(f"method {spec.method!r}", wrong)
        maps.append(result.cpu())
        targets.append(wanted.cpu())
    tensors = {"maps": torch.cat(maps), "targets": torch.cat(targets), "indices": images.indices}
    _write(folder / MAPS, tensors)
    facts = {"engine": getattr(model, "engine", "eager"), **clock.ended()}
    return {"images": len(images), "data": [described(part_of(spec), images)], **facts}


def score(spec: Score) -> Scored:
    """Return the curves of a specification; compute them, with a progress bar, if they are not stored.

    Raises:
        FileNotFoundError: the data set or the published weights are missing; the message says what to do.
        ValueError: the artefact is damaged, or the images have changed.
    """
    artefact = store.fetch(spec, functools.partial(_score, spec))
    check_data(spec, artefact)
    tensors = _tensors(artefact, CURVES)
    indices, recorded = tensors.pop("indices", torch.empty(0)), artefact.facts["data"][0]
    wrong = contents.problem_of_curve(tensors, recorded["count"]) or contents.problem_of_indices(indices, recorded)
    _refuse(artefact, CURVES, wrong)
    return Scored(Curve(**tensors), indices, (artefact,))


def _score(spec: Score, folder: Path) -> dict[str, Any]:
    explained = explain(spec.explanation)
    trained, images = train(spec.judge or spec.explanation.training), borrow(part_of(spec.explanation))
    clock = Timed()
    model = _running(trained, images, spec.engine)
    curves: list[Curve] = []
    for rows in _blocks(images, f"{spec.metric} of {spec.explanation.method}"):
        wanted = _copied(images.labels[rows]) if spec.targets == "label" else None
        given = {
            "seed": spec.seed,
            "indices": images.indices[rows],
            "explain": _method(spec.explanation, images.indices[rows]),
            "objects": None if images.masks is None else _copied(images.masks[rows]),
        }
        block, maps = _copied(images.images[rows]), explained.maps[rows].to(device())
        curve = METRICS[spec.metric](model, block, maps, wanted, **spec.options, **METRICS.taken(spec.metric, given))
        wrong = contents.problem_of_curve(vars(curve), len(block)) if isinstance(curve, Curve) else "the result is not a Curve"
        if curves and not wrong and not torch.equal(curve.fractions, curves[0].fractions):
            wrong = "fractions differs between images"
        _refuse_to_store(f"metric {spec.metric!r}", wrong)
        curves.append(curve)
    curve = concatenated(curves)
    tensors = {name: value for name, value in vars(curve).items() if value is not None}
    _write(folder / CURVES, tensors | {"indices": images.indices})
    facts = {"mean_area": float(curve.area.cpu().mean()), "engine": getattr(model, "engine", "eager")}
    return {"images": len(images), "data": [described(part_of(spec.explanation), images)], **facts, **clock.ended()}


def sample(spec: Samples) -> Images:
    """Return the images of a specification, labelled with their classes; make them, with a progress bar, if they are not stored.

    Raises:
        ValueError: the artefact is damaged.
    """
    artefact = store.fetch(spec, functools.partial(_sample, spec))
    check_data(spec, artefact)
    tensors, classes = _tensors(artefact, IMAGES), classes_of(spec.training.dataset)
    wrong = contents.problem_of_samples(tensors, spec.count, artefact.facts["data"][0], len(classes))
    _refuse(artefact, IMAGES, wrong)
    return Images(tensors["images"], tensors["labels"], classes, tensors["indices"])


def _sample(spec: Samples, folder: Path) -> dict[str, Any]:
    model = train(spec.training).model
    (used,) = parts_of(spec)
    test = borrow(used)
    clock = Timed()
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
    return {"images": spec.count, "data": [described(used, test)], **clock.ended()}


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


def _refuse(artefact: Artefact, file: str, wrong: str) -> None:
    """Refuse a stored file if anything is wrong with it."""
    if wrong:
        raise store.damaged(artefact.folder, f"{file}: {wrong}")


def _refuse_to_store(what: str, wrong: str) -> None:
    """Refuse the result of a registered function if anything is wrong with it."""
    if wrong:
        raise ValueError(f"{what}: {wrong}; nothing was stored; see its table for what such a function returns")


def _write(file: Path, tensors: Mapping[str, Tensor]) -> None:
    write_tensors(file, {name: value.cpu().numpy() for name, value in tensors.items()})


def _tensors(artefact: Artefact, file: str) -> dict[str, Tensor]:
    return {name: torch.from_numpy(value) for name, value in artefact.tensors(file).items()}


def _copied(rows: Tensor) -> Tensor:
    """Return borrowed rows on the device, as a copy that a method, a metric or a model may change."""
    return rows.to(device(), copy=True)


def _blocks(images: Images, title: str) -> list[slice]:
    starts = range(0, len(images), BLOCK)
    silent = {"disable": True} if one_bar.get() else {}
    return tqdm([slice(start, start + BLOCK) for start in starts], desc=title, unit="block", **silent)


def _method(spec: Explanation, indices: Tensor) -> Callable[[nn.Module, Tensor, Tensor], Tensor]:
    """Return the method of an explanation with its options, for the images at these positions."""
    given = METHODS.taken(spec.method, {"seed": spec.seed, "indices": indices})
    return functools.partial(METHODS[spec.method], **spec.options, **given)
