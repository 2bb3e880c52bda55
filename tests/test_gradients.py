"""Backward attribution beyond the plain gradient, each method against an oracle: PAG, guided rule, DeepLIFT, adaptive paths."""

import warnings

import captum.attr
import numpy as np
import pytest
import saliency.core
import torch
import torch.nn.functional as F
import torchvision
from conftest import Linear, quick
from torch import nn

import saliency_lib as sl
from saliency_lib.attribution import backward
from saliency_lib.attribution.rules import guided
from saliency_lib.core.batching import arranged, frozen
from saliency_lib.core.fills import filled

FIVE = ("gradient", "positive_gradient", "negative_gradient", "active_gradient", "inactive_gradient")


def values(maps: torch.Tensor) -> torch.Tensor:
    """A reduction that keeps the channels, so that a test sees all."""
    return maps


# PAG.


def test_the_five_maps_of_a_linear_model_are_known_in_closed_form(linear, images):
    weight = linear.weight.detach()
    target = 2
    others = weight[[0, 1, 3]]
    active, inactive = weight[target] > others.amax(0), weight[target] < others.amin(0)
    expected = {
        "gradient": weight[target].abs(),
        "positive_gradient": weight[target].relu(),
        "negative_gradient": (-weight[target]).relu(),
        "active_gradient": weight[target].abs() * active,
        "inactive_gradient": weight[target].abs() * inactive,
    }
    maps = sl.gradient_maps(linear, images, torch.full((5,), target))
    for name, value in expected.items():
        torch.testing.assert_close(maps[name], value.amax(0).expand(5, 16, 16))
        assert torch.equal(maps[name], sl.METHODS[name](linear, images, torch.full((5,), target)))
    signed = sl.gradient_maps(linear, images, torch.full((5,), target), signed=True)
    torch.testing.assert_close(signed["active_gradient"][0], (weight[target] * active).amax(0))
    torch.testing.assert_close(signed["inactive_gradient"][0], (weight[target] * inactive).amax(0))
    assert torch.equal(signed["positive_gradient"], maps["positive_gradient"])


def five_maps_by_separate_passes(model, images, targets, classes):
    """PAG's maps as they are defined: a forward and a backward pass for every class."""

    def slope(chosen):
        inputs = arranged(images).requires_grad_()
        return torch.autograd.grad(model(inputs).gather(1, chosen[:, None]).sum(), inputs)[0]

    own = slope(targets)
    above, below = torch.ones_like(own, dtype=torch.bool), torch.ones_like(own, dtype=torch.bool)
    for label in range(classes):
        other = slope(torch.full_like(targets, label))
        rival = (targets != label).view(-1, 1, 1, 1)
        above &= (own > other) | ~rival
        below &= (own < other) | ~rival
    parts = (own.abs(), own.relu(), (-own).relu(), own.abs() * above, own.abs() * below)
    return dict(zip(FIVE, (part.amax(1) for part in parts), strict=True))


@pytest.mark.parametrize("name", ["cnn", "cifar_resnet9"])
def test_five_maps_together_have_the_bits_of_separate_passes(name):
    torch.manual_seed(0)
    model, images = sl.MODELS[name](classes=10), torch.rand(6, 3, 32, 32)
    with frozen(model):
        targets = model(images).argmax(1)
        expected = five_maps_by_separate_passes(model, images, targets, 10)
    maps = sl.gradient_maps(model, images, targets)
    assert list(maps) == list(FIVE)
    for kind in FIVE:
        assert torch.equal(maps[kind], expected[kind]), kind
        assert maps[kind].max() > 0


def test_five_maps_take_one_forward_pass_and_one_backward_pass_a_class(smooth, images, monkeypatch):
    passes = {"forward": 0, "backward": 0}
    derive = torch.autograd.grad

    def counted(*args, **options):
        passes["backward"] += 1
        return derive(*args, **options)

    monkeypatch.setattr(torch.autograd, "grad", counted)
    smooth.register_forward_hook(lambda *_: passes.update(forward=passes["forward"] + 1))
    sl.gradient_maps(smooth, images, torch.tensor([0, 1, 2, 3, 0]))
    assert passes == {"forward": 1, "backward": 4}


def test_positive_and_negative_add_up_and_active_and_inactive_do_not_meet(smooth, images):
    slopes = backward.path_gradient(smooth, images, None, backward.point(images), slope=backward.slopes_of_all_classes)
    own = slopes[:, 0]
    torch.testing.assert_close(own.relu() + (-own).relu(), own.abs())
    active, inactive = backward.where_active(slopes) != 0, backward.where_inactive(slopes) != 0
    assert active.any() and inactive.any() and not (active & inactive).any()


def test_of_two_classes_the_inactive_part_is_what_is_not_active(images):
    weight = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    weight[1, 0, 0, 0] = weight[0, 0, 0, 0]  # a tie belongs to neither
    slope = backward.slopes_of_all_classes
    slopes = backward.path_gradient(Linear(weight), images, torch.zeros(5).long(), backward.point(images), slope=slope)
    active, inactive = backward.where_active(slopes)[0], backward.where_inactive(slopes)[0]
    assert active[0, 0, 0] == inactive[0, 0, 0] == 0
    torch.testing.assert_close(active + inactive, weight[0].index_put((torch.tensor(0),) * 3, torch.tensor(0.0)))


def test_classes_limits_the_comparison_to_the_likeliest(linear, images):
    targets = torch.zeros(5).long()
    rivals = linear(images)[:, 1:].argsort(dim=1, descending=True) + 1
    weight = linear.weight.detach()
    maps = sl.METHODS["active_gradient"](linear, images, targets, classes=2)
    for row in range(5):
        expected = (weight[0].abs() * (weight[0] > weight[rivals[row, 0]])).amax(0)
        torch.testing.assert_close(maps[row], expected)
    every = sl.METHODS["active_gradient"](linear, images, targets)
    assert torch.equal(sl.METHODS["active_gradient"](linear, images, targets, classes=9), every)
    with pytest.raises(ValueError, match=r"classes of .* must be a whole number of at least 1"):
        sl.METHODS["active_gradient"](linear, images, targets, classes=0)


def test_one_class_and_dead_units_give_maps_without_nan(images):
    alone = Linear(torch.randn(1, 3, 16, 16))
    maps = sl.gradient_maps(alone, images)
    torch.testing.assert_close(maps["active_gradient"], maps["gradient"])  # no class gains as much: there is none
    dead = nn.Sequential(nn.Flatten(), nn.Linear(768, 4), nn.ReLU())
    nn.init.constant_(dead[1].bias, -100.0)
    assert all(value.abs().max() == 0 for value in sl.gradient_maps(dead, images).values())


# The guided rule.


def assert_same(one, other):
    """Equal up to rounding in float64, however small the values are as a whole."""
    assert other.abs().max() > 0
    torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9 * float(other.abs().max()))


def gate(module, gradients, outer):
    """The released rule for a pool, given the gradients of its inputs and outputs."""
    opened = F.interpolate((outer[0] > 0).to(outer[0].dtype), size=gradients[0].shape[2:], mode="nearest")
    return (gradients[0] * opened,)


def reference_guided(network, inputs, target, pool_rule="exact"):
    """The guided gradient by another mechanism: hooks on modules that work out of place, around their backward pass."""
    handles = []
    for module in network.modules():
        if isinstance(module, nn.MaxPool2d) and pool_rule == "released":
            handles.append(module.register_full_backward_hook(gate))
        elif isinstance(module, (nn.ReLU, nn.ReLU6, nn.MaxPool2d)):
            module.inplace = False
            handles.append(module.register_full_backward_pre_hook(lambda module, gradients: (gradients[0].clamp(min=0),)))
    inputs = inputs.clone().requires_grad_()
    gradient = torch.autograd.grad(network(inputs)[:, target].sum(), inputs)[0]
    for handle in handles:
        handle.remove()
    return gradient


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "vgg11", "mobilenet_v2", "squeezenet1_1", "shufflenet_v2_x0_5"])
def test_torchvisions_networks_are_guided_as_they_are(name):
    torch.manual_seed(0)
    network = torchvision.models.get_model(name, weights=None).eval().double()
    inputs = torch.rand(2, 3, 64, 64, dtype=torch.float64, requires_grad=True)
    true = torch.autograd.grad(network(inputs)[:, 1].sum(), inputs)[0]
    for pool_rule in ("exact", "released"):
        with frozen(network), guided(network, pool_rule):
            logits = network(inputs)
        ours = torch.autograd.grad(logits[:, 1].sum(), inputs)[0]
        assert_same(ours, reference_guided(network, inputs.detach(), 1, pool_rule))
        assert (ours - true).abs().max() > 0.01 * true.abs().max()


def test_googlenets_functional_units_are_guided(monkeypatch):
    torch.manual_seed(0)
    network = torchvision.models.googlenet(weights=None, init_weights=True, aux_logits=False).eval().double()
    images = torch.rand(2, 3, 64, 64, dtype=torch.float64)
    ours = {}
    for pool_rule in ("exact", "released"):
        options = dict(pool_rule=pool_rule, reduction=values)
        ours[pool_rule] = sl.METHODS["guided_backprop"](network, images, torch.tensor([1, 1]), **options)

    class Positive(torch.autograd.Function):
        @staticmethod
        def forward(ctx, z):
            ctx.save_for_backward(z)
            return z.clamp(min=0)

        @staticmethod
        def backward(ctx, gradient):
            return gradient.clamp(min=0) * (ctx.saved_tensors[0] > 0)

    monkeypatch.setattr(F, "relu", lambda z, inplace=False: Positive.apply(z))
    for pool_rule, maps in ours.items():  # its pools have ceil_mode, and some the stride 1
        assert_same(maps, reference_guided(network, images, 1, pool_rule))
    assert (ours["exact"] - ours["released"]).abs().max() > 0.01 * ours["exact"].abs().max()


def test_the_guided_rule_agrees_with_captum_without_pools(images):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(1152, 4))
    targets = torch.tensor([0, 1, 2, 3, 0])
    theirs = captum.attr.GuidedBackprop(network).attribute(images.clone().requires_grad_(), target=targets)
    ours = sl.METHODS["guided_backprop"](network, images, targets, reduction=values)
    torch.testing.assert_close(ours, theirs)


def test_one_hidden_layer_under_the_guided_rule_by_hand():
    # h = ReLU(2 x, x - 1, -x + 3), f = h_1 - h_2 + 2 h_3 at x = 2: h = (4, 1, 1); true slope 2 - 1 - 2 = -1,
    # guided: h_2 receives -1, which does not pass; 2 - 2 = 0
    first, last = nn.Linear(1, 3), nn.Linear(3, 1, bias=False)
    first.weight.data, first.bias.data = torch.tensor([[2.0], [1.0], [-1.0]]), torch.tensor([0.0, -1.0, 3.0])
    last.weight.data = torch.tensor([[1.0, -1.0, 2.0]])
    network = nn.Sequential(nn.Flatten(), first, nn.ReLU(), last)
    image = torch.full((1, 1, 1, 1), 2.0)
    assert sl.METHODS["gradient"](network, image, reduction="sum").item() == -1
    assert sl.METHODS["guided_backprop"](network, image, reduction="sum").item() == 0
    # from 0 to 2: h_2 is closed below 1 and its slope does not count above: 2 - 2 = 0 all the way; plain: 0 below, -1 above
    assert sl.METHODS["gnl_integrated_gradients"](network, image, baseline="black").item() == pytest.approx(0, abs=1e-6)
    plain = sl.METHODS["integrated_gradients"](network, image, baseline="black", steps=500).item()
    assert plain == pytest.approx(-1, abs=1e-2)  # f(2) - f(0) = (4 - 1 + 2) - 6


def test_relu6_passes_nothing_beyond_six():
    network = nn.Sequential(nn.Flatten(), nn.ReLU6())
    image = torch.tensor([[[[3.0, 7.0, -1.0]]]])
    for target, expected in enumerate((1, 0, 0)):
        maps = sl.METHODS["guided_backprop"](network, image, torch.tensor([target]), reduction="sum")
        assert maps[0, 0, target] == expected


def positive_network():
    torch.manual_seed(5)
    network = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.Conv2d(6, 6, 3), nn.ReLU(), nn.Flatten())
    network.append(nn.Linear(6 * 5 * 5, 4))
    for parameter in network.parameters():
        parameter.data.abs_()
    return network.double()


@pytest.mark.parametrize("pool_rule", ["exact", "released"])
def test_with_positive_weights_alone_gnl_is_integrated_gradients(pool_rule, images):
    network, images = positive_network(), images.double()
    ours = sl.METHODS["gnl_integrated_gradients"](network, images, pool_rule=pool_rule)
    plain = sl.METHODS["integrated_gradients"](network, images)
    torch.testing.assert_close(ours, plain)


@pytest.mark.parametrize(("window", "stride", "padding", "same"), [(2, 2, 0, True), (3, 2, 1, False), (3, 1, 1, False)])
def test_the_two_pool_rules_agree_on_windows_that_do_not_overlap(window, stride, padding, same):
    torch.manual_seed(1)
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.MaxPool2d(window, stride, padding), nn.Flatten(), nn.LazyLinear(3))
    network, images = network.double(), torch.rand(2, 3, 16, 16, dtype=torch.float64)
    network(images)
    exact, released = (
        sl.METHODS["guided_backprop"](network, images, pool_rule=rule, reduction=values) for rule in ("exact", "released")
    )
    assert torch.allclose(exact, released) == same


def test_the_released_pool_rule_by_hand():
    # a pool of 3, stride 2, padding 1 over a 4x4 image; the gradient of each of the 2x2 outputs is the linear layer's weight
    weight = torch.tensor([[1.0, -2.0, 3.0, -4.0]])
    network = nn.Sequential(nn.MaxPool2d(3, 2, 1), nn.Flatten(), nn.Linear(4, 1, bias=False))
    network[2].weight.data = weight
    image = torch.arange(16.0).view(1, 1, 4, 4)  # the maxima are at 5, 7, 13, 15
    plain = torch.zeros(16).index_put((torch.tensor([5, 7, 13, 15]),), weight[0])
    gate = torch.tensor([[1.0, 0.0], [1.0, 0.0]]).repeat_interleave(2, 0).repeat_interleave(2, 1).flatten()
    maps = sl.METHODS["guided_backprop"](network, image, pool_rule="released", reduction="sum")
    torch.testing.assert_close(maps.flatten(), plain * gate)


def test_the_rule_leaves_nothing_behind(images):
    torch.manual_seed(0)
    network = torchvision.models.resnet18(num_classes=4).eval()
    before = sl.METHODS["integrated_gradients"](network, images, steps=4)
    under = sl.METHODS["gnl_integrated_gradients"](network, images, steps=4)
    after = sl.METHODS["integrated_gradients"](network, images, steps=4)
    assert torch.equal(before, after) and not torch.equal(before, under)
    assert all(not module._backward_hooks and not module._forward_hooks for module in network.modules())


def test_smoothgrad_without_noise_under_the_rule_is_guided_backprop(relu_net, images):
    smoothed = sl.METHODS["guided_smoothgrad"](relu_net, images, sigma=0.0, samples=3)
    torch.testing.assert_close(smoothed, sl.METHODS["guided_backprop"](relu_net, images))


class Function(nn.Module):
    """A network whose unit is a function."""

    def __init__(self, unit):
        super().__init__()
        self.first, self.last, self.unit = nn.Linear(48, 9), nn.Linear(9, 3), unit

    def forward(self, images):
        return self.last(self.unit(self.first(images.flatten(1))))


@pytest.mark.parametrize(
    "unit",
    [
        torch.relu,
        lambda z: z.relu(),
        lambda z: z.relu_(),
        lambda z: z.clamp(min=0),
        lambda z: torch.clamp(z, 0),
        lambda z: F.relu_(z),
    ],
    ids=["torch.relu", "relu", "relu_", "clamp", "torch.clamp", "F.relu_"],
)
def test_a_relu_is_guided_however_it_is_written(unit):
    torch.manual_seed(0)
    network, images = Function(F.relu), torch.rand(3, 3, 4, 4)
    expected = sl.METHODS["guided_backprop"](network, images)
    network.unit = unit
    torch.testing.assert_close(sl.METHODS["guided_backprop"](network, images), expected)


def test_a_softplus_is_guided_by_hand_and_as_a_relu_where_it_is_sharp():
    torch.manual_seed(0)
    layers, images = [nn.Linear(48, 9), nn.Linear(9, 7), nn.Linear(7, 4)], torch.rand(3, 3, 4, 4, dtype=torch.float64)

    def network(unit):
        return nn.Sequential(nn.Flatten(), layers[0], unit, layers[1], unit, layers[2]).double()

    inputs = images.clone().requires_grad_()
    with sl.guided(network(nn.Softplus(beta=3))):
        network(nn.Softplus(beta=3))(inputs)[:, 1].sum().backward()
    first = layers[0](images.flatten(1))
    second = layers[1](F.softplus(first, 3))
    gradient = layers[2].weight[1].clamp(min=0) * torch.sigmoid(3 * second)
    gradient = (gradient @ layers[1].weight).clamp(min=0) * torch.sigmoid(3 * first)
    torch.testing.assert_close(inputs.grad.flatten(1), (gradient @ layers[0].weight).detach())
    sharp, relu = (sl.METHODS["gnl_integrated_gradients"](network(unit), images) for unit in (nn.Softplus(beta=1e6), nn.ReLU()))
    torch.testing.assert_close(sharp, relu, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("units", "changed", "message"),
    [
        ((), None, "found no unit"),
        ((nn.ELU(),), None, "also has elu; use a network of ReLUs"),
        ((nn.ReLU(), nn.GELU()), None, "also has gelu; use a network of ReLUs"),
        ((nn.ReLU(), nn.Hardtanh()), None, "also has hardtanh; use a network of ReLUs"),
        ((nn.ReLU(),), lambda network: torch.jit.trace(network, torch.rand(1, 3, 16, 16)), "scripted or comp"),
        ((nn.ReLU(),), lambda network: torch.compile(network), "scripted or compiled"),  # its import takes seconds
    ],
)
@pytest.mark.parametrize("method", ["guided_backprop", "gnl_integrated_gradients"])
def test_a_network_that_would_not_be_guided_is_refused(method, units, changed, message, images):
    network = nn.Sequential(nn.Flatten(), nn.Linear(768, 3), *units)
    with pytest.raises(ValueError, match=message):
        sl.METHODS[method](changed(network) if changed else network, images)


def test_an_unknown_pool_rule_is_refused(relu_net, images):
    with pytest.raises(ValueError, match=r"pool_rule of .* 'exakt' is not known; did you mean 'exact'"):
        sl.METHODS["gnl_integrated_gradients"](relu_net, images, pool_rule="exakt")


# Combinations that no paper has.


def test_active_integrated_gradients_of_a_linear_model_by_hand(linear, images):
    weight = linear.weight.detach()
    active = weight[1] * (weight[1] > weight[[0, 2, 3]].amax(0))
    maps = sl.METHODS["active_integrated_gradients"](linear, images, torch.ones(5).long(), baseline="grey", steps=3)
    torch.testing.assert_close(maps, ((images - 0.5) * active).sum(1), rtol=1e-4, atol=1e-5)


def test_active_smoothgrad_without_noise_is_the_active_gradient(smooth, images):
    smoothed = sl.METHODS["active_smoothgrad"](smooth, images, sigma=0.0, samples=2)
    torch.testing.assert_close(smoothed, sl.METHODS["active_gradient"](smooth, images))


# Expected gradients, DeepLIFT, the adaptive path.


def test_gradient_shap_of_a_linear_model_is_weight_times_the_mean_distance(linear, images):
    maps = sl.METHODS["gradient_shap"](linear, images, torch.full((5,), 3), samples=400, reduction=values)
    weight = linear.weight.detach()[3]
    spread = weight.abs() * (1 / 12 + 0.09**2) ** 0.5 / 400**0.5
    assert ((maps - weight * (images - 0.5)).abs() < 6 * spread).all()


@pytest.mark.slow
def test_gradient_shap_agrees_with_captum_in_the_mean(smooth, images):
    targets = torch.tensor([0, 1, 2, 3, 0])
    ours = sl.METHODS["gradient_shap"](smooth, images, targets, samples=1500)
    torch.manual_seed(0)
    baselines = torch.rand(3000, 3, 16, 16)
    theirs = captum.attr.GradientShap(smooth).attribute(images, baselines, n_samples=1500, stdevs=0.09, target=targets).sum(1)
    for one, other in zip(ours.flatten(1), theirs.detach().flatten(1), strict=True):
        assert torch.corrcoef(torch.stack([one, other]))[0, 1] > 0.99
    torch.testing.assert_close(ours.sum((1, 2)), theirs.detach().sum((1, 2)).float(), rtol=0, atol=0.02)


def pooled_network(between=True):
    """Convolutions with element-wise units and max-pools; captum is right only where a linear layer stands between these."""
    torch.manual_seed(7)
    features = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.Softplus()]
    head = [nn.MaxPool2d(4), nn.Flatten(), nn.Linear(128, 16), nn.Tanh(), nn.Linear(16, 4)]
    return nn.Sequential(*features, *([nn.Conv2d(8, 8, 1)] if between else []), *head).double()


@pytest.mark.parametrize("baseline", ["blur", "noise"])  # of one colour, a window's maximum is a tie, which a rounding decides
def test_deeplift_agrees_with_captum(baseline, images):
    network, images, targets = pooled_network(), images.double(), torch.tensor([0, 1, 2, 3, 0])
    ours = sl.METHODS["deeplift"](network, images, targets, baseline=baseline)
    theirs = sl.METHODS["deeplift"](network, images, targets, baseline=baseline, backend="captum")
    with pytest.warns(UserWarning, match=r"is not complete for \d of 5 images"):  # wrong if a unit feeds a pool directly
        sl.METHODS["deeplift"](pooled_network(between=False), images, targets, baseline=baseline, backend="captum")
    torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-12)
    assert sl.completeness_error(network, images, ours, targets, baseline=baseline).max() < 1e-12
    with pytest.raises(ValueError, match=r"backend of .* 'captun' is not known; did you mean 'captum'"):
        sl.METHODS["deeplift"](network, images, targets, backend="captun")


@pytest.mark.parametrize(
    "unit",
    [nn.Hardtanh(), nn.Tanh(), nn.Hardswish(), F.relu_, torch.tanh_, torch.sigmoid_, lambda z: z.clamp(-0.1, 0.1), torch.abs],
)
def test_deeplift_is_complete_for_any_activation(unit):
    torch.manual_seed(0)
    network, images = Function(unit).double(), torch.rand(3, 3, 4, 4, dtype=torch.float64)
    maps = sl.METHODS["deeplift"](network, images, baseline="white")
    assert sl.completeness_error(network, images, maps, baseline="white").max() < 1e-12


def test_deeplift_knows_what_a_unit_in_place_leaves_behind():
    class Reused(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last, self.keep = nn.Linear(48, 9), nn.Linear(9, 3), True

        def forward(self, images):
            z = self.first(images.flatten(1))
            y = F.relu(z, inplace=True)
            return self.last(3 * y + z if self.keep else z)  # z has become y

    torch.manual_seed(0)
    network, images = Reused().double(), torch.rand(3, 3, 4, 4, dtype=torch.float64)
    for network.keep in (True, False):
        maps = sl.METHODS["deeplift"](network, images, baseline="white")
        assert sl.completeness_error(network, images, maps, baseline="white").max() < 1e-12


@pytest.mark.parametrize("name", ["resnet18", "googlenet", "squeezenet1_1", "mobilenet_v2", "efficientnet_lite0"])
def test_deeplift_is_complete_on_networks_that_captum_refuses_or_mistakes(name):
    torch.manual_seed(0)
    model = sl.MODELS[name](classes=5).double()
    images = torch.rand(2, 3, 40, 40, dtype=torch.float64)
    maps = sl.METHODS["deeplift"](model, images, torch.tensor([1, 2]), baseline="black")
    change = (model.eval()(images) - model(torch.zeros_like(images)))[[0, 1], [1, 2]].abs()
    assert (sl.completeness_error(model, images, maps, torch.tensor([1, 2]), baseline="black") <= 1e-9 * change + 1e-15).all()


class Gated(nn.Module):
    """The first class is the product of two features, which the rule passes by its derivative at the image."""

    def __init__(self):
        super().__init__()
        self.relu = nn.ReLU()

    def forward(self, images):
        one, two, three = self.relu(images).sum((2, 3)).unbind(1)
        return torch.stack([one * two, three], 1)


@pytest.mark.parametrize("reduction", ["sum", "max_abs"])
def test_deeplift_says_by_how_much_a_product_of_features_is_incomplete(reduction):
    # from 0 to a and b, the product changes by a b, and the shares b * a + a * b are twice that: an error of 100 %
    images = 0.1 + 0.9 * torch.rand(3, 3, 4, 4)
    said = "DeepLIFT is not complete for 3 of 3 images: .* miss the change of the score by up to 100% of it"
    with pytest.warns(UserWarning, match=said) as caught:
        maps = sl.METHODS["deeplift"](Gated(), images, torch.tensor([0, 0, 0]), baseline="black", reduction=reduction)
    assert [warning.filename for warning in caught] == [__file__]
    if reduction == "sum":
        one, two, _ = images.sum((2, 3)).unbind(1)
        torch.testing.assert_close(maps.sum((1, 2)), 2 * one * two)
    with pytest.warns(UserWarning, match="is not complete for 1 of 3 images"):
        sl.METHODS["deeplift"](Gated(), images, torch.tensor([1, 0, 1]), baseline="black", batch_size=2)


def test_deeplift_shap_says_by_how_much_it_is_incomplete():
    images = 0.9 + torch.rand(2, 3, 4, 4) / 10  # far from the noise, so that the error is large
    draws = backward.noise_images(images, 0, None)
    one, two, _ = images.sum((2, 3)).unbind(1)
    shares, change = torch.zeros(2), torch.zeros(2)
    for draw in range(3):
        a, b, _ = draws(torch.arange(2), torch.full((2,), draw)).sum((2, 3)).unbind(1)
        shares += ((one - a) * two + (two - b) * one) / 3
        change += (one * two - a * b) / 3
    error = ((shares - change).abs() / change.abs()).max()
    assert error > 0.05
    with pytest.warns(UserWarning, match=rf"for [12] of 2 images: .* by up to {error:.0%} of it"):
        sl.METHODS["deeplift_shap"](Gated(), images, torch.zeros(2).long(), samples=3, batch_size=4)


@pytest.mark.parametrize("name", ["convnext", "swin"])
def test_deeplift_warns_on_networks_that_normalise_over_features(name):
    torch.manual_seed(0)
    blocks = torchvision.models.convnext.CNBlockConfig
    network = {
        "convnext": lambda: torchvision.models.ConvNeXt([blocks(8, 16, 1), blocks(16, None, 1)], layer_scale=1.0, num_classes=3),
        "swin": lambda: torchvision.models.SwinTransformer([4, 4], 8, [2], [2], [4, 4], num_classes=3),
    }[name]()
    images, targets = torch.rand(4, 3, 32, 32), torch.zeros(4).long()
    with pytest.warns(UserWarning, match="DeepLIFT is not complete"):
        maps = sl.METHODS["deeplift"](network, images, targets, baseline="black")
    with frozen(network):
        change = (network(images) - network(0 * images))[:, 0]
    assert ((maps.sum((1, 2)) - change).abs() > 0.05 * change.abs()).any()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cnn", "cifar_resnet9", "resnet18", "squeezenet1_1", "efficientnet_lite0", "googlenet"])
@pytest.mark.parametrize("method", ["deeplift", "deeplift_shap"])
def test_deeplift_does_not_warn_where_it_is_complete(name, method):
    torch.manual_seed(0)
    images = torch.rand(2, 3, 64, 64)
    images[1] = filled("mean", sl.MODELS[name](classes=5), images)[1]  # the baseline of deeplift itself: nothing changes
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sl.METHODS[method](sl.MODELS[name](classes=5), images, **({"samples": 2} if method == "deeplift_shap" else {}))


def test_deeplift_shap_agrees_with_captum_on_the_same_baselines(images):
    network, images, targets = pooled_network(), images[:2].double(), torch.tensor([3, 1])
    ours = sl.METHODS["deeplift_shap"](network, images, targets, samples=6)
    draws = backward.noise_images(images, 0, None)
    for row in range(2):
        noise = draws(torch.full((6,), row), torch.arange(6))
        theirs = captum.attr.DeepLiftShap(network).attribute(images[row : row + 1], noise, target=targets[row : row + 1]).sum(1)
        torch.testing.assert_close(ours[row], theirs[0].detach(), rtol=1e-7, atol=1e-12)


def test_deeplift_refuses_units_that_mix_features():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.mix, self.last = nn.MultiheadAttention(3, 1, batch_first=True), nn.Linear(3, 2)

        def forward(self, images):
            tokens = images.flatten(2).transpose(1, 2)
            return self.last(self.mix(tokens, tokens, tokens)[0].mean(1).relu())

    with pytest.raises(ValueError, match="does not support multi_head_attention_forward"):
        sl.METHODS["deeplift"](Attention(), torch.rand(1, 3, 4, 4))
    with pytest.raises(ValueError, match="found no unit"):
        sl.METHODS["deeplift"](nn.Sequential(nn.Flatten(), nn.Linear(48, 2)), torch.rand(1, 3, 4, 4))


@pytest.mark.parametrize(("fraction", "band"), [(0.25, 0.02), (0.1, 0.2), (1.0, 0.05)])
def test_the_adaptive_path_agrees_with_pairs_own_code(fraction, band, smooth, images, monkeypatch):
    quantile = np.quantile
    monkeypatch.setattr(
        np, "quantile", lambda a, q, interpolation: quantile(a, q, method=interpolation)
    )  # its name until NumPy 2
    smooth, images = smooth.double(), images[:2].double()
    options = dict(steps=30, fraction=fraction, band=band, baseline="grey", reduction=values)
    ours = sl.METHODS["guided_path_integrated_gradients"](smooth, images, torch.tensor([2, 0]), **options)

    for row, target in enumerate((2, 0)):

        def slope(batch, call_model_args=None, expected_keys=None, target=target):
            inputs = torch.tensor(batch).movedim(-1, 1).requires_grad_()
            gradient = torch.autograd.grad(smooth(inputs)[:, target].sum(), inputs)[0]
            return {saliency.core.INPUT_OUTPUT_GRADIENTS: gradient.movedim(1, -1).numpy()}

        image = images[row].movedim(0, -1).numpy()
        theirs = saliency.core.GuidedIG().GetMask(
            image, slope, None, x_baseline=np.full_like(image, 0.5), x_steps=30, fraction=fraction, max_dist=band
        )
        np.testing.assert_allclose(ours[row].movedim(0, -1).numpy(), theirs, rtol=1e-6, atol=1e-12)


def test_the_adaptive_path_is_complete_and_without_a_band_straight(smooth, images):
    smooth, images = smooth.double(), images.double()
    maps = sl.METHODS["guided_path_integrated_gradients"](smooth, images, steps=400)
    assert sl.completeness_error(smooth, images, maps, baseline="black").max() < 1e-3
    straight = sl.METHODS["guided_path_integrated_gradients"](smooth, images, steps=400, band=0.0)
    torch.testing.assert_close(straight, sl.METHODS["integrated_gradients"](smooth, images, baseline="black"), rtol=0, atol=1e-3)


def test_a_gradient_that_is_nan_ends_the_adaptive_path():
    class Root(nn.Module):
        def forward(self, images):
            return torch.stack([images.square().sqrt().sum((1, 2, 3)), images.sum((1, 2, 3))], 1)

    with pytest.raises(ValueError, match=r"the gradient is NaN or infinite for images \[0\]"):
        sl.METHODS["guided_path_integrated_gradients"](Root(), torch.rand(1, 3, 4, 4), torch.tensor([0]), steps=2)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("guided_path_integrated_gradients", {"fraction": 0.0}, r"fraction of .* must be a number above 0 and at most 1"),
        ("guided_path_integrated_gradients", {"band": 2}, r"band of .* must be a number from 0 to 1"),
        ("guided_path_integrated_gradients", {"steps": 0}, "steps of .* must be a whole number from 1 to .*"),
        ("gradient_shap", {"sigma": -1}, "sigma of .* must be a number of at least 0"),
        ("deeplift_shap", {"samples": 0}, "samples of .* must be a whole number from 1 to .*"),
    ],
)
def test_bad_options_of_paths_are_refused(name, options, message, smooth, images):
    with pytest.raises(ValueError, match=message):
        sl.METHODS[name](smooth, images, **options)


def test_the_std_of_one_channel_is_refused(images):
    with pytest.raises(ValueError, match="needs at least two channels"):
        sl.METHODS["gradient"](nn.Sequential(nn.Flatten(), nn.Linear(256, 3)), images[:, :1], reduction="std")
    network = nn.Sequential(nn.Flatten(), nn.Linear(768, 3))
    maps = sl.METHODS["gradient"](network, images, torch.zeros(5).long(), reduction="std")
    torch.testing.assert_close(maps[0], network[1].weight.detach()[0].view(3, 16, 16).std(0))


BY_GRADIENTS = sorted(name for name, method in sl.METHODS.items() if method.family in ("gradient", "path"))


@pytest.mark.parametrize("where", ["0.weight", "0.bias", "9.weight", "9.bias"])
@pytest.mark.parametrize("name", BY_GRADIENTS)
def test_one_weight_that_is_nan_ends_every_method_that_uses_gradients(name, where, relu_net, images):
    """In the last layer it concerns class 3 alone, whose gradient the active maps compare; the target is class 0."""
    relu_net.get_parameter(where).data.view(-1)[-1] = torch.nan
    with pytest.raises(ValueError, match=r"NaN or infinite for images \[0, 1, 2, 3, 4\] of the batch; check the model's weights"):
        sl.METHODS[name](relu_net, images, torch.zeros(5).long(), **quick(name))


@pytest.mark.parametrize("batch_size", [1, 2, None])
@pytest.mark.parametrize("name", ["gradient", "active_gradient", "guided_path_integrated_gradients"])
def test_the_images_without_a_gradient_are_named_whatever_their_batch(name, batch_size):
    class Root(nn.Module):
        def forward(self, images):
            return torch.stack([images.sum((1, 2, 3)), images.square().sqrt().sum((1, 2, 3))], 1)  # no slope at 0

    images = torch.rand(5, 3, 4, 4) + 0.1
    images[3, 0, 0, 0] = 0
    options = {"baseline": images, "steps": 1} if name == "guided_path_integrated_gradients" else {}  # the path stays
    with pytest.raises(ValueError, match=r"NaN or infinite for images \[3\] of the batch"):
        sl.METHODS[name](Root(), images, torch.ones(5).long(), batch_size=batch_size, **options)
