"""Published weights: loaded, damaged, missing."""

import hashlib
import re
from types import SimpleNamespace
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file

import saliency_lib as sl
from saliency_lib import paths
from saliency_lib.artefacts import inputs, parts
from saliency_lib.data.table import DATASETS
from saliency_lib.networks import pretrained, residual
from saliency_lib.networks.pixels import Normalise
from saliency_lib.networks.table import MODELS, Preparation
from saliency_lib.notebook.explorer import choices


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


# How pictures are prepared.

CLASSIFIERS = torchvision.models.list_models(module=torchvision.models)


def own_of(name):
    """Torchvision's preparation for the weights of a classifier."""
    table = torchvision.models.get_model_weights(name)
    return next(weights for weights in table if str(weights) in MODELS[name].weights.split()[-1]).transforms()


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier_is_normalised_as_its_weights_were(name, monkeypatch):
    built = []
    monkeypatch.setattr(pretrained, "PixelModel", lambda network, mean, std, resize: built.append((mean, std)))
    monkeypatch.setattr(torchvision.models, "get_model", lambda *_, **__: None)
    monkeypatch.setattr(pretrained, "load_weights", lambda *_: None)
    monkeypatch.setattr(pretrained, "_downloaded", lambda url: {})
    for channels, weights in ((3, True), (3, False), (1, True)):
        MODELS[name](1000, channels, weights)
    (mean, std), scratch, (grey, _) = built
    assert (list(mean), list(std)) == (own_of(name).mean, own_of(name).std)
    assert scratch == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)) and grey == (pytest.approx(sum(mean) / 3),)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_pictures_of_an_explanation_are_prepared_as_for_the_weights(name, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "DATA", tmp_path)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (260, 300, 3), dtype=np.uint8))
    (tmp_path / "imagenet_samples" / "n01440764").mkdir(parents=True)
    picture.save(tmp_path / "imagenet_samples" / "n01440764" / "a.png")
    inputs.forget()
    spec = sl.Explanation(sl.Training("imagenet_samples", name), "random")
    ours, theirs = Normalise(own_of(name).mean, own_of(name).std)(sl.images_of(spec).images), own_of(name)(picture)[None]
    inputs.forget()
    torch.testing.assert_close(ours, theirs)


def test_the_photos_stay_as_they_are_for_the_usual_preparation_and_for_our_networks():
    bicubic = sl.DATASETS["photos"](stop=2).images
    for name in ("efficientnet_lite0", "resnet50", "vit_b_16"):
        assert torch.equal(sl.images_of(sl.Explanation(sl.Training("photos", name), stop=2)).images, bicubic)
    assert sl.images_of(sl.Explanation(sl.Training("photos", "inception_v3"), stop=2)).images.shape == (2, 3, 299, 299)
    tuned = sl.Training("mnist5k", "inception_v3", "fine_tuning")
    assert inputs.preparation_of(tuned, "photos") is None


def test_a_digest_holds_the_preparation_if_the_weights_are_used_and_it_is_not_the_usual_one():
    unusual = {name for name in CLASSIFIERS if "preparation" in sl.Training("photos", name).implied()}
    assert {"inception_v3", "convnext_tiny", "efficientnet_b7"} < unusual
    assert unusual.isdisjoint({"resnet50", "vgg16", "densenet121", "vit_b_16"}) and len(unusual) == 31
    assert sl.Training("photos", "inception_v3").implied()["preparation"] == {"side": 299, "resize": 342}
    for recipe in ("standard", "fine_tuning"):  # these pictures are those of the data set
        assert "preparation" not in sl.Training("mnist5k", "inception_v3", recipe).implied()
    halves = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
    assert sl.Training("mnist5k", "efficientnet_v2_l", "fine_tuning").implied()["preparation"] == halves
    assert "preparation" not in sl.Training("mnist5k", "efficientnet_v2_l").implied()


# Weights that are put into data/weights.


@pytest.mark.parametrize("name", ["cifar_resnet20", "squeezenet1_0_compressed"])
def test_weights_that_are_not_there_are_asked_for_by_file_and_origin(name, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "DATA", tmp_path)
    with pytest.raises(
        FileNotFoundError, match=r"weights/\w+.safetensors is missing; convert the weights of the repository \w+/"
    ):
        MODELS[name](pretrained=True)


def test_weights_that_are_damaged_or_others_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "DATA", tmp_path)
    (tmp_path / "weights").mkdir()
    file, state = tmp_path / "weights" / "cifar10_resnet20.safetensors", MODELS["cifar_resnet20"]().network.state_dict()
    save_file(state, file)
    with pytest.raises(ValueError, match="does not hold the weights of the repository akamaster/pytorch_resnet_cifar10"):
        MODELS["cifar_resnet20"](pretrained=True)
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"cifar10_resnet20.safetensors is damaged"):
        MODELS["cifar_resnet20"](pretrained=True)


def test_published_weights_of_cifar10_are_for_cifar10(monkeypatch):
    assert sl.Training("cifar10", "cifar_resnet20").recipe == "pretrained"
    assert sl.Training("cifar100", "cifar_resnet20").recipe == sl.Training("cifar10", "resnet18").recipe == "standard"
    with pytest.raises(
        ValueError, match="published weights of cifar_resnet20 predict the classes of cifar10, and dataset 'photos'"
    ):
        sl.Training("photos", "cifar_resnet20")
    with pytest.raises(ValueError, match="published weights of resnet18 predict ImageNet's 1,000 classes, and dataset 'cifar10'"):
        sl.Training("cifar10", "resnet18", "pretrained")


def has(*names):
    """A mark for tests of data that a checkout does not hold."""
    absent = [name for name in names if not (paths.DATA / name).exists()]
    return pytest.mark.skipif(bool(absent), reason=f"data/ has no {' and no '.join(absent)}")


def accuracy_of(dataset, name, count):
    spec = sl.Explanation(sl.Training(dataset, name), "random", stop=count)
    images = sl.images_of(spec)
    return float((sl.predict(inputs.new_model(spec.training).eval(), images.images)[1] == images.labels).float().mean())


@has("cifar10", "weights/cifar10_resnet56.safetensors")
@pytest.mark.slow
@pytest.mark.parametrize(("depth", "least"), [(20, 0.91), (32, 0.92), (44, 0.92), (56, 0.93)])
def test_the_residual_networks_know_cifar10(depth, least):
    assert accuracy_of("cifar10", f"cifar_resnet{depth}", 1000) >= least


@has("imagenet_samples", "weights/squeezenet1_0.safetensors")
@pytest.mark.slow
def test_the_compressed_squeezenet_knows_imagenet():
    assert accuracy_of("imagenet_samples", "squeezenet1_0_compressed", 600) >= 0.62


@has("imagenet_samples")
@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 2])
def test_the_larger_efficientnets_know_imagenet(number):
    assert accuracy_of("imagenet_samples", f"efficientnet_lite{number}", 100) >= 0.8


@pytest.mark.parametrize("recipe", ["fine_tuning", "fine_tuning:shapes"])
def test_a_network_that_knows_cifar10_is_tuned_without_its_images(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(residual, "stored", lambda *_: MODELS["cifar_resnet20"]().network.state_dict())
    monkeypatch.setattr(paths, "DATA", tmp_path)
    spec = sl.Training("shapes", "cifar_resnet20", recipe)
    assert inputs.new_model(spec)(torch.rand(2, 3, 64, 64)).shape == (2, len(inputs.classes_of("shapes")))


def test_a_stretched_picture_loses_nothing_of_its_longer_side(tmp_path, monkeypatch):
    wide = Image.new("RGB", (512, 256), "black")
    wide.paste("white", (0, 0, 64, 256))  # the left eighth
    prepared = [Preparation(227, 256, stretched=stretched) for stretched in (True, False)]
    (tmp_path / "imagenet_samples" / "n01440764").mkdir(parents=True)
    wide.save(tmp_path / "imagenet_samples" / "n01440764" / "a.png")
    monkeypatch.setattr(paths, "DATA", tmp_path)
    inputs.forget()
    loaded = [parts.borrow(parts.Part("imagenet_samples", preparation=one)).images for one in prepared]
    inputs.forget()
    for kept, lost in (loaded, [choices.fit(wide, "photos", one) for one in prepared]):
        assert kept.shape == (1, 3, 227, 227)
        assert kept[0, 0, 100, :15].min() > 0.9 and kept[0, 0, 100, 22:].max() < 0.1 and lost.max() < 0.1


@pytest.mark.parametrize("depth", [20, 56])
def test_a_shortcut_of_a_residual_network_skips_positions_and_adds_zeros(depth):
    network = MODELS[f"cifar_resnet{depth}"]().eval().network
    assert sum(isinstance(module, torch.nn.Conv2d | torch.nn.Linear) for module in network.modules()) == depth
    block, features = network.layer2[0], torch.rand(1, 16, 8, 8)
    torch.nn.init.zeros_(block.bn2.weight)
    out = block(features)
    assert torch.equal(out[:, 8:24], features[:, :, ::2, ::2]) and not out[:, :8].any() and not out[:, 24:].any()
