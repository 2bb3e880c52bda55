"""Wrong use that would give wrong numbers in silence, or an error deep inside: what is said instead."""

import warnings

import numpy as np
import pytest
import torch
from conftest import context, quick
from torch import nn

import saliency_lib as sl
from saliency_lib.networks.recurrent import lstm

METHODS = ["gradient", "smoothgrad", "integrated_gradients", "gradcam", "rise", "lime", "sidu", "occlusion"]
METRICS = ["deletion", "srg", "road", "max_sensitivity", "infidelity", "average_drop"]


class Small(nn.Module):
    """A network of colour images that counts its passes."""

    def __init__(self, classes=4, end=None):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.head, self.end, self.passes = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, classes), end, 0

    def forward(self, images):
        self.passes += len(images)
        logits = self.head(self.layer(images).relu().mean((2, 3)))
        return self.end(logits) if self.end else logits


def calls(model, images):
    """A call of each method and each metric, by name."""
    maps, targets = torch.rand(5, 16, 16, generator=torch.Generator().manual_seed(0)), torch.zeros(5).long()
    found = {name: lambda name=name: sl.METHODS[name](model, images, targets, **quick(name)) for name in METHODS}
    found |= {name: lambda name=name: sl.METRICS[name](model, images, maps, **context(name, images)) for name in METRICS}
    return found


def said(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    assert all(warning.category is UserWarning for warning in caught)
    return caught


@pytest.mark.parametrize("name", METHODS + METRICS)
@pytest.mark.parametrize("misuse", ["softmax", "one logit", "normalised"])
def test_silent_misuse_is_said_once_with_the_remedy(name, misuse, images):
    model, given, expected = {
        "softmax": (Small(end=lambda logits: logits.softmax(1)), images, "remove the softmax"),
        "one logit": (Small(1, torch.exp), images, "torch.cat"),
        "normalised": (Small(), 4 * images - 2, r"pass pixels in [0, 1]"),
    }[misuse]
    caught = [warning for warning in said(calls(model, given)[name]) if expected in str(warning.message)]
    assert len(caught) == 1
    assert caught[0].filename == __file__


@pytest.mark.parametrize("name", METHODS + METRICS)
def test_right_use_is_not_warned_about_and_the_check_takes_no_pass(name, images):
    model, wrong = Small(), Small(end=lambda logits: logits.softmax(1))
    assert not said(calls(model, images)[name])
    said(calls(wrong, images)[name])
    assert model.passes == wrong.passes


def test_a_fill_in_pixel_values_is_named_if_the_images_are_normalised(images):
    caught = said(lambda: sl.METHODS["occlusion"](Small(), 4 * images - 2, fill="white"))
    assert any("fill 'white' is the pixel value 1" in str(warning.message) for warning in caught)
    for fill in ("mean", "blur"):
        caught = said(lambda fill=fill: sl.METHODS["occlusion"](Small(), 4 * images - 2, fill=fill))
        assert not any("fill" in str(warning.message) for warning in caught)


def test_series_may_have_any_values():
    model = lstm(classes=3, features=6)
    series = 5 * torch.randn(4, 8, 6)
    assert not said(lambda: sl.METHODS["gradient"](model, series))
    assert not said(lambda: sl.METHODS["occlusion"](sl.LogProbabilities(model), series[:, None], window=2, fill="white"))
    assert said(lambda: sl.METHODS["occlusion"](nn.Sequential(nn.Flatten(), nn.Linear(48, 3)), series[:, None], window=2))


@pytest.mark.parametrize("wrong", ["array", "Images", "bytes"])
def test_images_of_another_kind_are_refused_with_their_conversion(wrong, images):
    given, remedy = {
        "array": (images.numpy(), r"torch\.from_numpy\(images\)"),
        "Images": (sl.Images(images, torch.zeros(5).long(), ("a",), torch.arange(5)), r"pass its tensor, images\.images"),
        "bytes": ((255 * images).byte(), r"images\.float\(\), and divide bytes by 255"),
    }[wrong]
    for table in (sl.METHODS, sl.METRICS, sl.OBJECTIVES):
        for name in table:
            more = {"method": (), "metric": (images[:, 0],), "objective": (torch.zeros(5).long(),)}[table.kind]
            with pytest.raises(ValueError, match=remedy):
                table[name](Small(), given, *more)


@pytest.mark.parametrize("name", list(sl.METRICS))
def test_maps_of_another_kind_are_refused_with_their_conversion(name, images):
    for maps, remedy in [(images, r"sl\.as_maps\(attributions\)"), (images[:, 0].numpy(), r"torch\.from_numpy\(maps\)")]:
        with pytest.raises(ValueError, match=remedy):
            sl.METRICS[name](Small(), images, maps, **context(name, images))


def test_attributions_become_maps_by_the_reduction_of_the_methods(images):
    attributions = torch.randn(5, 3, 16, 16)
    assert torch.equal(sl.as_maps(attributions), attributions.sum(1))
    assert torch.equal(sl.as_maps(attributions.numpy(), "max_abs"), attributions.abs().amax(1))
    assert sl.as_maps(attributions.requires_grad_()).requires_grad is False
    assert torch.equal(sl.as_maps(attributions, lambda values: values[:, 0]), attributions[:, 0])
    with pytest.raises(ValueError, match="reduction of as_maps 'summ' is not known; did you mean 'sum'"):
        sl.as_maps(attributions, "summ")
    with pytest.raises(ValueError, match=r"must be floats of shape \(B, C, H, W\).* got Tensor of shape \(5, 16, 16\)"):
        sl.as_maps(attributions[:, 0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sigma": "1e-3"}, "sigma of smoothgrad must be a number of at least 0, got the text '1e-3'; write 1.0e-3 in YAML"),
        ({"sigma": "2E5"}, r"write 2.0e\+5 in YAML"),
        ({"sigma": float("inf")}, "got inf"),
        ({"sigma": torch.tensor(0.1)}, r"got Tensor of shape \(\) and torch.float32; pass its .item\(\)"),
        ({"samples": "25"}, "got the text '25'; write 25 without quotes"),
        ({"samples": 2.0}, "samples of smoothgrad must be a whole number from 1 to 1,000,000, got 2.0"),
        ({"samples": True}, "got True"),
        ({"samples": 10**12}, "must be a whole number from 1 to 1,000,000, got 1000000000000"),
        ({"reduction": 3}, "reduction of smoothgrad must be one of the names abs_sum, .* or a function, got 3"),
        ({"smples": 3}, "option of method 'smoothgrad' 'smples' is not known; did you mean 'samples'"),
    ],
)
def test_an_option_of_another_type_is_refused_by_a_call_and_by_a_specification(options, message, images):
    with pytest.raises(ValueError, match=message):
        sl.METHODS["smoothgrad"](Small(), images, **options)
    if not isinstance(next(iter(options.values())), (torch.Tensor, float)):  # which a specification cannot hold
        with pytest.raises(ValueError, match=message):
            sl.Explanation(sl.Training(), "smoothgrad", options)


def test_options_of_metrics_objectives_and_models_are_checked_too():
    with pytest.raises(ValueError, match="ties of deletion 'randm' is not known; did you mean 'random'"):
        sl.Score(sl.Explanation(sl.Training()), "deletion", {"ties": "randm"})
    with pytest.raises(ValueError, match=r"fractions of road must be a list of numbers, got 0\.5"):
        sl.Score(sl.Explanation(sl.Training()), "road", {"fractions": 0.5})
    with pytest.raises(
        ValueError, match=r"batch_norm of cnn must be true or false, got the text 'no'; write false without quotes"
    ):
        sl.Training(changes={"model_options": {"batch_norm": "no"}})
    with pytest.raises(ValueError, match="option of model 'cnn' 'widht' is not known; did you mean 'width'"):
        sl.Training(changes={"model_options": {"widht": 8}})
    with pytest.raises(ValueError, match="option of model 'cnn' 'widht' is not known; did you mean 'width'"):
        sl.MODELS["cnn"](widht=8)
    with pytest.raises(ValueError, match="weight of gradient_norm must be a number of at least 0, got the text '1e-3'"):
        sl.Training(changes={"objective": "gradient_norm", "options": {"weight": "1e-3"}})


def test_numbers_of_numpy_are_numbers(images):
    options = {"samples": np.int64(3), "sigma": np.float32(0.1), "batch_size": np.int32(2)}
    assert torch.isfinite(sl.METHODS["smoothgrad"](Small(), images, **options)).all()


def test_an_option_without_annotation_takes_anything(images):
    def mine(model, images, targets=None, *, anything=1):
        """Return the first channel. Source: a test."""
        return images[:, 0]

    entry = sl.METHODS.entry(mine, "mine")
    assert torch.equal(entry(Small(), images, anything="x"), images[:, 0])
    with pytest.raises(ValueError, match="option of method 'mine' 'nothing' is not known"):
        entry(Small(), images, nothing="x")
