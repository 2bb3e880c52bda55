"""The training objectives against hand-computed cases, laws and gradcheck."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call

import saliency_lib as sl
from saliency_lib.training import objectives
from saliency_lib.training.loop import fit

DENSITY = ["score_matching", "anti_score_matching", "gradient_norm"]
REGULARISED = ["saliency_guided", *DENSITY]


def smooth(seed=0, batch_norm=False, dropout=0.0):
    torch.manual_seed(seed)
    norm = [nn.BatchNorm2d(3)] if batch_norm else []
    layers = [nn.Conv2d(1, 3, 3, padding=1), *norm, nn.Softplus(beta=10), nn.Flatten(), nn.Dropout(dropout), nn.Linear(48, 3)]
    return nn.Sequential(*layers).double()


def small(count=6, seed=1):
    source = torch.Generator().manual_seed(seed)
    return torch.rand(count, 1, 4, 4, generator=source, dtype=torch.float64), torch.arange(count) % 3


# Cross-entropy.


def test_cross_entropy_by_hand():
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2, bias=False))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[0.0], [1.0]]))
    loss = objectives.cross_entropy(model, torch.tensor([[[[0.0]]], [[[1.0]]]]), torch.tensor([0, 1]))
    # -log of 1/2 and of e/(1+e), averaged
    assert loss.item() == pytest.approx((0.693147 + 0.313262) / 2, rel=1e-5)


def test_the_released_double_softmax_cannot_fall_below_its_bound():
    class Certain(nn.Module):
        def forward(self, images):
            return 1e4 * F.one_hot(torch.zeros(len(images), dtype=torch.long), 10).double()

    loss = objectives.cross_entropy(Certain(), torch.rand(4, 1, 2, 2), torch.zeros(4).long(), variant="saliency_benchmark")
    assert loss.item() == pytest.approx(math.log(1 + 9 / math.e))
    assert objectives.cross_entropy(Certain(), torch.rand(4, 1, 2, 2), torch.zeros(4).long()).item() == 0


# Saliency guided training.


@settings(deadline=None, max_examples=25)
@given(st.floats(0, 1), st.sampled_from(["signed", "absolute"]))
def test_exactly_the_stated_share_of_the_pixels_is_overwritten(fraction, ranking):
    model, (images, labels) = smooth(), small()
    mask = objectives.least_salient(model, images, labels, fraction, ranking)
    assert mask.shape == images[:, :1].shape
    assert (mask.flatten(1).sum(1) == int(fraction * 16)).all()


def test_half_of_the_pixels_of_a_digit_are_392_also_where_gradients_tie():
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 2, bias=False))
    nn.init.zeros_(model[1].weight)
    mask = objectives.least_salient(model, torch.rand(3, 1, 28, 28), torch.zeros(3).long(), 0.5)
    assert mask.flatten(1).sum(1).tolist() == [392] * 3
    assert mask.flatten(1)[:, :392].all()  # ties by index


@pytest.mark.parametrize("ranking, expected", [("signed", [1, 3]), ("absolute", [0, 2])])
def test_the_least_salient_pixels_of_a_linear_model_by_hand(ranking, expected):
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False)).double()
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[0.1, -3.0, 0.2, -2.0], [0.0] * 4]))
    # the gradient of log p_0 is p_1 times the first row: its order is that of the row
    mask = objectives.least_salient(model, torch.rand(1, 1, 2, 2, dtype=torch.float64), torch.tensor([0]), 0.5, ranking)
    assert mask.flatten().nonzero().flatten().tolist() == expected


def test_the_gradient_is_that_of_the_log_probability_and_not_of_the_logit():
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False)).double()
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[1.0, 2.0], [0.0, 3.0]]))
    # of log p_0 it is p_1 (1, -1): the second pixel is the least; of the logit (1, 2), where it would be the first
    mask = objectives.least_salient(model, torch.rand(1, 1, 1, 2, dtype=torch.float64), torch.tensor([0]), 0.5)
    assert mask.flatten().tolist() == [False, True]


def test_the_gradient_of_a_colour_image_is_averaged_over_channels():
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 2, bias=False)).double()
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[1.0, 2.0, 3.0, -1.0, 0.0, 0.0], [0.0] * 6]))  # three channels of two pixels
    # the means are (4/3, 1/3), the first channel alone says (1, 2)
    mask = objectives.least_salient(model, torch.rand(1, 3, 1, 2, dtype=torch.float64), torch.tensor([0]), 0.5)
    assert mask.flatten().tolist() == [False, True]


def test_the_uniform_fill_is_drawn_for_each_image_and_each_channel():
    image = torch.rand(1, 3, 5, 5)
    filled = objectives.TRAINING_FILLS["uniform"](image.expand(2, -1, -1, -1))
    assert not torch.equal(filled[0], filled[1]) and not torch.equal(filled[0, 0], filled[0, 1])


def test_a_pixel_is_overwritten_in_all_its_channels():
    seen = []

    class Watch(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(12, 2)

        def forward(self, images):
            seen.append(images.detach().clone())
            return self.linear(images.flatten(1))

    images = torch.rand(2, 3, 2, 2)
    objectives.saliency_guided(Watch(), images, torch.tensor([0, 1]), fraction=0.5, fill="corner")
    changed = (seen[2] != images).any(1)
    corner = images[:, :, :1, :1].expand_as(images)
    assert torch.equal(seen[1], images)
    assert torch.equal(seen[2][changed[:, None].expand_as(images)], corner[changed[:, None].expand_as(images)])
    assert (changed.flatten(1).sum(1) <= 2).all() and changed.any()


@pytest.mark.parametrize("divergence", ["clean_to_masked", "masked_to_clean"])
def test_the_divergence_of_two_classes_by_hand(divergence):
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False)).double()
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[2.0, 0.0], [0.0, 1.0]]))
    images = torch.tensor([[[[0.5, 1.0]]]], dtype=torch.float64)
    # d log p_0 = p_1 (2, -1): the second pixel is the least, and takes the value of the first
    loss = objectives.saliency_guided(model, images, torch.tensor([0]), fraction=0.5, fill="corner", divergence=divergence)
    p, q = 1 / (1 + math.exp(1.0 - 1.0)), 1 / (1 + math.exp(0.5 - 1.0))
    if divergence == "masked_to_clean":
        p, q, entropy = q, p, -math.log(p)
    else:
        entropy = -math.log(p)
    kl = p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    assert loss.item() == pytest.approx(entropy + kl)


def test_without_dropout_an_image_that_stays_the_same_diverges_by_nothing():
    model, (images, labels) = smooth(), small()
    flat = images[:, :, :1, :1].expand_as(images).contiguous()  # its corner is its every pixel
    loss = objectives.saliency_guided(model, flat, labels, fraction=0.7, fill="corner")
    assert loss.item() == pytest.approx(objectives.cross_entropy(model, flat, labels).item(), rel=1e-12)


def test_the_two_predictions_have_different_dropout_as_released():
    model, (images, labels) = smooth(dropout=0.5).train(), small()
    torch.manual_seed(0)
    with_kl = objectives.saliency_guided(model, images, labels, fraction=0.0)
    torch.manual_seed(0)
    assert with_kl > objectives.cross_entropy(model, images, labels)


def test_the_mask_is_made_in_evaluation_mode_and_the_model_left_in_training_mode():
    modes = []

    class Watch(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = smooth(dropout=0.5, batch_norm=True)

        def forward(self, images):
            modes.append((self.training, self.network[1].training))
            return self.network(images)

    model = Watch().train()
    objectives.saliency_guided(model, *small()).backward()
    assert modes == [(False, False), (True, True), (True, True)]
    assert model.training and all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("fill", list(objectives.TRAINING_FILLS))
def test_fills_stay_within_the_range_of_each_image(fill):
    images, _ = small()
    filled = objectives.TRAINING_FILLS[fill](images)
    least = 0 if fill == "padding" else images.amin((2, 3), keepdim=True)
    assert (filled >= least).all() and (filled <= images.amax((2, 3), keepdim=True)).all()
    assert filled.shape == images.shape


# All of them.


@pytest.mark.parametrize("name", REGULARISED)
def test_the_gradients_by_the_weights_are_those_of_finite_differences(name):
    model, (images, labels) = smooth(), small(3)
    names = [key for key, _ in model.named_parameters()]

    class With(nn.Module):
        def __init__(self, values):
            super().__init__()
            self.values = dict(zip(names, values, strict=True))

        def forward(self, inputs):
            return functional_call(model, self.values, (inputs,))

    def loss(*values):
        torch.manual_seed(7)
        return sl.OBJECTIVES[name](With(values), images, labels, weight=0.5)

    values = [parameter.detach().clone().requires_grad_() for parameter in model.parameters()]
    assert torch.autograd.gradcheck(loss, values, eps=1e-7, atol=2e-3 if name == "anti_score_matching" else 1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", REGULARISED)
def test_without_weight_training_is_standard_training_bit_for_bit(name):
    images, labels = small(20)
    common = {**sl.Training().settings, "epochs": 3, "batch_size": 4}
    models = [smooth(dropout=0.3, batch_norm=True) for _ in range(2)]
    fit(models[0], images, labels, common, seed=0)
    fit(models[1], images, labels, common | {"objective": name, "options": {"weight": 0}}, seed=0)
    for one, other in zip(models[0].state_dict().values(), models[1].state_dict().values(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", list(sl.OBJECTIVES))
def test_every_objective_trains_and_repeats_itself_under_its_seed(name):
    images, labels = small(20)
    settings = {**sl.Training().settings, "epochs": 2, "batch_size": 5, "objective": name, "options": {}}
    models = [smooth() for _ in range(3)]
    for model, seed in zip(models, (4, 4, 5), strict=True):
        fit(model, images, labels, settings, seed=seed)
    weights = [torch.cat([value.flatten() for value in model.state_dict().values()]) for model in models]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert torch.isfinite(weights[0]).all()


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("saliency_guided", {"fraction": 1.2}, r"fraction of .* must be a number from 0 to 1, got 1.2"),
        ("saliency_guided", {"fraction": -0.1}, "fraction of .* must be a number from 0 to 1"),
        ("saliency_guided", {"ranking": "abs"}, "ranking of saliency_guided 'abs' is not known; "),
        (
            "saliency_guided",
            {"fill": "blur"},
            "fill of saliency_guided 'blur' is not known; one of: another_word, corner",
        ),
        ("saliency_guided", {"divergence": "js"}, "divergence of saliency_guided 'js' is not known"),
        ("score_matching", {"weight": -1}, "weight of .* must be a number of at least 0, got -1"),
        ("score_matching", {"weight": float("nan")}, "weight of .* must be a number of at least 0, got nan"),
        ("score_matching", {"estimator": "exact"}, "estimator of .* 'exact' is not known"),
        ("score_matching", {"sigma": 0}, "sigma of .* must be a number above 0"),
        ("score_matching", {"probes": 0}, "probes of .* must be a whole number from 1 to .*, got 0"),
        ("anti_score_matching", {"probes": 1.5}, "probes of .* must be a whole number from 1 to .*, got 1.5"),
        ("gradient_norm", {"weight": "1"}, "weight of .* must be a number of at least 0, got the text '1'"),
        ("cross_entropy", {"variant": "released"}, "variant of cross_entropy 'released' is not known"),
        ("cross_entropy", {"label_smoothing": 2}, r"label_smoothing of .* must be a number from 0 to 1, got 2"),
    ],
)
def test_bad_options_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        sl.OBJECTIVES[name](smooth(), *small(), **options)
