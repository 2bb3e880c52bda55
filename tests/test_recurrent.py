"""The networks of time series."""

import pytest
import torch
from torch import nn

import saliency_lib as sl
from saliency_lib.networks.recurrent import CausalBlock, CellAttention, Encoder
from saliency_lib.training.loop import fit

NETWORKS = ("lstm", "lstm_cell_attention", "tcn", "transformer")


@pytest.fixture
def series():
    """Three short series of ten features."""
    return torch.randn(3, 12, 10, generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=NETWORKS)
def network(request):
    torch.manual_seed(0)
    return sl.MODELS[request.param](classes=4, features=10)


def test_a_series_and_its_image_of_one_channel_have_the_same_logits(network, series):
    assert network.train()(series).shape == (3, 4)
    assert torch.equal(network.eval()(series), network(series[:, None]))


def test_a_series_is_classified_alike_alone_and_in_a_batch_with_gradients_in_evaluation(network, series):
    logits = network.eval()(series.requires_grad_())
    torch.testing.assert_close(network(series[1:2]), logits[1:2], rtol=1e-4, atol=1e-6)
    (gradient,) = torch.autograd.grad(logits[:, 1].sum(), series)
    assert gradient.isfinite().all() and gradient.abs().sum(2).ne(0).float().mean() > 0.5


def test_what_is_no_series_of_these_features_is_refused(network):
    for shape in ((2, 12, 9), (2, 3, 12, 10), (12, 10), (2, 1, 10, 12)):
        with pytest.raises(ValueError, match=r"needs series \(B, T, 10\) or \(B, 1, T, 10\), got"):
            network(torch.zeros(shape))


def test_bad_sizes_of_networks_are_refused():
    with pytest.raises(ValueError, match=r"channels of .* must be 1 \(grey\), got 3"):
        sl.MODELS["lstm"](channels=3)
    with pytest.raises(ValueError, match="must be a multiple of 5, the number of its heads, got 12"):
        sl.MODELS["transformer"](features=12)
    with pytest.raises(ValueError, match="tcn has no pretrained weights"):
        sl.MODELS["tcn"](pretrained=True)


def test_the_networks_have_as_many_parameters_as_counted_by_hand():
    recurrent = 4 * 5 * (50 + 5 + 2)
    attention = 50 * 50 + 50 + 50 * 10 + 10
    first, second = (4 * 50 * 5 + 5) + (4 * 5 * 5 + 5) + (50 * 5 + 5), 2 * (4 * 5 * 5 + 5)
    third = (4 * 5 * 50 + 50) + (4 * 50 * 50 + 50) + (5 * 50 + 50)
    layer = 4 * (50 * 50 + 50) + (50 * 400 + 400) + (400 * 50 + 50) + 4 * 50
    counted = {
        "lstm": recurrent + 5 * 2 + 2,
        "lstm_cell_attention": recurrent + attention + 5 * 2 + 2,
        "tcn": first + second + third + 50 * 2 + 2,
        "transformer": 6 * layer + 2 * 50 + 50 * 2 + 2,
    }
    for name, count in counted.items():
        assert sum(parameter.numel() for parameter in sl.MODELS[name](classes=2).parameters()) == count


def test_input_cell_attention_without_a_preference_gives_the_mean_of_the_steps_so_far(series):
    attention = CellAttention(10)
    nn.init.zeros_(attention.score[2].weight)
    expected = series.cumsum(1) / torch.arange(1, 13).view(-1, 1)
    torch.testing.assert_close(attention(series), expected)


@pytest.mark.parametrize(
    "part",
    [lambda x: CellAttention(10)(x), lambda x: CausalBlock(10, 5, 2)(x.transpose(1, 2)[..., None])[..., 0].transpose(1, 2)],
    ids=["attention", "convolution"],
)
def test_a_step_knows_nothing_of_later_ones(part, series):
    torch.manual_seed(0)
    (gradient,) = torch.autograd.grad(part(series.requires_grad_())[:, 6].sum(), series)
    assert gradient[:, :7].any() and not gradient[:, 7:].any()


def test_a_step_of_the_transformer_knows_nothing_of_later_ones(series):
    torch.manual_seed(0)
    encoder, kept = Encoder(10).eval(), []
    encoder.layers.register_forward_hook(lambda module, inputs, output: kept.append(output))
    encoder(series.requires_grad_())
    (gradient,) = torch.autograd.grad(kept[0][:, 6].square().sum(), series)
    assert gradient[:, :7].any() and not gradient[:, 7:].any()


@pytest.mark.slow
def test_a_network_learns_whether_the_box_is_raised():
    settings = sl.Training().settings | {"epochs": 3, "batch_size": 50}
    train, test = (sl.DATASETS["series_gaussian_moving_middle"](split, stop=500) for split in ("train", "test"))
    torch.manual_seed(0)
    model = sl.MODELS["tcn"](classes=2)
    history = fit(model, train.images, train.labels, settings, seed=0, test=(test.images, test.labels))
    assert history[-1]["test_accuracy"] > 0.9


@pytest.mark.skipif(not torch.cuda.is_available(), reason="cuDNN runs on a GPU only")
@pytest.mark.parametrize("name", ["lstm", "lstm_cell_attention"])
def test_a_recurrent_network_has_a_gradient_in_evaluation_on_a_gpu(name, series):
    torch.manual_seed(0)
    model = sl.MODELS[name](classes=2, features=10)
    expected = sl.METHODS["gradient"](model, series)
    torch.testing.assert_close(sl.METHODS["gradient"](model.cuda(), series.cuda()).cpu(), expected, rtol=1e-3, atol=1e-5)
    model.train()(series.cuda()).sum().backward()
