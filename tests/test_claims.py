"""Means, intervals and verdicts, against closed forms, simulation and scipy."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from scipy import stats

from saliency_lib.figures import plots
from saliency_lib import notebook as report
from saliency_lib.statistics import claims


def test_bootstrap_intervals_cover_the_true_mean_as_often_as_they_say():
    rng = np.random.default_rng(1)
    hits = 0
    for trial in range(400):
        low, high = claims.bootstrap_interval(rng.beta(2, 5, size=80), seed=trial)
        hits += low <= 2 / 7 <= high
    assert 0.95 - 4 * (0.95 * 0.05 / 400) ** 0.5 - 0.01 < hits / 400 < 0.985  # percentile intervals are a little short


def test_bootstrap_of_curves_is_bootstrap_of_each_point():
    values = np.random.default_rng(0).random((30, 4))
    low, high = claims.bootstrap_interval(values)
    for column in range(4):
        one = claims.bootstrap_interval(values[:, column])
        assert (low[column], high[column]) == pytest.approx(one)
    width = 1.96 * values.std(0) / 30**0.5
    np.testing.assert_allclose((high - low) / 2, width, rtol=0.15)


def test_holm_by_hand():
    np.testing.assert_allclose(claims.holm(np.array([0.01, 0.04, 0.03])), [0.03, 0.06, 0.06])
    np.testing.assert_allclose(claims.holm(np.array([0.5, 0.9])), [1, 1])


def areas(images=60):
    rng = np.random.default_rng(3)
    random = rng.uniform(0.4, 0.6, images)
    return {
        "good": random - 0.1 - rng.uniform(0, 0.1, images),
        "same": rng.permutation(random),
        "bad": random + 0.1,
        "random": random,
    }


def test_verdicts_follow_the_difference_and_its_uncertainty():
    table = claims.against_controls(areas(), lower_is_better=True).set_index("claim")
    assert table["verdict"].to_dict() == {
        "good lies below random": "holds",
        "same lies below random": "does not hold",
        "bad lies below random": "does not hold",
    }
    reverse = claims.against_controls(areas(), lower_is_better=False).set_index("claim")
    assert reverse.loc["bad lies above random", "verdict"] == "holds"
    assert reverse.loc["bad lies above random", "ours"] == "+0.100 [+0.100, +0.100]"


def test_both_controls_are_claimed_against_and_make_no_claim_themselves():
    table = claims.against_controls(areas() | {"edges": areas()["bad"]}, lower_is_better=True)
    assert len(table) == 6 and not table["claim"].str.startswith(("edges", "random")).any()
    assert table.set_index("claim").loc["bad lies below edges", "verdict"] == "does not hold"


def test_few_images_get_no_verdict():
    assert set(claims.against_controls(areas(19), lower_is_better=True)["verdict"]) == {"not tested at this scale"}


def test_missing_controls_unpaired_areas_and_nan_are_refused():
    with pytest.raises(ValueError, match=r"no control among \['good'\]"):
        claims.against_controls({"good": np.zeros(3)}, lower_is_better=True)
    with pytest.raises(ValueError, match="lack the control 'random'"):
        claims.with_control(["gradient", "edges"])
    assert claims.with_control(["gradient", "random"]) == ["gradient", "random"]
    for function in (claims.against_controls, claims.summary):
        with pytest.raises(ValueError, match="not paired"):
            function({"good": np.zeros(3), "random": np.zeros(4)}, lower_is_better=True)
        with pytest.raises(ValueError, match="areas of good hold NaN"):
            function({"good": np.array([1, np.nan]), "random": np.zeros(2)}, lower_is_better=True)


def test_no_difference_at_all_is_no_evidence():
    assert claims.wilcoxon(np.zeros(30)) == 1
    assert claims.wilcoxon(np.ones(30)) < 1e-6


def test_summary_ranks_the_best_first():
    assert claims.summary(areas(), lower_is_better=True)["method"].iloc[[0, -1]].tolist() == ["good", "bad"]
    assert claims.summary(areas(), lower_is_better=False)["method"].iloc[0] == "bad"


def test_agreement_is_spearmans_correlation_over_the_maps_that_have_an_order():
    rng = np.random.default_rng(0)
    maps = {"a": rng.normal(size=(4, 6, 6)), "b": rng.normal(size=(4, 6, 6)), "flat": np.zeros((4, 6, 6))}
    maps["b"][2] = 0.5
    table = claims.agreement(maps).set_index("method")
    expected = np.mean([stats.spearmanr(maps["a"][k].ravel(), maps["b"][k].ravel()).statistic for k in (0, 1, 3)])
    assert table.loc["a", "b"] == table.loc["b", "a"] == pytest.approx(expected)
    assert table.loc["b", "b"] == pytest.approx(1)
    assert table["images"].to_dict() == {"a": 4, "b": 3, "flat": 0}
    assert np.isnan(table.loc["a", "flat"])


def test_kinship_names_the_method_that_is_most_alike():
    rng = np.random.default_rng(0)
    base = rng.normal(size=(3, 6, 6))
    maps = {"a": base, "b": base + 0.3 * rng.normal(size=(3, 6, 6)), "c": rng.normal(size=(3, 6, 6)), "flat": np.zeros((3, 6, 6))}
    agreement = claims.agreement(maps)
    table = claims.kinship(agreement, ["a", "missing"]).set_index("method")
    assert list(table.columns) == ["a", "most_alike", "images"]
    assert table.loc["a", "most_alike"].startswith("b (0.9") and table.loc["flat", "most_alike"] == "none"
    assert table.loc["c", "a"] == agreement.set_index("method").loc["c", "a"]


def test_a_leaderboard_holds_every_metric_in_the_order_of_the_last():
    rng = np.random.default_rng(0)
    found = {
        "deletion": {"a": rng.random(30), "b": rng.random(30) + 1},
        "insertion": {"a": rng.random(30), "b": rng.random(30) + 1},
    }
    board = claims.leaderboard(found, {"deletion": True, "insertion": False}, {"a": {"masks": 5, "cells": 2}, "b": {}})
    assert board["method"].tolist() == ["b", "a"] and board["options"].tolist() == ["", "masks=5, cells=2"]
    assert board["images"].tolist() == [30, 30]
    for metric in found:
        for row in board.itertuples():
            assert getattr(row, metric) == pytest.approx(found[metric][row.method].mean())
            assert getattr(row, f"{metric}_low") < getattr(row, metric) < getattr(row, f"{metric}_high")
    shown = report.with_intervals(board)
    assert list(shown.columns) == ["method", "options", "images", "deletion", "insertion"]
    assert shown["deletion"][1].startswith(f"{found['deletion']['a'].mean():.3f} [")


def test_pairs_are_compared_in_the_claimed_direction_under_each_metric():
    table = claims.paired(areas(), [("good", "bad"), ("bad", "good")], lower_is_better=True)
    assert table["verdict"].tolist() == ["holds", "does not hold"]
    assert table["claim"].tolist() == ["good lies below bad", "bad lies below good"]
    both = claims.paired_over({"down": areas(), "up": areas()}, [("good", "bad")], {"down": True, "up": False})
    assert both["metric"].tolist() == ["down", "up"] and both["verdict"].tolist() == ["holds", "does not hold"]
    with pytest.raises(ValueError, match="method with areas 'godo' is not known; did you mean 'good'"):
        claims.paired(areas(), [("godo", "bad")], lower_is_better=True)


def test_accuracy_claims_know_chance():
    assert claims.better_than_chance(0.5, 100, 10)["verdict"].item() == "holds"
    assert claims.better_than_chance(0.1, 100, 10)["verdict"].item() == "does not hold"
    assert claims.better_than_chance(1.0, 6, 1000)["verdict"].item() == "not tested at this scale"


def noise(*shape):
    return np.random.default_rng(2).random(shape)


def test_figures_have_axes_units_and_legends():
    fractions, values = np.linspace(0, 1, 5), {name: np.random.default_rng(1).random((20, 5)) for name in ("gradient", "random")}
    figure = plots.curves(fractions, values, changed="pixels removed", score="probability", lower_is_better=True)
    left, right = figure.axes
    assert "%" in left.get_xlabel() and "95 %" in left.get_ylabel() and left.get_ylim() == (0, 1)
    assert {label.get_text() for label in right.get_yticklabels()} == {"gradient", "random"}
    keyed = {line.get_color() for line in right.lines if line.get_linestyle() != "None"}  # the key to the curves
    assert {line.get_color() for line in left.lines} <= keyed
    assert "smaller is better" in right.get_xlabel()
    signed = plots.curves(fractions, {"random": -values["random"]}, changed="c", score="s", lower_is_better=True, of="")
    assert signed.axes[0].get_ylim()[0] < 0 and "(%)" in signed.axes[0].get_xlabel()
    panels = {name: {"gradient": noise(20), "edges": noise(20)} for name in "abcd"}
    several = plots.intervals(panels, dict.fromkeys("abcd", False))
    assert [axes.get_xlabel()[0] for axes in several.axes] == list("abcd")
    assert isinstance(plots.gallery(noise(2, 3, 8, 8), {"gradient": noise(2, 8, 8)}, ["a", "b"]), Figure)
    wide = plots.gallery(noise(2, 3, 8, 8), {str(number): noise(2, 8, 8) for number in range(20)})
    assert len([axes for axes in wide.axes if axes.images]) == 2 * (20 + 3)  # three bands, each with the image again
    history = pd.DataFrame({"epoch": [1, 2], "loss": [2.0, 1.0], "test_accuracy": [0.3, 0.6], "learning_rate": [0.1, 0.1]})
    assert len(plots.training(history, noise(2, 1, 8, 8), ["a", "b"], np.ones(2), np.ones(2, bool)).axes) == 2 + 6
    assert plots.training(history[:0], noise(7, 1, 8, 8), ["a"] * 7, np.ones(7), np.ones(7, bool)).axes


def test_signed_maps_are_drawn_about_zero_and_others_from_their_least_values():
    figure = Figure()
    one, other, flat = figure.subplots(1, 3)
    plots.draw_map(one, np.array([[-2.0, 1.0]]))
    plots.draw_map(other, np.array([[0.0, 3.0]]))
    plots.draw_map(flat, np.zeros((2, 2)), image=noise(3, 2, 2), opacity=0.5)
    (low, high), (bottom, top) = one.images[0].get_clim(), other.images[0].get_clim()
    assert low == -high and 0 <= bottom < 0.02 * top
    assert len(flat.images) == 2
    plots.draw_map(other, np.array([[5.0, 6.0]]))  # as RISE's maps are, all high
    assert other.images[1].get_clim() == pytest.approx((5.0, 6.0), abs=0.01)


def test_every_method_has_a_colour_of_its_own():
    from saliency_lib.attribution.table import METHODS

    colours = [plots.colour(name) for name in METHODS]
    assert len(set(colours)) == len(colours)


def test_not_worse_is_about_the_margin():
    hits = np.random.default_rng(0).random(400) < 0.9
    values = {"a": hits.astype(float), "same": hits.astype(float), "worse": hits * (np.arange(400) % 20 > 0)}
    table = claims.not_worse(values, [("same", "a"), ("worse", "a")], margin=0.02)
    assert list(table["verdict"]) == ["holds", "does not hold"]
    assert table["claim"][0] == "same lies less than 0.02 below a" and table["ours"][0] == "+0.000 [+0.000, +0.000]"
    few = {name: rows[:19] for name, rows in values.items()}
    assert list(claims.not_worse(few, [("same", "a")], margin=0.02)["verdict"]) == [claims.UNTESTED]


def test_not_worse_by_hand_and_against_scipy():
    from scipy import stats

    source = np.random.default_rng(1)
    values = {"a": source.normal(0, 1, 60), "b": source.normal(0, 1, 60)}
    table = claims.not_worse(values, [("a", "b")], margin=0.5)
    expected = stats.ttest_rel(values["a"] + 0.5, values["b"], alternative="greater").pvalue
    assert table["p"][0] == (f"{expected:.3f}" if expected >= 0.001 else "< 0.001")


@pytest.mark.parametrize("shared", [True, False])
def test_panels_have_one_axes_a_case_and_a_key_to_every_line(shared):
    source = np.random.default_rng(0)
    lines = {"standard": source.random((5, 4)), "saliency_guided": source.random((5, 4))}
    values = {"gradient": lines, "random": lines if shared else {"rise": source.random((5, 4))}}
    figure = plots.panels(np.linspace(0, 0.9, 4), values, changed="pixels", score="accuracy")
    drawn = [axes for axes in figure.axes if axes.lines]
    assert [len(axes.lines) for axes in drawn] == [2, 2 if shared else 1]
    keys = figure.legends if shared else [axes.get_legend() for axes in drawn]
    assert {text.get_text() for key in keys for text in key.get_texts()} == {"standard", "saliency guided"} | (
        set() if shared else {"rise"}
    )


CLAIMED = pd.DataFrame(
    {
        "statement": ["a above b", "b above a", "c above a", "few above a"],
        "where": "table 1",
        "quantity": "area",
        "higher": ["a", "b", "c", "few"],
        "lower": ["b", "a", "a", "a"],
        "reported": [".2 against .1", "drawn only", "", ""],
    }
)


def test_a_claim_is_reproduced_not_reproduced_or_not_tested():
    source = np.random.default_rng(0)
    b = source.random(60)
    scores = {("area", "a"): b + 0.2 + 0.1 * source.normal(size=60), ("area", "b"): b, ("other", "c"): b}
    table = claims.verdicts(CLAIMED, scores)
    assert list(table["verdict"]) == ["reproduced", "not reproduced", claims.UNTESTED, claims.UNTESTED]
    gain = scores["area", "a"] - b
    assert table["effect"][0] == pytest.approx(gain.mean() / gain.std(ddof=1)) == -table["effect"][1]
    assert table["ours"][0].startswith(f"{gain.mean():+.3f} [") and table["reported"][0] == ".2 against .1"
    assert list(claims.verdicts(CLAIMED, {key: rows[:19] for key, rows in scores.items()})["verdict"]) == [claims.UNTESTED] * 4


def test_the_p_of_a_claim_is_wilcoxons_after_holm_over_those_that_could_be_tested():
    source = np.random.default_rng(2)
    scores = {("area", name): source.random(40) + shift for name, shift in (("a", 0.12), ("b", 0.0), ("c", 0.05))}
    table = claims.verdicts(CLAIMED, scores)
    raw = [claims.wilcoxon(scores["area", h] - scores["area", low]) for h, low in (("a", "b"), ("b", "a"), ("c", "a"))]
    assert list(table["p"][:3]) == [claims.p_words(p) for p in claims.holm(raw)] and table["p"][3] == ""


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
        low, high = claims.bootstrap_interval(areas(60) - areas(60))
        hits += low <= truth <= high
    assert 0.92 <= hits / 400 <= 0.975  # 0.95 within three standard errors


def test_every_claim_of_a_paper_names_what_the_compendium_knows():
    from saliency_lib.artefacts.recipes import recipes
    from saliency_lib.attribution.table import METHODS
    from saliency_lib import notebook as report

    for paper in ("active_gradients", "guided_nonlinearity", "saliency_benchmark", "guided_training", "score_matching"):
        claimed, numbers = report.reported(paper)
        assert len(claimed) and claimed["id"].is_unique and claimed.notna().all().all()
        for name in {*claimed["higher"], *claimed["lower"]}:
            assert all(part in METHODS or part in recipes() for part in name.split(", "))
        assert set(claimed["quantity"]) & set(numbers["quantity"]) or "drawn" in " ".join(claimed["reported"]) or not len(numbers)
    with pytest.raises(ValueError, match="paper 'gnl' is not known"):
        report.reported("gnl")
