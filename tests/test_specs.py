"""Specifications: what they refuse, what their digests depend on, and the way back from their dictionaries."""

import dataclasses
import inspect
import json
import subprocess
import sys

import pytest

import saliency_lib as sl
from saliency_lib.artefacts import recipes

TRAINING = sl.Training()
EXPLANATION = sl.Explanation(TRAINING, "smoothgrad", {"samples": 3}, stop=10)
SCORE = sl.Score(EXPLANATION, "deletion", {"steps": 7})


@pytest.mark.parametrize("spec", [TRAINING, EXPLANATION, SCORE])
def test_a_specification_survives_json(spec):
    again = sl.from_dict(json.loads(json.dumps(spec.to_dict())))
    assert again == spec
    assert again.digest == spec.digest
    assert spec.name == f"{spec.slug}-{spec.digest[:8]}"


@pytest.mark.parametrize(
    ("spec", "changes"),
    [
        (TRAINING, {"dataset": "shapes", "model": "sgt_cnn", "scale": "paper", "seed": 1, "changes": {"epochs": 2}}),
        (
            EXPLANATION,
            {"method": "edges", "options": {"samples": 4}, "start": 1, "stop": 11, "stride": 2, "targets": "label", "seed": 1},
        ),
        (SCORE, {"metric": "insertion", "options": {"steps": 8}, "targets": "label", "seed": 1}),
    ],
)
def test_the_digest_depends_on_every_field(spec, changes):
    digests = {spec.digest}
    for name, value in changes.items():
        options = {"options": {}} if name == "method" else {}
        digests.add(dataclasses.replace(spec, **{name: value}, **options).digest)
    assert len(digests) == 1 + len(changes)


def test_the_digest_depends_on_what_is_upstream_and_on_the_recipes_settings(monkeypatch):
    other = sl.Score(dataclasses.replace(EXPLANATION, training=sl.Training(seed=1)), "deletion", {"steps": 7})
    assert other.digest != SCORE.digest
    before = [spec.digest for spec in (TRAINING, SCORE)]
    changed = {**sl.recipes(), "standard": {**sl.recipes()["standard"], "weight_decay": 0.5}}
    monkeypatch.setattr(recipes, "recipes", lambda: changed)
    assert [spec.digest for spec in (TRAINING, SCORE)] != before


def test_the_digest_depends_on_the_defaults_of_options_and_on_what_a_preset_is(monkeypatch):
    explanation, score = sl.Explanation(TRAINING, "smoothgrad"), sl.Score(EXPLANATION)
    before = explanation.digest, score.digest
    presets = sl.METRICS["deletion"].presets
    monkeypatch.setitem(presets, "rise", {**presets["rise"], "insertion_fill": "black"})
    monkeypatch.setitem(inspect.unwrap(sl.METHODS["smoothgrad"]).__kwdefaults__, "samples", 3)
    assert explanation.digest != before[0] and score.digest != before[1]


def test_a_specification_cannot_be_changed():
    with pytest.raises(TypeError):
        EXPLANATION.options["samples"] = 9
    with pytest.raises(dataclasses.FrozenInstanceError):
        EXPLANATION.seed = 9


def test_equal_specifications_are_one_key():
    assert len({EXPLANATION, sl.Explanation(sl.Training(), "smoothgrad", {"samples": 3}, stop=10), TRAINING, SCORE}) == 3
    assert sl.Explanation(TRAINING, "smoothgrad", {"samples": 4}, stop=10) != EXPLANATION


def test_the_signature_can_be_read():
    shown = str(inspect.signature(sl.Score))
    assert "metric: str = 'deletion'" in shown and "seed: int = 0" in shown and len(shown) < 350


def test_a_wrong_call_is_an_error_of_the_call():
    with pytest.raises(TypeError, match="unexpected keyword argument 'modell'"):
        sl.Training(modell="cnn")
    with pytest.raises(TypeError, match="missing a required argument: 'training'"):
        sl.Explanation()


def test_a_score_follows_the_class_that_is_explained():
    assert sl.Score(sl.Explanation(TRAINING, targets="label")).targets == "label"
    assert SCORE.targets == "predicted"


def test_there_are_no_more_shards_than_images():
    assert len(sl.Explanation(TRAINING, start=2, stop=7, stride=2).shards(9)) == 3


def test_the_order_of_options_does_not_matter():
    one = sl.Explanation(TRAINING, "smoothgrad", {"samples": 3, "sigma": 0.1})
    assert one == sl.Explanation(TRAINING, "smoothgrad", {"sigma": 0.1, "samples": 3})
    assert one.digest == sl.Explanation(TRAINING, "smoothgrad", {"sigma": 0.1, "samples": 3}).digest


def test_shards_cover_the_run_once():
    run = sl.Explanation(TRAINING, start=2, stop=40, stride=3)
    whole = set(range(100)[run.start : run.stop : run.stride])
    parts = [set(range(100)[part.start : part.stop : part.stride]) for part in run.shards(4)]
    assert set().union(*parts) == whole
    assert sum(map(len, parts)) == len(whole)


def test_the_recipe_is_chosen_by_the_data_set():
    assert sl.Training("mnist5k").recipe == "standard"
    assert sl.Training("photos", "efficientnet_lite0").recipe == "pretrained"
    assert sl.Training("mnist5k") == sl.Training("mnist5k", recipe="standard")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: sl.Training("mnist50k"), "dataset 'mnist50k' is not known; did you mean 'mnist5k'"),
        (lambda: sl.Training("../secrets"), "'../secrets' does not name something inside"),
        (lambda: sl.Training(model="resnet51"), "model 'resnet51' is not known; did you mean 'resnet"),
        (lambda: sl.Training(recipe="standart"), "recipe 'standart' is not known; did you mean 'standard'"),
        (lambda: sl.Training(scale="big"), "scale must be 'embedded', 'real' or 'paper', got 'big'"),
        (lambda: sl.Training(seed=-1), "seed must be greater than or equal to 0, got -1"),
        (lambda: sl.Training(changes={"epoch": 1}), "setting of recipe 'standard' 'epoch' is not known; did you mean 'epochs'"),
        (lambda: sl.Training("photos", "efficientnet_lite0", "standard"), "has no training images"),
        (lambda: sl.Training("photos", "cnn"), "model 'cnn' has no published weights"),
        (
            lambda: sl.Training("mnist5k", "efficientnet_lite0", "pretrained"),
            "and dataset 'mnist5k' has others",
        ),
        (lambda: sl.Training(changes={"epochs": 0}), "epochs must be greater than or equal to 1, got 0"),
        (lambda: sl.Training(changes={"batch_size": 0}), "batch_size must be greater than or equal to 1, got 0"),
        (
            lambda: sl.Explanation(TRAINING, "random", {"seed": 3}),
            "seed cannot be an option of a specification: its field",
        ),
        (lambda: sl.Explanation(TRAINING, "random", {"indices": [3]}), "indices cannot be an option of a specification"),
        (lambda: sl.Score(EXPLANATION, "deletion", {"seed": 3}), "seed cannot be an option of a specification"),
        (lambda: sl.Score(EXPLANATION, "max_sensitivity", {"explain": 3}), "explain cannot be an option of a specification"),
        (lambda: sl.Score(EXPLANATION, "pointing_game", {"objects": 3}), "objects cannot be an option of a specification"),
        (
            lambda: sl.Score(EXPLANATION, "max_sensitivity", targets="label"),
            "must be those of the explanation, 'predicted'",
        ),
        (lambda: sl.Explanation(TRAINING, "gradcma"), "method 'gradcma' is not known; did you mean 'gradcam'"),
        (lambda: sl.Explanation(TRAINING, options={"steps": 3}), "option of method 'gradient' 'steps' is not known"),
        (lambda: sl.Explanation(TRAINING, options={"reduction": print}), "options must map names to plain values"),
        (lambda: sl.Explanation(TRAINING, start=5, stop=5), "stop must be greater than start, which is 5, got 5"),
        (lambda: sl.Explanation(TRAINING, stride=0), "stride must be greater than or equal to 1, got 0"),
        (lambda: sl.Training(seed=True), "seed must be a valid integer, got True"),
        (lambda: sl.Training("mnist5k", 3), "model must be a valid string, got 3"),
        (lambda: sl.Explanation("mnist5k"), "training must be a dictionary or an instance of Training, got 'mnist5k'"),
        (lambda: sl.Samples(TRAINING, rate=float("inf")), "rate must be a finite number, got inf"),
        (lambda: sl.Samples(TRAINING, 0), "count must be greater than or equal to 1, got 0"),
        (lambda: EXPLANATION.shards(0), "count must be greater than or equal to 1, got 0"),
        (lambda: sl.Explanation(TRAINING, split="validation"), "split of dataset 'mnist5k' 'validation' is not known"),
        (lambda: sl.Explanation(TRAINING, targets="best"), "targets must be 'predicted' or 'label', got 'best'"),
        (lambda: sl.Score(EXPLANATION, "deletio"), "metric 'deletio' is not known; did you mean 'deletion'"),
        (lambda: sl.Score(EXPLANATION, "deletion", {"stepz": 3}), "option of metric 'deletion' 'stepz' is not known"),
        (lambda: sl.from_dict({"kind": "figure"}), "kind of specification 'figure' is not known"),
        (lambda: sl.from_dict({"kind": "training", "modell": "cnn"}), "field of training 'modell' is not known"),
    ],
)
def test_what_does_not_exist_or_fit_is_refused_with_the_remedy(make, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        make()


def test_a_text_names_methods_and_their_options():
    assert sl.method_names("gradient  random") == ["gradient", "random"]
    assert sl.method_names("all") == list(sl.METHODS) and sl.method_names("all")[-2:] == ["random", "edges"]
    assert sl.options_by_method("") == sl.options_by_method("{}") == {}
    assert sl.options_by_method("{rise: {masks: 5}, lime: {samples: 3}}") == {"rise": {"masks": 5}, "lime": {"samples": 3}}


@pytest.mark.parametrize(
    ("function", "text", "message"),
    [
        (sl.method_names, "gradient gradcma", "method 'gradcma' is not known; did you mean 'gradcam'"),
        (sl.method_names, " ", "no method is named"),
        (sl.options_by_method, "{rise: {mask: 5}}", "option of method 'rise' 'mask' is not known; did you mean 'masks'"),
        (sl.options_by_method, "{rse: {masks: 5}}", "method 'rse' is not known; did you mean 'rise'"),
        (sl.options_by_method, "{rise: 5}", "options must map methods to their options"),
        (sl.options_by_method, "rise", "'rise' is not a mapping"),
        (sl.options_by_method, "{rise: {", "is not valid YAML"),
        (sl.options_by_method, "{random: {seed: 5}}", "seed cannot be an option of a specification"),
    ],
)
def test_a_text_that_names_what_is_not_there_is_refused(function, text, message):
    with pytest.raises(ValueError, match=message):
        function(text)


@pytest.mark.slow
def test_the_batch_does_not_wait_for_torch():
    code = """
import sys, workflow.plans, docs.content
workflow.plans.steps("embedded")
sys.exit("torch" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
