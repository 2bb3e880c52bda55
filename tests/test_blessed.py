"""The comparison of a run with the blessed one: what agrees on every processor, and that a wrong number does not."""

import json
import math
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import nbformat
import pandas as pd
import pytest
from matplotlib.figure import Figure

from saliency_lib import paths
from saliency_lib.notebook import blessed, run
from saliency_lib.notebook.blessed import NUMBER, Blessed, Table, differences
from workflow.tidy import tidy

KEPT = sorted((paths.NOTEBOOKS / "blessed").glob("*.json"))
FOUND = [file for file in KEPT if "run.finding()" in file.parents[1].joinpath(f"{file.stem}.ipynb").read_text()]
CLAIMS = pd.DataFrame(
    {
        "claim": ["a lies below b", "c lies below b"],
        "ours": ["-0.100 [-0.200, -0.050]", "-0.030 [-0.070, -0.011]"],
        "p": ["< 0.001", "0.030"],
        "verdict": ["holds", "holds"],
    }
)


def table(within=0.015, line=0.0, **columns):
    return {"t": Table.of(pd.DataFrame(columns), within, line)}


def entries(run, blessed):
    return [(one.row, one.column) for one in differences(run, blessed)]


def test_the_tolerance_is_a_hundredth_or_one_and_a_half_images_whichever_is_more():
    assert [blessed.tolerance(images) for images in (None, 1000, 150, 100, 20)] == [0.01, 0.01, 0.01, 0.015, 0.075]


def test_numbers_agree_within_the_tolerance_and_large_ones_relative_to_their_size():
    kept = table(method=["a", "b"], mean=[0.5, 40.0])
    assert differences(table(method=["a", "b"], mean=[0.515, 40.6]), kept) == []
    (found,) = differences(table(method=["a", "b"], mean=[0.4849, 40.6]), kept)
    assert found == ("t", "a", "mean", 0.4849, 0.5, 0.015)
    assert entries(table(method=["a", "b"], mean=[0.5, 40.61]), kept) == [("b", "mean")]
    assert entries(table(method=["a"], images=[101]), table(method=["a"], images=[100])) == [("", "images")], "counts are exact"


def test_texts_agree_in_their_words_and_within_the_tolerance_in_their_numbers():
    kept = table(ours=["+0.100 [+0.050, +0.150] of 500, 16%"])
    for text, agrees in [
        ("+0.114 [+0.036, +0.150] of 500, 17%", True),
        ("+0.114 [+0.034, +0.150] of 500, 16%", False),
        ("+0.100 [+0.050, +0.150] of 501, 16%", False),
        ("+0.100 [+0.050, +0.150] of 500, 18%", False),
        ("+0.100 (+0.050, +0.150) of 500, 16%", False),
        ("-0.100 [+0.050, +0.150] of 500, 16%", False),
    ]:
        assert (differences(table(ours=[text]), kept) == []) == agrees, text
    assert differences(table(ours=["-0.000 [x]"]), table(ours=["+0.000 [x]"])) == []


def test_rows_are_found_by_their_names_in_any_order():
    kept = table(metric=["m", "m", "n"], method=["a", "b", "a"], mean=[0.1, 0.2, 0.3])
    assert differences(table(metric=["n", "m", "m"], method=["a", "b", "a"], mean=[0.3, 0.2, 0.1]), kept) == []
    assert entries(table(metric=["n", "m", "m"], method=["a", "a", "b"], mean=[0.3, 0.2, 0.1]), kept) == [
        ("m, a", "mean"),
        ("m, b", "mean"),
    ]


def test_what_is_missing_or_new_is_a_disagreement():
    kept = table(method=["a", "b"], mean=[0.1, 0.2], high=[0.2, 0.3])
    assert entries(table(method=["a"], mean=[0.1], high=[0.2]), kept)
    assert entries(table(method=["a", "b", "c"], mean=[0.1, 0.2, 0.3], high=[0.2, 0.3, 0.4]), kept) == [
        ("c", "mean"),
        ("c", "high"),
    ]
    assert entries(table(method=["a", "b"], mean=[0.1, 0.2]), kept) == [("a", "high"), ("b", "high")]
    assert len(differences({}, kept)) == len(differences(kept, {})) == 4
    assert differences({}, kept)[0].this_run == differences(kept, {})[0].blessed == "(missing)"


def test_nan_agrees_with_nan_alone():
    kept = table(method=["a", "b"], mean=[math.nan, 0.2])
    assert differences(table(method=["a", "b"], mean=[math.nan, 0.2]), kept) == []
    assert entries(table(method=["a", "b"], mean=[0.0, math.nan]), kept) == [("a", "mean"), ("b", "mean")]
    assert entries(table(method=["a", "b"], mean=[math.inf, 0.2]), kept) == [("a", "mean")]


@pytest.mark.parametrize(
    ("bounds", "line", "free"),
    [
        ("[-0.200, -0.050]", 0.0, False),
        ("[-0.200, -0.015]", 0.0, True),
        ("[-0.200, -0.024]", 0.0, True),  # close to minus the smallest effect
        ("[-0.200, -0.030]", 0.0, False),
        ("[-0.014, -0.010]", 0.0, True),
        ("[-0.200, +0.300]", 0.0, False),
        ("[-0.030, -0.025]", -0.02, True),
        ("[+0.010, +0.020]", -0.02, False),
    ],
)
def test_a_verdict_may_change_only_if_its_interval_nearly_ends_at_a_line(bounds, line, free):
    def told(verdict):
        return table(line=line, claim=["a", "b"], ours=[f"-0.1 {bounds}", "-0.1 [-0.2, -0.1]"], verdict=[verdict, "supported"])

    assert differences(told("supported"), told("supported")) == []
    assert entries(told("inconclusive"), told("supported")) == ([] if free else [("a", "verdict")])


@pytest.mark.parametrize(
    ("p", "free"), [("< 0.001", False), ("0.004", False), ("0.030", True), ("0.110", True), ("0.600", False)]
)
def test_a_verdict_may_change_if_its_p_value_is_near_the_level(p, free):
    def told(verdict):
        return table(claim=["a"], ours=["-0.1 [-0.2, -0.05]"], p=[p], verdict=[verdict])

    assert entries(told("inconclusive"), told("contradicted")) == ([] if free else [("", "verdict")])
    other = table(claim=["a"], ours=["-0.1 [-0.2, -0.05]"], p=["0.9"], verdict=["contradicted"])
    assert differences(other, told("contradicted")) == []  # the p-value itself is not compared


def test_each_verdict_of_a_row_belongs_to_the_interval_before_it():
    sure, close = "-0.1 [-0.2, -0.1]", "-0.1 [-0.2, 0.0]"
    columns = {"claim": ["a"], "ours": [close], "verdict": ["holds"], "ours, released": [sure], "verdict, released": ["holds"]}
    assert differences(table(**columns | {"verdict": ["does not hold"]}), table(**columns)) == []
    changed = table(**columns | {"verdict, released": ["does not hold"]})
    assert entries(changed, table(**columns)) == [("", "verdict, released")]


def test_p_values_effects_and_named_columns_are_not_compared():
    kept = Table.of(CLAIMS.assign(effect=0.4, nearest="x"), 0.015, uncompared=["nearest"])
    assert list(kept.columns) == ["claim", "ours", "p", "verdict", "effect"]
    other = Table.of(CLAIMS.assign(effect=0.9, nearest="y", p="0.7"), 0.015, uncompared=["nearest"])
    assert differences({"t": other}, {"t": kept}) == []


def test_the_sentence_counts_tables_and_numbers_and_names_the_tolerances():
    tables = {"one": Table.of(CLAIMS, 0.015)}
    assert blessed.summary(tables, []) == "Agrees with the blessed run: 1 table, 6 numbers, each within 0.015."
    tables |= table(0.01, method=["a 1", "b 2"], mean=[0.1, math.nan])
    assert blessed.summary(tables, []) == "Agrees with the blessed run: 2 tables, 7 numbers, each within 0.01 to 0.015."


def test_blessed_data_is_read_as_it_was_written(tmp_path):
    kept = Blessed({"model": "cnn", "recipe": None, "steps": 28}, {"one": Table.of(CLAIMS, 0.015, -0.02), **table(x=["a, ]\n"])})
    kept.write(tmp_path / "blessed" / "n.json")
    assert Blessed.read(tmp_path / "blessed" / "n.json") == kept
    assert '   "columns": {\n    "claim": ["a lies below b", "c lies below b"],' in (tmp_path / "blessed" / "n.json").read_text()


def shifted(value, by):
    """A value whose first number is greater by so many tolerances; None if it has none that may differ."""
    if isinstance(value, float):
        return value + by * max(1, abs(value))
    found = next((one for one in NUMBER.finditer(str(value or "")) if "." in one[0]), None)
    if isinstance(value, int) or found is None:
        return None
    number = float(found[0].rstrip("%"))
    return f"{value[: found.start()]}{number + by * max(1, abs(number)):.9f}{value[found.end() :]}"


@pytest.mark.parametrize("file", KEPT, ids=lambda file: file.stem)
def test_a_value_of_the_blessed_run_shifted_by_twice_the_tolerance_is_found_and_by_half_of_it_is_not(file):
    kept, tried = Blessed.read(file).tables, 0
    for name, one in kept.items():
        assert differences({name: one}, {name: one}) == []
        for column in {column for row in one.rows().values() for column in row} - set(blessed.FOLLOWS):
            for share in (2, 0.5):
                values = list(one.columns[column])
                at = next((n for n, value in enumerate(values) if shifted(value, 0) is not None), None)
                if at is not None:
                    values[at] = shifted(values[at], share * one.tolerance)
                    moved = replace(one, columns=one.columns | {column: values})
                    assert [found.column for found in differences({name: one}, {name: moved})] == [column] * (share == 2)
                    tried += 1
    assert tried >= 2


@pytest.fixture
def notebooks(tmp_path, monkeypatch):
    """A folder of notebooks with the blessed data of one, `03_mine`."""
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path)
    Blessed({"model": "cnn", "images": 100}, {"claims": Table.of(CLAIMS, 0.015)}).write(tmp_path / "blessed" / "03_mine.json")
    return tmp_path


@pytest.fixture
def ended(notebooks):
    """What a run of the notebook with such a table displays at its end."""

    def end(frame=CLAIMS, model="cnn", **more):
        made = run.Run("03_mine", {"model": model, "images": 100, **more})
        assert made.table(frame, "claims").data.count("<tr") == len(frame) + 1
        return made.agreement().data

    return end


def test_a_run_says_that_it_agrees_or_where_it_does_not(ended):
    assert ended() == "Agrees with the blessed run: 1 table, 6 numbers, each within 0.015."
    assert ended(CLAIMS.assign(ours=["-0.100 [-0.200, -0.050]", "-0.060 [-0.090, -0.040]"])).splitlines() == [
        "Disagrees with the blessed run in 1 entry:",
        "",
        "- claims, c lies below b, ours: -0.060 [-0.090, -0.040] now, -0.030 [-0.070, -0.011] blessed, tolerance 0.015",
    ]


def test_a_run_with_other_parameters_is_not_compared(ended):
    assert ended(CLAIMS[:1], "resnet50") == "Not compared: model=resnet50 differs from the blessed run."


def test_a_run_by_an_engine_is_compared(ended, monkeypatch):
    monkeypatch.setenv(run.BLESS, "1")
    ended(engine="auto")
    monkeypatch.delenv(run.BLESS)
    assert ended(engine="eager").startswith("Agrees with the blessed run: 1 table")
    assert ended(engine="eager", model="vgg11") == "Not compared: model=vgg11 differs from the blessed run."


def test_a_long_list_of_disagreements_is_cut(ended):
    lines = ended(pd.DataFrame({"method": [f"m{n}" for n in range(30)], "mean": 0.5})).splitlines()
    assert lines[0] == "Disagrees with the blessed run in 34 entries:" and lines[-1] == "- and 14 more"
    assert len(lines) == 2 + blessed.MOST + 1


def test_a_run_that_blesses_writes_its_parameters_and_tables(notebooks, ended, monkeypatch):
    monkeypatch.setenv(run.BLESS, "1")
    better = CLAIMS.assign(ours=["-0.300 [-0.400, -0.250]", "-0.030 [-0.070, -0.011]"])
    assert ended(better, steps=7).startswith("Agrees with the blessed run: 1 table")
    kept = Blessed.read(notebooks / "blessed" / "03_mine.json")
    assert kept.parameters == {"model": "cnn", "images": 100, "steps": 7}
    assert kept.tables == {"claims": Table.of(better, 0.015)}
    monkeypatch.delenv(run.BLESS)
    assert ended(better, steps=7).startswith("Agrees") and ended(steps=7).startswith("Disagrees")


@pytest.mark.parametrize(("images", "within"), [(None, 0.015), (1000, 0.01)])
def test_the_number_of_images_is_the_tables_own_or_the_notebooks(notebooks, images, within):
    made = run.Run("03_mine", {"model": "cnn", "images": 100})
    made.remember(CLAIMS, "claims", images=images)
    made.remember(CLAIMS.assign(images=["", "20"]), "fewer")
    assert [one.tolerance for one in made._tables.values()] == [within, 0.075]


def test_what_a_run_shows_says_in_its_metadata_what_it_is(notebooks, outputs, monkeypatch):
    shown = []
    monkeypatch.setattr(run, "display", lambda one, metadata=None: shown.append((type(one).__name__, metadata)))
    made = run.Run("03_mine", {"model": "cnn", "images": 50})
    made.show(Figure(), "Deletion.", name="second")
    made.keep("claims", CLAIMS)
    command, folder = "papermill notebooks/03_mine.ipynb out.ipynb -p images 50", "03_mine-cnn-images=50"
    assert made.command == command
    assert shown == [
        ("Image", {"compendium": {"caption": "Deletion.", "command": command, "file": f"{folder}/second"}}),
        ("Markdown", None),
        ("Markdown", {"compendium": {"table": f"{folder}/claims", "command": command}}),
    ]
    origin = json.loads((outputs / "figures" / folder / "second.json").read_text())
    assert origin["caption"] == "Deletion." and (outputs / "figures" / folder / "second.png").is_file()
    assert (outputs / "tables" / folder / "claims.csv").is_file() and (outputs / "tables" / folder / "claims.json").is_file()


@pytest.mark.slow
def test_nbval_fails_on_a_wrong_number_and_passes_a_rounded_one(tmp_path):
    """With a notebook that computes nothing, so that what is shifted is all that differs."""
    name = "05_benchmarks"
    notebook = nbformat.read(paths.NOTEBOOKS / f"{name}.ipynb", 4)
    cell = next(cell for cell in notebook.cells if cell.source.startswith("import saliency_lib as sl"))
    cell.source = cell.source.replace("\n\n", f"\n\nsl.paths.NOTEBOOKS = sl.paths.Path({str(tmp_path)!r})\n", 1)
    nbformat.write(notebook, tmp_path / f"{name}.ipynb")
    shutil.copytree(paths.NOTEBOOKS / "blessed", tmp_path / "blessed")
    kept = Blessed.read(tmp_path / "blessed" / f"{name}.json")
    ratios = kept.tables["speed"].columns["ratio"]
    for row, share in enumerate((2, 0.5)):
        ratios[row] = shifted(ratios[row], share * kept.tables["speed"].tolerance)
    kept.write(tmp_path / "blessed" / f"{name}.json")
    options = ["-m", "pytest", "--nbval", "-p", "no:cacheprovider", "-p", "no:randomly", "-o", "addopts="]
    words = [sys.executable, *options, tmp_path / f"{name}.ipynb"]
    environment = os.environ | {"SALIENCY_OUTPUTS": str(tmp_path / "outputs")}
    ended = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, env=environment)
    cells = sum(cell.cell_type == "code" for cell in notebook.cells)
    assert re.search(f"1 failed, {cells - 1} passed", ended.stdout), ended.stdout[-3000:]
    assert "Disagrees with the blessed run in 1 entry" in ended.stdout


def test_every_notebook_has_blessed_data():
    assert [file.stem for file in KEPT] == sorted(file.stem for file in paths.NOTEBOOKS.glob("*.ipynb"))


def test_a_notebook_begins_with_what_its_stored_run_found(notebooks, monkeypatch):
    begun = run.Run("03_mine", {"model": "cnn", "images": 100}).finding().data
    assert begun.splitlines() == ["**Finding** of the stored run with these parameters:", "", "- Holds, 2 of 2: below b: a, c."]
    other = run.Run("03_mine", {"model": "vgg11", "images": 100})
    assert other.finding().data.startswith("There is no stored run with these parameters.")
    monkeypatch.setenv(run.BLESS, "1")
    assert run.Run("03_mine", {"model": "cnn", "images": 100}).finding().data == ""


def test_the_finding_of_a_leaderboard_begins_with_the_best_ranks():
    ranks = pd.DataFrame({"method": ["a", "b", "c", "d"], "standard": [3.0, 1.0, 2.0, 4.0], "guided": [1.0, 2.5, 2.5, 4.0]})
    found = blessed.finding({"claims": Table.of(CLAIMS, 0.015), "ranks": Table.of(ranks, 0.1)}).splitlines()
    assert found[2] == (
        "- The best mean ranks of 4 methods. standard: b (1.0), c (2.0), a (3.0); guided: a (1.0), b (2.5), c (2.5)."
    )


def test_what_stands_first_is_written_when_a_run_is_tidied(notebooks):
    file = notebooks / "03_mine.ipynb"
    cell = nbformat.v4.new_code_cell("run.finding()", outputs=[], id="0")
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), file)
    tidy(file)
    (output,) = nbformat.read(file, 4).cells[0].outputs
    assert output.data["text/markdown"] == blessed.finding(Blessed.of("03_mine").tables)


@pytest.mark.parametrize(
    "file", [file for file in KEPT if "run.finding()" in (paths.NOTEBOOKS / f"{file.stem}.ipynb").read_text()]
)
def test_each_stored_notebook_begins_with_the_finding_of_its_own_tables(file):
    notebook = nbformat.read(paths.NOTEBOOKS / f"{file.stem}.ipynb", 4)
    (output,) = next(cell for cell in notebook.cells if cell.source == "run.finding()").outputs
    assert output.data["text/markdown"] == blessed.finding(Blessed.read(file).tables)
