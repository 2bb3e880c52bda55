"""The fast network of CIFAR, and what its recipe asks of the training loop."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import saliency_lib as sl
from saliency_lib.networks.fast import Whitening
from saliency_lib.training import layers, loop
from saliency_lib.training.schedules import AUGMENTATIONS, SCHEDULES, as_bytes, pixels_of, shift_flip

FAST = sl.Training("cifar10", "cifar_fast", "standard", "real").settings
SETTINGS = FAST | {"epochs": 2, "batch_size": 64, "learning_rate": 0.1}


def pictures(count=200, side=28):
    """Bytes over 255, smooth enough that patches have small and large variances."""
    source = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, side // 4, side // 4, generator=source)
    fine = F.interpolate(coarse, (side, side), mode="bilinear") + 0.02 * torch.randn(count, 3, side, side, generator=source)
    return (255 * fine.clamp(0, 1)).round() / 255


def test_whitened_patches_have_variance_one_and_no_correlation():
    layer, images = Whitening(3), pictures()
    layer.fit_to_inputs(images)
    with torch.no_grad():
        features = F.conv2d(images, layer.weight)
    values = features.movedim(1, 0).flatten(1).double().numpy()
    covariance = np.cov(values[:12])
    patches = F.unfold(images, 2).movedim(1, 0).flatten(1).double().numpy()
    own = np.sort(np.linalg.eigvalsh(np.cov(patches)))
    np.testing.assert_allclose(covariance, np.diag(own / (own + 5e-4)), atol=2e-3)
    np.testing.assert_array_equal(values[12:], -values[:12])
    assert not layer.weight.requires_grad and layer.bias.requires_grad


@pytest.mark.parametrize("activation", ["relu", "gelu", "softplus"])
def test_it_begins_by_passing_its_inputs_on(activation):
    torch.manual_seed(0)
    model = sl.MODELS["cifar_fast"](activation=activation).eval()
    convolution = model.network.group1[0]
    features = torch.rand(2, 24, 9, 9)
    torch.testing.assert_close(convolution(features)[:, :24], features)
    assert model(torch.rand(2, 3, 32, 32)).shape == model(torch.rand(2, 3, 40, 48)).shape == (2, 10)
    weights = model.network.head.weight
    assert float(weights.detach().std()) == pytest.approx(1)
    pooled = model.network[:-2](model.normalise(torch.rand(4, 3, 32, 32)))
    torch.testing.assert_close(model.network[-2:](pooled), pooled @ weights.T / 9)


def test_the_first_layer_is_fitted_once_before_the_first_epoch_and_then_rests(tmp_path):
    images, labels = pictures(), torch.arange(200) % 4
    twin = Whitening(3)
    model = sl.MODELS["cifar_fast"](4, width=8)
    twin.fit_to_inputs(model.normalise(images))
    file = tmp_path / "checkpoint.safetensors"
    loop.fit(model, images, labels, SETTINGS, seed=0, checkpoint=file)
    torch.testing.assert_close(model.network.whitening.weight, twin.weight)
    again = sl.MODELS["cifar_fast"](4, width=8)
    loop.fit(again, images.flip(0), labels, SETTINGS | {"epochs": 3}, seed=0, checkpoint=file)  # goes on from the first epoch
    torch.testing.assert_close(again.network.whitening.weight, twin.weight)
    head = SETTINGS | {"trainable": "head"}
    loop.fit(model, images.flip(2) / 2, labels, head, seed=0, head=model.network.head)  # starts from a trained model
    torch.testing.assert_close(model.network.whitening.weight, twin.weight)


def test_a_stopped_training_ends_with_the_weights_of_one_that_was_not(tmp_path):
    images, labels = pictures(), torch.arange(200) % 4
    models = []
    for stops in (False, True):
        torch.manual_seed(0)
        model = sl.MODELS["cifar_fast"](4, width=8)
        file = tmp_path / f"{stops}.safetensors"
        if stops:
            loop.fit(model, images, labels, SETTINGS | {"schedule": "constant"}, seed=0, checkpoint=file)
            model = sl.MODELS["cifar_fast"](4, width=8)
        loop.fit(model, images, labels, SETTINGS | {"schedule": "constant"}, seed=0, checkpoint=file)
        models.append(model.state_dict())
    for name, value in models[0].items():
        torch.testing.assert_close(models[1][name], value, msg=name)


def test_biases_of_batch_norm_have_a_rate_of_their_own_and_the_same_decay():
    images, labels = pictures(), torch.arange(200) % 4
    still = SETTINGS | {"epochs": 1, "batch_size": 200, "schedule": "constant", "augmentation": "none", "weight_decay": 0.0}
    moved = {}
    for rate in (1.0, 64.0):
        torch.manual_seed(0)
        model = sl.MODELS["cifar_fast"](4, width=8)
        before = {name: value.clone() for name, value in model.named_parameters()}
        loop.fit(model, images, labels, still | {"bias_rate": rate}, seed=0)
        moved[rate] = {name: value.detach() - before[name] for name, value in model.named_parameters()}
    norms = {name for name in moved[1.0] if name.endswith("bias") and "whitening" not in name}
    assert len(norms) == 6
    for name, change in moved[1.0].items():
        if "whitening.weight" not in name:  # fitted, not trained
            torch.testing.assert_close(moved[64.0][name], change * (64 if name in norms else 1), rtol=1e-3, atol=1e-6, msg=name)


def test_an_image_is_mirrored_in_every_second_epoch():
    images = torch.rand(50, 3, 8, 8)
    mirrored = torch.rand(50) < 0.5
    one, other = (shift_flip(images, torch.Generator().manual_seed(0), flips) for flips in (mirrored, ~mirrored))
    padded = F.pad(images, (2, 2, 2, 2), mode="reflect")
    for row in range(50):
        cut = [padded[row, :, y : y + 8, x : x + 8] for y in range(5) for x in range(5)]
        plain, turned = (one, other) if not mirrored[row] else (other, one)
        assert any(torch.equal(plain[row], part) for part in cut)
        assert any(torch.equal(turned[row], part.flip(2)) for part in cut)
        torch.testing.assert_close(plain[row].flip(2), turned[row])
    seen = []
    patch = pytest.MonkeyPatch()
    patch.setitem(AUGMENTATIONS, "none", lambda images, draws, mirrored: seen.append((images[:, 0, 0, 0], mirrored)) or images)
    marked = torch.arange(100).view(-1, 1, 1, 1).expand(-1, 3, 16, 16) / 255
    try:
        settings = SETTINGS | {"epochs": 3, "augmentation": "none", "batch_size": 100}
        loop.fit(sl.MODELS["cifar_fast"](4, width=8), marked, torch.arange(100) % 4, settings, seed=0)
    finally:
        patch.undo()
    flips = [flips[values.argsort()] for values, flips in seen]
    assert torch.equal(flips[0], ~flips[1]) and torch.equal(flips[0], flips[2]) and 20 < int(flips[0].sum()) < 80


def test_the_triangle_rises_to_one_and_falls():
    rates = [SCHEDULES["triangle"](step, 100, 0, []) for step in range(101)]
    assert (rates[0], rates[23], round(rates[100], 9)) == (0.2, 1, 0.07) and max(rates) == 1
    assert np.allclose(np.diff(rates[:24]), 0.8 / 23) and np.allclose(np.diff(rates[23:]), -0.93 / 77)


@pytest.mark.parametrize(("objective", "options"), [("score_matching", {"weight": 0.001}), ("saliency_guided", {})])
def test_statistics_of_batch_norm_are_those_of_the_clean_images(objective, options):
    images, labels = pictures(64), torch.arange(64) % 4
    once = SETTINGS | {"epochs": 1, "batch_size": 64, "augmentation": "none", "learning_rate": 1e-9, "objective": objective}
    found = {}
    for way in ("clean", "updated"):
        torch.manual_seed(0)
        model = sl.MODELS["cifar_fast"](4, width=8, activation="softplus")
        loop.fit(model, images, labels, once | {"batch_norm": way, "options": options}, seed=0)
        found[way] = model.state_dict()
        assert all(norm.track_running_stats for norm in layers.norms_of(model))
    torch.manual_seed(0)
    model = sl.MODELS["cifar_fast"](4, width=8, activation="softplus")
    layers.fit_layers(model, images)
    model.train()(images)
    for name, value in model.state_dict().items():
        if "running" in name or "tracked" in name:
            torch.testing.assert_close(found["clean"][name], value, rtol=1e-4, atol=1e-5, msg=name)
            assert "tracked" not in name or (int(value), int(found["updated"][name])) == (1, 2)


def test_images_are_kept_as_bytes_if_that_loses_nothing():
    exact = pictures(1500)
    kept = as_bytes(exact)
    assert kept.dtype == torch.uint8 and torch.equal(pixels_of(kept), exact)
    for other in (exact + 1e-4, exact - 1, exact * 2, exact.double(), torch.full((2, 3, 4, 4), torch.nan)):
        assert as_bytes(other) is other


def test_layers_that_are_not_fitted_are_left_alone():
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    before = model[1].weight.clone()
    layers.fit_layers(model, torch.rand(4, 3, 2, 2))
    assert torch.equal(model[1].weight, before)
