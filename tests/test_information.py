"""Performance information curves: against PAIR's code, by law, and special images."""

import numpy as np
import pytest
import torch
from saliency.metrics import pic as pair
from torch import nn

import saliency_lib as sl
from saliency_lib.evaluation.information import information, interpolated, seeds

SHARES = (0.01, 0.05, 0.13, 0.5)  # of 400 pixels, 4, 20, 52 and 200; PAIR's quantiles cut there too


@pytest.fixture
def scenes():
    """Three colour images of 8 bits, 20x20, with a bright square on a dark background, and maps that rise on the square."""
    source = torch.Generator().manual_seed(0)
    images, maps = 0.4 * torch.rand(3, 3, 20, 20, generator=source), torch.rand(3, 20, 20, generator=source)
    images[:, :, 5:15, 5:15] += 0.6
    maps[:, 5:15, 5:15] += 0.6
    return (255 * images).round() / 255, maps


class Square(nn.Module):
    """The logit of class 0 is the brightness of the central square, that of class 1 a constant."""

    def forward(self, images):
        bright = images[:, :, 5:15, 5:15].flatten(1).mean(1)
        return torch.stack([20 * bright, torch.full_like(bright, 14)], 1)


@pytest.mark.parametrize("score", ["probability", "correct"])
def test_it_is_the_curve_of_pairs_code(score, scenes, monkeypatch):
    monkeypatch.setattr(np, "trapz", np.trapezoid, raising=False)  # their code calls it, NumPy 2 has renamed it
    images, maps = scenes
    model = Square()

    def predict(pixels):
        logits = model(torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255)
        return (logits.softmax(1)[:, 0] if score == "probability" else (logits.argmax(1) == 0).float()).numpy()

    options = {"fractions": SHARES, "score": score, "steps": 1000}
    found = sl.METRICS["pic"](model, images, maps, torch.zeros(3, dtype=torch.long), **options)
    masks = seeds(images, 0, None)
    assert masks.flatten(1).sum(1).tolist() == [4] * 3
    for row in range(3):
        pixels = (255 * images[row]).round().byte().permute(1, 2, 0).numpy()
        theirs = pair.compute_pic_metric(
            pixels, maps[row].numpy(), masks[row].numpy(), predict, SHARES, min_pred_value=0, num_data_points=1000
        )
        np.testing.assert_allclose(found.values[row].numpy(), theirs.curve_y, atol=1e-4)
        assert found.area[row].item() == pytest.approx(theirs.auc, abs=1e-5) and 0.05 < theirs.auc < 1
    assert found.error.tolist() == [0] * 3


def test_a_map_of_the_evidence_is_better_than_its_negative(scenes):
    images, maps = scenes
    good, bad = (sl.METRICS["pic"](Square(), images, sign * maps, 0).area for sign in (1, -1))
    assert (good > bad + 0.1).all()


def test_curves_are_shares_and_end_at_the_whole_image(scenes):
    images, maps = scenes
    values = sl.METRICS["pic"](Square(), images, maps, 0).values
    assert values.min() >= 0 and values.max() == 1 and values[:, -1].tolist() == [1] * 3


def test_an_image_without_a_curve_has_zeros_for_each_map(scenes):
    images, maps = scenes
    flat = torch.full_like(images, 0.5)
    assert sl.METRICS["pic"](Square(), flat, maps, 0).area.tolist() == [0] * 3  # the blurred image is the image
    assert sl.METRICS["pic"](Square(), images, maps, 1).area.tolist() == [0] * 3  # the blurred image is more of class 1


def test_tied_pixels_are_regained_in_random_orders(scenes):
    images, maps = (each[:1].repeat(6, *[1] * (each.ndim - 1)) for each in scenes)
    binary = (maps > 0.6).float()
    found = sl.METRICS["pic"](Square(), images, binary, 0)
    assert found.tied.tolist() == [1] * 6 and found.error.min() > 0
    numbers = torch.tensor([3, 7])
    pair_, alone = (sl.METRICS["pic"](Square(), images[:n], binary[:n], 0, indices=numbers[-n:]) for n in (2, 1))
    torch.testing.assert_close(alone.values[0], pair_.values[1])


@pytest.mark.parametrize("shape", [(1, 6), (6, 1), (1, 1), (2, 2)])
def test_lines_are_interpolated_along_their_length(shape):
    line = np.linspace(10, 60, max(shape)).astype(np.uint8)
    pixels = np.broadcast_to(line.reshape(shape) if 1 in shape else line[:, None], shape)[None].copy()
    known = np.zeros(shape, dtype=bool)
    np.testing.assert_array_equal(interpolated(pixels, known), pixels)  # linear between its ends


def test_information_grows_with_what_an_image_shows():
    noise = torch.randint(256, (3, 20, 20), generator=torch.Generator().manual_seed(0)).byte().numpy()
    sizes = [information(each) for each in (0 * noise, noise // 64, noise)]
    assert sizes == sorted(sizes) and information(noise[:2]) < sizes[2]
