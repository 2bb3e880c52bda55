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
from saliency_lib.attribution.table import METHODS
from saliency_lib.core.registry import Registry, no_such
from saliency_lib.data.table import DATASETS
from saliency_lib.evaluation.table import METRICS
from saliency_lib.networks.table import MODELS
from saliency_lib.training.table import OBJECTIVES

REVISION = 2  # raised when the same specification comes to mean other numbers
SCALES = ("embedded", "paper")
UNLESS_SAID = {  # settings that a recipe may leave out; params/training.yaml says what they mean
    "start": None,
    "head": None,
    "trainable": "all",
    "batch_norm": "updated",
    "images": None,
    "selection": None,
    "precision": "32-true",
    "devices": 1,
}
SELECTION = {"by": "loss", "split": "validation", "share": 0.1, "patience": None}


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
        """The specification as plain values, `kind` first, without what is None; `from_dict` reads it back."""
        fields = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        for name, value in fields.items():
            fields[name] = value.to_dict() if isinstance(value, Spec) else dict(value) if isinstance(value, Mapping) else value
        return {"kind": self.kind, **{name: value for name, value in fields.items() if value is not None}}

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
    def upstream(self) -> "list[Spec]":
        """The specifications that this one builds on, its own stage's first."""
        return [value for value in vars(self).values() if isinstance(value, Spec)]

    def implied(self) -> dict:
        """What the digest depends on beyond the fields."""
        return {}


@dataclass(frozen=True, eq=True)
class Training(Spec):
    """A trained model.

    Args:
        dataset, model: names in DATASETS and MODELS.
        recipe: a name in params/training.yaml; None is `standard`, or `pretrained` where the labels are ImageNet's
            classes. `fine_tuning:mnist5k` is the recipe fine_tuning begun with this model trained on mnist5k by its
            default recipe, `fine_tuning:mnist5k/saliency_guided` by that recipe; at the same scale and with the same seed.
        scale: `embedded` (minutes on a laptop) or `paper` (the paper's own numbers).
        seed: fixes the initial weights and the order of the images.
        changes: settings of the recipe to set otherwise, for instance {"epochs": 1}.
        start: the trained model whose weights it begins with, as the recipe's text may name it too; None is what the recipe
            says.
    """

    dataset: str = "mnist5k"
    model: str = "cnn"
    recipe: str | None = None
    scale: str = "embedded"
    seed: int = 0
    changes: Mapping = field(default_factory=dict, hash=False)
    start: "Training | None" = None

    def __post_init__(self) -> None:
        DATASETS[self.dataset], MODELS[self.model]
        if self.recipe is None:
            object.__setattr__(self, "recipe", "pretrained" if DATASETS[self.dataset].imagenet else "standard")
        if isinstance(self.recipe, str) and ":" in self.recipe:
            if self.start is not None:
                raise ValueError(f"recipe {self.recipe!r} names a start, and start is {self.start.slug}; give one of them")
            recipe, _, begun = self.recipe.partition(":")
            dataset, _, its_recipe = begun.partition("/")
            object.__setattr__(self, "start", Training(dataset, self.model, its_recipe or None, self.scale, self.seed))
            object.__setattr__(self, "recipe", recipe)
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
            for name in ("epochs", "batch_size", "devices"):
                _whole(name, settings[name], 1)
            if settings["devices"] > settings["batch_size"]:
                raise ValueError(f"{settings['devices']} devices cannot share a batch of {settings['batch_size']} images")
            if settings["images"] is not None:
                _whole("images", settings["images"], 1)
            for name, known in CHOICES.items():
                if settings[name] not in known:
                    raise ValueError(f"{name} of recipe {self.recipe!r} must be one of {known}, got {settings[name]!r}")
            _check_rate(settings["learning_rate"])
            if settings["selection"] is not None:
                _check_selection(settings["selection"])
            self._check_settings_fit(settings)

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
        begins = recipes()[self.recipe].get("start")
        if self.start is None and begins and self.recipe != "pretrained" and not model.weights:
            raise ValueError(
                f"recipe {self.recipe!r} begins with trained weights, and none are published of model {self.model!r}; name a "
                f"data set on which it is trained first, for instance '{self.recipe}:mnist5k', or use 'efficientnet_lite0'"
            )
        if self.start is not None:
            if not begins:
                starting = [name for name, content in recipes().items() if content.get("start")]
                raise ValueError(
                    f"recipe {self.recipe!r} begins with random weights, not with those of {self.start.slug}; recipes that go "
                    f"on from a trained model: {', '.join(starting)}"
                )
            mine, others = DATASETS[self.dataset].shape[0], DATASETS[self.start.dataset].shape[0]
            if self.start.model != self.model or mine != others:
                raise ValueError(
                    f"{self.slug} cannot begin with {self.start.slug}: the models must be the same ({self.model}, "
                    f"{self.start.model}) and the images have equally many channels ({mine}, {others})"
                )

    def _check_settings_fit(self, settings: Mapping) -> None:
        objective = OBJECTIVES[settings["objective"]]
        if settings["augmentation"] == "crop_flip" and self.dataset.startswith("series_"):
            raise ValueError(
                f"recipe {self.recipe!r} mirrors and shifts its inputs, after which a series of {self.dataset} is another; "
                "use changes={'augmentation': 'none'}"
            )
        if objective.curved and settings["precision"] != "32-true":
            raise ValueError(
                f"{settings['objective']} divides differences of logits by the square of a small noise, of which "
                f"{settings['precision']} leaves nothing; use precision 32-true"
            )
        activation = settings.get("model_options", {}).get("activation", MODELS.defaults(self.model).get("activation"))
        if self.recipe == "softplus" and activation != "softplus":
            raise ValueError(
                f"model {self.model!r} has no Softplus units, which recipe 'softplus' is for; use cnn or a cifar_resnet"
            )
        if self.start is not None and "model_options" in self.changes:
            raise ValueError(f"{self.slug} has the options of the model that it begins with; change them there")

    @property
    def settings(self) -> dict:
        """The recipe's settings at this scale, with `changes` applied and with those that it leaves out."""
        recipe = recipes()[self.recipe]
        at_scale = recipe.get(self.scale, {})
        own = {"model": self.model, "dataset": self.dataset}
        fitting = (case for case in at_scale.get("cases", []) if own | case == case | own)
        settings = UNLESS_SAID | recipe | at_scale | next(fitting, {})
        settings = {key: value for key, value in settings.items() if key not in (*SCALES, *own, "cases", "source")}
        for change in self.changes:
            if change not in settings:
                raise no_such(f"setting of recipe {self.recipe!r}", change, settings)
        options = {"model_options": self.start.settings.get("model_options", {})} if self.start else {}
        return settings | dict(self.changes) | options

    def implied(self) -> dict:
        # a setting that is as if it had not been said is not: a new one then renames nothing that was trained before
        said = {name: value for name, value in self.settings.items() if name not in UNLESS_SAID or value != UNLESS_SAID[name]}
        if said.get("selection"):
            said["selection"] = SELECTION | said["selection"]
        if {"objective", "options"} & set(self.changes):
            said |= _in_full(OBJECTIVES, said["objective"], said["options"])
        return {"settings": said}

    @property
    def slug(self) -> str:
        begun = f"-from-{self.start.dataset}-{self.start.recipe}" if self.start else ""
        return f"{self.dataset}-{self.model}-{self.recipe}{begun}-{self.scale}-seed{self.seed}"


CHOICES = {
    "start": [None, "published"],
    "head": [None, "linear", "appended", "two_layers"],
    "trainable": ["all", "head"],
    "batch_norm": ["updated", "frozen"],
    "precision": ["32-true", "bf16-mixed"],
    "optimiser": ["adamw", "adam", "sgd", "adadelta"],
    "schedule": ["constant", "cosine", "one_cycle", "step", "oscillating"],
    "augmentation": ["none", "crop_flip"],
}


def _check_rate(rate: object) -> None:
    if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 < rate < float("inf"):
        raise ValueError(f"learning_rate must be a number above 0, got {rate!r}")


def _check_selection(selection: object) -> None:
    if not isinstance(selection, Mapping):
        raise ValueError(f"selection must be a mapping like {SELECTION}, got {selection!r}")
    for name in selection:
        if name not in SELECTION:
            raise no_such("field of selection", name, SELECTION)
    full = SELECTION | dict(selection)
    for name, known in (("by", ("loss", "accuracy")), ("split", ("validation", "test"))):
        if full[name] not in known:
            raise ValueError(f"{name} of a selection must be {' or '.join(known)}, got {full[name]!r}")
    share = full["share"]
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share < 1:
        raise ValueError(f"share of a selection must lie between 0 and 1, got {share!r}")
    if full["patience"] is not None:
        _whole("patience", full["patience"], 1)


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


def metric_names(text: str) -> list[str]:
    """The metrics that a text names, separated by spaces.

    Raises:
        ValueError: an unknown metric, or none.
    """
    names = text.split()
    for name in names:
        METRICS.options(name)
    if not names:
        raise ValueError(f"no metric is named; name some of {', '.join(METRICS)}, separated by spaces")
    return names


def mapping(text: str) -> dict:
    """A mapping from one text, as a notebook's parameter states it: `{epochs: 2, learning_rate: 0.01}`.

    Raises:
        ValueError: no YAML mapping.
    """
    try:
        content = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{text!r} is no YAML: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{text!r} is no mapping; write one like {{epochs: 2}}")
    return content


def options_by_method(text: str) -> dict[str, dict]:
    """Options of several methods from one text, as a notebook's parameter states them: `{rise: {masks: 500}, sidu: {sigma: 1}}`.

    Raises:
        ValueError: no YAML mapping of mappings, or an unknown method or option.
    """
    content = mapping(text)
    for method, options in content.items():
        if not isinstance(options, dict):
            raise ValueError(f"options must map methods to their options, like {{rise: {{masks: 500}}}}, got {text!r}")
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
        judge: the model whose scores are followed; None is the explained one.
    """

    explanation: Explanation
    metric: str = "deletion"
    options: Mapping = field(default_factory=dict, hash=False)
    targets: str | None = None
    seed: int = 0
    judge: Training | None = None

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
        if self.judge is not None and "explain" in METRICS.options(self.metric):
            raise ValueError(f"{self.metric} asks the explained model again, so that no other model can be its judge")
        if self.judge is not None and self.judge.dataset != self.explanation.training.dataset:
            raise ValueError(
                f"a judge must know the same classes: it was trained on {self.judge.dataset}, the explained model on "
                f"{self.explanation.training.dataset}"
            )

    def implied(self) -> dict:
        return _in_full(METRICS, self.metric, self.options)

    @property
    def slug(self) -> str:
        judged = f"-judged-by-{self.judge.recipe}" if self.judge else ""
        return f"{self.explanation.slug}-{self.metric}{judged}"


@dataclass(frozen=True, eq=True)
class Samples(Spec):
    """Images that a model finds typical of given classes, made by activation maximisation.

    Args:
        training: the model.
        count: how many; their classes are the labels of the first test images, over again where there are fewer.
        steps, rate, decay: of the ascent, see `activation_maximisation`.
        seed: fixes where each image begins.
    """

    training: Training
    count: int = 1024
    steps: int = 500
    rate: float = 0.1
    decay: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        _whole("count", self.count, 1)
        _whole("steps", self.steps)
        _whole("seed", self.seed)
        for name in ("rate", "decay"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
                raise ValueError(f"{name} must be a finite number from 0, got {value!r}")

    @property
    def slug(self) -> str:
        return f"{self.training.slug}-{self.count}by{self.steps}"


KINDS = {"training": Training, "explanation": Explanation, "score": Score, "samples": Samples}


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
    nested = {key: from_dict(value) for key, value in content.items() if isinstance(value, Mapping) and "kind" in value}
    return KINDS[kind](**content | nested)
