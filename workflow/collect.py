"""Copy the tables that finished plans keep into data/measured/: `python -m workflow.collect PLAN ...`."""

import shutil
import sys
from functools import partial
from pathlib import Path
from typing import Any

from saliency_lib import paths
from saliency_lib.artefacts import tables
from saliency_lib.core.files import replace_file
from saliency_lib.core.options import no_such
from workflow import plans


def kept(plan: str) -> dict[str, plans.Step]:
    """Return the steps of a plan whose tables are kept, by the name that the tables get.

    Raises:
        ValueError: an entry of `kept` does not describe exactly one step.
    """
    content, found = plans.read(plan), {}
    for name, wanted in content.kept.items():
        for key in wanted:
            if key not in ("notebook", *content.sweep):
                raise no_such(f"field of {name} in kept of plan {plan!r}", key, ("notebook", *content.sweep))
        alike = [step for step in plans.steps(plan) if wanted.items() <= {"notebook": step.notebook, **step.swept}.items()]
        if len(alike) != 1:
            raise ValueError(f"{name} in kept of plan {plan!r} describes {len(alike)} of its notebook runs, not one: {wanted}")
        found[name] = alike[0]
    return found


def tables_of(step: plans.Step) -> list[Path]:
    """Return the sealed tables in outputs/tables/ that a step has made.

    Raises:
        ValueError: a table was changed after it was made.
        FileNotFoundError: there is no table with the parameters of the step.
    """
    files = sorted((paths.OUTPUTS / "tables").glob(f"{step.notebook}-*/*.csv"))
    parameters = _deciding(step.in_full)
    made = [file for file in files if _deciding(tables.read_rows(file)[1]["parameters"]) == parameters]
    if not made:
        folder = paths.relative(paths.OUTPUTS / "tables")
        raise FileNotFoundError(f"{folder} has no table made by `{step.command}`; run `make measured MEASURED={step.plan}`")
    return made


def _deciding(parameters: dict[str, Any]) -> dict[str, str]:
    """Return the parameters of a run as text, without that which changes its duration alone."""
    return {name: str(value) for name, value in parameters.items() if name != "processes"}


def collect(chosen: list[str]) -> tuple[list[Path], list[str]]:
    """Copy the kept tables of plans, each with its JSON file; nothing is copied if one of them is missing.

    A plan that says its hours may be measured in parts: what there is of it is copied.

    Returns:
        the tables in data/measured/, and the names whose tables are missing yet.
    """
    folder, copies, missing = paths.ROOT / "data" / "measured", {}, []
    for plan in chosen:
        for name, step in kept(plan).items():
            try:
                copies |= {folder / f"{name}_{file.name}": file for file in tables_of(step)}
            except FileNotFoundError:
                if plans.read(plan).hours is None:
                    raise
                missing.append(name)
    for target, file in copies.items():
        replace_file(target, partial(shutil.copyfile, file))
        replace_file(target.with_suffix(".json"), partial(shutil.copyfile, file.with_suffix(".json")))
    return list(copies), missing


if __name__ == "__main__":
    try:
        made, missing = collect(sys.argv[1:])
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"workflow.collect: {error}")
    print(*map(paths.relative, made), *(f"not measured yet: {name}" for name in missing), sep="\n")
