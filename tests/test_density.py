"""The objectives of a classifier's density against hand-computed cases and laws."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from test_objectives import small, smooth
from torch import nn

import saliency_lib as sl
from saliency_lib.training import density
from saliency_lib.training.loop import fit


class Quadratic(nn.Module):
    """Logits x'A_c x / 2 + b_c'x, so that gradient and Hessian are known."""

    def __init__(self, size=6, classes=3, seed=0):
        super().__init__()
        source = torch.Generator().manual_seed(seed)
        a = torch.randn(classes, size, size, generator=source, dtype=torch.float64)
        self.a = nn.Parameter(a + a.transpose(1, 2))
        self.b = nn.Parameter(torch.randn(classes, size, generator=source, dtype=torch.float64))

    def forward(self, images):
        x = images.flatten(1)
        return torch.einsum("bi,cij,bj->bc", x, self.a, x) / 2 + x @ self.b.T


def images_of(count=5, size=6, seed=1):
    source = torch.Generator().manual_seed(seed)
    return torch.rand(count, 1, 1, size, generator=source, dtype=torch.float64), torch.arange(count) % 3


@pytest.mark.parametrize("estimator", ["centred", "antithetic"])
def test_centred_and_antithetic_estimates_have_the_trace_as_mean(estimator):
    model, (images, labels) = Quadratic(), images_of(1)
    truth = model.a[labels].diagonal(dim1=1, dim2=2).sum(1)
    _, f, g = density.label_slope(model, images, labels)
    torch.manual_seed(0)
    draws = torch.stack(
        [
            density.hessian_trace(model, images, labels, f, g, estimator=estimator, sigma=0.01, probes=1).detach()
            for _ in range(4000)
        ]
    )
    deviation = (2 * model.a[labels].square().sum((1, 2))).sqrt()  # of v'Hv/sigma^2 for normal v, exactly
    assert (draws.mean(0) - truth).abs().item() < 4 * deviation.item() / 4000**0.5
    assert draws.std(0).item() == pytest.approx(deviation.item(), rel=0.06)


def test_the_released_estimate_has_the_standard_deviation_of_the_gradient_term():
    model, (images, labels) = Quadratic(), images_of(1)
    _, f, g = density.label_slope(model, images, labels)
    torch.manual_seed(0)
    sigma = 1e-3
    draws = torch.stack(
        [
            density.hessian_trace(model, images, labels, f, g, estimator="released", sigma=sigma, probes=1).detach()
            for _ in range(4000)
        ]
    )
    expected = 2 / sigma * g.norm()
    assert draws.std(0).item() == pytest.approx(expected.item(), rel=0.05)
    assert draws.mean(0).abs().item() < 4 * expected.item() / 4000**0.5 + 100  # and nothing can be said of its mean of about 1


@pytest.mark.parametrize("estimator", list(density.ESTIMATORS))
def test_more_probes_are_the_mean_of_as_many_single_ones(estimator):
    model, (images, labels) = Quadratic(), images_of()
    _, f, g = density.label_slope(model, images, labels)
    options = {"estimator": estimator, "sigma": 0.05}
    torch.manual_seed(3)
    together = density.hessian_trace(model, images, labels, f, g, probes=4, **options)
    torch.manual_seed(3)
    single = [density.hessian_trace(model, images, labels, f, g, probes=1, **options) for _ in range(4)]
    assert torch.allclose(together, sum(single) / 4, rtol=1e-12)


def test_gradient_norm_of_a_quadratic_by_hand():
    model, (images, labels) = Quadratic(), images_of()
    x = images.flatten(1)
    g = torch.einsum("bij,bj->bi", model.a[labels], x) + model.b[labels]
    expected = F.cross_entropy(model(images), labels) + 0.3 * g.square().sum(1).mean() / 2
    assert density.gradient_norm(model, images, labels, weight=0.3).item() == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("estimator", list(density.ESTIMATORS))
def test_score_matching_of_a_quadratic_by_hand(estimator):
    model, (images, labels) = Quadratic(), images_of()
    torch.manual_seed(5)
    loss = density.score_matching(model, images, labels, weight=0.2, estimator=estimator, sigma=0.1, stability=0.01)
    torch.manual_seed(5)
    v = 0.1 * torch.randn_like(images).flatten(1)
    x = images.flatten(1)
    g = torch.einsum("bij,bj->bi", model.a[labels], x) + model.b[labels]
    curve = torch.einsum("bi,bij,bj->b", v, model.a[labels], v)  # f(x+v) - f(x) = g.v + v'Hv/2, exactly
    h = (curve + (2 * (g * v).sum(1) if estimator == "released" else 0)) / 0.01
    penalty = (h + g.square().sum(1) / 2 + 0.01 * h.square()).mean()
    assert loss.item() == pytest.approx((F.cross_entropy(model(images), labels) + 0.2 * penalty).item(), rel=1e-9)


def test_anti_score_matching_is_capped_at_its_ceiling():
    model, (images, labels) = Quadratic(), images_of()
    torch.manual_seed(5)
    loss = density.anti_score_matching(model, images, labels, weight=0.2, sigma=0.1, ceiling=-1e9)
    assert loss.item() == pytest.approx((F.cross_entropy(model(images), labels) + 0.2 * 1e9).item(), rel=1e-9)
    torch.manual_seed(5)
    loss = density.anti_score_matching(model, images, labels, weight=0.2, estimator="antithetic", sigma=0.1, ceiling=1e9)
    torch.manual_seed(5)
    v = 0.1 * torch.randn_like(images).flatten(1)
    h = torch.einsum("bi,bij,bj->b", v, model.a[labels], v) / 0.01
    assert loss.item() == pytest.approx((F.cross_entropy(model(images), labels) - 0.2 * h.mean()).item(), rel=1e-9)


def test_the_stability_term_of_the_released_score_matching_is_a_gradient_penalty():
    """With sigma=0.01 and one probe, E[h^2] is near (2/sigma)^2 |g|^2, so that 0.001 h^2 is 40 |g|^2 on average."""
    model, (images, labels) = Quadratic(), images_of(1)
    _, f, g = density.label_slope(model, images, labels)
    torch.manual_seed(0)
    options = {"estimator": "released", "sigma": 0.01, "probes": 1}
    squares = torch.stack([density.hessian_trace(model, images, labels, f, g, **options).square() for _ in range(3000)])
    assert 1e-3 * squares.mean().item() == pytest.approx(40 * g.square().sum().item(), rel=0.1)


@pytest.mark.parametrize("estimator, passes", [("released", 2), ("centred", 2), ("antithetic", 3)])
def test_batch_norm_sees_every_probe_and_its_statistics_move_with_each(estimator, passes):
    model, (images, labels) = smooth(batch_norm=True).train(), small()
    density.score_matching(model, images, labels, estimator=estimator)
    assert model[1].num_batches_tracked == passes


def test_in_training_mode_batch_norm_lets_other_images_into_the_gradient():
    model, (images, labels) = smooth(batch_norm=True).train(), small()
    _, _, whole = density.label_slope(model, images, labels)
    _, _, part = density.label_slope(model, images[:3], labels[:3])
    assert not torch.allclose(whole[:3], part, rtol=1e-3)
    model.eval()
    _, _, whole = density.label_slope(model, images, labels)
    _, _, part = density.label_slope(model, images[:3], labels[:3])
    assert torch.allclose(whole[:3], part, rtol=1e-9)


@pytest.mark.parametrize("name, warned", [("score_matching", True), ("anti_score_matching", True), ("gradient_norm", False)])
def test_a_relu_network_is_warned_about_where_a_second_derivative_is_needed(name, warned):
    torch.manual_seed(0)
    corners = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3)).double()
    settings = {**sl.Training().settings, "epochs": 1, "objective": name, "options": {}}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(corners, *small(), settings, seed=0)
        fit(smooth(), *small(), settings, seed=0)
    said = [str(item.message) for item in caught if "second derivative" in str(item.message)]
    assert len(said) == warned
    assert not warned or "use a network with activation: softplus" in said[0]
