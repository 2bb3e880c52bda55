"""The explorer of a network and pictures of the reader's own, without a browser."""

import base64
import io
import warnings
from datetime import UTC, datetime

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import saliency_lib as sl
from saliency_lib.notebook.explorer import Explorer

pytestmark = pytest.mark.slow

METHODS = ("gradient", "gradcam", "edges")


class Small(nn.Module):
    """A small network of colour images of any size."""

    def __init__(self, outputs=4, channels=3):
        super().__init__()
        torch.manual_seed(6)
        self.body = nn.Sequential(nn.Conv2d(channels, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 6, 3, padding=1), nn.ReLU())
        self.head = nn.Linear(6, outputs)

    def forward(self, images):
        return self.head(self.body(images).mean((2, 3)))


class Named(Small):
    def forward(self, images):
        return {"logits": super().forward(images)}


def pictures(count=3, channels=3, height=20, width=28):
    return torch.rand(count, channels, height, width, generator=torch.Generator().manual_seed(7))


made = []  # the explorers of a test


@pytest.fixture(autouse=True)
def _ended():
    """End the threads of a test's explorers."""
    yield
    while made:
        made.pop()._worker._pool.shutdown()


def explorer(model=None, images=None, **options):
    options = {"methods": METHODS, "steps": 5} | options
    made.append(Explorer(model=model or Small(), images=pictures() if images is None else images, **options))
    return made[-1].wait()


def file(folder, name="one.png", size=(60, 40), left="black", right="white"):
    picture = Image.new("RGB", size, left)
    picture.paste(right, (size[0] // 2, 0, *size))
    picture.save(folder / name)
    return folder / name


def upload(shown, path):
    """What the browser sends when a file is chosen."""
    content = path.read_bytes()
    shown.upload.value = (
        {"name": path.name, "type": "image/png", "size": len(content), "content": content, "last_modified": datetime.now(UTC)},
    )
    return shown.wait()


def test_the_maps_curves_and_probabilities_are_those_of_the_library():
    model, images = Small(), pictures()
    own = explorer(model, images, classes=["cat", "dog", "cow", "pig"], image=1)
    logits = model(images[1:2])[0].detach()
    best = int(logits.argmax())
    assert own.shown.target == best and own.problem.value == ""
    assert own.shown.probabilities[best] == pytest.approx(float(logits.softmax(0)[best]), abs=1e-6)
    for name in METHODS:
        torch.testing.assert_close(own.shown.maps[name], sl.METHODS[name](model, images[1:2])[0])
    own.compute_deletion()
    own.wait()
    maps = torch.stack([own.shown.maps[name] for name in METHODS])
    curve = sl.METRICS["deletion"](model, images[1:2].expand(3, -1, -1, -1), maps, best, steps=5)
    for row, name in enumerate(METHODS):
        torch.testing.assert_close(torch.tensor(own.shown.curves[name][1]), curve.values[row])
    assert f"picture 1: your network says {['cat', 'dog', 'cow', 'pig'][best]} with" in own.words.value
    assert list(own.dataset.options) == ["your pictures"] and list(own.network.options) == ["your network"]


def test_the_widgets_choose_a_picture_a_class_and_methods():
    own = explorer()
    assert own.number.max == 2 and not own.by_hand and own.target.options[0][0].startswith("class ")
    own.number.value = 2
    assert own.wait().shown.name == "picture 2" and torch.equal(own.shown.image, pictures()[2:3]) and own.by_hand
    other = own.target.options[1][1]
    own.target.value = other
    torch.testing.assert_close(own.wait().shown.maps["gradient"], sl.METHODS["gradient"](Small(), pictures()[2:3], other)[0])
    own.methods.value = ("occlusion",)
    assert "its maps by occlusion" in own.wait().maps.value and own.problem.value == ""
    own.number.value = 99
    assert own.wait().shown.name == "picture 2"


def test_names_of_classes_are_text_in_html():
    own = explorer(classes=["<b>&</b>"] * 4)
    own.compute_deletion()
    seen = own.wait().words.value + own.maps.value + own.curves.value
    assert "&lt;b&gt;&amp;&lt;/b&gt;" in own.words.value and "<b>" not in seen


@pytest.mark.parametrize(("channels", "expected"), [(3, (1, 3, 20, 28)), (1, (1, 1, 20, 28))])
def test_an_uploaded_picture_takes_the_size_and_the_channels_of_the_pictures(channels, expected, tmp_path):
    own = explorer(Small(channels=channels), pictures(channels=channels))
    upload(own, file(tmp_path, "<mine>.png"))
    assert own.problem.value == "" and own.shown.name == "<mine>.png" and own.shown.image.shape == expected
    assert own.shown.image[..., :12].max() < 0.05 and own.shown.image[..., 16:].min() > 0.95
    assert "<mine>" not in own.words.value and own.by_hand
    own.number.value = 1
    assert own.wait().shown.name == "picture 1"


def test_files_are_brought_to_squares(tmp_path):
    files = [file(tmp_path, "a.png"), str(file(tmp_path, "b$_$.png", left="red", right="red"))]
    own = explorer(images=files, side=32)
    assert own.shown.name == "a.png" and own.shown.image.shape == (1, 3, 32, 32)
    assert own.shown.image[..., :14].max() < 0.05 and own.shown.image[..., 18:].min() > 0.95
    own.number.value = 1
    assert own.wait().shown.name == "b$_$.png" and own.problem.value == ""
    torch.testing.assert_close(own.shown.image, torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1).expand(1, 3, 32, 32))
    assert explorer(images=files[:1], methods=("edges",)).shown.image.shape == (1, 3, 224, 224)


def test_a_file_that_is_deleted_later_is_said_in_the_widget(tmp_path):
    files = [file(tmp_path, "a.png"), file(tmp_path, "b.png")]
    own = explorer(images=files, side=16)
    files[1].unlink()
    own.number.value = 1
    assert "b.png cannot be read as an image (it is not a file)" in own.wait().problem.value and own.shown.name == "a.png"


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_a_network_of_another_precision_gets_pictures_of_its_own(kind):
    own = explorer(Small().to(kind), methods=(*METHODS, "rise", "sidu"), options={"rise": {"masks": 16}})
    own.compute_deletion()
    assert own.wait().problem.value == "" and set(own.shown.curves) == {*METHODS, "rise", "sidu"}
    assert all(values.dtype == torch.float32 and values.isfinite().all() for values in own.shown.maps.values())
    assert own.shown.says()[0] == explorer().shown.says()[0]


def test_a_script_module_has_the_maps_that_need_no_layer():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the age of torch.jit.trace
        traced = torch.jit.trace(Small(), pictures())
    own = explorer(traced, methods=("gradient", "gradcam", "guided_backprop"))
    assert set(own.shown.maps) == {"gradient"}
    assert "gradcam gave no map: the model is a script module, whose layers cannot be read" in own.problem.value
    assert "guided backprop gave no map: the model is scripted or compiled" in own.problem.value


@pytest.mark.parametrize(("classes", "word"), [(None, "the number"), (["price"], "price")])
def test_a_number_is_explored_and_no_probability_is_said(classes, word):
    number = sl.Scalar(Named(), lambda output: 0 * output["logits"][:, 1] + 1234.5)
    own = explorer(number, classes=classes)
    own.compute_deletion()
    assert own.wait().problem.value == "" and f"your network gives {word}, 1234.5." in own.words.value
    assert own.target.options == ((f"{word}, 1234.5", 0),)
    (axes,) = own.curve_figure().axes
    low, high = axes.get_ylim()
    assert axes.get_ylabel() == word and 1 < low < 1234.5 < high
    assert "%" not in own.maps_figure().axes[0].get_title()


def test_the_explorer_leaves_the_model_and_the_images_as_they_were():
    model, images = Small().train(), pictures()
    explorer(model, images).compute_deletion()
    assert model.training and all(weight.requires_grad and weight.grad is None for weight in model.parameters())
    assert torch.equal(images, pictures()) and not any(part._forward_hooks for part in model.modules())


BAD = [
    ({"images": 2 * pictures()}, r"must be in \[0, 1\], and these range from .* sl\.PixelModel\(network, mean, std\)"),
    ({"images": pictures() - 0.5}, r"must be in \[0, 1\]"),
    ({"images": (255 * pictures()).byte()}, "divide bytes by 255"),
    ({"images": pictures().numpy()}, r"torch\.from_numpy\(images\)"),
    ({"images": pictures()[0]}, r"images\[None\]"),
    ({"images": pictures() * float("nan")}, "contain NaN or infinity"),
    ({"images": pictures(channels=5)}, r"one channel or three, .* got \(3, 5, 20, 28\)"),
    ({"images": pictures(channels=1)}, r"fails on the first picture \(1, 1, 20, 28\): .* size and the channels that it takes"),
    ({"images": []}, "an empty list"),
    ({"images": list(pictures())}, r"got a list with Tensor of shape .* torch\.stack"),
    ({"images": "a.png"}, r"write \['a.png'\]"),
    ({"images": ["nothing.png"]}, r"nothing\.png cannot be read as an image"),
    ({"images": None}, r"needs pictures; pass images="),
    ({"classes": ["cat"]}, "classes has 1 names, and the model gives 4 logits"),
    ({"classes": "abcd"}, "classes must be a list of names, got the text 'abcd'"),
    ({"classes": 4}, "classes must be a list of names, got 4"),
    ({"side": 32}, "side is for files"),
    ({"image": 3}, "from 0 to 2, got 3"),
    ({"image": -1}, "from 0 to 2, got -1"),
    ({"methods": ("gradcma",)}, "did you mean 'gradcam'"),
    ({"training": sl.Training()}, "training and model are two networks"),
    ({"model": Named()}, r"got dict of 'logits' \(1, 4\).* sl\.Scalar\(model, function\)"),
    ({"model": nn.Conv2d(3, 4, 3)}, r"must return logits \(B, K\), got \(1, 4, 18, 26\)"),
    ({"model": Small(1)}, r"has one output; say that it is a number, model=sl\.Scalar"),
    ({"model": Small().forward}, r"must be a torch\.nn\.Module, got method"),
    ({"model": None}, "pass it by model="),
]


@pytest.mark.parametrize(("wrong", "message"), BAD, ids=range(len(BAD)))
def test_wrong_arguments_are_errors_at_once(wrong, message):
    with pytest.raises(ValueError, match=message):
        Explorer(**{"model": Small(), "images": pictures()} | wrong)


def test_files_that_are_no_pictures_or_sides_that_are_none_are_errors_at_once(tmp_path):
    (tmp_path / "bad.png").write_bytes(b"GIF89a" + bytes(20))
    with pytest.raises(ValueError, match=r"bad\.png cannot be read as an image"):
        Explorer(model=Small(), images=[file(tmp_path), tmp_path / "bad.png"])
    with pytest.raises(ValueError, match="side must be a whole number of at least 1, got 0"):
        Explorer(model=Small(), images=[file(tmp_path)], side=0)


def test_a_network_of_texts_is_refused():
    reader = sl.MODELS["text_lstm"](words=("<pad>", "<unknown>", "good")).eval()
    with pytest.raises(ValueError, match=r"networks of texts by name: pass a sl\.Training"):
        Explorer(model=reader, images=pictures())


def test_what_is_seen_is_a_picture():
    own = explorer()
    code = own.maps.value.split("base64,")[1].split('"')[0]
    assert np.asarray(Image.open(io.BytesIO(base64.b64decode(code)))).std() > 10
