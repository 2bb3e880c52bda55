"""Sensitivity-n: by definition with NumPy, and by law."""

import numpy as np
import pytest
import torch
from torch import nn

import saliency_lib as sl
from saliency_lib.evaluation.sensitivity import correlation


def sensitivity_n(model, images, maps, targets=None, **options):
    return sl.METRICS["sensitivity_n"](model, images, maps, targets, **options)


def test_it_is_the_correlation_over_the_sets_that_the_model_saw(smooth, images):
    seen = []

    class Watching(nn.Module):
        def forward(self, inputs):
            seen.append(inputs.detach().clone())
            return smooth(inputs)

    maps, targets = torch.randn(5, 16, 16, generator=torch.Generator().manual_seed(3)), torch.tensor([0, 1, 2, 3, 0])
    options = {"fractions": (0.1, 0.5, 1), "samples": 20, "fill": -1.0, "batch_size": 7}
    found = sensitivity_n(Watching(), images, maps, targets, **options)
    inputs = torch.cat(seen)[5:].unflatten(0, (5, 3, 20))  # after the whole images
    removed = (inputs == -1).all(3)
    assert removed.flatten(3).sum(3).unique(dim=2).flatten(1).tolist() == [[26, 128, 256]] * 5
    logits = smooth(inputs.flatten(0, 2)).unflatten(0, (5, 3, 20)).detach()
    for row, target in enumerate(targets.tolist()):
        fall = smooth(images[row : row + 1])[0, target].item() - logits[row, :, :, target].double().numpy()
        sums = (removed[row] * maps[row].double()).sum((2, 3)).numpy()
        expected = [np.corrcoef(sums[n], fall[n])[0, 1] for n in range(2)]
        np.testing.assert_allclose(found.values[row, :2].numpy(), expected, atol=1e-4)
    assert found.values[:, 2].tolist() == [0] * 5  # all pixels are the same set each time
    torch.testing.assert_close(found.fractions, torch.tensor([26 / 256, 0.5, 1]))
    sets = removed.flatten(3).flatten(0, 2)[: 5 * 2]
    assert len({tuple(one.tolist()) for one in sets}) == 10


@pytest.mark.parametrize("fill", [0.0, 1.0])
def test_the_contributions_to_a_linear_model_have_correlation_one_for_each_n(fill, linear, images):
    shares = ((images - fill) * linear.weight[2].detach()).sum(1)
    options = {"fill": fill, "samples": 20}
    for sign in (1, -1):
        torch.testing.assert_close(
            sensitivity_n(linear, images, 3 * sign * shares, 2, **options).values, torch.full((5, 7), float(sign))
        )
    other = sensitivity_n(linear, images, shares.flip(1), 2, **options)
    assert other.values.abs().max() < 0.9


def test_a_map_of_one_value_and_a_model_of_one_answer_have_no_correlation(linear, images):
    for value in (0.0, 0.7, -1e-3):
        assert (sensitivity_n(linear, images, torch.full((5, 16, 16), value), samples=5).values == 0).all()
    flat = nn.Sequential(nn.Flatten(), nn.Linear(768, 3))
    nn.init.zeros_(flat[1].weight)
    assert (sensitivity_n(flat, images, images.mean(1), samples=5).values == 0).all()


def test_sets_are_fixed_by_seed_and_image(linear, images):
    maps, numbers = images.mean(1), torch.tensor([7, 3, 9, 1, 0])
    whole = sensitivity_n(linear, images, maps, 0, samples=5, indices=numbers)
    alone = sensitivity_n(linear, images[2:3], maps[2:3], 0, samples=5, indices=numbers[2:3])
    torch.testing.assert_close(alone.values[0], whole.values[2])
    assert not torch.allclose(whole.values, sensitivity_n(linear, images, maps, 0, samples=5, indices=numbers, seed=1).values)


def test_correlation_is_numpys():
    one, other = torch.randn(2, 3, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = [np.corrcoef(a, b)[0, 1] for a, b in zip(one.numpy(), other.numpy(), strict=True)]
    np.testing.assert_allclose(correlation(one, other).numpy(), expected)


def test_fractions_are_checked(linear, images):
    with pytest.raises(ValueError, match="fractions must be at least two non-decreasing numbers"):
        sensitivity_n(linear, images, images.mean(1), fractions=(0.5, 0.1))
