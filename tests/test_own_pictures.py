"""Pictures of one's own by reference: folders, lists, data sets of Hugging Face, names of classes, masks of objects."""

import json
import os

import numpy as np
import pyarrow
import pytest
import torch
from PIL import Image
from pyarrow import parquet

import saliency_lib as sl
from saliency_lib import paths
from saliency_lib.artefacts import inputs, parts
from saliency_lib.core.references import slug
from saliency_lib.data.classes import WORDNET_IDS, imagenet_classes
from saliency_lib.networks.table import Preparation

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
COLOURS = {"ant": RED, "bee": GREEN, "cow": BLUE}


@pytest.fixture
def here(tmp_path, monkeypatch, outputs):
    """A working folder, beside which is the folder of data."""
    monkeypatch.setattr(paths, "DATA", tmp_path / "data")
    for name in ("data", "here"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    inputs.forget()
    yield tmp_path / "here"
    inputs.forget()


def paint(file, colour=RED, size=(8, 8)):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L" if isinstance(colour, int) else "RGB", size, colour).save(file)
    return file


def insects(folder, each=2):
    """Class folders whose colours are those of the classes."""
    for name, colour in COLOURS.items():
        for number in range(each):
            paint(folder / name / f"{name}{number}.png", colour)


def colour_of(data, name):
    """Mean colour of a picture by its name."""
    return data.images[data.names.index(name)].mean((1, 2)).tolist()


def assert_are_insects(data, classes=("ant", "bee", "cow")):
    """Each picture's label names the class whose colour it has."""
    assert data.classes == classes
    for image, label in zip(data.images, data.labels, strict=True):
        assert image.mean((1, 2)).tolist() == [value / 255 for value in COLOURS[sorted(COLOURS)[label]]]


# Folders.


def test_class_folders_are_labelled_wherever_they_are(here, tmp_path):
    insects(here / "pets")
    insects(tmp_path / "data" / "kept" / "pets")
    insects(tmp_path / "elsewhere")
    for reference in ("folder:pets", "folder:kept/pets", f"folder:{tmp_path / 'elsewhere'}"):
        entry = sl.DATASETS[reference]
        assert (entry.name, entry.splits, entry.shape) == (reference, ("test",), (3, 8)) and entry.labelled and not entry.imagenet
        assert_are_insects(sl.load(reference))


def test_a_folder_may_have_train_and_test(here):
    insects(here / "pets" / "train", each=3)
    insects(here / "pets" / "test")
    assert sl.DATASETS["folder:pets"].splits == ("train", "test")
    assert_are_insects(sl.load("folder:pets")), assert_are_insects(sl.load("folder:pets", "train"))
    assert (len(sl.load("folder:pets")), len(sl.load("folder:pets", "train"))) == (6, 9)


def test_a_validation_folder_is_the_test_split_if_there_is_no_other(here):
    insects(here / "pets" / "train")
    insects(here / "pets" / "val", each=1)
    assert sl.DATASETS["folder:pets"].splits == ("train", "test") and len(sl.load("folder:pets")) == 3


def test_the_same_pictures_by_name_and_by_reference_are_the_same_data(here, tmp_path):
    insects(tmp_path / "data" / "pets" / "test")
    named, referred = sl.load("pets"), sl.load("folder:pets")
    assert torch.equal(named.images, referred.images) and torch.equal(named.labels, referred.labels)
    assert named.names == referred.names


@pytest.mark.parametrize("name", ["folder", "a:b"])
def test_a_folder_of_data_keeps_its_name_even_if_it_is_like_that_of_a_reference(here, tmp_path, name):
    insects(tmp_path / "data" / name / "test")
    assert_are_insects(sl.load(name))


def test_flat_pictures_have_no_labels_and_imagenets_classes(here):
    for name in ("b", "a"):
        paint(here / "pets" / f"{name}.png", size=(300, 260))
    data = sl.load("folder:pets")
    assert data.names == ("a", "b") and data.labels.tolist() == [-1, -1] and data.images.shape == (2, 3, 224, 224)
    assert data.classes == imagenet_classes() and data.words(data.labels) == ["class not known"] * 2
    entry = sl.DATASETS["folder:pets"]
    assert entry.imagenet and not entry.labelled


def test_a_grey_folder_has_one_channel_and_an_imagenet_one_has_three(here):
    paint(here / "grey" / "a" / "x.png", 51)
    assert sl.DATASETS["folder:grey"].shape == (1, 8)
    paint(here / "flat" / "x.png", 51)
    assert sl.load("folder:flat").images.shape == (1, 3, 224, 224)


def test_what_needs_labels_is_refused_for_pictures_without(here):
    paint(here / "pets" / "a.png")
    training = sl.Training("folder:pets", "efficientnet_lite0")
    assert training.recipe == "pretrained"
    explanation = sl.Explanation(training, "gradient")
    for refused in (
        lambda: sl.Explanation(training, "gradient", targets="label"),
        lambda: sl.Score(explanation, "deletion", targets="label"),
        lambda: sl.Samples(training),
    ):
        with pytest.raises(ValueError, match=r"classes of the pictures of 'folder:pets' are not known, .* targets='predicted'"):
            refused()
    with pytest.raises(ValueError, match="'folder:pets' has no training images"):
        sl.Training("folder:pets", "cnn", "standard")


def test_published_weights_explain_pictures_without_labels_but_have_no_accuracy(here):
    for name in ("a", "b"):
        paint(here / "pets" / f"{name}.png", BLUE, (230, 260))
    training = sl.Training("folder:pets", "efficientnet_lite0")
    trained = sl.train(training)
    assert "test accuracy not known" in repr(trained) and "not known on 2 images" in trained._repr_html_()
    with pytest.raises(ValueError, match=r"classes of the test images of .* are not known; put them into class folders"):
        trained.accuracy  # noqa: B018
    found = sl.explain(sl.Explanation(training, "gradient"))
    images = sl.load("folder:pets").images
    assert torch.equal(found.targets, sl.predict(trained.model, images)[1]) and found.maps.shape == (2, 224, 224)


@pytest.mark.parametrize("reference", ["kept", "folder:kept"])
def test_the_first_picture_by_class_and_name_tells_the_side_whatever_the_order(here, tmp_path, reference):
    for number in range(8):
        paint(
            tmp_path / "data" / "kept" / "test" / "ant" / f"{number}.png", 9 if number == 0 else RED, (12 + number, 12 + number)
        )
    assert sl.DATASETS[reference].shape == (1, 12) and sl.load(reference).names[0] != "0"


def test_labels_may_be_those_of_imagenet(here):
    for name in (WORDNET_IDS[1], "tench", "7"):
        paint(here / "pets" / name / f"{name}.png", size=(300, 260))
    data = sl.load("folder:pets?classes=imagenet")
    assert dict(zip(data.names, data.labels.tolist(), strict=True)) == {WORDNET_IDS[1]: 1, "tench": 0, "7": 7}
    assert sl.DATASETS["folder:pets?classes=imagenet"].imagenet and data.classes == imagenet_classes()


# Names of classes.


def test_a_file_of_classes_gives_their_order_and_readable_names(here, tmp_path):
    for place in (here / "pets", tmp_path / "data" / "kept" / "test"):
        insects(place)
    text = "dog\n\ncow = brown = cow\nbee=honey bee\n ant \n"
    (here / "pets" / "classes.txt").write_text(text)
    (tmp_path / "data" / "kept" / "classes.txt").write_text(text)
    for reference in ("folder:pets", "kept"):
        data = sl.load(reference)
        assert data.classes == ("dog", "brown = cow", "honey bee", "ant")
        shown = {word: colour_of(data, name) for word, name in zip(data.words(data.labels), data.names, strict=True)}
        assert shown == {"brown = cow": [0, 0, 1], "honey bee": [0, 1, 0], "ant": [1, 0, 0]}


def test_the_classes_of_flat_pictures_are_those_of_the_file(here):
    paint(here / "pets" / "a.png")
    (here / "pets" / "classes.txt").write_text("yes\nno\n")
    data, entry = sl.load("folder:pets"), sl.DATASETS["folder:pets"]
    assert data.classes == ("yes", "no") and data.labels.tolist() == [-1] and not entry.imagenet and entry.shape == (3, 8)


def test_numbers_are_labels_that_the_file_names(here):
    for number in (0, 2):
        paint(here / "pets" / str(number) / "x.png")
    (here / "pets" / "classes.txt").write_text("zero\none\ntwo\n")
    data = sl.load("folder:pets")
    assert sorted(data.labels.tolist()) == [0, 2] and data.classes == ("zero", "one", "two")


# Lists.


def test_a_list_gives_its_order_paths_and_classes(here, tmp_path):
    insects(here / "pets", each=1)
    paint(tmp_path / "far, away.png", GREEN)
    lines = ["path,class", "../pets/cow/cow0.png,cow", f'"{tmp_path / "far, away.png"}" , bee', "", "../pets/ant/ant0.png,ant"]
    (here / "lists").mkdir()
    (here / "lists" / "some.csv").write_text("\n".join(lines))
    data = sl.load("files:lists/some.csv")
    assert data.names == ("cow0", "far, away", "ant0") and data.labels.tolist() == [2, 1, 0]
    assert_are_insects(data)


def test_a_list_of_paths_alone_has_no_labels(here):
    insects(here / "pets", each=1)
    (here / "list.txt").write_text("pets/cow/cow0.png\npets/ant/ant0.png\n")
    data = sl.load("files:list.txt")
    assert data.names == ("cow0", "ant0") and data.labels.tolist() == [-1, -1] and sl.DATASETS["files:list.txt"].imagenet


def test_whole_numbers_in_a_list_are_the_labels_themselves(here):
    insects(here / "pets", each=1)
    (here / "list.csv").write_text("pets/cow/cow0.png,2\npets/ant/ant0.png,10\n")
    data = sl.load("files:list.csv")
    assert data.labels.tolist() == [2, 10] and data.classes == tuple(map(str, range(11)))


# Hugging Face.


def shard(file, rows, names=None, columns=("image", "label")):
    """Write rows of (picture's colour, label) as Hugging Face does, in groups of two rows."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pictures = []
    for number, (colour, _) in enumerate(rows):
        one = paint(file.parent / "drafts" / "x.png", colour)
        pictures.append({"bytes": one.read_bytes(), "path": f"{number}.png"})
        one.unlink()
    content = {columns[0]: pictures}
    if rows[0][1] is not None:
        content[columns[1]] = [label for _, label in rows]
    table = pyarrow.table(content)
    if names:
        features = {columns[1]: {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    parquet.write_table(table, file, row_group_size=2)


def test_shards_are_joined_and_only_the_chosen_rows_are_read(here, monkeypatch):
    names = ["ant", "bee", "cow"]
    rows = [(COLOURS[names[label]], label) for label in (2, 0, 1, 1, 0)]
    shard(here / "hub" / "data" / "test-00000-of-00002.parquet", rows[:3], names)
    shard(here / "hub" / "data" / "test-00001-of-00002.parquet", rows[3:], names)
    shard(here / "hub" / "data" / "train-00000-of-00001.parquet", rows[::-1], names)
    assert sl.DATASETS["hf:hub"].splits == ("test", "train") and sl.DATASETS["hf:hub"].shape == (3, 8)
    data = sl.load("hf:hub")
    assert data.labels.tolist() == [2, 0, 1, 1, 0] and sl.load("hf:hub", "train").labels.tolist() == [0, 1, 1, 0, 2]
    assert_are_insects(data)
    groups = []
    real = parquet.ParquetFile.read_row_group
    monkeypatch.setattr(
        parquet.ParquetFile, "read_row_group", lambda self, group, **how: groups.append((group, how)) or real(self, group, **how)
    )
    part = sl.DATASETS["hf:hub"]("test", start=1, stop=None, stride=3)
    assert part.labels.tolist() == [0, 0] and torch.equal(part.images, data.images[1::3])
    assert sum(how == {"columns": ["image"]} for _, how in groups) == 3  # the first picture's, and those of rows 1 and 4


@pytest.mark.parametrize("labels, classes", [(["bee", "ant"], ("ant", "bee")), ([1, 0], ("0", "1"))])
def test_labels_of_shards_without_names_are_texts_or_numbers(here, labels, classes):
    shard(here / "hub" / "0.parquet", list(zip((GREEN, RED), labels, strict=True)))
    data = sl.load("hf:hub")
    assert data.labels.tolist() == [1, 0] and data.classes == classes


def test_the_columns_of_shards_may_have_other_names(here):
    shard(here / "hub" / "0.parquet", [(GREEN, 1), (RED, 0)], ["ant", "bee"], columns=("img", "fine_label"))
    assert sl.load("hf:hub?image=img&label=fine_label").labels.tolist() == [1, 0]
    unlabelled = sl.load("hf:hub?image=img")
    assert unlabelled.labels.tolist() == [-1, -1] and unlabelled.classes == imagenet_classes()
    with pytest.raises(ValueError, match=r"column of 'hf:hub' \(choose by \?image= and &label=\) 'image' is not known; .*'?img"):
        sl.load("hf:hub")


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_metadata_name_the_files_of_a_folder_of_images(here, ending):
    for split in ("train", "validation"):
        insects(here / "hub" / split, each=1)
        rows = [{"file_name": f"{name}/{name}0.png", "label": name, "text": "a, b"} for name in ("cow", "ant", "bee")]
        lines = [json.dumps(row) for row in rows]
        if ending == "csv":
            lines = ["file_name,label,text", *(f'{row["file_name"]},{row["label"]},"a, b"' for row in rows)]
        (here / "hub" / split / f"metadata.{ending}").write_text("\n".join(lines))
    assert sl.DATASETS["hf:hub"].splits == ("train", "test")
    data = sl.load("hf:hub")
    assert data.names == ("cow0", "ant0", "bee0")
    assert_are_insects(data)


def test_a_folder_of_images_without_metadata_is_read_as_a_folder(here):
    insects(here / "hub" / "test")
    assert torch.equal(sl.load("hf:hub").images, sl.load("folder:hub").images)


# Masks.


def test_masks_are_cropped_and_resized_as_their_pictures(here):
    """The object is where the picture is red, so that the mask and the picture's red must agree after any resizing."""
    random = np.random.default_rng(0)
    folder = here / "pets"
    for number in range(3):
        size = int(random.integers(230, 300)), int(random.integers(230, 300))
        pixels = np.zeros((size[1], size[0], 3), np.uint8)
        y, x = random.integers(60, 100, 2)
        pixels[y : y + 80, x : x + 60, 0] = 255
        for place, picture in ((folder, pixels), (folder / "masks", pixels[..., 0] // 255)):
            place.mkdir(exist_ok=True)
            Image.fromarray(picture).save(place / f"{number}.png")
    for data in (
        sl.load("folder:pets"),
        sl.load("folder:pets", preparation=Preparation(160, 200, "bicubic")),
        sl.load("folder:pets", preparation=Preparation(96, 96, stretched=True)),
    ):
        red = data.images[:, 0]
        assert data.masks.dtype == torch.bool and data.masks.shape == red.shape
        assert (data.masks == (red > 0.5)).float().mean() > 0.995  # a row or a column at the edge may go either way
        assert red[data.masks].min() > 0.2 and red[~data.masks].max() < 0.8


@pytest.mark.parametrize("place", ["masks/test/ant/{0}.png", "masks/{0}.png"])
def test_masks_have_the_path_or_the_name_of_their_picture(here, tmp_path, place):
    folder = tmp_path / "data" / "kept"
    for number in (1, 2):
        paint(folder / "test" / "ant" / f"{number}.jpg")
        paint(folder / "train" / "ant" / f"t{number}.jpg")
        mask = Image.new("L", (8, 8), 0)
        mask.putpixel((number, 3), 1)
        (folder / place.format(number)).parent.mkdir(parents=True, exist_ok=True)
        mask.save(folder / place.format(number))
    for reference in ("kept", "folder:kept"):
        data = sl.load(reference)
        for name, mask in zip(data.names, data.masks, strict=True):
            assert mask.nonzero().tolist() == [[3, int(name)]]
        assert sl.load(reference, "train").masks is None  # no picture of this split has one


@pytest.mark.parametrize(
    ("mode", "off", "on"),
    [("1", 0, 1), ("L", 0, 255), ("P", 0, 7), ("RGB", (0, 0, 0), (0, 0, 9)), ("RGBA", (9, 9, 9, 0), (9, 9, 9, 9))],
)
def test_a_mask_is_on_the_object_where_it_is_not_zero(here, mode, off, on):
    paint(here / "pets" / "a.png", size=(240, 240))
    mask = Image.new(mode, (240, 240), off)
    mask.paste(on, (0, 0, 240, 120))
    (here / "pets" / "masks").mkdir()
    mask.save(here / "pets" / "masks" / "a.png")
    (found,) = sl.load("folder:pets").masks
    assert found[:112].all() and not found[112:].any()


def test_a_mask_is_that_of_the_upright_picture(here):
    (here / "pets" / "masks").mkdir(parents=True)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.new("RGB", (300, 240), RED).save(here / "pets" / "a.jpg", exif=exif)
    Image.new("L", (240, 300), 1).save(here / "pets" / "masks" / "a.png")
    assert sl.load("folder:pets").masks.all()


def test_the_metrics_of_localisation_measure_with_the_masks(here):
    for number in range(4):
        paint(here / "pets" / f"{'ab'[number % 2]}" / f"{number}.png", size=(32, 32))
        mask = Image.new("L", (32, 32), 0)
        mask.paste(255, (0, 0, 16, 32))
        (here / "pets" / "masks").mkdir(exist_ok=True)
        mask.save(here / "pets" / "masks" / f"{number}.png")
    data = sl.load("folder:pets")
    left = torch.zeros(4, 32, 32)
    left[:, 3, 4] = 1.0
    model = sl.MODELS["cnn"](2, 3).eval()
    for metric in ("pointing_game", "relevance_mass"):
        assert sl.METRICS[metric](model, data.images, left, objects=data.masks).area.tolist() == [1] * 4
        assert sl.METRICS[metric](model, data.images, left.flip(2), objects=data.masks).area.tolist() == [0] * 4


@pytest.mark.parametrize(
    ("add", "message"),
    [
        ({"masks/c.png": 1}, r"masks that fit no picture: .*masks/c\.png; give each the name of its picture"),
        ({"masks/b.png": None}, r"pictures without a mask: .*pets/b\.png; put a PNG for each into"),
        ({"masks/b.png": 0}, r"mask .*masks/b\.png is empty"),
        ({"masks/b.png": (9, 8)}, r"mask .*b\.png has 9 x 8 pixels, and its picture has 8 x 8 as it is seen; make them equal"),
        ({"masks/b.jpg": 1}, r"masks must be PNG files, .*masks/b\.jpg is none"),
        ({"b.jpg": RED}, r"mask .*masks/b\.png fits 2 pictures, .*b\.jpg, .*b\.png"),
    ],
)
def test_masks_that_do_not_fit_are_errors(here, add, message):
    for name in ("a", "b"):
        paint(here / "pets" / f"{name}.png")
        paint(here / "pets" / "masks" / f"{name}.png", 1)
    (here / "pets" / "classes.txt").write_text("yes\nno\n")
    for name, value in add.items():
        if value is None:
            (here / "pets" / name).unlink()
        elif isinstance(value, tuple) and len(value) == 2:
            paint(here / "pets" / name, 1, value)
        else:
            paint(here / "pets" / name, value)
    with pytest.raises(ValueError, match=message):
        sl.load("folder:pets")


def test_a_mask_that_is_cropped_away_is_an_error(here):
    paint(here / "pets" / "a.png", size=(600, 200))
    mask = Image.new("L", (600, 200), 0)
    mask.paste(1, (0, 0, 50, 200))
    (here / "pets" / "masks").mkdir()
    mask.save(here / "pets" / "masks" / "a.png")
    with pytest.raises(
        ValueError, match=r"a\.png is empty after its picture is cropped to 224 x 224 pixels; leave the picture out"
    ):
        sl.load("folder:pets")
    with pytest.raises(ValueError, match="so resize must take an option interpolation"):
        sl.DATASETS["folder:pets"](resize=lambda picture, side: picture.resize((side, side)))


def test_a_picture_with_two_masks_is_an_error(here):
    paint(here / "pets" / "ant" / "a.png")
    paint(here / "pets" / "masks" / "a.png", 1)
    paint(here / "pets" / "masks" / "ant" / "a.png", 1)
    with pytest.raises(ValueError, match=r"ant/a\.png has two masks"):
        sl.load("folder:pets")


def test_a_list_may_choose_some_of_the_pictures_that_have_masks(here):
    for name in ("a", "b"):
        paint(here / "pets" / f"{name}.png")
        paint(here / "pets" / "masks" / f"{name}.png", 1)
    (here / "pets" / "list.txt").write_text("b.png\n")
    assert sl.load("files:pets/list.txt").masks.all()


# Artefacts.


def settle(folder):
    """Give files a time that is long past."""
    for file in folder.rglob("*"):
        os.utime(file, (10**9, 10**9))


def fingerprints(reference):
    inputs.forget()
    return dict(parts.fingerprints(parts.Part(reference)))


@pytest.mark.parametrize("changed", ["a picture", "a class", "a mask"])
def test_an_artefact_notices_that_the_pictures_have_changed(here, changed):
    insects(here / "pets" / "train"), insects(here / "pets" / "test")
    for file in sorted((here / "pets").glob("*/*/*.png")):
        paint(here / "pets" / "masks" / file.relative_to(here / "pets"), 1)
    (here / "pets" / "classes.txt").write_text("ant\nbee\ncow\n")
    training = sl.Training("folder:pets", "cnn", changes={"epochs": 1})
    found = sl.explain(sl.Explanation(training, "random"))
    assert (
        found.maps.shape == (6, 8, 8) and "/" not in found.artefacts[0].folder.name and ":" not in found.artefacts[0].folder.name
    )
    assert sl.explain(sl.Explanation(training, "random")).maps.equal(found.maps)
    if changed == "a picture":
        paint(here / "pets" / "test" / "ant" / "ant0.png", BLUE)
    elif changed == "a class":
        (here / "pets" / "classes.txt").write_text("bee\nant\ncow\n")
    else:
        Image.fromarray(np.eye(8, dtype=np.uint8)).save(here / "pets" / "masks" / "test" / "ant" / "ant0.png")
    inputs.forget()
    with pytest.raises(ValueError, match=r"of folder:pets \(test\) are not those that .* was made from"):
        sl.explain(sl.Explanation(training, "random"))


def test_what_is_remembered_of_pictures_counts_only_while_every_file_keeps_its_time(here, outputs):
    outputs.mkdir()
    insects(here / "pets")
    (here / "pets" / "classes.txt").write_text("ant\nbee\ncow\n")
    listed = "\n".join(f"pets/{name}/{name}0.png,{name}" for name in COLOURS)
    (here / "list.csv").write_text(listed)
    for reference, file, content in (
        ("folder:pets", here / "pets" / "classes.txt", "cow\nbee\nant\n"),
        ("files:list.csv", here / "list.csv", listed.replace(",ant", ",bee")),
    ):
        settle(here)
        before = fingerprints(reference)
        file.write_text(content)
        after = fingerprints(reference)
        assert after["labels"] != before["labels"] and after["images"] == before["images"]


def test_references_name_folders_without_slashes():
    assert slug("folder:/a b/c?classes=imagenet") == "folder_a_b_c_classes=imagenet"


def test_a_line_of_metadata_ends_where_the_line_ends_and_not_within_a_text(here):
    paint(here / "lines" / "a.png"), paint(here / "lines" / "b.png", BLUE)
    rows = [{"file_name": "a.png", "label": "one\u2028two"}, {"file_name": "b.png", "label": "three"}]
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (here / "lines" / "metadata.jsonl").write_text(text, encoding="utf-8")
    assert sl.load("hf:lines").classes == ("one\u2028two", "three")


# Wrong references.


@pytest.mark.parametrize(
    ("reference", "kind", "message"),
    [
        ("folder:none", FileNotFoundError, r"'folder:none': there is no none in .*data/ and none in the working folder"),
        ("folder:/none/such", FileNotFoundError, "there is no /none/such"),
        ("folder:", ValueError, "'folder:' must be folder:<folder of pictures>"),
        ("folder:../here/pets", ValueError, r"without '\.\.', .* or name the place by its absolute path"),
        ("folder:list.txt", ValueError, r"list\.txt is no folder; a list of pictures is files:<"),
        ("folder:empty", ValueError, r"there are no pictures in .*empty/; put them at \*\.jpg, <class>/\*\.jpg"),
        ("folder:both", ValueError, r"both/ has pictures, for instance x\.png, beside folders of pictures"),
        ("folder:odd", ValueError, r"odd: train and test must have the same classes; \['ant', 'bee'\]"),
        ("folder:vals", ValueError, r"vals/ has val/ and validation/; keep one of them"),
        ("folder:pets?clases=imagenet", ValueError, "'clases' is not known; did you mean 'classes'"),
        ("folder:pets?classes=mine", ValueError, "must be imagenet; list other classes in classes.txt .*, got 'mine'"),
        ("folder:pets?classes=imagenet", ValueError, "ImageNet class 'cow' is not known"),
        ("folder:pets?image=x", ValueError, "option of 'folder:pets.image=x' 'image' is not known"),
        ("folder:twice", ValueError, r"classes\.txt lists the class 'ant' twice"),
        ("folder:few", ValueError, r"classes\.txt lists 1 classes, and \['bee', 'cow'\] are none of them; add a line for each"),
        ("folder:no", ValueError, r"classes\.txt lists no class"),
        ("files:pets", ValueError, "must name a list that ends with .csv or .txt; a folder of pictures is folder:<"),
        ("files:list.txt", ValueError, r"list\.txt, line 2 must be `path` or `path,class`, got 'b,c,d'; quote a cell"),
        ("files:some.txt", ValueError, r"some\.txt, line 1 says no class, and .*some\.txt, line 2 does"),
        ("files:again.txt", ValueError, r"again\.txt, line 2 has a picture that .*again\.txt, line 1 has already"),
        ("files:absent.csv", FileNotFoundError, r"1 of 2 pictures are missing, the first is .*x\.png"),
        ("files:nothing.txt", ValueError, r"the list of the test pictures, .*nothing\.txt, has none; write a path per line"),
        ("files:bytes.txt", ValueError, r"bytes\.txt is not UTF-8 \(byte 0\); save it as UTF-8"),
        ("hf:empty", ValueError, "there are no pictures"),
        ("hf:saved", ValueError, r"saved/ has Arrow files, as `save_to_disk` writes them; write Parquet"),
        ("hf:broken", ValueError, r"x\.parquet cannot be read as Parquet"),
        ("hf:out", ValueError, r"'\.\./pets/ant/ant0\.png' does not name something inside"),
        ("hf:lacking", ValueError, r"metadata\.csv, line 2: column 'file_name' is not known"),
        ("hf:json", ValueError, r"metadata\.jsonl, line 1: it is not JSON .*; correct it"),
        ("hf:minus", ValueError, r"0\.parquet, row 1 has the class -1, which is no number from 0"),
        ("hf:beyond", ValueError, r"has the labels \['7'\], and its classes are 2; leave these rows out"),
        ("fodler:pets", ValueError, "kind of reference to a data set 'fodler' is not known; did you mean 'folder'"),
    ],
)
def test_a_wrong_reference_is_an_error_that_says_what_to_do(here, reference, kind, message):
    for name in ("pets", "few", "twice", "no"):
        insects(here / name)
    for name, text in {"few": "ant\n", "twice": "ant\nbee\ncow\nant\n", "no": "\n"}.items():
        (here / name / "classes.txt").write_text(text)
    for name in ("empty", "saved", "broken", "out", "lacking", "json"):
        (here / name).mkdir()
    paint(here / "both" / "x.png"), insects(here / "both")
    paint(here / "odd" / "train" / "ant" / "x.png"), paint(here / "odd" / "test" / "bee" / "x.png")
    insects(here / "vals" / "val"), insects(here / "vals" / "validation")
    for name, text in {
        "list.txt": "a\nb,c,d\n",
        "some.txt": "pets/ant/ant0.png\npets/bee/bee0.png,bee\n",
        "again.txt": "pets/ant/ant0.png\npets/ant/ant0.png\n",
        "absent.csv": "pets/ant/ant0.png,ant\nx.png,bee\n",
        "nothing.txt": "\n",
        "saved/data.arrow": "x",
        "broken/x.parquet": "x",
        "out/metadata.csv": "file_name\n../pets/ant/ant0.png\n",
        "lacking/metadata.csv": "file,label\na.png,b\n",
        "json/metadata.jsonl": "{\n",
    }.items():
        (here / name).write_text(text)
    (here / "bytes.txt").write_bytes(b"\xff\xfe\xfa")
    shard(here / "minus" / "0.parquet", [(RED, 0), (RED, -1)])
    shard(here / "beyond" / "0.parquet", [(RED, 0), (RED, 7)], ["ant", "bee"])
    with pytest.raises(kind, match=message):
        sl.load(reference)


def test_a_place_in_the_working_folder_and_in_data_is_ambiguous(here, tmp_path):
    insects(here / "pets"), insects(tmp_path / "data" / "pets" / "test")
    with pytest.raises(ValueError, match=r"'folder:pets' could be .*data/pets or .*here/pets; name one by its absolute path"):
        sl.load("folder:pets")


def test_a_link_that_leads_out_is_followed_only_from_an_absolute_path(here, tmp_path):
    insects(tmp_path / "elsewhere")
    (here / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="no link that leads out of that folder; or name the place by its absolute path"):
        sl.load("folder:link")
    assert_are_insects(sl.load(f"folder:{here / 'link'}"))
