"""The recipes of params/training.yaml as specifications: what they begin with, what they train, what they refuse."""

import dataclasses

import pytest
import torch
from PIL import Image
from torch import nn

import saliency_lib as sl
from saliency_lib import models, paths, pipeline, store

STARTING = [name for name, recipe in sl.recipes().items() if recipe.get("start")]
FROM_NOTHING = [name for name in sl.recipes() if name not in STARTING and name != "pretrained"]
BEGUN = sl.Training(changes={"epochs": 2, "model_options": {"width": 6, "batch_norm": True}})


@pytest.fixture
def letters(tmp_path, monkeypatch):
    """A grey data set of three classes in a folder of its own: bright squares at three places."""
    monkeypatch.setattr(paths, "DATA", tmp_path / "data")
    source = torch.Generator().manual_seed(0)
    for split, count in (("train", 30), ("test", 10)):
        for label in range(3):
            folder = tmp_path / "data" / "letters" / split / "abc"[label]
            folder.mkdir(parents=True)
            for number in range(count):
                picture = torch.randint(0, 80, (28, 28), generator=source, dtype=torch.uint8)
                picture[9 * label : 9 * label + 9, 9:18] = 255
                Image.fromarray(picture.numpy()).save(folder / f"{number}.png")
    return "letters"


@pytest.mark.parametrize("name", [*FROM_NOTHING, *(f"{name}:mnist5k" for name in STARTING)])
@pytest.mark.parametrize("scale", ["embedded", "paper"])
def test_every_recipe_trains_at_both_scales(name, scale, outputs):
    changes = {"epochs": 1, "images": 40, "batch_size": 20, "schedule": "constant"}
    width = {"model_options": {"width": 2} | ({"activation": "softplus"} if "matching" in name else {})}
    spec = sl.Training("mnist5k", "cnn", name, scale, changes=changes | width)
    if spec.start:
        spec = dataclasses.replace(spec, start=dataclasses.replace(spec.start, changes=changes | width))
    trained = sl.train(spec)
    assert torch.isfinite(torch.cat([value.flatten() for value in trained.model.state_dict().values()])).all()
    assert trained.artefact.facts["epoch"] == 1
    assert sl.from_dict(spec.to_dict()) == spec
    assert sl.recipes()[spec.recipe][scale]["source"]


def test_a_recipe_begins_with_the_weights_that_its_text_names(letters, outputs):
    spec = sl.Training(letters, "cnn", "feature_extraction", start=BEGUN, changes={"epochs": 8, "learning_rate": 0.01})
    begun, trained = sl.train(BEGUN), sl.train(spec)
    before, after = begun.model.state_dict(), trained.model.state_dict()
    kept = [name for name in before if name in after and before[name].shape == after[name].shape]
    assert len(kept) == len(before) - 2 and all(torch.equal(before[name], after[name]) for name in kept)
    kinds = [type(part) for part in models.head_of(trained.model).children()]
    assert kinds == [nn.Dropout, nn.Linear, nn.ReLU, nn.Dropout, nn.Linear]
    assert trained.accuracy > 0.6  # the features of digits tell three squares apart
    chain = trained.artefact.provenance["upstream"]
    assert [(one["kind"], one["digest"]) for one in chain] == [("training", BEGUN.digest)]
    named = sl.Training(letters, "cnn", "fine_tuning:mnist5k/saliency_guided")
    assert named.start == sl.Training("mnist5k", "cnn", "saliency_guided") and named.recipe == "fine_tuning"
    assert named.slug == "letters-cnn-fine_tuning-from-mnist5k-saliency_guided-embedded-seed0"


def test_fine_tuning_moves_every_weight_and_gets_further_than_it_began(letters, outputs):
    spec = sl.Training(letters, "cnn", "fine_tuning", start=BEGUN, changes={"epochs": 8, "learning_rate": 0.005})
    before, trained = sl.train(BEGUN).model.state_dict(), sl.train(spec)
    after = trained.model.state_dict()
    names = [
        name for name, value in sl.train(BEGUN).model.named_parameters() if value.shape == getattr(after.get(name), "shape", None)
    ]
    assert len(names) > 30 and not any(torch.equal(before[name], after[name]) for name in names)
    assert trained.accuracy > 0.9


def test_what_is_stored_needs_what_it_began_with_no_more(letters, outputs):
    spec = sl.Training(letters, "cnn", "feature_extraction", start=BEGUN, changes={"epochs": 1})
    first = sl.train(spec)
    for folder in (outputs / "training").glob("mnist5k*"):
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
    again = sl.train(spec)
    assert all(
        torch.equal(a, b) for a, b in zip(first.model.state_dict().values(), again.model.state_dict().values(), strict=True)
    )
    assert store.find(BEGUN) is None


def test_a_network_with_published_weights_is_trained_on_other_classes(letters, outputs, monkeypatch):
    changes = {"epochs": 3, "batch_size": 15, "model_options": {"side": 64}, "learning_rate": 0.01}
    spec = sl.Training(letters, "efficientnet_lite0", "feature_extraction", changes=changes)
    published = sl.MODELS["efficientnet_lite0"](classes=1000, channels=1, pretrained=True).state_dict()
    trained = sl.train(spec)
    after = trained.model.state_dict()
    same = [name for name in after if name in published and published[name].shape == after[name].shape]
    assert len(same) > 200 and all(torch.equal(published[name], after[name]) for name in same)
    assert trained.accuracy > 0.6


@pytest.mark.parametrize(("recipe", "moves"), [("frozen_backbone", True), ("frozen_backbone_and_batch_norm", False)])
def test_the_statistics_of_a_frozen_backbone_drift_only_where_the_recipe_lets_them(recipe, moves, letters, outputs):
    spec = sl.Training(letters, "cnn", recipe, start=BEGUN, changes={"epochs": 1})
    before, after = sl.train(spec.start).model.state_dict(), sl.train(spec).model.state_dict()
    statistics = [name for name in before if "running" in name]
    weights = [name for name in before if name in after and "running" not in name and "tracked" not in name]
    assert statistics and all(torch.equal(before[name], after[name]) is not moves for name in statistics)
    # the old head stays, one level deeper, and a new layer reads its ten classes
    assert len(weights) == len(before) - len(statistics) - len([name for name in before if "tracked" in name]) - 2
    assert all(torch.equal(before[name], after[name]) for name in weights)
    assert models.head_of(sl.train(spec).model).in_features == 10


@pytest.mark.parametrize("head", list(models.HEADS))
@pytest.mark.parametrize(
    "name", ["resnet18", "vgg11", "densenet121", "mobilenet_v2", "convnext_tiny", "efficientnet_lite0", "cnn"]
)
def test_a_new_head_gives_as_many_logits_as_there_are_classes(name, head):
    network = models.with_head(sl.MODELS[name](classes=20), 7, head).eval()
    assert network(torch.rand(2, 3, 64, 64)).shape == (2, 7)
    trained = sum(parameter.numel() for parameter in models.head_of(network).parameters())
    read = {"resnet18": 512, "vgg11": 25088, "mobilenet_v2": 1280, "cnn": 128}.get(name)
    if read and head == "two_layers":
        assert trained == read * 64 + 64 + 64 * 7 + 7
    if head == "appended":
        assert trained == 20 * 7 + 7


def test_a_network_without_a_linear_layer_has_no_head():
    with pytest.raises(ValueError, match="has no linear layer, so no head that could be replaced or trained alone"):
        models.with_head(sl.MODELS["squeezenet1_1"](classes=5), 3, "linear")
    with pytest.raises(ValueError, match="head must be one of linear, appended, two_layers, got 'mlp'"):
        models.with_head(sl.MODELS["cnn"](), 3, "mlp")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("mnist5k", "cnn", "fine_tuning"),
            "begins with trained weights, and none are published of model 'cnn'; name a data set",
        ),
        (("mnist5k", "cnn", "standard:shapes"), r"recipe 'standard' begins with random weights, not with those of shapes-cnn"),
        (("mnist5k", "cnn", "fine_tuning:shapes"), r"equally many channels \(1, 3\)"),
        (("mnist5k", "cnn", "fine_tuning:shapez"), "dataset 'shapez' is not known; did you mean 'shapes'"),
        (("mnist5k", "cnn", "fine_tuning:mnist5k/guided"), "recipe 'guided' is not known"),
        (("photos", "efficientnet_lite0", "saliency_guided"), "dataset 'photos' has no training images"),
        (("mnist5k", "cnn", "saliency_guide"), "recipe 'saliency_guide' is not known; did you mean 'saliency_guided'"),
    ],
)
def test_a_recipe_that_does_not_fit_is_refused_before_anything_is_done(arguments, message):
    with pytest.raises(ValueError, match=message):
        sl.Training(*arguments)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"selection": {"by": "loss", "patiense": 3}}, "field of selection 'patiense' is not known; did you mean 'patience'"),
        ({"trainable": "heads"}, "trainable of recipe 'standard' must be one of"),
        ({"precision": "16"}, "precision of recipe 'standard' must be one of"),
        ({"devices": 0}, "devices must be a whole number from 1, got 0"),
        ({"devices": 100}, "100 devices cannot share a batch of 64 images"),
        ({"images": -1}, "images must be a whole number from 1, got -1"),
        ({"options": {"fraction": 0.5}}, "option of objective 'cross_entropy' 'fraction' is not known"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        sl.Training(changes=changes)


def test_settings_that_a_recipe_leaves_out_rename_nothing():
    """A setting that was added later, at the value that it had before it was there, is not part of the digest."""
    assert sl.Training(changes={"batch_norm": "frozen"}).digest != sl.Training().digest
    assert not set(sl.Training().implied()["settings"]) & set(sl.specs.UNLESS_SAID)


def test_a_judge_is_another_model_with_the_same_classes(outputs):
    first, second = (dataclasses.replace(BEGUN, seed=seed) for seed in (0, 1))
    maps = sl.Explanation(first, "gradient", stop=8, targets="label")
    own, judged = sl.Score(maps, "pixel_perturbation"), sl.Score(maps, "pixel_perturbation", judge=second)
    assert own.digest != judged.digest and sl.from_dict(judged.to_dict()) == judged
    direct = sl.METRICS["pixel_perturbation"](
        sl.train(second).model, sl.images_of(maps).images, sl.explain(maps).maps, sl.images_of(maps).labels
    )
    assert torch.equal(sl.score(judged).curve.values, direct.values)
    origin = store.find(judged).provenance["upstream"]
    assert [one["kind"] for one in origin] == ["explanation", "training"]
    with pytest.raises(ValueError, match="a judge must know the same classes: it was trained on shapes"):
        sl.Score(maps, "pixel_perturbation", judge=sl.Training("shapes"))
    with pytest.raises(ValueError, match="max_sensitivity asks the explained model again"):
        sl.Score(maps, "max_sensitivity", judge=second)


def test_samples_are_stored_with_the_classes_that_they_were_made_for(outputs):
    spec = sl.Samples(BEGUN, count=70, steps=2)
    made = sl.sample(spec)
    test = sl.data("mnist5k")
    assert torch.equal(made.labels, test.labels[:70])
    rows = torch.arange(70)
    direct = sl.activation_maximisation(sl.train(BEGUN).model, made.labels, shape=(1, 28, 28), steps=2, indices=rows)
    torch.testing.assert_close(made.images, direct, rtol=1e-4, atol=1e-5)
    assert sl.from_dict(spec.to_dict()) == spec
    assert torch.equal(pipeline.build(spec).images, made.images)
    for bad in ({"count": 0}, {"steps": -1}, {"rate": float("inf")}, {"decay": -1}):
        with pytest.raises(ValueError, match=f"{next(iter(bad))} must be"):
            sl.Samples(BEGUN, **bad)
