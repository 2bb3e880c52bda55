"""Removal of regions: by hand, by law, and against Quantus."""

import numpy as np
import pytest
import quantus
import torch
from conftest import Linear
from test_ties import SIDE, Additive
from torch import nn

import saliency_lib as sl
from saliency_lib.core.segments import numbered
from saliency_lib.evaluation.regions import relevance_of, windows

PIXELS = torch.tensor([[[[4.0, 3, 2], [1, 0.5, 0.5]]]]) / 11  # f is their sum, 1; columns hold 5, 3.5 and 2.5 elevenths
COLUMNS = torch.tensor([[[0, 1, 2], [0, 1, 2]]])
SUM = Linear(torch.ones(1, 1, 2, 3))


def test_irof_by_hand():
    options = {"segments": COLUMNS, "fill": "black", "score": "logit"}
    best, worst = (sl.METRICS["irof"](SUM, PIXELS, sign * PIXELS[:, 0], **options) for sign in (1, -1))
    assert best.area.item() == pytest.approx(1 - (0.5 + 6 / 11 + 2.5 / 11) / 3)  # 1, 6/11, 2.5/11, 0 left
    assert worst.area.item() == pytest.approx(1 - (0.5 + 8.5 / 11 + 5 / 11) / 3)
    assert best.tied.tolist() == best.error.tolist() == [0]


def test_aopc_by_hand():
    options = {"fill": "black", "score": "logit"}
    found = [sl.METRICS["aopc"](SUM, PIXELS, PIXELS[:, 0], window=1, steps=steps, **options).area.item() for steps in (1, 3, 99)]
    falls = np.cumsum([0, 4, 3, 2, 1, 0.5, 0.5]) / 11
    assert found == pytest.approx([falls[:2].mean(), falls[:4].mean(), falls.mean()])
    wide = sl.METRICS["aopc"](SUM, PIXELS, PIXELS[:, 0], window=2, **options).area.item()  # four pixels, then the last column
    assert wide == pytest.approx(np.mean([0, 8.5 / 11, 1]))


def test_windows_of_one_pixel_are_pixel_flipping(smooth, images):
    maps = images.mean(1)
    found = sl.METRICS["aopc"](smooth, images, maps, window=1, steps=20, fill="black")
    curve = sl.perturbation_curve(smooth, images, maps, fractions=[k / 256 for k in range(21)], fill="black")
    torch.testing.assert_close(found.area, curve.values[:, 0] - curve.values.mean(1))


def test_windows_divide_an_image_and_the_last_are_smaller():
    expected = [[0, 0, 1, 1, 2], [0, 0, 1, 1, 2], [3, 3, 4, 4, 5]]
    assert windows(torch.zeros(2, 1, 3, 5), 2).tolist() == [expected] * 2


def test_irof_is_that_of_quantus(smooth, images, monkeypatch):
    monkeypatch.setattr(np, "trapz", np.trapezoid, raising=False)  # Quantus calls it, NumPy 2 has renamed it
    maps, images = images.mean(1), images[:, :1]
    model = nn.Sequential(nn.Conv2d(1, 3, 1), smooth).eval()  # theirs takes one channel
    targets = model(images).argmax(1)
    options = {"disable_warnings": True, "display_progressbar": False, "normalise": False, "return_aggregate": False}
    theirs = quantus.IROF(perturb_baseline=0.5, **options)(
        model=model, x_batch=images.numpy(), y_batch=targets.numpy(), a_batch=maps[:, None].numpy(), softmax=True, batch_size=1
    )  # in a larger batch it pads images of fewer superpixels with 0, and the last trapezoid counts half of that

    def slic(image):
        return torch.tensor(quantus.helpers.utils.get_superpixel_segments(image.permute(1, 2, 0).double().numpy(), "slic"))

    ours = sl.METRICS["irof"](model, images, maps, targets, segments=slic, fill=0.5)
    regions = numbered(images, slic, 0)
    counts, relevance = regions.flatten(1).amax(1) + 1, relevance_of(regions, maps)
    first = torch.stack([region == values.argmax() for region, values in zip(regions, relevance, strict=True)])
    one_less = torch.where(first[:, None], 0.5, images)
    kept = [model(x).softmax(1).gather(1, targets[:, None])[:, 0] for x in (images, one_less)]
    including = theirs - (1 + (kept[1] / kept[0]).detach().numpy()) / 2  # theirs begins after the first superpixel
    np.testing.assert_allclose(ours.area.numpy() * counts.numpy(), including, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["aopc", "irof"])
def test_the_true_contributions_have_the_greatest_value_and_their_negative_the_least(name):
    images, options = torch.ones(1, 1, SIDE, SIDE), {"fill": "black", "score": "logit"}
    options |= {"window": 1} if name == "aopc" else {"segments": torch.arange(SIDE**2).view(1, SIDE, SIDE)}
    weights = Additive().weights[None]
    other = torch.rand(1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    best, some, worst = (sl.METRICS[name](Additive(), images, maps, 0, **options).area for maps in (weights, other, -weights))
    assert best > some > worst


@pytest.mark.parametrize("name", ["aopc", "irof"])
def test_tied_regions_are_removed_in_random_orders(name):
    images, weights = torch.ones(300, 1, SIDE, SIDE), Additive().weights
    options = {"fill": "black", "score": "logit"}
    options |= {"window": 1} if name == "aopc" else {"segments": torch.arange(SIDE**2).view(1, SIDE, SIDE).expand(300, -1, -1)}
    found = sl.METRICS[name](Additive(), images, torch.zeros(300, SIDE, SIDE), 0, **options)
    half = weights.sum() / 2 if name == "aopc" else 0.5  # each step removes a ninth on average
    assert abs(found.area.mean() - half) < 5 * found.monte_carlo_error
    assert found.error.square().mean().sqrt().item() == pytest.approx(found.area.std().item(), rel=0.2)
    assert found.tied.tolist() == [1] * 300


def test_segments_of_another_shape_are_refused(smooth, images):
    with pytest.raises(ValueError, match=r"segments must be whole numbers of shape \(5, 16, 16\)"):
        sl.METRICS["irof"](smooth, images, images.mean(1), segments=COLUMNS)
    with pytest.raises(ValueError, match=r"segments of .* 'slick' is not known; did you mean 'slic'"):
        sl.METRICS["irof"](smooth, images, images.mean(1), segments="slick")
    with pytest.raises(ValueError, match=r"window of .* must be a whole number of at least 1"):
        sl.METRICS["aopc"](smooth, images, images.mean(1), window=0)
