"""Verdicts: direction, setting and robustness, by hand, by simulation and against scipy."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from saliency_lib import statistics
from saliency_lib.statistics.intervals import mean_interval, spread_over_trainings

CLAIMED = pd.DataFrame(
    {
        "paper": "toy",
        "statement": ["a above b", "b above a", "c above a", "few above a"],
        "where": "table 1",
        "dataset": "cifar10 mnist",
        "networks": "vgg16",
        "quantity": "area",
        "higher": ["a", "b", "c", "few"],
        "lower": ["b", "a", "a", "a"],
        "reported": [".2 against .1", "drawn only", "", ""],
    }
)
PLACE = {"dataset": "cifar10", "model": "cnn"}


def scores(shift=0.2, shape=(120,)):
    source = np.random.default_rng(0)
    b = source.random(shape)
    return {("area", "a"): b + shift + 0.1 * source.normal(size=shape), ("area", "b"): b, ("other", "c"): b}


@pytest.mark.parametrize(
    ("mean", "low", "high", "p", "word"),
    [
        (0.03, 0.01, 0.05, 0.01, "supported"),
        (0.03, 0.01, 0.05, 0.06, "inconclusive"),  # not after the correction
        (0.03, -0.01, 0.07, 0.01, "inconclusive"),
        (0.008, 0.004, 0.012, 0.001, "inconclusive"),  # surely above 0, perhaps too small to matter
        (0.005, 0.002, 0.008, 0.001, "no difference"),  # surely too small to matter
        (-0.001, -0.009, 0.007, 0.9, "no difference"),
        (-0.24, -0.26, -0.22, 0.001, "contradicted"),
        (-0.03, -0.07, 0.01, 0.2, "inconclusive"),
    ],
)
def test_a_direction_needs_an_interval_a_size_and_a_corrected_p(mean, low, high, p, word):
    assert statistics.direction(mean, low, high, p) == word
    opposite = {"supported": "contradicted", "contradicted": "supported"}.get(word, word)
    assert statistics.direction(-mean, -high, -low, p) == opposite


def test_holm_by_hand():
    np.testing.assert_allclose(statistics.holm(np.array([0.01, 0.04, 0.03])), [0.03, 0.06, 0.06])
    np.testing.assert_allclose(statistics.holm(np.array([0.5, 0.9])), [1, 1])


def test_a_p_value_is_two_sided():
    assert statistics.p_value(np.zeros(30)) == 1 and statistics.p_value(np.ones(30)) < 1e-6
    assert statistics.p_value(np.array([1.0, 2.0, 3.0])) == pytest.approx(2 / 8)  # two of the 8 patterns of signs
    gain = np.random.default_rng(0).normal(0.1, 1, 80)
    assert statistics.p_value(gain) == statistics.p_value(-gain) == stats.wilcoxon(gain).pvalue
    several = np.random.default_rng(0).normal(0.3, 1, (5, 80)) + np.array([[0.1], [0], [-0.1], [0.05], [-0.05]])
    assert statistics.p_value(several) == pytest.approx(statistics.p_value(-several)) and statistics.p_value(several) < 0.05


def test_verdicts_say_direction_family_and_size():
    table = statistics.claim_verdicts(CLAIMED, scores(), **PLACE)
    assert list(table["verdict"]) == ["supported", "contradicted", "not tested", "not tested"]
    gain = scores()["area", "a"] - scores()["area", "b"]
    assert table["effect"][0] == pytest.approx(gain.mean() / gain.std(ddof=1)) == -table["effect"][1]
    assert table["ours"][0].startswith(f"{gain.mean():+.3f} [") and table["reported"][0] == ".2 against .1"
    assert list(table["family"]) == ["2 tests: claims of toy"] * 2 + ["", ""]
    few = {key: rows[:99] for key, rows in scores().items()}
    assert set(statistics.claim_verdicts(CLAIMED, few, **PLACE)["verdict"]) == {"not tested"}


def test_the_p_of_a_claim_is_wilcoxons_after_holm_over_those_that_could_be_tested():
    source = np.random.default_rng(2)
    found = {("area", name): source.random(100) + shift for name, shift in (("a", 0.12), ("b", 0.0), ("c", 0.05))}
    table = statistics.claim_verdicts(CLAIMED, found, **PLACE)
    raw = [stats.wilcoxon(found["area", h] - found["area", low]).pvalue for h, low in (("a", "b"), ("b", "a"), ("c", "a"))]
    assert list(table["p"][:3]) == [statistics.format_p(p) for p in statistics.holm(raw)] and table["p"][3] == ""


@pytest.mark.parametrize(
    ("dataset", "model", "as_trained", "kind", "verdict"),
    [
        ("cifar10", "vgg16", True, "paper", "reproduced"),
        ("cifar10", "vgg16", False, "reduced", "supported"),
        ("mnist5k", "vgg16", True, "reduced", "supported"),  # a part of the paper's data set
        ("mnist5k", "cnn", False, "reduced", "supported"),
        ("shapes", "vgg16", False, "reduced", "supported"),
        ("shapes", "cnn", True, "other", "supported"),
    ],
)
def test_only_the_papers_own_setting_reproduces(dataset, model, as_trained, kind, verdict):
    table = statistics.claim_verdicts(CLAIMED, scores(), dataset=dataset, model=model, as_trained=as_trained)
    assert table["setting"][0] == f"{kind}: {dataset}, {model}"
    assert list(table["verdict"][:2]) == [verdict, "contradicted"]


def test_few_trainings_count_more_than_many_images():
    """Two thousand images say nothing of other trainings: with five that disagree, a claim is inconclusive."""
    source = np.random.default_rng(0)
    by_training = np.array([0.10, -0.05, 0.08, 0.02, -0.03])
    gain = by_training[:, None] + 0.1 * source.normal(size=(5, 2000))
    (row,) = statistics.verdict_table(["a"], [gain], family="").to_dict("records")
    assert row["verdict"] == "inconclusive" and row["seeds"] == "3 of 5" and row["images"] == "2000"
    (pooled,) = statistics.verdict_table(["a"], [gain.mean(0)], family="").to_dict("records")
    assert pooled["verdict"] == "supported" and pooled["seeds"] == ""


@pytest.mark.slow
@pytest.mark.parametrize("between", [0.0, 0.05])
def test_intervals_over_trainings_cover_the_truth(between):
    """Five trainings with their own effects, 60 images with their own: a bootstrap or normal interval would cover .88 to .90."""
    source, hits = np.random.default_rng(0), 0
    for _ in range(300):
        effects = 0.05 + between * source.normal(size=(5, 1)) + 0.1 * source.normal(size=(1, 60))
        low, high = statistics.mean_interval(effects + 0.1 * source.normal(size=(5, 60)))
        hits += low <= 0.05 <= high
    assert hits / 300 >= 0.91  # three standard errors below .95


def test_the_error_over_trainings_by_hand():
    """Without noise of its own, the mean of values a_s + b_i has the variance var(a) / S + var(b) / B."""
    source = np.random.default_rng(0)
    a, b = source.normal(size=(5, 1)), source.normal(size=(1, 40))
    error, freedom = statistics.spread_over_trainings(a + b)
    parts = a.var(ddof=1) / 5, b.var(ddof=1) / 40
    assert error == pytest.approx(sum(parts) ** 0.5)
    assert freedom == pytest.approx(sum(parts) ** 2 / (parts[0] ** 2 / 4 + parts[1] ** 2 / 39))
    error, freedom = statistics.spread_over_trainings(a + np.zeros((1, 40)))
    assert error == pytest.approx(stats.sem(a[:, 0])) and freedom == pytest.approx(4)  # then it is the t-test over trainings
    assert statistics.p_value(a + 1 + np.zeros((1, 40))) == pytest.approx(stats.ttest_1samp(a[:, 0] + 1, 0).pvalue)


def test_the_spread_over_trainings_by_hand():
    """Two trainings with the means 0.5 and 3.5, two images with 1 and 3, and a rest of 0.5 with both signs."""
    values = np.array([[0.0, 1.0], [2.0, 5.0]])
    error, freedom = spread_over_trainings(values)
    reach = stats.t.ppf(0.975, freedom) * error
    assert mean_interval(values) == pytest.approx((2 - reach, 2 + reach))
    assert error == pytest.approx((2.25 + 1 - 0.25) ** 0.5) and freedom == pytest.approx(3**2 / (2.25**2 + 1 + 0.25**2))
    large = np.array([[6.0, -2.0], [-4.0, 0.0]])  # parts of 2, 1 and 3: the variance is never less than that of one part
    assert spread_over_trainings(large)[0] == spread_over_trainings(large.T)[0] == pytest.approx(2)


def test_five_trainings_on_one_side_are_not_enough_if_they_differ_much():
    """One time in sixteen five trainings agree by chance; a bootstrap over them gives p = 1 / 2001 whatever their spread."""
    gain = np.array([0.008, 0.091, 0.022, 0.022, 0.147])[:, None] + np.zeros((5, 100))
    (row,) = statistics.verdict_table(["a"], [gain], family="").to_dict("records")
    assert row["seeds"] == "5 of 5" and row["p"] == "0.094" and row["verdict"] == "inconclusive"


def test_fewer_than_five_trainings_get_no_verdict():
    gain = np.random.default_rng(0).normal(0.3, 0.1, (5, 100))
    found = statistics.verdict_table(["five", "four", "one", "one network"], [gain, gain[:4], gain[:1], gain[0]], family="")
    assert list(found["verdict"]) == ["supported", "not tested", "not tested", "supported"] and found["ours"].all()


@pytest.mark.slow
def test_bca_intervals_of_skewed_scores_cover_their_mean():
    """Lognormal scores of 100 images: percentile intervals end too early on the side of the long tail."""
    source, truth = np.random.default_rng(0), np.exp(0.5)
    misses = np.zeros((2, 2))  # of BCa and of percentile intervals: the truth below, above
    for _ in range(300):
        values = source.lognormal(size=100)
        means = values[source.integers(0, 100, (1000, 100))].mean(1)
        for row, (low, high) in zip(
            misses, (statistics.bootstrap_interval(values), np.quantile(means, [0.025, 0.975])), strict=True
        ):
            row += [truth < low, truth > high]
    assert misses[0].sum() / 300 < 0.1 and misses[0, 1] < misses[1, 1]


def test_bca_intervals_are_scipys():
    values = np.random.default_rng(0).lognormal(size=(60, 2))
    ours = np.stack(statistics.bootstrap_interval(values))
    theirs = stats.bootstrap(
        (values,), np.mean, method="BCa", n_resamples=20_000, rng=np.random.default_rng(1)
    ).confidence_interval
    np.testing.assert_allclose(ours, np.stack([theirs.low, theirs.high]), atol=0.12 * values.std(0).max() / 60**0.5)
    assert np.stack(statistics.bootstrap_interval(np.full(30, 0.5))).tolist() == [0.5, 0.5]


def test_the_bias_of_bca_intervals_is_scipys():
    """The mean over many resamplings is exact enough to tell the correction of the bias."""
    values = np.random.default_rng(0).lognormal(sigma=3, size=40)
    many = {"n_resamples": 100_000, "batch": 10_000, "rng": np.random.default_rng(1)}
    theirs = stats.bootstrap((values,), np.mean, method="BCa", **many).confidence_interval
    ours = np.mean([statistics.bootstrap_interval(values, seed=seed) for seed in range(40)], axis=0)
    np.testing.assert_allclose(ours, theirs, atol=0.02 * values.std() / 40**0.5)


def test_robustness_names_the_choices_that_change_a_verdict():
    choices = {"own": scores(0.2), "same": scores(0.2), "other sign": scores(-0.2)}
    table = statistics.robustness(CLAIMED, choices, **PLACE)
    assert list(table["survives"]) == ["not other sign", "not other sign", "yes", "yes"]
    assert table["verdict, other sign"][0] == "contradicted" and table["ours, other sign"][0].startswith("-0.2")
    assert list(table["verdict, same"]) == ["not affected", "not affected", "not tested", "not tested"]
    assert list(table["ours, same"][:2]) == ["", ""]
    both = statistics.robustness(CLAIMED, {"own": scores(0.2), "one": scores(-0.2), "two": scores(-0.2)}, **PLACE)
    assert both["survives"][0] == "not one, not two"
    near = statistics.robustness(CLAIMED, {"own": scores(0.2), "rounded": scores(0.2005), "other": scores(0.202)}, **PLACE)
    assert near["verdict, rounded"][0] == "not affected" and near["verdict, other"][0] == "supported"


def test_gains_are_the_differences_that_the_verdicts_are_about():
    claimed = CLAIMED.assign(id=["A", "B", "C", "D"])
    found = statistics.gains(claimed, {"own": scores(0.2), "other": scores(-0.2)})
    np.testing.assert_array_equal(found["A"]["own"], scores(0.2)["area", "a"] - scores(0.2)["area", "b"])
    np.testing.assert_array_equal(found["B"]["other"], -found["A"]["other"])
    assert found["C"] == {}


def test_findings_are_written_from_the_numbers():
    found = statistics.claim_verdicts(CLAIMED, scores(shape=(5, 120)), **PLACE)
    assert statistics.findings(found)[0] == (
        f"A above b: supported on cifar10, cnn ({found['ours'][0]}, 120 images, 5 of 5 trainings agree)."
    )
    assert statistics.findings(found)[2] == "C above a: not tested on cifar10, cnn."


def test_the_gist_names_claims_by_verdict_and_counts_those_of_a_long_table():
    table = pd.DataFrame(
        {
            "metric": ["aup", "aup", "aur", "aur"],
            "claim": ["a lies below b", "c lies below b", "a lies above d", "It holds"],
            "verdict": ["inconclusive", "supported", "supported", "contradicted"],
        }
    )
    assert statistics.gist(table) == [
        "Supported, 2 of 4: below b: c (aup); above d: a (aur).",
        "Contradicted, 1 of 4: It holds (aur).",
        "Inconclusive, 1 of 4: below b: a (aup).",
    ]
    assert statistics.gist(table.drop(columns="metric"), most=3) == [
        "Supported, 2 of 4.",
        "Contradicted, 1 of 4.",
        "Inconclusive, 1 of 4.",
    ]
