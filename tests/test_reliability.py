"""Reliability of metrics: Krippendorff's own example, a count by hand, and laws."""

import numpy as np
import pandas as pd
import pytest

from saliency_lib import statistics

NONE = np.nan
EXAMPLE = [  # Krippendorff 2011, "Computing Krippendorff's alpha-reliability", C: four observers, twelve units
    [1, 2, 3, 3, 2, 1, 4, 1, 2, NONE, NONE, NONE],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NONE, 3],
    [NONE, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NONE],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NONE],
]


@pytest.mark.parametrize(("level", "alpha"), [("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_is_that_of_krippendorffs_example(level, alpha):
    assert statistics.krippendorff_alpha(EXAMPLE, level=level) == pytest.approx(alpha, abs=5e-4)


def test_alpha_by_hand():
    # units (1, 1), (2, 3): squared differences in units 0 and 1, each pair twice, mean 2 / 4; over all twelve pairs of 1 1 2 3:
    # 0 1 4 1 4 1, mean 11 / 6
    assert statistics.krippendorff_alpha([[1, 2], [1, 3]], level="interval") == pytest.approx(1 - 0.5 / (11 / 6))
    # the places of 1, 2 and 3 in the order of all four are 1, 2.5 and 3.5: differences 0 1.5 2.5 1.5 2.5 1
    expected = (2 * 1.5**2 + 2 * 2.5**2 + 1) / 6
    assert statistics.krippendorff_alpha([[1, 2], [1, 3]]) == pytest.approx(1 - 0.5 / expected)


@pytest.mark.parametrize("level", ["ordinal", "interval"])
def test_equal_rankings_agree_fully_and_random_ones_by_chance(level):
    source = np.random.default_rng(0)
    assert statistics.krippendorff_alpha(np.tile(source.permutation(7), (30, 1)), level=level) == 1
    random = source.permuted(np.tile(np.arange(7.0), (400, 1)), axis=1)
    assert abs(statistics.krippendorff_alpha(random, level=level)) < 0.01
    contrary = np.stack([np.arange(7.0), np.arange(7.0)[::-1]])
    assert statistics.krippendorff_alpha(contrary, level=level) < -0.8


def test_the_order_of_raters_and_units_and_an_increasing_scale_do_not_count():
    table, source = np.array(EXAMPLE), np.random.default_rng(0)
    moved = table[source.permutation(4)][:, source.permutation(12)]
    assert statistics.krippendorff_alpha(moved) == pytest.approx(statistics.krippendorff_alpha(table))
    assert statistics.krippendorff_alpha(table**3) == pytest.approx(statistics.krippendorff_alpha(table))
    scaled = statistics.krippendorff_alpha(7 * table - 2, level="interval")
    assert scaled == pytest.approx(statistics.krippendorff_alpha(table, level="interval"))


def test_a_metric_on_which_images_agree_has_the_greater_alpha():
    noise = np.random.default_rng(0).normal(size=(4, 50))
    alphas = []
    for gap in (0.0, 0.5, 5.0):
        areas = {"deletion": {name: noise[row] + gap * row for row, name in enumerate("abcd")}}
        alphas.append(statistics.krippendorff_alpha(statistics.block_ranks(areas, {"deletion": True})))
    assert alphas == sorted(alphas) and abs(alphas[0]) < 0.05 and alphas[2] > 0.95


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="no unit has two ratings"):
        statistics.krippendorff_alpha([[1.0, NONE], [NONE, 2.0]])
    with pytest.raises(ValueError, match="level 'nominal' is not known; did you mean 'ordinal'"):
        statistics.krippendorff_alpha(EXAMPLE, level="nominal")
    with pytest.raises(ValueError, match=r"ratings must be \(raters, units\), got \(3,\)"):
        statistics.krippendorff_alpha([1.0, 2.0, 3.0])
    assert np.isnan(statistics.krippendorff_alpha(np.ones((3, 4))))


def test_redundant_metrics_are_the_pairs_above_the_threshold():
    names = ["deletion", "allegiance", "road", "infidelity"]
    numbers = np.array([[1, 0.95, 0.4, NONE], [0.95, 1, 0.97, -0.99], [0.4, 0.97, 1, 0.9], [NONE, -0.99, 0.9, 1]])
    table = pd.DataFrame(numbers, columns=names)
    table.insert(0, "metric", names)
    found = statistics.redundant_metrics(table)
    assert found.to_numpy().tolist() == [
        ["allegiance", "road", 0.97],
        ["deletion", "allegiance", 0.95],
        ["road", "infidelity", 0.9],
    ]
    none = statistics.redundant_metrics(table, threshold=0.99)
    assert len(none) == 0 and list(none) == ["one", "other", "correlation"]


def test_a_metric_and_its_copy_are_redundant():
    areas = {name: np.random.default_rng(row).normal(size=30) + row for row, name in enumerate("abcdef")}
    rows = {"deletion": areas, "insertion": {name: -values for name, values in areas.items()}}
    agreement = statistics.metric_agreement({"training": rows}, {"deletion": True, "insertion": False})
    assert statistics.redundant_metrics(agreement)["correlation"].tolist() == pytest.approx([1])
