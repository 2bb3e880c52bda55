"""The notebooks: executed, thin, written to be read; the parameters they refuse; the batch that runs them."""

import ast
import json
import os
import re
import shlex
import statistics
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pandas as pd
import pytest
import yaml

import saliency_lib as sl
from docs import site
from saliency_lib import paths
from saliency_lib.notebook import report
from workflow import plans

NOTEBOOKS = sorted(paths.NOTEBOOKS.glob("*.ipynb"))
BIN = Path(sys.executable).parent
README = paths.ROOT / "README.md"


def cells(file, kind):
    return [cell for cell in nbformat.read(file, as_version=4).cells if cell.cell_type == kind and cell.source.strip()]


def each(function):
    return pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)(function)


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
        imported = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
        assert imported in ([], ["saliency_lib"])
        assert not re.search(r"\.cuda\(|\.to\(|outputs/|data/\w|/home|/work", re.sub(r"#.*", "", cell.source))


@each
def test_its_cells_are_short_and_it_has_more_prose_than_code(file):
    lengths = [len(cell.source.splitlines()) for cell in cells(file, "code")]
    assert statistics.median(lengths) <= 5 and max(lengths) <= 12
    assert sum(lengths) <= 60
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
    assert cells(file, "code")[-1].source.startswith("run.colophon(")
    assert sum("headline" in cell.metadata.get("tags", []) for cell in cells(file, "code")) == 1


@each
def test_every_parameter_is_typed_and_explained_and_papermill_shows_it(file):
    source = cells(file, "code")[0].source
    for line in source.splitlines():
        assert re.fullmatch(r"\w+: (str|int|float|bool) = .+  # .+", line), line
    shown = subprocess.run([BIN / "papermill", "--help-notebook", file], capture_output=True, text=True, check=True).stdout
    for name in plans.defaults(file.stem):
        assert re.search(rf"{name}: \w+ \(default .*\)\s+\S", shown), (name, shown)


@each
def test_the_command_of_its_figures_is_its_own_name(file):
    code = cells(file, "code")
    assert f'sl.notebook.Run("{file.stem}", In)' in code[1].source


@pytest.mark.parametrize(
    ("name", "better"),
    [
        ("03_deletion", "holds for 5 of 5; 3 of 5"),
        ("03_insertion", "holds for 4 of 5; 4 of 5"),
        ("03_allegiance", "holds for 3 of 5; 2 of 5"),
        ("03_masked_accuracy", "holds for 6 of 6; 2 of 6"),
        ("03_pixel_perturbation", "holds for 3 of 4; 2 of 4"),
        ("03_fidelity", "holds for 4 of 5; 1 of 5"),
        ("03_sanity", "holds for 5 of 5; 5 of 5"),
        ("03_localisation", "holds for 7 of 7; 2 of 7"),
    ],
)
def test_the_readmes_table_is_what_the_notebooks_found(name, better):
    claims = next(cell for cell in cells(paths.NOTEBOOKS / f"{name}.ipynb", "code") if "claims" in cell.metadata.get("tags", []))
    rows = re.findall(r"<tr>(.*?)</tr>", claims.outputs[0]["data"]["text/html"], re.DOTALL)
    counts = [
        f"{sum('holds' in row for row in rows if f' {control}<' in row)} of {sum(f' {control}<' in row for row in rows)}"
        for control in ("random", "edges")
    ]
    assert f"holds for {'; '.join(counts)}" == better
    assert re.search(rf"\[{name}\].*\| {better} \|", (paths.ROOT / "README.md").read_text())


def rows_of(name, tag):
    """The rows of the tables in a notebook's outputs whose cell has a tag or whose source begins with it."""
    found = [one for one in cells(paths.NOTEBOOKS / f"{name}.ipynb", "code") if tag in one.metadata.get("tags", [])]
    found = found or [one for one in cells(paths.NOTEBOOKS / f"{name}.ipynb", "code") if one.source.startswith(tag)]
    html = "".join(output.get("data", {}).get("text/html", "") for cell in found for output in cell.outputs)
    return [re.findall(r"<td>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", html, re.DOTALL) if "<td>" in row]


@pytest.mark.parametrize(
    "name", ["04_active_gradients", "04_guided_nonlinearity", "04_guided_training", "04_saliency_benchmark", "04_score_matching"]
)
def test_the_readmes_count_of_verdicts_is_what_the_notebooks_found(name):
    line = re.search(rf"\| \[{name}\].*", (paths.ROOT / "README.md").read_text())[0]
    said = [row[-1] for row in rows_of(name, "claims")]
    assert set(said) <= {"reproduced", "not reproduced"}
    assert f"reproduced: {said.count('reproduced')} of {len(said)} (" in line
    if name == "04_guided_training":
        less = [row[-1] for row in rows_of(name, "beyond = ")]
        assert f"; less a random order's {less.count('holds')} of {len(less)} |" in line
    told = re.findall(r"(\d+) (?:images|samples)", line.rpartition("reproduced: ")[2])
    assert told and set(told) <= {row[-2] for row in rows_of(name, "claims")}


def test_the_readme_says_how_many_conclusions_a_defect_changes():
    line = re.search(r"\| \[05_released_against_corrected\].*", (paths.ROOT / "README.md").read_text())[0]
    changed = [row[0] for row in rows_of("05_released_against_corrected", "claims") if row[-1] == "yes"]
    assert changed == ["SGT: signed ranking"] and "one changes: guided training's signed ranking" in line
    assert "seven conclusions" in line and len(rows_of("05_released_against_corrected", "claims")) == 7


@pytest.mark.parametrize("file", sorted((paths.ROOT / "data" / "measured").glob("*.json")), ids=lambda file: file.stem)
def test_the_command_of_a_measured_table_still_means_what_it_meant(file):
    origin = json.loads(file.read_text())
    earlier = {"imagenet_samples_leaderboard", "imagenet_samples_claims"}  # by an older notebook, as README says
    if file.stem not in earlier | {"benchmarks"}:
        _, notebook, _, *words = shlex.split(origin["command"])
        defaults = plans.defaults(Path(notebook).stem)
        changed = dict(zip(words[1::3], words[2::3], strict=True))
        meant = {name: changed.get(name, str(value)) for name, value in defaults.items()}
        assert {name: str(value) for name, value in origin["parameters"].items()} == meant


def test_the_measured_tables_hold_every_method_and_say_where_they_come_from():
    folder = paths.ROOT / "data" / "measured"
    board = pd.read_csv(folder / "imagenet_samples_leaderboard.csv")
    assert set(board["method"]) == set(sl.METHODS) and board["images"].min() >= 100
    for metric in ("deletion", "insertion"):
        assert (board[f"{metric}_low"] <= board[metric]).all() and (board[metric] <= board[f"{metric}_high"]).all()
    origin = json.loads((folder / "imagenet_samples_leaderboard.json").read_text())
    assert len(origin["requires"]) == 2 * len(board) and origin["commit"] and not origin["dirty"]
    step = next(step for step in plans.steps("imagenet_samples") if step.notebook == "05_leaderboard")
    assert origin["parameters"]["options"] in step.command and f"-p steps {origin['parameters']['steps']}" in step.command
    best = board.sort_values("insertion - deletion", ascending=False)["method"]
    assert list(best[:3]) == ["deeplift_shap", "deeplift", "integrated_gradients"]
    assert "the best are DeepLIFT-SHAP, DeepLIFT and integrated gradients" in README.read_text()


def test_the_readmes_areas_on_imagenet_are_those_that_were_measured():
    areas, origin = report.measured("imagenet_guided_nonlinearity_areas")
    assert set(areas["images"]) == {600} and not origin["dirty"] and len(origin["requires"]) == 16
    areas = areas.set_index("method").map(lambda number: f"{number:.3f}".lstrip("0") if isinstance(number, float) else number)
    table = README.read_text().split("| area | integrated gradients |")[1].split("\n\n")[0].splitlines()[2:]
    for line in table:
        words, *said = line.replace("\\|", "").strip("| ").split(" | ")
        quantity = f"{words.split(',')[0]}_{'signed' if 'signed' in words else 'absolute'}"
        for method, text in zip(("integrated_gradients", "gnl_integrated_gradients", "random", "edges"), said, strict=True):
            mean, low, high = areas.loc[method, [quantity, f"{quantity}_low", f"{quantity}_high"]]
            assert text == f"{mean} [{low}, {high}]", line
    assert len(table) == 4
    (verdict,) = report.measured("imagenet_guided_nonlinearity_verdicts")[0].itertuples()
    assert verdict.verdict == "reproduced" and verdict.ours == "+0.034 [+0.028, +0.040]" and verdict.images == 600
    assert "The paper's claim is reproduced here: the deletion area falls by .034 [.028, .040]" in README.read_text()


@pytest.mark.parametrize(
    ("paper", "short"),
    [
        ("active_gradients", "Active gradients"),
        ("guided_nonlinearity", "Guided non-linearity"),
        ("guided_training", "Guided training"),
        ("saliency_benchmark", "Saliency benchmark"),
    ],
)
def test_the_readme_counts_the_verdicts_on_every_kind_of_images(paper, short):
    def said(found, images):
        return f"{sum(word == 'reproduced' for word in found)} of {len(found)} ({int(images):,} images)"

    digits = rows_of(f"04_{paper}", "claims")
    told = [said([row[-1] for row in digits], digits[0][-2])]
    for data in ("cifar10", "imagenet"):
        if (paths.ROOT / "data" / "measured" / f"{data}_{paper}_verdicts.csv").is_file():
            table, origin = report.measured(f"{data}_{paper}_verdicts")
            told.append(said(list(table["verdict"]), table["images"].iloc[0]))
            assert origin["commit"] and not origin["dirty"] and origin["requires"]
    line = re.search(rf"^\| {short} \| \d.*", README.read_text(), re.MULTILINE)[0]
    assert [cell for cell in line.strip("| ").split(" | ") if cell][1:] == told


def test_what_the_readme_says_of_cifar_10_was_measured():
    text = README.read_text()
    right = report.measured("cifar10_guided_training_accuracy")[0].set_index("method")["mean"].round(2)
    assert right.to_dict() == {"standard": 0.59, "saliency_guided": 0.56}
    assert "59 % of the test images right" in text and "fewer test images right (56 %)" in text
    areas = report.measured("cifar10_saliency_benchmark_areas")[0].set_index("method").loc[["rise", "gradcam", "sidu", "lime"]]
    assert (areas["insertion"].idxmax(), areas["deletion"].idxmin()) == ("rise", "rise") and "first of the four in both" in text
    assert f"{report.measured('cifar10_saliency_benchmark_superpixels')[0]['mean'][0]:.1f} superpixels" in text
    guided = report.measured("cifar10_guided_training_verdicts")[0]["ours"].str.split().str[0].astype(float)
    assert guided.abs().max() == 0.013 and "(differences of at most .013," in text
    areas = report.measured("cifar10_guided_nonlinearity_verdicts")[0]["ours"][0]
    assert areas == "-0.024 [-0.030, -0.018]" and "CIFAR-10 by .024 [.018, .030] and lowers it on ImageNet" in text


INJECTED = "# Parameters\n{}\n"


def run(*injected, before=()):
    cells = ["", *before, *(INJECTED.format(text) for text in injected), "import saliency_lib as sl", "x = open"]
    return report.Run("03_deletion", cells)


def test_settings_of_published_weights_show_no_empty_value():
    assert "nan" not in report.settings(sl.Training("photos", "efficientnet_lite0")).data.lower()


def test_a_run_knows_its_parameters_and_its_command():
    assert run().command == "papermill notebooks/03_deletion.ipynb out.ipynb"
    changed = run('dataset = "my photos"\nsteps = 7\nrecipe = "standard"')
    assert {name: changed.parameters[name] for name in ("dataset", "steps", "recipe")} == {
        "dataset": "my photos",
        "steps": 7,
        "recipe": "standard",
    }
    assert changed.command.endswith("out.ipynb -p dataset 'my photos' -p recipe standard -p steps 7")


def test_the_same_value_passed_again_is_not_in_the_command():
    assert run("steps = 28").command == "papermill notebooks/03_deletion.ipynb out.ipynb"


def test_a_parameter_edited_in_the_notebook_is_in_the_command():
    edited = run(before=["steps: int = 28", "steps: int = 9  # edited and run again"])
    assert edited.command == "papermill notebooks/03_deletion.ipynb out.ipynb -p steps 9"


@pytest.mark.parametrize(
    ("injected", "message"),
    [
        ("datset = 'mnist5k'", "parameter of 03_deletion 'datset' is not known; did you mean 'dataset'"),
        ("steps = '7'", "parameter steps of 03_deletion must be int like 28, got '7'"),
        ("steps = 7.5", "must be int"),
        ("steps = True", "must be int"),
        ("dataset = 5", "parameter dataset of 03_deletion must be str"),
    ],
)
def test_an_unknown_parameter_or_another_type_is_refused(injected, message):
    with pytest.raises(ValueError, match=message):
        run(injected)


@pytest.mark.parametrize(
    ("parameter", "message"),
    [
        (("modle", "cnn"), "parameter of 03_deletion 'modle' is not known; did you mean 'model'"),
        (("model", "resnet51"), "model 'resnet51' is not known"),
        (("methods", "gradient edges"), "lack the control 'random', without which no area means anything; add it"),
        (("methods", "random gradcma"), "method 'gradcma' is not known; did you mean 'gradcam'"),
    ],
)
def test_papermill_fails_at_once_with_the_remedy(parameter, message, tmp_path):
    words = [BIN / "papermill", paths.NOTEBOOKS / "03_deletion.ipynb", tmp_path / "out.ipynb", "-p", *parameter]
    environment = os.environ | {"SALIENCY_OUTPUTS": str(tmp_path / "outputs")}
    ended = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert ended.returncode != 0
    assert message in ended.stderr
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
        ({"sweep": {"model": "cnn"}}, "sweep of model in plan 'mine' must be a list of values, got 'cnn'"),
        ({"notebooks": None}, "plan 'mine' needs the fields parameters .* and notebooks"),
        ({"swep": {}}, "field of plan 'mine' 'swep' is not known; did you mean 'sweep'"),
    ]:
        (tmp_path / "plans" / "mine.yaml").write_text(yaml.safe_dump(good | change))
        with pytest.raises(ValueError, match=message):
            plans.steps("mine")
    with pytest.raises(ValueError, match="plan 'yours' is not known"):
        plans.steps("yours")


def test_a_dry_run_of_the_batch_prints_the_papermill_lines(tmp_path):
    words = [BIN / "snakemake", "-n", "-p", "--nolock", "--cores", "2", "--forceall"]
    environment = os.environ | {"SALIENCY_OUTPUTS": str(tmp_path / "outputs")}
    printed = subprocess.run(words, capture_output=True, text=True, cwd=paths.ROOT, env=environment)
    assert printed.returncode == 0, printed.stderr
    lines = printed.stdout + printed.stderr
    for plan in ("embedded", "shapes", "photos", "benchmarks"):
        for step in plans.steps(plan):
            assert f"papermill notebooks/{step.notebook}.ipynb" in lines and f"-f {step.file}" in lines


@pytest.fixture
def executed(tmp_path, monkeypatch):
    """The blessed notebooks as the executed ones of the plan `embedded`, in a report folder of its own."""
    monkeypatch.setattr(plans, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(site, "SITE", tmp_path / "report")
    for step in (step for plan in ("embedded", *plans.PAPERS) for step in plans.steps(plan)):
        step.output.parent.mkdir(parents=True, exist_ok=True)
        step.output.write_text((paths.NOTEBOOKS / f"{step.notebook}.ipynb").read_text())
    return tmp_path


def test_the_site_shows_pictures_and_tables_and_has_no_dead_link(executed):
    start = site.build()
    html = executed / "report" / "html"
    pages = [page for page in html.rglob("*.html") if "_static" not in page.parts]
    assert {page.stem for page in pages} >= {"index", "01_train", "02_explain", "03_deletion", "03_insertion"}
    for page in pages:
        for target in map(unquote, re.findall(r'(?:src|href)="([^"#?]+)', page.read_text())):
            if target.startswith(("http:", "https:")):
                known = ("https://arxiv.org/", "https://github.com/MarcoParola/", "https://aurora.ajou.ac.kr/handle/")
                assert target.startswith(known), f"{page.name} needs {target} from the network"
            elif not target.startswith(("data:", "mailto:", "javascript:")):
                assert (page.parent / target).exists(), f"{page.name} links to {target}"
    text = start.read_text()
    assert text.count("<img") >= 4 and text.count("<table") >= 3
    assert "<math" in next(page for page in pages if page.stem == "03_deletion").read_text()


def test_the_site_refuses_notebooks_that_were_not_run_to_their_end(executed):
    step = plans.steps("embedded")[-1]
    notebook = json.loads(step.output.read_text())
    notebook["cells"][-1]["execution_count"] = None
    step.output.write_text(json.dumps(notebook))
    with pytest.raises(ValueError, match=rf"{step.notebook}.ipynb was not run to its end; wait for it .* and run `snakemake"):
        site.build()


def test_the_site_says_when_there_is_nothing_to_show(tmp_path, monkeypatch):
    monkeypatch.setattr(plans, "RUNS", tmp_path / "runs")
    with pytest.raises(FileNotFoundError, match="run `make reproduce` first"):
        site.build()


@pytest.mark.parametrize("fill", ["black", "white"])
def test_the_readmes_rows_of_cifar10_are_what_was_measured(fill):
    table = pd.read_csv(paths.ROOT / "data" / "measured" / f"cifar10_{fill}_allegiance.csv").set_index("method")
    assert set(table["images"]) == {10_000}
    rows = re.findall(
        rf"^\| {fill} \| (\w+).*\| (\S+) \[(\S+), (\S+)\] \|$", (paths.ROOT / "README.md").read_text(), re.MULTILINE
    )
    assert len(rows) == 4
    for method, *numbers in rows:
        found = table.loc[method, ["mean", "low", "high"]]
        assert [f"{value:.3f}".lstrip("0") for value in found] == numbers


@pytest.mark.parametrize("file", sorted((paths.ROOT / "data" / "measured").glob("*.csv")), ids=lambda file: file.stem)
def test_every_measured_table_is_the_one_that_its_origin_speaks_of(file):
    table, origin = report.measured(file.stem)
    assert len(table) and origin["command"] and origin["commit"]


def test_the_readmes_rows_of_trainings_on_cifar10_are_what_was_measured():
    folder = paths.ROOT / "data" / "measured"
    samples, pixels = (pd.read_csv(folder / f"cifar10_{name}_trainings.csv") for name in ("samples", "pixels"))
    samples, pixels = samples.set_index("training"), pixels.set_index("method")
    rows = re.findall(
        r"^\| (\w+)(?: \(baseline\))? \| (\.\d+) \| (\.\d+) \| \S+ \| (\.\d+) \| (\.\d+) \|$", README.read_text(), re.M
    )
    assert len(rows) == len(samples) == len(pixels) == 4
    for name, *numbers in rows:
        found = [
            *samples.loc[name, ["accuracy", "gan_test"]],
            *pixels.loc[name].filter(regex="^(own gradients|gradients, judged by softplus)$"),
        ]
        assert [f"{value:.3f}".lstrip("0") for value in found] == numbers
