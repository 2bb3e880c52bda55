"""Score-CAM, KernelSHAP and XRAI against other packages, exact Shapley values and a slow loop."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

import saliency_lib as sl
from saliency_lib.attribution.lime import coalitions, shapley
from saliency_lib.attribution.xrai import grown, scaled_segments


def test_score_cam_equals_that_of_pytorch_grad_cam_on_a_model_without_normalisation():
    reference = pytest.importorskip("pytorch_grad_cam")
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    model, images = sl.MODELS["cnn"](classes=5).eval(), torch.rand(2, 3, 32, 32)
    theirs = reference.ScoreCAM(model, [model.network[6]])(images, [ClassifierOutputTarget(k) for k in (1, 3)])
    ours = sl.METHODS["score_cam"](model, images, torch.tensor([1, 3]), layer="6", fill="black")
    least, most = (getattr(ours.flatten(1), one)(1).view(-1, 1, 1) for one in ("amin", "amax"))
    torch.testing.assert_close((ours - least) / (most - least), torch.from_numpy(theirs), atol=1e-3, rtol=0)


def test_score_cam_of_a_channel_that_is_constant_keeps_its_weight():
    """Two channels, of which one is dead: by hand the dead one shows nothing, and takes its share of the softmax."""
    model = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([1.0, 0]).view(2, 1, 1, 1))
    image = torch.tensor([0.0, 0.2, 0.6, 1.0]).view(1, 1, 2, 2)
    seen = float((image * image).mean())  # the first logit of the image seen through the first map, which is the image
    share = math.exp(seen) / (math.exp(seen) + 1)
    found = sl.METHODS["score_cam"](model, image, torch.tensor([0]), layer="0", fill="black")
    torch.testing.assert_close(found, share * image[:, 0])


class Game(nn.Module):
    """Four regions of one pixel each: logit 0 is a game with interactions, logit 1 is 0."""

    def __init__(self, order):
        super().__init__()
        draw = torch.Generator().manual_seed(2)
        self.single, self.double = torch.randn(4, generator=draw), torch.randn(4, 4, generator=draw).triu(1)
        self.triple = torch.randn((), generator=draw) if order == 3 else torch.tensor(0.0)

    def forward(self, images):
        kept = images.flatten(1)
        value = kept @ self.single + ((kept @ self.double) * kept).sum(1) + self.triple * kept[:, :3].prod(1)
        return torch.stack([value, torch.zeros_like(value)], 1)


def exact_shapley(model, players=4):
    """The mean gain of each player over all orders."""
    gains = np.zeros(players)
    with torch.no_grad():
        values = {}
        for kept in itertools.product((0.0, 1.0), repeat=players):
            values[kept] = float(model(torch.tensor(kept).view(1, 1, 2, 2))[0, 0])
    orders = list(itertools.permutations(range(players)))
    for order in orders:
        kept = [0.0] * players
        for one in order:
            before = values[tuple(kept)]
            kept[one] = 1.0
            gains[one] += (values[tuple(kept)] - before) / len(orders)
    return torch.from_numpy(gains).float().view(1, 2, 2)


def test_kernel_shap_is_exact_for_interactions_of_two_and_near_for_three():
    whole = torch.ones(1, 1, 2, 2)
    for order, samples, tolerance in ((2, 200, 1e-4), (3, 20_000, 0.02)):
        model = Game(order)
        options = dict(samples=samples, segments="tokens", fill="black")
        found = sl.METHODS["kernel_shap"](model, whole, torch.tensor([0]), **options)
        torch.testing.assert_close(found, exact_shapley(model), atol=tolerance, rtol=0)


def test_the_values_of_kernel_shap_add_up_to_the_change_of_the_score():
    model, images, targets = sl.MODELS["cnn"](classes=4).eval(), torch.rand(3, 3, 32, 32), torch.tensor([0, 1, 2])
    segments = (torch.arange(32) // 8)[:, None] * 4 + torch.arange(32) // 8
    maps = sl.METHODS["kernel_shap"](model, images, targets, samples=60, segments=segments.expand(3, -1, -1), fill="black")
    with torch.no_grad():
        change = (model(images) - model(torch.zeros_like(images))).gather(1, targets[:, None])[:, 0]
    torch.testing.assert_close(maps.sum((1, 2)) / 64, change, atol=1e-5, rtol=1e-4)


def test_one_segment_has_the_whole_change():
    rows = coalitions(6, 1, 0, 0)
    assert rows.tolist() == [[True], *[[False]] * 5]
    values = torch.tensor([3.0, 1, 1, 1, 1, 1], dtype=torch.double)
    torch.testing.assert_close(shapley(rows.double(), values), torch.tensor([2.0], dtype=torch.double))


def test_rows_of_kernel_shap_are_opposite_pairs_of_the_sizes_that_the_kernel_asks_for():
    rows = coalitions(40_001, 5, 0, 0)
    assert rows[0].all() and not rows[1].any()
    pairs = rows[2:40_000]
    assert torch.equal(pairs[::2], ~pairs[1::2])
    sizes = torch.bincount(pairs.sum(1), minlength=6).double()
    kernel = torch.tensor([0, 1 / 4, 1 / 6, 1 / 6, 1 / 4, 0], dtype=torch.double)
    torch.testing.assert_close(sizes / sizes.sum(), kernel / kernel.sum(), atol=0.01, rtol=0)
    torch.testing.assert_close(pairs.double().mean(0), torch.full((5,), 0.5, dtype=torch.double))


def grown_slowly(values, regions):
    """Regions added one after the other, each with its pixels counted anew."""
    masks = [one == number for one in regions for number in range(int(one.max()) + 1)]
    missing, result = torch.ones_like(values, dtype=torch.bool), torch.zeros_like(values)
    while missing.any():
        means = [float(values[mask & missing].double().mean()) if (mask & missing).any() else -math.inf for mask in masks]
        best = int(np.argmax(means))
        result[masks[best] & missing] = means[best]
        missing &= ~masks[best]
    return result


def test_regions_grow_as_in_a_slow_loop():
    values, images = torch.randn(24, 24), torch.rand(1, 3, 24, 24)
    regions = scaled_segments(images, (10.0, 50.0, 200.0), 8)[0]
    assert len({int(one.max()) for one in regions}) > 1
    found = grown(values, regions)
    torch.testing.assert_close(found, grown_slowly(values, regions), atol=1e-5, rtol=1e-5)


def test_xrai_ranks_regions_by_hand():
    """Two halves, of which one has a weight of 2 and the other of 1: the gain from black is x w, from white (x - 1) w."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2, bias=False))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[2.0] * 8 + [1.0] * 8, [0.0] * 16]))
    image = torch.full((1, 1, 4, 4), 0.25)
    image[:, :, 2:] = 1.0
    found = sl.METHODS["xrai"](model, image, torch.tensor([0]), smallest=4, scales=[1.0])
    expected = torch.tensor([(0.25 * 2 - 0.75 * 2) / 2] * 8 + [(1.0 + 0.0) / 2] * 8).view(1, 4, 4)
    torch.testing.assert_close(found, expected)


def test_images_of_many_channels_have_no_regions():
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(ValueError, match="superpixels need images of 1 or 3 channels, got 4"):
        sl.METHODS["xrai"](model, torch.rand(2, 4, 8, 8))
