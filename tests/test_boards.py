"""The boards of the leaderboard: what the page computes ranks from is what the library computes them from."""

import json
import re
from html import unescape

import numpy as np
import pytest
from scipy import stats

import saliency_lib as sl
from docs import boards, content, pages
from saliency_lib import paths
from saliency_lib.artefacts import tables
from workflow import plans

LOWER = {"deletion": True, "srg": False, "insertion": False}  # the first two are one family
FAMILIES = {"deletion": "removal", "srg": "removal", "insertion": "insertion"}
METHODS = ("gradient", "rise", "active_gradient", "random", "mine<b>")
EVIL = "<img src=x onerror=alert(1)> `````\n````` </script><script>alert(1)</script> \"' |x|"
ORIGIN = {"command": "papermill notebooks/05_leaderboard.ipynb out.ipynb", "requires": [{"folder": "a", "digest": "0" * 64}]}
SURROUNDINGS = {"parameters": {"dataset": EVIL, "model": "cnn"}, "commit": "", "dirty": False, "python": "3", "versions": {}}


def drawn(seed=0, images=30):
    """Areas per training, metric and method: better from left to right by the family removal, and worse by the other."""
    draws = np.random.default_rng(seed)
    sides = {"deletion": -1, "srg": 1, "insertion": -2}
    return {
        training: {
            metric: {name: side * number + 2 * draws.normal(size=images) for number, name in enumerate(METHODS)}
            for metric, side in sides.items()
        }
        for training in ("standard", EVIL)
    }


def ranked(areas):
    """The tables that the notebook keeps of such areas, by name."""
    board = sl.statistics.leaderboard_by_training(areas, LOWER, {name: {} for name in METHODS}, FAMILIES)
    return {"leaderboard": board, "ranks": sl.statistics.ranks_by_image(areas, LOWER)}


def kept(folder, areas, ranks_of=ORIGIN):
    """Boards of one run that kept its tables in a folder; the ranks by image say what they were made from."""
    step = next(step for step in plans.steps("embedded") if step.notebook == boards.NOTEBOOK)
    files = {name: folder / "run" / f"{name}.csv" for name in ("leaderboard", "ranks")}
    for name, origin in (("leaderboard", ORIGIN), ("ranks", ranks_of)):
        if origin:
            tables.keep(files[name], ranked(areas)[name], origin | SURROUNDINGS)
    return boards.boards([content.Page(step, "05 · Leaderboard", [], "", files)], [])


def shown(board):
    """The HTML of a board."""
    facts = {"methods": pages.methods(), "metrics": sl.METRICS, "costs": boards.COSTS, "number": 1}
    return pages.environment().get_template("board.html").render(board=board, **facts)


def embedded(html):
    """What the page's script reads."""
    return json.loads(re.search(r'<script type="application/json">(.*?)</script>', html, re.DOTALL)[1])


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "OUTPUTS", tmp_path)


def test_at_equal_weights_the_data_of_the_page_give_the_mean_ranks_of_the_library(tmp_path):
    areas = drawn()
    data = embedded(shown(*kept(tmp_path, areas)))
    assert data["methods"] == list(METHODS) and data["images"] == 30
    for (name, rows), found in zip(areas.items(), (data["trainings"][boards.one_line(name)] for name in areas), strict=True):
        assert {family: np.shape(metrics) for family, metrics in found.items()} == {
            "removal": (2, 30, 5),
            "insertion": (1, 30, 5),
        }
        total = sum(np.mean(metrics, axis=0) for metrics in found.values())
        ranks = stats.rankdata(total, axis=1)
        low, high = sl.statistics.bootstrap_interval(ranks)
        wanted = sl.statistics.mean_ranks(rows, LOWER, FAMILIES).set_index("method").loc[list(METHODS)]
        assert np.allclose(wanted[["rank", "rank_low", "rank_high"]], np.stack([ranks.mean(0), low, high], 1)), name


def test_a_static_table_has_every_row_with_its_rank_and_the_entry_of_its_method(tmp_path):
    (board,) = kept(tmp_path, drawn())
    rows = re.findall(r"<tr data-method.*?</tr>", shown(board), re.DOTALL)
    assert len(rows) == 2 * len(METHODS) == len(board.rows)
    for row, told in zip(rows, board.rows, strict=True):
        cells = [unescape(re.sub("<.*?>", "", cell)) for cell in re.findall(r"<td.*?</td>", row, re.DOTALL)]
        assert cells[0] == told["method"].replace("_", " ") and cells[4] == told["training"]
        assert cells[1] == f"{float(told['rank']):.2f} [{float(told['rank_low']):.2f}, {float(told['rank_high']):.2f}]"
        assert cells[5:8] == [f"{float(told[metric]):.3f}" for metric in LOWER]
        assert ('class="control"' in row) == (told["method"] == "random")
        entry = f"saliency_lib.attribution.gradients.{told['method']}.html"
        assert (f'<a href="api/entries/{entry}">' in row) == (told["method"] in ("gradient", "active_gradient"))


def test_names_are_escaped(tmp_path):
    html = shown(*kept(tmp_path, drawn()))
    assert "<img" not in html and "<b>" not in html and html.count("<script") == html.count("</script>") == 1
    assert not re.search(r"^\s*`{3}", html, re.MULTILINE)  # the end of a block of Markdown
    assert list(embedded(html)["trainings"]) == sorted(["standard", boards.one_line(EVIL)])


def test_without_ranks_of_the_same_run_the_board_has_no_weights(tmp_path):
    other = ORIGIN | {"requires": [{"folder": "a", "digest": "1" * 64}]}
    for ranks_of in (None, other):
        (board,) = kept(tmp_path, drawn(), ranks_of)
        html = shown(board)
        assert board.ranks is None and 'type="range"' not in html and "<script" not in html and "<select" in html
        assert list(board.files) == ["run.csv"]
    (board,) = kept(tmp_path, drawn())
    assert list(board.files) == ["run.csv", "run-ranks.csv"] and shown(board).count('type="range"') == 2


def test_a_table_that_was_changed_is_refused_and_one_that_is_gone_is_no_board(tmp_path):
    kept(tmp_path, drawn())
    file = tmp_path / "run" / "leaderboard.csv"
    page = content.Page(plans.steps("embedded")[0], "", [], "", {"leaderboard": file})
    assert boards.boards([page], []) == []  # of another notebook
    step = next(step for step in plans.steps("embedded") if step.notebook == boards.NOTEBOOK)
    page = content.Page(step, "", [], "", {"leaderboard": file})
    file.write_text(file.read_text().replace("gradient", "rise"))
    with pytest.raises(ValueError, match=r"leaderboard\.csv was changed after it was made"):
        boards.boards([page], [])
    file.unlink()
    assert boards.boards([page], []) == []


def test_measured_tables_are_boards_too():
    found = {board.name: board for board in boards.boards([], content.measured())}
    assert {"digits_leaderboard", "imagenet_samples_leaderboard"} <= set(found)
    assert found["digits_leaderboard"].metrics[:2] == ["deletion", "insertion"]
    assert "ranks" not in str(list(found["digits_leaderboard"].files)) and found["digits_leaderboard"].page is None


@pytest.mark.parametrize(
    ("passes", "found"),
    [
        ("none", (0, "none")),
        ("1 F + 1 B", (2, "at most 10")),
        ("50 F + 50 B", (100, "at most 100")),
        ("2,001 F", (2001, "more than 100")),
        ("170 F at 224 px", (170, "more than 100")),
        ("1 F + 1 F per distinct mask", (2, "depends on the network")),
    ],
)
def test_the_cost_is_the_number_of_passes(passes, found):
    assert boards.cost(passes) == found


def test_every_method_has_a_group_of_costs_and_an_entry():
    known = pages.methods()
    assert set(sl.METHODS) == set(known) - set(sl.PARTICULAR_METHODS)
    assert {boards.cost(fact["passes per image"])[1] for fact in known.values()} == set(boards.COSTS)


def test_datatables_is_a_script_that_loads_nothing(tmp_path, monkeypatch):
    script = boards.datatables()
    assert script.count("window.DataTable=") == 1 and not re.search(r"\bexport\s*\{|\bimport\(|^import\b", script, re.MULTILINE)
    other = tmp_path / "dt_bundle.js"
    other.write_text("export default DataTable;")
    monkeypatch.setattr(boards, "packaged_file", lambda *parts, extra: other)
    with pytest.raises(RuntimeError, match="0 exports by default"):
        boards.datatables()


def test_the_script_of_the_page_is_short_and_asks_for_nothing():
    script = (paths.ROOT / "docs" / "_static" / "leaderboard.js").read_text()
    assert len(script.splitlines()) < 80 and not re.search(r"https?:|fetch|XMLHttp|import|innerHTML|eval", script)
