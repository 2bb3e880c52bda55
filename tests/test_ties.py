"""Pixels of equal value: every order of them counts alike, and costs passes only where it matters."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

import saliency_lib as sl
from saliency_lib.core.streams import noise
from saliency_lib.evaluation.ranking import cuts_ties, random_ranks, ranks

SIDE = 3
MAP = torch.tensor([[[2.0, 0.0, 0.0], [1.0, 0.0, 1.0], [0.0, 0.0, 3.0]]])  # tied: two of 1, five of 0


class Additive(nn.Module):
    """Logits (f, threshold), where f is a weighted sum of the pixels; it counts what it sees."""

    def __init__(self, threshold=0.0):
        super().__init__()
        self.threshold = threshold
        self.weights = torch.arange(1.0, 1 + SIDE**2).square().view(SIDE, SIDE) / 100
        self.seen = 0

    def forward(self, images):
        self.seen += len(images)
        return torch.stack([(images[:, 0] * self.weights).sum((1, 2)), images.new_full((len(images),), self.threshold)], 1)


def every_order(maps):
    """All maps without ties that have the order of a map (1, H, W), one per order of its tied pixels."""
    flat = maps.flatten().tolist()
    groups = [[i for i, value in enumerate(flat) if value == level] for level in sorted(set(flat))]
    for orders in itertools.product(*(itertools.permutations(group) for group in groups)):
        strict = torch.empty(len(flat))
        strict[torch.tensor([i for order in orders for i in order])] = torch.arange(len(flat), dtype=torch.float)
        yield strict.view(maps.shape)


def curve(maps, images=None, **options):
    images = torch.ones(len(maps), 1, SIDE, SIDE) if images is None else images
    known = {"ties": "random", "fractions": [k / 9 for k in range(10)], "fill": "black", "score": "logit"}
    known["targets"] = torch.zeros(len(maps)).long()
    return sl.perturbation_curve(Additive(), images, maps, **known | options)


@pytest.mark.parametrize("start", ["image", "fill"])
@pytest.mark.parametrize("order", ["most_relevant_first", "least_relevant_first"])
def test_the_mean_over_random_orders_is_the_mean_over_all_orders(start, order):
    exact = torch.cat([curve(one, start=start, order=order).values for one in every_order(MAP)]).mean(0)
    found = curve(MAP, start=start, order=order, draws=4000)
    spread = torch.trapezoid(found.values - exact, found.fractions)
    assert (found.values[0] - exact).abs().max() < 0.02 and spread.abs() < 4 * found.error
    by_index = curve(MAP, start=start, order=order, ties="index").values[0]
    assert (by_index - exact).abs().max() > 0.1  # raster order is not neutral here


def test_a_constant_map_removes_the_same_from_every_image_in_the_mean():
    weights = Additive().weights.sum()
    found = curve(torch.zeros(1, SIDE, SIDE), draws=4000)
    torch.testing.assert_close(found.values[0], weights * (1 - found.fractions), atol=0.03, rtol=0)
    assert found.tied.tolist() == [1]


def test_orders_cost_passes_only_where_a_cut_divides_ties():
    model, images = Additive(), torch.ones(1, 1, SIDE, SIDE)
    options = {"fractions": [k / 9 for k in range(10)], "fill": "black", "ties": "random"}
    sl.perturbation_curve(model, images, MAP, draws=5, **options)
    divided = cuts_ties(MAP, torch.arange(10), descending=True)[0]
    assert divided.nonzero().flatten().tolist() == [3, 5, 6, 7, 8]  # after 3, 2 and one of the 1s; inside the five 0s
    assert model.seen == 1 + 9 + 4 * 5
    model.seen, strict = 0, torch.arange(9.0).view(1, SIDE, SIDE)
    sl.perturbation_curve(model, images, strict, draws=5, **options)
    assert model.seen == 1 + 9


def test_the_standard_error_is_that_of_repeated_measurements():
    numbers = torch.arange(300)
    maps = MAP.expand(300, -1, -1).contiguous()
    found = curve(maps, draws=4, indices=numbers)
    across = found.area.std()  # the images are the same, so the areas differ by the draws alone
    assert found.error.square().mean().sqrt().item() == pytest.approx(across.item(), rel=0.1)
    assert found.monte_carlo_error == pytest.approx(across.item() / 300**0.5, rel=0.1)
    assert curve(MAP, ties="index").error is None and curve(MAP, draws=1).error.tolist() == [0]


def test_the_order_is_fixed_by_seed_and_image_and_not_by_the_batch():
    numbers, maps = torch.tensor([4, 9, 2]), MAP.expand(3, -1, -1).contiguous()
    together = curve(maps, indices=numbers, seed=3)
    for row, number in enumerate(numbers):
        alone = curve(MAP, indices=number[None], seed=3, batch_size=1)
        torch.testing.assert_close(alone.area[0], together.area[row])
    assert len(set(together.area.tolist())) == 3
    assert curve(maps, indices=numbers, seed=4).area.tolist() != together.area.tolist()


def test_a_random_order_keeps_the_order_of_different_values():
    places = random_ranks(MAP, 3, descending=True, seed=0, indices=None)
    assert places.shape == (3, 1, 9) and places.sort(-1).values.tolist() == [[list(range(9))]] * 3
    assert (places[:, 0, 8] == 0).all() and (places[:, 0, 0] == 1).all()
    assert all(set(place[0, [3, 5]].tolist()) == {2, 3} for place in places)
    assert not all(torch.equal(place, ranks(MAP)) for place in places)


RANKING = ("deletion", "insertion", "masked_accuracy", "pixel_perturbation", "relative_deletion", "road", "srg")


@pytest.mark.parametrize("metric", RANKING)
def test_turned_images_have_the_same_areas_on_average(metric):
    """Raster order would put the tied pixels of the upper rows first, and those of the lower rows after a half turn."""
    images, maps = torch.linspace(1, 0.6, 9).view(1, 1, SIDE, SIDE).expand(200, -1, -1, -1), MAP.expand(200, -1, -1)
    model, turned = (Additive(threshold=1.6 if metric == "pixel_perturbation" else 1.0) for _ in range(2))
    turned.weights = model.weights.flip(0, 1)
    targets = torch.zeros(200).long()
    one, other = (
        sl.METRICS[metric](net, rows, ranked, targets, **({"fill": "black"} if metric == "masked_accuracy" else {}))
        for net, rows, ranked in ((model, images, maps), (turned, images.flip(2, 3), maps.flip(1, 2)))
    )
    within = 5 * (one.monte_carlo_error**2 + other.monte_carlo_error**2) ** 0.5 + 1e-6
    assert abs(one.area.mean() - other.area.mean()) < within
    torch.testing.assert_close(one.tied, torch.full((200,), 7 / 9))


@pytest.mark.parametrize("metric", ["relevance_rank", "pointing_game", "aup", "aur", "token_f1"])
@pytest.mark.parametrize("levels", [MAP, (MAP < 2).float()])
def test_localisation_is_the_mean_over_all_orders_of_tied_pixels(metric, levels):
    image = torch.zeros(1, 1, SIDE, SIDE)
    objects = torch.tensor([[[True, False, False], [True, False, False], [False, True, True]]])
    strict = torch.cat([levels + 1e-12 * one.double() for one in every_order(levels)])
    count = len(strict)
    ranked = {"objects": objects.expand(count, -1, -1)}
    exact = sl.METRICS[metric](None, image.expand(count, -1, -1, -1), strict, **ranked).values.mean(0)
    found = sl.METRICS[metric](None, image, levels.double(), objects=objects)
    torch.testing.assert_close(found.values[0], exact, atol=1e-9, rtol=0)
    torch.testing.assert_close(found.tied, sl.tied(levels))


def test_orders_of_ties_are_those_of_a_sort_by_value_and_then_by_key():
    """Against numpy's lexsort, at a size at which keys collide."""
    maps = torch.rand(3, 224, 224)
    maps[1] = (maps[1] * 30).round()
    maps[2] = 0
    for descending in (True, False):
        places = random_ranks(maps, 2, descending=descending, seed=5, indices=[7, 8, 9])
        for draw in range(2):
            keys = noise(maps.flatten(1), [7, 8, 9], 5, "ties", draw)
            for row, one in enumerate(maps.flatten(1)):
                order = np.lexsort((keys[row].numpy(), -one.numpy() if descending else one.numpy()))
                assert np.array_equal(np.argsort(order), places[draw, row].numpy())
