"""Methods, metrics, objectives, data sets and networks from outside the library: files in plugins/, and installed packages.

A plug-in is a module whose functions register themselves, for instance by `@sl.METHODS.register(...)`. It is imported when a
name is not in a table, or when all names are asked for.
"""

import functools
import importlib.util
import sys
import threading
from importlib.metadata import entry_points
from pathlib import Path

from saliency_lib import paths
from saliency_lib.core.registry import Registry

GROUP = "saliency_compendium"  # of entry points: saliency_compendium.methods, .metrics, .objectives, .datasets, .models
PACKAGE = "saliency_plugins"  # under which the files in plugins/ are imported
_loading = threading.RLock()
_loaded: set[str] = set()  # what has been imported, or is being imported


def _import_file(file: Path) -> None:
    name = f"{PACKAGE}.{file.stem}"
    if name in _loaded:
        return
    _loaded.add(name)
    found = importlib.util.spec_from_file_location(name, file)
    if found is None or found.loader is None:
        raise ImportError(f"{paths.relative(file)} cannot be imported")
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module
    try:
        found.loader.exec_module(module)
    except BaseException as error:
        _loaded.discard(name)
        del sys.modules[name]
        if not isinstance(error, Exception):
            raise
        raise ImportError(
            f"the plug-in {paths.relative(file)} cannot be imported ({type(error).__name__}: {error}); correct it, or move "
            f"it out of {paths.relative(file.parent)}/"
        ) from error


def _import_packages(table: Registry) -> None:
    for point in entry_points(group=f"{GROUP}.{table.kind}s"):
        package = point.dist.name if point.dist else point.value
        key = f"{table.kind} {point.name} {point.value}"
        if key in _loaded:
            continue
        _loaded.add(key)
        try:
            point.load()
        except Exception as error:
            _loaded.discard(key)
            raise ImportError(
                f"the plug-in {point.name!r} of the package {package} cannot be imported ({type(error).__name__}: {error}); "
                f"`pip uninstall {package}` removes it"
            ) from error
        if not table.has(point.name):
            raise ImportError(
                f"the package {package} announces the {table.kind} {point.name!r} and does not register it; decorate the "
                "function by `register(...)` of the table"
            )


def _import_all(table: Registry) -> None:
    """Import the plug-ins that may have entries of a table: all files plugins/*.py, and packages that announce some.

    Raises:
        ImportError: one cannot be imported; the message names it.
    """
    with _loading:
        for file in sorted(paths.PLUGINS.glob("*.py")):
            if not file.name.startswith("_"):
                _import_file(file)
        _import_packages(table)


def accept_plugins(table: Registry) -> None:
    """Let a table look for a name that it does not have among the plug-ins."""
    table.more(functools.partial(_import_all, table))
