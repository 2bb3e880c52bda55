"""The example that a reader copies: its network, its method, its wrappers of other packages, its pictures."""

import numpy as np
import pytest
import torch
from captum.attr import InputXGradient, IntegratedGradients
from conftest import Linear
from PIL import Image
from pytorch_grad_cam import GradCAM

import saliency_lib as sl
from notebooks import your_own

TARGETS = torch.tensor([0, 3, 1, 1, 2])


def test_its_network_knows_digits_and_is_found_by_its_reference():
    test = sl.load("mnist5k", stop=200)
    model = sl.MODELS["module:notebooks.your_own:network"](pretrained=True)
    assert (sl.predict(model, test.images)[1] == test.labels).float().mean() > 0.85
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), your_own.network().parameters(), strict=True))


def test_its_network_can_be_changed_without_changing_the_next():
    your_own.network()[0].weight.data.zero_()
    assert your_own.network()[0].weight.abs().sum() > 1


def test_its_method_averages_the_absolute_gradient_over_neighbours():
    weight = torch.zeros(2, 1, 5, 5)
    weight[1, 0, 2, 2], weight[1, 0, 0, 0] = -9, 18
    images = torch.rand(3, 1, 5, 5, generator=torch.Generator().manual_seed(1))
    maps = your_own.method(Linear(weight), images, torch.tensor([0, 1, 1]))
    by_hand = torch.zeros(5, 5)
    by_hand[1:4, 1:4] += 1
    by_hand[:2, :2] += 2
    assert (maps[0] == 0).all() and not maps.requires_grad
    torch.testing.assert_close(maps[1:], by_hand.expand(2, 5, 5))


@pytest.mark.parametrize(
    ("kind", "given", "method", "options"),
    [
        (InputXGradient, {}, "input_x_gradient", {}),
        (IntegratedGradients, {"n_steps": 200}, "integrated_gradients", {"steps": 200}),
    ],
    ids=["input_x_gradient", "integrated_gradients"],
)
def test_maps_by_captum_are_ours(smooth, images, method, kind, given, options):
    theirs = your_own.by_captum(kind, smooth, images, TARGETS, **given)
    torch.testing.assert_close(theirs, sl.METHODS[method](smooth, images, TARGETS, **options), rtol=1e-3, atol=1e-5)


def test_maps_by_grad_cam_order_the_pixels_as_ours_do(relu_net, images):
    model = relu_net.eval()
    theirs = your_own.by_grad_cam(GradCAM, model, images, TARGETS)
    ours = sl.METHODS["gradcam"](model, images, TARGETS)
    assert theirs.shape == ours.shape == (5, 16, 16)
    known = ours.flatten(1).std(1) > 0
    assert known.any() and sl.rank_correlation(theirs[known], ours[known]).min() > 0.99


def test_pictures_are_read_as_they_were_written(tmp_path):
    images = torch.randint(0, 256, (3, 1, 8, 9), generator=torch.Generator().manual_seed(2)) / 255
    your_own.write(images, tmp_path)
    (tmp_path / "notes.txt").write_text("no picture")
    found = your_own.pictures(tmp_path, images[0])
    assert list(found) == ["00.png", "01.png", "02.png"]
    torch.testing.assert_close(torch.cat([*found.values()]), images)


def test_a_picture_gets_the_size_and_the_channels_of_the_network(tmp_path):
    Image.fromarray(np.full((30, 20, 3), (255, 0, 0), np.uint8)).save(tmp_path / "red.PNG")
    (red,) = your_own.pictures(tmp_path, torch.zeros(3, 7, 5)).values()
    assert torch.equal(red, torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1).expand(1, 3, 7, 5))
    assert your_own.pictures(tmp_path, torch.zeros(1, 4, 4))["red.PNG"].shape == (1, 1, 4, 4)


def test_a_folder_without_pictures_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no PNG or JPEG file in .*; name a folder with pictures"):
        your_own.pictures(tmp_path, torch.zeros(1, 4, 4))
    with pytest.raises(FileNotFoundError):
        your_own.pictures(tmp_path / "none", torch.zeros(1, 4, 4))
