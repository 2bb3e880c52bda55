"""The explorer without a browser: widgets are set, and what it shows is looked at."""

import base64
import io
import json
import re
import struct
import threading
import zlib
from datetime import UTC, datetime
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
import torch
from matplotlib.text import Text
from PIL import Image

import saliency_lib as sl
from saliency_lib import paths
from saliency_lib.artefacts import store
from saliency_lib.attribution.table import METHODS
from saliency_lib.notebook.explorer import Explorer, choices, state, view, whereabouts

pytestmark = pytest.mark.slow

METHOD = ("gradient", "edges")


@pytest.fixture(scope="module")
def ready():
    """An explorer of a digit, with a committed network."""
    return Explorer(sl.Training(), methods=METHOD, steps=7).wait()


@pytest.fixture
def digits(ready):
    """The same, brought back to where it began."""
    ready._own = None
    ready.dataset.value, ready.number.value, ready.methods.value, ready.opacity.value = "mnist5k", 0, METHOD, 70
    shown = ready.wait().shown
    shown.maps.clear()
    shown.curves.clear()
    ready.refresh()
    assert ready.wait().problem.value == ""
    ready.network.value = ready.network.options[0]
    likeliest = ready.wait().target.options[0][1]
    ready.target.value = likeliest
    return ready.wait()


def png_of(html):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(re.search(r'base64,([^"]+)"', html)[1]))))


def file(picture, kind="png", **options):
    content = io.BytesIO()
    picture.save(content, kind, **options)
    return content.getvalue()


def header(width, height):
    """The beginning of a PNG file of that size."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)) + bytes(4) + b"IDAT"


def upload(explorer, name, content):
    """What the browser sends when a file is chosen."""
    explorer.upload.value = (
        {"name": name, "type": "image/png", "size": len(content), "content": content, "last_modified": datetime.now(UTC)},
    )
    return explorer.wait()


def test_what_is_shown_first_is_what_the_library_computes(digits):
    trained, images = sl.train(sl.Training()), sl.load("mnist5k", "test", 0, 1).images
    for method in METHOD:
        torch.testing.assert_close(digits.shown.maps[method], sl.METHODS[method](trained.model, images)[0])
    assert digits.shown.target == int(sl.predict(trained.model, images)[1])
    assert png_of(digits.maps.value).std() > 10
    assert "mnist5k 0 and its maps by gradient, edges" in digits.maps.value
    assert "mnist5k 0: cnn, standard says 5 with" in digits.words.value and "gradient" in digits.words.value


def test_the_curve_is_the_metric_deletion(digits):
    digits.compute_deletion()
    digits.wait()
    model, maps = sl.train(sl.Training()).model, torch.stack([digits.shown.maps[method] for method in METHOD])
    whole = sl.METRICS["deletion"](model, digits.shown.image.expand(2, -1, -1, -1), maps, steps=7)
    for row, method in enumerate(METHOD):
        fractions, values = digits.shown.curves[method]
        torch.testing.assert_close(torch.tensor(fractions), whole.fractions)
        torch.testing.assert_close(torch.tensor(values), whole.values[row])
        assert digits.shown.area(method) == pytest.approx(float(whole.area[row]), abs=1e-6)
    assert digits.progress.value == digits.progress.max == len(whole.fractions)
    assert digits.curve_figure().axes[0].get_ylabel() == "probability of 5"


def test_the_curve_is_drawn_as_it_is_computed(digits):
    seen = []
    digits.curves.observe(lambda change: seen.append(change["new"]), "value")
    digits.compute_deletion()
    digits.wait()
    digits.curves.unobserve_all()
    told = [re.search(r"(\d+)% of the pixels so far", text) for text in seen if "img" in text]
    assert len([one for one in told if one]) >= 1 and told[-1] is None
    assert not np.array_equal(png_of(seen[-1]), png_of(next(text for text in seen if "img" in text)))


def test_stop_ends_the_curve_and_the_button_begins_it_again(digits):
    digits.progress.observe(lambda change: change["new"] == state.AT_ONCE and digits.stop.click(), "value")
    digits.compute_deletion()
    digits.wait()
    digits.progress.unobserve_all()
    assert len(digits.shown.curves["gradient"][0]) == state.AT_ONCE and "Stopped" in digits.activity.value
    digits.delete.click()
    digits.wait()
    assert len(digits.shown.curves["gradient"][0]) == 8


def test_the_opacity_draws_again_and_computes_nothing(digits, monkeypatch):
    before, drawn = digits.shown.maps["gradient"], png_of(digits.maps.value)
    monkeypatch.setattr(digits.state, "explain", None)
    digits.opacity.value = 0
    assert digits.wait().shown.maps["gradient"] is before
    assert np.abs(png_of(digits.maps.value).astype(int) - drawn).mean() > 3


def test_a_method_is_added_without_computing_the_others_again(digits, monkeypatch):
    asked, explain = [], digits.state.explain
    monkeypatch.setattr(digits.state, "explain", lambda method, number: asked.append(method) or explain(method, number))
    digits.methods.value = (*METHOD, "input_x_gradient")
    digits.wait()
    assert asked == ["input_x_gradient"] and "input x gradient" in digits.maps.value
    digits.methods.value = ()
    assert "by no method" in digits.wait().maps.value and digits.problem.value == ""


def test_another_class_has_maps_and_curves_of_its_own(digits):
    digits.compute_deletion()
    before = digits.wait().shown
    other = digits.target.options[1][1]
    digits.target.value = other
    after = digits.wait().shown
    assert after.target == other and after.curves == {} and digits.curves.value == "" and digits.progress.value == 0
    model = sl.train(sl.Training()).model
    torch.testing.assert_close(after.maps["gradient"], sl.METHODS["gradient"](model, after.image, torch.tensor([other]))[0])
    assert torch.equal(after.maps["edges"], before.maps["edges"])
    assert [share for share in after.probabilities.values()] == sorted(after.probabilities.values(), reverse=True)
    assert digits.target.options[0][0] == f"5, {after.probabilities[5]:.1%}"


def test_another_picture_and_another_network(digits):
    before = digits.shown
    digits.number.value = 3
    assert torch.equal(digits.wait().shown.image, sl.load("mnist5k", "test", 3, 4).images)
    assert digits.shown.maps["gradient"].ne(before.maps["gradient"]).any()
    digits.network.value = "cnn, saliency_guided"
    assert digits.wait().shown.training == sl.Training(recipe="saliency_guided")
    assert "cnn, saliency_guided says" in digits.words.value


def test_the_networks_are_those_with_weights():
    assert set(choices.networks("mnist5k").values()) >= {sl.Training(), sl.Training(recipe="saliency_guided")}
    assert next(iter(choices.networks("photos"))) == "efficientnet_lite0" and "resnet50" in choices.networks("photos")
    assert "cifar_resnet20" not in choices.networks("photos") and "cifar_resnet20" in choices.networks("cifar10")
    assert not [name for name in choices.data_sets() if name.startswith("series_")]
    assert choices.data_sets()[:2] == ["photos", "mnist5k"]


def test_trainings_that_differ_in_anything_have_names_of_their_own(outputs):
    trainings = {
        "cnn, standard": sl.Training(),
        "cnn, standard, epochs 4": sl.Training(changes={"epochs": 4}),
        "cnn, standard, epochs 4, learning_rate 0.01": sl.Training(changes={"learning_rate": 0.01, "epochs": 4}),
        "cnn, standard, embedded, seed 1, epochs 4": sl.Training(seed=1, changes={"epochs": 4}),
        "cnn, standard, paper, seed 0": sl.Training(scale="paper"),
        "cnn, fine_tuning, from mnist5k (cnn, standard)": sl.Training(recipe="fine_tuning:mnist5k"),
        "cnn, fine_tuning, from mnist5k (cnn, standard, epochs 4)": sl.Training(
            recipe="fine_tuning", start=sl.Training(changes={"epochs": 4})
        ),
    }
    for training in trainings.values():
        store.place(training).mkdir(parents=True)
        (store.place(training) / store.PROVENANCE).write_text(json.dumps({"spec": training.to_dict()}))
    assert choices.networks("mnist5k") == trainings


def test_an_artefact_that_the_library_would_not_make_is_not_offered(outputs):
    assert choices.networks("mnist5k") == {}
    folder = outputs / "training" / "mnist5k-cnn-broken"
    folder.mkdir(parents=True)
    for content in (
        "{",
        "[]",
        '{"spec": {"kind": "training", "dataset": "mnist5k", "model": "cnn", "scale": "embedded", "seed": 0}}',
    ):
        (folder / "provenance.json").write_text(content)
        assert choices.networks("mnist5k") == {}


@pytest.mark.parametrize(
    ("dataset", "message"),
    [("shapes", "no network has been trained on shapes yet; run `papermill"), ("imagenet", "imagenet is not in data/imagenet")],
)
def test_what_is_missing_is_said_in_the_widget(digits, monkeypatch, tmp_path, dataset, message):
    monkeypatch.setattr(paths, "OUTPUTS", tmp_path)
    monkeypatch.setattr(paths, "DATA", paths.ROOT / "data" if dataset == "shapes" else paths.ROOT / "data" / "reported")
    digits.dataset.value = dataset
    digits.wait()
    assert re.search(message.replace("data/imagenet", "data/reported/imagenet"), digits.problem.value)
    assert digits.shown.name == "mnist5k 0"
    monkeypatch.undo()
    digits.dataset.value = "mnist5k"
    assert digits.wait().problem.value == ""


def test_an_image_number_that_there_is_not_is_said(digits):
    digits.number.value = 10**6
    assert "selects none of the 1000 images of mnist5k test" in digits.wait().problem.value
    assert "Traceback" not in digits.problem.value


def test_what_a_method_raises_is_said_and_the_next_wish_is_heard(digits, monkeypatch):
    def fail(*arguments, **options):
        raise KeyError("<b>layer</b>")

    METHODS["gradient"]  # the table is filled
    monkeypatch.setitem(METHODS._entries, "smoothgrad", METHODS.entry(fail, "smoothgrad"))
    digits.methods.value = ("smoothgrad",)
    assert "KeyError: &#x27;&lt;b&gt;layer&lt;/b&gt;" in digits.wait().problem.value
    digits.methods.value = METHOD
    assert digits.wait().problem.value == "" and digits.activity.value == ""


def test_a_method_that_fails_is_named_and_the_others_are_shown_and_deleted(digits, monkeypatch):
    def fail(*arguments, **options):
        raise ValueError("no layer")

    METHODS["gradient"]  # the table is filled
    for method in ("smoothgrad", "occlusion"):
        monkeypatch.setitem(METHODS._entries, method, METHODS.entry(fail, method))
    digits.number.value = 3
    digits.methods.value = ("smoothgrad", "gradient", "occlusion", "edges")
    for ask in (digits.refresh, digits.compute_deletion):
        ask()
        problem = digits.wait().problem.value
        assert "smoothgrad gave no map: no layer" in problem and "occlusion gave no map: no layer" in problem
        assert set(digits.shown.maps) == set(METHOD) and digits.activity.value == ""
        assert "mnist5k 3 and its maps by gradient, edges" in digits.maps.value
    assert {len(values) for values, _ in digits.shown.curves.values()} == {8} and set(digits.shown.curves) == set(METHOD)


@pytest.mark.parametrize("stopped", [True, False], ids=["stopped", "failed"])
def test_the_maps_of_another_picture_never_stand_beside_its_words(digits, monkeypatch, stopped):
    def end(method, number):
        if not stopped:
            raise ValueError("no layer")
        digits.stop.click()

    monkeypatch.setattr(digits.state, "explain", end)
    before = png_of(digits.maps.value)
    digits.number.value = 3
    assert "mnist5k 3: cnn" in digits.wait().words.value and ("Stopped" in digits.activity.value) == stopped
    assert "mnist5k 3 and its maps by no method" in digits.maps.value and not np.array_equal(png_of(digits.maps.value), before)


def test_what_a_wish_raises_is_not_said_of_the_next_one(digits, monkeypatch):
    begun, go, explain = threading.Event(), threading.Event(), digits.state.explain

    def slow(method, number):
        if method == "smoothgrad":
            begun.set()
            go.wait(20)
            raise ValueError("no layer")
        return explain(method, number)

    monkeypatch.setattr(digits.state, "explain", slow)
    digits.methods.value = ("smoothgrad",)
    begun.wait(20)
    digits.methods.value = METHOD
    go.set()
    assert digits.wait().problem.value == ""


def test_a_new_wish_takes_the_place_of_the_last(digits, monkeypatch):
    begun, go, explain = threading.Event(), threading.Event(), digits.state.explain

    def slow(method, number):
        begun.set()
        go.wait(20)
        return explain(method, number)

    monkeypatch.setattr(digits.state, "explain", slow)
    digits.methods.value = ("smoothgrad", "occlusion")
    begun.wait(20)
    digits.methods.value = ("input_x_gradient",)
    go.set()
    digits.wait()
    assert "occlusion" not in digits.shown.maps and "its maps by input x gradient" in digits.maps.value
    assert threading.active_count() < 20


def test_a_wish_that_comes_while_classes_are_predicted_is_not_lost(digits, monkeypatch):
    begun, go, predict = threading.Event(), threading.Event(), digits.state.look_at

    def slow(*arguments):
        begun.set()
        go.wait(20)
        return predict(*arguments)

    monkeypatch.setattr(digits.state, "look_at", slow)
    before = digits.target.value
    other = next(i for i, label in enumerate(sl.load("mnist5k").labels.tolist()) if label != before)
    digits.number.value = other
    begun.wait(20)
    digits.compute_deletion()
    go.set()
    digits.wait()
    assert digits.target.value != before, "another digit, so that the first worker sets the class"
    assert set(digits.shown.curves) == set(digits.methods.value) and digits.shown.name == f"mnist5k {other}"


def test_an_uploaded_picture_is_shown_and_a_picture_of_the_set_takes_its_place(digits):
    y, x = np.mgrid[:60, :40]
    content = file(Image.fromarray(np.uint8(255 * ((x > 15) & (x < 24) & (y > 15) & (y < 45)))))
    upload(digits, "<one>.png", content)
    assert digits.shown.name == "<one>.png" and digits.shown.image.shape == (1, 1, 28, 28)
    assert "&lt;one&gt;.png" in digits.words.value and "<one>" not in digits.words.value + digits.maps.value
    assert digits.upload.value == ()
    digits.number.value = 2
    assert digits.wait().shown.name == "mnist5k 2"


@pytest.mark.parametrize("word", ["a$_$b", "$5 and $6", "\\frac$^$"])
def test_dollars_in_names_are_no_formulas(digits, word):
    upload(digits, f"{word}.png", file(Image.new("L", (40, 40), 99)))
    assert digits.problem.value == "" and f"{word}.png and its maps by gradient" in digits.maps.value
    digits.shown.words[digits.shown.target] = word
    digits.compute_deletion()
    assert digits.wait().problem.value == ""
    for figure in (digits.maps_figure(), digits.curve_figure()):
        assert png_of(view.picture(figure, "")).std() > 1
        assert not [text for text in figure.findobj(Text) if word in text.get_text() and text.get_parse_math()]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read as a PNG or JPEG"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "cannot be read as a PNG or JPEG"),
        (b"GIF89a" + bytes(100), "cannot be read as a PNG or JPEG"),
        (file(Image.new("RGB", (90, 90), "red"))[:200], "cannot be read as a PNG or JPEG"),
        (file(Image.new("L", (64, 64)), "jpeg")[:300], "cannot be read as a PNG or JPEG"),
        (bytes(choices.LARGEST_FILE + 1), "the file has 8.0 MB, at most 8 are accepted"),
        (file(Image.new("1", (10_000, 5_000))), "10000 x 5000 pixels, at most 40,000,000 are accepted"),
        (header(20_000, 10_000), "too many pixels, at most 40,000,000 are accepted"),
    ],
)
def test_a_bad_file_gives_a_message_and_the_picture_stays(digits, content, message):
    upload(digits, "bad.png", content)
    assert message in digits.problem.value and "Traceback" not in digits.problem.value
    assert digits.shown.name == "mnist5k 0"
    digits.refresh()
    assert digits.wait().problem.value == ""


def halves(left, right, mode="RGB", size=(40, 40)):
    picture = Image.new(mode, size, left)
    picture.paste(right, (size[0] // 2, 0, *size))
    return picture


def test_a_picture_is_turned_as_its_camera_says():
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise by a quarter
    upright = np.asarray(choices.decode(file(halves("black", "white"), "jpeg", exif=exif)))
    assert upright[:15].mean() < 20 and upright[25:].mean() > 235


def test_what_is_transparent_lies_on_white():
    drawn = np.asarray(choices.decode(file(halves((0, 0, 0, 0), (0, 0, 0, 255), "RGBA"))))
    assert (drawn[:, :20] == 255).all() and (drawn[:, 20:] == 0).all()


def test_grey_palettes_and_sixteen_bits_keep_their_brightness():
    grey = np.asarray(choices.decode(file(halves(51, 204, "L"))))
    assert (grey[:, :20] == 51).all() and (grey[:, 20:] == 204).all()
    deep = np.asarray(choices.decode(file(Image.fromarray(np.full((9, 9), 204 * 257, np.uint16)))))
    assert (deep == 204).all()
    palette = np.asarray(choices.decode(file(halves("red", "blue").convert("P"))))
    assert (palette[0, 0] == (255, 0, 0)).all() and (palette[0, -1] == (0, 0, 255)).all()


def test_a_picture_is_brought_to_what_the_network_takes():
    wide = halves("black", "white", size=(300, 100))
    digit, photo = choices.fit(wide, "mnist5k"), choices.fit(wide, "photos")
    assert digit.shape == (1, 1, 28, 28) and photo.shape == (1, 3, 224, 224) and photo.dtype == torch.float32
    for fitted in (digit, photo):
        assert fitted.min() == 0 and fitted.max() == 1
        assert fitted[..., : fitted.shape[-1] // 2 - 2].max() < 0.05 and fitted[..., fitted.shape[-1] // 2 + 2 :].min() > 0.95
    frame = Image.new("L", (256, 256), 255)
    frame.paste(0, (16, 16, 240, 240))
    assert choices.fit(frame, "photos").max() == 0 and choices.fit(frame, "mnist5k").max() > 0.9
    whole = choices.fit(frame, "photos", sl.MODELS["efficientnet_b2"].preparation)  # which crops nothing
    assert whole.shape == (1, 3, 288, 288) and whole.max() > 0.9


def test_where_a_map_is_great_is_said_in_words():
    values = torch.zeros(30, 30)
    assert whereabouts(values) == "nowhere, it is constant"
    values[12:18, 22:30] = 1
    assert whereabouts(values).startswith("right (")
    values = torch.zeros(30, 60)
    values[25:, :12] = 3
    assert whereabouts(values).startswith("lower left (")


def test_bad_arguments_are_refused_at_once():
    for wrong, message in [({"methods": ("gradcma",)}, "did you mean 'gradcam'"), ({"steps": 0}, "steps must be a whole number")]:
        with pytest.raises(ValueError, match=message):
            Explorer(sl.Training(), **wrong)
    with pytest.raises(ValueError, match="option of method 'rise' 'maks'"):
        Explorer(sl.Training(), methods=("rise",), options={"rise": {"maks": 3}})


def test_without_a_browser_it_says_what_it_is(digits):
    shown = digits._repr_mimebundle_()
    assert "run this notebook in JupyterLab" in shown["text/plain"]
    assert "application/vnd.jupyter.widget-view+json" in shown


def test_a_choice_by_hand_is_known_until_it_is_taken_back(digits):
    assert not digits.by_hand
    changes = [("number", 3), ("methods", ("edges",)), ("opacity", 50), ("network", "cnn, softplus")]
    for name, value in [*changes, ("target", digits.target.options[1][1])]:
        widget = getattr(digits, name)
        first, widget.value = widget.value, value
        assert digits.wait().by_hand, name
        widget.value = first
        assert not digits.wait().by_hand, name
    upload(digits, "one.png", file(Image.new("L", (40, 40), 99)))
    assert digits.by_hand


def test_the_notebook_speaks_of_what_was_chosen_by_hand():
    code = [cell.source for cell in nbformat.read(paths.NOTEBOOKS / "00_explore.ipynb", 4).cells if cell.cell_type == "code"]
    at = next(i for i, source in enumerate(code) if source.endswith("\nexplore"))
    names, seen = {}, []
    exec(code[0], names)
    names |= {"dataset": "mnist5k", "model": "cnn", "methods": "gradient edges", "steps": 7}
    exec("\n".join(code[1 : at + 1]), names)
    names["run"] = SimpleNamespace(
        show=lambda figure, caption, artefacts, *name, dpi=160: seen.append((caption, artefacts)),
        table=lambda frame, name, uncompared: seen.append((name, uncompared)),
        agreement=lambda: None,
        colophon=lambda artefacts: seen.append(("", artefacts)),
    )
    explore, last = names["explore"].wait(), "\n".join(code[at + 1 :])
    exec(last, names)
    assert not [caption for caption, _ in seen if "by hand" in caption] and "(cnn, standard)" in seen[0][0]
    explore.network.value = "cnn, saliency_guided"
    explore.wait().methods.value = ("edges",)
    seen.clear()
    exec(last, names)
    assert "(cnn, saliency_guided)" in seen[0][0] and all("by hand" in caption for caption, _ in seen[:2])
    guided = store.find(sl.Training(recipe="saliency_guided"))
    assert seen.pop(2) == ("areas", ["largest_values"])
    assert [artefacts for _, artefacts in seen] == [[guided]] * 3 and list(names["areas"]) == ["edges"]


# Texts.


@pytest.fixture(scope="module")
def reading():
    """An explorer of sentences, with a committed network."""
    return Explorer(sl.Training("sentences", "text_cnn"), steps=7).wait()


@pytest.fixture
def texts(reading):
    """The same, brought back to where it began."""
    reading.dataset.value, reading.sentence.value, reading._own = "sentences", "", None
    reading.number.value = 1
    return reading.wait()


def write(explorer, sentence):
    explorer.sentence.value = sentence
    return explorer.wait()


def test_a_text_of_the_set_is_shown_by_its_words(texts):
    part = sl.load("sentences", stop=1)
    texts.number.value = 0
    shown = texts.wait().shown
    assert texts.problem.value == "" and shown.tokens == part.texts[0].tokens
    maps = sl.METHODS["integrated_gradients"](sl.train(shown.training).model, part.images, shown.target)
    torch.testing.assert_close(shown.maps["integrated_gradients"], maps[0, :, : len(shown.tokens)])
    assert texts.upload.layout.display == texts.opacity.layout.display == "none" != texts.sentence.layout.display


def test_a_sentence_of_the_readers_own_is_explained(texts):
    shown = write(texts, "The film wasn't superb!").shown
    assert shown.tokens == ("the", "film", "was", "n't", "superb", "!")
    assert shown.image.flatten()[3] == 1 and shown.image.flatten()[4] > 2, "the vocabulary has superb and not n't"
    assert set(shown.maps) == set(texts.methods.value) and "your sentence" in texts.words.value
    texts.compute_deletion()
    assert texts.wait().problem.value == "" and set(shown.curves) == set(shown.maps)
    assert shown.where("integrated_gradients").split(", ")[0] in shown.tokens
    texts.number.value = 3
    assert texts.wait().shown.name == "sentences 3" and texts.sentence.value == ""


@pytest.mark.parametrize(("sentence", "message"), [("zxq vbn", "knows none of the words zxq, vbn"), ("a " * 1001, "has 1,001")])
def test_a_sentence_that_cannot_be_read_gives_a_message(texts, sentence, message):
    write(texts, sentence)
    assert message in texts.problem.value
    assert write(texts, "the plot was dull .").problem.value == ""


def test_an_image_after_a_text_has_the_methods_of_images(texts):
    before = texts.methods.options
    texts.dataset.value = "mnist5k"
    assert "attention" in before and "attention" not in texts.wait().methods.options
    assert texts.shown.tokens == () and texts.problem.value == "" and texts.upload.layout.display != "none"
