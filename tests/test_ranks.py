"""Ranks over images and metrics: against published tables, scipy, and counts by hand."""

import numpy as np
import pytest
from scipy import stats

from saliency_lib import figures, statistics

LOWER = {"deletion": True, "insertion": False}


def draw(methods=5, images=40, gap=0.0, seed=0):
    """Areas of methods a, b, c, ... each worse than the one before by `gap`, under both metrics."""
    noise = np.random.default_rng(seed).normal(size=(2, methods, images))
    names = [chr(97 + number) for number in range(methods)]
    rows = {name: gap * number for number, name in enumerate(names)}
    return {
        "deletion": {name: rows[name] + noise[0, number] for number, name in enumerate(names)},
        "insertion": {name: -rows[name] + noise[1, number] for number, name in enumerate(names)},
    }


def test_ranks_by_hand():
    areas = {
        "deletion": {"a": [0.1, 0.5], "b": [0.2, 0.5], "c": [0.3, 0.1]},
        "insertion": {"a": [1, 0], "b": [3, 0], "c": [2, 0]},
    }
    # deletion: a b c = 1 2 3, then 2.5 2.5 1; insertion: 3 1 2, then all 2; sums 4 3 5 and 4.5 4.5 3
    assert statistics.block_ranks({"deletion": areas["deletion"]}, LOWER).to_numpy().tolist() == [[1, 2, 3], [2.5, 2.5, 1]]
    assert statistics.block_ranks(areas, LOWER).to_numpy().tolist() == [[2, 1, 3], [2.5, 2.5, 1]]


def test_ranks_by_image_by_hand_and_the_ranks_of_any_family_follow_from_them():
    areas = {
        "deletion": {"a": [0.1, 0.5], "b": [0.2, 0.5], "c": [0.3, 0.1]},
        "insertion": {"a": [1, 0], "b": [3, 0], "c": [2, 0]},
    }
    table = statistics.ranks_by_image({"standard": areas, "other": areas}, LOWER)
    assert list(table) == ["training", "metric", "image", "a", "b", "c"] and len(table) == 8
    own = table[table["training"] == "other"]
    assert own[own["metric"] == "deletion"].drop(columns=["training", "metric"]).to_numpy().tolist() == [
        [0, 1, 2, 3],
        [1, 2.5, 2.5, 1],
    ]
    assert own[own["metric"] == "insertion"].drop(columns=["training", "metric"]).to_numpy().tolist() == [
        [0, 3, 1, 2],
        [1, 2, 2, 2],
    ]
    total = own.groupby("image")[["a", "b", "c"]].mean().to_numpy()
    assert stats.rankdata(total, axis=1).tolist() == statistics.block_ranks(areas, LOWER).to_numpy().tolist()


def test_ranks_do_not_depend_on_units_or_the_order_of_methods():
    areas = draw()
    ranks = statistics.block_ranks(areas, LOWER)
    scaled = {"deletion": {name: 3 + 100 * values for name, values in areas["deletion"].items()}, "insertion": areas["insertion"]}
    assert statistics.block_ranks(scaled, LOWER).equals(ranks)
    turned = {metric: dict(reversed(rows.items())) for metric, rows in areas.items()}
    assert statistics.block_ranks(turned, LOWER)[list(ranks)].equals(ranks)
    assert np.allclose(ranks.sum(axis=1), 5 * 6 / 2)


def test_a_better_method_has_the_better_rank_and_alike_ones_are_not_told_apart():
    table = statistics.mean_ranks(draw(gap=4.0), LOWER)
    assert list(table["method"]) == list("abcde") and table["rank"].is_monotonic_increasing
    assert ((table["rank_low"] <= table["rank"]) & (table["rank"] <= table["rank_high"])).all() and set(table["images"]) == {40}
    assert statistics.cliques(table["rank"], statistics.critical_difference(5, 40)) == []
    alike = statistics.mean_ranks(draw(), LOWER)
    assert statistics.cliques(alike["rank"], statistics.critical_difference(5, 40)) == [(0, 4)]


@pytest.mark.parametrize(("methods", "q"), [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (6, 2.850), (8, 3.031), (10, 3.164)])
def test_the_critical_difference_is_that_of_the_published_table(methods, q):
    """Demsar 2006, table 5(a), at 0.05."""
    assert statistics.critical_difference(methods, 30) == pytest.approx(q * np.sqrt(methods * (methods + 1) / 180), rel=5e-4)


@pytest.mark.slow
def test_the_critical_difference_keeps_its_level():
    """Of 400 tables in which all methods are alike, in about 5 % any pair of the five is told apart."""
    wrong = 0
    for seed in range(400):
        table = statistics.mean_ranks({"deletion": draw(images=30, seed=seed)["deletion"]}, LOWER)
        wrong += table["rank"].iloc[-1] - table["rank"].iloc[0] > statistics.critical_difference(5, 30)
    assert stats.binomtest(wrong, 400, 0.05).pvalue > 0.001


def test_the_mean_ranks_are_the_means_over_images_with_their_own_bootstrap_interval():
    ranks = statistics.block_ranks(draw(gap=0.5), LOWER)
    for row in statistics.mean_ranks(draw(gap=0.5), LOWER).itertuples():
        assert row.rank == pytest.approx(np.mean(ranks[row.method]))
        assert (row.rank_low, row.rank_high) == pytest.approx(statistics.bootstrap_interval(ranks[row.method]))


def test_friedman_is_scipys_on_one_metric_and_sees_a_difference():
    areas = {"deletion": draw(gap=0.3)["deletion"]}
    assert statistics.friedman(areas, LOWER) == pytest.approx(stats.friedmanchisquare(*areas["deletion"].values()).pvalue)
    assert statistics.friedman(draw(gap=1.0), LOWER) < 1e-6 < statistics.friedman(draw(), LOWER)
    assert statistics.friedman({"deletion": dict.fromkeys("abc", np.ones(20))}, LOWER) == 1


def test_too_few_images_or_methods_are_not_tested():
    assert statistics.format_p(statistics.friedman(draw(images=19, gap=9.0), LOWER)) == statistics.UNTESTED
    assert statistics.format_p(statistics.friedman(draw(images=20, gap=9.0), LOWER)) == "< 0.001"
    assert np.isnan(statistics.friedman(draw(methods=2), LOWER))
    assert np.isnan(statistics.critical_difference(5, 19)) and statistics.critical_difference(5, 20) > 0
    table = statistics.mean_ranks(draw(images=19, gap=9.0), LOWER)
    (axes,) = figures.critical_difference_diagram({"few": table}, statistics.critical_difference(5, 19)).axes
    assert [text.get_text() for text in axes.texts] == ["too few images to test pairs"]
    assert not [line for line in axes.lines if len(set(line.get_ydata())) == 2]  # no vertical bar


@pytest.mark.parametrize(
    ("ranks", "runs"),
    [([1, 2, 3, 4], []), ([1, 1.5, 3, 3.5], [(0, 1), (2, 3)]), ([1, 1.8, 2.6], [(0, 1), (1, 2)]), ([1, 1.2, 1.4, 5], [(0, 2)])],
)
def test_cliques_are_the_longest_runs(ranks, runs):
    assert statistics.cliques(ranks, 1.0) == runs


def test_metrics_that_say_the_same_agree_and_those_that_say_the_contrary_do_not():
    areas = draw(gap=2.0)
    same = statistics.metric_agreement({"one": areas, "two": areas}, LOWER).set_index("metric")
    assert same.loc["deletion", "insertion"] == pytest.approx(1)
    contrary = statistics.metric_agreement({"one": areas}, LOWER | {"insertion": True}).set_index("metric")
    assert contrary.loc["deletion", "insertion"] == pytest.approx(-1) and contrary.loc["deletion", "deletion"] == pytest.approx(1)
    flat = {"one": areas | {"insertion": dict.fromkeys("abcde", np.ones(40))}}
    assert np.isnan(statistics.metric_agreement(flat, LOWER).set_index("metric").loc["deletion", "insertion"])


def test_metric_agreement_is_scipys_correlation_averaged_over_the_trainings():
    trainings = {"first": draw(gap=0.1), "second": draw(gap=0.1, seed=1)}
    means = {name: {m: [np.mean(rows[m][k]) for k in "abcde"] for m in rows} for name, rows in trainings.items()}
    by_hand = [stats.spearmanr(np.negative(one["deletion"]), one["insertion"]).statistic for one in means.values()]
    table = statistics.metric_agreement(trainings, LOWER).set_index("metric")
    assert -1 < np.mean(by_hand) < 1 and table.loc["deletion", "insertion"] == pytest.approx(np.mean(by_hand))
    assert list(table.columns) == list(table.index) == ["deletion", "insertion"]


def test_agreement_matches_methods_by_name():
    areas = draw(gap=2.0)
    turned = {"deletion": areas["deletion"], "insertion": dict(reversed(areas["insertion"].items()))}
    assert statistics.metric_agreement({"one": turned}, LOWER).equals(statistics.metric_agreement({"one": areas}, LOWER))


def test_trainings_stand_side_by_side():
    good = draw(images=100, gap=2.0)
    bad = {metric: dict(zip("edcba", rows.values(), strict=True)) for metric, rows in good.items()}
    table = statistics.ranks_by_training({"first": good, "second": bad}, LOWER)
    assert list(table.columns) == ["first", "second"] and table.loc["a", "first"] < 2 < 4 < table.loc["a", "second"]
    found = statistics.paired_by_training({"first": good, "second": bad}, [("a", "b")], LOWER)
    shown = statistics.side_by_side(found)
    assert list(shown.columns) == ["claim", "metric", "first", "second"] and len(shown) == 2
    assert shown["second"].str.match(r"-.* contradicted$").all() and shown["first"].str.match(r"\+[^a-z]*$").all()
    none = statistics.side_by_side(statistics.paired_by_training({"first": {"deletion": {}}}, [], LOWER))
    assert len(none) == 0
    few = statistics.paired_by_training({"first": draw(images=10, gap=2.0)}, [("a", "b")], LOWER)
    assert (statistics.side_by_side(few)["first"] == "").all()


def test_the_leaderboard_of_all_trainings_joins_ranks_and_means():
    trainings = {"first": draw(gap=0.5), "second": draw(gap=0.5, seed=1)}
    table = statistics.leaderboard_by_training(trainings, LOWER, {"a": {"masks": 5}})
    assert list(table.columns[:7]) == ["training", "method", "options", "images", "rank", "rank_low", "rank_high"]
    assert list(table["training"]) == ["first"] * 5 + ["second"] * 5 and set(table["images"]) == {40}
    assert set(table.loc[table["method"] == "a", "options"]) == {"masks=5"} and table["options"].ne("").sum() == 2
    for row in table.itertuples():
        assert row.insertion == pytest.approx(trainings[row.training]["insertion"][row.method].mean())
        assert row.deletion_low < row.deletion < row.deletion_high
    for training, rows in trainings.items():
        ranks = statistics.mean_ranks(rows, LOWER)
        assert list(table.loc[table["training"] == training, "method"]) == list(ranks["method"])
        assert statistics.ranks_by_training(trainings, LOWER)[training].to_dict() == ranks.set_index("method")["rank"].to_dict()


@pytest.mark.parametrize(
    ("areas", "message"),
    [
        ({}, "at least one metric"),
        ({"deletion": {"a": np.ones(3)}}, "at least two methods"),
        ({"deletion": {"a": np.ones(3), "b": np.ones(4)}}, "every method needs 3 images"),
        ({"deletion": {"a": np.ones(3), "b": np.array([1, np.nan, 1])}}, "NaN or infinity"),
        (
            {"deletion": {"a": np.ones(3), "b": np.ones(3)}, "insertion": {"a": np.ones(3), "c": np.ones(3)}},
            "same methods",
        ),
        (
            {"deletion": dict.fromkeys("ab", np.ones(3)), "insertion": dict.fromkeys("ab", np.ones(4))},
            "insertion has {'a': 4",
        ),
    ],
)
def test_what_cannot_be_ranked_is_refused(areas, message):
    with pytest.raises(ValueError, match=message):
        statistics.mean_ranks(areas, LOWER)


def test_a_family_of_metrics_has_one_vote():
    """Three metrics that agree outvote two others if each counts, and do not if they are one family."""
    rows = {"a": np.zeros(30), "b": np.ones(30)}
    other = {"a": np.ones(30), "b": np.zeros(30)}
    areas = {"deletion": rows, "allegiance": rows, "masked": rows, "road": other, "infidelity": other}
    lower, families = dict.fromkeys(areas, True), dict.fromkeys(("deletion", "allegiance", "masked"), "removal")
    assert statistics.mean_ranks(areas, lower)["method"][0] == "a"
    assert statistics.mean_ranks(areas, lower, families)["method"][0] == "b"
    ranks = statistics.block_ranks(areas, lower, families | {"road": "other", "infidelity": "other"})
    assert (ranks == 1.5).all(axis=None)
