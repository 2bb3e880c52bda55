"""The settings of a training recipe. params/training.yaml explains them."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from saliency_lib.core.options import no_such
from saliency_lib.core.validation import Validated
from saliency_lib.training.objectives import OBJECTIVES
from saliency_lib.training.schedules import AUGMENTATIONS, OPTIMISERS, SCHEDULES

Count = Annotated[int, Field(strict=True, ge=1)]
NotNegative = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
TABLES: dict[str, Mapping[str, object]] = {
    "objective": OBJECTIVES,
    "optimiser": OPTIMISERS,
    "schedule": SCHEDULES,
    "augmentation": AUGMENTATIONS,
}


class Selection(Validated):
    """How the epoch whose weights are kept is selected."""

    by: Literal["loss", "accuracy"] = "loss"
    split: Literal["validation", "test"] = "validation"  # validation: images held out of the training images
    share: Annotated[float, Field(strict=True, gt=0, lt=1)] = 0.1  # of the training images, if they are held out
    patience: Count | None = None  # epochs without a better one after which the training ends


class Settings(Validated):
    """Everything that a recipe says about a training, besides the model and the data."""

    objective: str
    options: Mapping[str, Any]
    model_options: Mapping[str, Any]
    optimiser: str
    learning_rate: Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
    weight_decay: NotNegative
    momentum: NotNegative
    schedule: str
    milestones: list[int]
    augmentation: str
    batch_size: Count
    epochs: Count
    start: Literal["published", None] = None
    head: Literal["linear", "appended", "two_layers", "kept", None] = None
    trainable: Literal["all", "head"] = "all"
    batch_norm: Literal["updated", "frozen", "clean"] = "updated"
    bias_rate: Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)] = 1.0
    images: Count | None = None
    selection: Selection | None = None
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    devices: Count = 1

    @field_validator("objective", "optimiser", "schedule", "augmentation")
    @classmethod
    def _check_name(cls, name: str, info: ValidationInfo) -> str:
        setting = str(info.field_name)
        if name not in TABLES[setting]:
            raise no_such(setting, name, TABLES[setting])
        return name

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        OBJECTIVES.check_options(self.objective, self.options)
        if self.optimiser == "nesterov" and self.momentum == 0:
            raise ValueError("optimiser nesterov needs a momentum above 0; raise momentum, or use sgd")
        if self.devices > self.batch_size:
            raise ValueError(f"{self.devices} devices cannot share a batch of {self.batch_size} images; lower devices")
        if OBJECTIVES[self.objective].curved and self.precision != "32-true":
            raise ValueError(
                f"{self.objective} divides small differences of logits by the square of a small noise, "
                f"which {self.precision} rounds to nothing; use precision 32-true"
            )
        return self


# The settings that a recipe may leave out. The digest of a training ignores those that are equal to their defaults.
DEFAULTS: dict[str, Any] = {name: field.default for name, field in Settings.model_fields.items() if not field.is_required()}
