"""The README, the results page and the site from the stored notebooks: their numbers are those that were found."""

import json
import re
import shlex
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pandas as pd
import pytest

import saliency_lib as sl
from docs import site
from saliency_lib import paths
from saliency_lib import notebook as report
from workflow import plans

README = paths.ROOT / "README.md"


def cells(file, kind):
    return [cell for cell in nbformat.read(file, as_version=4).cells if cell.cell_type == kind and cell.source.strip()]


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
