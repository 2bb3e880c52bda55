"""The layer that class activation maps are made of: every path crosses it, and its channels come first."""

import pytest
import torch
import torchvision
from torch import nn

import saliency_lib as sl
from saliency_lib.attribution.layers import channels_last, every_path_crosses, find_layer, spatial_layers


class Branches(nn.Module):
    """Two branches that are added; `left` finishes last, and `joined` is the last layer that both cross."""

    def __init__(self, both=True):
        super().__init__()
        self.both = both
        self.stem, self.right = nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 2, 1)
        self.left = nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.Tanh())

    def forward(self, images):
        joined = self.stem(images)
        right = self.right(joined) if self.both else 0
        return (right + self.left(joined)).mean((2, 3))


def name_of(model, module):
    return next(name for name, one in model.named_modules() if one is module)


def fixed_by(model, module, images):
    """Whether two images have the same logits if the module's last output is the same for both."""
    outputs, calls = [], []
    handle = module.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    with torch.no_grad():
        model(images[:1])
    handle.remove()
    constant = torch.randn(outputs[-1].shape)

    def put(module, inputs, output):
        calls.append(1)
        return constant if len(calls) % len(outputs) == 0 else None

    handle = module.register_forward_hook(put)
    with torch.no_grad():
        one, other = model(images[:1]), model(images[1:2])
    handle.remove()
    return torch.equal(one, other)


def test_a_layer_inside_a_branch_is_passed_over():
    images = torch.rand(2, 1, 8, 8)
    both, single = Branches(), Branches(both=False)
    assert name_of(both, find_layer(both, None, images)) == "stem"
    assert name_of(single, find_layer(single, None, images)) == "left"
    assert fixed_by(both, both.stem, images) and not fixed_by(both, both.left, images)
    candidates = spatial_layers(both, images)
    assert [name for name, one in candidates.items() if every_path_crosses(both, both.get_submodule(name), one.uses, images)] == [
        "stem"
    ]


@pytest.mark.parametrize("side", [64, 96])
@pytest.mark.parametrize(
    "name", ["resnet50", "mobilenet_v3_small", "shufflenet_v2_x0_5", "regnet_y_400mf", "swin_t", "convnext_tiny"]
)
def test_the_default_layer_of_torchvisions_networks_is_a_cut_with_channels_first(name, side):
    model, images = sl.MODELS[name](classes=3, side=1).eval(), torch.rand(2, 3, side, side)
    module = find_layer(model, None, images)
    assert fixed_by(model, module, images)
    sizes = spatial_layers(model, images)[name_of(model, module)].size
    assert min(sizes) >= 4 and sizes[0] == sizes[1]


def test_resnet_50_at_64_pixels_takes_its_third_stage():
    """Of its fourth stage only a module inside a branch has 4 x 4 positions, before the stride."""
    model, images = sl.MODELS["resnet50"](classes=3, side=1).eval(), torch.rand(1, 3, 64, 64)
    assert name_of(model, find_layer(model, None, images)) == "network.layer3"
    large = torch.rand(1, 3, 128, 128)
    assert name_of(model, find_layer(model, None, large)) == "network.layer4"


def test_a_module_that_is_used_twice_is_cut_at_its_last_use():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.again = nn.Conv2d(1, 1, 1), nn.Tanh()

        def forward(self, images):
            early = self.again(self.first(images))
            return (early + self.again(early)).mean((2, 3)).expand(-1, 2)

    model, images = Twice(), torch.rand(1, 1, 8, 8)
    assert name_of(model, find_layer(model, None, images)) == "first"  # the second use does not carry `early`


@pytest.mark.parametrize("method", ["gradcam", "sidu"])
def test_a_layer_with_channels_last_is_refused(method):
    network = torchvision.models.SwinTransformer([4, 4], 8, [2], [2], [4, 4], num_classes=3).eval()
    images = torch.rand(1, 3, 32, 32)
    with pytest.raises(ValueError, match=r"\(1, 16, 16, 8\) has its channels last"):
        sl.METHODS[method](network, torch.rand(1, 3, 64, 64), layer="features.1")
    assert sl.METHODS[method](network, images, torch.tensor([0])).shape == (1, 32, 32)


def test_the_proportions_of_the_image_tell_channels_last():
    square, wide = torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 64)
    assert channels_last(torch.rand(1, 7, 7, 96), square) and not channels_last(torch.rand(1, 96, 7, 7), square)
    assert channels_last(torch.rand(1, 4, 8, 96), wide) and not channels_last(torch.rand(1, 96, 4, 8), wide)
    assert not channels_last(torch.rand(1, 7, 7, 7), square)


def test_no_cut_at_all_is_an_error_that_names_candidates():
    class Parallel(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Conv2d(1, 2, 1), nn.Conv2d(1, 2, 1)

        def forward(self, images):
            return (self.one(images) + self.two(images)).mean((2, 3))

    with pytest.raises(ValueError, match=r"lies on every path from the image to the logits.*instance of two, one"):
        find_layer(Parallel(), None, torch.rand(1, 1, 8, 8))
