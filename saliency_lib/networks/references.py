"""Networks by reference: `timm:<name>`, `hf:<folder>`, `file:<weights>?arch=<name>` and `module:<package.module>:<function>`.

A reference may stand wherever a name in MODELS may. Nothing is downloaded, and no pickle is read.
"""

import functools
import importlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from saliency_lib import paths
from saliency_lib.core.checks import check_model
from saliency_lib.core.locks import Stream
from saliency_lib.core.optional import optional
from saliency_lib.core.options import no_such
from saliency_lib.core.references import Parsers, file_sha256, place_and_options, scheme_of, values
from saliency_lib.networks.pixels import PixelModel, Resize, for_channels
from saliency_lib.networks.published import read_safetensors, values_sha256
from saliency_lib.networks.table import MODELS, Model, Preparation

SAVE = "save the weights with `save_file(model.state_dict(), file)` of safetensors.torch"
AGAIN = "delete it and get it again"
ANY = "any"  # such weights predict the classes of any data set that has as many


def _load(network: nn.Module, state: Mapping[str, Tensor], origin: str) -> None:
    """Load weights, whose names may be those of the whole model or of the network behind its normalisation.

    Raises:
        ValueError: they do not fit.
    """
    inner = network.network if isinstance(network, PixelModel) else network
    target = inner if not any(name.startswith("network.") for name in state) else network
    own = {name: tuple(value.shape) for name, value in target.state_dict().items()}
    given = {name: tuple(value.shape) for name, value in state.items()}
    wrong = [f"{name} {given[name]} in place of {own[name]}" for name in own if name in given and own[name] != given[name]]
    missing, extra = sorted(set(own) - set(given)), sorted(set(given) - set(own))
    normalisation = {"normalise.mean", "normalise.std"}
    if wrong or extra or set(missing) - normalisation:
        parts = [f"other shapes: {', '.join(wrong[:3])}"] * bool(wrong) + [f"missing: {', '.join(missing[:3])}"] * bool(missing)
        parts += [f"unknown: {', '.join(extra[:3])}"] * bool(extra)
        raise ValueError(
            f"the weights of {origin} are not those of this network ({'; '.join(parts)}); name the architecture that they were "
            "trained with, and a data set with as many classes"
        )
    target.load_state_dict(state, strict=False)


def _numbers(text: str) -> tuple[float, ...]:
    found = tuple(map(float, text.split(",")))
    if len(found) not in (1, 3):
        raise ValueError
    return found


PARSERS: Parsers = {  # of the options of a file
    "arch": (str, "a name"),
    "classes": (int, "a whole number"),
    "mean": (_numbers, "one or three numbers with commas between them"),
    "std": (_numbers, "one or three numbers with commas between them"),
}


# timm and Hugging Face: normalisation and size come from the network's own configuration.


def _timm(reference: str, name: str) -> Model:
    with optional("timm"):
        import timm
    if name.partition(".")[0] not in timm.list_models():
        raise no_such("timm network", name, timm.list_models())
    facts: Any = timm.get_pretrained_cfg(name)
    side = (facts.input_size or (3, 224, 224))[-1]
    whole, stretched = int(side / (facts.crop_pct or 1)), facts.crop_mode == "squash"
    preparation = Preparation(
        side, whole, facts.interpolation or "bicubic", tuple(facts.mean), tuple(facts.std), stretched=stretched
    )
    file = facts.hf_hub_filename or "model.safetensors"

    def build(classes: int = 10, channels: int = 3, pretrained: bool = False) -> PixelModel:
        network = timm.create_model(name, pretrained=False, num_classes=1000 if pretrained else classes)
        if pretrained:
            _load(network, read_safetensors(_cached(facts.hf_hub_id, file), AGAIN), str(facts.hf_hub_id))
        fixed = bool(facts.fixed_input_size)
        mean, std = for_channels(preparation.mean, preparation.std, channels)
        return PixelModel(network, mean, std, Resize(3, side if fixed else 1, fixed))

    origin = f"timm {facts.hf_hub_id}" if facts.hf_hub_id and facts.num_classes == 1000 else None
    build.__doc__ = f"Build timm's {name} for images of {side} pixels, normalised as its configuration says."
    there = _in_cache(facts.hf_hub_id, file) if origin else None
    return MODELS.entry(build, reference, weights=origin, preparation=preparation, content=file_sha256(there) if there else "")


def _in_cache(repository: str, name: str) -> Path | None:
    with optional("hf"):
        import huggingface_hub

    found = huggingface_hub.try_to_load_from_cache(repository, name)
    return Path(found) if isinstance(found, str) else None


def _cached(repository: str, name: str) -> Path:
    """Return a file of a repository of Hugging Face that is in its local cache.

    Raises:
        FileNotFoundError: it is not there.
    """
    found = _in_cache(repository, name)
    if found is None:
        raise FileNotFoundError(
            f"{name} of {repository} is not in the local cache, and nothing is downloaded here; run `hf download {repository} "
            f"{name}` first, or train the network from random weights (recipe standard)"
        )
    return found


class _Logits(nn.Module):
    """The logits of a network of the library transformers."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, K) of normalised images (N, 3, H, W)."""
        return self.network(pixel_values=images).logits


def _hugging_face(reference: str, name: str) -> Model:
    with optional("hf"):
        import transformers
    own = paths.inside(paths.DATA, name)
    folder = own if own.is_dir() else _cached(name, "config.json").parent
    files = [folder / part for part in ("config.json", "preprocessor_config.json", "model.safetensors")]
    if absent := [file.name for file in files if not file.is_file()]:
        raise FileNotFoundError(
            f"{reference}: {', '.join(absent)} is missing in {paths.relative(folder)}; save the network and its image processor "
            "there with `save_pretrained`"
        )
    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    facts = transformers.AutoImageProcessor.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False, use_fast=False
    ).to_dict()
    whole, cropped = facts.get("size") or {}, facts.get("crop_size") if facts.get("do_center_crop") else None
    longest = whole.get("shortest_edge") or whole.get("height")
    side, way = (cropped or whole).get("height") or longest, {2: "bilinear", 3: "bicubic"}.get(facts.get("resample"))
    if not (longest and side and way) or whole.get("width", longest) != longest:
        raise ValueError(
            f"{reference}: the image processor has size {whole}, crop_size {cropped} and resample {facts.get('resample')}; it "
            "must resize pictures to a square or by the shorter side, bilinearly (2) or bicubically (3)"
        )
    preparation = Preparation(side, longest, way, tuple(facts["image_mean"]), tuple(facts["image_std"]), "height" in whole)

    def build(classes: int = 10, channels: int = 3, pretrained: bool = False) -> PixelModel:
        kind = transformers.AutoModelForImageClassification
        if pretrained:
            network = kind.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, use_safetensors=True, attn_implementation="eager"
            )
        else:
            changed = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, num_labels=classes)
            network = kind.from_config(changed, attn_implementation="eager")
        return PixelModel(_Logits(network), *for_channels(preparation.mean, preparation.std, channels), Resize(3, side, True))

    build.__doc__ = f"Build the network of {name}, a {config.model_type}, normalised as its image processor says."
    content = "-".join(file_sha256(file)[:16] for file in files)
    return MODELS.entry(build, reference, weights=f"Hugging Face {name}", preparation=preparation, predicts=ANY, content=content)


# A checkpoint of one's own, and a function of one's own.


def _file(reference: str, name: str, options: Mapping[str, str]) -> Model:
    wanted = values(reference, options, PARSERS)
    file = paths.inside(paths.DATA, name)
    if file.suffix != ".safetensors":
        raise ValueError(
            f"{reference!r} must name a file of safetensors in {paths.relative(paths.DATA)}/, since other formats can run code "
            f"when they are read; {SAVE}"
        )
    if not file.is_file():
        raise FileNotFoundError(f"{paths.relative(file)} is missing; put the weights there")
    if "arch" not in wanted:
        raise ValueError(f"{reference!r} does not say of which network the weights are; append ?arch=<name in MODELS>")
    architecture = MODELS[wanted["arch"]]

    def build(classes: int = 10, channels: int = 3, pretrained: bool = False) -> nn.Module:
        model = architecture(wanted.get("classes", classes) if pretrained else classes, channels)
        if pretrained:
            _load(model, read_safetensors(file, SAVE), paths.relative(file))
        if isinstance(model, PixelModel) and {"mean", "std"} & set(wanted):
            mean, std = (wanted.get(kind) or tuple(getattr(model.normalise, kind).flatten().tolist()) for kind in ("mean", "std"))
            model = PixelModel(model.network, mean, std, model.resize)
        return model

    build.__doc__ = f"Build {architecture.name} with the weights in {name}."
    facts: dict[str, Any] = {"weights": f"file {name}", "predicts": ANY, "content": file_sha256(file)}
    facts |= {"channels": architecture.channels, "known": wanted.get("classes", 1000)}
    return MODELS.entry(build, reference, **facts)


def _module(reference: str, name: str) -> Model:
    package, _, called = name.partition(":")
    if not package or not called.isidentifier():
        raise ValueError(f"{reference!r} must be module:<package.module>:<function>")
    for folder in (str(paths.ROOT), str(Path.cwd())):
        if folder not in sys.path:
            sys.path.append(folder)
    try:
        module = importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{reference!r} needs the module {error.name!r}, which is neither in {paths.ROOT} nor in {Path.cwd()} nor installed"
        ) from error
    function = getattr(module, called, None)
    if not callable(function):
        public = [one for one in vars(module) if not one.startswith("_") and callable(getattr(module, one))]
        raise no_such(f"function of {package}", called, public)

    def build(classes: int = 10, channels: int = 3, pretrained: bool = False) -> nn.Module:
        if not pretrained:
            raise ValueError(
                f"{reference} is used with its own weights; choose the recipe pretrained, or one that starts from them"
            )
        return _returned(function, reference)

    build.__doc__ = function.__doc__ or f"Build the network that {name} returns."
    facts: dict[str, Any] = {"weights": f"module {name}", "predicts": ANY, "channels": (1, 3)}
    return MODELS.entry(build, reference, written=function, content=_returned_sha256(function, reference), **facts)


def _returned(function: Callable[[], Any], reference: str) -> nn.Module:
    model = function()
    check_model(model)
    if isinstance(model, torch.jit.ScriptModule):
        raise ValueError(f"{reference} returns a script module, whose layers cannot be read; return the module it was made from")
    return model


@functools.lru_cache(maxsize=64)
def _returned_sha256(function: Callable[[], Any], reference: str) -> str:
    """Return the SHA-256 of the weights of what a function returns; once per process, as its module is imported once."""
    with Stream(0).drawn():
        return values_sha256(_returned(function, reference).state_dict())


SCHEMES: dict[str, Callable[..., Model]] = {"timm": _timm, "hf": _hugging_face, "file": _file, "module": _module}


@MODELS.fallback
def by_reference(name: str) -> Model | None:
    """Return the network that a reference names; None if the name is no reference.

    Raises:
        ValueError: the reference is wrong. FileNotFoundError: a file is missing. ModuleNotFoundError: a package is missing.
    """
    found = scheme_of(name, SCHEMES, "model")
    if not found:
        return None
    scheme, rest = found
    return _file(name, *place_and_options(rest)) if scheme == "file" else SCHEMES[scheme](name, rest)


def check_classes(model: nn.Module, shape: tuple[int, ...], classes: int, name: str) -> None:
    """Check that a network gives one logit per class of a data set.

    Args:
        shape: (C, H, W) of an image.

    Raises:
        TypeError: it returns no tensor. ValueError: it has another number of classes.
    """
    device = next((value.device for value in model.parameters()), torch.device("cpu"))
    was_training = model.training
    try:
        with torch.no_grad():
            logits = model.eval()(torch.full((1, *shape), 0.5, device=device))
    except (RuntimeError, TypeError, ValueError) as error:
        first = next(iter(str(error).strip().splitlines()), "")
        raise ValueError(
            f"{name} does not take an image {(1, *shape)} of float32 ({first}); give a network of float32 pixels of "
            "this size, and wrap yours if it needs others"
        ) from error
    model.train(was_training)
    if not isinstance(logits, Tensor):
        raise TypeError(
            f"{name} returns {type(logits).__name__}, not a tensor of logits (N, K); wrap it in a module that returns the logits"
        )
    if logits.ndim != 2 or logits.shape[1] != classes:
        raise ValueError(
            f"{name} returns {tuple(logits.shape)} for one image, and the data set has {classes} classes, so it must be "
            f"(1, {classes}); choose the data set with its classes, or list them in classes.txt beside pictures of yours"
        )
