"""What a function does, as a digest: its compiled code, the values it holds, and the functions of its project that it names.

The code that runs is what counts. A source file may have been edited since it was imported, and comments change nothing.
"""

import contextlib
import dis
import enum
import functools
import hashlib
import importlib.util
import operator
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
PLAIN: tuple[type, ...] = (type(None), bool, int, float, complex, str, bytes, type(...), range, slice, PurePath)
PLAIN += (np.generic, torch.dtype, torch.device, torch.Size)
INCIDENTAL = {"__module__", "__dict__", "__weakref__", "__annotations__", "__firstlineno__", "__static_attributes__"}
INCIDENTAL |= {"__dataclass_fields__", "__dataclass_params__", "__abstractmethods__", "_abc_impl", "__annotate_func__"}
WRAPPERS = (staticmethod, classmethod, functools.cached_property, property)
PICKERS = (operator.itemgetter, operator.attrgetter, operator.methodcaller)


def is_ours(function: Callable[..., Any]) -> bool:
    """Return whether a function is written in this library, whatever name a decorator has given it."""
    home = getattr(function, "__globals__", {}).get("__name__") or ""
    return home.partition(".")[0] == LIBRARY


def code_sha256(function: Callable[..., Any]) -> str:
    """Return the SHA-256 of what a function does.

    It covers the compiled code, default values, closure and global values, the functions and classes of the same package and of
    files that are not installed, as far as the code names them, also those that it imports while it runs or that a decorator of
    another package wraps, and the version of the function's package. Other packages count by the names that are used. It differs
    between minor versions of Python, whose code differs.

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
    top = name.partition(".")[0]
    if name in sys.modules:
        file = getattr(sys.modules[name], "__file__", None)
    else:
        spec = None
        with contextlib.suppress(ImportError, ValueError):
            spec = importlib.util.find_spec(top)
        file = spec.origin if spec and spec.has_location else None
    if file is None:
        return top in sys.stdlib_module_names
    folders = {sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib")}
    return any(Path(file).is_relative_to(folder) for folder in folders)


def _name(value: Any) -> str:
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', None) or type(value).__qualname__}"


class _Description:
    """Describe values as nested lists of texts. What is met again is named by its number, so that circles end."""

    def __init__(self, package: str):
        self.package = "" if package in sys.stdlib_module_names else package
        self.met: dict[int, tuple[int, Any]] = {}
        self.modules: set[tuple[str, types.CodeType]] = set()

    def is_own(self, value: Any) -> bool:
        """Return whether a function, class or module is of the same package or of a file that is not installed."""
        space = getattr(value, "__globals__", None)
        names = (getattr(value, name, None) for name in ("__module__", "__name__"))
        home = space.get("__name__", "") if isinstance(space, dict) else next(filter(None, names), "")
        return self._is_home(str(home))

    def _is_home(self, module: str) -> bool:
        top = module.partition(".")[0]
        return top != LIBRARY and (top == self.package or not _installed(module))

    def of(self, value: Any, where: str) -> Any:
        """Return the description of a value; `where` names it in errors."""
        own = self.is_own(type(value))
        if isinstance(value, PLAIN) and not own:
            return f"{type(value).__name__} {value!r}"
        if id(value) in self.met:
            return f"met {self.met[id(value)][0]}"
        self.met[id(value)] = (len(self.met), value)
        content = self._content(value, where)
        if (own and not isinstance(value, type)) or isinstance(value, nn.Module):
            return ["instance", content, self.of(type(value), where), self.of(object.__getstate__(value), where)]
        return content if content is not None else self._other(value, where)

    def _content(self, value: Any, where: str) -> Any:
        """Describe a plain value, an array, a container, a module, a class or a function; None if it is none of these."""
        if isinstance(value, PLAIN):
            return repr(value)
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
        if isinstance(value, types.ModuleType):
            return value.__name__
        if isinstance(value, types.FunctionType):
            return self._function(value) if self.is_own(value) else self._wrapper(value)
        if isinstance(value, type):
            return self._class(value) if self.is_own(value) else _name(value)
        return None

    def _other(self, value: Any, where: str) -> Any:
        """Describe what wraps other values, and what is written in C."""
        if isinstance(value, (functools.partial, types.MethodType, *WRAPPERS)) or hasattr(value, "__wrapped__"):
            names = ("func", "args", "keywords", "__func__", "__self__", "fget", "fset", "__wrapped__")
            parts = {name: getattr(value, name) for name in names if getattr(value, name, None) is not None}
            return [type(value).__name__, self.of(parts, where)]
        if isinstance(value, re.Pattern):
            return ["pattern", repr(value.pattern), value.flags]
        if isinstance(value, PICKERS):
            return self.of(value.__reduce__(), where)
        holder = getattr(value, "__self__", None)
        if isinstance(value, types.BuiltinMethodType) and not isinstance(holder, type | types.ModuleType | None):
            return [value.__name__, self.of(holder, where)]
        if callable(value) and not hasattr(value, "__dict__"):  # written in C
            return _name(value)
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
            parts.append([name, self._named(cell.cell_contents, name, code) if with_value else "empty"])
        found = [(name, space[name]) for name in sorted(set(_globals(code))) if name in space]
        found += [(module.__name__, module) for module in self._imported(code, space.get("__package__"))]
        return parts + [[name, self._named(value, name, code)] for name, value in found]

    def _imported(self, code: types.CodeType, package: str | None) -> Iterator[types.ModuleType]:
        """Yield the modules of the project that code, and the functions inside it, import while they run."""
        for part in _parts(code):
            steps = [step for step in dis.get_instructions(part) if step.opname != "EXTENDED_ARG"]
            for level, names, step in zip(steps, steps[1:], steps[2:], strict=False):
                if step.opname == "IMPORT_NAME" and (level.argval or self._is_home(step.argval)):
                    with contextlib.suppress(ImportError):  # it would fail when it runs
                        yield __import__(step.argval, {"__package__": package}, None, names.argval or (), level.argval)

    def _wrapper(self, function: types.FunctionType) -> Any:
        """Describe a function of another package by its name, and if it wraps functions, for instance as a decorator, by those.

        Of the library's own functions only those count that wrap functions of the project.
        """
        held = [cell.cell_contents for cell in function.__closure__ or () if cell != types.CellType()]
        held += [getattr(function, "__wrapped__", None), *dict(getattr(function, "registry", {})).values()]
        parts = [self._held(one) for one in held if one is not None and (self._is_of_project(one) or not is_ours(function))]
        return [function.__code__.co_qualname, *parts] if parts else _name(function)

    def _held(self, value: Any) -> Any:
        if isinstance(value, types.FunctionType) or self._is_of_project(value):
            return self.of(value, _name(value))
        return _name(getattr(value, "__self__", value))

    def _is_of_project(self, value: Any) -> bool:
        return self.is_own(value if isinstance(value, types.FunctionType | type) else type(value))

    def _named(self, value: Any, name: str, code: types.CodeType) -> Any:
        """Describe a value that code names; of a module of the project, what the code may name of it."""
        if not isinstance(value, types.ModuleType) or not self.is_own(value) or (value.__name__, code) in self.modules:
            return self.of(value, repr(name))
        self.modules.add((value.__name__, code))
        attributes = sorted({one for part in _parts(code) for one in part.co_names if hasattr(value, one)})
        return [value.__name__, *([one, self._named(getattr(value, one), f"{name}.{one}", code)] for one in attributes)]

    def _code(self, code: types.CodeType, where: str) -> list[Any]:
        names = [code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars]
        counts = [code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags]
        return [code.co_code.hex(), repr(names), repr(counts), *(self.of(value, where) for value in code.co_consts)]

    def _class(self, kind: type) -> list[Any]:
        own = {name: value for name, value in vars(kind).items() if name not in INCIDENTAL}
        if issubclass(kind, enum.Enum):
            own = {name: value for name, value in own.items() if isinstance(value, (types.FunctionType, *WRAPPERS))}
            own |= {one.name: one.value for one in kind}
        bases = [self.of(base, base.__name__) for base in (*kind.__bases__, type(kind))]
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
