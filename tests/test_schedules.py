"""Optimisers, schedules of the learning rate and augmentations."""

import pytest
import torch
from torch import nn

from saliency_lib.training.schedules import SCHEDULES, crop_flip


def test_the_oscillating_rate_is_that_of_the_benchmarks_scheduler():
    """CosineAnnealingLR(T_max=20, eta_min=1e-5) at a rate of 1e-6, stepped by batch."""
    parameter = nn.Parameter(torch.zeros(()))
    optimiser = torch.optim.Adam([parameter], lr=1e-6)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=20, eta_min=1e-5)
    for step in range(100):
        ours = 1e-6 * SCHEDULES["oscillating"](step, 100, 0, ())
        assert ours == pytest.approx(optimiser.param_groups[0]["lr"], rel=1e-6)
        optimiser.step()
        scheduler.step()


def test_crop_flip_shifts_by_up_to_four_pixels_and_mirrors_half():
    images = torch.zeros(4000, 1, 9, 9)
    images[:, :, 4, 4] = 1
    images[:, :, 4, 5] = 0.5  # at the right of the bright pixel, so at its left where mirrored
    moved = crop_flip(images, torch.Generator().manual_seed(0), torch.zeros(len(images), dtype=torch.bool))
    bright = (moved[:, 0] == 1).flatten(1).int().argmax(1)
    rows, columns = bright // 9, bright % 9
    assert set(rows.tolist()) == set(range(9)) == set(columns.tolist())
    left = torch.roll(moved, 1, 3)[moved == 1] == 0.5
    inside = (columns > 0) & (columns < 8)  # where both neighbours are seen
    assert abs(left[inside].float().mean() - 0.5) < 5 * (0.25 / inside.sum()) ** 0.5
