"""Plans: which notebooks run with which parameters. Read by the Snakefile and the report; imports nothing heavy."""

import ast
import itertools
import json
import re
import shlex
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
        notebook = paths.relative(paths.NOTEBOOKS / f"{self.notebook}.ipynb")
        words = ["papermill", notebook, paths.relative(self.output), "-f", self.file]
        for name, value in self.parameters.items():
            words += ["-p", name, str(value)]
        return shlex.join(words)


def names() -> list[str]:
    """The plans there are: the files of params/plans/."""
    return sorted(file.stem for file in (paths.PARAMS / "plans").glob("*.yaml"))


def literals(source: str) -> dict[str, object] | None:
    """The values of a cell that assigns literals and does nothing else; None for any other cell."""
    values: dict[str, object] = {}
    try:
        for node in ast.parse(source).body:
            target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0] if isinstance(node, ast.Assign) else None
            if not isinstance(target, ast.Name) or node.value is None:
                return None
            values[target.id] = ast.literal_eval(node.value)
    except (SyntaxError, ValueError):
        return None
    return values


def defaults(notebook: str) -> dict[str, object]:
    """The parameters that a notebook declares in its cell tagged `parameters`, with their default values.

    Raises:
        ValueError: no such notebook, or one without that cell.
    """
    file = paths.NOTEBOOKS / f"{notebook}.ipynb"
    if not file.is_file():
        raise no_such("notebook", notebook, (path.stem for path in paths.NOTEBOOKS.glob("*.ipynb")))
    cells = json.loads(file.read_text())["cells"]
    tagged = ["".join(cell["source"]) for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    values = literals(tagged[0]) if len(tagged) == 1 else None
    if values is None:
        raise ValueError(f"{paths.relative(file)} must have one cell tagged `parameters` that assigns literals only")
    return values


def read(plan: str) -> dict:
    """The content of params/plans/<plan>.yaml.

    Raises:
        ValueError: no such plan, or a field that plans do not have.
    """
    if plan not in names():
        raise no_such("plan", plan, names())
    content = yaml.safe_load((paths.PARAMS / "plans" / f"{plan}.yaml").read_text())
    if not isinstance(content, dict) or not isinstance(content.get("notebooks"), dict) or "parameters" not in content:
        raise ValueError(f"plan {plan!r} needs the fields parameters (a file) and notebooks (a table of names)")
    for name, values in (content.get("sweep") or {}).items():
        if not isinstance(values, list) or not values:
            raise ValueError(f"sweep of {name} in plan {plan!r} must be a list of values, got {values!r}")
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
        combination = re.sub(r"[^\w.=-]+", "+", "-".join(f"{name}-{value}" for name, value in chosen.items())) or "run"
        for notebook, own in content["notebooks"].items():
            parameters = chosen | (own or {})
            known = defaults(notebook)
            for name in (*parameters, *yaml.safe_load((paths.ROOT / content["parameters"]).read_text())):
                if name not in known:
                    raise no_such(f"parameter of {notebook} in plan {plan!r}", name, known)
            result.append(Step(plan, combination, notebook, parameters, content["parameters"]))
    return result


def needed_by(step: Step) -> list[Path]:
    """The outputs that a step builds on: those of the earlier stages (01 before 02 before 03 ...) of its combination."""
    stage = step.notebook[:2]
    return [other.output for other in steps(step.plan) if other.combination == step.combination and other.notebook[:2] < stage]
