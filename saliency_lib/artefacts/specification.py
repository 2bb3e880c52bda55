"""What all specifications share: validated fields, a digest, a readable name, and the way back from a dictionary."""

import abc
import dataclasses
import functools
import inspect
import json
from collections.abc import Mapping
from dataclasses import field
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, TypeVar, dataclass_transform, get_type_hints

from pydantic import AfterValidator, ConfigDict, Field, PlainValidator, ValidationError, ValidationInfo
from pydantic.dataclasses import dataclass

from saliency_lib.core import seals
from saliency_lib.core.registry import Entry, Registry
from saliency_lib.core.validation import sentence

# Per kind, increased when the same specification comes to mean other numbers.
REVISIONS = {"training": 2, "explanation": 2, "score": 3, "samples": 2}
LONGEST = 200  # bytes of a readable name; a file name has at most 255, and the store appends to it
S = TypeVar("S", bound="Spec")


def _plain(options: Any, info: ValidationInfo) -> Mapping[str, Any]:
    try:
        return MappingProxyType(json.loads(json.dumps(dict(options), sort_keys=True, allow_nan=False)))
    except (TypeError, ValueError) as error:
        name = info.field_name
        raise ValueError(f"{name} must map names to plain values (numbers, texts, lists), got {options!r}: {error}") from None


def registered(table: Registry[Any]) -> AfterValidator:
    """Return the check that a text is a name in a table."""
    return AfterValidator(lambda name: table[name].name)


Options = Annotated[Mapping[str, Any], PlainValidator(_plain)]  # not changeable, and with sorted keys
Number = Annotated[int, Field(strict=True, ge=0)]


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def specification(cls: type[S]) -> type[S]:
    """Make a class a frozen dataclass that pydantic validates, with errors of one plain sentence."""
    validated: Any = dataclass(frozen=True, config=ConfigDict(validate_default=True))(cls)
    create, signature = validated.__init__, inspect.signature(validated)

    @functools.wraps(create)
    def __init__(self: S, *args: Any, **fields: Any) -> None:
        given = signature.bind(*args, **fields).arguments  # a wrong call is a TypeError, as for any class
        try:
            create(self, **given)
        except ValidationError as error:
            raise sentence(error, cls.__name__.lower()) from None

    types = get_type_hints(cls, localns={cls.__name__: validated})  # without the constraints, which say little to a reader
    shown = [parameter.replace(annotation=types[name]) for name, parameter in signature.parameters.items()]
    validated.__init__, validated.__signature__ = __init__, signature.replace(parameters=shown)
    return validated


class Spec(abc.ABC):
    """What all specifications share: a dictionary and the way back, a digest, and a readable name."""

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]

    def to_dict(self) -> dict[str, Any]:
        """Return the specification as plain values, `kind` first, without fields that are None; `from_dict` reads it back."""
        fields: dict[str, Any] = {"kind": self.kind}
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            plain = value.to_dict() if isinstance(value, Spec) else dict(value) if isinstance(value, Mapping) else value
            fields |= {} if plain is None else {name: plain}
        return fields

    @property
    def kind(self) -> str:
        """Return `training`, `explanation`, `score` or `samples`, which is also the folder in outputs/."""
        return type(self).__name__.lower()

    @property
    def digest(self) -> str:
        """Return the SHA-256 of everything that determines the artefact's numbers, upstream specifications included."""
        content = {"revision": REVISIONS[self.kind], **self.to_dict(), **self.implied()}
        content |= {name: value.digest for name, value in vars(self).items() if isinstance(value, Spec)}
        return seals.digest(content)

    @property
    @abc.abstractmethod
    def slug(self) -> str:
        """Return the readable part of the artefact's name."""

    @property
    def name(self) -> str:
        """Return the name of the artefact's folder: the readable part, cut if it is too long, and 8 digits of the digest."""
        slug = self.slug.encode()[:LONGEST].decode(errors="ignore")
        return f"{slug}-{self.digest[:8]}"

    @property
    def upstream(self) -> "list[Spec]":
        """Return the specifications that this one builds on, the previous stage first."""
        return [value for value in vars(self).values() if isinstance(value, Spec)]

    def implied(self) -> dict[str, Any]:
        """Return what the digest depends on besides the fields."""
        return {}


def check_options(table: Registry[Any], name: str, options: Mapping[str, Any]) -> None:
    """Check that an entry takes these options, and that a specification may set them.

    Raises:
        ValueError: the entry does not take an option, or the rest of the specification determines it.
    """
    for option in {"seed", "indices", "explain", "objects"} & set(options):
        raise ValueError(
            f"{option} cannot be an option of a specification: its field seed sets the seed, its images and its method the rest"
        )
    table.check_options(name, options)


def in_full(table: Registry[Any], name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options with their defaults as text, except those of options added later, and the preset's settings."""
    defaults, added = table.defaults(name), getattr(table[name], "added", ())
    full = {key: repr(value) for key, value in defaults.items() if key not in added} | dict(options)
    presets = getattr(table[name], "presets", {})
    preset = options.get("preset", defaults.get("preset"))
    return {"options in full": full, "preset in full": presets.get(preset)}


def own_code(*entries: Entry) -> dict[str, str]:
    """Return the digests of the code of those entries that are registered outside the library, whose revisions do not tell.

    Raises:
        ValueError: a change of one of their functions could not be noticed.
    """
    codes = {f"code of {type(entry).__name__.lower()} {entry.name}": entry.code for entry in entries}
    return {name: code for name, code in codes.items() if code}
