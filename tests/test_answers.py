"""What many verdicts say together, and its pictures."""

import numpy as np
import pandas as pd
import pytest

import saliency_lib as sl
from saliency_lib import figures, paths, statistics
from saliency_lib.artefacts import tables
from saliency_lib.statistics.intervals import format_difference

FOUND = pd.DataFrame(
    {
        "measured": ["a", "b", "c", "d"],
        "claim": ["x", "x", "x", None],
        "ours": ["+0.100 [+0.050, +0.150]", "-0.200 [-0.300, -0.100]", "-0.030 [-0.060, -0.020]", None],
        "verdict": ["supported", "contradicted", "contradicted", None],
    }
)


def test_a_printed_difference_is_read_back():
    assert statistics.parse_difference(format_difference(0.1234, -0.0001, 1.5)) == (0.123, 0.0, 1.5)
    for text in ("+0.1", "0.1 [0.0, 0.2]", "+0.100 [+0.050, +0.150] ✗"):
        with pytest.raises(ValueError, match="a difference is printed as"):
            statistics.parse_difference(text)


def test_a_tally_names_the_networks_of_each_verdict():
    assert statistics.tally(FOUND, "measured") == "supported on 1 of 3 (a), contradicted on 2 (b, c); not measured on d"
    assert statistics.tally(FOUND[1:3], "measured") == "supported on 0 of 2, contradicted on 2 (b, c)"


def test_verdicts_of_all_choices_stand_side_by_side():
    robust = [
        pd.DataFrame(
            {"claim": ["x", "y"], "ours": "", "verdict": ["supported"] * 2, "verdict, seed": ["supported", "not affected"]}
        ),
        pd.DataFrame({"claim": ["z"], "ours": "", "verdict": ["inconclusive"], "verdict, fill": ["contradicted"]}),
    ]
    found = statistics.across_choices(robust, [FOUND[:2], FOUND[3:]])
    assert list(found.index) == ["x", "y", "z"] and list(found.columns) == ["defaults", "seed", "fill", "a", "b"]
    assert found.loc["x"].tolist() == ["supported", "supported", np.nan, "supported", "contradicted"]
    assert found.loc["y"].dropna().tolist() == ["supported", "not affected"]
    said = "Of 2 claims that another choice affects, 0 have the same verdict under every one that was tried."
    assert statistics.survivors(found).startswith(said)
    assert statistics.survivors(found.drop(columns="b")).startswith("Of 2 claims that another choice affects, 1 have")
    found = found.drop(columns="b").replace({"a": {"supported": "reproduced"}})
    assert statistics.survivors(found).startswith("Of 2 claims that another choice affects, 1 have")


def test_effects_are_drawn_where_they_were_measured():
    both = pd.concat([FOUND.assign(panel="p"), FOUND[:1].assign(panel="q")])
    figure = figures.effects(both, rows="measured", panels="panel")
    left, right = figure.axes
    dots = {(float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in left.lines if line.get_marker() == "o"}
    assert dots == {(0.1, 3.0), (-0.2, 2.0), (-0.03, 1.0)} and len(right.lines) == 2 + 1
    assert [label.get_text() for label in left.get_yticklabels()] == ["a", "b", "c", "d (not measured)"]
    bars = [line for line in left.lines if list(line.get_ydata()) == [3, 3]]
    assert list(bars[0].get_xdata()) == [0.05, 0.15] and bars[0].get_color() == figures.style.GOOD
    with pytest.raises(ValueError, match="none of d is measured"):
        figures.effects(FOUND[3:].assign(panel="p"), rows="measured", panels="panel")


def test_a_matrix_has_a_mark_for_each_verdict_that_was_tried():
    table = pd.DataFrame({"defaults": ["supported", "no difference"], "fill": [None, "not affected"]}, index=["x", "y"])
    axes = figures.verdict_matrix(table).axes[0]
    assert [text.get_text() for text in axes.texts] == ["✓", "", "=", "·"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["defaults", "fill"]
    low, high = axes.get_ylim()
    assert low > high  # the first claim at the top


def test_measured_tables_of_many_networks_become_one(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    tables.keep(tmp_path / "data" / "measured" / "a_areas.csv", pd.DataFrame({"area": [1.0, 2.0]}), {"command": "make it"})
    found = sl.notebook.gathered(["a", "b"], "areas", {"digits": pd.DataFrame({"area": [3.0]})})
    assert found["measured"].tolist() == ["digits", "a", "a", "b"]
    assert found["area"].tolist()[:3] == [3, 1, 2] and np.isnan(found["area"].iloc[3])
    with pytest.raises(ValueError, match=r"has no table <name>_curves\.csv, where <name> is one of: a, b"):
        sl.notebook.gathered(["a", "b"], "curves")


def test_the_stored_run_of_another_notebook_is_read():
    found = sl.notebook.stored("04_guided_nonlinearity", "claims")
    assert found["verdict"].tolist() and found["claim"].str.contains("Guided").all()
    with pytest.raises(ValueError, match="table of 04_guided_nonlinearity 'claim' is not known; did you mean 'claims'"):
        sl.notebook.stored("04_guided_nonlinearity", "claim")
