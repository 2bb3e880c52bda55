"""The layer that class activation maps are made of: every path crosses it, and it has features at positions."""

import pytest
import torch
import torchvision
from torch import nn

import saliency_lib as sl
from saliency_lib.attribution.layers import Layout, crossings, find_layer, layout_of, spatial_layers, vertex_of


def name_of(model, images):
    """The default layer's dotted name, without the wrapper's."""
    layer = find_layer(model, None, images)
    return [name for name, module in model.named_modules() if module is layer][-1].removeprefix("network.")


def output_of(model, layer, images, replacement=None):
    """The logits, and the last output of a layer, which is replaced if another is given."""
    kept = []

    def swap(module, inputs, output):
        kept.append(output.clone())
        return output if replacement is None else replacement.clone()

    handle = layer.register_forward_hook(swap)
    with torch.no_grad():
        logits = model(images)
    handle.remove()
    return logits, kept[-1]


class Branches(nn.Module):
    """The class score is the mean of 2 x - x: one branch doubles the stem's output, the other one reverses its sign."""

    def __init__(self):
        super().__init__()
        self.stem, self.left, self.right = (nn.Conv2d(1, 1, 1, bias=False) for _ in range(3))
        for module, weight in ((self.stem, 1.0), (self.left, 2.0), (self.right, -1.0)):
            nn.init.constant_(module.weight, weight)

    def forward(self, images):
        stem = self.stem(images)
        return (self.left(stem) + self.right(stem)).mean((2, 3))


class Towers(nn.Module):
    """Two paths from the pixels, which meet after the positions are gone."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 5)

    def forward(self, images):
        return self.left(images).mean((2, 3)) + self.right(images).mean((2, 3))


class ChannelsLast(nn.Module):
    """A convolution whose output passes a norm with its channels last."""

    def __init__(self, channels=8, side=None):
        super().__init__()
        self.side, self.first, self.norm = side, nn.Conv2d(3, channels, 2, 2), nn.LayerNorm(channels)

    def forward(self, images):
        if self.side:
            images = nn.functional.interpolate(images, (self.side, self.side))
        return self.norm(self.first(images).permute(0, 2, 3, 1)).square().mean((1, 2))


def tiny_swin():
    """Swin with stages of 8x8x8 (channels and side are equal) and 4x4x16 at 32 pixels."""
    stages = dict(embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=[2, 2])
    return torchvision.models.SwinTransformer(patch_size=[4, 4], num_classes=3, **stages).eval()


def test_the_default_layer_lies_before_branches_and_its_map_is_that_of_their_sum_by_hand():
    images = torch.rand(2, 1, 6, 6)
    assert name_of(Branches(), images) == "stem"
    expected = images[:, 0] / 36  # the gradient of the mean of x is 1/36 everywhere
    torch.testing.assert_close(sl.METHODS["gradcam"](Branches(), images, torch.tensor([0, 0])), expected)


@pytest.mark.parametrize(
    ("name", "side"),
    [("resnet50", 64), ("resnet18", 32), ("shufflenet_v2_x0_5", 64), ("mobilenet_v2", 96), ("squeezenet1_1", 64), ("cnn", 28)],
)
def test_nothing_of_the_image_bypasses_the_default_layer(name, side):
    """With the layer's output for one image, the logits of another image are those of the first."""
    model, (one, other) = sl.MODELS[name]().eval(), torch.rand(2, 1, 3, side, side)
    layer = find_layer(model, None, one)
    logits, features = output_of(model, layer, one)
    swapped, _ = output_of(model, layer, other, features)
    assert min(features.shape[2:]) >= 4 or name == "cnn"
    torch.testing.assert_close(swapped, logits)
    assert not torch.equal(output_of(model, layer, other)[0], logits)


@pytest.mark.parametrize(
    ("name", "side", "expected"),
    [("resnet50", 64, "layer3"), ("resnet50", 128, "layer4"), ("densenet121", 64, "features.transition3.conv")],
)
def test_the_default_layer_is_the_last_stage_with_positions(name, side, expected):
    assert name_of(sl.MODELS[name](), torch.rand(1, 3, side, side)) == expected


def test_paths_cross_what_lies_before_and_after_a_shortcut_but_not_what_it_skips():
    image = torch.rand(3, requires_grad=True)
    before = image * 2
    skipped = before.exp()
    after = before + skipped
    part, rest = after.split([1, 2])  # one node with two outputs, which carry different pixels
    end = part.sum() * rest.sum()
    crossed = crossings(vertex_of(end), vertex_of(image))
    assert [vertex_of(tensor) in crossed for tensor in (image, before, skipped, after, part, end)] == [1, 1, 0, 1, 0, 1]


def test_a_model_whose_paths_meet_without_positions_needs_a_named_layer(images):
    with pytest.raises(
        ValueError, match=r"no layer of this model has features at positions that every path .* one of: left, right"
    ):
        sl.METHODS["gradcam"](Towers(), images)
    assert sl.METHODS["gradcam"](Towers(), images, layer="left").shape == (5, 16, 16)


def permuted_by_hand(model, images, layer, targets):
    """Grad-CAM of a layer with its channels last, by the formula."""
    kept = []
    handle = layer.register_forward_hook(lambda module, inputs, output: kept.append(output))
    score = model(images).gather(1, targets[:, None]).sum()
    handle.remove()
    weights = torch.autograd.grad(score, kept[-1])[0].mean((1, 2), keepdim=True)
    small = (weights * kept[-1]).sum(3).relu().detach()
    return nn.functional.interpolate(small[:, None], images.shape[2:], mode="bilinear")[:, 0]


@pytest.mark.parametrize("layer", ("features.1", "features.3", "norm", "permute"))
def test_channels_that_come_last_are_moved_first(layer):
    model, images, targets = tiny_swin(), torch.rand(2, 3, 32, 32), torch.tensor([0, 2])
    first = model.get_submodule("norm" if layer == "permute" else layer)
    expected = permuted_by_hand(model, images, first, targets)
    torch.testing.assert_close(sl.METHODS["gradcam"](model, images, targets, layer=layer), expected)


@pytest.mark.parametrize("variant", ("original", "pytorch_sidu"))
def test_sidu_takes_channels_that_come_last_as_those_that_come_first(variant):
    model, images = tiny_swin(), torch.rand(2, 3, 32, 32)
    maps = [sl.METHODS["sidu"](model, images, layer=layer, variant=variant, threshold=0.0) for layer in ("norm", "permute")]
    assert torch.equal(*maps) and maps[0].std() > 0


def test_the_default_layer_is_the_last_and_layers_inside_windows_have_no_positions():
    model, images = tiny_swin(), torch.rand(1, 3, 32, 32)
    assert name_of(model, images) == "permute"
    kinds = {name: layout.kind for name, (layout, _) in spatial_layers(model, images).items()}
    assert (
        kinds["features.0.0"] == kinds["permute"] == "channels_first" and kinds["norm"] == kinds["features.1"] == "channels_last"
    )
    assert "features.1.0.attn.qkv" not in kinds


@pytest.mark.parametrize("height, width, side", [(16, 16, None), (16, 24, None), (12, 40, None), (20, 20, 32)])
@pytest.mark.parametrize("channels", (4, 8, 10))
def test_channels_last_are_told_by_a_taller_image_or_by_the_proportions(channels, height, width, side):
    model, images = ChannelsLast(channels, side), torch.rand(2, 3, height, width)
    rows, columns = (side // 2, side // 2) if side else (height // 2, width // 2)
    found = spatial_layers(model, images)
    assert found["first"][0] == Layout("channels_first", rows, columns)
    assert found["norm"][0] == Layout("channels_last", rows, columns)
    assert layout_of(model, model.norm, torch.rand(2, rows, columns, channels), images) == found["norm"][0]


class Tokens(nn.Module):
    """A class token, or none, before 4x4 patches, two layers that mix the tokens, and what the head reads: one, or the mean."""

    def __init__(self, extra, pooled):
        super().__init__()
        self.patches, self.extra, self.pooled = nn.Conv2d(3, 6, 4, 4), nn.Parameter(torch.randn(1, extra, 6)), pooled
        self.first, self.second = Mixing(6, 16 + extra), Mixing(6, 16 + extra)
        self.norm, self.head = nn.LayerNorm(6), nn.Linear(6, 3)

    def forward(self, images):
        tokens = torch.cat([self.extra.expand(len(images), -1, -1), self.patches(images).flatten(2).mT], 1)
        tokens = self.norm(self.second(self.first(tokens)))
        return self.head(tokens[:, self.extra.shape[1] :].mean(1) if self.pooled else tokens[:, 0])


class Mixing(nn.Module):
    """Tokens plus a linear mix of all of them."""

    def __init__(self, width, tokens):
        super().__init__()
        self.inner, self.mix = nn.Linear(width, width), nn.Linear(tokens, tokens)

    def forward(self, tokens):
        return tokens + self.mix(self.inner(tokens).mT).mT


@pytest.mark.parametrize(
    "extra, pooled, expected", [(1, False, "first"), (5, False, "first"), (1, True, "norm"), (0, True, "norm")]
)
def test_tokens_have_positions_and_the_default_layer_is_the_last_whose_positions_the_logits_see(extra, pooled, expected):
    model, images = Tokens(extra, pooled), torch.rand(2, 3, 16, 16)
    assert name_of(model, images) == expected
    layout, complete = spatial_layers(model, images)[expected]
    assert layout == Layout("tokens", 4, 4, extra) and complete
    assert not spatial_layers(model, images)["first.inner"][1]  # the tokens themselves bypass it


def test_tokens_of_an_oblong_image_keep_its_proportions_and_the_order_of_the_rows():
    layout, values = Layout("tokens", 2, 3, 1), torch.arange(7.0).view(1, 7, 1)
    assert layout.maps(values).tolist() == [[[[1, 2, 3], [4, 5, 6]]]]


def test_series_whose_steps_happen_to_make_a_square_have_no_positions():
    assert not spatial_layers(sl.MODELS["lstm"](2), torch.rand(1, 1, 50, 50))  # 50 steps are not 7 x 7 and a class token


@pytest.mark.parametrize("method", ("gradcam", "sidu"))
def test_a_layer_without_positions_is_refused(method):
    with pytest.raises(ValueError, match=r"features at positions, \(B, K, h, w\).* got \(2, 3\); choose another layer"):
        sl.METHODS[method](tiny_swin(), torch.rand(2, 3, 32, 32), layer="head")
    model = tiny_swin()
    model.unused = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="does not use this layer"):
        sl.METHODS[method](model, torch.rand(2, 3, 32, 32), layer="unused")


def test_grad_cam_of_a_transformer_equals_that_of_pytorch_grad_cam_for_the_same_layer():
    reference = pytest.importorskip("pytorch_grad_cam")
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    model, images = sl.MODELS["cifar_vit"]().eval(), torch.rand(2, 3, 32, 32)
    cam = reference.GradCAM(
        model, [model.network.layers[2]], reshape_transform=lambda one: one[:, 1:].reshape(len(one), 8, 8, -1).permute(0, 3, 1, 2)
    )
    theirs = torch.from_numpy(cam(images, [ClassifierOutputTarget(k) for k in (3, 7)]))
    ours = sl.METHODS["gradcam"](model, images, torch.tensor([3, 7]))
    least, most = (getattr(ours.flatten(1), one)(1).view(-1, 1, 1) for one in ("amin", "amax"))
    torch.testing.assert_close((ours - least) / (most - least), theirs, atol=0.02, rtol=0)  # theirs adds 1e-7 when it rescales


def test_a_layer_with_as_many_channels_as_rows_is_accepted():
    model = nn.Sequential(nn.Conv2d(3, 8, 2, 2), nn.ReLU(), nn.Flatten(), nn.Linear(512, 3))  # 8x8x8, of one size alone
    assert sl.METHODS["gradcam"](model, torch.rand(2, 3, 16, 16), layer="1").shape == (2, 16, 16)


def test_a_layer_that_keeps_one_column_has_its_channels_first():
    model = nn.Sequential(nn.Conv2d(3, 16, (1, 16)), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    images = torch.rand(2, 3, 16, 16)  # the output is (16, 16, 1), with the proportions of channels that come last
    assert name_of(model, images) == "1" and sl.METHODS["gradcam"](model, images, layer="0").shape == (2, 16, 16)


def test_the_search_leaves_the_model_and_the_images_as_they_were():
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(196, 3))
    images = torch.randn(1, 3, 9, 9)
    before = images.clone()
    with torch.inference_mode():
        assert find_layer(model, None, images) is model[1]
    assert torch.equal(images, before) and model.training and not any(module._forward_hooks for module in model.modules())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
