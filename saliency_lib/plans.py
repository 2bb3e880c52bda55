"""Plans: which notebooks run with which parameters. Read by the Snakefile and the report; imports nothing heavy."""

import itertools
import json
from dataclasses import dataclass
from pathlib import Path

import yaml

from saliency_lib import paths
from saliency_lib.registry import no_such

RUNS = paths.OUTPUTS / "runs"  # the executed notebooks, runs/<plan>/<combination>/<notebook>.ipynb
FIELDS = ("title", "parameters", "sweep", "notebooks")


@dataclass(frozen=True)
class Step:
    """One notebook with one combination of parameters."""

    plan: str
    combination: str
    notebook: str
    parameters: dict[str, object]
    file: str

    @property
    def output(self) -> Path:
        """The executed notebook."""
        return RUNS / self.plan / self.combination / f"{self.notebook}.ipynb"

    @property
    def command(self) -> str:
        """The papermill line that makes the output."""
        words = " ".join(f"-p {name} {value}" for name, value in self.parameters.items())
        notebook = paths.relative(paths.NOTEBOOKS / f"{self.notebook}.ipynb")
        return f"papermill {notebook} {paths.relative(self.output)} -f {self.file} {words}".strip()


def names() -> list[str]:
    """The plans there are: the files of params/plans/."""
    return sorted(file.stem for file in (paths.PARAMS / "plans").glob("*.yaml"))


def declared(notebook: str) -> set[str]:
    """The parameters that a notebook declares in its cell tagged `parameters`."""
    file = paths.NOTEBOOKS / f"{notebook}.ipynb"
    if not file.is_file():
        raise no_such("notebook", notebook, (path.stem for path in paths.NOTEBOOKS.glob("*.ipynb")))
    cells = json.loads(file.read_text())["cells"]
    lines = [line for cell in cells if "parameters" in cell["metadata"].get("tags", []) for line in cell["source"]]
    return {line.split(":", 1)[0].strip() for line in lines if ":" in line}


def read(plan: str) -> dict:
    """The content of params/plans/<plan>.yaml.

    Raises:
        ValueError: no such plan, or a field that plans do not have.
    """
    if plan not in names():
        raise no_such("plan", plan, names())
    content = yaml.safe_load((paths.PARAMS / "plans" / f"{plan}.yaml").read_text())
    for field in content:
        if field not in FIELDS:
            raise no_such(f"field of plan {plan!r}", field, FIELDS)
    return content


def steps(plan: str) -> list[Step]:
    """Every notebook run of a plan, in the order of its notebooks.

    Raises:
        ValueError: a parameter that one of the notebooks does not declare.
    """
    content = read(plan)
    sweep = content.get("sweep") or {}
    result = []
    for values in itertools.product(*sweep.values()):
        chosen = dict(zip(sweep, values, strict=True))
        combination = "-".join(f"{name}-{value}" for name, value in chosen.items()) or "run"
        for notebook, own in content["notebooks"].items():
            parameters = chosen | (own or {})
            known = declared(notebook)
            for name in (*parameters, *yaml.safe_load((paths.ROOT / content["parameters"]).read_text())):
                if name not in known:
                    raise no_such(f"parameter of {notebook} in plan {plan!r}", name, known)
            result.append(Step(plan, combination, notebook, parameters, content["parameters"]))
    return result


def needed_by(step: Step) -> list[Path]:
    """The outputs that a step builds on: those of the earlier stages (01 before 02 before 03 ...) of its combination."""
    stage = step.notebook[:2]
    return [other.output for other in steps(step.plan) if other.combination == step.combination and other.notebook[:2] < stage]
