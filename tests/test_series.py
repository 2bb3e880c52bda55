"""Time series: the synthetic sets, what takes (B, T, F), and precision and recall against known salience."""

import inspect
import math

import numpy as np
import pytest
import torch
from conftest import context, quick
from sklearn.gaussian_process.kernels import Matern
from test_attribution import assert_same_state, state
from torch import nn

import saliency_lib as sl
from saliency_lib.attribution.backward import noise_images
from saliency_lib.core import streams
from saliency_lib.core.fills import filled
from saliency_lib.data.series import BOXES, PROCESSES

TIMES = np.sort(np.random.default_rng(0).uniform(0, 20, (3, 30)), 1)
NORMAL = np.random.default_rng(1).standard_normal((2, 3, 30, 4))


# The sets.


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("shape", BOXES)
def test_a_series_is_a_finite_image_of_one_channel_with_a_box_of_salient_features(process, shape):
    part = sl.DATASETS[f"series_{process}_{shape}"](stop=8)
    assert part.images.shape == (8, 1, 50, 50) and part.images.dtype == torch.float32 and part.images.isfinite().all()
    assert part.masks.shape == (8, 50, 50) and part.masks.dtype == torch.bool
    assert set(part.labels.tolist()) == {0, 1} and part.labels.dtype == torch.int64
    steps, features = BOXES[shape].steps, BOXES[shape].features
    for mask in part.masks:
        rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
        assert mask.sum() == steps * features == (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1)


@pytest.mark.parametrize("process", PROCESSES)
def test_the_box_is_raised_or_lowered_by_one_and_nothing_else_is_changed(process):
    parts = [sl.DATASETS[f"series_{process}_{shape}"]("train", stop=10) for shape in ("middle", "rare_time", "positional_time")]
    heights = [2 * part.labels - 1 for part in parts[:2]] + [torch.ones(10)]
    bare = [part.images[:, 0] - height.view(-1, 1, 1) * part.masks for part, height in zip(parts, heights, strict=True)]
    for other in bare[1:]:
        torch.testing.assert_close(other, bare[0], rtol=0, atol=1e-5)


def test_a_moving_box_moves_and_the_others_stay():
    for shape in BOXES:
        part = sl.DATASETS[f"series_gaussian_{shape}"](stop=40)
        places = {(label, *mask.nonzero()[0].tolist()) for label, mask in zip(part.labels.tolist(), part.masks, strict=True)}
        assert len(places) > 10 if "moving" in shape or "positional" in shape else len(places) == 2


@pytest.mark.parametrize(("shape", "axis"), [("positional_time", 1), ("positional_feature", 0)])
def test_the_place_of_a_positional_box_is_the_class(shape, axis):
    part = sl.DATASETS[f"series_gaussian_{shape}"](stop=40)
    first = torch.stack([mask.nonzero()[0] for mask in part.masks])
    assert torch.equal(first[:, axis], torch.where(part.labels == 1, 1, 29))
    assert len(first[:, 1 - axis].unique()) > 10


def test_a_series_of_another_size_has_its_box_in_proportion():
    part = sl.DATASETS["series_autoregressive_small_middle"](stop=2, size=100)
    assert part.images.shape == (2, 1, 100, 100) and part.masks.sum((1, 2)).tolist() == [28**2] * 2
    assert part.masks[0].nonzero()[0].tolist() == [36, 36]
    assert sl.DATASETS["series_gaussian_rare_time"](stop=2, size=2).masks.any((1, 2)).all()


def test_series_of_train_and_test_differ_and_either_class_is_as_frequent():
    train, test = (sl.DATASETS["series_gaussian_middle"](split) for split in ("train", "test"))
    assert len(train) == len(test) == 1000 and not torch.equal(train.images[0], test.images[0])
    assert abs(torch.cat([train.labels, test.labels]).float().mean() - 0.5) < 0.05


def test_gaussian_series_are_standard_normal_around_the_box():
    part = sl.DATASETS["series_gaussian_rare_feature"](stop=200)
    outside = part.images[:, 0][~part.masks]
    assert outside.mean().item() == pytest.approx(0, abs=0.01) and outside.std().item() == pytest.approx(1, abs=0.01)


# The processes by their definitions.


def test_harmonic_and_pseudo_periodic_series_are_sines_of_the_time():
    silence = np.zeros((3, 30, 4))
    np.testing.assert_allclose(PROCESSES["harmonic"](TIMES, *NORMAL)[..., 2], np.sin(4 * np.pi * TIMES))
    np.testing.assert_allclose(PROCESSES["pseudo_periodic"](TIMES, silence, silence)[..., 1], np.sin(2 * TIMES))
    one = PROCESSES["pseudo_periodic"](TIMES, silence + 1, silence + 1)[..., 0]
    np.testing.assert_allclose(one, 1.5 * np.sin(2.01 * TIMES))


def test_what_is_new_in_an_autoregressive_step_is_its_noise():
    series = PROCESSES["autoregressive"](TIMES, *NORMAL)
    np.testing.assert_allclose(series[:, 1:] - 0.9 * series[:, :-1], 0.5 * NORMAL[0][:, 1:], atol=1e-12)
    np.testing.assert_allclose(series[:, 0], 0.5 * NORMAL[0][:, 0])


def test_a_continuous_autoregressive_series_fades_with_time_and_wavers_around_it():
    series = PROCESSES["continuous_autoregressive"](TIMES, 0 * NORMAL[0], NORMAL[1])
    np.testing.assert_allclose(series[..., 0], 0.01 * 0.9 ** (TIMES - TIMES[:, :1]))
    gap = np.diff(TIMES)[:, :, None]
    series = PROCESSES["continuous_autoregressive"](TIMES, *NORMAL)
    new = series[:, 1:] - 0.9**gap * series[:, :-1]
    np.testing.assert_allclose(new / np.sqrt(1 - 0.9**gap), 0.01 * NORMAL[0][:, 1:])


def test_a_gaussian_process_has_the_covariance_of_scikit_learn():
    unit = np.broadcast_to(np.eye(30), (3, 30, 30))  # of each normal number its effect on every step
    roots = PROCESSES["gaussian_process"](TIMES, unit, unit)
    for root, times in zip(roots, TIMES, strict=True):
        np.testing.assert_allclose(root @ root.T, Matern(1.0, nu=1.5)(times[:, None]), atol=2e-6)


def test_a_narma_series_with_constant_inputs_settles_where_its_formula_stands_still():
    series = PROCESSES["narma"](np.zeros((1, 300)), np.zeros((1, 300, 2)), np.zeros((1, 300, 2)))
    # inputs are 1/4: y = 0.3 y + 0.05 y (10 y) + 1.5 / 16 + 0.1
    np.testing.assert_allclose(series[0, -1], 0.7 - math.sqrt(0.49 - 2 * (1.5 / 16 + 0.1)))


def test_a_narma_series_follows_its_formula():
    series = PROCESSES["narma"](TIMES, *NORMAL)
    inputs = torch.distributions.Normal(0.0, 1.0).cdf(torch.from_numpy(NORMAL[0])).numpy() / 2
    for step in range(11, 30):
        last, driven = series[:, step - 1], inputs[:, step - 10] * inputs[:, step - 1]
        expected = 0.3 * last + 0.05 * last * series[:, step - 10 : step].sum(1) + 1.5 * driven + 0.1
        np.testing.assert_allclose(series[:, step], expected)


@pytest.fixture
def series():
    """Three short series of ten features."""
    return torch.randn(3, 12, 10, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def network(request):
    torch.manual_seed(0)
    return sl.MODELS[request.param](classes=4, features=10)


# Methods, metrics and objectives of series.


class Strict(nn.Module):
    """A model of somebody else, which takes (B, T, F) only."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, series):
        assert series.ndim == 3
        return self.inner(series)


def by_rule(name):
    return "pool_rule" in sl.METHODS.options(name) or name.startswith("deeplift")


@pytest.mark.parametrize("name", sorted(sl.METHODS))
@pytest.mark.parametrize("network", ["tcn", "lstm"], indirect=True)
def test_maps_of_series_are_those_of_their_images_to_the_bit(name, network, series):
    before = state(network)
    recurrent = any(isinstance(module, nn.LSTM) for module in network.modules())
    if recurrent and (by_rule(name) or name in ("gradcam", "score_cam", "sidu")):
        with pytest.raises(ValueError, match=r"the rule does not support lstm|no layer of this model has features at positions"):
            sl.METHODS[name](network, series, **quick(name))
        return
    maps = sl.METHODS[name](network, series, **quick(name))
    assert maps.shape == series.shape and maps.isfinite().all()
    assert torch.equal(maps, sl.METHODS[name](network, series[:, None], **quick(name)))
    assert torch.equal(maps, sl.METHODS[name](Strict(network), series, **quick(name)))
    assert_same_state(before, state(network))


@pytest.mark.parametrize("name", sorted(sl.METRICS))
def test_curves_of_series_are_those_of_their_images_to_the_bit(name, series):
    torch.manual_seed(0)
    model, maps = sl.MODELS["tcn"](classes=4, features=10), torch.rand(3, 12, 10, generator=torch.Generator().manual_seed(2))
    options = context(name, series[:, None])
    before = state(model)
    one, other, strict = (
        sl.METRICS[name](network, inputs, maps, **options)
        for network, inputs in ((model, series), (model, series[:, None]), (Strict(model), series))
    )
    assert torch.equal(one.values, other.values) and torch.equal(one.values, strict.values)
    assert_same_state(before, state(model))


@pytest.mark.parametrize("name", sorted(sl.OBJECTIVES))
def test_objectives_of_series_are_those_of_their_images_to_the_bit(name, series):
    losses = []
    for strict, inputs in ((False, series), (False, series[:, None]), (True, series)):
        torch.manual_seed(0)
        model = sl.MODELS["tcn"](classes=4, features=10)
        losses.append(sl.OBJECTIVES[name](Strict(model) if strict else model, inputs, torch.tensor([0, 1, 2])))
    assert losses[0] == losses[1] == losses[2] and losses[0].isfinite()
    losses[2].backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_the_model_is_left_as_it_was_found_after_an_error_with_series(series):
    model = Strict(sl.MODELS["lstm"](classes=2, features=9))
    before = state(model)
    with pytest.raises(ValueError, match=r"needs series \(B, T, 9\)"):
        sl.METHODS["smoothgrad"](model, series)
    assert_same_state(before, state(model))


def test_an_image_that_was_taken_for_series_is_said(smooth, images):
    with pytest.raises(RuntimeError) as caught:
        sl.METHODS["gradient"](smooth, images[0])
    assert caught.value.__notes__ == ["images (3, 16, 16) were read as time series (B, T, F); pass one image as images[None]"]


def test_what_takes_series_keeps_its_options_and_facts():
    plain = inspect.unwrap(sl.METRICS["deletion"])
    written, shown = (inspect.signature(function).parameters for function in (plain, sl.METRICS["deletion"]))
    assert plain is not sl.METRICS["deletion"] and list(written) == list(shown)
    assert all(written[name].default == shown[name].default and written[name].kind == shown[name].kind for name in written)
    assert sl.METRICS["deletion"].lower_is_better is True and "rise" in sl.METRICS["deletion"].presets
    assert sl.METHODS.defaults("smoothgrad")["samples"] == 25


# Noise in the range of the series.


@pytest.fixture
def wide():
    """Two series whose values reach from -5 to 5 and from -2 to 3."""
    unit = torch.rand(2, 1, 50, 50, generator=torch.Generator().manual_seed(3))
    unit[:, 0, 0, :2] = torch.tensor([0.0, 1.0])
    return unit * torch.tensor([10.0, 5.0]).view(2, 1, 1, 1) - torch.tensor([5.0, 2.0]).view(2, 1, 1, 1)


def test_noise_covers_the_range_of_each_series(wide):
    draws = noise_images(wide, 0, None)(torch.tensor([0, 1]), torch.tensor([0, 0]))
    for noise in (filled("noise", None, wide), draws):
        for image, (least, greatest) in zip(noise, [(-5, 5), (-2, 3)], strict=True):
            assert least <= image.min() < least + 0.05 and greatest - 0.05 < image.max() <= greatest
            assert image.mean().item() == pytest.approx((least + greatest) / 2, abs=0.2)


def test_noise_of_a_series_does_not_depend_on_its_batch(wide):
    assert torch.equal(filled("noise", None, wide)[1:], filled("noise", None, wide[1:], indices=torch.tensor([1])))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_noise_of_images_in_the_unit_interval_is_in_the_unit_interval_to_the_bit(dtype):
    images = (0.2 + 0.5 * torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))).to(dtype)
    assert torch.equal(filled("noise", None, images), streams.noise(images, [0, 1], 0))
    rows, points = torch.tensor([1, 0]), torch.tensor([2, 3])
    plain = streams.noise_by_draw(images, "baselines", torch.rand, 0, None)(rows, points)
    assert torch.equal(noise_images(images, 0, None)(rows, points), plain)


@pytest.mark.parametrize("name", ["gradient_shap", "deeplift_shap"])
def test_noise_baselines_give_the_map_of_the_series_scaled_to_the_unit_interval(name, wide):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(2500, 8), nn.ReLU(), nn.Linear(8, 2)).double()
    series = wide[:1].double()
    scaled = nn.Sequential(nn.Flatten(), nn.Linear(2500, 2500), *model[1:]).double()
    with torch.no_grad():
        scaled[1].weight.copy_(10 * torch.eye(2500))
        scaled[1].bias.fill_(-5)
    expected = sl.METHODS[name](scaled, (series + 5) / 10, 0, samples=5)
    torch.testing.assert_close(sl.METHODS[name](model, series, 0, samples=5), expected)


# Precision and recall of relevance.

MAP = torch.tensor([[[6.0, 0, 2], [1, 0, 1]]])
SALIENT = torch.tensor([[[True, False, False], [True, False, False]]])


def scored(name, maps=MAP, objects=SALIENT):
    return sl.METRICS[name](None, torch.zeros(len(maps), 1, *maps.shape[1:]), maps, objects=objects)


def test_aup_and_aur_two_by_three_by_hand():
    # of relevance 10 the first pixel holds 6, the first two 8, the first three 9; the first is salient, the third ties with the
    # fourth, of which one is salient, so it is with a chance of 1/2
    precision, recall = scored("aup"), scored("aur")
    torch.testing.assert_close(precision.fractions, torch.arange(1, 10) / 10)
    torch.testing.assert_close(precision.values, torch.tensor([[1.0] * 6 + [6 / 8] * 2 + [6.5 / 9]]))
    torch.testing.assert_close(recall.values, torch.tensor([[6 / 7] * 8 + [6.5 / 7]]))
    assert precision.area.item() == pytest.approx(0.1 * (5 + (1 + 6 / 8) / 2 + 6 / 8 + (6 / 8 + 6.5 / 9) / 2))
    assert recall.area.item() == pytest.approx(0.1 * (7 * 6 / 7 + (6 / 7 + 6.5 / 7) / 2))


def test_the_sign_the_unit_and_the_least_value_of_a_map_do_not_count():
    for maps in (-MAP, 8 * MAP, MAP + 4):  # whole numbers, so that no level is missed by rounding
        for name in ("aup", "aur"):
            torch.testing.assert_close(scored(name, maps).values, scored(name).values)


def test_a_map_of_what_is_salient_has_the_greatest_aup_and_one_of_the_rest_has_none():
    mask = SALIENT.float()
    assert scored("aup", mask).area.item() == pytest.approx(0.8)
    assert not scored("aup", 1 - mask).values.any() and not scored("aur", 1 - mask).values.any()
    for name in ("aup", "aur"):
        assert not scored(name, torch.ones(1, 2, 3)).values.any()
    torch.testing.assert_close(scored("aur", mask).values, torch.tensor([[0.5] * 5 + [1.0] * 4]))


def test_aur_is_greatest_for_a_flat_map_that_ranks_what_is_salient_first():
    maps = torch.tensor([[[11.0, 9, 9], [11, 9, 0]]])
    assert scored("aur", maps).values[0, 4:].tolist() == [1.0] * 5  # 22 of 49 lie on the two first pixels
    assert scored("aur", maps).area > scored("aur").area


def test_the_control_has_the_salient_share_of_precision_and_half_of_recall():
    part = sl.DATASETS["series_gaussian_moving_middle"](stop=50)
    maps = sl.METHODS["random"](None, part.images)
    share = part.masks.float().mean().item()
    assert scored("aup", maps, part.masks).area.mean().item() == pytest.approx(0.8 * share, abs=0.005)
    assert scored("aur", maps, part.masks).area.mean().item() == pytest.approx(0.4, abs=0.005)
