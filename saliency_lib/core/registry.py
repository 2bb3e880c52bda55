"""Tables of names. A name is the function, the word in YAML, the slug of the artefact and the key in the legend."""

import html
import inspect
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, overload

from saliency_lib.core.options import check_options, no_such

FEW = {"masks": 8, "samples": 8, "steps": 4, "classes": 3, "window": 8, "stride": 8, "cells": 3, "grid": 3}  # options of a trial


@dataclass(frozen=True, eq=False)
class Entry:
    """A registered function and its facts. Calling the entry calls the function.

    Args:
        function: the function, already adapted to its table.
        name: its name in the table.
        written: the function as it was written, before it was adapted to its table.
    """

    function: Callable[..., Any]
    name: str
    written: Callable[..., Any] = field(kw_only=True)

    def __post_init__(self) -> None:
        # help(), `?` and inspect.signature() then show the function, not this class
        copied = {key: getattr(self.function, key) for key in ("__doc__", "__module__", "__qualname__")}
        vars(self).update(copied, __name__=self.name, __wrapped__=self.function)

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Call the function."""
        return self.function(*args, **options)

    @property
    def code(self) -> str:
        """The SHA-256 of what the function does if it is not the library's own, and else empty.

        Raises:
            ValueError: a change of the function could not be noticed.
        """
        from saliency_lib.core.code import code_sha256, is_ours  # here, so that tables do without torch

        if is_ours(self.written):
            return ""
        try:
            return code_sha256(self.written)
        except ValueError as error:
            raise ValueError(f"{type(self).__name__.lower()} {self.name!r} {error}") from None

    @classmethod
    def adapt(cls, function: Callable, name: str, **facts: Any) -> Callable:
        """Return the function to enter in place of the one that was written."""
        return function

    @property
    def row(self) -> dict[str, str]:
        """The entry's row when its table is printed, by column."""
        return {"name": self.name}


E = TypeVar("E", bound=Entry)
F = TypeVar("F", bound=Callable[..., Any])


class Registry(Mapping[str, E], Generic[E]):
    """A table from names to entries, filled by decorators.

    Args:
        kind: what an entry is, for error messages ("method").
        entry: the type of the entries; its further fields are the facts that `register` takes.
    """

    def __init__(self, kind: str, entry: type[E]):
        self.kind = kind
        self._entry = entry
        self._entries: dict[str, E] = {}
        self._fallback: Callable[[str], E | None] = lambda name: None
        self._more: list[Callable[[], None]] = []
        self._entering = threading.RLock()

    @overload
    def register(self, function: F) -> F: ...
    @overload
    def register(self, function: None = None, *, name: str | None = None, **facts: Any) -> Callable[[F], F]: ...
    def register(self, function: Any = None, *, name: str | None = None, **facts: Any) -> Any:
        """Decorate a function to enter it under `name`, or under its own name.

        Registering the same function again replaces it, for instance when a notebook cell runs a second time.

        Args:
            facts: the further fields of the table's entries.

        Raises:
            ValueError: another function has that name.
        """
        if function is None:
            return lambda function: self.register(function, name=name, **facts)
        name = name or function.__name__
        known = self._entries.get(name) or self._whole.get(name)
        if known and (known.__module__, known.function.__qualname__) != (function.__module__, function.__qualname__):
            raise ValueError(f"{self.kind} {name!r} is registered already, by {known.__module__}; choose another name")
        self._entries[name] = self.entry(function, name, **facts)
        return self._entries[name].function

    def entry(self, function: Callable, name: str, *, written: Callable | None = None, **facts: Any) -> E:
        """Return the entry of a function without entering it; `written` is what it was made from, if that is another function."""
        return self._entry(self._entry.adapt(function, name, **facts), name, written=written or function, **facts)

    def fallback(self, function: Callable[[str], E | None]) -> Callable[[str], E | None]:
        """Decorate a function that supplies an entry, or None, for a name that is not in the table."""
        self._fallback = function
        return function

    def more(self, enter: Callable[[], None]) -> Callable[[], None]:
        """Decorate a function that enters more names; it is called when a name is not in the table, or all are asked for."""
        self._more.append(enter)
        return enter

    @property
    def _whole(self) -> dict[str, E]:
        with self._entering:
            while self._more:
                enter = self._more.pop()
                try:
                    enter()
                except BaseException:
                    self._more.append(enter)
                    raise
        return self._entries

    def __getitem__(self, name: str) -> E:
        entry = None
        if isinstance(name, str):
            entry = self._entries.get(name) or self._whole.get(name) or self._fallback(name)
        if entry is None:
            raise no_such(self.kind, name, self._entries)
        return entry

    def has(self, name: str) -> bool:
        """Return whether a name has been registered, without looking for more."""
        return name in self._entries

    def __contains__(self, name: object) -> bool:
        return name in self._entries or name in self._whole

    def __iter__(self) -> Iterator[str]:
        return iter(self._whole)

    def __len__(self) -> int:
        return len(self._whole)

    def _ipython_key_completions_(self) -> list[str]:
        return list(self)

    def __repr__(self) -> str:
        rows = [entry.row for entry in self._whole.values()]
        lines = [dict(zip(row, row, strict=True)) for row in rows[:1]] + rows
        widths = {column: max(len(line[column]) for line in lines) for column in (rows[0] if rows else ())}
        words = ["  ".join(text.ljust(widths[column]) for column, text in line.items()).rstrip() for line in lines]
        return "\n".join([f"{len(rows)} {self.kind}s", *words])

    def _repr_html_(self) -> str:
        rows = [entry.row for entry in self._whole.values()]
        head = "".join(f"<th>{html.escape(column)}</th>" for column in (rows[0] if rows else ()))
        body = "".join("<tr>" + "".join(f"<td>{html.escape(text)}</td>" for text in row.values()) + "</tr>" for row in rows)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    def options(self, name: str) -> dict[str, inspect.Parameter]:
        """Return the keyword-only options of an entry, by name."""
        parameters = inspect.signature(inspect.unwrap(self[name])).parameters
        return {key: value for key, value in parameters.items() if value.kind is value.KEYWORD_ONLY}

    def defaults(self, name: str) -> dict[str, Any]:
        """Return the default values of an entry's options, by name."""
        return {key: value.default for key, value in self.options(name).items()}

    def cheap(self, name: str) -> dict[str, Any]:
        """Return values of an entry's options that make it fast, for a trial."""
        known = self.defaults(name)
        return {option: value for option, value in FEW.items() if option in known and type(known[option]) in (int, type(None))}

    def taken(self, name: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the given options that an entry takes."""
        known = self.options(name)
        return {option: value for option, value in given.items() if option in known}

    def check_options(self, name: str, options: Mapping[str, object]) -> None:
        """Refuse an option that the entry does not take, or a value that its annotation does not allow.

        Raises:
            ValueError: the name is not in the table, or an option or its value is not allowed.
        """
        check_options(self[name].function, options, name, self.kind)
