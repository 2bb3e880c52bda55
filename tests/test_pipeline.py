"""From a specification to its result: shards, batches, damage, data that changed, methods that fail."""

import base64
import dataclasses
import functools
import html
import io
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import saliency_lib as sl
from saliency_lib import paths
from saliency_lib.artefacts import helpers, inputs, pipeline, store
from saliency_lib.core import previews

TRAINING = sl.Training(changes={"epochs": 1, "model_options": {"width": 2}})


@pytest.fixture
def trained(outputs):
    return sl.train(TRAINING)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "options"), [("smoothgrad", {"samples": 3}), ("random", {}), ("occlusion", {"window": 9})])
def test_shards_add_up_to_the_run(method, options, trained):
    run = sl.Explanation(TRAINING, method, options, start=3, stop=50, stride=2, seed=4)
    whole, joined = sl.explain(run), sl.join([sl.explain(part) for part in reversed(run.shards(3))])
    assert torch.equal(whole.indices, joined.indices)
    assert whole.indices.tolist() == list(range(3, 50, 2))
    torch.testing.assert_close(joined.maps, whole.maps, rtol=1e-5, atol=1e-6)
    assert torch.equal(joined.targets, whole.targets)
    scores = [sl.Score(one, "insertion", {"steps": 7, "fill": "noise"}, seed=2) for one in (run, *run.shards(3))]
    score, *parts = map(sl.score, scores)
    together = sl.join(parts)
    torch.testing.assert_close(together.curve.values, score.curve.values, rtol=1e-4, atol=1e-5)
    assert len(together.artefacts) == 3


def test_join_refuses_what_does_not_belong_together(trained):
    one, other = (sl.explain(sl.Explanation(TRAINING, "edges", stop=stop)) for stop in (3, 4))
    with pytest.raises(ValueError, match="share images"):
        sl.join([one, other])
    with pytest.raises(ValueError, match="results of one kind"):
        sl.join([one, sl.score(sl.Score(sl.Explanation(TRAINING, "edges", stop=3)))])
    with pytest.raises(ValueError, match="results of one kind, got \\[\\]"):
        sl.join([])
    spec = sl.Explanation(TRAINING, "edges", start=5, stop=6)
    scores = [
        sl.score(sl.Score(e, "deletion", {"steps": n})) for e, n in ((spec, 4), (dataclasses.replace(spec, start=0, stop=2), 7))
    ]
    with pytest.raises(ValueError, match="different fractions"):
        sl.join(scores)


def test_maps_from_the_store_are_the_kernels_maps(trained):
    spec = sl.Explanation(TRAINING, "gradient", stop=40, targets="label")  # more than one block
    stored, data = sl.explain(spec), sl.images_of(spec)
    torch.testing.assert_close(stored.maps, sl.METHODS["gradient"](trained.model, data.images, data.labels), rtol=1e-4, atol=1e-6)
    assert torch.equal(stored.targets, data.labels)
    score = sl.score(sl.Score(spec, "deletion", targets="label"))
    direct = sl.METRICS["deletion"](trained.model, data.images, stored.maps, data.labels)
    torch.testing.assert_close(score.curve.values, direct.values, rtol=1e-4, atol=1e-5)
    assert score.artefacts[0].facts["mean_area"] == pytest.approx(direct.area.mean().item(), rel=1e-4)


@pytest.mark.slow
def test_a_metric_is_given_the_method_and_the_true_masks_if_it_asks_for_them(trained):
    spec = sl.Explanation(TRAINING, "smoothgrad", {"samples": 3}, stop=5, seed=4)
    leaps = sl.score(sl.Score(spec, "max_sensitivity", {"samples": 2}, seed=1)).curve.area
    data, maps = sl.load(TRAINING.dataset, stop=5), sl.explain(spec)
    explain = functools.partial(sl.METHODS["smoothgrad"], samples=3, seed=4, indices=data.indices)
    given = dict(samples=2, seed=1, indices=data.indices, explain=explain)
    direct = sl.METRICS["max_sensitivity"](trained.model, data.images, maps.maps, **given)
    torch.testing.assert_close(leaps, direct.area, rtol=1e-3, atol=1e-4)
    shapes = sl.Explanation(TRAINING, "edges", dataset="shapes", stop=4)
    with pytest.raises(ValueError, match="objects"):
        sl.score(sl.Score(spec, "pointing_game"))
    found = sl.score(
        sl.Score(dataclasses.replace(shapes, training=dataclasses.replace(TRAINING, dataset="shapes")), "relevance_rank")
    )
    scenes = sl.load("shapes", stop=4)
    direct = sl.METRICS["relevance_rank"](None, scenes.images, sl.METHODS["edges"](None, scenes.images), objects=scenes.masks)
    torch.testing.assert_close(found.curve.area, direct.area)


def test_the_chain_of_digests_leads_from_the_score_to_the_weights(trained):
    score = sl.score(sl.Score(sl.Explanation(TRAINING, "edges", stop=2)))
    kind, chain = "score", [score.artefacts[0].provenance]
    while chain[-1]["upstream"]:
        step = chain[-1]["upstream"][0]
        kind = step["kind"]
        artefact = store.find(sl.from_dict(chain[-1]["spec"]).upstream[0])
        assert artefact.provenance["digest"] == step["digest"]
        chain.append(artefact.provenance)
    assert kind == "training" and "weights.safetensors" in chain[-1]["files"]


@pytest.mark.slow
def test_a_training_that_was_killed_goes_on_from_its_checkpoint(outputs, monkeypatch):
    spec = dataclasses.replace(TRAINING, changes={**TRAINING.changes, "epochs": 3})
    straight = sl.train(spec).model.state_dict()
    kept = store.place(spec).rename(outputs / "kept")
    saved, calls = pipeline.fit.__globals__["save_checkpoint"], []

    def save_and_die(*arguments):
        saved(*arguments)
        calls.append(arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setitem(pipeline.fit.__globals__, "save_checkpoint", save_and_die)
        sl.train(spec)
    assert store.checkpoint(spec).exists() and not store.place(spec).exists()
    resumed = sl.train(spec)
    assert all(torch.equal(value, straight[name]) for name, value in resumed.model.state_dict().items())
    assert len(resumed.history) == 3
    assert not store.checkpoint(spec).exists()
    assert (kept / "history.csv").read_text() == (store.place(spec) / "history.csv").read_text()


def test_a_damaged_checkpoint_is_named_with_the_way_out(outputs):
    file = store.checkpoint(TRAINING)
    file.parent.mkdir(parents=True)
    file.write_bytes(b"\0" * 1000)
    with pytest.raises(ValueError, match=r"checkpoint .*\.checkpoint\.safetensors is damaged .*; delete"):
        sl.train(TRAINING)
    assert not store.place(TRAINING).exists()


def test_truncated_weights_are_an_error_and_not_a_model(trained):
    file = trained.artefact.folder / pipeline.WEIGHTS
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(
        ValueError, match=r"weights\.safetensors is not the file that was written \(truncated or changed\); delete"
    ):
        sl.train(TRAINING)
    with pytest.raises(ValueError, match="delete the folder"):
        sl.explain(sl.Explanation(TRAINING, "gradient", stop=2))


def test_a_method_that_gives_nan_stores_nothing(trained, outputs, monkeypatch):
    def broken(model, images, targets=None):
        maps = images.mean(1)
        maps[1] = np.nan
        return maps

    monkeypatch.setitem(sl.METHODS._entries, "broken", sl.METHODS.entry(broken, "broken"))
    with pytest.raises(ValueError, match=r"method 'broken' gave NaN or infinity for images \[1\] of mnist5k; nothing was stored"):
        sl.explain(sl.Explanation(TRAINING, "broken", stop=4))
    assert list((outputs / "explanation").iterdir()) == []


def test_images_that_changed_since_they_were_explained_are_noticed(outputs, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "DATA", tmp_path / "data")
    inputs.forget()
    for split in ("train", "test"):
        for number, name in enumerate(("dark", "light")):
            folder = tmp_path / "data" / "tones" / split / name
            folder.mkdir(parents=True)
            for shade in range(4):
                Image.new("RGB", (28, 28), (100 * number + shade,) * 3).save(folder / f"{shade}.png")
    spec = sl.Explanation(dataclasses.replace(TRAINING, dataset="tones"), "edges")
    sl.score(sl.Score(spec))
    Image.new("RGB", (28, 28), (255, 0, 0)).save(tmp_path / "data" / "tones" / "test" / "dark" / "0.png")
    inputs.forget()
    with pytest.raises(
        ValueError, match=r"the images of tones \(test\) are not those that .* was made from; put them back, or delete"
    ):
        sl.explain(spec)
    with pytest.raises(ValueError, match=r"the images of tones \(test\) are not those"):
        sl.score(sl.Score(spec))
    for split in ("train", "test"):
        shutil.copytree(tmp_path / "data" / "tones" / split / "dark", tmp_path / "data" / "tones" / split / "third")
    inputs.forget()
    with pytest.raises(ValueError, match=r"tones has 3 classes, but .* was trained with 2; put the data back, or delete"):
        sl.train(spec.training)
    inputs.forget()


def test_missing_data_and_weights_name_the_remedy(outputs, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "DATA", tmp_path / "data")
    inputs.forget()
    with pytest.raises(FileNotFoundError, match=r"cifar10 is not in .*download=True.*mnist5k"):
        sl.train(sl.Training("cifar10"))
    assert not [path for path in outputs.rglob("*") if path.is_dir() and path.name not in ("training", ".locks")]
    inputs.forget()


def test_the_default_model_comes_with_the_checkout():
    found = store.find(sl.Training())
    assert found is not None, (
        f"the default model is not in outputs/defaults; run `{store.rebuild_command(sl.Training())}` and move it"
    )
    assert sl.train(sl.Training()).accuracy == found.facts["test_accuracy"] > 0.95


@pytest.mark.slow
def test_the_default_model_can_be_trained_again(outputs):
    assert sl.train(sl.Training()).accuracy > 0.94


def test_what_is_in_the_store_is_read_without_a_model_or_a_method(trained, monkeypatch):
    spec = sl.Score(sl.Explanation(TRAINING, "gradient", stop=4), "deletion", {"steps": 3})
    before = sl.score(spec)

    def asked(*arguments):
        raise AssertionError("a stored score was made again")

    for name in ("train", "explain", "_explain", "_score"):
        monkeypatch.setattr(pipeline, name, asked)
    assert torch.equal(sl.score(spec).curve.values, before.curve.values)
    with pytest.raises(AssertionError, match="made again"):
        sl.score(dataclasses.replace(spec, seed=1))


def test_many_scores_have_one_bar_and_are_each_what_score_gives(trained, capsys):
    spec = sl.Explanation(TRAINING, "gradient", stop=3)
    specs = {steps: sl.Score(spec, "deletion", {"steps": steps}) for steps in (2, 3)}
    found = sl.score_all(specs)
    said = capsys.readouterr().err
    assert "scores:" in said and "deletion of gradient" not in said and "gradient of mnist5k" not in said
    for steps, one in specs.items():
        assert torch.equal(found[steps].curve.values, sl.score(one).curve.values)
    sl.score(dataclasses.replace(specs[2], seed=9))
    assert "deletion of gradient" in capsys.readouterr().err


@pytest.mark.slow
def test_helpers_make_the_scores_that_one_process_makes(outputs, trained, capsys):
    methods = {"random": {}, "gradient": {}, "integrated_gradients": {"tolerance": 1e-9, "steps": 15}}
    asked = {
        (method, metric): sl.Score(sl.Explanation(TRAINING, method, options, stop=3), metric, {"steps": 2})
        for method, options in methods.items() for metric in ("deletion", "insertion")
    }  # fmt: skip
    with pytest.warns(UserWarning, match="raise steps or the tolerance") as told:
        found = sl.score_all(asked, processes=2)
    assert len(told) == 1 and re.findall(r"scores: 100%.* 6/6", capsys.readouterr().err)
    assert {one.artefacts[0].folder.parent.name for one in found.values()} == {"score"}
    for spec in asked.values():
        shutil.rmtree(store.place(spec))
        shutil.rmtree(store.place(spec.explanation), ignore_errors=True)
    with pytest.warns(UserWarning, match="raise steps or the tolerance"):
        alone = sl.score_all(asked)
    assert all(torch.equal(alone[key].curve.values, one.curve.values) for key, one in found.items())
    with pytest.raises(ValueError, match="processes must be a whole number of at least 1, got 0"):
        sl.score_all(asked, processes=0)


@pytest.mark.slow
def test_what_a_helper_cannot_make_is_made_or_refused_by_this_process(outputs, trained, monkeypatch):
    one, other = (sl.Explanation(TRAINING, method, stop=2) for method in ("random", "edges"))
    asked = {name: sl.Score(spec, "deletion", {"steps": 2}) for name, spec in (("one", one), ("other", other))}
    shutil.rmtree(store.place(one), ignore_errors=True)
    store.place(one).mkdir(parents=True)  # without its files
    with pytest.raises(ValueError, match="is damaged or foreign"):
        sl.score_all(asked, processes=2)
    assert store.place(asked["other"]).exists()
    store.place(one).rmdir()
    monkeypatch.setattr(helpers.sys, "executable", shutil.which("false"))
    assert set(sl.score_all(asked, processes=2)) == set(asked)


def test_results_show_themselves_in_one_line_and_small(trained):
    spec = sl.Explanation(TRAINING, "gradient", stop=26)
    maps, score = sl.explain(spec), sl.score(sl.Score(spec, "deletion", {"steps": 9}))
    game = sl.score(sl.Score(sl.Explanation(TRAINING, "edges", stop=4), "max_sensitivity", {"samples": 2}))
    assert repr(trained) == f"Trained({store.place(TRAINING).name}, test accuracy {trained.accuracy:.3f})"
    assert repr(trained.artefact).startswith("Artefact(") and len(repr(trained.artefact)) < 200
    assert repr(maps) == "Explained(26 maps of 28 x 28 by gradient, targets (26,))"
    area = f"{score.curve.area.mean():.3f}"
    assert repr(score) == f"Scored(deletion, Curve(26 curves over 10 fractions, mean area {area}))"
    assert repr(game) == f"Scored(max_sensitivity, Curve(4 numbers, mean {game.curve.area.mean():.3f}))"
    for result, words in ((trained, "epochs"), (maps, "data:image/png;base64,"), (score, area), (score.curve, area)):
        shown = result._repr_html_()
        assert html.escape(repr(result)) in shown and words in shown and len(shown) < 20_000
        assert "\n" not in repr(result)


def test_names_are_escaped_where_results_show_themselves():
    shown = previews.table("<b>", {"<i>": "<u>"}) + previews.strip("<s>", torch.zeros(3, 4, 4))
    assert not re.search(r"<[bius]>", shown) and shown.count("&lt;") == 4


@pytest.mark.parametrize("count", [1, 9])
def test_a_strip_has_at_most_eight_pictures_and_signed_maps_are_red_and_blue(count):
    maps = torch.tensor([[[2.0, 0.0], [0.0, -1.0]]]).expand(count, 2, 2)
    content = re.search(r"base64,([^\"]+)", previews.strip("maps", maps))[1]
    picture = Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB")
    assert picture.size == (2 * min(count, 8), 2)
    assert [picture.getpixel(place) for place in ((0, 0), (1, 0), (0, 1))] == [(255, 0, 0), (255, 255, 255), (255, 255, 255)]
    assert picture.getpixel((1, 1)) == (127, 127, 255)
    assert previews.SIDE == 64 and "height: 64px" in previews.strip("maps", maps)
