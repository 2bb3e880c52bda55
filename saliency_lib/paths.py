"""The folders of the project: the only module that knows where they are."""

import os
from pathlib import Path

_LIBRARY = Path(__file__).resolve().parent
_INSTALLED = (_LIBRARY / "params").is_dir()  # a wheel carries the recipes inside the package


def _checkout() -> Path | None:
    """Return the folder of the checkout: the one that holds this package, or else the nearest one above the working folder."""
    candidates = [Path.cwd(), *Path.cwd().parents]
    for folder in candidates if _INSTALLED else [_LIBRARY.parent, *candidates]:
        if (folder / "params" / "training.yaml").is_file():
            return folder
    return None


CHECKOUT = _checkout()  # None if the library is used outside a checkout
ROOT = CHECKOUT or Path.cwd()
NOTEBOOKS = ROOT / "notebooks"  # the numbered notebooks with their blessed outputs
PARAMS = _LIBRARY / "params" if _INSTALLED and CHECKOUT is None else ROOT / "params"  # recipes, flat parameter files, plans
DATA = Path(os.environ.get("SALIENCY_DATA", ROOT / "data"))  # data sets and downloaded weights; never written by a run
OUTPUTS = Path(os.environ.get("SALIENCY_OUTPUTS", ROOT / "outputs"))  # the store, executed notebooks, the report
PLUGINS = Path(os.environ.get("SALIENCY_PLUGINS", ROOT / "plugins"))  # methods and more of one's own


def inside(folder: Path, name: str) -> Path:
    """Return the path `folder/name`, and refuse a name that leads out of the folder.

    Raises:
        ValueError: `name` is absolute, empty or leads out of `folder`, for instance by a link.
    """
    path = Path(os.path.realpath(folder / name))  # not resolve(), which raises for a loop of links
    if not name or not path.is_relative_to(folder.resolve()) or path == folder.resolve():
        raise ValueError(
            f"{name!r} does not name something inside {relative(folder)}/; use a plain name without '..', and no link that leads "
            "out of that folder"
        )
    return path


def made(folder: Path) -> Path:
    """Create a folder inside data/ or outputs/ if it does not exist, and return it.

    Outside a checkout, data/ and outputs/ themselves are never created without being asked for.

    Raises:
        FileNotFoundError: there is no checkout, no such environment variable, and no folder data/ or outputs/ to write to.
    """
    for top, variable in ((DATA, "SALIENCY_DATA"), (OUTPUTS, "SALIENCY_OUTPUTS")):
        if CHECKOUT is None and variable not in os.environ and folder.is_relative_to(top) and not top.is_dir():
            raise FileNotFoundError(
                f"there is no folder {top} to write to; create it, set {variable} to another folder, "
                "or start Python inside a checkout of saliency-compendium"
            )
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def relative(path: Path) -> str:
    """Return the path as text, relative to the project if it is inside it."""
    path = Path(path)
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)
