"""Our methods inside Quantus, and our maps scored by Quantus where its definitions are ours."""

import numpy as np
import pytest
import quantus
import torch
from conftest import quick
from test_attribution import assert_same_state, state
from torch import nn

import saliency_lib as sl
from saliency_lib.attribution.adapters import explain_func

QUIET = {"disable_warnings": True, "display_progressbar": False, "abs": False, "normalise": False}


@pytest.fixture
def batch():
    """Three colour images of 12x12, with maps without ties and classes."""
    source = torch.Generator().manual_seed(6)
    return torch.rand(3, 3, 12, 12, generator=source), torch.rand(3, 12, 12, generator=source), torch.tensor([2, 0, 1])


@pytest.fixture
def net():
    torch.manual_seed(2)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.Softplus(), nn.Flatten(), nn.Linear(600, 4)).eval()


def quantised(metric, net, images, maps, targets, **options):
    """The scores of a Quantus metric for our maps."""
    arrays = images.numpy(), targets.numpy(), maps[:, None].numpy()
    return metric(model=net, x_batch=arrays[0], y_batch=arrays[1], a_batch=arrays[2], **options)


@pytest.mark.parametrize("method", sorted(sl.METHODS))
def test_any_method_runs_inside_quantus_and_any_map_can_be_scored_by_it(method, net, batch):
    images, options = batch[0], quick(method)
    if method == "sidu" or "pool_rule" in sl.METHODS.options(method):
        net[1] = nn.ReLU()
    targets = net(images).argmax(1)
    explain, before = explain_func(method, **options), state(net)
    flipping = quantus.PixelFlipping(features_in_step=36, **QUIET)
    inside = flipping(
        model=net, x_batch=images.numpy(), y_batch=targets.numpy(), a_batch=None, explain_func=explain, device="cpu"
    )
    maps = sl.METHODS[method](net, images, targets, **options)
    np.testing.assert_allclose(inside, quantised(flipping, net, images, maps, targets))
    assert_same_state(before, state(net))


def test_quantus_finds_our_gradient_robust_and_sees_that_it_depends_on_the_model(net, batch):
    images, _, targets = batch
    arrays = dict(model=net, x_batch=images.numpy(), y_batch=targets.numpy(), a_batch=None)
    options = dict(explain_func=explain_func("gradient"), explain_func_kwargs={"reduction": "sum"}, device="cpu")
    robust = quantus.MaxSensitivity(nr_samples=3, lower_bound=0.02, **QUIET)(**arrays, **options)
    assert len(robust) == 3 and 0 < max(robust) < 1
    random = quantus.RandomLogit(num_classes=4, **QUIET)(**arrays, **options)
    assert max(random) < 0.99


def test_explain_func_takes_arrays_and_gives_arrays(net, batch):
    images, _, targets = batch
    maps = explain_func("input_x_gradient", reduction="mean")(net, images.double().numpy(), targets.numpy(), device="cpu")
    assert isinstance(maps, np.ndarray) and maps.shape == (3, 1, 12, 12) and maps.dtype == np.float32
    summed = explain_func("input_x_gradient")(net, images.numpy(), targets.numpy(), reduction="mean", method="shown as")
    np.testing.assert_array_equal(maps, summed)


def test_explain_func_refuses_what_the_method_does_not_take(net, batch):
    with pytest.raises(ValueError, match="method 'gradcma' is not known; did you mean 'gradcam'"):
        explain_func("gradcma")
    with pytest.raises(ValueError, match="option of method 'gradient' 'step' is not known"):
        explain_func("gradient", step=3)
    with pytest.raises(ValueError, match="option of method 'gradient' 'reductoin' is not known; did you mean 'reduction'"):
        explain_func("gradient")(net, batch[0].numpy(), batch[2].numpy(), reductoin="sum")


def test_pixel_flipping_is_deletion_to_black(net, batch):
    images, maps, targets = batch
    metric = quantus.PixelFlipping(features_in_step=36, perturb_baseline=0.0, **QUIET)  # its "black" is the image's least value
    theirs = quantised(metric, net, images, maps, targets, softmax=True)
    ours = sl.METRICS["deletion"](net, images, maps, targets, steps=12, fill="black")
    np.testing.assert_allclose(ours.values[:, 1:].numpy(), theirs, atol=1e-6)  # theirs leaves out the whole image


def test_road_most_relevant_first_without_noise_is_quantus_road(net, batch):
    from saliency_lib.evaluation.perturbation import Imputed
    from saliency_lib.evaluation.road import imputed

    images, maps, _ = batch
    images, net = images[:, :1], nn.Sequential(nn.Conv2d(1, 3, 1), *net).eval()  # theirs takes a map for one channel only
    targets = net(images).argmax(1)
    percentages = [25, 50, 75]  # whole pixels of 144
    theirs = quantised(quantus.ROAD(percentages=percentages, noise=0.0, **QUIET), net, images, maps, targets)
    ours = sl.perturbation_curve(
        net, images, maps, targets, fractions=[p / 100 for p in percentages], score="correct",
        fill=Imputed(lambda rows, missing: imputed(images[rows], missing)),
    )  # fmt: skip
    assert ours.values.mean(0).tolist() == pytest.approx(list(theirs.values()))


def test_localisation_is_that_of_quantus(net, batch):
    images, maps, targets = batch
    objects = torch.zeros(3, 12, 12, dtype=torch.bool)
    objects[0, 2:7, 3:9] = objects[1, :4] = objects[2, 5:, 5:] = True
    pairs = {
        "pointing_game": quantus.PointingGame,
        "relevance_mass": quantus.RelevanceMassAccuracy,
        "relevance_rank": quantus.RelevanceRankAccuracy,
    }
    for name, metric in pairs.items():
        theirs = quantised(metric(**QUIET), net, images, maps, targets, s_batch=objects[:, None].numpy())
        ours = sl.METRICS[name](net, images, maps, targets, objects=objects)
        np.testing.assert_allclose(ours.area.numpy(), np.array(theirs, dtype=float), atol=1e-6)
