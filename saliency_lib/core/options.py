"""Typed options: the annotation of an option says what it may be, and one check refuses everything else."""

import difflib
import functools
import inspect
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

P = ParamSpec("P")
R = TypeVar("R")
LARGEST = 10**18  # whole numbers beyond do not fit into a tensor


class UnknownName(ValueError, KeyError):
    """A name that is not in a table."""

    __str__ = Exception.__str__  # KeyError would print the message in quotes


def no_such(kind: str, name: object, known: Iterable[str]) -> UnknownName:
    """Return the error for an unknown name: the name, the nearest known one, or else all known ones if they are few."""
    known = sorted(known)
    near = difflib.get_close_matches(str(name), known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"one of: {', '.join(known[:40])}{' ...' if len(known) > 40 else ''}"
    return UnknownName(f"{kind} {name!r} is not known; {hint}")


@dataclass(frozen=True)
class Range:
    """The numbers from `least` to `most`; without `least` itself if it is open."""

    least: float = -LARGEST
    most: float = LARGEST
    open: bool = False

    def holds(self, number: Any) -> bool:
        """Return whether a number is in the range."""
        return (number > self.least if self.open else number >= self.least) and number <= self.most

    def __str__(self) -> str:
        if self.most >= LARGEST:
            return "" if self.least <= -LARGEST else f"above {self.least:,}" if self.open else f"of at least {self.least:,}"
        return f"above {self.least:,} and at most {self.most:,}" if self.open else f"from {self.least:,} to {self.most:,}"


@dataclass(frozen=True, eq=False)
class Names:
    """The names in a table."""

    table: Collection[str]

    def holds(self, name: Any) -> bool:
        """Return whether a text is one of the names."""
        return name in self.table

    def __str__(self) -> str:
        return f"one of the names {', '.join(sorted(self.table))}"


MOST = 1_000_000  # samples, masks, steps and the like, of which more would not end
Positive = Annotated[int, Range(1)]
Count = Annotated[int, Range(1, MOST)]
Draws = Annotated[int, Range(1, 10_000)]  # random orders, which are in memory together
Seed = Annotated[int, Range(0)]
Number = Annotated[float, Range()]
NotNegative = Annotated[float, Range(0)]
Above0 = Annotated[float, Range(0, open=True)]
Share = Annotated[float, Range(0, 1)]
ShareAbove0 = Annotated[float, Range(0, 1, open=True)]

WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    Callable: "a function",
}


def typed(function: Callable[P, R], owner: str = "", kind: str = "") -> Callable[P, R]:
    """Check the options of a function at each call, according to the annotations of its keyword-only parameters.

    Args:
        function: whose options are checked.
        owner: its name in error messages; empty: its own.
        kind: what it is, for the error about an option that it does not have.
    """
    name = owner or function.__name__
    parameters = inspect.signature(function).parameters

    @functools.wraps(function)
    def checked(*arguments: P.args, **options: P.kwargs) -> R:
        check_options(function, options, name, kind, parameters)
        return function(*arguments, **options)

    vars(checked)["__signature__"] = _without_limits(function)  # which say little to a reader
    return checked


def _without_limits(function: Callable[..., Any]) -> inspect.Signature:
    signature = inspect.signature(function)
    try:
        types = get_type_hints(function)
    except NameError:
        return signature
    plain = [value.replace(annotation=types.get(name, value.annotation)) for name, value in signature.parameters.items()]
    return signature.replace(parameters=plain)


def check_options(
    function: Callable[..., Any],
    options: Mapping[str, object],
    owner: str,
    kind: str = "",
    known: Collection[str] | None = None,
) -> None:
    """Refuse options that a function does not take, or whose values its annotations do not allow.

    Args:
        options: by name. Only keyword-only parameters are checked against their annotations.
        owner: the name of the function.
        kind: what it is.
        known: the names that may be given; None: those of the keyword-only parameters.

    Raises:
        ValueError: the message names the option, what it must be, and what was given.
    """
    own = _annotations(function)
    for option, value in options.items():
        if option in own:
            check(f"{option} of {owner}", own[option], value)
        elif option not in (own if known is None else known) and not _takes_any(function):
            raise no_such(f"option of {kind} {owner!r}".replace("  ", " "), option, own)


@functools.cache
def _annotations(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotations of the keyword-only parameters of a function, by name."""
    own = [name for name, value in inspect.signature(function).parameters.items() if value.kind is value.KEYWORD_ONLY]
    try:
        hints = get_type_hints(function, include_extras=True)
    except NameError:  # written as texts, with names that only their author's module knows
        hints = {}
    return {name: hints.get(name, Any) for name in own}


@functools.cache
def _takes_any(function: Callable[..., Any]) -> bool:
    return any(value.kind is value.VAR_KEYWORD for value in inspect.signature(function).parameters.values())


def check(label: str, annotation: Any, value: object) -> None:
    """Refuse a value that an annotation does not allow.

    Args:
        label: what the value is, for the message.
        annotation: a type, a union of types, or `Annotated` with `Range` or `Names`.

    Raises:
        ValueError: see `check_options`.
    """
    allowed = list(_members(annotation))
    fitting = [limit for kind, limit in allowed if _is(kind, value)]
    for limit in fitting:
        if limit is None or limit.holds(value):
            return
    if fitting and isinstance(fitting[0], Names):
        raise no_such(label, value, fitting[0].table)
    words = list(dict.fromkeys(_words(kind, limit) for kind, limit in allowed if kind is not NoneType))
    expected = " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
    raise ValueError(f"{label} must be {expected}, got {shown(value)}{_hint([kind for kind, _ in allowed], value)}")


def _members(annotation: Any) -> Iterator[tuple[Any, Range | Names | None]]:
    """Yield the types that an annotation allows, each with what limits its values."""
    if get_origin(annotation) in (Union, UnionType):
        for member in get_args(annotation):
            yield from _members(member)
    elif get_origin(annotation) is Annotated:
        kind, *extras = get_args(annotation)
        limit = next((extra for extra in extras if isinstance(extra, (Range, Names))), None)
        yield from ((kind, limit) for kind, _ in _members(kind))
    else:
        yield annotation, None


def _is(kind: Any, value: Any) -> bool:
    origin = get_origin(kind) or kind
    if origin is bool or origin is NoneType:
        return isinstance(value, origin)
    if origin is int or origin is float:
        return isinstance(value, Integral if origin is int else Real) and not isinstance(value, bool) and value == value
    if origin is Callable:
        return callable(value) and not isinstance(value, type)
    if kind is Any:
        return True
    if origin is Literal:
        return value in get_args(kind)
    if origin is Sequence:
        vector = hasattr(value, "tolist") and getattr(value, "ndim", 0) == 1
        parts = value.tolist() if vector else value
        members = list(_members(get_args(kind)[0]))
        return isinstance(parts, (list, tuple, range)) and all(any(_is(member, part) for member, _ in members) for part in parts)
    return not isinstance(origin, type) or isinstance(value, origin)


def _words(kind: Any, limit: Range | Names | None) -> str:
    origin = get_origin(kind) or kind
    if origin is Literal:
        return " or ".join(map(repr, get_args(kind)))
    if origin is Sequence:
        return f"a list of {_words(*next(_members(get_args(kind)[0]))).removeprefix('a ')}s"
    if isinstance(limit, Names):
        return str(limit)
    words = WORDS.get(origin) or f"a {origin.__name__.lower()}"
    return f"{words} {limit}".strip() if isinstance(limit, Range) else words


def shown(value: object) -> str:
    """Return a value as an error message shows it: a text in quotes, an array by its shape."""
    if isinstance(value, str):
        return f"the text {value!r}"
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{type(value).__name__} of shape {tuple(value.shape)} and {value.dtype}"
    text = repr(value)
    return text if len(text) < 60 else f"{text[:60]} ..."


def _hint(kinds: list[Any], value: Any) -> str:
    """Say how a value that was meant well is written, or nothing."""
    if {int, float} & set(kinds) and isinstance(value, (int, float)) and abs(value) > LARGEST:
        return f"; give a number below {LARGEST:.0e}"
    if isinstance(value, str) and {int, float} & set(kinds):
        if parts := re.fullmatch(r"([-+]?\d+)(\.\d*)?[eE]([-+]?)(\d+)", value):
            whole, rest, sign, power = parts.groups()
            return f"; write {whole}{rest or '.0'}e{sign or '+'}{power} in YAML"
        return f"; write {value} without quotes" if re.fullmatch(r"[-+]?[\d.]+", value) else ""
    if isinstance(value, str) and bool in kinds:
        return f"; write {'false' if value.lower() in ('no', 'false', 'off', 'n', '0', '') else 'true'} without quotes"
    if type(value).__name__ == "ndarray":
        return "; convert an array with torch.from_numpy, or a number with .item()"
    if getattr(value, "ndim", None) == 0:
        return "; pass its .item()"
    return ""
