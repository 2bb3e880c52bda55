"""Laws of all methods, then each method against a hand computation or another library."""

import captum.attr
import numpy as np
import pytest
import skimage.filters
import torch
from conftest import Linear, quick
from torch import nn

import saliency_lib as sl
from saliency_lib.attribution.backward import class_slope, gaussian_ball, path_gradient, point
from saliency_lib.networks.pixels import PixelModel

METHODS = sorted(sl.METHODS)
BATCHED = [name for name in METHODS if "batch_size" in sl.METHODS.options(name)]  # all but the controls
FORWARD_ONLY = {name for name, method in sl.METHODS.items() if method.forward_only}


@pytest.fixture
def net(request, smooth):
    """The smooth network; with ReLUs for the guided rule, which knows nothing else, and for SIDU, whose masks need zeros."""
    name = request.node.callspec.params["name"]
    if name != "sidu" and "pool_rule" not in sl.METHODS.options(name):
        return smooth
    return nn.Sequential(*(nn.ReLU() if isinstance(layer, nn.Softplus) else layer for layer in smooth))


def state(model: nn.Module) -> list:
    """Everything a kernel must leave as it was found."""
    modes = [module.training for module in model.modules()]
    hooks = [
        len(module._forward_hooks) + len(module._backward_hooks) + len(module._forward_pre_hooks) for module in model.modules()
    ]
    flags = [(p.requires_grad, p.grad is None) for p in model.parameters()]
    values = [value.clone() for value in model.state_dict().values()]
    return [modes, hooks, flags, values]


def assert_same_state(one: list, other: list) -> None:
    assert one[:3] == other[:3]
    assert all(torch.equal(a, b) for a, b in zip(one[3], other[3], strict=True))


@pytest.mark.parametrize("name", METHODS)
def test_maps_have_the_images_shape_and_are_finite(name, relu_net, images):
    maps = sl.METHODS[name](relu_net, images.requires_grad_(), **quick(name))
    assert maps.shape == (5, 16, 16)
    assert maps.dtype == images.dtype
    assert torch.isfinite(maps).all()
    assert not maps.requires_grad


@pytest.mark.parametrize("name", BATCHED)
@pytest.mark.parametrize("batch_size", [1, 7, 10_000])
def test_maps_do_not_depend_on_the_batch_size(name, batch_size, net, images):
    net, images = net.double(), images.double()  # so that rounding cannot hide a difference
    whole = sl.METHODS[name](net, images, **quick(name))
    cut = sl.METHODS[name](net, images, batch_size=batch_size, **quick(name))
    torch.testing.assert_close(cut, whole, rtol=0, atol=1e-9 * float(whole.abs().max()))


@pytest.mark.parametrize("name", METHODS)
def test_an_image_has_the_same_map_alone_and_among_others_in_any_order(name, net, images):
    net, images = net.double(), images.double()
    options = quick(name)
    numbered = "indices" in sl.METHODS.options(name)
    whole = sl.METHODS[name](net, images, **options)
    order = torch.tensor([3, 0, 4])
    some = sl.METHODS[name](net, images[order], **options, **({"indices": order} if numbered else {}))
    torch.testing.assert_close(some, whole[order], rtol=0, atol=1e-9 * float(whole.abs().max()))


@pytest.mark.parametrize("name", METHODS)
def test_the_model_is_left_as_it_was_found(name, relu_net, images):
    relu_net.train()
    relu_net[1].eval()
    relu_net[4].weight.requires_grad_(False)
    before = state(relu_net)
    sl.METHODS[name](relu_net, images, **quick(name))
    assert_same_state(before, state(relu_net))


@pytest.mark.parametrize("name", BATCHED)
def test_the_model_is_left_as_it_was_found_after_an_error(name, relu_net, images):
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.calls = relu_net, 0

        def forward(self, inputs):
            self.calls += 1
            if self.calls > 2:
                raise KeyError("broken")
            return self.inner(inputs)

    model = Broken().train()
    before = state(model)
    with pytest.raises(KeyError, match="broken"):
        sl.METHODS[name](model, images, batch_size=1, **quick(name))
    assert_same_state(before, state(model))


@pytest.mark.parametrize("name", BATCHED)
def test_a_model_that_keeps_a_tensor_from_its_forward_pass_can_still_be_explained_and_trained(name, net, images):
    class Keeping(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.kept = net, None

        def forward(self, inputs):
            self.kept = torch.ones(()) if self.kept is None else self.kept
            return self.inner(inputs) * self.kept

    model = Keeping()
    torch.testing.assert_close(sl.METHODS[name](model, images, **quick(name)), sl.METHODS[name](net, images, **quick(name)))
    sl.METRICS["deletion"](model, images, images.mean(1))
    model(images).sum().backward()


@pytest.mark.parametrize("name", sorted(set(BATCHED) - FORWARD_ONLY))
def test_no_gradient_inside_inference_mode_is_said(name, net, images):
    with torch.inference_mode(), pytest.raises(ValueError, match=r"no gradient can be computed inside torch.inference_mode"):
        sl.METHODS[name](net, images, **quick(name))


def test_random_numbers_of_one_seed_are_unrelated_between_purposes_images_and_draws(images):
    from saliency_lib.core.fills import filled
    from saliency_lib.core.streams import seed_of

    noise = filled("noise", None, images)
    maps = sl.METHODS["random"](None, images)
    assert not any(torch.equal(maps, noise[:, channel]) for channel in range(3))
    keys = [
        (purpose, seed, image, *draw)
        for purpose in "ab"
        for seed in (0, 1, 2**32)
        for image in range(50)
        for draw in ((), (0,), (1,))
    ]
    assert len({seed_of(*key) for key in keys}) == len(keys)


@pytest.mark.parametrize("name", METHODS)
def test_the_predicted_class_is_the_default_target(name, net, images):
    predicted = net(images).argmax(1)
    by_default = sl.METHODS[name](net, images, **quick(name))
    torch.testing.assert_close(by_default, sl.METHODS[name](net, images, predicted, **quick(name)))


@pytest.mark.parametrize("name", METHODS)
def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not(name, net, images):
    if "seed" not in sl.METHODS.options(name):
        one, again = (sl.METHODS[name](net, images, **quick(name)) for _ in range(2))
        assert torch.equal(one, again)
        return
    extra = {"baseline": "noise"} if "baseline" in sl.METHODS.options(name) else {}
    extra |= {"fill": "noise"} if "fill" in sl.METHODS.options(name) else {}
    one, again, other = (sl.METHODS[name](net, images, seed=seed, **extra, **quick(name)) for seed in (5, 5, 6))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("name", METHODS)
def test_nothing_is_printed_and_the_global_random_state_stays(name, net, images, capfd):
    before = torch.get_rng_state()
    sl.METHODS[name](net, images, **quick(name))
    assert torch.equal(before, torch.get_rng_state())
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", METHODS)
def test_bad_images_are_refused(name, net, images):
    with pytest.raises(ValueError, match="images must be floats of shape"):
        sl.METHODS[name](net, images[0, 0], **quick(name))
    if name in BATCHED:  # three series of 16 steps, which this network does not take
        with pytest.raises((ValueError, RuntimeError), match=r"pass one image as images\[None\]"):
            sl.METHODS[name](net, images[0], **quick(name))
    damaged = images.clone()
    damaged[2, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"NaN or infinity \(images \[2\]"):
        sl.METHODS[name](net, damaged, **quick(name))


@pytest.mark.parametrize("name", BATCHED)
@pytest.mark.parametrize(("targets", "message"), [([0, 1], "do not fit 5 images"), ([0, 1, 2, 3, 4], "from 0 to 3")])
def test_bad_targets_are_refused(name, targets, message, net, images):
    with pytest.raises(ValueError, match=message):
        sl.METHODS[name](net, images, torch.tensor(targets), **quick(name))


@pytest.mark.parametrize("name", BATCHED)
def test_memory_that_runs_out_halves_the_chunk_and_changes_nothing(name, net, images):
    class Small(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.most = net, 0

        def forward(self, inputs):
            if len(inputs) > 3:
                raise torch.OutOfMemoryError("no room")
            self.most = max(self.most, len(inputs))
            return self.inner(inputs)

    net, images = net.double(), images.double()  # SIDU magnifies float32's rounding, which differs between processors
    model = Small()
    torch.testing.assert_close(sl.METHODS[name](model, images, **quick(name)), sl.METHODS[name](net, images, **quick(name)))
    assert 1 < model.most <= 3


@pytest.mark.parametrize("name", METHODS)
def test_float64_gives_float64_and_the_same_map(name, net, images):
    single = sl.METHODS[name](net, images, **quick(name))
    double = sl.METHODS[name](net.double(), images.double(), **quick(name))
    assert double.dtype == torch.float64
    alike = nn.functional.cosine_similarity(double.flatten(1), single.double().flatten(1))
    assert alike.min() > 0.999  # rounding is all that differs, also in the random numbers


SMALL = {"rise": {"cells": 1}, "sidu_grids": {"cells": 1}, "occlusion": {"window": 1, "stride": 1}}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(("channels", "side", "classes"), [(1, 8, 3), (3, 8, 1), (3, 1, 3), (1, 1, 1)])
def test_one_channel_one_pixel_and_one_class_are_no_special_case(name, channels, side, classes):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(channels, 6, 1), nn.ReLU(), nn.Flatten(), nn.Linear(6 * side * side, classes))
    images = torch.rand(2, channels, side, side)
    options = quick(name) | SMALL.get(name, {})
    if name in ("gradcam", "score_cam", "sidu") and side == 1:
        with pytest.raises(ValueError, match="no layer of this model has features at positions"):
            sl.METHODS[name](model, images, **options)
        return
    maps = sl.METHODS[name](model, images, **options)
    assert maps.shape == (2, side, side) and torch.isfinite(maps).all()


@pytest.mark.parametrize("name", METHODS)
def test_a_constant_image_and_a_constant_model_give_finite_maps(name, net, images):
    assert torch.isfinite(sl.METHODS[name](net, torch.full_like(images, 0.5), **quick(name))).all()
    for parameter in net[-1].parameters():
        nn.init.zeros_(parameter)
    assert torch.isfinite(sl.METHODS[name](net, images, **quick(name))).all()


class Tupled(nn.Module):
    """A model that gives more than its logits."""

    def __init__(self):
        super().__init__()
        self.features = nn.Conv2d(3, 4, 3)

    def forward(self, images):
        return self.features(images).mean((2, 3)), images


class Viewing(nn.Module):
    """A network that calls `view` on its features, which channels innermost in memory do not allow."""

    def __init__(self):
        super().__init__()
        self.first, self.relu, self.last = nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Linear(6 * 256, 4)

    def forward(self, images):
        return self.last(self.relu(self.first(images)).view(-1, 6 * 256))


@pytest.mark.parametrize("name", METHODS)
def test_a_network_that_views_its_features_has_the_maps_of_one_that_flattens_them(name, images):
    torch.manual_seed(0)
    model = Viewing()
    flat = nn.Sequential(model.first, model.relu, nn.Flatten(), model.last)
    maps, expected = (sl.METHODS[name](net, images, **quick(name)) for net in (model, flat))
    torch.testing.assert_close(maps, expected, rtol=1e-3, atol=1e-5 * float(expected.abs().max()))
    curve = sl.METRICS["deletion"](Viewing(), images, expected, steps=4)
    assert torch.isfinite(curve.values).all()


@pytest.mark.parametrize("name", METHODS)
def test_under_autocast_the_maps_keep_the_images_precision(name, net, images):
    expected = sl.METHODS[name](net, images, **quick(name))
    with torch.autocast("cpu", torch.bfloat16):
        maps = sl.METHODS[name](net, images, **quick(name))
    assert maps.dtype == torch.float32 and torch.isfinite(maps).all()
    if name in ("gradient", "integrated_gradients", "smoothgrad", "guided_backprop", "rise"):  # no small differences
        assert nn.functional.cosine_similarity(maps.flatten(1), expected.flatten(1)).min() > 0.9


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda images: images.flatten(1), "the model must be a torch.nn.Module, got function; wrap a function in a module"),
        (Tupled(), r"the model must return logits \(B, K\), got tuple of .*; wrap it in a module"),
    ],
)
@pytest.mark.parametrize("name", ["gradient", "gradcam", "rise", "lime", "deeplift"])
def test_what_is_no_model_is_refused(name, model, message, images):
    with pytest.raises(ValueError, match=message):
        sl.METHODS[name](model, images, **quick(name))


def test_seeds_may_be_numpys_whole_numbers_but_no_others(smooth, images):
    maps = sl.METHODS["smoothgrad"](smooth, images, seed=3, **quick("smoothgrad"))
    assert torch.equal(maps, sl.METHODS["smoothgrad"](smooth, images, seed=np.int64(3), **quick("smoothgrad")))
    with pytest.raises(ValueError, match="seed of smoothgrad must be a whole number of at least 0, got"):
        sl.METHODS["smoothgrad"](smooth, images, seed=3.0, **quick("smoothgrad"))


@pytest.mark.parametrize("name", ["rise", "sidu", "occlusion", "integrated_gradients", "gnl_integrated_gradients"])
def test_by_default_a_pixel_gives_way_to_the_mean_colour(name, images):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(1152, 4))
    model = PixelModel(network, mean=[0.9, 0.5, 0.2], std=[0.2] * 3)
    option = "baseline" if "baseline" in sl.METHODS.options(name) else "fill"
    mean, black = ({option: fill} for fill in (torch.tensor([0.9, 0.5, 0.2]).view(3, 1, 1), "black"))
    default = sl.METHODS[name](model, images, **quick(name))
    torch.testing.assert_close(default, sl.METHODS[name](model, images, **mean, **quick(name)))
    assert not torch.allclose(default, sl.METHODS[name](model, images, **black, **quick(name)))


def test_gradient_of_a_linear_model_is_its_weights(linear, images):
    maps = sl.METHODS["gradient"](linear, images, torch.tensor([0, 1, 2, 3, 0]))
    torch.testing.assert_close(maps, linear.weight.detach().abs().amax(1)[[0, 1, 2, 3, 0]])


def test_input_x_gradient_agrees_with_captum(smooth, images):
    targets = torch.tensor([0, 1, 2, 3, 0])
    expected = captum.attr.InputXGradient(smooth).attribute(images.clone().requires_grad_(), target=targets).sum(1)
    torch.testing.assert_close(sl.METHODS["input_x_gradient"](smooth, images, targets), expected.detach())


def test_smoothgrad_without_noise_is_the_gradient(smooth, images):
    torch.testing.assert_close(sl.METHODS["smoothgrad"](smooth, images, sigma=0.0), sl.METHODS["gradient"](smooth, images))
    squared = sl.METHODS["smoothgrad_squared"](smooth, images, sigma=0.0)
    torch.testing.assert_close(squared, sl.METHODS["gradient"](smooth, images).square())


def test_smoothgrad_of_a_quadratic_averages_the_noise_away(images):
    class Quadratic(nn.Module):
        def forward(self, inputs):
            return torch.stack([inputs.flatten(1).square().sum(1), inputs.flatten(1).sum(1)], 1)

    path = gaussian_ball(images[:1], 400, 0.1, 0, None)
    mean = path_gradient(Quadratic(), images[:1], torch.tensor([0]), path)
    spread = 0.1 * (images[0].max() - images[0].min())
    # the gradient at x + e is 2 (x + e): the mean of 400 draws lies within 5 standard errors of 2 x
    assert (mean - 2 * images[:1]).abs().max() < 5 * 2 * spread / 400**0.5
    squares = path_gradient(Quadratic(), images[:1], torch.tensor([0]), path, slope=lambda *known: class_slope(*known).square())
    expected = 4 * (images[:1].square() + spread**2)
    assert abs((squares - expected).mean()) < 0.02 * expected.mean()


@pytest.mark.parametrize("baseline", ["black", "white", 0.3, "blur"])
def test_integrated_gradients_agree_with_captum(baseline, smooth, images):
    targets = torch.tensor([3, 1, 2, 0, 1])
    fill = torch.tensor(baseline) if isinstance(baseline, float) else baseline
    from saliency_lib.core.fills import filled

    start = filled(fill, smooth, images)
    theirs = captum.attr.IntegratedGradients(smooth).attribute(
        images, start.contiguous(), targets, n_steps=50, method="gausslegendre"
    )
    ours = sl.METHODS["integrated_gradients"](smooth, images, targets, baseline=fill)
    torch.testing.assert_close(ours, theirs.sum(1).float(), rtol=1e-5, atol=1e-5)


def test_integrated_gradients_sum_to_the_output_difference(smooth, images):
    maps = sl.METHODS["integrated_gradients"](smooth, images, baseline="black")
    target = smooth(images).argmax(1, keepdim=True)
    change = (smooth(images) - smooth(torch.zeros_like(images))).gather(1, target)[:, 0]
    torch.testing.assert_close(maps.sum((1, 2)), change.detach(), rtol=1e-4, atol=1e-4)
    error = sl.completeness_error(smooth, images, maps, baseline="black")
    assert error.shape == (5,)
    assert error.max() < 1e-3
    with pytest.raises(ValueError, match="do not fit images"):
        sl.completeness_error(smooth, images, maps[:1])
    off = sl.completeness_error(smooth, images, maps + 1 / 256, baseline="black")
    torch.testing.assert_close(off, torch.ones(5), rtol=1e-2, atol=1e-2)


def test_more_steps_bring_integrated_gradients_closer_to_completeness(relu_net, images):
    relu_net.eval()
    errors = [
        sl.completeness_error(relu_net, images, sl.METHODS["integrated_gradients"](relu_net, images, steps=steps)).mean()
        for steps in (2, 200)
    ]
    assert errors[1] < errors[0] / 5


def test_integrated_gradients_of_a_linear_model_are_weight_times_difference(linear, images):
    maps = sl.METHODS["integrated_gradients"](linear, images, torch.full((5,), 2), steps=1, baseline="white")
    torch.testing.assert_close(maps, (linear.weight[2].detach() * (images - 1)).sum(1), rtol=1e-4, atol=1e-5)


def test_the_mean_fill_is_zero_in_normalised_space(images):
    class Normalised(nn.Module):
        pixel_mean = torch.tensor([0.2, 0.5, 0.7])

        def forward(self, inputs):
            return ((inputs - self.pixel_mean.view(-1, 1, 1)) / 0.3).flatten(2).square().sum(2)

    from saliency_lib.core.fills import filled

    assert Normalised()(filled("mean", Normalised(), images)).abs().max() == 0
    # sum of squares of the normalised pixels: its path integral from 0 is complete
    maps = sl.METHODS["integrated_gradients"](Normalised(), images, steps=2)
    torch.testing.assert_close(maps.sum((1, 2)), Normalised()(images).amax(1), rtol=1e-4, atol=1e-4)


def test_gradcam_by_hand():
    class OneLayer(nn.Module):
        """The feature maps are the input's channels; class 0 scores 3 * mean(A_0) - mean(A_1), class 1 nothing."""

        def __init__(self):
            super().__init__()
            self.features = nn.Identity()
            self.maps = nn.Sequential(nn.Identity())

        def forward(self, inputs):
            features = self.maps(inputs)
            means = features.mean((2, 3))
            return torch.stack([3 * means[:, 0] - means[:, 1], 0 * means[:, 0]], 1)

    images = torch.tensor([[[1.0, 0.0], [0.5, 0.2]], [[0.0, 0.9], [0.9, 0.9]]])[None]
    expected = (0.75 * images[0, 0] - 0.25 * images[0, 1]).relu()  # d score / d A_k is 3/4 and -1/4 everywhere
    torch.testing.assert_close(sl.METHODS["gradcam"](OneLayer(), images, torch.tensor([0]), layer="maps")[0], expected)


@pytest.mark.parametrize(
    ("weighting", "peer"),
    [("mean", "GradCAM"), ("plus_plus", "GradCAMPlusPlus"), ("elementwise", "HiResCAM"), ("positive", "LayerCAM")],
)
def test_the_weightings_of_gradcam_are_those_of_pytorch_grad_cam(weighting, peer, relu_net, images):
    pytorch_grad_cam = pytest.importorskip("pytorch_grad_cam")
    targets = torch.zeros(len(images), dtype=torch.long)
    with torch.no_grad():
        relu_net[9].weight.mul_(300)  # the peer adds 1e-6 to a denominator, which must not count
    leaf = relu_net.eval()[:6](images).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(relu_net[6:](leaf)[:, 0].sum(), leaf)
    features, gradient = leaf.detach().numpy(), gradient.numpy()
    theirs = getattr(pytorch_grad_cam, peer)(relu_net, [relu_net[5]])
    small = theirs.get_cam_image(images, relu_net[5], None, features, gradient, False)
    expected = torch.nn.functional.interpolate(torch.from_numpy(small)[:, None].relu(), images.shape[2:], mode="bilinear")[:, 0]
    found = sl.METHODS["gradcam"](relu_net, images.detach(), targets, layer="5", weighting=weighting)
    torch.testing.assert_close(found, expected.to(found), rtol=1e-3, atol=1e-5 * float(expected.max()))


def test_gradcam_takes_a_module_or_a_name_and_lists_the_candidates(relu_net, images):
    by_name = sl.METHODS["gradcam"](relu_net, images, layer="5")
    torch.testing.assert_close(sl.METHODS["gradcam"](relu_net, images, layer=relu_net[5]), by_name)
    torch.testing.assert_close(sl.METHODS["gradcam"](relu_net, images), by_name)  # the last but the adaptive pool
    with pytest.raises(ValueError, match=r"layer with features at positions 'layer4' is not known; one of: 0, 1, 2, 3, 4, 5"):
        sl.METHODS["gradcam"](relu_net, images, layer="layer4")
    with pytest.raises(ValueError, match="is not a module of this model"):
        sl.METHODS["gradcam"](relu_net, images, layer=nn.ReLU())


def test_gradcam_takes_the_last_use_of_a_layer_that_is_used_twice(images):
    class Net(nn.Module):
        def __init__(self, again):
            super().__init__()
            torch.manual_seed(0)
            self.one, self.two, self.act = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 4, 3), nn.ReLU(inplace=True)
            self.last = self.act if again else nn.ReLU(inplace=True)

        def forward(self, inputs):
            return self.last(self.two(self.act(self.one(inputs)))).square().mean((2, 3))

    twice = sl.METHODS["gradcam"](Net(again=True), images, layer="act")
    torch.testing.assert_close(twice, sl.METHODS["gradcam"](Net(again=False), images, layer="last"))


class Pair(nn.Module):
    def forward(self, inputs):
        return inputs, inputs


class Branched(nn.Module):
    """One layer leads nowhere, another gives two tensors."""

    def __init__(self):
        super().__init__()
        self.side, self.pair, self.main = nn.Conv2d(3, 4, 3), Pair(), nn.Conv2d(3, 4, 3)

    def forward(self, inputs):
        self.side(inputs)
        return self.main(self.pair(inputs)[0]).mean((2, 3))


def test_gradcam_refuses_a_layer_without_positions(images):
    branched = Branched()
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(784, 3))
    with pytest.raises(ValueError, match=r"features at positions, .*got \(5, 3\)"):
        sl.METHODS["gradcam"](model, images, layer=model[2])
    with pytest.raises(ValueError, match="does not depend on the layer"):
        sl.METHODS["gradcam"](branched, images, layer="side")
    with pytest.raises(ValueError, match="must be a tensor, got tuple"):
        sl.METHODS["gradcam"](branched, images, layer=branched.pair)
    with pytest.raises(ValueError, match="no layer of this model has features at positions"):
        sl.METHODS["gradcam"](nn.Sequential(nn.Flatten(), nn.Linear(768, 3)), images)


def test_edges_agree_with_scikit_image(images):
    ours = sl.METHODS["edges"](None, images).numpy()
    theirs = np.stack([skimage.filters.sobel(image.mean(0).numpy(), mode="nearest") for image in images])
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    assert sl.METHODS["edges"](None, torch.full((1, 3, 9, 9), 0.7)).abs().max() < 1e-6


def test_random_maps_are_uniform():
    maps = sl.METHODS["random"](None, torch.zeros(20, 1, 32, 32))
    assert maps.min() >= 0 and maps.max() < 1
    assert abs(maps.mean() - 0.5) < 5 * (1 / 12) ** 0.5 / maps.numel() ** 0.5
    assert len(maps.flatten().unique()) > 0.99 * maps.numel()


@pytest.mark.parametrize(("window", "stride"), [(4, 2), (5, 3), (16, 16), (1, 1)])
def test_occlusion_agrees_with_captum(window, stride, smooth, images):
    targets = torch.tensor([0, 1, 2, 3, 0])
    theirs = captum.attr.Occlusion(smooth).attribute(
        images, sliding_window_shapes=(3, window, window), strides=(3, stride, stride), target=targets, baselines=0.5
    )
    ours = sl.METHODS["occlusion"](smooth, images, targets, window=window, stride=stride, fill="grey", score="logit")
    torch.testing.assert_close(ours, theirs[:, 0].float(), rtol=1e-4, atol=1e-5)


def test_occlusion_of_a_linear_model_by_hand():
    weight = torch.zeros(2, 1, 4, 4)
    weight[0, 0, 1, 2] = 2.0
    maps = sl.METHODS["occlusion"](
        Linear(weight), torch.ones(1, 1, 4, 4), torch.tensor([0]), window=1, stride=1, fill="black", score="logit"
    )
    torch.testing.assert_close(maps[0], weight[0, 0])  # taking the one pixel that counts away costs 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 17}, "window must be from 1 to 16"),
        ({"window": 4, "stride": 5}, "stride must be from 1 to 4, the window"),
        ({"window": 4, "fill": "gray"}, "fill of .* 'gray' is not known; did you mean 'grey'"),
        ({"window": 4, "fill": torch.zeros(7)}, r"fill \(7,\) does not broadcast"),
        ({"window": 4, "score": "loss"}, "score of .* 'loss' is not known"),
        ({"window": 4, "batch_size": 0}, "batch_size of .* must be a whole number of at least 1"),
    ],
)
def test_bad_options_of_occlusion_are_refused(options, message, smooth, images):
    with pytest.raises(ValueError, match=message):
        sl.METHODS["occlusion"](smooth, images, **options)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("integrated_gradients", {"steps": 0}, "steps of .* must be a whole number from 1 to .*"),
        ("smoothgrad", {"samples": 2.5}, "samples of .* must be a whole number from 1 to .*"),
        ("smoothgrad", {"sigma": -1}, "sigma of .* must be a number of at least 0"),
        ("gradient", {"reduction": "median"}, "reduction of .* 'median' is not known"),
        ("random", {"indices": torch.tensor([1])}, "indices must be 5 whole numbers, one per image, got"),
    ],
)
def test_bad_options_are_refused(name, options, message, smooth, images):
    with pytest.raises(ValueError, match=message):
        sl.METHODS[name](smooth, images, **options)


def test_a_model_without_logits_is_refused(images):
    with pytest.raises(ValueError, match="must return logits"):
        sl.METHODS["gradient"](nn.Conv2d(3, 4, 3), images)


def test_a_point_path_is_the_image(images):
    path = point(images)
    assert torch.equal(path.at(torch.tensor([2]), torch.tensor([0])), images[2:3])
    assert path.weights.tolist() == [1]
