"""Specifications: what an artefact is, said in full. They nest, so the chain of their digests is its provenance."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import yaml

from saliency_lib import paths
from saliency_lib.registry import DATASETS, METHODS, METRICS, MODELS, OBJECTIVES, Registry, no_such

REVISION = 2  # raised when the same specification comes to mean other numbers
SCALES = ("embedded", "paper")


@functools.cache
def recipes() -> dict[str, dict]:
    """The training recipes of params/training.yaml, by name."""
    return yaml.safe_load((paths.PARAMS / "training.yaml").read_text())


def _whole(name: str, value: object, low: int = 0) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise ValueError(f"{name} must be a whole number from {low}, got {value!r}")


def _plain(name: str, options: Mapping) -> Mapping:
    try:
        return MappingProxyType(json.loads(json.dumps(dict(options), sort_keys=True, allow_nan=False)))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be plain values (numbers, texts, lists), got {options!r}: {error}") from None


def _check_options(table: Registry, name: str, options: Mapping) -> None:
    table.check_options(name, options)
    for option in {"seed", "indices", "explain", "objects"} & set(options):
        raise ValueError(f"{option} is no option here: a specification has a field seed, and its images and method fix the rest")


def _in_full(table: Registry, name: str, options: Mapping) -> dict:
    """The options with their defaults as text, and what a preset among them comes to."""
    full = {key: repr(value) for key, value in table.defaults(name).items()} | dict(options)
    presets = getattr(table[name], "presets", {})
    preset = options.get("preset", table.defaults(name).get("preset"))
    return {"options in full": full, "preset in full": presets.get(preset)}


class Spec:
    """What all specifications share: a dictionary, a digest, a readable name, and the way back."""

    def to_dict(self) -> dict:
        """The specification as plain values, `kind` first; `from_dict` reads it back."""
        fields = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        for name, value in fields.items():
            fields[name] = value.to_dict() if isinstance(value, Spec) else dict(value) if isinstance(value, Mapping) else value
        return {"kind": self.kind, **fields}

    @property
    def kind(self) -> str:
        """`training`, `explanation` or `score`; the folder in outputs/."""
        return type(self).__name__.lower()

    @property
    def digest(self) -> str:
        """SHA-256 over everything that the artefact's numbers depend on, upstream specifications included."""
        content = {"revision": REVISION, **self.to_dict(), **self.implied()}
        content |= {key: value.digest for key, value in vars(self).items() if isinstance(value, Spec)}
        return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    @property
    def name(self) -> str:
        """The artefact's folder: readable words and the first 8 digits of the digest."""
        return f"{self.slug}-{self.digest[:8]}"

    @property
    def upstream(self) -> "Spec | None":
        """The specification that this one builds on."""
        return next((value for value in vars(self).values() if isinstance(value, Spec)), None)

    def implied(self) -> dict:
        """What the digest depends on beyond the fields."""
        return {}


@dataclass(frozen=True, eq=True)
class Training(Spec):
    """A trained model.

    Args:
        dataset, model: names in DATASETS and MODELS.
        recipe: a name in params/training.yaml; None is `standard`, or `pretrained` where the labels are ImageNet's
            classes.
        scale: `embedded` (minutes on a laptop) or `paper` (the paper's own numbers).
        seed: fixes the initial weights and the order of the images.
        changes: settings of the recipe to set otherwise, for instance {"epochs": 1}.
    """

    dataset: str = "mnist5k"
    model: str = "cnn"
    recipe: str | None = None
    scale: str = "embedded"
    seed: int = 0
    changes: Mapping = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        DATASETS[self.dataset], MODELS[self.model]
        if self.recipe is None:
            object.__setattr__(self, "recipe", "pretrained" if DATASETS[self.dataset].imagenet else "standard")
        if self.recipe not in recipes():
            raise no_such("recipe", self.recipe, recipes())
        if self.scale not in SCALES:
            raise no_such("scale", self.scale, SCALES)
        _whole("seed", self.seed)
        object.__setattr__(self, "changes", _plain("changes", self.changes))
        self._check_recipe_fits()
        settings = self.settings
        if settings.get("objective"):
            OBJECTIVES.check_options(settings["objective"], settings.get("options", {}))
            _whole("epochs", settings["epochs"], 1)
            _whole("batch_size", settings["batch_size"], 1)

    def _check_recipe_fits(self) -> None:
        dataset, model = DATASETS[self.dataset], MODELS[self.model]
        if self.recipe != "pretrained" and "train" not in dataset.splits:
            raise ValueError(
                f"dataset {self.dataset!r} has no training images (splits: {', '.join(dataset.splits)}); "
                "use recipe 'pretrained' with a model that has published weights, for instance 'efficientnet_lite0'"
            )
        if self.recipe == "pretrained" and not model.weights:
            raise ValueError(
                f"model {self.model!r} has no published weights; use 'efficientnet_lite0' (its weights are installed) or one of "
                "torchvision's networks, or a data set with training images and recipe 'standard'"
            )
        if self.recipe == "pretrained" and not dataset.imagenet:
            raise ValueError(
                f"published weights know ImageNet's 1,000 classes, which are not those of dataset {self.dataset!r}; "
                "use recipe 'standard', or a data set with ImageNet's classes, for instance 'photos'"
            )

    @property
    def settings(self) -> dict:
        """The recipe's settings at this scale, with `changes` applied."""
        recipe = recipes()[self.recipe]
        at_scale = recipe.get(self.scale, {})
        own = {"model": self.model, "dataset": self.dataset}
        fitting = (case for case in at_scale.get("cases", []) if own | case == case | own)
        settings = recipe | at_scale | next(fitting, {})
        settings = {key: value for key, value in settings.items() if key not in (*SCALES, *own, "cases", "source")}
        for change in self.changes:
            if change not in settings:
                raise no_such(f"setting of recipe {self.recipe!r}", change, settings)
        return settings | dict(self.changes)

    def implied(self) -> dict:
        return {"settings": self.settings}

    @property
    def slug(self) -> str:
        return f"{self.dataset}-{self.model}-{self.recipe}-{self.scale}-seed{self.seed}"


@dataclass(frozen=True, eq=True)
class Explanation(Spec):
    """The maps of one method for some images.

    Args:
        training: the model.
        method: a name in METHODS; options: its keyword options.
        dataset: the images' data set; None is the training's.
        split: `train` or `test`.
        start, stop, stride: which images of the split; stop None runs to its end. Shards of one run add up to it.
        targets: `predicted` class or `label`.
        seed: fixes the method's random numbers, image by image.
    """

    training: Training
    method: str = "gradient"
    options: Mapping = field(default_factory=dict, hash=False)
    dataset: str | None = None
    split: str = "test"
    start: int = 0
    stop: int | None = None
    stride: int = 1
    targets: str = "predicted"
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", _plain("options", self.options))
        _check_options(METHODS, self.method, self.options)
        object.__setattr__(self, "dataset", self.dataset or self.training.dataset)
        splits = DATASETS[self.dataset].splits
        if self.split not in splits:
            raise no_such(f"split of dataset {self.dataset!r}", self.split, splits)
        if self.targets not in TARGETS:
            raise no_such("targets", self.targets, TARGETS)
        _whole("start", self.start)
        _whole("stride", self.stride, 1)
        _whole("seed", self.seed)
        if self.stop is not None:
            _whole("stop", self.stop, self.start + 1)

    def implied(self) -> dict:
        return _in_full(METHODS, self.method, self.options)

    @property
    def slug(self) -> str:
        stride = f"-by{self.stride}" if self.stride > 1 else ""
        images = f"{self.split}{self.start}-{'end' if self.stop is None else self.stop}{stride}"
        data = "" if self.dataset == self.training.dataset else f"{self.dataset}-"
        return f"{self.training.slug}-{data}{images}-{self.method}"

    def shards(self, count: int) -> list["Explanation"]:
        """The same run cut into at most `count` runs, image by image in turn; `saliency_lib.join` puts their results together."""
        _whole("count", count, 1)
        if self.stop is not None:
            count = min(count, len(range(self.start, self.stop, self.stride)))
        return [dataclasses.replace(self, start=self.start + k * self.stride, stride=self.stride * count) for k in range(count)]


TARGETS = ("predicted", "label")


def method_names(text: str) -> list[str]:
    """The methods that a text names, separated by spaces; `all` is every one, family by family, the controls last.

    Raises:
        ValueError: an unknown method, or none.
    """
    names = list(METHODS) if text.strip() == "all" else text.split()
    for name in names:
        METHODS.options(name)
    if not names:
        raise ValueError("no method is named; name some, separated by spaces, or write all")
    return names


def options_by_method(text: str) -> dict[str, dict]:
    """Options of several methods from one text, as a notebook's parameter states them: `{rise: {masks: 500}, sidu: {sigma: 1}}`.

    Raises:
        ValueError: no YAML mapping of mappings, or an unknown method or option.
    """
    try:
        content = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"options {text!r} are no YAML: {error}") from None
    if not isinstance(content, dict) or not all(isinstance(options, dict) for options in content.values()):
        raise ValueError(f"options must map methods to their options, like {{rise: {{masks: 500}}}}, got {text!r}")
    for method, options in content.items():
        _check_options(METHODS, method, options)
    return content


@dataclass(frozen=True, eq=True)
class Score(Spec):
    """One metric's curves for the maps of one explanation.

    Args:
        explanation: the maps.
        metric: a name in METRICS; options: its keyword options.
        targets: the class whose score is followed, `predicted` or `label`; None is the one that is explained.
        seed: fixes the metric's random numbers, image by image.
    """

    explanation: Explanation
    metric: str = "deletion"
    options: Mapping = field(default_factory=dict, hash=False)
    targets: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "targets", self.targets or self.explanation.targets)
        object.__setattr__(self, "options", _plain("options", self.options))
        _check_options(METRICS, self.metric, self.options)
        if "explain" in METRICS.options(self.metric) and self.targets != self.explanation.targets:
            raise ValueError(
                f"{self.metric} explains anew and compares, so its targets must be the explanation's, which are "
                f"{self.explanation.targets!r}; got {self.targets!r}"
            )
        if self.targets not in TARGETS:
            raise no_such("targets", self.targets, TARGETS)
        _whole("seed", self.seed)

    def implied(self) -> dict:
        return _in_full(METRICS, self.metric, self.options)

    @property
    def slug(self) -> str:
        return f"{self.explanation.slug}-{self.metric}"


KINDS = {"training": Training, "explanation": Explanation, "score": Score}


def from_dict(content: Mapping) -> Spec:
    """The specification that `to_dict` wrote.

    Raises:
        ValueError: unknown kind or field.
    """
    content = dict(content)
    kind = content.pop("kind", None)
    if kind not in KINDS:
        raise no_such("kind of specification", kind, KINDS)
    known = {item.name for item in dataclasses.fields(KINDS[kind])}
    for key in content:
        if key not in known:
            raise no_such(f"field of {kind}", key, known)
    nested = {key: from_dict(content[key]) for key in ("training", "explanation") if key in content}
    return KINDS[kind](**content | nested)
