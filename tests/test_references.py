"""Networks by reference: a file, a module, timm and Hugging Face give the network's own logits, and errors say what to do."""

import hashlib
import sys

import numpy as np
import pytest
import timm
import torch
import transformers
from PIL import Image
from safetensors.torch import save_file

import saliency_lib as sl
from saliency_lib import paths
from saliency_lib.data.splits import crop
from saliency_lib.networks import references
from saliency_lib.networks.table import Preparation

OWN = '''
"""Networks as somebody else would write them."""
import torch
import torch.nn.functional as F
from torch import nn

from saliency_lib.networks.pixels import PixelModel


class Functional(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(1, 8, 5, 2), nn.Conv2d(8, 16, 3, 2), nn.Linear(16, classes)

    def forward(self, x):
        return self.head(F.relu(self.second(F.relu(self.first(x)))).mean((2, 3)))


class Pair(Functional):
    def forward(self, x):
        return super().forward(x), x


class Named(Functional):
    def forward(self, x):
        return {"logits": super().forward(x)}


def ten():
    return PixelModel(Functional(10), (0.3,), (0.2,))


def seven():
    return PixelModel(Functional(7), (0.3,), (0.2,))


def pair():
    return Pair(10)


def named():
    return Named(10)


def half():
    return ten().half()


def script():
    return torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(784, 10)))


def nothing():
    return None


broken = 3
'''


@pytest.fixture
def data(outputs, tmp_path, monkeypatch):
    """A folder data/ of one's own."""
    monkeypatch.setattr(paths, "DATA", tmp_path / "data")
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


@pytest.fixture
def mynets(outputs, tmp_path, monkeypatch):
    """A module in the working folder."""
    (tmp_path / "mynets.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    sys.modules.pop("mynets", None)


def trained(model, dataset="mnist5k"):
    return sl.train(sl.Training(dataset, model))


# A file of weights.


def weights(data, name="mine", classes=10):
    torch.manual_seed(5)
    model = sl.MODELS["cnn"](classes, 1).eval()
    save_file(model.state_dict(), data / f"{name}.safetensors")
    return model


def test_a_file_of_weights_gives_the_network_that_was_saved(data):
    saved, pixels = weights(data), torch.rand(3, 1, 28, 28)
    found = trained("file:mine.safetensors?arch=cnn")
    torch.testing.assert_close(found.model.cpu()(pixels), saved(pixels))
    assert 0 <= found.accuracy <= 1 and "/" not in found.artefact.folder.name
    assert found.artefact.facts["weights"] == "file mine.safetensors"


def test_the_names_may_be_those_of_the_network_behind_the_normalisation(data):
    torch.manual_seed(5)
    network = sl.MODELS["squeezenet1_1"](10, 3).eval()
    save_file(network.network.state_dict(), data / "bare.safetensors")
    found = sl.MODELS["file:bare.safetensors?arch=squeezenet1_1&mean=0.5,0.4,0.3&std=0.2"](10, 3, True).eval()
    pixels, mean = torch.rand(1, 3, 40, 40), torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)
    torch.testing.assert_close(found(pixels), network.network((pixels - mean) / 0.2), rtol=1e-4, atol=1e-5)


def test_other_weights_in_the_file_are_another_artefact(data):
    weights(data)
    one = sl.Training("mnist5k", "file:mine.safetensors?arch=cnn").digest
    assert one == sl.Training("mnist5k", "file:mine.safetensors?arch=cnn").digest
    state = {name: value + 1 for name, value in weights(data, "other").state_dict().items()}
    save_file(state, data / "mine.safetensors")
    assert sl.Training("mnist5k", "file:mine.safetensors?arch=cnn").digest != one


@pytest.mark.parametrize(
    ("reference", "kind", "message"),
    [
        ("file:none.safetensors?arch=cnn", FileNotFoundError, "none.safetensors is missing; put the weights there"),
        ("file:mine.safetensors", ValueError, r"does not say of which network .*\?arch="),
        ("file:mine.safetensors?arch=cnm", ValueError, "model 'cnm' is not known; did you mean 'tcn'"),
        ("file:mine.safetensors?arch=sgt_cnn", ValueError, "are not those of this network .*missing: .*unknown: "),
        ("file:mine.safetensors?arch=cnn&classes=7", ValueError, r"other shapes: .*in place of \(7"),
        ("file:mine.safetensors?arch=cnn&classes=many", ValueError, "must be a whole number, got 'many'"),
        ("file:mine.safetensors?arch=cnn&mean=1,2", ValueError, "must be one or three numbers"),
        ("file:mine.safetensors?arch=cnn&sdt=1", ValueError, "'sdt' is not known; did you mean 'std'"),
        ("file:../mine.safetensors?arch=cnn", ValueError, "does not name something inside"),
        ("file:mine.pt?arch=cnn", ValueError, "must name a file of safetensors .* can run code"),
        ("file:bad.safetensors?arch=cnn", ValueError, "is damaged, or no safetensors"),
        ("fil:mine.safetensors", ValueError, "kind of reference to a model 'fil' is not known; did you mean 'file'"),
        ("timm:resnet81", ValueError, "timm network 'resnet81' is not known; did you mean 'resnet"),
        ("hf:nobody/nothing", FileNotFoundError, "config.json of nobody/nothing is not in the local cache, .*`hf download"),
        ("module:mynets", ValueError, "must be module:<package.module>:<function>"),
        ("module:no_such_package_here:x", ValueError, "needs the module 'no_such_package_here'"),
    ],
)
def test_a_wrong_reference_is_an_error_that_says_what_to_do(data, reference, kind, message):
    weights(data)
    (data / "bad.safetensors").write_bytes(b"not weights")
    with pytest.raises(kind, match=message):
        trained(reference)


# A function.


def test_the_weights_of_a_function_are_read_once_and_each_network_is_built_anew(mynets, monkeypatch):
    whole, calls = references._returned, []

    def counting(function, reference):
        calls.append(reference)
        return whole(function, reference)

    monkeypatch.setattr(references, "_returned", counting)
    training = sl.Training("mnist5k", "module:mynets:ten")
    assert len(calls) == 1 and training.digest and sl.Training("mnist5k", "module:mynets:ten") == training and len(calls) == 1
    one, other = sl.train(training).model, sl.train(training).model
    assert one is not other and len(calls) <= 4  # once for the artefact, and for each call


def test_a_function_gives_a_network_that_is_explained_and_measured(mynets):
    training = sl.Training("mnist5k", "module:mynets:ten")
    found = sl.explain(sl.Explanation(training, "gradient", stop=3))
    images = sl.load("mnist5k", stop=3).images
    torch.testing.assert_close(found.maps, sl.METHODS["gradient"](sl.train(training).model, images).cpu())
    assert training.recipe == "pretrained" and sl.Training("mnist5k", "module:mynets:ten").digest == training.digest
    with pytest.raises(ValueError, match="used with its own weights; choose the recipe pretrained"):
        sl.train(sl.Training("mnist5k", "module:mynets:ten", "standard"))


@pytest.mark.parametrize(
    ("function", "kind", "message"),
    [
        ("seven", ValueError, r"returns \(1, 7\) for one image, and the data set has 10 classes"),
        ("pair", TypeError, "returns tuple, not a tensor of logits"),
        ("named", TypeError, "returns dict, not a tensor of logits"),
        ("half", ValueError, r"does not take an image \(1, 1, 28, 28\) of float32"),
        ("script", ValueError, "returns a script module, whose layers cannot be read"),
        ("nothing", ValueError, "the model must be a torch.nn.Module, got NoneType"),
        ("broken", ValueError, "function of mynets 'broken' is not known"),
        ("tne", ValueError, "did you mean 'ten'"),
    ],
)
def test_a_network_that_does_not_fit_is_refused(mynets, function, kind, message):
    with pytest.raises(kind, match=message):
        trained(f"module:mynets:{function}")


# timm and Hugging Face.


def test_a_network_of_timm_is_normalised_as_its_configuration_says(monkeypatch, tmp_path):
    torch.manual_seed(0)
    own = timm.create_model("vit_tiny_patch16_224").eval()
    save_file(own.state_dict(), tmp_path / "model.safetensors")
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda repository, name: str(tmp_path / name))
    entry = sl.MODELS["timm:vit_tiny_patch16_224"]
    assert entry.content == hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest()
    model = entry(1000, 3, True).eval()
    facts = timm.data.resolve_data_config({}, model=own)
    assert (entry.preparation.side, entry.preparation.resize) == (224, int(224 / facts["crop_pct"]))
    whole = timm.data.create_transform(**facts)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 280, 3), dtype=np.uint8))
    plain = timm.data.create_transform(**facts | {"mean": (0, 0, 0), "std": (1, 1, 1)})
    with torch.no_grad():
        torch.testing.assert_close(model(plain(picture)[None]), own(whole(picture)[None]), rtol=1e-4, atol=1e-5)


def test_weights_of_timm_that_are_not_in_the_cache_are_not_downloaded(monkeypatch):
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda repository, name: None)
    with pytest.raises(FileNotFoundError, match=r"not in the local cache, .*`hf download timm/resnet18.* model.safetensors`"):
        sl.MODELS["timm:resnet18"](1000, 3, True)
    assert sl.MODELS["timm:resnet18"](7, 1)(torch.rand(2, 1, 40, 40)).shape == (2, 7)


def test_a_folder_of_hugging_face_gives_its_logits(data):
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=32,
        patch_size=8,
        num_labels=10,
    )
    own = transformers.ViTForImageClassification(config).eval()
    own.save_pretrained(data / "mine")
    processor = transformers.ViTImageProcessor(size={"height": 32, "width": 32}, image_mean=[0.1, 0.2, 0.3], image_std=[0.5] * 3)
    processor.save_pretrained(data / "mine")
    entry = sl.MODELS["hf:mine"]
    model, pixels = entry(10, 3, True).eval(), torch.rand(2, 3, 32, 32)
    expected = own(pixel_values=(pixels - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / 0.5).logits
    torch.testing.assert_close(model(pixels), expected, rtol=1e-4, atol=1e-5)
    assert entry.preparation == Preparation(32, 32, "bilinear", (0.1, 0.2, 0.3), (0.5,) * 3, stretched=True)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 60, 3), dtype=np.uint8))
    read = torch.from_numpy(np.array(crop(picture, 32, 1.0, "bilinear", True))).permute(2, 0, 1)[None] / 255
    theirs = own(**processor(picture, return_tensors="pt")).logits
    torch.testing.assert_close(model(read), theirs, rtol=1e-3, atol=1e-3)
    assert sl.MODELS["hf:mine"](4, 3)(pixels).shape == (2, 4)
    file = data / "mine" / "preprocessor_config.json"
    file.write_text(file.read_text().replace('"resample": 2', '"resample": 1'))
    with pytest.raises(ValueError, match=r"has size .* and resample 1; it must"):
        sl.MODELS["hf:mine"]
    (data / "mine" / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors is missing in .*`save_pretrained`"):
        sl.MODELS["hf:mine"]
