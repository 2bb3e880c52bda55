"""Plans: which notebooks run with which parameters. Read by the Snakefile and the report; imports nothing heavy.

A plan is a file params/plans/<name>.yaml with these fields:

    title        the chapter's name in the report
    parameters   a flat file params/<name>.yaml that every notebook gets
    sweep        lists of parameters; every combination of their values runs every notebook (left out: one run)
    notebooks    the notebooks, each with the parameters that it gets besides
    beside       plans whose networks and maps its chapter of the report shows too
    paper        the plan at the paper's scale: a list of runs, each with a sweep and notebooks of its own, and with parameters,
                 which are params/paper.yaml unless said
"""

import itertools
import json
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from saliency_lib import paths
from saliency_lib.core.registry import no_such

RUNS = paths.OUTPUTS / "runs"  # the executed notebooks, runs/<plan>/<combination>/<notebook>.ipynb
SCALES = ("embedded", "paper")
RUN_FIELDS = ("parameters", "sweep", "notebooks")
FIELDS = ("title", *RUN_FIELDS, "beside", "paper")
PAPERS = ("active_gradients", "guided_nonlinearity", "saliency_benchmark", "guided_training", "score_matching")
USUAL = {  # the plans that run where none is named
    "embedded": (*PAPERS, "embedded", "shapes", "time_series", "photos", "benchmarks"),
    "paper": PAPERS,
}


@dataclass(frozen=True)
class Step:
    """One notebook with one combination of parameters."""

    plan: str
    combination: str
    notebook: str
    parameters: dict[str, object]
    file: str
    scale: str = "embedded"
    swept: dict[str, object] = field(default_factory=dict)
    beside: tuple[str, ...] = ()

    @property
    def output(self) -> Path:
        """The executed notebook."""
        return RUNS / self.plan / self.combination / f"{self.notebook}.ipynb"

    @property
    def command(self) -> str:
        """The papermill line that makes the output."""
        notebook = paths.relative(paths.NOTEBOOKS / f"{self.notebook}.ipynb")
        words = ["papermill", notebook, paths.relative(self.output), "-f", self.file]
        for name, value in self.parameters.items():
            words += ["-p", name, str(value)]
        return shlex.join(words)


def names() -> list[str]:
    """The plans there are: the files of params/plans/."""
    return sorted(file.stem for file in (paths.PARAMS / "plans").glob("*.yaml"))


def defaults(notebook: str) -> dict[str, object]:
    """Return the parameters of a notebook with their default values, from the JSON file beside its blessed outputs.

    Raises:
        ValueError: there is no such notebook.
    """
    file = paths.NOTEBOOKS / "blessed" / f"{notebook}.json"
    if not file.is_file():
        raise no_such("notebook", notebook, (path.stem for path in file.parent.glob("*.json")))
    return json.loads(file.read_text())["parameters"]


def read(plan: str) -> dict:
    """The content of params/plans/<plan>.yaml.

    Raises:
        ValueError: no such plan, or a field that plans do not have.
    """
    if plan not in names():
        raise no_such("plan", plan, names())
    content = yaml.safe_load((paths.PARAMS / "plans" / f"{plan}.yaml").read_text())
    if not isinstance(content, dict) or "parameters" not in content:
        raise ValueError(f"plan {plan!r} needs the fields parameters (a file) and notebooks (a table of names)")
    _check(f"plan {plan!r}", content, FIELDS)
    paper = content.get("paper", [])
    if not isinstance(paper, list) or ("paper" in content and not paper):
        raise ValueError(f"paper in plan {plan!r} must be a list of runs, each with a sweep and notebooks, got {paper!r}")
    for run in paper:
        _check(f"paper in plan {plan!r}", run, RUN_FIELDS)
    return content


def _check(place: str, content: object, known: tuple[str, ...]) -> None:
    if not isinstance(content, dict) or not isinstance(content.get("notebooks"), dict):
        raise ValueError(f"{place} needs the fields parameters (a file) and notebooks (a table of names)")
    for name, values in (content.get("sweep") or {}).items():
        if not isinstance(values, list) or not values:
            raise ValueError(f"sweep of {name} in {place} must be a list of values, got {values!r}")
    for key in content:
        if key not in known:
            raise no_such(f"field of {place}", key, known)


def scales(plan: str) -> list[str]:
    """The scales at which a plan can run: `embedded`, and `paper` where the file says what that is."""
    return [scale for scale in SCALES if scale == "embedded" or scale in read(plan)]


def steps(plan: str, scale: str = "embedded") -> list[Step]:
    """Every notebook run of a plan at one scale, in the order of its notebooks.

    Raises:
        ValueError: an unknown scale or one that the plan does not have, a parameter that one of the notebooks does not
            declare, or one notebook twice with the same combination.
    """
    if scale not in SCALES:
        raise no_such("scale", scale, SCALES)
    content, have = read(plan), scales(plan)
    if scale not in have:
        others = ", ".join(name for name in names() if scale in scales(name))
        raise ValueError(f"plan {plan!r} has no scale {scale!r}, only {', '.join(have)}; plans that have it: {others}")
    runs = [content] if scale == "embedded" else content[scale]
    result: dict[Path, Step] = {}
    for run in runs:
        for step in _run(plan, scale, {"parameters": f"params/{scale}.yaml"} | run, tuple(content.get("beside") or ())):
            if step.output in result:
                raise ValueError(f"plan {plan!r} runs {step.notebook} twice with {step.combination}; sweep what differs")
            result[step.output] = step
    return list(result.values())


def _run(plan: str, scale: str, run: dict, beside: tuple[str, ...]) -> Iterable[Step]:
    """The steps of one run: every combination of its sweep with every notebook."""
    sweep, file = run.get("sweep") or {}, run["parameters"]
    declared = {notebook: defaults(notebook) for notebook in run["notebooks"]}
    shared = yaml.safe_load((paths.ROOT / file).read_text())
    for values in itertools.product(*sweep.values()):
        swept = dict(zip(sweep, values, strict=True))
        words = [] if scale == "embedded" else [scale]  # the two scales never share a folder
        words += [f"{name}-{value}" for name, value in swept.items()]
        combination = re.sub(r"[^\w.=-]+", "+", "-".join(words)) or "run"
        for notebook, own in run["notebooks"].items():
            parameters = swept | (own or {})
            for name in (*parameters, *shared):
                if name not in declared[notebook]:
                    raise no_such(f"parameter of {notebook} in plan {plan!r}", name, declared[notebook])
            yield Step(plan, combination, notebook, parameters, file, scale, swept, beside)


def batch(chosen: str | None = None, scale: str = "embedded") -> list[Step]:
    """The steps of several plans, their names separated by commas; None is the usual ones at that scale.

    Raises:
        ValueError: as `steps` does.
    """
    if scale not in SCALES:
        raise no_such("scale", scale, SCALES)
    return [step for plan in (chosen.split(",") if chosen else USUAL[scale]) for step in steps(plan, scale)]


def needed_by(step: Step) -> list[Path]:
    """The outputs that a step builds on: earlier stages of its plan (01 before 02 ...) that agree in what both sweep.

    What plans share, the store makes once, whichever asks first.
    """
    found = []
    for other in steps(step.plan, step.scale):
        alike = all(other.swept[name] == step.swept[name] for name in other.swept.keys() & step.swept.keys())
        if alike and other.notebook[:2] < step.notebook[:2]:
            found.append(other.output)
    return found
