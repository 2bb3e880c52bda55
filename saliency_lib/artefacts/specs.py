"""Specifications: complete descriptions of artefacts. They nest, so the chain of their digests is the provenance."""

import dataclasses
from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, Any, Literal

from pydantic import AfterValidator

from saliency_lib.artefacts.specification import (
    Number,
    Options,
    Spec,
    check_options,
    in_full,
    own_code,
    registered,
    specification,
)
from saliency_lib.artefacts.trainings import Training, slug_of
from saliency_lib.attribution.table import METHODS, Method
from saliency_lib.core.options import no_such
from saliency_lib.data.table import DATASETS
from saliency_lib.evaluation.table import METRICS
from saliency_lib.networks.engines import EAGER, check_engine
from saliency_lib.networks.table import MODELS
from saliency_lib.training.settings import Count, NotNegative

Targets = Literal["predicted", "label"]

FOLDED = ("gradient", "path", "activation", "mask")  # families whose maps are the same on a folded network


def _engine(name: str) -> str | None:
    """Return the name of an engine, or None for the network as PyTorch runs it, which has no part in a digest."""
    return None if check_engine(name) == EAGER else name


Engine = Annotated[str, AfterValidator(_engine)] | None


def _fitting(training: Training, asked: str | None) -> str | None:
    """Return the engine that may run a model; PyTorch itself runs those of texts, whose lengths differ."""
    return None if MODELS[training.model].texts else asked


def _by(engine: str | None) -> str:
    return f"-by-{engine}" if engine else ""


def _engine_of(method: Method, asked: str | None) -> str | None:
    """Return the engine that runs a method for which one is asked."""
    if method.forward_only:
        return asked
    return "folded" if method.family in FOLDED and asked in ("auto", "folded") else None


def _check_labels(targets: str, dataset: str) -> None:
    """Check that a data set has labels if the targets are to be the labels."""
    if targets == "label" and not DATASETS[dataset].labelled:
        raise ValueError(
            f"the classes of the pictures of {dataset!r} are not known, so they cannot be the targets; use targets='predicted', "
            "or put the pictures into class folders"
        )


@specification
class Explanation(Spec):
    """The maps of one method for some images.

    Args:
        training: the model.
        method: a name in METHODS.
        options: keyword options of the method.
        dataset: the data set of the images; None means that of the training.
        split: `train` or `test`.
        start: the first image of the split.
        stop: the image before which the run ends; None means the end of the split. The shards of a run add up to it.
        stride: the distance between images: 1 takes every image, 2 every second one.
        targets: the class to explain, `predicted` or `label`.
        seed: determines the method's random numbers for each image.
        engine: runs the model, see `saliency_lib.optimise`. None or `eager` means the network as it is. A method that needs
            gradients gets the folded network at most, and one of another family (a control, or your own) the network as it is.
    """

    training: Training
    method: Annotated[str, registered(METHODS)] = "gradient"
    options: Options = field(default_factory=dict, hash=False)
    dataset: Annotated[str, registered(DATASETS)] | None = None
    split: str = "test"
    start: Number = 0
    stop: Number | None = None
    stride: Count = 1
    targets: Targets = "predicted"
    seed: Number = 0
    engine: Engine = None

    def __post_init__(self) -> None:
        check_options(METHODS, self.method, self.options)
        object.__setattr__(self, "dataset", self.dataset or self.training.dataset)
        splits = DATASETS[str(self.dataset)].splits
        if self.split not in splits:
            raise no_such(f"split of dataset {self.dataset!r}", self.split, splits)
        if self.stop is not None and self.stop <= self.start:
            raise ValueError(f"stop must be greater than start, which is {self.start}, got {self.stop}")
        _check_labels(self.targets, str(self.dataset))
        object.__setattr__(self, "engine", _engine_of(METHODS[self.method], _fitting(self.training, self.engine)))

    def implied(self) -> dict[str, Any]:
        """Return the method's options with their defaults, its revision unless it is the first, and code from outside."""
        revision, code = METHODS[self.method].revision, own_code(METHODS[self.method], DATASETS[str(self.dataset)])
        return in_full(METHODS, self.method, self.options) | ({"method's revision": revision} if revision else {}) | code

    @property
    def slug(self) -> str:
        """Return the training, the images and the method."""
        stride = f"-by{self.stride}" if self.stride > 1 else ""
        images = f"{self.split}{self.start}-{'end' if self.stop is None else self.stop}{stride}"
        data = "" if self.dataset == self.training.dataset else f"{slug_of(str(self.dataset))}-"
        return f"{self.training.slug}-{data}{images}-{self.method}{_by(self.engine)}"

    def shards(self, count: int) -> "list[Explanation]":
        """Return the same run divided into at most `count` runs, which take turns image by image; `join` joins their results.

        Raises:
            ValueError: `count` is less than 1.
        """
        if count < 1:
            raise ValueError(f"count must be greater than or equal to 1, got {count}")
        if self.stop is not None:
            count = min(count, len(range(self.start, self.stop, self.stride)))
        return [dataclasses.replace(self, start=self.start + k * self.stride, stride=self.stride * count) for k in range(count)]


@specification
class Score(Spec):
    """The curves of one metric for the maps of one explanation.

    Args:
        explanation: the maps.
        metric: a name in METRICS.
        options: keyword options of the metric.
        targets: the class whose score is followed, `predicted` or `label`; None means the explained one.
        seed: determines the metric's random numbers for each image.
        judge: the model whose scores are followed; None means the explained one.
        engine: runs the forward passes of that model, see `saliency_lib.optimise`. None or `eager` means the network as
            it is, which every metric gets that computes new maps.
    """

    explanation: Explanation
    metric: Annotated[str, registered(METRICS)] = "deletion"
    options: Options = field(default_factory=dict, hash=False)
    targets: Targets | None = None
    seed: Number = 0
    judge: Training | None = None
    engine: Engine = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "targets", self.targets or self.explanation.targets)
        _check_labels(str(self.targets), str(self.explanation.dataset))
        check_options(METRICS, self.metric, self.options)
        object.__setattr__(self, "engine", _fitting(self.judge or self.explanation.training, self.engine))
        explains = "explain" in METRICS.options(self.metric)
        if explains:
            object.__setattr__(self, "engine", None)
        if explains and self.targets != self.explanation.targets:
            raise ValueError(
                f"{self.metric} computes new maps and compares them, so its targets must be those of the explanation, "
                f"{self.explanation.targets!r}, got {self.targets!r}"
            )
        if explains and self.judge is not None:
            raise ValueError(f"{self.metric} explains the model again, so no other model can be its judge; leave judge out")
        if self.judge is not None and self.judge.dataset != self.explanation.training.dataset:
            raise ValueError(
                f"a judge must predict the same classes: it was trained on {self.judge.dataset}, and the explained model on "
                f"{self.explanation.training.dataset}; train both on the same data set"
            )

    def implied(self) -> dict[str, Any]:
        """Return the metric's options with their defaults, the settings of its preset, and its code if it is from outside."""
        return in_full(METRICS, self.metric, self.options) | own_code(METRICS[self.metric])

    @property
    def slug(self) -> str:
        """Return the explanation, the metric and the judge."""
        judged = f"-judged-by-{self.judge.recipe}" if self.judge else ""
        return f"{self.explanation.slug}-{self.metric}{judged}{_by(self.engine)}"


@specification
class Samples(Spec):
    """Images that a model finds typical of given classes, made by activation maximisation.

    Args:
        training: the model.
        count: how many images. Their classes are the labels of the first test images, repeated if there are fewer.
        steps: steps of the ascent, see `activation_maximisation`.
        rate: its step size.
        decay: its weight decay.
        seed: determines the image that each ascent starts from.
    """

    training: Training
    count: Count = 1024
    steps: Number = 500
    rate: NotNegative = 0.1
    decay: NotNegative = 0.01
    seed: Number = 0

    def __post_init__(self) -> None:
        _check_labels("label", self.training.dataset)

    @property
    def slug(self) -> str:
        """Return the training, the number of images and the number of steps."""
        return f"{self.training.slug}-{self.count}by{self.steps}"


KINDS: dict[str, type[Spec]] = {"training": Training, "explanation": Explanation, "score": Score, "samples": Samples}


def from_dict(content: Mapping[str, Any]) -> Spec:
    """Return the specification that `to_dict` wrote.

    Raises:
        ValueError: an unknown kind or field, or a value that is not allowed.
    """
    content = dict(content)
    kind = content.pop("kind", None)
    if kind not in KINDS:
        raise no_such("kind of specification", kind, KINDS)
    known = KINDS[kind].__dataclass_fields__
    for name in content:
        if name not in known:
            raise no_such(f"field of {kind}", name, known)
    nested = {key: from_dict(value) for key, value in content.items() if isinstance(value, Mapping) and "kind" in value}
    return KINDS[kind](**content | nested)
