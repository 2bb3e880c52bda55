"""sl.Scalar: any number of a network's output is explained and measured as the logit of a class is."""

import warnings

import pytest
import torch
import torchvision
from conftest import Linear, context, quick
from torch import nn

import saliency_lib as sl
from saliency_lib.core.fills import filled

COMPARING = {"active_gradient", "inactive_gradient", "active_smoothgrad", "active_integrated_gradients", "sidu", "sidu_grids"}
OF_PREDICTIONS = ("allegiance", "masked_accuracy", "pixel_perturbation")
WITH_GRADIENT = ["gradient", "guided_backprop", "integrated_gradients", "deeplift", "gradcam", "active_gradient"]


class Segments(nn.Module):
    """A small network that returns a dictionary with the logits of four classes at each position."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(5)
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 6, 3, padding=1), nn.ReLU())
        self.head = nn.Conv2d(6, 4, 1)

    def forward(self, images):
        return {"out": self.head(self.body(images)), "mean": images.mean((1, 2, 3))}


def left(output):
    """The mean logit of class 1 over the left half."""
    return output["out"][:, 1, :, :8].mean((1, 2))


def total(name):
    """Options of a method that sum over the channels, and score by the logit, as far as it has them."""
    return quick(name) | sl.METHODS.taken(name, {"reduction": "sum", "score": "logit"})


# By hand.


def test_the_gradient_of_a_linear_regression_is_its_weight(images):
    weight = torch.randn(1, 3, 16, 16)
    price = sl.Scalar(Linear(weight), lambda output: output[:, 0])
    expected = weight.sum(1).expand(5, -1, -1)
    torch.testing.assert_close(sl.METHODS["gradient"](price, images, reduction="sum"), expected)
    shares = (weight * images).sum(1)  # of each pixel in the change from black
    for name in ("input_x_gradient", "integrated_gradients", "guided_path_integrated_gradients"):
        options = sl.METHODS.taken(name, {"baseline": "black", "steps": 3})
        torch.testing.assert_close(sl.METHODS[name](price, images, **options), shares, rtol=1e-4, atol=1e-4)
    found = sl.METHODS["occlusion"](price, images, window=1, stride=1, fill="black")
    torch.testing.assert_close(found, shares, rtol=1e-3, atol=1e-4)


def test_the_deletion_curve_follows_the_number():
    image = torch.tensor([[[[0.4, 0.3], [0.2, 0.1]]]])
    number = sl.Scalar(nn.Identity(), lambda output: 10 * output.sum((1, 2, 3)) - 2)
    curve = sl.METRICS["deletion"](number, image, image[:, 0], steps=4, fill="black")
    torch.testing.assert_close(curve.values, torch.tensor([[8.0, 4, 1, -1, -2]]))
    torch.testing.assert_close(curve.area, torch.tensor([1.75]))


# Laws.


def test_the_gradient_of_a_difference_is_the_difference_of_the_gradients(smooth, images):
    difference = sl.Scalar(smooth, lambda output: output[:, 3] - output[:, 1])
    for name in ("gradient", "smoothgrad", "integrated_gradients"):
        mine, three, one = (
            sl.METHODS[name](model, images, targets, **total(name))
            for model, targets in ((difference, 0), (smooth, 3), (smooth, 1))
        )
        torch.testing.assert_close(mine, three - one, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["integrated_gradients", "deeplift"])
def test_the_shares_of_a_difference_sum_to_its_change(name, smooth, relu_net, images):
    network = {"integrated_gradients": smooth, "deeplift": relu_net.eval()}[name]
    difference = sl.Scalar(network, lambda output: output[:, 2] - output[:, 0])
    with torch.no_grad():
        change = (difference(images) - difference(torch.zeros_like(images)))[:, 0]
    maps = sl.METHODS[name](difference, images, baseline="black", **sl.METHODS.taken(name, {"steps": 64}))
    torch.testing.assert_close(maps.sum((1, 2)), change, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", list(sl.METHODS))
def test_a_logit_as_a_number_has_the_map_of_its_class(name, relu_net, images):
    logit = sl.Scalar(relu_net, lambda output: output[:, 2])
    maps = sl.METHODS[name](logit, images, **total(name))
    assert maps.shape == (5, 16, 16) and maps.isfinite().all()
    if name not in COMPARING:
        torch.testing.assert_close(maps, sl.METHODS[name](relu_net, images, 2, **total(name)), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["active_gradient", "inactive_gradient"])
def test_without_other_classes_every_pixel_is_active_and_inactive(name, smooth, images):
    logit = sl.Scalar(smooth, lambda output: output[:, 2])
    torch.testing.assert_close(sl.METHODS[name](logit, images), sl.METHODS["gradient"](logit, images))


@pytest.mark.parametrize("name", ["rise", "lime", "occlusion", "sidu", "sidu_grids"])
def test_the_probability_of_two_classes_as_a_number_has_the_map_of_the_class(name, images):
    torch.manual_seed(0)
    pair = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.Softplus(), nn.Flatten(), nn.Linear(6 * 256, 2)).eval()
    share = sl.Scalar(pair, lambda output: output.softmax(1)[:, 1])
    expected = sl.METHODS[name](pair, images, 1, **quick(name))
    torch.testing.assert_close(sl.METHODS[name](share, images, **quick(name)), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in sl.METRICS if name not in OF_PREDICTIONS])
def test_a_probability_as_a_number_is_measured_as_the_probability_is(name, smooth, images):
    share = sl.Scalar(smooth, lambda output: output.softmax(1)[:, 2])
    maps = torch.rand(5, 16, 16)
    options = context(name, images) | sl.METRICS.taken(name, {"score": "probability"})
    mine = sl.METRICS[name](share, images, maps, **options)
    assert mine.area.isfinite().all()
    if "explain" not in options:  # which explains the logit of the one and the probability of the other
        theirs = sl.METRICS[name](smooth, images, maps, 2, **options)
        torch.testing.assert_close(mine.area, theirs.area, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", OF_PREDICTIONS)
def test_metrics_of_predictions_refuse_a_number(name, smooth, images):
    number = sl.Scalar(smooth, lambda output: output[:, 2])
    with pytest.raises(
        ValueError, match="gives one number and no classes, so no prediction can change; use a metric that follows"
    ):
        sl.METRICS[name](number, images, torch.rand(5, 16, 16))


def test_the_share_of_a_negative_number_that_drops_is_refused(smooth, images):
    number = sl.Scalar(smooth, lambda output: -output[:, 2].abs() - 1)
    with pytest.raises(ValueError, match=r"negative for images \[0, 1, 2, 3, 4\]; use average_increase"):
        sl.METRICS["average_drop"](number, images, torch.rand(5, 16, 16))


# Networks with other outputs.


def test_a_region_has_no_gradient_beyond_what_it_sees(images):
    maps = sl.METHODS["gradient"](sl.Scalar(Segments(), left), images)
    assert (maps[:, :, :8] > 0).any() and (maps[:, :, 10:] == 0).all()  # two convolutions of 3x3 see two pixels further


@pytest.mark.parametrize("name", [*WITH_GRADIENT, "rise", "lime", "sidu"])
def test_a_dictionary_is_refused_with_the_remedy_and_explained_by_it(name, images):
    with pytest.raises(ValueError, match=r"got dict of 'out' \(\d, 4, 16, 16\), 'mean' .* sl\.Scalar\(model, function\)") as told:
        sl.METHODS[name](Segments(), images, **quick(name))
    assert "lambda output: output['out'].flatten(1).mean(1)" in str(told.value)
    number = sl.Scalar(Segments(), lambda output: output["out"].flatten(1).mean(1))
    assert sl.METHODS[name](number, images, **quick(name)).std() > 0


@pytest.mark.parametrize("name", ["fcn_resnet50", "lraspp_mobilenet_v3_large"])
def test_the_activations_of_a_segmentation_network_are_those_of_its_logits_by_hand(name):
    class ByHand(nn.Module):
        def __init__(self, network):
            super().__init__()
            self.inner = network

        def forward(self, images):
            return self.inner(images)["out"][..., :32].mean((2, 3))

    torch.manual_seed(0)
    network = getattr(torchvision.models.segmentation, name)(weights=None, weights_backbone=None, num_classes=3).eval()
    images = torch.rand(2, 3, 64, 64)
    road = sl.Scalar(sl.PixelModel(network, [0.0] * 3, [1.0] * 3), lambda output: output["out"][:, 1, :, :32].mean((1, 2)))
    found = sl.METHODS["gradcam"](road, images)
    torch.testing.assert_close(found, sl.METHODS["gradcam"](ByHand(network), images, 1), rtol=1e-3, atol=1e-5)
    assert sl.find_layer(road, None, images) is sl.find_layer(ByHand(network), None, images)
    with pytest.raises(ValueError, match="did you mean 'classifier"):
        sl.find_layer(road, "clasifier", images)


def test_a_layer_has_its_own_name_behind_every_wrapper(relu_net, images):
    for wrap in (
        lambda network: sl.PixelModel(network, [0.5] * 3, [0.2] * 3),
        sl.LogProbabilities,
        lambda network: sl.Scalar(sl.PixelModel(network, [0.5] * 3, [0.2] * 3), lambda output: output[:, 0]),
    ):
        assert sl.find_layer(wrap(relu_net), "4", images) is relu_net[4]
    model = sl.Scalar(sl.PixelModel(relu_net, [0.5, 0.4, 0.3], [0.2] * 3), lambda output: output[:, 0])
    torch.testing.assert_close(filled("mean", model, images)[0, :, 0, 0], torch.tensor([0.5, 0.4, 0.3]))


def test_methods_are_compared_on_a_number(images):
    found = sl.evaluate(sl.Scalar(Segments(), left), images, ["gradient", "gradcam"], ["deletion", "insertion"], progress=False)
    assert (found.targets == 0).all() and len(found.table) == 6


@pytest.mark.parametrize("engine", ["folded", "openvino"])
def test_an_engine_runs_a_number_as_it_runs_logits(engine, images):
    if engine == "openvino":
        pytest.importorskip("openvino")
    number = sl.Scalar(Segments(), left)
    fast = sl.optimise(number, images, engine)
    torch.testing.assert_close(fast(images[:2]), number(images[:2]).detach(), rtol=1e-3, atol=1e-4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("rise", "sidu", "occlusion"):
            expected = sl.METHODS[name](number, images, **quick(name))
            torch.testing.assert_close(sl.METHODS[name](fast, images, **quick(name)), expected, rtol=1e-2, atol=1e-3)


# Misuse.


def test_a_number_is_not_warned_about_and_a_bare_output_is(images):
    weight = torch.randn(1, 3, 16, 16)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sl.METHODS["gradient"](sl.Scalar(Linear(weight), lambda output: output[:, 0]), images)
    with pytest.warns(UserWarning, match=r"has one output, .* sl\.Scalar\(model, lambda output: output\[:, 0\]\)"):
        sl.METHODS["gradient"](Linear(weight), images)


@pytest.mark.parametrize("method", ["gradient", "gradcam", "rise", "sidu"])
@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda output: output["out"], r"one number per image, \(\d,\), got \(\d, 4, 16, 16\) from the model's output, dict of"),
        (lambda output: output["out"].mean(), r"one number per image, \(\d,\), got \(\) .* reduce every axis but the first"),
        (lambda output: output["mean"][:, None], r"got \(\d, 1\)"),
        (lambda output: output["mean"].tolist(), "got list of float"),
        (lambda output: None, "got NoneType"),
        (lambda output: (output["out"].argmax(1) == 1).sum((1, 2)), "must return floating-point numbers, got torch.int64"),
        (lambda output: output["mean"] > 0, "must return floating-point numbers, got torch.bool"),
        (lambda output: left(output) / 0 * 0, "is NaN or infinite for some images; check its function"),
        (lambda output: output["uot"], r"failed on the model's output, dict of .* \(KeyError: 'uot'\)"),
        (lambda output: output.mean(1), r"failed on the model's output, .* \(AttributeError: "),
    ],
)
def test_a_function_that_gives_no_numbers_is_refused(function, message, method, images):
    with pytest.raises(ValueError, match=message):
        sl.METHODS[method](sl.Scalar(Segments(), function), images, **quick(method))


def test_a_number_without_a_gradient_is_for_methods_that_need_none(images):
    share = sl.Scalar(Segments(), lambda output: (output["out"].argmax(1) == 1).float().mean((1, 2)))
    for name in WITH_GRADIENT:
        with pytest.raises(
            ValueError, match=r"no gradient leads .* use a method that|or a method that takes forward passes alone"
        ):
            sl.METHODS[name](share, images, **quick(name))
    for name in ("rise", "lime", "occlusion", "sidu", "sidu_grids"):
        assert sl.METHODS[name](share, images, **quick(name)).isfinite().all()


def test_what_is_no_model_or_no_function_is_refused_at_once(smooth, images):
    with pytest.raises(ValueError, match=r"must be a torch\.nn\.Module, got function"):
        sl.Scalar(lambda images: images, len)
    for wrong in (None, "mean", 3):
        with pytest.raises(ValueError, match="must be a function of the model's output, got"):
            sl.Scalar(smooth, wrong)
    with pytest.raises(ValueError, match=r"targets must be class indices .* with sl\.Scalar\(model, function\)"):
        sl.METHODS["gradient"](smooth, images, lambda output: output[:, 0])
    with pytest.raises(ValueError, match="from 0 to 0"):
        sl.METHODS["gradient"](sl.Scalar(smooth, lambda output: output[:, 0]), images, 1)


def test_a_script_module_shows_no_layers(smooth, images):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the age of torch.jit.trace
        traced = torch.jit.trace(smooth, images)
    for name in ("gradcam", "sidu"):
        with pytest.raises(ValueError, match="is a script module, whose layers cannot be read; pass the original"):
            sl.METHODS[name](traced, images)
