"""Frozen records of plain values whose errors are one plain sentence."""

import re
from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from saliency_lib.core.options import no_such


class Validated(BaseModel):
    """A frozen pydantic model that refuses unknown fields.

    `model_validate` raises a ValueError whose text is a single sentence: the field, what it must be, and what was given.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_fields(cls, values: Any) -> Any:
        for name in values if isinstance(values, Mapping) else ():
            if name not in cls.model_fields:
                raise no_such(f"field of {cls.__name__.lower()}", name, cls.model_fields)
        return values

    @classmethod
    def model_validate(cls, obj: Any, **options: Any) -> Self:
        """Return the model of a mapping.

        Raises:
            ValueError: a field is unknown or missing, or a value is not allowed.
        """
        try:
            return super().model_validate(obj, **options)
        except ValidationError as error:
            raise sentence(error, cls.__name__.lower()) from None


def sentence(error: ValidationError, whole: str = "the value") -> ValueError:
    """Return the first of pydantic's errors as an error of one sentence.

    Args:
        whole: what to call the value itself if the error concerns no single field.
    """
    first = error.errors()[0]
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, ValueError):
        return cause
    name = ".".join(map(str, first["loc"])) or whole
    if first["type"] == "missing":
        return ValueError(f"{name} is missing")
    said = re.sub(r"^[A-Z]\w+ should", "must", first["msg"])
    return ValueError(f"{name} {said}, got {first['input']!r}")
