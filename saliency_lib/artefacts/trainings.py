"""The specification of a trained model."""

from dataclasses import field
from typing import Annotated, Any

from saliency_lib.artefacts.recipes import Scale, recipes, settings_of
from saliency_lib.artefacts.specification import Number, Options, Spec, in_full, own_code, registered, specification
from saliency_lib.core.options import no_such
from saliency_lib.core.references import slug
from saliency_lib.data.table import DATASETS
from saliency_lib.networks.table import MODELS
from saliency_lib.training.settings import DEFAULTS, Selection, Settings
from saliency_lib.training.table import OBJECTIVES


def slug_of(dataset: str) -> str:
    """Return the name of a data set as a part of the name of an artefact; a reference has slashes and colons."""
    return slug(dataset) if ":" in dataset else dataset


def predicts(model: str, dataset: str) -> bool:
    """Return whether a model has published weights and they predict the classes of a data set."""
    known = MODELS[model].predicts
    fits = known == "any" or (DATASETS[dataset].imagenet if known == "imagenet" else dataset == known)
    return MODELS[model].weights is not None and fits


@specification
class Training(Spec):
    """A trained model.

    Args:
        dataset: a name in DATASETS.
        model: a name in MODELS.
        recipe: a name in params/training.yaml. None means `pretrained` for data sets with ImageNet's classes and for others
            whose classes the model's published weights predict, and else `standard`. `fine_tuning:mnist5k` is the recipe
            fine_tuning, started from this model trained on mnist5k with its default recipe;
            `fine_tuning:mnist5k/saliency_guided` starts from the model that this recipe trained. Both have the same scale and
            the same seed.
        scale: `embedded` (minutes on a laptop), `real` (`cifar_fast` on CIFAR, tens of minutes on two cores) or `paper` (the
            paper's own numbers).
        seed: determines the initial weights and the order of the images.
        changes: settings that replace those of the recipe, for instance {"epochs": 1}.
        start: the trained model whose weights it starts from, which the recipe's text can name too. None means what the
            recipe says.
    """

    dataset: Annotated[str, registered(DATASETS)] = "mnist5k"
    model: Annotated[str, registered(MODELS)] = "cnn"
    recipe: str | None = None
    scale: Scale = "embedded"
    seed: Number = 0
    changes: Options = field(default_factory=dict, hash=False)
    start: "Training | None" = None

    def __post_init__(self) -> None:
        recipe, colon, begun = (self.recipe or "").partition(":")
        if colon:
            if self.start is not None:
                raise ValueError(
                    f"recipe {self.recipe!r} already names the model to start from, and start is {self.start.slug}; "
                    "give only one of them"
                )
            dataset, _, its_recipe = begun.partition("/")
            object.__setattr__(self, "start", Training(dataset, self.model, its_recipe or None, self.scale, self.seed))
        usual = "pretrained" if DATASETS[self.dataset].imagenet or predicts(self.model, self.dataset) else "standard"
        object.__setattr__(self, "recipe", usual if self.recipe is None else recipe)
        if self.recipe not in recipes():
            raise no_such("recipe", self.recipe, recipes())
        self._check_weights()
        if self.recipe != "pretrained":
            self._check_settings(Settings.model_validate(self.settings))

    def _check_weights(self) -> None:
        """Check that the model takes what the data set has, and starts from weights that exist and fit."""
        dataset, model = DATASETS[self.dataset], MODELS[self.model]
        if dataset.texts != model.texts:
            kinds = {True: "texts", False: "images or series"}
            fitting = ", ".join(name for name, entry in MODELS.items() if entry.texts) if dataset.texts else "for instance cnn"
            raise ValueError(
                f"dataset {self.dataset!r} has {kinds[dataset.texts]}, and model {self.model!r} takes {kinds[model.texts]}; "
                f"models that fit: {fitting}"
            )
        if self.recipe == "pretrained":
            if not model.weights:
                raise ValueError(
                    f"model {self.model!r} has no published weights; use 'efficientnet_lite0' (its weights are installed) or "
                    "one of torchvision's networks, or a data set with training images and recipe 'standard'"
                )
            if not predicts(self.model, self.dataset):
                known, fitting = f"the classes of {model.predicts}", f"dataset {model.predicts!r}"
                if model.predicts == "imagenet":
                    known, fitting = (
                        "ImageNet's 1,000 classes",
                        "a data set with ImageNet's classes: 'photos', or folder:<pictures>?classes=imagenet",
                    )
                raise ValueError(
                    f"published weights of {self.model} predict {known}, and dataset {self.dataset!r} has others; use recipe "
                    f"'standard', or {fitting}"
                )
        elif "train" not in dataset.splits:
            raise ValueError(
                f"dataset {self.dataset!r} has no training images (splits: {', '.join(dataset.splits)}); "
                "use recipe 'pretrained' with a model that has published weights, for instance 'efficientnet_lite0'"
            )
        starting = [name for name, content in recipes().items() if content.get("start")]
        if self.start is None:
            if self.recipe in starting and not model.weights:
                raise ValueError(
                    f"recipe {self.recipe!r} starts from trained weights, and model {self.model!r} has no published ones; name "
                    f"a data set to train it on first, for instance '{self.recipe}:mnist5k', or use 'efficientnet_lite0'"
                )
            return
        if self.recipe not in starting:
            raise ValueError(
                f"recipe {self.recipe!r} starts from random weights, not from those of {self.start.slug}; recipes that start "
                f"from a trained model: {', '.join(starting)}"
            )
        mine, others = dataset.shape[0], DATASETS[self.start.dataset].shape[0]
        if self.start.model != self.model or mine != others:
            raise ValueError(
                f"{self.slug} cannot start from {self.start.slug}: the models must be the same ({self.model}, "
                f"{self.start.model}) and the images must have the same number of channels ({mine}, {others})"
            )
        if "model_options" in self.changes:
            raise ValueError(f"{self.slug} has the options of the model that it starts from; change model_options there")

    def _check_settings(self, settings: Settings) -> None:
        """Check that the settings fit the data set and the model."""
        if settings.augmentation != "none" and (self.dataset.startswith("series_") or DATASETS[self.dataset].texts):
            raise ValueError(
                f"recipe {self.recipe!r} crops and mirrors its inputs, which makes another input of one of {self.dataset}; "
                "use changes={'augmentation': 'none'}"
            )
        if settings.head == "kept" and not (
            self.start.dataset == self.dataset if self.start else predicts(self.model, self.dataset)
        ):
            raise ValueError(
                f"recipe {self.recipe!r} keeps the head of the model that it starts from, so that model must predict the classes "
                f"of {self.dataset}; name this data set to train a model on it first, '{self.recipe}:{self.dataset}'"
            )
        MODELS.check_options(self.model, settings.model_options)
        activation = settings.model_options.get("activation", MODELS.defaults(self.model).get("activation"))
        if self.recipe == "softplus" and activation != "softplus":
            raise ValueError(
                f"model {self.model!r} has no Softplus units, which recipe 'softplus' is for; use cnn, cifar_resnet9, "
                "cifar_resnet18 or cifar_resnet34"
            )

    @property
    def settings(self) -> dict[str, Any]:
        """Return the recipe's settings at this scale with `changes` applied, including those that the recipe leaves out."""
        settings = settings_of(str(self.recipe), self.scale, self.model, self.dataset)
        for change in self.changes:
            if change not in settings:
                raise no_such(f"setting of recipe {self.recipe!r}", change, settings)
        started = {"model_options": self.start.settings.get("model_options", {})} if self.start else {}
        return settings | dict(self.changes) | started

    def implied(self) -> dict[str, Any]:
        """Return the settings that differ from their defaults, so that adding a setting does not rename existing artefacts.

        The unusual preparation of published weights is among them: the pictures and the normalisation, or for a model that is
        trained further the normalisation alone. So is code from outside the library.
        """
        said = {name: value for name, value in self.settings.items() if name not in DEFAULTS or value != DEFAULTS[name]}
        if said.get("selection"):
            said["selection"] = Selection.model_validate(said["selection"]).model_dump()
        if {"objective", "options"} & set(self.changes):
            said |= in_full(OBJECTIVES, said["objective"], said["options"])
        own = MODELS[self.model].preparation
        begins = self.recipe == "pretrained" or (said.get("start") and not self.start)  # from the model's own weights
        unusual = own.unusual if own and begins else {}
        if self.recipe != "pretrained":
            unusual = {name: value for name, value in unusual.items() if name in ("mean", "std")}
        code = own_code(
            DATASETS[self.dataset], MODELS[self.model], *[OBJECTIVES[name] for name in [said.get("objective")] if name]
        )
        content = {"weights": MODELS[self.model].content} if begins and MODELS[self.model].content else {}
        return {"settings": said} | ({"preparation": unusual} if unusual else {}) | content | code

    @property
    def slug(self) -> str:
        """Return data set, model, recipe, start, scale and seed."""
        begun = f"-from-{slug_of(self.start.dataset)}-{self.start.recipe}" if self.start else ""
        return f"{slug_of(self.dataset)}-{slug(self.model)}-{self.recipe}{begun}-{self.scale}-seed{self.seed}"
