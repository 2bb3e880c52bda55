"""Plans: which notebooks run with which parameters. The Snakefile and the site read them; nothing heavy is imported.

A plan is a file params/plans/<name>.yaml:

    title        the title of the plan's pages on the site
    parameters   a flat file params/<name>.yaml; every notebook gets its parameters
    sweep        lists of values by parameter; every combination runs every notebook (left out: one run)
    notebooks    the notebooks, each with the parameters that only it gets
    beside       plans whose models and maps the site shows in this plan's chapter too
    paper        the plan at the paper's scale: a list of runs, each with its own `sweep` and `notebooks`, and `parameters` if
                 they are not params/paper.yaml
    kept         the tables that `make measured` copies to data/measured/<name>_<table>.csv, by name: the notebook, and the
                 swept values that tell its run from the others ({notebook: 03_allegiance, fill: black})
"""

import itertools
import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field

from saliency_lib import paths
from saliency_lib.core.options import no_such
from saliency_lib.core.validation import Validated

RUNS = paths.OUTPUTS / "runs"  # the executed notebooks, runs/<plan>/<combination>/<notebook>.ipynb
SCALES = ("embedded", "paper")
PAPERS = ("active_gradients", "guided_nonlinearity", "saliency_benchmark", "guided_training", "score_matching")
USUAL = {  # the plans that run if none is named
    "embedded": (*PAPERS, "embedded", "shapes", "time_series", "texts", "photos", "benchmarks", "questions", "your_own"),
    "paper": PAPERS,
}


class Run(Validated):
    """Notebooks that run with every combination of some swept parameters."""

    parameters: str = "params/paper.yaml"
    sweep: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field({})
    notebooks: dict[str, dict[str, Any] | None]


class Plan(Run):
    """The content of a plan's file; the run itself is the one at the embedded scale."""

    title: str
    parameters: str
    beside: list[str] = Field([])
    paper: Annotated[list[Run] | None, Field(min_length=1)] = None
    kept: dict[str, dict[str, Any]] = Field({})
    hours: Annotated[float, Field(gt=0)] | None = None  # on two cores; of a plan whose tables may not be measured yet


@dataclass(frozen=True)
class Step:
    """One notebook with one combination of parameters."""

    plan: str
    combination: str
    notebook: str
    parameters: dict[str, Any]
    file: str
    scale: str = "embedded"
    swept: dict[str, Any] = field(default_factory=dict)
    beside: tuple[str, ...] = ()

    @property
    def output(self) -> Path:
        """Return the path of the executed notebook."""
        return RUNS / self.plan / self.combination / f"{self.notebook}.ipynb"

    @property
    def command(self) -> str:
        """Return the papermill command that makes the output."""
        notebook = paths.relative(paths.NOTEBOOKS / f"{self.notebook}.ipynb")
        words = ["papermill", notebook, paths.relative(self.output), "-f", self.file]
        for name, value in self.parameters.items():
            words += ["-p", name, str(value)]
        return shlex.join(words)

    @property
    def in_full(self) -> dict[str, Any]:
        """Return all parameters of the run: the notebook's defaults, those of the file, and those of the plan."""
        return defaults(self.notebook) | yaml.safe_load((paths.ROOT / self.file).read_text()) | self.parameters


def names() -> list[str]:
    """Return the names of all plans."""
    return sorted(file.stem for file in (paths.PARAMS / "plans").glob("*.yaml"))


def defaults(notebook: str) -> dict[str, Any]:
    """Return the parameters of a notebook with their default values, from the JSON file beside its blessed outputs.

    Raises:
        ValueError: there is no such notebook.
    """
    file = paths.NOTEBOOKS / "blessed" / f"{notebook}.json"
    if not file.is_file():
        raise no_such("notebook", notebook, (path.stem for path in file.parent.glob("*.json")))
    return json.loads(file.read_text())["parameters"]


def read(plan: str) -> Plan:
    """Return the content of params/plans/<plan>.yaml.

    Raises:
        ValueError: there is no such plan, or its file is wrong; the message names the file, the field and the value.
    """
    if plan not in names():
        raise no_such("plan", plan, names())
    try:
        content = Plan.model_validate(yaml.safe_load((paths.PARAMS / "plans" / f"{plan}.yaml").read_text()))
        for other in content.beside:
            if other not in names():
                raise no_such("plan beside it", other, names())
        return content
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"params/plans/{plan}.yaml is not a valid plan: {error}") from None


def scales(plan: str) -> list[str]:
    """Return the scales at which a plan can run: `embedded`, and `paper` if the file describes it."""
    return [scale for scale in SCALES if scale == "embedded" or read(plan).paper]


def steps(plan: str, scale: str = "embedded") -> list[Step]:
    """Return every notebook run of a plan at one scale, in the order of its notebooks.

    Raises:
        ValueError: an unknown scale or one that the plan does not have, a parameter that one of the notebooks does not
            declare, or one notebook twice with the same combination.
    """
    if scale not in SCALES:
        raise no_such("scale", scale, SCALES)
    content, result = read(plan), {}
    runs = [content] if scale == "embedded" else content.paper
    if not runs:
        others = ", ".join(name for name in names() if scale in scales(name))
        raise ValueError(f"plan {plan!r} has no scale {scale!r}; plans that have it: {others}")
    for step in (step for run in runs for step in _steps(plan, scale, run, tuple(content.beside))):
        if step.output in result:
            raise ValueError(f"plan {plan!r} runs {step.notebook} twice with {step.combination}; sweep what differs")
        result[step.output] = step
    return list(result.values())


def _steps(plan: str, scale: str, run: Run, beside: tuple[str, ...]) -> Iterator[Step]:
    if not (paths.ROOT / run.parameters).is_file():
        raise ValueError(f"plan {plan!r} names the parameter file {run.parameters}, which does not exist")
    shared = yaml.safe_load((paths.ROOT / run.parameters).read_text())
    for values in itertools.product(*run.sweep.values()):
        swept = dict(zip(run.sweep, values, strict=True))
        words = [] if scale == "embedded" else [scale]  # the two scales never share a folder
        words += [f"{name}-{value}" for name, value in swept.items()]
        combination = re.sub(r"[^\w.=-]+", "+", "-".join(words)) or "run"
        for notebook, own in run.notebooks.items():
            parameters, declared = swept | (own or {}), defaults(notebook)
            for name in (*parameters, *shared):
                if name not in declared:
                    raise no_such(f"parameter of {notebook} in plan {plan!r}", name, declared)
            yield Step(plan, combination, notebook, parameters, run.parameters, scale, swept, beside)


def batch(chosen: str | None = None, scale: str = "embedded") -> list[Step]:
    """Return the steps of several plans.

    Args:
        chosen: the names of the plans, separated by commas or spaces; None chooses the usual ones at that scale.

    Raises:
        ValueError: as `steps` does.
    """
    if scale not in SCALES:
        raise no_such("scale", scale, SCALES)
    return [step for plan in (chosen.replace(",", " ").split() if chosen else USUAL[scale]) for step in steps(plan, scale)]


def needed_by(step: Step) -> list[Path]:
    """Return the outputs that a step builds on: earlier stages of its plan (01 before 02) with the same swept values.

    What several plans need is made once in the store, by the first plan that asks for it.
    """
    found = []
    for other in steps(step.plan, step.scale):
        alike = all(other.swept[name] == step.swept[name] for name in other.swept.keys() & step.swept.keys())
        if alike and other.notebook[:2] < step.notebook[:2]:
            found.append(other.output)
    return found
