"""Concentration of a map: by hand, by law, and against Quantus."""

import math

import numpy as np
import pytest
import quantus
import torch

import saliency_lib as sl

BOTH = ("sparseness", "complexity")


def on(name, maps):
    return sl.METRICS[name](None, torch.zeros(len(maps), 1, *maps.shape[1:]), maps).area


def test_two_by_two_by_hand():
    maps = torch.tensor([[[0.0, 1], [-2, 1]]])  # shares 0 1/4 1/4 1/2 against weights -3 -1 1 3
    assert on("sparseness", maps).item() == pytest.approx(1.5 / 4)
    assert on("complexity", maps).item() == pytest.approx(0.5 * math.log(4) + 0.5 * math.log(2))


def test_one_pixel_is_the_simplest_map_and_equal_values_are_the_least_simple():
    single = torch.zeros(1, 3, 5)
    single[0, 1, 2] = -7
    assert on("sparseness", single).item() == pytest.approx(14 / 15) and on("complexity", single).item() == 0
    for value in (0.0, 0.3, -4.0):
        flat = torch.full((1, 3, 5), value)
        assert on("sparseness", flat).item() == pytest.approx(0, abs=1e-7)
        assert on("complexity", flat).item() == pytest.approx(math.log(15))


@pytest.mark.parametrize("name", BOTH)
def test_the_unit_the_sign_and_the_place_do_not_count(name):
    maps = torch.randn(4, 6, 7, generator=torch.Generator().manual_seed(0))
    for other in (1e-30 * maps, -5 * maps, maps.flatten(1).flip(1).view(4, 6, 7)):
        torch.testing.assert_close(on(name, other), on(name, maps))


@pytest.mark.parametrize(("name", "metric"), zip(BOTH, (quantus.Sparseness, quantus.Complexity), strict=True))
def test_they_are_those_of_quantus(name, metric, smooth, images):
    maps = torch.randn(5, 16, 16, generator=torch.Generator().manual_seed(0))
    found = metric(abs=True, normalise=False, disable_warnings=True, display_progressbar=False)
    arrays = {"x_batch": images.numpy(), "y_batch": np.zeros(5, dtype=int), "a_batch": maps[:, None].numpy().copy()}
    np.testing.assert_allclose(on(name, maps).numpy(), found(model=smooth, **arrays), rtol=1e-5)
