"""The command `saliency`: explain pictures, measure maps, compare networks and methods, without a notebook."""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

MODEL_HELP = "a name in MODELS, or a reference: timm:NAME, hf:FOLDER, file:WEIGHTS?arch=NAME, module:PACKAGE.MODULE:FUNCTION"
USUAL = ("gradient", "integrated_gradients", "gradcam")
KINDS = {  # the commands that take pictures
    "explain": "draw the maps of pictures: PNG files and a page",
    "measure": "explain, and measure the maps: also a CSV file with intervals and verdicts",
    "compare": "explain and measure the same pictures on several networks: a page with their maps side by side, one CSV file",
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("saliency", description=__doc__)
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="COMMAND")
    kinds.add_parser("methods", help="list the methods, their families and what they cost")
    kinds.add_parser("metrics", help="list the metrics")
    doctor = kinds.add_parser("doctor", help="run every method once and say which work on a network, and why others do not")
    doctor.add_argument("model", help=MODEL_HELP)
    on_pictures = {kind: kinds.add_parser(kind, help=about, description=about) for kind, about in KINDS.items()}
    for kind, one in on_pictures.items():
        if kind == "compare":
            models = f"two or more networks, after the pictures; each is {MODEL_HELP}"
            one.add_argument("--models", nargs="+", required=True, metavar="MODEL", help=models)
        else:
            one.add_argument("model", help=MODEL_HELP)
        many = "*" if kind == "compare" else "+"  # of `compare`, --models takes pictures that come after it
        one.add_argument("pictures", nargs=many, help="picture files, or folders of them")
        one.add_argument("-m", "--methods", nargs="+", default=list(USUAL), metavar="NAME", help=f"default: {' '.join(USUAL)}")
        if kind != "explain":
            usual = ["deletion", "insertion"]
            one.add_argument("--metrics", nargs="+", default=usual, metavar="NAME", help=f"default: {' '.join(usual)}")
        one.add_argument(
            "-o", "--out", default="saliency", metavar="FOLDER", help="a new folder for the results; default: saliency"
        )
        one.add_argument("--seed", type=int, default=0, help="fixes the random numbers; default: 0")
    for one in (doctor, *on_pictures.values()):
        one.add_argument("--classes", metavar="FILE", help="the names of the classes, one per line; else ImageNet's, or numbers")
        one.add_argument("--side", type=int, help="side of the pictures in pixels; else the network's own, or 224")
    return parser


def main(words: Sequence[str] | None = None) -> int:
    """Run a command and return the exit status: 0, or 2 for wrong input, whose message is printed."""
    chosen = _parser().parse_args(words)
    try:
        status = _run(chosen)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # the reader, for instance `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, TypeError, FileNotFoundError, FileExistsError, ModuleNotFoundError, ImportError) as error:
        print(f"saliency {chosen.kind}: {error}", file=sys.stderr)
        return 2


def _run(chosen: argparse.Namespace) -> int:
    import saliency_lib as sl  # here, so that --help does not wait for torch

    if chosen.kind in ("methods", "metrics"):
        print(repr(sl.METHODS if chosen.kind == "methods" else sl.METRICS))
        return 0
    if chosen.kind == "doctor":
        return _doctor(chosen)
    return _pictures(chosen)


# What a command starts from.


@dataclass(frozen=True)
class _Network:
    """A network with its weights, how pictures are prepared for it, and the names of its classes if they are known."""

    name: str
    model: Any
    preparation: Any
    classes: Sequence[str]

    def word(self, label: int) -> str:
        return self.classes[label] if label < len(self.classes) else f"class {label}"


def _network(name: str, classes: str | None, side: int | None) -> _Network:
    import saliency_lib as sl
    from saliency_lib.artefacts.inputs import device
    from saliency_lib.data.classes import imagenet_classes, read_classes
    from saliency_lib.networks.table import Preparation

    entry = sl.MODELS[name]
    if not entry.weights or entry.texts:
        raise ValueError(f"{name} has no published weights for pictures; name your own by file:WEIGHTS.safetensors?arch={name}")
    names = tuple(read_classes(Path(classes)).values()) if classes else ()
    model = entry(len(names) or entry.known, 3, True).to(device()).eval()
    preparation = entry.preparation or Preparation()
    if side:
        preparation = Preparation(side, round(side * preparation.resize / preparation.side), preparation.interpolation)
    if not names and entry.predicts in ("imagenet", "any") and entry.known == 1000:
        names = imagenet_classes()
    return _Network(name, model, preparation, names)


def _files(given: Sequence[str]) -> list[Path]:
    from saliency_lib.data.folders import SUFFIXES
    from saliency_lib.data.masks import MASKS

    found: list[Path] = []
    for name in map(Path, given):
        if not name.exists():
            raise FileNotFoundError(f"there is no picture or folder {name}")
        inside = sorted(file for file in name.rglob("*") if file.suffix.lower() in SUFFIXES)
        found += [file for file in inside if not file.is_relative_to(name / MASKS)] if name.is_dir() else [name]
    if not found:
        raise FileNotFoundError(f"there are no pictures in {' '.join(given)}; they end with {', '.join(sorted(SUFFIXES))}")
    return found


def _read(files: Sequence[Path], preparation: Any) -> Any:
    """Return pictures as pixels (B, 3, S, S), prepared as for the network's own evaluation."""
    from saliency_lib.data.splits import crop, file_split

    own = {"interpolation": preparation.interpolation, "stretched": preparation.stretched}
    resize = partial(crop, border=preparation.resize / preparation.side, **own)
    return file_split(files, [0] * len(files), (), 3, resize).read(range(len(files)), preparation.side)["images"]


# The commands.


def _doctor(chosen: argparse.Namespace) -> int:
    import torch

    from saliency_lib.attribution.trials import CONSTANT, REFUSED, tried

    network = _network(chosen.model, chosen.classes, chosen.side)
    model, preparation = network.model, network.preparation
    image = torch.rand(1, 3, preparation.side, preparation.side, generator=torch.Generator().manual_seed(0))
    image = image.to(next(model.parameters(), image))
    print(f"{chosen.model}: {sum(p.numel() for p in model.parameters()):,} parameters, pictures of {preparation.side} pixels\n")
    outcomes = []
    for trial in tried(model, image):
        outcomes.append(trial.outcome)
        words = f"works       {trial.seconds:6.2f} s{', but the map is constant' if trial.outcome == CONSTANT else ''}"
        print(f"{trial.method:34}{f'refused     {trial.reason}' if trial.outcome == REFUSED else words}", flush=True)
    working = len(outcomes) - outcomes.count(REFUSED)
    print(f"\n{working} of {len(outcomes)} methods work; the times are of few masks, samples and steps")
    return 0


@dataclass(frozen=True)
class _Found:
    """What a network found in some pictures: their pixels, what it says of each, and its evaluation."""

    network: _Network
    images: Any
    words: Sequence[str]
    evaluation: Any


def _found(network: _Network, files: Sequence[Path], chosen: argparse.Namespace) -> _Found:
    import saliency_lib as sl
    from saliency_lib.core.batching import device_of, logits_of
    from saliency_lib.core.scores import probabilities

    images = _read(files, network.preparation)
    logits = logits_of(network.model, images.to(device_of(network.model))).cpu()
    chances, targets = probabilities(logits).max(1)
    words = [f"{network.word(k)}, {share:.0%}" for k, share in zip(targets.tolist(), chances.tolist(), strict=True)]
    if logits.shape[1] == 1:
        words = [f"{number:.6g}" for number in chances.tolist()]
    metrics = getattr(chosen, "metrics", ())
    try:
        evaluation = sl.evaluate(network.model, images, chosen.methods, metrics, targets=targets, seed=chosen.seed)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{network.name}: {error}") from error
    return _Found(network, images, words, evaluation)


def _pictures(chosen: argparse.Namespace) -> int:
    import pandas as pd

    import saliency_lib as sl
    from saliency_lib.page import Cell, write_page

    out, comparing = Path(chosen.out), chosen.kind == "compare"
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{out} exists and is not empty; name another folder by --out")
    names = chosen.models if comparing else [chosen.model]
    if comparing and (len(names) < 2 or len(set(names)) < len(names)):
        raise ValueError(f"--models must name two or more different networks, got {' '.join(names)}")
    for known, wanted in ((sl.METHODS, chosen.methods), (sl.METRICS, getattr(chosen, "metrics", ()))):
        for name in wanted:
            known[name]
    if not chosen.pictures:
        raise ValueError("no pictures are named; name them before --models")
    files = _files(chosen.pictures)
    networks = [_network(name, chosen.classes, chosen.side) for name in names]
    found = [_found(network, files, chosen) for network in networks]
    methods = chosen.methods if chosen.kind == "explain" else list(found[0].evaluation.maps)

    def cell(about: str, one: _Found, method: str, row: int) -> Cell:
        name = "-".join([files[row].stem, method, *([one.network.name] if comparing else [])])
        return Cell(name, about, one.images[row], one.evaluation.maps[method][row])

    if comparing:
        sections = {
            method: [
                (file.name, [cell(f"{one.network.name}: {one.words[row]}", one, method, row) for one in found])
                for row, file in enumerate(files)
            ]
            for method in methods
        }
        tensors = {f"{one.network.name} {method}": one.evaluation.maps[method] for one in found for method in methods}
    else:
        (one,) = found
        rows = [
            (f"{file.name}: {word}", [cell(method, one, method, row) for method in methods])
            for row, (file, word) in enumerate(zip(files, one.words, strict=True))
        ]
        sections, tensors = {"": rows}, {method: one.evaluation.maps[method] for method in methods}
    tables = {one.network.name: one.evaluation.table for one in found}
    compared = pd.concat(tables, names=["model"]).reset_index("model") if comparing else tables[names[0]]
    table = None if chosen.kind == "explain" else compared
    write_page(out, sections, tensors, table)
    on = f" on {len(found)} networks" if comparing else ""
    print(f"The maps of {len(files)} pictures by {len(methods)} methods{on} are in {out}/; open {out / 'index.html'}")
    if table is not None:
        print(table.to_string(index=False, float_format="%.3f"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
