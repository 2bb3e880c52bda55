"""The notebooks: executed, thin, written to be read; the parameters they refuse; the plans that run them."""

import ast
import io
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import papermill
import pytest
import yaml
from click.testing import CliRunner
from matplotlib.figure import Figure
from papermill.cli import papermill as papermill_command
from PIL import Image as Picture

import saliency_lib as sl
from saliency_lib import paths
from saliency_lib.notebook import run as run_module
from saliency_lib.notebook.blessed import Blessed
from saliency_lib.notebook.run import Run
from workflow import plans
from workflow.tidy import tidy

NOTEBOOKS = sorted(paths.NOTEBOOKS.glob("*.ipynb"))
BIN = Path(sys.executable).parent
FOREIGN = {"captum", "pytorch_grad_cam", "quantus", "notebooks", "functools", "tempfile"}  # of the notebook on other packages


def cells(file, kind):
    return [cell for cell in nbformat.read(file, as_version=4).cells if cell.cell_type == kind and cell.source.strip()]


def each(function):
    return pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)(function)


def test_what_is_stored_of_a_run_is_what_a_reader_needs(tmp_path):
    bar, number = (nbformat.v4.new_output("display_data", {"text/plain": text}) for text in ("  0%|          | 0/4", "95 %"))
    cell = nbformat.v4.new_code_cell("x", outputs=[bar, number], metadata={"execution": {}, "tags": ["a"], "papermill": {}})
    kernel = {"kernelspec": {"name": "python3", "display_name": "p"}}
    run = kernel | {"language_info": {"name": "python"}, "papermill": {}, "widgets": {}}
    nbformat.write(nbformat.v4.new_notebook(cells=[cell, nbformat.v4.new_markdown_cell("y")], metadata=run), tmp_path / "a.ipynb")
    tidy(tmp_path / "a.ipynb")
    found = nbformat.read(tmp_path / "a.ipynb", as_version=4)
    assert set(found.metadata) == {"kernelspec"} and found.cells[0].metadata == {"tags": ["a"]}
    assert found.cells[0].outputs == [number] and found.cells[1].source == "y"


@each
def test_it_was_executed_from_top_to_bottom_without_error(file):
    code = cells(file, "code")
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert not [output for output in outputs if output.output_type in ("error", "stream")]
    assert not [output for output in outputs if re.search(r"\bnan\b", output.get("data", {}).get("text/html", ""), re.IGNORECASE)]


@each
def test_it_defines_nothing_and_names_no_path_or_device(file):
    for cell in cells(file, "code"):
        tree = ast.parse(cell.source)
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, ast.While)
        assert not [node for node in ast.walk(tree) if isinstance(node, kinds)]
        imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        imported |= {node.module.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert imported <= {"saliency_lib"} | (FOREIGN if file.stem == "06_your_own" else set())
        assert not re.search(r"\.cuda\(|\.to\(|outputs/|data/\w|/home|/work", re.sub(r"#.*", "", cell.source))


@each
def test_its_cells_are_short_and_it_has_more_prose_than_code(file):
    parameters, *lengths = [len(cell.source.splitlines()) for cell in cells(file, "code")]
    assert statistics.median(lengths) <= 5 and max(lengths) <= 12 and parameters <= 14
    assert sum(lengths) <= (75 if file.stem.startswith("04") else 60)  # a paper's notebook also shows what its verdicts survive
    words = sum(len(cell.source.split()) for cell in cells(file, "markdown"))
    assert words >= sum(
        len(cell.source.split()) for cell in cells(file, "code") if "parameters" not in cell.metadata.get("tags", [])
    )


@each
def test_it_has_a_question_a_formula_a_citation_parameters_and_a_colophon(file):
    first = cells(file, "markdown")[0].source
    assert first.startswith(f"# {file.stem[:2]} · ") and "$" in first and re.search(r"\b(19|20)\d\d\b", first)
    tagged = [cell for cell in cells(file, "code") if "parameters" in cell.metadata.get("tags", [])]
    assert [cell.source for cell in tagged] == [cells(file, "code")[0].source]
    last = cells(file, "code")[-1]
    assert last.source.startswith("run.colophon(") and "nbval-ignore-output" in last.metadata["tags"]
    assert sum("headline" in cell.metadata.get("tags", []) for cell in cells(file, "code")) == 1


@each
def test_every_parameter_is_typed_and_explained_and_papermill_shows_it(file):
    source = cells(file, "code")[0].source
    for line in source.splitlines():
        assert re.fullmatch(r"\w+: (str|int|float|bool) = .+  # .+", line), line
    shown = CliRunner().invoke(papermill_command, ["--help-notebook", str(file)], catch_exceptions=False).output
    for name in plans.defaults(file.stem):
        assert re.search(rf"{name}: \w+ \(default .*\)\s+\S", shown), (name, shown)


@each
def test_its_defaults_are_those_of_its_cell_of_parameters(file):
    declared = papermill.inspect_notebook(str(file))
    defaults = {name: ast.literal_eval(facts["default"]) for name, facts in declared.items()}
    kept = plans.defaults(file.stem)
    assert kept == defaults and [type(value) for value in kept.values()] == [type(value) for value in defaults.values()]


@each
def test_it_hands_over_its_own_name_and_its_parameters(file):
    assert f'run = sl.notebook.Run("{file.stem}", globals())' in cells(file, "code")[1].source


@each
def test_its_tables_are_compared_as_data_and_not_as_text(file):
    *before, comparison, _ = cells(file, "code")
    assert comparison.source == "run.agreement()" and "nbval-ignore-output" not in comparison.metadata.get("tags", [])
    assert comparison.outputs[0]["data"]["text/markdown"].startswith("Agrees with the blessed run: ")
    names = []
    for cell in before:
        calls = [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Call)]
        written = [(ast.unparse(call.func), call) for call in calls]
        names += [ast.literal_eval(call.args[1]) for name, call in written if name in ("run.table", "run.remember")]
        if {"run.table", "sl.notebook.table"} & {name for name, _ in written}:
            assert "nbval-ignore-output" in cell.metadata["tags"], cell.source
    assert names and names == list(Blessed.of(file.stem).tables)


def run(**changed):
    return Run("03_deletion", {"In": ["", ""], "sl": sl, "open": open, **plans.defaults("03_deletion"), **changed})


def test_settings_of_published_weights_show_no_empty_value():
    assert "nan" not in sl.notebook.settings(sl.Training("photos", "efficientnet_lite0")).data.lower()


def test_a_run_knows_its_parameters_and_its_command():
    assert run().command == "papermill notebooks/03_deletion.ipynb out.ipynb"
    changed = run(dataset="my photos", steps=7, recipe="standard")
    assert {name: changed.parameters[name] for name in ("dataset", "steps", "recipe")} == {
        "dataset": "my photos",
        "steps": 7,
        "recipe": "standard",
    }
    assert changed.command.endswith("out.ipynb -p dataset 'my photos' -p recipe standard -p steps 7")


def test_the_same_value_passed_again_is_not_in_the_command():
    assert run(steps=28).command == "papermill notebooks/03_deletion.ipynb out.ipynb"


def test_a_parameter_edited_in_the_notebook_is_in_the_command_when_cells_run_again():
    edited = run(steps=9, run=run(), count=100, caption="Deletion")
    assert edited.command == "papermill notebooks/03_deletion.ipynb out.ipynb -p steps 9"


@pytest.mark.parametrize(
    ("injected", "message"),
    [
        ({"datset": "mnist5k"}, "parameter of 03_deletion 'datset' is not known; did you mean 'dataset'"),
        ({"datset": None}, "parameter of 03_deletion 'datset' is not known; did you mean 'dataset'"),
        ({"steps": "7"}, "parameter steps of 03_deletion must be int like 28, got '7'"),
        ({"steps": 7.5}, "must be int"),
        ({"steps": True}, "must be int"),
        ({"dataset": 5}, "parameter dataset of 03_deletion must be str"),
        ({"recipe": 5}, "parameter recipe of 03_deletion must be str or None, got 5"),
    ],
)
def test_an_unknown_parameter_or_another_type_is_refused(injected, message):
    with pytest.raises(ValueError, match=message):
        run(**injected)


def test_a_notebook_without_its_parameters_or_its_defaults_is_refused():
    with pytest.raises(ValueError, match="parameter dataset of 03_deletion is missing; set it in the cell of parameters"):
        Run("03_deletion", {"steps": 28})
    with pytest.raises(FileNotFoundError, match=r"blessed/03_mine.json is missing; `make bless` writes it"):
        Run("03_mine", {"steps": 28})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"modle": "cnn"}, "parameter of 03_deletion 'modle' is not known; did you mean 'model'"),
        ({"model": "resnet51"}, "model 'resnet51' is not known"),
        ({"methods": "gradient edges"}, "lack the control 'random', the reference for every area; add 'random'"),
        ({"methods": "random gradcma"}, "method 'gradcma' is not known; did you mean 'gradcam'"),
    ],
)
def test_the_cells_of_a_notebook_refuse_a_wrong_parameter_before_any_work(changed, message, outputs):
    known = {"In": ["", ""], **plans.defaults("03_deletion"), **changed}
    with pytest.raises(ValueError, match=message):
        for cell in cells(paths.NOTEBOOKS / "03_deletion.ipynb", "code")[1:]:
            exec(cell.source, known)
    assert not outputs.exists()


@pytest.mark.slow
def test_papermill_fails_at_once_with_the_remedy(tmp_path):
    words = [BIN / "papermill", paths.NOTEBOOKS / "03_deletion.ipynb", tmp_path / "out.ipynb", "-p", "modle", "cnn"]
    environment = os.environ | {"SALIENCY_OUTPUTS": str(tmp_path / "outputs")}
    ended = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert ended.returncode != 0
    assert "parameter of 03_deletion 'modle' is not known; did you mean 'model'" in ended.stderr
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize("file", sorted(paths.PARAMS.glob("*.yaml")), ids=lambda file: file.stem)
def test_flat_parameter_files_fit_every_notebook_that_trains(file):
    content = yaml.safe_load(file.read_text())
    if "model" in content:
        trained = [notebook for notebook in NOTEBOOKS if "model" in plans.defaults(notebook.stem)]
        assert all(set(content) <= set(plans.defaults(notebook.stem)) for notebook in trained) and len(trained) > 8
        sl.Training(**content)


@pytest.mark.parametrize("plan", plans.names())
def test_every_plan_runs_declared_parameters_after_what_it_needs(plan):
    steps = plans.steps(plan)
    outputs = [step.output for step in steps]
    assert len(set(outputs)) == len(outputs)
    for step in steps:
        assert step.command.startswith(f"papermill notebooks/{step.notebook}.ipynb ")
        assert set(plans.needed_by(step)) == {other.output for other in steps if other.notebook[:2] < step.notebook[:2]}


def test_values_of_a_plan_are_quoted_for_the_shell(tmp_path, monkeypatch):
    (tmp_path / "plans").mkdir()
    plan = yaml.safe_load((paths.PARAMS / "plans" / "embedded.yaml").read_text())
    plan |= {"sweep": {"methods": ["gradient random; rm x"]}, "notebooks": {"03_deletion": {}}}
    (tmp_path / "plans" / "mine.yaml").write_text(yaml.safe_dump(plan))
    monkeypatch.setattr(paths, "PARAMS", tmp_path)
    (step,) = plans.steps("mine")
    assert step.command.endswith("-p methods 'gradient random; rm x'")
    assert step.output.parent.name == "methods-gradient+random+rm+x"


def test_bad_plans_are_refused(tmp_path, monkeypatch):
    (tmp_path / "plans").mkdir()
    good = yaml.safe_load((paths.PARAMS / "plans" / "embedded.yaml").read_text())
    monkeypatch.setattr(paths, "PARAMS", tmp_path)
    for change, message in [
        ({"sweep": {"modle": ["cnn"]}}, "parameter of 01_train in plan 'mine' 'modle' is not known; did you mean 'model'"),
        ({"notebooks": {"03_deletoin": {}}}, "notebook '03_deletoin' is not known; did you mean '03_deletion'"),
        ({"sweep": {"model": "cnn"}}, "sweep.model must be a valid list, got 'cnn'"),
        ({"notebooks": None}, "notebooks must be a valid dictionary, got None"),
        ({"swep": {}}, "field of plan 'swep' is not known; did you mean 'sweep'"),
    ]:
        (tmp_path / "plans" / "mine.yaml").write_text(yaml.safe_dump(good | change))
        with pytest.raises(ValueError, match=message):
            plans.steps("mine")
    with pytest.raises(ValueError, match="plan 'yours' is not known"):
        plans.steps("yours")


@pytest.mark.slow
def test_a_dry_run_of_the_batch_prints_the_papermill_lines(tmp_path):
    words = [BIN / "snakemake", "-n", "-p", "--nolock", "--cores", "2", "--forceall"]
    environment = os.environ | {"SALIENCY_OUTPUTS": str(tmp_path / "outputs")}
    printed = subprocess.run(words, capture_output=True, text=True, cwd=paths.ROOT, env=environment)
    assert printed.returncode == 0, printed.stderr
    lines = printed.stdout + printed.stderr
    for plan in ("embedded", "shapes", "photos", "benchmarks"):
        for step in plans.steps(plan):
            assert f"papermill notebooks/{step.notebook}.ipynb" in lines and f"-f {step.file}" in lines


@pytest.mark.parametrize("photograph", [False, True])
def test_a_figure_of_lines_takes_less_space_and_a_photograph_keeps_its_colours(photograph):
    figure = Figure()
    axes = figure.subplots()
    axes.plot([0, 1, 0], color="#0072B2")
    if photograph:
        axes.imshow(np.random.default_rng(1).random((80, 80, 3)))
    kept, whole = io.BytesIO(run_module._png(figure, 100)), io.BytesIO()
    figure.savefig(whole, format="png", dpi=100)
    one, other = Picture.open(kept), Picture.open(whole)
    assert one.mode == ("RGBA" if photograph else "P") and one.size == other.size
    assert len(kept.getvalue()) == len(whole.getvalue()) if photograph else len(kept.getvalue()) < 0.6 * len(whole.getvalue())
    assert np.abs(np.asarray(one.convert("RGB"), int) - np.asarray(other.convert("RGB"), int)).max() <= 2
