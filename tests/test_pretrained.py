"""Published weights: loaded, damaged, missing."""

import hashlib
import re
from types import SimpleNamespace
from unittest import mock
from urllib.error import URLError

import pytest
import torch
import torchvision
from torch import nn

from saliency_lib import paths
from saliency_lib.data.table import DATASETS
from saliency_lib.networks import pretrained
from saliency_lib.networks.table import MODELS


def test_efficientnet_lite0_knows_what_the_photos_show():
    photos = DATASETS["photos"]()
    model = MODELS["efficientnet_lite0"](1000, pretrained=True).eval()
    with torch.no_grad():
        probability = model(photos.images).softmax(1)
    assert torch.equal(probability.argmax(1), photos.labels)
    of_label = dict(zip(photos.names, probability.gather(1, photos.labels[:, None])[:, 0].tolist(), strict=True))
    assert of_label["coffee"] > 0.94 and of_label["camera"] > 0.92


def test_pretrained_with_other_classes_keeps_all_but_the_head():
    whole = MODELS["efficientnet_lite0"](1000, pretrained=True).state_dict()
    part = MODELS["efficientnet_lite0"](5, pretrained=True).state_dict()
    differ = [key for key in whole if whole[key].shape != part[key].shape or not torch.equal(whole[key], part[key])]
    assert differ == ["network._fc.weight", "network._fc.bias"] and len(part["network._fc.bias"]) == 5


def _keep(state: dict[str, torch.Tensor], folder, monkeypatch):
    """Put weights where downloaded ones would lie, for whatever network is asked for; the file."""
    (folder / "weights").mkdir()
    torch.save(state, folder / "weights" / "new")
    digest = hashlib.sha256((folder / "weights" / "new").read_bytes()).hexdigest()
    file = (folder / "weights" / "new").rename(folder / "weights" / f"net-{digest[:8]}.pth")
    monkeypatch.setattr(pretrained, "_weights", lambda name: SimpleNamespace(url=f"https://nowhere/{file.name}"))
    monkeypatch.setattr(paths, "DATA", folder)
    return file


@pytest.mark.parametrize("name, options", (("squeezenet1_1", {}), ("googlenet", {"aux_logits": True, "init_weights": False})))
def test_stored_weights_are_loaded_without_auxiliary_heads(name, options, tmp_path, monkeypatch):
    state = torchvision.models.get_model(name, **options).state_dict()
    _keep(state, tmp_path, monkeypatch)
    model = MODELS[name](1000, pretrained=True)
    assert all(torch.equal(value, state[key]) for key, value in model.network.state_dict().items())
    assert getattr(model.network, "transform_input", True)
    few = MODELS[name](4, pretrained=True)
    kept = [
        key
        for key, value in few.network.state_dict().items()
        if value.shape == state[key].shape and torch.equal(value, state[key])
    ]
    assert len(model.network.state_dict()) - len(kept) == 2
    assert few.train()(torch.rand(2, 3, 64, 64)).shape == (2, 4)


def test_densenets_old_names_are_understood(tmp_path, monkeypatch):
    with torch.device("meta"):
        new = list(torchvision.models.densenet121().state_dict())
    old = {re.sub(r"(denselayer.*(?:norm|conv))([12])", r"\1.\2", key): torch.zeros(1) for key in new}
    assert set(old) != set(new)
    file = _keep(old, tmp_path, monkeypatch)
    assert list(pretrained._downloaded(f"https://nowhere/{file.name}")) == new


def test_missing_weights_name_folder_file_command_and_ways_out(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise URLError("no network")

    monkeypatch.setattr(paths, "DATA", tmp_path)
    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    with pytest.raises(
        FileNotFoundError, match=r"weights/.*no network.*curl -L -o .*resnet18-f37072fd\.pth https://.*lite0.*standard"
    ):
        MODELS["resnet18"](1000, pretrained=True)
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


def test_truncated_weights_are_an_error_that_names_the_file(tmp_path, monkeypatch):
    file = _keep({"weight": torch.zeros(9)}, tmp_path, monkeypatch)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match=rf"{file.name} is damaged .*delete it"):
        MODELS["resnet18"](1000, pretrained=True)


@pytest.mark.parametrize("name", torchvision.models.list_models(module=torchvision.models))
def test_every_network_is_normalised_as_its_weights_need_it(name):
    """The normalisation is asked of torchvision's own preprocessing, with a pixel of mean colour and one a deviation above it."""
    prepared = pretrained._weights(name).transforms()
    built = []
    with mock.patch.object(torchvision.models, "get_model", lambda *a, **k: built.append(nn.Identity()) or built[0]):
        model = MODELS[name](classes=10)
    for pixels in (torch.rand(1, 3, 8, 8), torch.zeros(1, 3, 8, 8)):
        expected = torchvision.transforms.functional.normalize(pixels, prepared.mean, prepared.std)
        torch.testing.assert_close(model.normalise(pixels), expected)
