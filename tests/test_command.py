"""The command saliency: what it writes, and what it says of wrong input."""

import html
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import saliency_lib as sl
from saliency_lib import command, paths
from saliency_lib.networks.table import Preparation

MODEL = "file:mine.safetensors?arch=cnn&classes=3"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A network of three classes, two pictures and the names of the classes."""
    monkeypatch.setattr(paths, "DATA", tmp_path / "data")
    for name in ("data", "pictures/more"):
        (tmp_path / name).mkdir(parents=True)
    torch.manual_seed(2)
    save_file(sl.MODELS["cnn"](3, 3).state_dict(), tmp_path / "data" / "mine.safetensors")
    random = np.random.default_rng(0)
    for name in ("a <b>.png", "more/c.jpg"):
        Image.fromarray(random.integers(0, 256, (50, 40, 3), dtype=np.uint8)).save(tmp_path / "pictures" / name)
    (tmp_path / "classes.txt").write_text("cat & dog\nfish\nbird\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words):
    return command.main([str(word) for word in words])


def test_pictures_are_explained_and_measured(folder, capsys):
    words = [
        "measure",
        MODEL,
        "pictures",
        "--classes",
        "classes.txt",
        "--side",
        32,
        "-m",
        "gradient",
        "occlusion",
        "-o",
        "new/out",
    ]
    assert run(*words, "--metrics", "deletion") == 0
    out = folder / "new" / "out"
    maps = load_file(out / "maps.safetensors")
    assert set(maps) == {"gradient", "occlusion", "random"} and maps["gradient"].shape == (2, 32, 32)
    scores = pd.read_csv(out / "scores.csv")
    assert set(scores["method"]) == set(maps) and set(scores["metric"]) == {"deletion"}
    assert len(list(out.glob("*.png"))) == 6 and "deletion" in capsys.readouterr().out
    page = (out / "index.html").read_text()
    assert "a &lt;b&gt;.png" in page and "<b>" not in page
    for file in out.glob("*.png"):
        assert np.asarray(Image.open(file)).std() > 1
    assert [file.name for file in (folder / "new").iterdir()] == ["out"]


def test_the_maps_are_those_of_the_picture_as_it_is_prepared(folder):
    assert run("explain", MODEL, "pictures/more/c.jpg", "--classes", "classes.txt", "--side", 32, "-m", "gradient") == 0
    picture = Image.open("pictures/more/c.jpg").convert("RGB")
    pixels = command._read([folder / "pictures/more/c.jpg"], Preparation(32, 37))
    assert pixels.shape == (1, 3, 32, 32) and picture.size == (40, 50)
    model = sl.MODELS[MODEL](3, 3, True).eval()
    torch.testing.assert_close(load_file("saliency/maps.safetensors")["gradient"], sl.METHODS["gradient"](model, pixels))
    assert not list((folder / "saliency").glob("scores.csv"))


def test_networks_are_compared_on_the_same_pictures(folder):
    torch.manual_seed(3)
    save_file(sl.MODELS["cnn"](3, 3).state_dict(), folder / "data" / "other.safetensors")
    models = MODEL, MODEL.replace("mine", "other")
    given = ["--classes", "classes.txt", "--side", 32, "-m", "gradient", "edges"]
    assert run("compare", "pictures", "--models", *models, *given, "--metrics", "deletion", "-o", "both") == 0
    scores, maps = pd.read_csv(folder / "both" / "scores.csv"), load_file(folder / "both" / "maps.safetensors")
    assert scores.columns[0] == "model" and list(scores["model"].unique()) == list(models)
    assert set(maps) == {f"{model} {method}" for model in models for method in ("gradient", "edges", "random")}
    assert torch.equal(maps[f"{models[0]} edges"], maps[f"{models[1]} edges"])  # a control does not depend on the model
    for number, model in enumerate(models):
        assert run("measure", model, "pictures", *given, "--metrics", "deletion", "-o", f"one{number}") == 0
        alone = pd.read_csv(folder / f"one{number}" / "scores.csv")
        pd.testing.assert_frame_equal(scores[scores["model"] == model].drop(columns="model").reset_index(drop=True), alone)
        torch.testing.assert_close(maps[f"{model} gradient"], load_file(folder / f"one{number}" / "maps.safetensors")["gradient"])
    page = (folder / "both" / "index.html").read_text()
    assert re.findall("<h2>(.*?)</h2>", page) == ["gradient", "edges", "random"]
    assert page.count("<img") == len(list((folder / "both").glob("*.png"))) == 2 * 2 * 3  # pictures, networks, methods
    rows = re.findall("<div>(.*?)</div>", page)
    assert len(rows) == 6 and all(
        re.findall(r"<figcaption>(.*?): ", row) == [html.escape(model) for model in models] for row in rows
    )
    assert "cat &amp; dog" in page or "fish" in page or "bird" in page
    links = re.findall('src="(.*?)"', page)
    assert all((folder / "both" / html.unescape(link)).is_file() for link in links)


def test_masks_in_a_folder_are_no_pictures(folder):
    (folder / "pictures" / "masks").mkdir()
    Image.new("L", (40, 50), 1).save(folder / "pictures" / "masks" / "c.png")
    assert [file.name for file in command._files(["pictures"])] == ["a <b>.png", "c.jpg"]


def test_a_number_has_no_class_and_no_probability(folder, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    code = "import saliency_lib as sl\nfrom torch import nn\n\ndef build():\n"
    code += "    return sl.Scalar(nn.Conv2d(3, 1, 3), lambda output: 0 * output.sum((1, 2, 3)) + 1234.5)\n"
    (folder / "mynumbers.py").write_text(code)
    assert run("explain", "module:mynumbers:build", "pictures", "--side", 16, "-m", "gradient") == 0
    page = (folder / "saliency" / "index.html").read_text()
    assert page.count(": 1234.5</h3>") == 2 and "%</h" not in page and "tench" not in page
    sys.modules.pop("mynumbers")


def test_the_doctor_says_what_works_and_why_the_rest_does_not(folder, capsys):
    assert run("doctor", MODEL, "--side", 32) == 0
    said = capsys.readouterr().out
    lines = {line.split()[0]: line for line in said.splitlines() if line.split()[1:2] in (["works"], ["refused"])}
    assert set(lines) == {*sl.METHODS, *sl.PARTICULAR_METHODS} - {"rarity"} and "works" in lines["gradient"]
    assert f"{sum('works' in line for line in lines.values())} of {len(lines)} methods work" in said


def test_the_tables_are_printed(capsys):
    assert run("methods") == 0 and "integrated_gradients" in capsys.readouterr().out
    assert run("metrics") == 0 and "deletion" in capsys.readouterr().out


def test_a_reader_may_stop_early():
    words = f"set -o pipefail; {sys.executable} -m saliency_lib.command metrics | head -1"
    ended = subprocess.run(["bash", "-c", words], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "") and ended.stdout.endswith(" metrics\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["explain", "resnetx", "pictures"], "model 'resnetx' is not known; did you mean"),
        (["explain", "cnn", "pictures"], "cnn has no published weights for pictures; name your own by file:"),
        (["explain", "text_cnn", "pictures"], "text_cnn has no published weights for pictures"),
        (["explain", MODEL, "none"], "there is no picture or folder none"),
        (["explain", MODEL, "data"], "there are no pictures in data"),
        (["explain", MODEL, "pictures", "-m", "gradien"], "did you mean 'gradient'"),
        (["explain", MODEL, "pictures", "-o", "pictures"], "pictures exists and is not empty"),
        (["explain", MODEL, "classes.txt"], "classes.txt cannot be read as an image"),
        (["measure", MODEL, "pictures", "--side", "32", "--metrics", "deletoin"], "did you mean 'deletion'"),
        (["explain", MODEL, "pictures", "--classes", "none.txt"], "none.txt"),
        (["compare", "--models", MODEL, "cnn", "pictures"], "no pictures are named; name them before --models"),
        (["compare", "pictures", "--models", MODEL], "--models must name two or more different networks"),
        (["compare", "pictures", "--models", MODEL, MODEL], "--models must name two or more different networks"),
        (["compare", "pictures", "--models", MODEL, "resnetx"], "model 'resnetx' is not known; did you mean"),
        (["compare", "pictures", "--models", MODEL, "cnn"], "cnn has no published weights for pictures"),
        (
            ["compare", "pictures", "--models", MODEL, f"{MODEL}&mean=0", "--metrics", "pointing_game"],
            f"{MODEL}: objects are missing",
        ),
    ],
)
def test_wrong_input_is_one_line_and_leaves_nothing(folder, capsys, words, message):
    before = sorted(folder.rglob("*"))
    assert run(*words) == 2
    said = capsys.readouterr()
    assert message in said.err and "Traceback" not in said.err and sorted(folder.rglob("*")) == before
