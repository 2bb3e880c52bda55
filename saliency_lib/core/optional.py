"""Packages that only some functions need: importing one that is missing names the extra to install."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path


def missing(package: str | None, extra: str) -> ModuleNotFoundError:
    """Return the error for an optional package that is not installed."""
    words = f"this needs {package}, which is not installed; run `pip install 'saliency-compendium[{extra}]'`"
    return ModuleNotFoundError(words, name=package)


@contextmanager
def optional(extra: str) -> Iterator[None]:
    """While active, an import that fails says which extra of this library to install.

    Args:
        extra: a name in `[project.optional-dependencies]` of pyproject.toml.

    Raises:
        ModuleNotFoundError: the package is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise missing(error.name, extra) from error


def need(package: str, extra: str) -> ModuleSpec:
    """Return where an optional package is installed, without importing it.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    found = find_spec(package)
    if found is None:
        raise missing(package, extra)
    return found


def packaged_file(package: str, *parts: str, extra: str) -> Path:
    """Return the path of a file that an optional package ships.

    Raises:
        ModuleNotFoundError: the package is not installed.
    """
    return Path(str(need(package, extra).origin)).parent.joinpath(*parts)
