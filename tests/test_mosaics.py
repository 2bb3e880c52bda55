"""Mosaics for the grid pointing game."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import saliency_lib as sl

SHAPE = (2, 4, 6)


class Brightest(nn.Module):
    """Five classes: the logits are steep around the mean brightness 0.1, 0.3, 0.5, 0.7 or 0.9 of any cell."""

    def forward(self, images):
        return -500 * (images.mean((1, 2, 3))[:, None] - torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9])).square()


@pytest.fixture
def flat():
    """Thirty images of one colour each, the last between two classes, and the second with a wrong label."""
    labels = torch.arange(30) % 5
    colours = 0.1 + 0.2 * labels + 0.002 * torch.arange(30) / 30
    colours[29] = 0.4
    labels[1] = 4
    images = colours.view(-1, 1, 1, 1).expand(-1, *SHAPE).clone()
    names = tuple(f"image {row}" for row in range(30))
    return sl.Images(images, labels, tuple("abcde"), 100 + torch.arange(30), names=names)


def test_each_image_that_the_model_is_sure_of_is_in_its_masked_cell_beside_other_classes(flat):
    found, kept = sl.grid_mosaics(flat, Brightest()), [row for row in range(30) if row not in (1, 29)]
    assert found.images.shape == (28, 2, 8, 12) and found.masks.shape == (28, 8, 12)
    assert found.indices.tolist() == [100 + row for row in kept] and found.labels.tolist() == flat.labels[kept].tolist()
    assert found.names == tuple(flat.names[row] for row in kept) and found.classes == flat.classes
    for mosaic, mask, row in zip(found.images, found.masks, kept, strict=True):
        assert mask.sum() == 24 and torch.equal(mosaic[:, mask].view(SHAPE), flat.images[row])
        cells = mosaic.unflatten(2, (2, 6)).unflatten(1, (2, 4)).mean((0, 2, 4)).flatten()
        assert len(Brightest()(cells.view(4, 1, 1, 1)).argmax(1).unique()) == 4
    assert found.masks.float().mean(0).min() > 0.1  # every cell is asked for


def test_a_mosaic_is_fixed_by_seed_and_image(flat):
    one, same, other = (sl.grid_mosaics(flat, Brightest(), seed=seed, batch_size=seed + 1).images for seed in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)
    shuffled = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    moved = replace(flat, images=flat.images[shuffled], labels=flat.labels[shuffled], indices=flat.indices[shuffled], names=None)
    turned = sl.grid_mosaics(moved, Brightest())
    assert torch.equal(turned.images[turned.indices.argsort()], one) and turned.names is None


def test_relevance_mass_on_the_cells_is_the_grid_pointing_game(flat):
    found = sl.grid_mosaics(flat, Brightest())
    maps = torch.rand(28, 8, 12, generator=torch.Generator().manual_seed(0)) - 0.3
    by_hand = [(m.clamp(min=0) * cell).sum() / m.clamp(min=0).sum() for m, cell in zip(maps, found.masks, strict=True)]
    mass = sl.METRICS["relevance_mass"](Brightest(), found.images, maps, found.labels, objects=found.masks)
    torch.testing.assert_close(mass.area, torch.stack(by_hand))


def test_an_image_whose_class_is_not_known_has_the_predicted_one(flat):
    predicted = Brightest()(flat.images).argmax(1)
    known, unknown = (sl.grid_mosaics(replace(flat, labels=labels), Brightest()) for labels in (predicted, torch.full((30,), -1)))
    assert torch.equal(known.images, unknown.images) and torch.equal(known.labels, unknown.labels)
    assert torch.equal(unknown.labels, predicted[unknown.indices - 100])


def test_too_few_classes_are_refused(flat):
    with pytest.raises(ValueError, match="mosaics of 3x3 cells need images of 9 classes, but the model is sure of 5; pass more"):
        sl.grid_mosaics(flat, Brightest(), side=3)
