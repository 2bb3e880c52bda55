"""Comprehensiveness and sufficiency: by hand, by law, and against the curves that they are made of."""

import pytest
import torch
from test_ties import SIDE, Additive

import saliency_lib as sl

IMAGE = torch.ones(1, 1, SIDE, SIDE)
WEIGHTS = Additive().weights  # (1, 4, ..., 81) / 100
OPTIONS = {"fill": "black", "score": "logit", "fractions": [1 / 9, 2 / 9, 4 / 9]}


def of(name, maps, **options):
    return sl.METRICS[name](Additive(), IMAGE.expand(len(maps), -1, -1, -1), maps, 0, **OPTIONS | options)


def test_by_hand():
    # the largest one, two and four of (1, 4, 9, ..., 81) / 100 are .81, 1.45 and 2.30 of 2.85
    found, rest = of("comprehensiveness", WEIGHTS[None]), of("sufficiency", WEIGHTS[None])
    assert found.area.item() == pytest.approx(4.56 / 3) and rest.area.item() == pytest.approx(2.85 - 4.56 / 3)
    for share, fall in zip(OPTIONS["fractions"], (0.81, 1.45, 2.30), strict=True):
        alone = {"fractions": [share, share]}
        assert of("comprehensiveness", WEIGHTS[None], **alone).area.item() == pytest.approx(fall)
        assert of("sufficiency", WEIGHTS[None], **alone).area.item() == pytest.approx(2.85 - fall)
    assert found.tied.item() == found.error.item() == rest.error.item() == 0


def test_of_a_map_without_order_they_are_those_of_chance():
    flat = torch.zeros(300, SIDE, SIDE)
    share = sum(OPTIONS["fractions"]) / 3
    found, rest = (of(name, flat, seed=3) for name in ("comprehensiveness", "sufficiency"))
    assert found.tied.tolist() == [1] * 300 and found.monte_carlo_error > 0
    assert found.area.mean().item() == pytest.approx(2.85 * share, abs=4 * found.monte_carlo_error)
    assert rest.area.mean().item() == pytest.approx(2.85 * (1 - share), abs=4 * rest.monte_carlo_error)


def test_they_are_read_from_deletion_and_insertion(smooth, images):
    maps, fractions = images.mean(1), (0.05, 0.2, 0.5)
    options = {"fractions": (0, *fractions, 1), "fill": "mean"}
    for name, start in (("comprehensiveness", "image"), ("sufficiency", "fill")):
        curve = sl.perturbation_curve(smooth, images, maps, start=start, **options)
        whole = curve.values[:, 0 if start == "image" else -1]
        found = sl.METRICS[name](smooth, images, maps, fractions=fractions)
        torch.testing.assert_close(found.area, (whole[:, None] - curve.values[:, 1:-1]).mean(1))


def test_the_default_rationales_are_those_of_eraser(smooth, images):
    eraser = (0.01, 0.05, 0.1, 0.2, 0.5)
    for name in ("comprehensiveness", "sufficiency"):
        found, asked = (sl.METRICS[name](smooth, images, images.mean(1), **one) for one in ({}, {"fractions": eraser}))
        assert torch.equal(found.area, asked.area)


@pytest.mark.parametrize("name", ["comprehensiveness", "sufficiency"])
@pytest.mark.parametrize("fractions", [(), (0.5, 0.1), (0.1, 1.5), (-0.1, 0.2)])
def test_shares_that_are_none_are_refused(name, fractions, smooth, images):
    with pytest.raises(ValueError, match="fractions must be at least two non-decreasing numbers in"):
        sl.METRICS[name](smooth, images, images.mean(1), fractions=fractions)
