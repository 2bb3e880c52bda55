"""Wrappers of a model: what they leave alone, and what they change."""

import pytest
import torch
import torch.nn.functional as F

import saliency_lib as sl
from saliency_lib.core.fills import filled

TARGETS = torch.tensor([0, 3, 1, 1, 2])


@pytest.fixture
def direction():
    return torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(8), dtype=torch.float64)


def explained(method, model, images, targets=TARGETS, **options):
    return sl.METHODS[method](model, images, targets, **options)


def test_a_shift_adds_one_number_to_all_logits_and_changes_no_probability(smooth, images, direction):
    model, images = smooth.double(), images.double()
    shift = sl.Shifted(model, direction)(images) - model(images)
    by_hand = torch.stack([(image * direction).sum() for image in images])
    torch.testing.assert_close(shift, by_hand[:, None].expand(5, 4))
    assert by_hand.abs().min() > 1
    torch.testing.assert_close(sl.Shifted(model, direction)(images).softmax(1), model(images).softmax(1), rtol=1e-12, atol=1e-14)


def test_a_shift_moves_the_gradient_of_every_logit_by_its_direction(smooth, images, direction):
    model, images = smooth.double(), images.double()
    for target in range(4):
        before, after = (
            explained("gradient", one, images, target, reduction="sum") for one in (model, sl.Shifted(model, direction))
        )
        torch.testing.assert_close(after - before, direction.sum(0).expand(5, 16, 16))


def test_a_shift_moves_integrated_gradients_by_the_direction_times_the_way(smooth, images, direction):
    model, images = smooth.double(), images.double()
    options = {"baseline": 0.25, "steps": 8}
    before, after = (explained("integrated_gradients", one, images, **options) for one in (model, sl.Shifted(model, direction)))
    torch.testing.assert_close(after - before, ((images - 0.25) * direction).sum(1))


def test_log_probabilities_have_the_gradient_of_the_loss_whatever_the_shift(smooth, images, direction):
    model, images = smooth.double(), images.double()
    inputs = images.clone().requires_grad_()
    (slope,) = torch.autograd.grad(-F.cross_entropy(model(inputs), TARGETS, reduction="sum"), inputs)
    for one in (model, sl.Shifted(model, direction)):
        found = explained("gradient", sl.LogProbabilities(one), images, reduction="sum")
        torch.testing.assert_close(found, slope.sum(1), rtol=1e-9, atol=1e-12)
    assert not torch.allclose(explained("gradient", model, images, reduction="sum"), slope.sum(1), atol=1e-3)


@pytest.mark.parametrize("method", ["rise", "occlusion"])
def test_what_looks_at_probabilities_cannot_tell_the_wrappers_from_the_model(smooth, images, direction, method):
    model, images = smooth.double(), images.double()
    options = {"rise": {"masks": 12}, "occlusion": {"window": 5, "stride": 3}}[method]
    plain = explained(method, model, images, **options)
    for one in (sl.Shifted(model, direction), sl.LogProbabilities(model)):
        torch.testing.assert_close(explained(method, one, images, **options), plain, rtol=1e-9, atol=1e-12)


def test_a_wrapper_keeps_the_models_mean_colour_and_its_modes(relu_net, images, direction):
    model = sl.MODELS["sgt_cnn"](classes=4, channels=1)
    grey = torch.rand(2, 1, 28, 28)
    assert torch.equal(filled("mean", sl.LogProbabilities(model), grey), filled("mean", model, grey))
    assert filled("mean", model, grey).min() > 0
    relu_net.train()
    relu_net[1].eval()
    modes = [module.training for module in relu_net.modules()]
    wrapped = sl.Shifted(relu_net, direction.float())
    assert [module.training for module in relu_net.modules()] == modes and wrapped.training
    assert wrapped.pixel_mean is None and (filled("mean", wrapped, images) == 0).all()


def test_a_direction_that_does_not_fit_is_refused(smooth, images):
    with pytest.raises(ValueError, match="direction must be a tensor of floats of the shape of one image, got list"):
        sl.Shifted(smooth, [1.0])
    with pytest.raises(ValueError, match=r"got torch\.int64"):
        sl.Shifted(smooth, torch.ones(3, 16, 16, dtype=torch.long))
    with pytest.raises(ValueError, match=r"images \(5, 3, 16, 16\) do not have the shape of the direction \(1, 16, 16\)"):
        sl.Shifted(smooth, torch.ones(1, 16, 16))(images)


def test_a_kernel_is_computed_in_the_models_precision_and_gives_plain_tensors(smooth, images):
    model = smooth.double()
    found = sl.compute(sl.METHODS["gradient"], model, images, TARGETS, reduction="sum")
    torch.testing.assert_close(found, explained("gradient", model, images.double(), reduction="sum"), rtol=0, atol=0)
    ratio = sl.compute(sl.density_ratio, model, images, sigmas=[0.1], samples=2)
    assert torch.equal(ratio, sl.density_ratio(model, images.double(), sigmas=[0.1], samples=2)) and not ratio.requires_grad
