"""What the rules do not reach is refused by name; what they reach is computed by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import saliency_lib as sl
from saliency_lib.attribution import units

ZERO = torch.zeros(())


class Function(nn.Module):
    """Two layers with a ReLU after the first and a unit after the second, so that the rule finds a unit that it supports."""

    def __init__(self, unit):
        super().__init__()
        self.first, self.second, self.last, self.unit = nn.Linear(48, 9), nn.Linear(9, 8), nn.Linear(8, 3), unit

    def forward(self, images):
        return self.last(self.unit(self.second(F.relu(self.first(images.flatten(1))))))

    def guided_by_hand(self, images, target):
        """The gradient of a target if the unit is a ReLU."""
        first = self.first(images.flatten(1))
        second = self.second(first.relu())
        gradient = self.last.weight[target].clamp(min=0) * (second > 0)
        gradient = (gradient @ self.second.weight).clamp(min=0) * (first > 0)
        return (gradient @ self.first.weight).detach()


def scripted(function):
    with pytest.warns(FutureWarning, match="deprecated"):
        return torch.jit.script(function)


def relu_of_tensor(z: torch.Tensor) -> torch.Tensor:
    return torch.relu(z) * 1.0


class Own(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z):
        ctx.save_for_backward(z)
        return z.relu()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * (ctx.saved_tensors[0] > 0)


def written_into_a_slice(z):
    base = 1 * z
    base[:, :4].relu_()
    base[:, 4:].relu_()
    return base


@pytest.mark.parametrize(
    "unit",
    [
        torch.ops.aten.relu,
        torch.ops.aten.relu.default,
        torch.ops.aten.relu_,
        lambda z: torch.ops.aten.clamp(z, 0),
        written_into_a_slice,
        lambda z: F.relu(z.view(-1, 2, 4), inplace=True).flatten(1),
    ],
    ids=["aten.relu", "aten.relu.default", "aten.relu_", "aten.clamp", "slices", "view"],
)
def test_a_relu_is_guided_also_as_an_operator_and_within_a_view(unit):
    torch.manual_seed(0)
    network, images = Function(unit), torch.rand(3, 3, 4, 4)
    ours = sl.METHODS["guided_backprop"](network, images, 1, reduction=lambda maps: maps)
    expected = network.guided_by_hand(images, 1)
    assert expected.abs().max() > 0
    torch.testing.assert_close(ours.flatten(1), expected)


MISSED = {
    "torch.max": (lambda z: torch.max(z, ZERO), "maximum"),
    "max": (lambda z: z.max(torch.zeros_like(z)), "maximum"),
    "maximum": (lambda z: torch.maximum(z, ZERO), "maximum"),
    "aten.maximum": (lambda z: torch.ops.aten.maximum(z, ZERO), "maximum"),
    "minimum": (lambda z: -torch.minimum(-z, ZERO), "minimum"),
    "fmax": (lambda z: torch.fmax(z, ZERO), "fmax"),
    "where": (lambda z: torch.where(z > 0, z, 0), "where"),
    "masked_fill": (lambda z: z.masked_fill(z < 0, 0), "maskedfill"),
    "abs by arithmetic": (lambda z: (z + torch.ops.aten.abs(z)) / 2, "abs"),
    "norm": (lambda z: F.lp_pool1d(z, 2, 1), "relu"),
    "amax": (lambda z: z.view(-1, 4, 2).amax(2).repeat(1, 2), "amax"),
    "max over an axis": (lambda z: z.view(-1, 4, 2).max(2).values.repeat(1, 2), "max"),
    "max_pool1d": (lambda z: F.max_pool1d(z, 3, 1, 1), "maxpool2dwithindices"),
    "gelu by hand": (lambda z: z * (1 + torch.erf(z)), "erf"),
    "vmap": (torch.vmap(torch.relu), "relu"),
    "custom": (Own.apply, "own"),
}


@pytest.mark.parametrize("method", ["guided_backprop", "gnl_integrated_gradients"])
@pytest.mark.parametrize("name", MISSED)
def test_a_unit_that_would_pass_unguided_is_named(name, method):
    unit, said = MISSED[name]
    with pytest.raises(ValueError, match=rf"(did not act on {said},|also has {said};)"):
        sl.METHODS[method](Function(unit), torch.rand(2, 3, 4, 4))


def test_a_scripted_function_is_refused_on_every_call():
    """The first call of a scripted function records ordinary nodes; later ones hide them in a node of their own."""
    network = Function(scripted(relu_of_tensor))
    for said in ("relu", "a scripted function", "a scripted function"):
        with pytest.raises(
            ValueError, match=f"did not act on {said}, whose gradient would pass unchanged; write a ReLU as nn.ReLU"
        ):
            sl.METHODS["guided_backprop"](network, torch.rand(2, 3, 4, 4))


@pytest.mark.parametrize("name", ["maximum", "where", "vmap", "custom", "amax"])
def test_the_rescale_rule_names_what_it_does_not_reach(name):
    with pytest.raises(ValueError, match=f"did not act on {MISSED[name][1]},"):
        sl.METHODS["deeplift"](Function(MISSED[name][0]), torch.rand(2, 3, 4, 4))


def test_maxima_of_constants_and_normalisation_pass():
    class Normalised(Function):
        def forward(self, images):
            self.mask = torch.where(torch.maximum(ZERO, torch.ones(8)) > 0, 1.0, 0.0)
            return self.last(F.normalize(self.second(F.relu(self.first(images.flatten(1))))) * self.mask)

    torch.manual_seed(0)
    network, images = Normalised(None).double(), torch.rand(2, 3, 4, 4, dtype=torch.float64)
    inputs = images.clone().requires_grad_()
    first = network.first(inputs.flatten(1))
    first.register_hook(lambda gradient: gradient.clamp(min=0) * (first > 0))
    second = network.second(first + (first.relu() - first).detach())  # a ReLU whose gradient the hook writes
    expected = torch.autograd.grad(network.last(second / second.norm(dim=1, keepdim=True))[:, 0].sum(), inputs)[0]
    ours = sl.METHODS["guided_backprop"](network, images, 0, reduction=lambda maps: maps)
    torch.testing.assert_close(ours, expected)


def test_the_graph_before_the_model_is_not_its_own():
    network, images = nn.Sequential(nn.Flatten(), nn.Linear(48, 4), nn.ReLU()), torch.rand(2, 3, 4, 4, requires_grad=True)
    before = torch.tanh(1 * images)
    with sl.guided(network):
        network(before)
    with pytest.raises(ValueError, match="also has tanh"), sl.guided(network):
        network(torch.tanh(1 * images))


def test_the_check_leaves_no_hook_behind_also_after_an_error():
    network = Function(lambda z: torch.maximum(z, ZERO))
    with pytest.raises(ValueError, match="maximum"):
        sl.METHODS["guided_backprop"](network, torch.rand(2, 3, 4, 4))
    assert not network._forward_hooks


def test_every_unit_that_the_rules_know_by_name_has_a_known_node():
    z = torch.rand(2, 8, requires_grad=True)
    for name in sorted(units.RELUS | set(units.CLAMPS) | units.CURVES):
        function = getattr(F, name, None) or getattr(torch, name)
        extra = {"prelu": (torch.ones(1),), "threshold": (0.5, 0.0)}.get(name, ())
        bound = {"max": 0.5} if name in ("clamp", "clip", "clamp_max") else {"min": 0.5} if name == "clamp_min" else {}
        nodes = [units.kind_of(node) for node in units.nodes_between(function(z, *extra, **bound), [])]
        assert any(nodes), name
