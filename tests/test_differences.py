"""Differences of deletion curves: by hand, by law, and against the curves that they are made of."""

import pytest
import torch
from test_ties import MAP, SIDE, Additive, every_order

import saliency_lib as sl

IMAGE = torch.ones(1, 1, SIDE, SIDE)
WEIGHTS = Additive().weights  # (1, 4, ..., 81) / 100
OPTIONS = {"steps": 9, "fill": "black", "score": "logit"}


def srg(maps, model=None, images=IMAGE, **options):
    return sl.METRICS["srg"](model or Additive(), images.expand(len(maps), -1, -1, -1), maps, 0, **OPTIONS | options)


def relative(maps, **options):
    return sl.METRICS["relative_deletion"](Additive(), IMAGE.expand(len(maps), -1, -1, -1), maps, 0, **OPTIONS | options)


def test_the_symmetric_relevance_gain_by_hand():
    # the true order leaves (285, 204, 140, 91, 55, 30, 14, 5, 1, 0) / 100, the reverse order (285, 284, 280, 271, ..., 0) / 100
    squares = torch.arange(1.0, 10).square()
    most = torch.cat([squares.sum()[None], squares.sum() - squares.flip(0).cumsum(0)]) / 100
    least = torch.cat([squares.sum()[None], squares.sum() - squares.cumsum(0)]) / 100
    found = srg(WEIGHTS[None])
    torch.testing.assert_close(found.values[0], least - most)
    assert found.area.item() == pytest.approx((least - most).sum().item() / 9)
    assert found.tied.tolist() == found.error.tolist() == [0]


def test_the_gain_of_the_negative_map_is_the_negative_gain(smooth, images):
    maps = images.mean(1)
    one, other = (sl.METRICS["srg"](smooth, images, sign * maps) for sign in (1, -1))
    torch.testing.assert_close(one.values, -other.values)
    torch.testing.assert_close(one.values[:, [0, -1]], torch.zeros(5, 2))


def test_the_area_between_perturbation_curves_is_the_mean_of_the_gains(smooth, images):
    """Samek et al. 2017: ABPC = 1 / (L + 1) sum_k f(x_k, least first) - f(x_k, most first), here with L = 16 equal strides."""
    maps = images.mean(1)
    found = sl.METRICS["srg"](smooth, images, maps, steps=16)
    torch.testing.assert_close(found.values.mean(1), 16 / 17 * found.area)


def test_a_map_of_one_value_has_no_gain_on_average_and_the_error_says_how_far_it_may_be():
    found = srg(torch.zeros(400, SIDE, SIDE))
    assert found.area.mean().abs() < 5 * found.monte_carlo_error and found.error.min() > 0


def test_the_gain_is_the_mean_over_all_orders_of_tied_pixels():
    exact = srg(torch.cat(list(every_order(MAP)))).values.mean(0)
    found = srg(MAP.expand(300, -1, -1))
    torch.testing.assert_close(found.values.mean(0), exact, atol=0.05, rtol=0)
    assert found.tied[0] == pytest.approx(7 / 9) and found.error.min() > 0
    assert srg(MAP, ties="index").error is None


def test_relative_deletion_is_deletion_minus_the_mean_of_all_orders():
    # in the mean over all orders each stride removes a ninth of the sum, so that the area is half of it
    whole = WEIGHTS.sum().item()
    deleted = sl.METRICS["deletion"](Additive(), IMAGE, WEIGHTS[None], 0, **OPTIONS)
    found = relative(WEIGHTS[None], orders=3000)
    assert found.area.item() == pytest.approx(deleted.area.item() - whole / 2, abs=4 * found.error.item())
    torch.testing.assert_close(found.values, deleted.values - whole * (1 - deleted.fractions), atol=0.05, rtol=0)
    assert 0 < found.error.item() < 0.01 and found.area < 0 < relative(-WEIGHTS[None]).area


def test_a_map_of_one_value_is_as_good_as_chance():
    found = relative(torch.zeros(400, SIDE, SIDE))
    assert found.area.mean().abs() < 5 * found.monte_carlo_error and found.tied.tolist() == [1] * 400


def test_random_orders_are_fixed_by_seed_and_image():
    maps, numbers = WEIGHTS.expand(3, -1, -1), torch.tensor([4, 9, 2])
    together = relative(maps, indices=numbers)
    assert len(set(together.area.tolist())) == 3
    torch.testing.assert_close(relative(maps[:1], indices=numbers[1:2]).area, together.area[1:2])
    assert relative(maps, indices=numbers, seed=1).area.tolist() != together.area.tolist()
