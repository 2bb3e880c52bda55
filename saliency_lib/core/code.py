"""What a function does, as a digest: its compiled code, the values it holds, and the functions of its project that it names.

The code that runs is what counts. A source file may have been edited since it was imported, and comments change nothing.
"""

import dis
import enum
import functools
import hashlib
import re
import sys
import sysconfig
import types
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import packages_distributions, version
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

LIBRARY = __name__.partition(".")[0]
PLAIN: tuple[type, ...] = (type(None), bool, int, float, complex, str, bytes, type(...), range, slice, PurePath, re.Pattern)
PLAIN += (np.generic, torch.dtype, torch.device, torch.Size)
INCIDENTAL = {"__module__", "__dict__", "__weakref__", "__annotations__", "__firstlineno__", "__static_attributes__"}
INCIDENTAL |= {"__dataclass_fields__", "__dataclass_params__", "__abstractmethods__", "_abc_impl", "__annotate_func__"}
WRAPPERS = (staticmethod, classmethod, functools.cached_property, property)


def is_ours(function: Callable[..., Any]) -> bool:
    """Return whether a function is written in this library, whatever name a decorator has given it."""
    home = getattr(function, "__globals__", {}).get("__name__") or ""
    return home.partition(".")[0] == LIBRARY


def code_sha256(function: Callable[..., Any]) -> str:
    """Return the SHA-256 of what a function does.

    It covers the compiled code, default values, closure and global values, the functions and classes of the same package and of
    files that are not installed, as far as the code names them, and the version of the function's package. Other packages count
    by the names that are used. It differs between minor versions of Python, whose code differs.

    Raises:
        ValueError: the function has no Python code, or holds a value whose content cannot be told.
    """
    package = str(getattr(function, "__module__", None) or "").partition(".")[0]
    content = _Description(package).of(function, "the function")
    if content == _name(function):
        raise ValueError("has no Python code, so a change of it could not be noticed; wrap it in a Python function")
    versions = [f"{name} {version(name)}" for name in _distributions().get(package, [])]
    return hashlib.sha256(repr([content, versions]).encode("utf-8", "backslashreplace")).hexdigest()


@functools.cache
def _distributions() -> Mapping[str, list[str]]:
    return packages_distributions()


@functools.cache
def _installed(name: str) -> bool:
    """Return whether a module is part of Python or of an installed package, so that its version tells what it does."""
    file = getattr(sys.modules.get(name), "__file__", None)
    if file is None:
        return name in sys.builtin_module_names
    folders = {sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib")}
    return any(Path(file).is_relative_to(folder) for folder in folders)


def _name(value: Any) -> str:
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', None) or type(value).__qualname__}"


class _Description:
    """Describe values as nested lists of texts. What is met again is named by its number, so that circles end."""

    def __init__(self, package: str):
        self.package = package
        self.met: dict[int, tuple[int, Any]] = {}

    def is_own(self, value: Any) -> bool:
        """Return whether a function, class or module is of the same package or of a file that is not installed."""
        space = getattr(value, "__globals__", None)
        home = space.get("__name__", "") if space else str(getattr(value, "__module__", None) or getattr(value, "__name__", ""))
        top = home.partition(".")[0]
        return top != LIBRARY and (top == self.package or not _installed(home))

    def of(self, value: Any, where: str) -> Any:
        """Return the description of a value; `where` names it in errors."""
        if isinstance(value, PLAIN):
            return f"{type(value).__name__} {value!r}"
        if id(value) in self.met:
            return f"met {self.met[id(value)][0]}"
        self.met[id(value)] = (len(self.met), value)
        if isinstance(value, Tensor | np.ndarray):
            return self._array(value)
        if isinstance(value, tuple | list):
            return [type(value).__name__, *(self.of(one, where) for one in value)]
        if isinstance(value, set | frozenset):
            return ["set", *sorted(repr(_Description(self.package).of(one, where)) for one in value)]
        if isinstance(value, Mapping):
            return ["mapping", *([self.of(key, where), self.of(one, where)] for key, one in value.items())]
        if isinstance(value, types.CodeType):
            return self._code(value, where)
        if isinstance(value, types.FunctionType):
            return self._function(value) if self.is_own(value) else _name(value)
        if isinstance(value, types.ModuleType):
            return value.__name__
        if isinstance(value, type):
            return self._class(value) if self.is_own(value) else _name(value)
        if isinstance(value, (functools.partial, types.MethodType, *WRAPPERS)) or hasattr(value, "__wrapped__"):
            names = ("func", "args", "keywords", "__func__", "__self__", "fget", "fset", "__wrapped__")
            parts = {name: getattr(value, name) for name in names if getattr(value, name, None) is not None}
            return [type(value).__name__, self.of(parts, where)]
        if callable(value) and not hasattr(value, "__dict__"):  # written in C
            return _name(value)
        if isinstance(value, nn.Module) or self.is_own(type(value)):
            return ["instance", self.of(type(value), where), self.of(dict(getattr(value, "__dict__", {})), where)]
        if type(value).__module__.partition(".")[0] == LIBRARY or isinstance(value, types.MemberDescriptorType):
            return _name(value)
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        raise ValueError(
            f"uses {where}, a {kind}, and a change of it could not be noticed; make it inside the function, or use plain values, "
            "arrays, networks or functions in its place"
        )

    def _array(self, value: Any) -> list[str]:
        array = value.detach().cpu().contiguous() if isinstance(value, Tensor) else torch.from_numpy(np.ascontiguousarray(value))
        digest = hashlib.sha256(array.flatten().view(torch.uint8).numpy().data).hexdigest()
        return ["array", str(value.dtype), str(tuple(value.shape)), digest]

    def _function(self, function: types.FunctionType) -> list[Any]:
        code, space = function.__code__, function.__globals__
        parts = [self.of(code, repr(function.__name__))]
        parts += [self.of(values, "a default value") for values in (function.__defaults__, function.__kwdefaults__)]
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            with_value = cell != types.CellType()  # an empty cell: a function that refers to itself
            parts.append([name, self.of(cell.cell_contents, repr(name)) if with_value else "empty"])
        for name in sorted(set(_globals(code))):
            if name in space:
                parts.append([name, self._named(space[name], name, code)])
        return parts

    def _named(self, value: Any, name: str, code: types.CodeType) -> Any:
        """Describe a global value; of a module of the project, what the code may name of it."""
        if isinstance(value, types.ModuleType) and self.is_own(value):
            attributes = sorted({one for part in _parts(code) for one in part.co_names if hasattr(value, one)})
            return [value.__name__, *([one, self.of(getattr(value, one), f"{name}.{one}")] for one in attributes)]
        return self.of(value, repr(name))

    def _code(self, code: types.CodeType, where: str) -> list[Any]:
        names = [code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars]
        counts = [code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags]
        return [code.co_code.hex(), repr(names), repr(counts), *(self.of(value, where) for value in code.co_consts)]

    def _class(self, kind: type) -> list[Any]:
        if issubclass(kind, enum.Enum):
            return [kind.__qualname__, *([one.name, self.of(one.value, one.name)] for one in kind)]
        own = {name: value for name, value in vars(kind).items() if name not in INCIDENTAL}
        bases = [self.of(base, base.__name__) for base in kind.__bases__]
        return [kind.__qualname__, *bases, *([name, self.of(value, repr(name))] for name, value in own.items())]


def _parts(code: types.CodeType) -> Iterator[types.CodeType]:
    """Return code and the code of the functions inside it."""
    yield code
    for value in code.co_consts:
        if isinstance(value, types.CodeType):
            yield from _parts(value)


def _globals(code: types.CodeType) -> list[str]:
    """Return the global names that code, and the functions inside it, read."""
    read = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")
    return [str(step.argval) for part in _parts(code) for step in dis.get_instructions(part) if step.opname in read]
