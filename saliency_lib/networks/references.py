"""Networks by reference: `timm:<name>`, `hf:<folder>`, `file:<weights>?arch=<name>` and `module:<package.module>:<function>`.

A reference may stand wherever a name in MODELS may. Nothing is downloaded, and no pickle is read.
"""

import functools
import hashlib
import importlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from saliency_lib import paths
from saliency_lib.core.checks import check_model
from saliency_lib.core.locks import Stream
from saliency_lib.core.optional import optional
from saliency_lib.core.options import no_such
from saliency_lib.networks.pixels import PixelModel, Resize, for_channels
from saliency_lib.networks.table import MODELS, Model, Preparation

ANY = "any"  # such weights predict the classes of any data set that has as many


def _sha256(file: Path) -> str:
    """Return the SHA-256 of a file's content, computed again if the file has changed."""
    state = file.stat()
    return _hashed(file, state.st_size, state.st_mtime_ns, state.st_ctime_ns)


@functools.lru_cache(maxsize=64)
def _hashed(file: Path, *state: int) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _sha256_of(state: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of weights with their names."""
    digest = hashlib.sha256()
    for name, value in state.items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _read(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{paths.relative(file)} cannot be read as safetensors ({error}); save the weights with "
            "`save_file(model.state_dict(), file)` of safetensors.torch"
        ) from error


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


def _wanted(reference: str, options: Mapping[str, str], known: Mapping[str, Callable[[str], Any]]) -> dict[str, Any]:
    """Return the options of a reference as values."""
    found = {}
    for name, text in options.items():
        if name not in known:
            raise no_such(f"option of {reference!r}", name, known)
        try:
            found[name] = known[name](text)
        except ValueError:
            raise ValueError(f"{name} of {reference!r} must be {known[name].__doc__}, got {text!r}") from None
    return found


def _numbers(text: str) -> tuple[float, ...]:
    """one or three numbers with commas between them"""  # noqa: D403, D415, part of an error message
    found = tuple(float(part) for part in text.split(","))
    if len(found) not in (1, 3):
        raise ValueError(text)
    return found


def _whole(text: str) -> int:
    """a whole number"""  # noqa: D401, D403, D415, part of an error message
    return int(text)


def _name(text: str) -> str:
    """a name"""  # noqa: D401, D403, D415, part of an error message
    return text


# timm and Hugging Face: normalisation and size come from the network's own configuration.


def _timm(reference: str, name: str, options: Mapping[str, str]) -> Model:
    with optional("timm"):
        import timm
    _wanted(reference, options, {})
    if name.partition(".")[0] not in timm.list_models():
        raise no_such("timm network", name, timm.list_models())
    facts: Any = timm.get_pretrained_cfg(name)
    side = (facts.input_size or (3, 224, 224))[-1]
    preparation = Preparation(
        side, int(side / (facts.crop_pct or 1)), facts.interpolation or "bicubic", tuple(facts.mean), tuple(facts.std)
    )

    def build(classes: int = 10, channels: int = 3, pretrained: bool = False) -> PixelModel:
        file = _cached(facts.hf_hub_id, facts.hf_hub_filename or "model.safetensors") if pretrained else None
        head = 1000 if pretrained else classes
        network = timm.create_model(name, pretrained=False, num_classes=head)
        if file is not None:
            _load(network, _read(file), str(facts.hf_hub_id))
        fixed = bool(facts.fixed_input_size)
        mean, std = for_channels(preparation.mean, preparation.std, channels)
        return PixelModel(network, mean, std, Resize(3, side if fixed else 1, fixed))

    origin = f"timm {facts.hf_hub_id}" if facts.hf_hub_id and facts.num_classes == 1000 else None
    build.__doc__ = f"Build timm's {name} for images of {side} pixels, normalised as its configuration says."
    return MODELS.entry(build, reference, weights=origin, preparation=preparation)


def _cached(repository: str, name: str) -> Path:
    """Return a file of a repository of Hugging Face that is in its local cache.

    Raises:
        FileNotFoundError: it is not there.
    """
    import huggingface_hub

    found = huggingface_hub.try_to_load_from_cache(repository, name)
    if not isinstance(found, str):
        raise FileNotFoundError(
            f"{name} of {repository} is not in the local cache, and nothing is downloaded here; run `hf download {repository} "
            f"{name}` first, or train the network from random weights (recipe standard)"
        )
    return Path(found)


class _Logits(nn.Module):
    """The logits of a network of the library transformers."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, K) of normalised images (N, 3, H, W)."""
        return self.network(pixel_values=images).logits


def _hugging_face(reference: str, name: str, options: Mapping[str, str]) -> Model:
    with optional("hf"):
        import transformers
    _wanted(reference, options, {})
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
    size = facts.get("crop_size") or facts.get("size") or {}
    side = size.get("height") or size.get("shortest_edge") or 224
    whole = (facts.get("size") or {}).get("shortest_edge") or side
    preparation = Preparation(side, whole, "bicubic", tuple(facts["image_mean"]), tuple(facts["image_std"]))

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
    content = "-".join(_sha256(file)[:16] for file in files)
    return MODELS.entry(build, reference, weights=f"Hugging Face {name}", preparation=preparation, predicts=ANY, content=content)


# A checkpoint of one's own, and a function of one's own.


def _file(reference: str, name: str, options: Mapping[str, str]) -> Model:
    known = {"arch": _name, "classes": _whole, "mean": _numbers, "std": _numbers}
    wanted = _wanted(reference, options, known)
    file = paths.inside(paths.DATA, name)
    if file.suffix != ".safetensors":
        raise ValueError(
            f"{reference!r} must name a file of safetensors in {paths.relative(paths.DATA)}/, since other formats can run code "
            "when they are read; convert yours with `save_file(model.state_dict(), file)` of safetensors.torch"
        )
    if not file.is_file():
        raise FileNotFoundError(f"{paths.relative(file)} is missing; put the weights there")
    if "arch" not in wanted:
        raise ValueError(f"{reference!r} does not say of which network the weights are; append ?arch=<name in MODELS>")
    architecture = MODELS[wanted["arch"]]

    def build(classes: int = 10, channels: int = 3, pretrained: bool = False) -> nn.Module:
        model = architecture(wanted.get("classes", classes) if pretrained else classes, channels)
        if pretrained:
            _load(model, _read(file), paths.relative(file))
        if isinstance(model, PixelModel) and {"mean", "std"} & set(wanted):
            mean, std = (wanted.get(kind) or tuple(getattr(model.normalise, kind).flatten().tolist()) for kind in ("mean", "std"))
            model = PixelModel(model.network, mean, std, model.resize)
        return model

    build.__doc__ = f"Build {architecture.name} with the weights in {name}."
    facts: dict[str, Any] = {"weights": f"file {name}", "predicts": ANY, "content": _sha256(file)}
    facts |= {"channels": architecture.channels, "known": wanted.get("classes", 1000)}
    return MODELS.entry(build, reference, **facts)


def _module(reference: str, name: str, options: Mapping[str, str]) -> Model:
    _wanted(reference, options, {})
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
        model = function()
        check_model(model)
        if isinstance(model, torch.jit.ScriptModule):
            raise ValueError(
                f"{reference} returns a script module, whose layers cannot be read; return the module it was made from"
            )
        return model

    build.__doc__ = function.__doc__ or f"Build the network that {name} returns."
    with Stream(0).drawn():
        state = build(pretrained=True).state_dict()
    facts: dict[str, Any] = {"weights": f"module {name}", "predicts": ANY, "channels": (1, 3), "content": _sha256_of(state)}
    return MODELS.entry(build, reference, written=function, **facts)


SCHEMES: dict[str, Callable[[str, str, Mapping[str, str]], Model]] = {
    "timm": _timm,
    "hf": _hugging_face,
    "file": _file,
    "module": _module,
}


@MODELS.fallback
def by_reference(name: str) -> Model | None:
    """Return the network that a reference names; None if the name is no reference.

    Raises:
        ValueError: the reference is wrong. FileNotFoundError: a file is missing. ModuleNotFoundError: a package is missing.
    """
    scheme, colon, rest = name.partition(":")
    if not colon:
        return None
    if scheme not in SCHEMES:
        raise no_such("kind of reference to a model", scheme, SCHEMES)
    place, _, query = rest.partition("?")
    return SCHEMES[scheme](name, place, dict(parse_qsl(query, keep_blank_values=True)))


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
            f"(1, {classes}); choose the data set with its classes"
        )
