"""Heads of networks: replaced, appended, and found."""

from typing import get_args

import pytest
import torch

import saliency_lib as sl
from saliency_lib.networks.heads import HEADS, head_of, with_head
from saliency_lib.training.settings import Settings


@pytest.mark.slow
@pytest.mark.parametrize("head", list(HEADS))
@pytest.mark.parametrize(
    "name", ["resnet18", "vgg11", "densenet121", "mobilenet_v2", "convnext_tiny", "efficientnet_lite0", "cnn"]
)
def test_a_new_head_gives_as_many_logits_as_there_are_classes(name, head):
    network = with_head(sl.MODELS[name](classes=20), 7, head).eval()
    assert network(torch.rand(2, 3, 64, 64)).shape == (2, 7)
    trained = sum(parameter.numel() for parameter in head_of(network).parameters())
    read = {"resnet18": 512, "vgg11": 25088, "mobilenet_v2": 1280, "cnn": 128}.get(name)
    if read and head == "two_layers":
        assert trained == read * 64 + 64 + 64 * 7 + 7
    if head == "appended":
        assert trained == 20 * 7 + 7


def test_a_network_without_a_linear_layer_has_no_head():
    with pytest.raises(ValueError, match="has no linear layer, so it has no head to replace or to train alone"):
        with_head(sl.MODELS["squeezenet1_1"](classes=5), 3, "linear")
    with pytest.raises(ValueError, match="head must be one of linear, appended, two_layers, got 'mlp'"):
        with_head(sl.MODELS["cnn"](), 3, "mlp")


def test_the_heads_that_a_recipe_may_name_are_those_that_a_network_can_get():
    assert set(get_args(Settings.model_fields["head"].annotation)) == {None, "kept", *HEADS}
