"""Samples by activation maximisation and density ratios: in closed form, by law, and however they are batched."""

import math

import pytest
import torch
from conftest import Linear
from scipy.stats import norm
from torch import nn

import saliency_lib as sl

SHAPE = (3, 16, 16)
LABELS = torch.tensor([0, 3, 1, 1, 2])


def made(model, labels=LABELS, **options):
    return sl.activation_maximisation(model, labels, **{"shape": SHAPE, "steps": 3} | options)


def ratio(model, images, targets=None, **options):
    return sl.density_ratio(model, images, targets, **{"sigmas": (0.1, 0.3), "samples": 3} | options)


def test_the_ascent_of_a_linear_logit_in_closed_form():
    weight = torch.tensor([[0.2, -0.1, 9.0, -9.0], [0.3, 0.1, -9.0, 0.0]], dtype=torch.float64).view(2, 1, 2, 2)
    options = {"shape": (1, 2, 2), "rate": 0.2, "decay": 0.5}
    labels = torch.tensor([0, 1, 0])
    start, end = (made(Linear(weight), labels, steps=steps, **options).flatten(1) for steps in (0, 3))
    slope = weight.flatten(1)[labels]
    rest = 0.5 + slope / 0.5  # where the pull towards grey weighs the slope up
    expected = rest + (1 - 0.2 * 0.5) ** 3 * (start - rest)
    expected[slope == 9], expected[slope == -9] = 1, 0
    inside = slope.abs() < 9
    assert (expected[inside] > 0).all() and (expected[inside] < 1).all()  # no clipping on the way: they move one way only
    torch.testing.assert_close(end, expected, rtol=0, atol=1e-12)


def test_without_steps_there_is_clipped_noise_around_grey():
    start = made(Linear(torch.zeros(2, *SHAPE)), torch.zeros(40, dtype=torch.long), steps=0)
    values, pixels = start.flatten(), start.numel()
    assert values.mean().item() == pytest.approx(0.5, abs=4 * 0.2 / math.sqrt(pixels))
    for end in (0, 1):
        share, tail = (values == end).double().mean().item(), norm.cdf(-2.5)
        assert share == pytest.approx(tail, abs=4 * math.sqrt(tail / pixels))
    assert values.quantile(0.8413).item() == pytest.approx(0.7, abs=0.005)


def test_a_sample_raises_the_logit_of_its_class_and_not_of_the_others(smooth):
    start, end = (made(smooth, steps=steps) for steps in (0, 20))
    with torch.no_grad():
        gain = smooth(end) - smooth(start)
    assert torch.equal(gain.argmax(1), LABELS) and (gain.gather(1, LABELS[:, None]) > 0).all()
    assert end.min() >= 0 and end.max() <= 1 and end.shape == (5, *SHAPE)


def test_samples_and_ratios_are_fixed_by_seed_and_index_whatever_the_batch(smooth, images):
    model, images, order = smooth.double(), images.double(), torch.tensor([4, 1, 2])
    for kernel, first in ((made, LABELS), (lambda *given, **options: ratio(*given, LABELS, **options), images)):
        whole = kernel(model, first, batch_size=5)
        for batch_size in (1, 2, None):
            torch.testing.assert_close(kernel(model, first, batch_size=batch_size), whole, rtol=1e-9, atol=1e-12)
        moved = kernel(model, first, indices=torch.arange(5) + 7)
        other = kernel(model, first, seed=1)
        assert (moved - whole).flatten(1).abs().amax(1).min() > 1e-4
        assert (other - whole).flatten(1).abs().amax(1).min() > 1e-4
    some = made(model, LABELS[order], indices=order)
    torch.testing.assert_close(some, made(model)[order], rtol=1e-9, atol=1e-12)
    some = ratio(model, images[order], LABELS[order], indices=order)
    torch.testing.assert_close(some, ratio(model, images, LABELS)[order], rtol=1e-9, atol=1e-12)


class Quadratic(nn.Module):
    """Logits x' A_c x / 2 + b_c' x."""

    def __init__(self, matrices, slopes):
        super().__init__()
        self.matrices, self.slopes = nn.Parameter(matrices), nn.Parameter(slopes)

    def forward(self, images):
        x = images.flatten(1)
        return torch.einsum("np,cpq,nq->nc", x, self.matrices, x) / 2 + x @ self.slopes.T


def test_the_density_ratio_of_a_quadratic_logit_is_half_the_trace_of_its_hessian():
    source = torch.Generator().manual_seed(6)
    half = torch.randn(3, 4, 4, generator=source, dtype=torch.float64)
    matrices, slopes = half + half.mT, torch.randn(3, 4, generator=source, dtype=torch.float64)
    images = torch.rand(3, 1, 2, 2, generator=source, dtype=torch.float64)
    draws, sigmas = 4000, torch.tensor([0.2, 1.0], dtype=torch.float64)
    targets = torch.tensor([2, 0, 1])
    found = ratio(Quadratic(matrices, slopes), images, targets, sigmas=sigmas.tolist(), samples=draws)
    hessian = matrices[targets]
    expected = hessian.diagonal(dim1=1, dim2=2).sum(1)[:, None] * sigmas**2 / 2
    slope = (hessian @ images.flatten(1)[..., None]).squeeze(2) + slopes[targets]
    variance = slope.square().sum(1)[:, None] * sigmas**2 + hessian.square().sum((1, 2))[:, None] * sigmas**4 / 2
    assert ((found - expected).abs() <= 4 * (variance / draws).sqrt()).all()
    assert ((found - expected).abs() <= (variance / draws).sqrt()).any()  # and the bound is of the right size
    assert (expected.abs() > 8 * (variance / draws).sqrt()).any()  # so that another factor would be seen


def test_one_noise_serves_every_sigma_and_no_noise_changes_nothing(linear, images):
    found = ratio(linear.double(), images.double(), LABELS, sigmas=(0.0, 0.1, 0.3), samples=2)
    torch.testing.assert_close(found[:, 0], torch.zeros(5, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(found[:, 2], 3 * found[:, 1], rtol=1e-9, atol=1e-12)


def test_the_density_ratio_follows_the_predicted_class_unless_told(smooth, images):
    predicted = smooth(images).argmax(1)
    assert torch.equal(ratio(smooth, images), ratio(smooth, images, predicted))
    assert not torch.equal(ratio(smooth, images), ratio(smooth, images, (predicted + 1) % 4))
    assert ratio(smooth, images, 2).shape == (5, 2)


def test_the_model_and_the_global_random_numbers_are_left_as_they_were(relu_net, images):
    relu_net.train()
    relu_net[1].eval()
    before = {name: value.clone() for name, value in relu_net.state_dict().items()}
    modes, state = [module.training for module in relu_net.modules()], torch.get_rng_state()
    with torch.no_grad():
        made(relu_net)
        ratio(relu_net, images)
    with pytest.raises(RuntimeError):
        made(relu_net, shape=(2, 16, 16))
    assert [module.training for module in relu_net.modules()] == modes
    assert all(torch.equal(before[name], value) for name, value in relu_net.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in relu_net.parameters())
    assert not relu_net[0]._forward_hooks and torch.equal(torch.get_rng_state(), state)


class Small(nn.Module):
    """A model whose memory holds two images."""

    def __init__(self, model):
        super().__init__()
        self.model, self.most = model, 0

    def forward(self, images):
        self.most = max(self.most, len(images))
        if len(images) > 2:
            raise torch.OutOfMemoryError
        return self.model(images)


def test_where_memory_runs_out_smaller_chunks_give_the_same(smooth, images):
    model = smooth.double()
    small = Small(model)
    torch.testing.assert_close(made(small), made(model), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(ratio(small, images.double()), ratio(model, images.double()), rtol=1e-9, atol=1e-12)
    assert small.most > 2


def test_samples_have_the_models_precision(smooth):
    single, double = made(smooth), made(smooth.double())
    assert single.dtype == torch.float32 and double.dtype == torch.float64
    torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=1e-4)  # of the same noise


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": torch.tensor(3)}, r"labels must be \(B,\) classes, one per image to make, got \(\)"),
        ({"labels": torch.tensor([])}, r"labels must be \(B,\)"),
        ({"labels": torch.tensor([0.0, 1.0])}, "whole numbers"),
        ({"labels": torch.tensor([0, 4])}, "classes of the model, from 0 to 3"),
        ({"shape": (16, 16)}, r"shape must be \(C, H, W\), got \(16, 16\)"),
        ({"steps": -1}, "steps of .* must be a whole number from 0 to .*, got -1"),
        ({"rate": -0.1}, "rate of .* must be a number of at least 0, got -0.1"),
        ({"decay": math.nan}, "decay of .* must be a number of at least 0"),
        ({"indices": torch.arange(3)}, "indices must be 5 whole numbers, one per image, got"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_what_no_sample_can_be_made_of_is_refused(linear, options, message):
    with pytest.raises(ValueError, match=message):
        made(linear, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sigmas": ()}, "sigmas are empty"),
        ({"sigmas": (0.1, -0.1)}, "each of sigmas must be a finite number of at least 0, got -0.1"),
        ({"samples": 0}, "samples of .* must be a whole number from 1 to .*"),
        ({"targets": torch.tensor([0, 1, 2])}, r"targets \(3,\) do not fit 5 images"),
    ],
)
def test_what_no_ratio_can_be_taken_of_is_refused(linear, images, options, message):
    with pytest.raises(ValueError, match=message):
        ratio(linear, images, **options)


def test_a_broken_model_is_named_and_gives_no_numbers(images):
    broken = Linear(torch.full((4, *SHAPE), math.nan))
    with pytest.raises(ValueError, match="the gradient of a logit became NaN or infinite"):
        made(broken)
    with pytest.raises(ValueError, match="the score is NaN or infinite for images"):
        ratio(broken, images)
    with pytest.raises(ValueError, match=r"must be a torch\.nn\.Module"):
        made(torch.relu)
