"""Where everything lies: the only module that knows a folder of the project."""

import os
from pathlib import Path


def _project() -> Path:
    """The folder of the checkout: that of the installed package, else the nearest one above the caller's."""
    here = Path(__file__).resolve().parent.parent
    for folder in (here, Path.cwd(), *Path.cwd().parents):
        if (folder / "params" / "training.yaml").is_file():
            return folder
    raise FileNotFoundError(
        f"the project is neither at {here} nor above {Path.cwd()} (no params/training.yaml there); "
        "install the package with `pip install -e .` from a checkout, or run inside one"
    )


ROOT = _project()
NOTEBOOKS = ROOT / "notebooks"  # the numbered notebooks with their blessed outputs
PARAMS = ROOT / "params"  # recipes, flat parameter files, plans
DATA = Path(os.environ.get("SALIENCY_DATA", ROOT / "data"))  # data sets and downloaded weights; never written by a run
OUTPUTS = Path(os.environ.get("SALIENCY_OUTPUTS", ROOT / "outputs"))  # the store, executed notebooks, the report


def inside(folder: Path, name: str) -> Path:
    """The path `folder/name`, refused where it would leave `folder`.

    Raises:
        ValueError: `name` is absolute, empty or climbs out of `folder`.
    """
    path = (folder / name).resolve()
    if not name or not path.is_relative_to(folder.resolve()) or path == folder.resolve():
        raise ValueError(f"{name!r} does not name something inside {relative(folder)}/; use a plain name without '..'")
    return path


def relative(path: Path) -> str:
    """The path as text, relative to the project where it lies inside it."""
    path = Path(path)
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)
