"""Laws that hold for every data set; folders of class folders are made on the fly."""

import base64
import hashlib
import io
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torchvision.transforms import functional as pictures

from saliency_lib import paths
from saliency_lib.data.classes import DIGITS, WORDNET_IDS, imagenet_classes
from saliency_lib.data.embedded import PHOTOS
from saliency_lib.data.table import DATASETS, Images
from saliency_lib.notebook.explorer import choices

SERIES = "series_narma_moving_middle"  # of the series, which have laws of their own
EMBEDDED = [(name, split) for name in ("mnist5k", "shapes", "photos", SERIES) for split in DATASETS[name].splits]
DOWNLOADED = ("mnist", "fashion_mnist", "cifar10", "cifar100", "imagenette")
TENCH, GOLDFISH, TOILET_TISSUE = "n01440764", "n01443537", "n15075141"  # ImageNet's classes 0, 1 and 999


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "DATA", tmp_path / "data")
    return tmp_path / "data"


def paint(file, colour=(255, 0, 0), size=(8, 8)):
    """Write an image of one colour, a grey one for a number."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L" if isinstance(colour, int) else "RGB", size, colour).save(file)


def class_folders(folder, classes=("ant", "bee", "cow"), each=4, parts=("train", "test"), **how):
    for part in parts:
        for name in classes:
            for number in range(each):
                paint(folder / part / name / f"{number}.png", **how)


def load(name, split="test", **options):
    """A part of a set that is small enough for a test."""
    return DATASETS[name](split, **{"stop": 40, **options})


# Every set.


@pytest.mark.parametrize("name, split", EMBEDDED)
def test_images_are_pixels_labels_are_classes_and_shape_is_as_stated(name, split):
    part = load(name, split)
    channels, side = DATASETS[name].shape
    assert part.images.dtype == torch.float32 and part.images.shape == (len(part), channels, side, side)
    assert (part.images.min() >= 0 and part.images.max() <= 1) == (name != SERIES)
    assert part.images.flatten(1).std(1).min() > 0.05
    assert part.labels.dtype == part.indices.dtype == torch.int64 and part.labels.shape == part.indices.shape == (len(part),)
    assert part.labels.min() >= 0 and part.labels.max() < len(part.classes)
    assert all(isinstance(word, str) for word in part.classes)
    assert DATASETS[name].imagenet == (len(part.classes) == 1000)


def assert_same(first, second):
    assert torch.equal(first.images, second.images) and torch.equal(first.labels, second.labels)
    assert torch.equal(first.indices, second.indices) and first.names == second.names
    assert (first.masks is None) == (second.masks is None)
    assert first.masks is None or torch.equal(first.masks, second.masks)


def joined(parts):
    order = torch.cat([part.indices for part in parts]).argsort()
    fields = {name: torch.cat([getattr(part, name) for part in parts])[order] for name in ("images", "labels", "indices")}
    if parts[0].masks is not None:
        fields["masks"] = torch.cat([part.masks for part in parts])[order]
    names = [name for part in parts for name in part.names or ()]
    return Images(classes=parts[0].classes, names=tuple(names[i] for i in order) if names else None, **fields)


@pytest.mark.parametrize("name, split", [*EMBEDDED, ("insects", "test")])
def test_shards_joined_are_the_whole_and_twice_is_the_same(name, split, data):
    class_folders(data / "insects")
    whole = load(name, split)
    assert whole.indices.tolist() == list(range(len(whole)))
    assert_same(load(name, split), whole)
    assert_same(joined([load(name, split, start=start, stride=3) for start in range(3)]), whole)
    assert_same(joined([load(name, split, stop=4), load(name, split, start=4)]), whole)


@pytest.mark.parametrize("name, split", EMBEDDED)
def test_size_is_the_side_in_pixels(name, split):
    assert load(name, split, stop=2, size=50).images.shape[-2:] == (50, 50)


def test_a_stop_past_the_end_is_clipped():
    assert len(DATASETS["photos"](stop=10**6)) == len(DATASETS["photos"]()) == 6


@pytest.mark.parametrize(
    "options, message",
    (
        ({"split": "val"}, "'mnist5k' has no split 'val'; it has train and test"),
        ({"start": 1000}, "start=1000, stop=None, stride=1 selects none of the 1000 images of mnist5k test"),
        ({"start": 5, "stop": 5}, "selects none"),
        ({"start": -1}, "start=-1"),
        ({"stop": -1}, "stop=-1"),
        ({"stride": 0}, "stride=0"),
        ({"size": 0}, "size must be"),
        ({"size": 2.5}, "size must be"),
    ),
)
def test_a_selection_that_makes_no_sense_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        DATASETS["mnist5k"](**options)


def test_every_set_states_its_facts_and_takes_the_same_options():
    for name in DATASETS:
        entry = DATASETS[name]
        assert entry.__doc__ and "test" in entry.splits and set(entry.splits) <= {"train", "val", "test"}
        assert entry.shape[0] in (1, 3) and isinstance(entry.imagenet, bool)
        assert list(DATASETS.options(name)) == ["start", "stop", "stride", "size", "resize", "download"]
    assert {name for name, entry in DATASETS.items() if entry.texts} == {"eraser_movies", "eraser_movies_end", "sentences"}
    images = {name for name, entry in DATASETS.items() if not (name.startswith("series_") or entry.texts)}
    assert images == {"mnist5k", "shapes", "photos", *DOWNLOADED, "imagenet", "imagenet_samples"}


# mnist5k and photos.


def test_mnist5k_is_stratified_mixed_and_split_without_overlap():
    train, test = DATASETS["mnist5k"]("train"), DATASETS["mnist5k"]()
    assert train.labels.bincount().tolist() == [400] * 10 and test.labels.bincount().tolist() == [100] * 10
    assert len(test.labels[:50].unique()) == 10
    assert not {image.numpy().tobytes() for image in train.images} & {image.numpy().tobytes() for image in test.images}


def test_mnist5k_has_the_order_that_stored_results_were_computed_with():
    assert DATASETS["mnist5k"](stop=8).labels.tolist() == [5, 9, 0, 6, 6, 8, 1, 3]
    assert DATASETS["mnist5k"]("train", stop=8).labels.tolist() == [4, 3, 9, 9, 0, 9, 6, 5]


def test_photos_bear_their_names_and_classes():
    photos = DATASETS["photos"]()
    shown = {name: photos.classes[label] for name, label in zip(photos.names, photos.labels, strict=True)}
    assert shown == {name: word for name, (_, _, word) in PHOTOS.items()}
    camera = photos.images[photos.names.index("camera")]
    assert torch.equal(camera[0], camera[1]) and torch.equal(camera[0], camera[2])


# shapes.


def test_the_mask_of_a_shape_covers_the_object():
    part = DATASETS["shapes"](stop=120)
    for image, mask in zip(part.images, part.masks, strict=True):
        inside = image[:, mask]
        edge = torch.nn.functional.max_pool2d(mask[None].float(), 5, 1, 2)[0].bool() & ~mask  # two pixels around it
        assert 0.02 < mask.float().mean() < 0.35
        assert inside.std(1).max() < 0.15  # one colour but for noise and the antialiased edge
        assert (image[:, edge] - inside.mean(1, keepdim=True)).norm(dim=0).median() > 0.2


def test_masks_have_the_outline_of_the_class():
    part = DATASETS["shapes"](stop=200, size=96)
    area, box = part.masks.flatten(1).sum(1), []
    for mask in part.masks:
        rows, columns = mask.nonzero().T
        box.append((rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1))
    filled = area / torch.tensor(box)
    mean = {name: filled[part.labels == label].mean().item() for label, name in enumerate(part.classes)}
    assert mean["circle"] == pytest.approx(np.pi / 4, abs=0.02)
    assert mean["ring"] == pytest.approx(np.pi / 4 * (1 - (0.57 / 0.87) ** 2), abs=0.02)
    assert mean["star"] < mean["cross"] < mean["square"] and 0.4 < mean["triangle"] < 0.6


def test_the_colour_of_a_shape_does_not_give_its_class_away():
    part = DATASETS["shapes"]("train", stop=1200, size=24)
    colour = torch.stack([image[:, mask].mean(1) for image, mask in zip(part.images, part.masks, strict=True)])
    centres = torch.stack([colour[:600][part.labels[:600] == label].mean(0) for label in range(6)])
    nearest = torch.cdist(colour[600:], centres).argmin(1)
    assert (nearest == part.labels[600:]).float().mean() < 0.25  # chance is 1/6


def test_a_shape_is_the_same_object_at_every_size():
    small, large = (DATASETS["shapes"](stop=10, size=size) for size in (32, 96))
    assert torch.equal(small.labels, large.labels)
    shrunk = torch.nn.functional.avg_pool2d(large.masks[:, None].float(), 3)[:, 0] > 0.5
    assert (shrunk != small.masks).float().mean() < 0.01


def test_shapes_of_train_and_test_differ():
    assert not torch.equal(DATASETS["shapes"]("train", stop=1).images, DATASETS["shapes"](stop=1).images)


# Folders of class folders.


def test_a_folder_is_a_data_set_with_sorted_classes(data):
    for part in ("train", "test"):
        for name, colour in (("b", (0, 255, 0)), ("a", (255, 0, 0)), ("c", (0, 0, 255))):
            paint(data / "rgb" / part / name / "x.png", colour)
    (data / "rgb" / "test" / "a" / "notes.txt").write_text("not an image")
    (data / "rgb" / "test" / ".hidden").mkdir()
    part = DATASETS["rgb"]()
    assert part.classes == ("a", "b", "c") and sorted(part.labels.tolist()) == [0, 1, 2]
    assert torch.equal(part.images.mean((2, 3)), torch.eye(3)[part.labels])
    assert DATASETS["rgb"].splits == ("train", "test") and DATASETS["rgb"].shape == (3, 8) and not DATASETS["rgb"].imagenet


def test_a_folder_of_grey_images_has_one_channel_and_one_of_jpegs_keeps_its_colour(data):
    class_folders(data / "grey", colour=51)
    assert DATASETS["grey"].shape == (1, 8) and DATASETS["grey"]().images.unique().tolist() == pytest.approx([0.2])
    paint(data / "jpeg" / "test" / "a" / "x.JPG", (255, 255, 255), (300, 240))
    assert DATASETS["jpeg"].splits == ("test",) and DATASETS["jpeg"].shape == (3, 224)
    assert DATASETS["jpeg"]().images.min() > 0.98


def test_pictures_of_a_folder_are_brought_to_the_side_of_the_first(data):
    paint(data / "mixed" / "test" / "a" / "0.png", size=(20, 20))
    paint(data / "mixed" / "test" / "a" / "1.png", size=(50, 31))
    assert DATASETS["mixed"]().images.shape == (2, 3, 20, 20)
    assert DATASETS["mixed"](size=12).images.shape == (2, 3, 12, 12)


def test_images_of_a_folder_are_in_a_mixed_order_so_that_neither_stop_nor_stride_loses_a_class(data):
    class_folders(data / "insects", each=30, parts=("test",))
    assert len(DATASETS["insects"](stop=15).labels.unique()) == len(DATASETS["insects"](stride=3).labels.unique()) == 3


def test_only_the_selection_is_decoded(data):
    class_folders(data / "insects", parts=("test",))
    second = DATASETS["insects"](start=1, stop=2)
    file = f"insects/test/{second.classes[second.labels[0]]}/{second.names[0]}.png"
    (data / file).write_bytes(b"broken")
    assert len(DATASETS["insects"](stride=2)) == 6
    with pytest.raises(ValueError, match=f"{file} cannot be read as an image .*; replace or delete it"):
        DATASETS["insects"]()


def test_a_truncated_picture_is_an_error_that_names_it(data):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    paint(data / "cut" / "test" / "a" / "0.png")
    Image.fromarray(noise).save(data / "cut" / "test" / "a" / "1.jpg")
    whole = (data / "cut" / "test" / "a" / "1.jpg").read_bytes()
    (data / "cut" / "test" / "a" / "1.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"cut/test/a/1\.jpg cannot be read"):
        DATASETS["cut"]()


def test_train_and_test_must_have_the_same_classes(data):
    class_folders(data / "odd", ("a", "b"), parts=("train",))
    class_folders(data / "odd", ("a", "c"), parts=("test",))
    for split in ("train", "test"):
        with pytest.raises(ValueError, match=r"odd: train and test must have the same classes; \['b', 'c'\] are in only one"):
            DATASETS["odd"](split)


@pytest.mark.parametrize("name", ("../elsewhere", "..", "a/b", "/etc", ""))
def test_a_name_that_leaves_the_folder_of_data_is_refused(name, data):
    class_folders(data.parent / "elsewhere")
    with pytest.raises(ValueError, match="does not name something inside"):
        DATASETS[name]


def test_a_name_without_folder_is_unknown_and_a_folder_laid_out_otherwise_says_how(data):
    with pytest.raises(ValueError, match="dataset 'cifar11' is not known; did you mean 'cifar10'"):
        DATASETS["cifar11"]
    paint(data / "flat" / "x.png")
    with pytest.raises(ValueError, match=r"flat/ is not a data set: it needs images at \{train,test\}/<class>/\*"):
        DATASETS["flat"]


# Pictures of every kind; the left half is darker, except for what is transparent.


def halves(left, right, mode="L", size=(12, 12)):
    picture = Image.new(mode, size, left)
    picture.paste(right, (size[0] // 2, 0, *size))
    return picture


def deep(left, right, dtype=np.uint16):
    return Image.fromarray(np.repeat(np.array([[left] * 6 + [right] * 6], dtype), 12, 0))


def transparent_palette():
    picture = halves(0, 1, "P")
    picture.putpalette([255, 0, 0, 0, 0, 255])
    picture.info["transparency"] = 0
    return picture


RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)
PICTURES = {  # the picture, its file's ending, the colours of the left and of the right half
    "16 bits": (deep(51 * 257, 204 * 257), "png", (51,) * 3, (204,) * 3),
    "16 bits in tiff": (deep(51 * 257, 204 * 257), "tiff", (51,) * 3, (204,) * 3),
    "mode I": (deep(51 * 257, 204 * 257, np.int32), "tiff", (51,) * 3, (204,) * 3),
    "mode F": (deep(0.2, 0.8, np.float32), "tiff", (51,) * 3, (204,) * 3),
    "1 bit": (halves(0, 1, "1"), "png", (0,) * 3, WHITE),
    "transparent": (halves((0, 0, 0, 0), (0, 0, 255, 255), "RGBA"), "png", WHITE, BLUE),
    "half transparent": (halves((0, 0, 0, 51), (255, 0, 0, 255), "RGBA"), "webp", (204,) * 3, RED),
    "transparent grey": (halves((0, 0), (51, 255), "LA"), "png", WHITE, (51,) * 3),
    "palette": (halves("red", "blue", "RGB").convert("P"), "png", RED, BLUE),
    "transparent palette": (transparent_palette(), "png", WHITE, BLUE),
    "transparent gif": (transparent_palette(), "gif", WHITE, BLUE),
    "cmyk": (halves((0, 255, 255, 0), (0, 0, 0, 0), "CMYK"), "tiff", RED, WHITE),
    "cmyk in jpeg": (halves((0, 0, 0, 204), (0, 0, 0, 0), "CMYK", (16, 16)), "jpg", (51,) * 3, WHITE),
    "webp": (halves(RED, BLUE, "RGB"), "webp", RED, BLUE),
}


@pytest.mark.parametrize("kind", PICTURES)
def test_every_kind_of_picture_is_read_as_the_eye_sees_it_also_in_the_explorer(kind, data):
    picture, ending, left, right = PICTURES[kind]
    paint(data / "kinds" / "test" / "a" / "0.png", RED, picture.size)  # makes the set one of colours
    file = data / "kinds" / "test" / "a" / f"1.{ending}"
    picture.save(file, **({"lossless": True} if ending == "webp" else {}))
    part = DATASETS["kinds"]()
    seen = part.images[part.names.index("1")] * 255
    for half, expected in ((seen[:, :, :5], left), (seen[:, :, -5:], right)):
        assert (half - torch.tensor(expected).view(3, 1, 1)).abs().max() <= 3, half[:, 0, 0]
    if ending in ("png", "jpg"):
        drawn = torch.from_numpy(np.array(choices.decode(file.read_bytes()))).permute(2, 0, 1)
        assert torch.equal(drawn.float(), seen.round())


def test_a_picture_of_a_turned_camera_is_upright(data):
    exif = Image.Exif()
    exif[0x0112] = 6  # it has to be turned clockwise by a quarter
    file = data / "turned" / "test" / "a" / "0.jpg"
    file.parent.mkdir(parents=True)
    halves(0, 255, size=(16, 16)).save(file, exif=exif)
    image = DATASETS["turned"]().images[0, 0]
    assert image[:7].max() < 0.05 and image[-7:].min() > 0.95
    assert torch.equal(image * 255, torch.from_numpy(np.array(choices.decode(file.read_bytes()).convert("L"))).float())


DEEP = [(deep(0, 65535), "png"), (deep(0.0, 1.0, np.float32), "tiff"), (halves(0, 1, "1"), "png")]


@pytest.mark.parametrize(("picture", "ending"), DEEP)
def test_a_set_of_deep_grey_pictures_is_grey(picture, ending, data):
    file = data / "deep" / "test" / "a" / f"0.{ending}"
    file.parent.mkdir(parents=True)
    picture.save(file)
    assert DATASETS["deep"].shape == (1, 12) and DATASETS["deep"]().images.unique().tolist() == [0, 1]


@pytest.mark.parametrize("values", [(0, 70000), (-5, 10), (0.0, 3.0), (0.0, float("nan"))])
def test_a_picture_whose_values_have_no_known_range_is_refused(values, data):
    dtype = np.int32 if isinstance(values[1], int) else np.float32
    file = data / "odd" / "test" / "a" / "0.tiff"
    file.parent.mkdir(parents=True)
    deep(*values, dtype).save(file)
    with pytest.raises(ValueError, match=r"odd/test/a/0\.tiff cannot be read as an image \(its values .*; replace or delete it"):
        DATASETS["odd"]()


def test_the_photos_and_digits_are_the_pixels_that_stored_results_were_computed_with():
    pixels = {name: DATASETS[name](stop=6).images.numpy().tobytes() for name in ("mnist5k", "photos")}
    sums = {name: hashlib.sha256(content).hexdigest()[:8] for name, content in pixels.items()}
    assert sums == {"mnist5k": "528a8e71", "photos": "2e9a5eb0"}


# What may lie in a folder besides pictures.


def pipe(place):
    os.mkfifo(place)


def loop(place):
    place.symlink_to(place.name)


def nowhere(place):
    place.symlink_to("nowhere.png")


def folder(place):
    place.mkdir()


@pytest.mark.parametrize("make", [pipe, loop, nowhere, folder])
def test_what_is_no_picture_but_is_named_like_one_is_an_error_and_does_not_hang(make, data):
    class_folders(data / "odd", parts=("test",))
    make(data / "odd" / "test" / "ant" / "x.png")
    with pytest.raises(
        ValueError, match=r"odd/test/ant/x\.png cannot be read as an image \(it is not a file\); replace or delete it"
    ):
        DATASETS["odd"]()


@pytest.mark.parametrize("where", ["odd", "odd/test", "odd/test/ant"])
def test_a_loop_of_links_is_an_error_that_names_it(where, data):
    class_folders(data / "odd", parts=("test",), classes=("bee",))
    if where != "odd/test/ant":
        shutil.rmtree(data / where)
    loop(data / where)
    with pytest.raises(ValueError, match=rf"{where} is a link that leads nowhere; remove it"):
        DATASETS["odd"]()


@pytest.mark.parametrize("where", ["test/ant/b\udce9.png", "test/b\udce9e/0.png"])
def test_a_name_that_is_not_utf8_is_an_error_that_shows_it(where, data):
    class_folders(data / "odd", parts=("test",))
    paint(data / "odd" / where)
    with pytest.raises(ValueError, match=r"odd/test/.*'b\\udce9.* is not valid UTF-8; rename it") as error:
        DATASETS["odd"]()
    assert str(error.value).encode()  # can be printed


def test_the_longest_name_of_a_folder_is_a_set_and_a_longer_one_is_unknown(data):
    class_folders(data / ("x" * 250), parts=("test",), classes=("y" * 250,))
    assert len(DATASETS["x" * 250]()) == 4
    with pytest.raises(ValueError, match="is not known"):
        DATASETS["x" * 256]


def test_a_set_whose_name_is_not_utf8_is_refused(data):
    class_folders(data / "odd\udce9", parts=("test",))
    with pytest.raises(ValueError, match=r"'odd\\udce9' is not valid UTF-8; rename it") as error:
        DATASETS["odd\udce9"]()
    assert str(error.value).encode()


# Sets that are downloaded.


@pytest.mark.parametrize("name", DOWNLOADED)
def test_missing_data_name_the_folder_the_command_and_the_ways_out(name, data):
    with pytest.raises(FileNotFoundError) as error:
        DATASETS[name]("train")
    for part in (
        f"{name} is not in",
        f"DATASETS['{name}'](download=True)",
        f"{name}/{{train,test}}/<class>/*",
        "mnist5k, shapes or photos",
    ):
        assert part in str(error.value)


@pytest.mark.parametrize("name", DOWNLOADED)
def test_a_failed_download_is_the_same_error_and_leaves_nothing(name, data, monkeypatch):
    def fail(self, *_, **__):
        (data / next(data.iterdir()).name / "half.tar.gz").write_bytes(b"half")
        raise RuntimeError("no network")

    for kind in ("MNIST", "CIFAR10", "Imagenette"):
        monkeypatch.setattr(getattr(torchvision.datasets, kind), "download" if kind != "Imagenette" else "_download", fail)
    with pytest.raises(FileNotFoundError, match=rf"{name} is not in .* and could not be downloaded \(no network\); download it"):
        DATASETS[name](download=True)
    assert list(data.iterdir()) == []


def test_what_a_killed_download_left_is_removed_by_the_next(data, monkeypatch):
    left = data / ".download-0123abcd"
    left.mkdir(parents=True)
    os.utime(left, (0, 0))
    begun = data / ".download-4567abcd"
    begun.mkdir()
    monkeypatch.setattr(torchvision.datasets.MNIST, "download", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        DATASETS["mnist"](download=True)
    assert list(data.iterdir()) == [begun]  # another process may be at it


@pytest.mark.parametrize("name, kind", (("mnist", "MNIST"), ("cifar10", "CIFAR10")))
def test_a_download_is_moved_into_place_and_found_from_then_on(name, kind, data, monkeypatch):
    channels, side = DATASETS[name].shape
    raw = np.random.default_rng(0).integers(0, 256, (3, side, side, channels), dtype=np.uint8)

    class Downloaded:
        classes = DIGITS

        def __init__(self, root, train, download=False):
            if download:
                (Path(root) / kind).mkdir()
            elif not (Path(root) / kind).is_dir():
                raise RuntimeError("Dataset not found")
            self.data, self.targets = raw.squeeze(), [7, 0, 7]

    monkeypatch.setattr(torchvision.datasets, kind, Downloaded)
    for download in (True, False):
        part = DATASETS[name](download=download, stride=2)
        assert part.labels.tolist() == [7, 7]
        assert np.array_equal((part.images * 255).round().permute(0, 2, 3, 1), raw[::2])
    assert [entry.name for entry in data.iterdir()] == [kind]


@pytest.mark.parametrize("name", DOWNLOADED)
def test_a_folder_of_class_folders_goes_before_the_download_and_has_the_stated_shape(name, data):
    class_folders(data / name, size=(40, 30), parts=("test",))
    part = DATASETS[name]()
    channels, side = DATASETS[name].shape
    assert part.images.shape == (12, channels, side, side) and part.classes == ("ant", "bee", "cow")
    with pytest.raises(FileNotFoundError, match=rf"{name} has no train images; put them at .*train/<class>"):
        DATASETS[name]("train")


def test_imagenette_is_stretched_and_its_classes_are_words(data):
    for part in ("train", "val"):
        for id in (GOLDFISH, TENCH):
            paint(data / "imagenette2" / part / id / "x.JPEG", size=(100, 50))
    Image.linear_gradient("L").resize((100, 50)).convert("RGB").save(data / "imagenette2" / "val" / TENCH / "x.JPEG")
    test, train = DATASETS["imagenette"](), DATASETS["imagenette"]("train")
    assert test.classes == train.classes == ("tench", "goldfish") and test.images.shape == (2, 3, 224, 224)
    rows = test.images[test.labels == 0][0, 0].mean(1)
    assert rows[0] < 0.05 and rows[-1] > 0.95  # nothing was cropped


# ImageNet.


def test_the_labels_of_imagenet_are_ranks_among_all_its_ids_also_where_folders_are_missing(data):
    for number, id in enumerate((TOILET_TISSUE, TENCH, GOLDFISH)):
        paint(data / "imagenet" / "val" / id / f"ILSVRC2012_val_0000000{number}.JPEG", size=(300, 260))
    paint(data / "imagenet" / "train" / TENCH / "x.JPEG", size=(300, 260))
    part = DATASETS["imagenet"]()
    assert part.labels.tolist() == [999, 0, 1]  # in the official order, that of the file names
    assert part.images.shape == (3, 3, 224, 224) and len(part.classes) == 1000
    assert [part.classes[label] for label in part.labels] == ["toilet tissue", "tench", "goldfish"]
    assert DATASETS["imagenet"]("train").labels.tolist() == [0]


def test_imagenet_samples_are_ordered_by_class(data):
    for id in (TOILET_TISSUE, TENCH, GOLDFISH):
        paint(data / "imagenet_samples" / id / "a.jpg", size=(300, 260))
    assert DATASETS["imagenet_samples"]().labels.tolist() == [0, 1, 999]


def test_imagenet_is_cropped_as_torchvision_does(data):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 400, 3), dtype=np.uint8))
    (data / "imagenet" / "val" / TENCH).mkdir(parents=True)
    noise.save(data / "imagenet" / "val" / TENCH / "x.png")
    expected = pictures.to_tensor(pictures.center_crop(pictures.resize(noise, 256), 224))
    assert torch.equal(DATASETS["imagenet"]().images[0], expected)


def test_a_set_of_files_takes_another_way_of_resizing_and_one_of_arrays_refuses_it():
    squeezed = DATASETS["photos"](stop=1, size=32, resize=lambda picture, side: picture.resize((side, side)))
    assert squeezed.images.shape == (1, 3, 32, 32)
    assert not torch.equal(squeezed.images, DATASETS["photos"](stop=1, size=32).images)
    with pytest.raises(
        ValueError, match="dataset 'mnist5k' is not one of image files, so resize cannot apply; leave it out, or use size"
    ):
        DATASETS["mnist5k"](resize=lambda picture, side: picture)


def test_missing_or_foreign_folders_of_imagenet_are_named(data):
    with pytest.raises(FileNotFoundError, match=r"imagenet is not in .*image-net\.org.*imagenet/val/<WordNet id>"):
        DATASETS["imagenet"]()
    with pytest.raises(FileNotFoundError, match=r"imagenet_samples is not in .*<WordNet id>/\*\.jpg"):
        DATASETS["imagenet_samples"]()
    paint(data / "imagenet" / "val" / "tench" / "x.png")
    with pytest.raises(ValueError, match=r"imagenet/val has the folders \['tench'\], which are none of the 1000 classes"):
        DATASETS["imagenet"]()


def test_the_ids_of_imagenet_are_a_thousand_sorted_with_a_name_each():
    assert len(WORDNET_IDS) == len(imagenet_classes()) == 1000
    assert list(WORDNET_IDS) == sorted(set(WORDNET_IDS))


# How images are shown.


def test_images_show_themselves_in_one_line_and_as_thumbnails():
    digits, series = DATASETS["mnist5k"](stop=10), DATASETS[SERIES](stop=2)
    assert repr(digits) == "Images(10 of 1 x 28 x 28, 10 classes)"
    assert repr(series) == "Images(2 of 1 x 50 x 50, 2 classes, with masks)"
    for part, size in ((digits, (8 * 28, 28)), (series, (2 * 50, 50))):
        shown = part._repr_html_()
        assert repr(part) in shown and len(shown) < 20_000
        picture = Image.open(io.BytesIO(base64.b64decode(shown.partition("base64,")[2].partition('"')[0])))
        assert picture.size == size and np.asarray(picture).std() > 10
