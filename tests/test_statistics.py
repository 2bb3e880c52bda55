"""Means, intervals and verdicts, against closed forms, simulation and scipy."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from saliency_lib import notebook, statistics


@pytest.mark.slow
def test_bootstrap_intervals_cover_the_true_mean_as_often_as_they_say():
    rng = np.random.default_rng(1)
    hits = 0
    for trial in range(400):
        low, high = statistics.bootstrap_interval(rng.beta(2, 5, size=80), seed=trial)
        hits += low <= 2 / 7 <= high
    assert abs(hits / 400 - 0.95) < 4 * (0.95 * 0.05 / 400) ** 0.5


def test_bootstrap_of_curves_is_bootstrap_of_each_point():
    values = np.random.default_rng(0).random((30, 4))
    low, high = statistics.bootstrap_interval(values)
    for column in range(4):
        one = statistics.bootstrap_interval(values[:, column])
        assert (low[column], high[column]) == pytest.approx(one)
    width = 1.96 * values.std(0) / 30**0.5
    np.testing.assert_allclose((high - low) / 2, width, rtol=0.15)


def test_holm_by_hand():
    np.testing.assert_allclose(statistics.holm(np.array([0.01, 0.04, 0.03])), [0.03, 0.06, 0.06])
    np.testing.assert_allclose(statistics.holm(np.array([0.5, 0.9])), [1, 1])


def areas(images=120):
    rng = np.random.default_rng(3)
    random = rng.uniform(0.4, 0.6, images)
    return {
        "good": random - 0.1 - rng.uniform(0, 0.1, images),
        "same": rng.permutation(random),
        "bad": random + 0.1,
        "random": random,
    }


def test_verdicts_follow_the_difference_and_its_uncertainty():
    table = statistics.against_controls(areas(), lower_is_better=True).set_index("claim")
    assert table["verdict"].to_dict() == {
        "good lies below random": "supported",
        "same lies below random": "inconclusive",
        "bad lies below random": "contradicted",
    }
    reverse = statistics.against_controls(areas(), lower_is_better=False).set_index("claim")
    assert reverse.loc["bad lies above random", "verdict"] == "supported"
    assert reverse.loc["bad lies above random", "ours"] == "+0.100 [+0.100, +0.100]"  # positive supports the claim
    assert table.loc["bad lies below random", "ours"] == "-0.100 [-0.100, -0.100]"
    assert set(table["family"]) == {"3 tests: methods against controls"}


def test_both_controls_are_claimed_against_and_make_no_claim_themselves():
    table = statistics.against_controls(areas() | {"edges": areas()["bad"]}, lower_is_better=True)
    assert len(table) == 6 and not table["claim"].str.startswith(("edges", "random")).any()
    assert table.set_index("claim").loc["bad lies below edges", "verdict"] == "no difference"


def test_few_images_get_no_verdict():
    assert set(statistics.against_controls(areas(99), lower_is_better=True)["verdict"]) == {"not tested"}


def test_missing_controls_unpaired_areas_and_nan_are_refused():
    with pytest.raises(ValueError, match=r"no control among \['good'\]"):
        statistics.against_controls({"good": np.zeros(3)}, lower_is_better=True)
    with pytest.raises(ValueError, match="lack the control 'random'"):
        statistics.with_control(["gradient", "edges"])
    assert statistics.with_control(["gradient", "random"]) == ["gradient", "random"]
    for function in (statistics.against_controls, statistics.summary):
        with pytest.raises(ValueError, match=r"need the same number of images, got \{'good': 3, 'random': 4\}"):
            function({"good": np.zeros(3), "random": np.zeros(4)}, lower_is_better=True)
        with pytest.raises(ValueError, match="values of good contain NaN"):
            function({"good": np.array([1, np.nan]), "random": np.zeros(2)}, lower_is_better=True)


def test_readers_see_full_headers_and_other_tables_stay_as_they_are():
    claims = statistics.verdict_table(["a"], [np.zeros(100)], family="")
    expected = ["claim", "mean difference [95 % interval]", "effect size (Cohen's d)", "p-value (two-sided, Holm)"]
    expected += ["corrected for", "images (n)", "trainings that agree", "verdict"]
    assert list(statistics.labelled(claims)) == expected and "ours" in claims
    benchmark = pd.DataFrame({"case": ["rise"], "ours": [1.0], "theirs": [2.0]})
    assert statistics.labelled(benchmark) is benchmark


def test_a_p_value_is_printed_with_three_digits():
    words = [statistics.format_p(p) for p in (0.0009, 0.001, 0.25, 1.0, np.nan)]
    assert words == ["< 0.001", "0.001", "0.250", "1.000", statistics.UNTESTED]


def test_summary_has_the_mean_and_the_interval_of_each_method():
    (row,) = statistics.summary({"flat": np.full(7, 0.25)}, lower_is_better=True).to_dict("records")
    assert row == {"method": "flat", "mean": 0.25, "low": pytest.approx(0.25), "high": pytest.approx(0.25), "images": 7}
    for row in statistics.summary(areas(), lower_is_better=True).itertuples():
        assert row.mean == pytest.approx(areas()[row.method].mean())
        assert (row.low, row.high) == pytest.approx(statistics.bootstrap_interval(areas()[row.method]))


def test_summary_has_the_tied_share_beside_each_area():
    shares = {name: np.full(120, share) for share, name in enumerate(areas())}
    table = statistics.summary(areas(), lower_is_better=True, tied=shares).set_index("method")
    assert table["tied"].to_dict() == {name: share for share, name in enumerate(areas())}
    assert "tied pixels (share)" in statistics.labelled(table.reset_index())


def test_summary_ranks_the_best_first():
    assert statistics.summary(areas(), lower_is_better=True)["method"].iloc[[0, -1]].tolist() == ["good", "bad"]
    assert statistics.summary(areas(), lower_is_better=False)["method"].iloc[0] == "bad"


def test_agreement_is_spearmans_correlation_over_the_maps_that_have_an_order():
    rng = np.random.default_rng(0)
    maps = {"a": rng.normal(size=(4, 6, 6)), "b": rng.normal(size=(4, 6, 6)), "flat": np.zeros((4, 6, 6))}
    maps["b"][2] = 0.5
    table = statistics.map_agreement(maps).set_index("method")
    expected = np.mean([stats.spearmanr(maps["a"][k].ravel(), maps["b"][k].ravel()).statistic for k in (0, 1, 3)])
    assert table.loc["a", "b"] == table.loc["b", "a"] == pytest.approx(expected)
    assert table.loc["b", "b"] == pytest.approx(1)
    assert table["images"].to_dict() == {"a": 4, "b": 3, "flat": 0}
    assert np.isnan(table.loc["a", "flat"])


def test_most_similar_names_the_method_that_is_most_alike():
    rng = np.random.default_rng(0)
    base = rng.normal(size=(3, 6, 6))
    maps = {"a": base, "b": base + 0.3 * rng.normal(size=(3, 6, 6)), "c": rng.normal(size=(3, 6, 6)), "flat": np.zeros((3, 6, 6))}
    agreement = statistics.map_agreement(maps)
    table = statistics.most_similar(agreement, ["a", "missing"]).set_index("method")
    assert list(table.columns) == ["a", "most_similar", "images"]
    assert table.loc["a", "most_similar"].startswith("b (0.9") and table.loc["flat", "most_similar"] == "none"
    assert table.loc["c", "a"] == agreement.set_index("method").loc["c", "a"]


def test_a_leaderboard_holds_every_metric_in_the_order_of_the_last():
    rng = np.random.default_rng(0)
    found = {
        "deletion": {"a": rng.random(30), "b": rng.random(30) + 1},
        "insertion": {"a": rng.random(30), "b": rng.random(30) + 1},
    }
    board = statistics.leaderboard(found, {"deletion": True, "insertion": False}, {"a": {"masks": 5, "cells": 2}, "b": {}})
    assert board["method"].tolist() == ["b", "a"] and board["options"].tolist() == ["", "masks=5, cells=2"]
    assert board["images"].tolist() == [30, 30]
    for metric in found:
        for row in board.itertuples():
            assert getattr(row, metric) == pytest.approx(found[metric][row.method].mean())
            assert getattr(row, f"{metric}_low") < getattr(row, metric) < getattr(row, f"{metric}_high")
    shown = notebook.with_intervals(board)
    assert list(shown.columns) == ["method", "options", "images", "deletion", "insertion"]
    assert "options" not in statistics.leaderboard(found, {"deletion": True, "insertion": False}, {})
    assert shown["deletion"][1].startswith(f"{found['deletion']['a'].mean():.3f} [")


def test_pairs_are_compared_in_the_claimed_direction_under_each_metric():
    table = statistics.paired(areas(), [("good", "bad"), ("bad", "good")], lower_is_better=True)
    assert table["verdict"].tolist() == ["supported", "contradicted"]
    assert table["claim"].tolist() == ["good lies below bad", "bad lies below good"]
    both = statistics.paired_by_metric({"down": areas(), "up": areas()}, [("good", "bad")], {"down": True, "up": False})
    assert both["metric"].tolist() == ["down", "up"] and both["verdict"].tolist() == ["supported", "contradicted"]
    gains = {pair: areas()[pair[1]] - areas()[pair[0]] for pair in (("same", "random"), ("good", "same"))}
    found = statistics.paired(areas(), list(gains), lower_is_better=True)
    raw = [stats.wilcoxon(gain, alternative="two-sided").pvalue for gain in gains.values()]
    assert list(found["p"]) == [f"{max(raw[0], 2 * raw[1]):.3f}", "< 0.001"] and raw[1] < raw[0]  # Holm's correction by hand
    with pytest.raises(ValueError, match="method with areas 'godo' is not known; did you mean 'good'"):
        statistics.paired(areas(), [("godo", "bad")], lower_is_better=True)


def test_accuracy_claims_know_chance():
    assert statistics.better_than_chance(0.5, 100, 10)["verdict"].item() == "supported"
    assert statistics.better_than_chance(0.1, 100, 10)["verdict"].item() == "inconclusive"
    tail = sum(stats.binom.pmf(k, 40, 0.25) for k in range(14, 41))
    assert statistics.better_than_chance(14 / 40, 40, 4)["p"].item() == f"{tail:.3f}" == "0.103"
    assert statistics.better_than_chance(1.0, 6, 1000)["verdict"].item() == "not tested"


def test_non_inferiority_is_about_the_margin():
    hits = np.random.default_rng(0).random(400) < 0.9
    values = {"a": hits.astype(float), "same": hits.astype(float), "worse": hits * (np.arange(400) % 20 > 0)}
    table = statistics.non_inferiority(values, [("same", "a"), ("worse", "a")], margin=0.02)
    assert list(table["verdict"]) == ["supported", "contradicted"]
    assert table["claim"][0] == "same lies less than 0.02 below a" and table["ours"][0] == "+0.000 [+0.000, +0.000]"
    few = {name: rows[:19] for name, rows in values.items()}
    assert list(statistics.non_inferiority(few, [("same", "a")], margin=0.02)["verdict"]) == [statistics.UNTESTED]


def test_non_inferiority_by_hand_and_against_scipy():
    source = np.random.default_rng(1)
    values = {"a": source.normal(0.1, 1, 100), "b": source.normal(0, 1, 100)}
    table = statistics.non_inferiority(values, [("a", "b")], margin=0.2)
    expected, turned = (stats.ttest_rel(values["a"] + margin, values["b"]).pvalue for margin in (0.2, -0.2))
    assert table["p"][0] == f"{expected:.3f}" != f"{turned:.3f}" and min(expected, turned) > 0.001


@pytest.mark.slow
def test_the_intervals_of_a_claim_cover_the_truth_as_often_as_they_say():
    """Synthetic curves: each image's falls by its own logistic, so that the areas are skewed, as ours are."""
    source = np.random.default_rng(0)
    places = np.linspace(0, 1, 29)

    def areas(count):
        middle, width = source.beta(2, 5, (count, 1)), source.uniform(0.02, 0.2, (count, 1))
        return np.trapezoid(1 / (1 + np.exp((places - middle) / width)), places, axis=1)

    truth = areas(200_000).mean() - areas(200_000).mean()
    hits = 0
    for _ in range(400):
        low, high = statistics.bootstrap_interval(areas(60) - areas(60))
        hits += low <= truth <= high
    assert 0.92 <= hits / 400 <= 0.975  # 0.95 within three standard errors


def test_every_claim_of_a_paper_names_what_the_compendium_knows():
    from saliency_lib.artefacts.recipes import recipes
    from saliency_lib.attribution.table import METHODS

    for paper in ("active_gradients", "guided_nonlinearity", "saliency_benchmark", "guided_training", "score_matching"):
        claimed, numbers = notebook.reported(paper)
        assert len(claimed) and claimed["id"].is_unique and claimed.notna().all().all()
        for name in {*claimed["higher"], *claimed["lower"]}:
            assert all(part in METHODS or part in recipes() for part in name.split(", "))
        assert set(claimed["quantity"]) & set(numbers["quantity"]) or "drawn" in " ".join(claimed["reported"]) or not len(numbers)
    with pytest.raises(ValueError, match="paper 'gnl' is not known"):
        notebook.reported("gnl")


def test_a_share_has_wilsons_interval():
    table = statistics.proportions({"all": np.ones(10, bool), "half": np.arange(10) % 2 == 0})
    assert table["method"].tolist() == ["all", "half"] and table["mean"].tolist() == [1, 0.5]
    z = stats.norm.ppf(0.975)
    assert table["high"][0] == pytest.approx(1) and table["low"][0] == pytest.approx(10 / (10 + z**2))
    centre, reach = 0.5, z / (10 + z**2) * np.sqrt(10 / 4 + z**2 / 4)
    assert (table["low"][1], table["high"][1]) == pytest.approx((centre - reach, centre + reach))
