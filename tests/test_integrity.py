"""A store that cannot be fooled: what changed since an artefact was made is noticed, wherever it changed."""

import dataclasses
import hashlib
import json
import os
import re
import shutil
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

import saliency_lib as sl
from saliency_lib import paths
from saliency_lib.artefacts import inputs, parts, pipeline, specification, store
from saliency_lib.core import seals
from saliency_lib.core.files import write_tensors
from saliency_lib.data import shapes
from saliency_lib.evaluation.curve import Curve

TRAINING = sl.Training(changes={"epochs": 1, "model_options": {"width": 1}, "images": 200})
SPEC = sl.Explanation(TRAINING, "edges", stop=6)


@pytest.fixture
def tones(outputs, tmp_path, monkeypatch):
    """A data set of two classes, eight images per split, and the specification of a model that is trained on it."""
    monkeypatch.setattr(paths, "DATA", tmp_path / "data")
    for split in ("train", "test"):
        for number, name in enumerate(("dark", "light")):
            folder = tmp_path / "data" / "tones" / split / name
            folder.mkdir(parents=True)
            for shade in range(4):
                Image.new("L", (28, 28), 100 * number + shade).save(folder / f"{name}{shade}.png")
    inputs.forget()
    yield tmp_path / "data" / "tones"
    inputs.forget()


@pytest.fixture
def chain(outputs):
    """A score, its maps and its model, stored."""
    spec = sl.Score(SPEC, "deletion", {"steps": 3})
    sl.score(spec)
    return spec


def forge(spec, file=None, tensors=None, **facts):
    """Rewrite a file of an artefact or its facts, with digests that fit."""
    folder = store.find(spec).folder
    if isinstance(tensors, str):
        (folder / file).write_text(tensors)
    elif tensors is not None:
        write_tensors(folder / file, tensors)
    origin = json.loads((folder / store.PROVENANCE).read_text())
    origin["files"] = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in origin["files"]}
    origin["facts"] |= facts
    origin["seal"] = seals.seal(origin)
    (folder / store.PROVENANCE).write_text(json.dumps(origin))
    return folder


# What an artefact was made from.


def repaint(tones, split="train"):
    Image.new("L", (28, 28), 255).save(tones / split / "dark" / "dark0.png")


def relabel(tones):
    (tones / "train" / "dark" / "dark0.png").rename(tones / "train" / "light" / "dark0.png")


@pytest.mark.parametrize("change", [repaint, relabel])
def test_training_images_or_labels_that_changed_are_noticed(change, tones):
    spec = sl.Explanation(dataclasses.replace(TRAINING, dataset="tones", changes=TRAINING.changes), "edges")
    sl.explain(spec)
    change(tones)
    inputs.forget()
    with pytest.raises(ValueError, match=r"of tones \(train\) are not those that .*training/tones.* was made from; put"):
        sl.train(spec.training)
    with pytest.raises(ValueError, match=r"of tones \(train\) are not those that .*training/tones.* was made from"):
        sl.explain(spec)


@pytest.mark.parametrize("part", ["labels", "masks"])
def test_labels_and_masks_that_changed_are_noticed(part, outputs, monkeypatch):
    spec = sl.Score(sl.Explanation(dataclasses.replace(TRAINING, dataset="shapes"), "edges", stop=4), "relevance_rank")
    sl.score(spec)
    inputs.forget()
    drawn = shapes._scene

    def other(key, side):
        image, label, mask = drawn(key, side)
        return image, (label + 1) % 6 if part == "labels" else label, ~mask if part == "masks" else mask

    monkeypatch.setattr(shapes, "_scene", other)
    shutil.rmtree(outputs / ".fingerprints", ignore_errors=True)  # a changed file of the library is read again in any case
    with pytest.raises(ValueError, match=rf"the {part} of shapes \(\w+\) are not those that .* was made from"):
        sl.score(spec)
    inputs.forget()


def test_data_are_read_again_only_if_their_files_changed(tones, monkeypatch):
    spec = dataclasses.replace(TRAINING, dataset="tones")
    sl.train(spec)
    monkeypatch.setattr(parts, "SETTLED", 0)
    inputs.forget()
    sl.train(spec)  # reads the images, and remembers their fingerprints with the state of the files
    inputs.forget()
    decoded = []
    opened = Image.open
    monkeypatch.setattr(Image, "open", lambda file, *rest, **how: decoded.append(file) or opened(file, *rest, **how))
    sl.train(spec)
    assert {file.name for file in decoded if "train" in file.parts} == {"dark0.png"}  # it tells the channels
    repaint(tones)
    inputs.forget()
    with pytest.raises(ValueError, match="the images of tones"):
        sl.train(spec)


def test_a_file_that_was_just_written_is_read_again_whatever_its_time_says(tones):
    spec = dataclasses.replace(TRAINING, dataset="tones")
    for file in tones.rglob("*.png"):
        os.utime(file, (0, 0))
    sl.train(spec)
    inputs.forget()
    sl.train(spec)
    assert not [part for part in inputs.parts_of(spec) if parts._note(part).exists()]


def test_a_changed_file_of_the_same_size_and_time_is_noticed(tones, monkeypatch):
    monkeypatch.setattr(parts, "SETTLED", 0)
    spec, file = dataclasses.replace(TRAINING, dataset="tones"), tones / "train" / "dark" / "dark1.png"
    sl.train(spec)
    inputs.forget()
    sl.train(spec)
    assert all(parts._note(part).exists() for part in inputs.parts_of(spec))
    before = file.stat()
    Image.new("L", (28, 28), 50).save(file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    inputs.forget()
    with pytest.raises(ValueError, match=r"the images of tones \(train\) are not those"):
        sl.train(spec)


def test_class_folders_that_swap_their_names_are_noticed(tones, monkeypatch):
    monkeypatch.setattr(parts, "SETTLED", 0)
    spec = dataclasses.replace(TRAINING, dataset="tones")
    for _ in range(2):
        sl.train(spec)
        inputs.forget()
    for old, new in (("dark", "between"), ("light", "dark"), ("between", "light")):
        (tones / "train" / old).rename(tones / "train" / new)
    with pytest.raises(ValueError, match=r"the images and labels of tones \(train\) are not those"):
        sl.train(spec)


@pytest.mark.parametrize("changed", [False, True])
def test_a_wrong_note_of_the_data_that_cannot_be_deleted_changes_nothing(changed, outputs, monkeypatch):
    sl.explain(SPEC)
    inputs.forget()
    sl.explain(SPEC)
    note = parts._note(inputs.part_of(SPEC))
    content = json.loads(note.read_text())
    note.write_text(json.dumps({**content, "sums": {**content["sums"], "images": "0" * 64}}))
    inputs.forget()
    note.chmod(0o400)
    monkeypatch.setattr(parts, "replace_file", refuse)
    monkeypatch.setattr(type(note), "unlink", refuse)
    if changed:
        monkeypatch.setattr(parts, "_sums", lambda blocks: {"shape": [1, 28, 28], "images": "1" * 64})
        with pytest.raises(ValueError, match=r"the images .*of mnist5k \(test\) are not those"):
            sl.explain(SPEC)
    else:
        sl.explain(SPEC)


def refuse(*arguments, **options):
    raise PermissionError("read-only")


def test_a_data_set_that_is_registered_again_gives_its_new_images(outputs, monkeypatch):
    def tone(value, classes):
        def read(chosen, side):
            return {"images": torch.full((len(chosen), 1, side, side), value), "labels": torch.tensor([0 for _ in chosen])}

        return lambda split, download: sl.Split(6, classes, read)

    found = []
    for value, classes in ((0.25, ("a",)), (0.75, ("a", "b"))):
        registered(monkeypatch, sl.DATASETS, "tone", tone(value, classes), shape=(1, 28))
        registered(monkeypatch, sl.METHODS, "mean", lambda model, images, targets=None: images.mean(1))
        assert sl.load("tone").images.unique() == value and inputs.classes_of("tone") == classes
        found.append(sl.explain(sl.Explanation(TRAINING, "mean", dataset="tone")))
        assert found[-1].maps.unique() == value
    assert found[0].artefacts[0].folder != found[1].artefacts[0].folder


@pytest.mark.parametrize("field", ["images", "labels", "indices", "masks"])
def test_what_load_returns_may_be_changed(field, outputs):
    before = getattr(sl.load("shapes", stop=3), field)
    before.copy_(~before if before.dtype == torch.bool else before + 1)
    assert not torch.equal(getattr(sl.load("shapes", stop=3), field), before)


def test_images_that_were_forgotten_while_they_were_used_are_still_compared(outputs):
    part = inputs.part_of(SPEC)
    data = parts.borrow(part)
    assert parts.described(part, data)["count"] == 6
    data.images.zero_()
    inputs.forget()
    with pytest.raises(ValueError, match=r"the images of mnist5k .* were changed in memory"):
        parts.described(part, data)
    inputs.forget()


def test_every_second_image_keeps_its_position(outputs):
    spec = dataclasses.replace(SPEC, start=1, stride=2)
    assert sl.explain(spec).indices.tolist() == [1, 3, 5]
    tensors = load_file(store.place(spec) / pipeline.MAPS)
    forge(spec, pipeline.MAPS, {**tensors, "indices": np.array([1, 2, 3])})
    with pytest.raises(ValueError, match="indices are not those of the images"):
        sl.explain(spec)


@pytest.mark.parametrize("get", ["load", "images_of", "METHODS"])
def test_data_that_are_changed_in_place_do_not_reach_the_store(get, outputs, monkeypatch):
    inputs.forget()
    clean = sl.explain(SPEC).maps
    shutil.rmtree(store.place(SPEC))
    if get == "load":
        data = sl.load("mnist5k", "test", 0, 6, 1, None)
    elif get == "images_of":
        data = sl.images_of(SPEC)
    else:
        data = None
        honest = sl.METHODS["edges"].function

        def spoil(model, images, targets=None):
            maps = honest(model, images, targets)
            images.zero_()
            return maps

        monkeypatch.setitem(sl.METHODS._entries, "edges", sl.METHODS.entry(spoil, "edges"))
    if data is not None:
        data.images.zero_()
        data.labels.zero_()
    for _ in range(2):
        assert torch.equal(sl.explain(SPEC).maps, clean)
        shutil.rmtree(store.place(SPEC))


def test_a_model_that_changes_the_images_in_memory_stores_nothing(outputs, monkeypatch):
    inputs.forget()
    fitted = pipeline.fit

    def spoil(model, images, *rest, **options):
        images.mul_(0.5)
        return fitted(model, images, *rest, **options)

    monkeypatch.setattr(pipeline, "fit", spoil)
    with pytest.raises(ValueError, match=r"the images of mnist5k \(train\) were changed in memory .*nothing was stored"):
        sl.train(TRAINING)
    assert not store.place(TRAINING).exists()
    monkeypatch.setattr(pipeline, "fit", fitted)
    assert sl.train(TRAINING).accuracy > 0  # the images are loaded again


# Provenance.


@pytest.mark.parametrize(
    ("old", "new"), [('"test_accuracy": 0', '"test_accuracy": 9'), ('"dirty"', '"Dirty"'), ('"seconds": ', '"seconds": 1')]
)
def test_an_edited_provenance_is_refused(old, new, outputs):
    file = sl.train(TRAINING).artefact.folder / store.PROVENANCE
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    with pytest.raises(ValueError, match=r"provenance.json was changed after it was written.*delete the folder"):
        sl.train(TRAINING)


@pytest.mark.parametrize("linked", [False, True])
def test_an_artefact_does_not_name_itself_among_those_to_delete_with_it(linked, outputs, tmp_path):
    if linked:
        (tmp_path / "elsewhere").mkdir()
        outputs.symlink_to(tmp_path / "elsewhere")
    sl.explain(SPEC)
    weights = load_file(store.find(TRAINING).folder / pipeline.WEIGHTS)
    forge(TRAINING, pipeline.WEIGHTS, {name: value + np.float32(0.01) for name, value in weights.items()})
    with pytest.raises(ValueError, match=rf"delete the folder \S*{SPEC.name}, and run again to rebuild them"):
        sl.explain(SPEC)


def test_a_kind_that_is_a_link_out_of_the_store_is_refused(outputs, tmp_path):
    outputs.mkdir()
    (outputs / "training").symlink_to(tmp_path)
    with pytest.raises(ValueError, match=r"does not name something inside .*no link that leads out of that folder"):
        sl.train(TRAINING)


def test_a_rebuilt_upstream_is_noticed_by_all_that_was_made_from_the_old_one(chain):
    folder = store.find(TRAINING).folder
    weights = load_file(folder / pipeline.WEIGHTS)
    forge(TRAINING, pipeline.WEIGHTS, {name: value + np.float32(0.01) for name, value in weights.items()})
    sl.train(TRAINING)
    said = rf"was made from .*{re.escape(TRAINING.name)}, .*has been made again.*delete"
    with pytest.raises(ValueError, match=rf"{SPEC.name} {said}.*{re.escape(chain.name)}"):
        sl.explain(SPEC)
    with pytest.raises(ValueError, match=said):
        sl.score(chain)
    shutil.rmtree(store.place(SPEC))  # the score alone still knows from which weights it came
    with pytest.raises(ValueError, match=said):
        sl.score(chain)
    shutil.rmtree(store.place(chain))
    sl.score(chain)


def test_an_upstream_that_was_deleted_or_made_again_the_same_changes_nothing(chain):
    before = sl.score(chain).curve.values
    shutil.rmtree(store.place(SPEC))
    shutil.rmtree(store.place(TRAINING))
    assert torch.equal(sl.score(chain).curve.values, before)
    sl.explain(SPEC)
    assert torch.equal(sl.score(chain).curve.values, before)


# Checkpoints.


def stop_after_an_epoch(spec, monkeypatch):
    saved = pipeline.fit.__globals__["save_checkpoint"]

    def save_and_stop(*arguments):
        saved(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setitem(pipeline.fit.__globals__, "save_checkpoint", save_and_stop)
        sl.train(spec)


@pytest.fixture
def checkpoint(outputs, monkeypatch):
    """The checkpoint of a training that was stopped after its first epoch."""
    spec = dataclasses.replace(TRAINING, changes={**TRAINING.changes, "epochs": 2})
    stop_after_an_epoch(spec, monkeypatch)
    return spec, store.checkpoint(spec)


def test_every_flipped_bit_of_a_checkpoint_is_noticed(checkpoint):
    spec, file = checkpoint
    whole = file.read_bytes()
    for place in np.random.default_rng(0).integers(len(whole), size=20):
        broken = bytearray(whole)
        broken[place] ^= 1 << int(place) % 7
        file.write_bytes(broken)
        with pytest.raises(ValueError, match=r"checkpoint\.safetensors is damaged .*; delete"):
            sl.train(spec)
    file.write_bytes(whole)
    sl.train(spec)


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_checkpoint_is_not_continued_on_other_images(split, tones, monkeypatch):
    spec = dataclasses.replace(TRAINING, dataset="tones", changes={**TRAINING.changes, "epochs": 2})
    stop_after_an_epoch(spec, monkeypatch)
    repaint(tones, split)
    inputs.forget()
    with pytest.raises(ValueError, match=rf"tones \({split}\) are not those that .*checkpoint.* was made from; put them"):
        sl.train(spec)


# Maps and curves are checked before they are stored, and again when they are read.


def registered(monkeypatch, table, name, function, **facts):
    monkeypatch.setitem(table._entries, name, table.entry(function, name, **facts))


WRONG_MAPS = {
    "has the shape (6, 27, 28) instead of (6, 28, 28)": lambda maps: maps[:, 1:],
    "has the shape (5, 28, 28) instead of (6, 28, 28)": lambda maps: maps[1:],
    "has the shape (6, 1, 28, 28) instead of (6, 28, 28)": lambda maps: maps[:, None],
    "has the type torch.float64 instead of torch.float32": lambda maps: maps.double(),
    "has the type torch.bool instead of torch.float32": lambda maps: maps > 0,
    "is a list instead of a tensor": lambda maps: maps.tolist(),
}


@pytest.mark.parametrize("said", WRONG_MAPS)
def test_a_map_of_the_wrong_kind_is_never_stored(said, outputs, monkeypatch):
    change = WRONG_MAPS[said]
    registered(monkeypatch, sl.METHODS, "wrong", lambda model, images, targets=None: change(images.mean(1)))
    with pytest.raises(ValueError, match=re.escape(f"method 'wrong': maps {said}; nothing was stored")):
        sl.explain(sl.Explanation(TRAINING, "wrong", stop=6))
    assert not list((outputs / "explanation").iterdir())


WRONG_CURVES = {
    "values has the shape (6, 2) instead of (6, 3)": lambda curve: {"values": curve.values[:, 1:]},
    "area has the shape (5,) instead of (6,)": lambda curve: {"area": curve.area[1:]},
    "area has the type torch.float64 instead of torch.float32": lambda curve: {"area": curve.area.double()},
    "values has NaN or infinity": lambda curve: {"values": curve.values / 0},
    "fractions decreases": lambda curve: {"fractions": curve.fractions.flip(0)},
    "tied has the shape (1,) instead of (6,)": lambda curve: {"tied": curve.area[:1]},
}


@pytest.mark.parametrize("said", WRONG_CURVES)
def test_a_curve_of_the_wrong_kind_is_never_stored(said, outputs, monkeypatch):
    change = WRONG_CURVES[said]

    def wrong(model, images, maps, targets=None):
        curve = Curve(torch.linspace(0, 1, 3), torch.ones(len(images), 3), torch.ones(len(images)))
        return dataclasses.replace(curve, **change(curve))

    registered(monkeypatch, sl.METRICS, "wrong", wrong, lower_is_better=True)
    with pytest.raises(ValueError, match=re.escape(f"metric 'wrong': {said}; nothing was stored")):
        sl.score(sl.Score(SPEC, "wrong"))
    assert not list((outputs / "score").iterdir())


def test_curves_of_blocks_that_do_not_fit_together_are_never_stored(outputs, monkeypatch):
    def wrong(model, images, maps, targets=None, *, indices=None):
        points = 3 + int(indices[0] > 0)
        return Curve(torch.linspace(0, 1, points), torch.ones(len(images), points), torch.ones(len(images)))

    registered(monkeypatch, sl.METRICS, "wrong", wrong, lower_is_better=True)
    with pytest.raises(ValueError, match=r"metric 'wrong': fractions differs between images; nothing was stored"):
        sl.score(sl.Score(dataclasses.replace(SPEC, stop=pipeline.BLOCK + 1), "wrong"))


FORGED = {  # what is wrong with a file whose digests fit
    "NaN": lambda x: x * np.nan if x.dtype.kind == "f" else None,
    "shape": lambda x: x[..., :-1],
    "count": lambda x: x[:-1],
    "dtype": lambda x: x.astype(np.float64 if x.dtype.kind == "f" else np.int32),
    "sign": lambda x: x - 10**6 if x.dtype.kind == "i" else None,
    "class": lambda x: np.full_like(x, 10) if x.dtype.kind == "i" else None,  # there are ten, from 0
}


@pytest.mark.parametrize("kind", ["training", "explanation", "score", "samples"])
def test_a_forged_artefact_is_refused_with_the_files_name_and_the_way_out(kind, chain):
    samples = sl.Samples(TRAINING, count=3, steps=1)
    spec = {"training": TRAINING, "explanation": SPEC, "score": chain, "samples": samples}[kind]
    pipeline.build(spec)
    name = {"training": "weights", "explanation": "maps", "score": "curves", "samples": "images"}[kind] + ".safetensors"
    honest = load_file(store.find(spec).folder / name)
    forged = [{**honest, "foreign": np.zeros(2, np.float32)}, dict(list(honest.items())[1:])]
    for field, value in honest.items():
        changed = [change(value) for what, change in FORGED.items() if kind != "training" or what not in ("sign", "class")]
        forged += [{**honest, field: one} for one in changed if one is not None]
    for tensors in forged:
        folder = forge(spec, name, tensors)
        with pytest.raises(ValueError, match=rf"{folder.name} is damaged or foreign: {name}.*delete the folder"):
            pipeline.build(spec)
    forge(spec, name, honest)
    pipeline.build(spec)
    assert len(forged) > 6


COLUMNS = "epoch,loss,learning_rate,test_accuracy\n"
FORGED_HISTORIES = ["", '"', "a\n\0", "epoch,loss,test_accuracy\n1,1.0,0.5\n", COLUMNS]
FORGED_HISTORIES += [COLUMNS + row for row in ("2,1.0,0.1,0.5\n", "1,nan,0.1,0.5\n", "1,1.0,inf,0.5\n", "1,1.0,0.1,\n")]


@pytest.mark.parametrize("text", FORGED_HISTORIES)
def test_a_forged_history_is_refused(text, outputs):
    sl.train(TRAINING)
    forge(TRAINING, "history.csv", text)
    with pytest.raises(ValueError, match=rf"{TRAINING.name} is damaged or foreign: history.csv.*delete the folder"):
        sl.train(TRAINING)


# Stores of other versions.


@pytest.mark.parametrize(("known", "age"), [(None, "an earlier"), (1, "an earlier"), (3, "a later")])
def test_an_artefact_of_another_format_is_recognised_and_not_misread(known, age, outputs):
    file = sl.train(TRAINING).artefact.folder / store.PROVENANCE
    origin = json.loads(file.read_text())
    del origin["format"], origin["seal"]
    file.write_text(json.dumps(origin if known is None else {**origin, "format": known}))
    said = rf"{TRAINING.name} was written by {age} version of the library \(its format is {known or 1}, .*delete the folder"
    with pytest.raises(ValueError, match=said):
        sl.train(TRAINING)
    with pytest.raises(ValueError, match=said):
        sl.explain(SPEC)


def test_an_artefact_of_an_older_revision_is_named_and_not_used(outputs, monkeypatch):
    monkeypatch.setitem(specification.REVISIONS, "explanation", 1)
    old = sl.explain(SPEC).artefacts[0].folder
    monkeypatch.undo()
    monkeypatch.setattr(paths, "OUTPUTS", outputs)
    with pytest.warns(UserWarning, match=rf"{old.name} was made by another version of the library .*is not used; .*delete"):
        new = sl.explain(SPEC).artefacts[0].folder
    assert new != old and old.is_dir()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sl.explain(SPEC)
