"""The start page's figure and sentences: every number is one of the tables, and another table gives another number."""

import io
import re
from dataclasses import replace

import pandas as pd
import pytest
from matplotlib.colors import same_color
from matplotlib.figure import Figure

from docs import content, matrix
from saliency_lib import figures, paths
from saliency_lib.artefacts import tables
from saliency_lib.figures.forest import MARKS


@pytest.fixture(scope="module")
def kept():
    return content.measured()


@pytest.fixture(scope="module")
def found(kept):
    return matrix.by_data(kept)


def test_every_claim_of_the_papers_has_one_row_with_a_cell_per_data_set(found):
    claimed = pd.read_csv(paths.ROOT / "data" / "reported" / "claims.csv")
    beyond = {key for paper in content.PAPERS for key in paper.get("beyond", {})}
    ids = [key for paper in content.PAPERS for key in paper["claims"]]
    assert sorted(set(ids) - beyond) == sorted(claimed.loc[claimed["paper"] != content.RELEASED, "id"])
    assert len(ids) == len(set(ids)) == found["claim"].nunique()
    for key, rows in found.groupby("claim"):
        assert list(dict.fromkeys(rows["data"])) == list(matrix.COLUMNS), key
        assert rows["words"].nunique() == 1 and len(rows["words"].iloc[0]) <= 36


def test_every_measurement_is_a_number_of_its_table(found):
    """Read the files with pandas alone."""
    for row in found[found["ours"] != ""].to_dict("records"):
        if "/" in row["source"]:
            text = (paths.ROOT / f"{row['source'].rsplit('_', 1)[0]}.json").read_text()
            assert row["ours"] in text, row["claim"]
        else:
            table = pd.read_csv(paths.ROOT / "data" / "measured" / f"{row['source']}.csv")
            own = table[table["ours"] == row["ours"]]
            assert row["verdict"] in set(own["verdict"]), row["claim"]


def test_every_measured_verdict_on_these_data_is_in_the_figure(found, kept):
    for one in (one for one in kept if one.name.endswith("_verdicts")):
        if matrix.column_of(one.origin["parameters"]["dataset"]):
            assert [row["ours"] for row in one.rows if row["ours"]] == list(found.loc[found["source"] == one.name, "ours"])


def test_another_table_gives_another_number_another_mark_and_another_sentence(found, kept):
    name = "cifar_resnet20_guided_nonlinearity_verdicts"
    (old,) = [one for one in kept if one.name == name]
    new = replace(old, rows=[old.rows[0] | {"ours": "+0.321 [+0.311, +0.331]", "verdict": "supported"}])
    again = matrix.by_data([new if one is old else one for one in kept])
    (row,) = again[again["source"] == name].to_dict("records")
    assert (row["ours"], row["verdict"], row["data"], row["on"]) == (
        "+0.321 [+0.311, +0.331]",
        "supported",
        "CIFAR-10",
        "cifar_resnet20",
    )
    before, after = (matrix.answers(one)["guided_nonlinearity"] for one in (found, again))
    assert after["counts"]["CIFAR-10"][0] == before["counts"]["CIFAR-10"][0] + 1
    assert after["contradicted"] == before["contradicted"] - 1
    assert matrix.draw(again) != matrix.draw(found)


def test_the_papers_value_is_the_difference_of_its_two_numbers(found):
    """Computed by hand from data/reported/: .23 - .14 of PAG's cnn; .801 - .595 of score matching's GAN-test on CIFAR-100."""
    cell = found[(found["claim"] == "PAG-1") & (found["data"] == "CIFAR-10")].set_index("on")["reported"]
    assert cell["cnn"] == pytest.approx(0.09) and pd.isna(cell["cifar_resnet20"])
    (value,) = found.loc[(found["claim"] == "RG-1") & (found["data"] == "CIFAR-100"), "reported"]
    assert value == pytest.approx(0.801 - 0.595)
    texts = found[(found["claim"] == "comprehensiveness") & (found["data"] == "texts")].set_index("on")["reported"]
    assert texts["gradient"] == pytest.approx(0.240 - 0.200)  # poster, table 1
    fewer = found[(found["claim"] == "sufficiency") & (found["data"] == "texts")].set_index("on")["reported"]
    assert fewer["gradient"] == pytest.approx(0.042 - 0.013)  # lower is better
    assert found.loc[found["claim"] == "GNL-1", "reported"].isna().all()  # its values could not be read


def test_a_control_that_fails_is_told(found):
    """Positive gradients of ResNet-20 are worse than a random order under black deletion, those of the paper's network better."""
    cell = found[(found["claim"] == "PAG-1") & (found["data"] == "CIFAR-10")].set_index("on")["control"]
    controls = tables.measured("cifar_resnet20_active_gradients_controls")[0].set_index("claim")["verdict"]
    assert cell["cifar_resnet20"] == controls["positive_gradient lies below random"] == "contradicted"
    assert cell["cnn"] == "supported"
    relative = {
        row["claim"]: row["verdict, relative to a random order"] for row in content.blessed("04_guided_training", "robustness")
    }
    statements = tables.claimed("guided_training").set_index("id")["statement"]
    for key, statement in statements.items():
        (told,) = found.loc[(found["claim"] == key) & (found["data"] == "digits"), "control"]
        assert told == relative[statement]


def test_what_was_not_measured_says_so_and_is_not_counted(found):
    left = found[found["ours"] == ""]
    assert set(left["verdict"]) == {matrix.UNMEASURED} and len(left) > 50
    assert sum(one["tested"] for one in matrix.answers(found).values()) == (found["ours"] != "").sum()


@pytest.mark.parametrize(
    ("counts", "word"),
    [
        ((3, 0, 4), "mostly supported"),
        ((3, 1, 4), "mixed"),
        ((0, 3, 4), "mostly contradicted"),
        ((0, 0, 4), "undecided"),
        ((2, 0, 4), "undecided"),
    ],
)
def test_whether_a_paper_holds_follows_from_its_counts(counts, word):
    assert matrix.answer(*counts) == word


def test_the_best_methods_are_those_of_the_leaderboards(kept):
    for one in matrix.best(kept):
        board = pd.read_csv(paths.ROOT / "data" / "measured" / f"{one['name']}.csv")
        board = board[(board["training"] == one["training"]) & ~board["method"].isin(["random", "edges"])]
        assert [row["method"] for row in one["first"]] == list(board.nsmallest(3, "rank")["method"])
        assert one["tried"] == len(board) and set(one["metrics"]) <= set(board.columns)
    assert matrix.best([]) == []


def test_words_of_the_picture_count_every_verdict(found):
    told = matrix.alternative(found)
    assert sum(map(int, re.findall(r"(\d+) [a-z]", told.split(". ", 1)[1]))) == (found["ours"] != "").sum()
    assert "CIFAR-100: not measured" in told or (found.loc[found["data"] == "CIFAR-100", "ours"] != "").any()


def test_a_mark_lies_where_its_number_says():
    """Two cells by hand: the scale of the paper is its largest number, so a mean of half of it lies half way to the edge."""
    head = {"title": "T <b>$x$", "measures": "m", "claim": "c", "words": "w $x_1$ <b>", "control": "", "reported": None}
    rows = [
        head | {"data": "a", "ours": "+0.100 [+0.050, +0.200]", "verdict": "supported", "reported": 0.2},
        head | {"data": "b", "ours": "-0.100 [-0.200, -0.050]", "verdict": "contradicted", "control": "contradicted"},
    ]
    figure = figures.claims_by_data(pd.DataFrame(rows), ["a", "b", "c"])
    assert isinstance(figure, Figure)
    (axes,) = figure.axes
    marks = {line.get_marker(): line for line in axes.lines if line.get_marker() in (">", "<", "o")}
    centres = sorted(
        {line.get_xdata()[0] for line in axes.lines if len(line.get_xdata()) == 2 and len(set(line.get_xdata())) == 1}
    )
    (right,), (left,), (told,) = (marks[shape].get_xdata() for shape in (">", "<", "o"))
    half = (told - centres[0]) / 2
    assert right - centres[0] == pytest.approx(half) and centres[1] - left == pytest.approx(half) and half > 0
    assert same_color(marks[">"].get_color(), MARKS["supported"][0]) and marks["o"].get_markerfacecolor() == "none"
    assert sum(text.get_text() == "†" for text in axes.texts) == 1
    assert "w $x_1$ <b>" in [text.get_text() for text in axes.texts]
    assert b"<b>" not in _svg(figure)


def _svg(figure):
    drawn = io.BytesIO()
    figure.savefig(drawn, format="svg")
    return drawn.getvalue()


def test_verdicts_differ_by_shape_as_well_as_by_colour():
    shapes = [shape for _, shape, _ in MARKS.values()]
    assert len(set(shapes)) == len(shapes) == 5


def test_a_table_that_cannot_be_drawn_is_refused(found):
    with pytest.raises(ValueError, match="the columns are digits; rows of the table are in CIFAR-10, CIFAR-100"):
        figures.claims_by_data(found, ["digits"])
    with pytest.raises(ValueError, match="no claim is measured"):
        figures.claims_by_data(found[found["ours"] == ""], list(matrix.COLUMNS))


def test_the_picture_is_the_same_for_the_same_tables(found):
    assert matrix.draw(found) == matrix.draw(found)
