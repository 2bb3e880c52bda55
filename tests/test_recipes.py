"""The recipes of params/training.yaml as specifications: what they start from, what they train, what they refuse."""

import dataclasses

import pytest
import torch
from PIL import Image
from torch import nn

import saliency_lib as sl
from saliency_lib import paths
from saliency_lib.artefacts import pipeline, store
from saliency_lib.networks.heads import head_of
from saliency_lib.training.selection import accuracy

STARTING = [name for name, recipe in sl.recipes().items() if recipe.get("start")]
FROM_NOTHING = [name for name in sl.recipes() if name not in STARTING and name != "pretrained"]
BEGUN = sl.Training(changes={"epochs": 2, "images": 1000, "model_options": {"width": 6, "batch_norm": True}})


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
    smooth = name == "softplus" or "matching" in name
    width = {"model_options": {"width": 2} | ({"activation": "softplus"} if smooth else {})}
    if ":" in name:
        start = sl.Training("mnist5k", "cnn", "standard", scale, changes=changes | width)
        spec = sl.Training("mnist5k", "cnn", name.partition(":")[0], scale, changes=changes, start=start)
    else:
        spec = sl.Training("mnist5k", "cnn", name, scale, changes=changes | width)
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
    kinds = [type(part) for part in head_of(trained.model).children()]
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


@pytest.mark.slow
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
    assert head_of(sl.train(spec).model).in_features == 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("mnist5k", "cnn", "fine_tuning"),
            "starts from trained weights, and model 'cnn' has no published ones; name a data set",
        ),
        (("mnist5k", "cnn", "standard:shapes"), r"recipe 'standard' starts from random weights, not from those of shapes-cnn"),
        (("mnist5k", "cnn", "fine_tuning:shapes"), r"the same number of channels \(1, 3\)"),
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
    ("arguments", "message"),
    [
        (
            ("series_gaussian_positional_time", "tcn", "score_matching", "paper"),
            "crops and mirrors its inputs, which makes another input",
        ),
        (("series_gaussian_positional_time", "tcn", "standard", "real"), "crops and mirrors its inputs"),
        (("mnist5k", "resnet18", "softplus"), "model 'resnet18' has no Softplus units, which recipe 'softplus' is for"),
    ],
)
def test_a_recipe_that_would_do_something_else_than_it_says_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        sl.Training(*arguments)


def test_there_is_one_start_and_it_has_its_own_options():
    with pytest.raises(ValueError, match="already names the model to start from, and start is mnist5k-cnn-saliency_guided"):
        sl.Training("mnist5k", "cnn", "fine_tuning:mnist5k", start=sl.Training(recipe="saliency_guided"))
    with pytest.raises(ValueError, match="has the options of the model that it starts from; change model_options there"):
        sl.Training("mnist5k", "cnn", "fine_tuning:mnist5k", changes={"model_options": {"width": 20}})
    assert sl.Training("mnist5k", "cnn", "fine_tuning:mnist5k").settings["model_options"] == {"width": 10}


def test_what_is_stored_are_the_weights_and_the_accuracy_of_the_selected_epoch(outputs):
    changes = {"epochs": 6, "images": 300, "learning_rate": 0.02, "selection": {"by": "accuracy", "split": "test"}}
    trained = sl.train(sl.Training(changes=changes | {"model_options": {"width": 4, "batch_norm": True}}, seed=3))
    history, test = trained.history, sl.load("mnist5k")
    best = int(history["test_accuracy"].to_numpy().argmax())
    assert trained.artefact.facts["epoch"] == best + 1
    assert trained.accuracy == history["test_accuracy"].max() == accuracy(trained.model, test.images, test.labels)


def test_a_recipe_that_asks_for_some_images_gets_the_first(outputs, monkeypatch):
    seen = []
    fit = pipeline.fit
    monkeypatch.setattr(
        pipeline, "fit", lambda model, images, *rest, **options: seen.append(images) or fit(model, images, *rest, **options)
    )
    sl.train(sl.Training(changes={"epochs": 1, "images": 70, "model_options": {"width": 2}}))
    assert torch.equal(seen[0], sl.load("mnist5k", "train", stop=70).images)


RG = {"optimiser": "sgd", "learning_rate": 0.1, "momentum": 0.9, "weight_decay": 5e-4, "batch_size": 128, "epochs": 200}
RG |= {"schedule": "step", "milestones": [100, 150], "augmentation": "crop_flip", "selection": None}
SGT = {
    "optimiser": "adadelta",
    "learning_rate": 1.0,
    "batch_size": 512,
    "epochs": 100,
    "schedule": "constant",
    "augmentation": "none",
}
SB = {"optimiser": "adam", "learning_rate": 1e-6, "schedule": "oscillating", "batch_size": 32, "epochs": 20, "weight_decay": 0.0}
SB |= {"selection": {"by": "loss", "share": 0.2, "patience": 4}, "head": "two_layers", "start": "published"}
PAG = {"optimiser": "adamw", "learning_rate": 1e-3, "weight_decay": 1e-2, "batch_size": 128, "epochs": 50, "schedule": "constant"}
PAG |= {"augmentation": "none", "selection": None}
ONCE = {"estimator": "released", "probes": 1}
SCORE = ONCE | {"sigma": 0.01, "stability": 1e-3}
PUBLISHED = [
    ("cnn", "standard", PAG),
    ("resnet18", "standard", PAG | {"head": "appended", "model_options": {"normalised": False}}),
    ("resnet18", "frozen_backbone", PAG | {"trainable": "head", "head": "appended", "batch_norm": "updated"}),
    ("cifar_resnet18", "standard", RG),
    ("cifar_resnet18", "softplus", RG),
    ("cifar_resnet9", "score_matching", RG | {"options": SCORE | {"weight": 1e-3}}),
    ("cifar_resnet9", "score_matching_released", RG | {"options": SCORE | {"weight": 1e-5}}),
    ("cifar_resnet9", "anti_score_matching", RG | {"options": ONCE | {"weight": 1e-4, "sigma": 1e-3, "ceiling": 1000.0}}),
    ("cifar_resnet9", "anti_score_matching_released", RG | {"options": ONCE | {"weight": 1e-5, "sigma": 1e-3, "ceiling": 1e4}}),
    ("cifar_resnet9", "gradient_norm", RG | {"options": {"weight": 1e-3}}),
    ("cifar_resnet9", "gradient_norm_released", RG | {"options": {"weight": 1e-5}}),
    ("sgt_cnn", "standard", SGT | {"selection": {"by": "accuracy", "patience": 20}}),
    ("sgt_cnn", "regular", SGT | {"selection": {"by": "accuracy", "patience": 20}}),
    ("sgt_cnn", "saliency_guided", SGT | {"selection": {"by": "accuracy", "patience": 20}}),
    ("sgt_cnn", "saliency_guided_released", SGT | {"selection": {"by": "accuracy", "split": "test", "patience": 20}}),
    ("resnet34", "saliency_guided", {"optimiser": "sgd", "weight_decay": 1e-4, "batch_size": 512, "milestones": [100, 150]}),
    ("resnet18", "feature_extraction", SB | {"trainable": "head", "model_options": {"side": 224}}),
    ("resnet18", "feature_extraction_released", SB | {"options": {"variant": "saliency_benchmark"}, "batch_norm": "updated"}),
    ("vgg11", "fine_tuning", SB | {"trainable": "all", "options": {}}),
]


@pytest.mark.parametrize(("model", "recipe", "numbers"), PUBLISHED, ids=lambda value: value if isinstance(value, str) else "")
def test_the_paper_scale_has_the_papers_numbers(model, recipe, numbers):
    """Read from the papers and their released codes; the recipes were written from the same reading, so that this pins them."""
    settings = sl.Training("cifar10", model, recipe, "paper").settings
    assert {name: settings[name] for name in numbers} == numbers


@pytest.mark.parametrize("model", ["sgt_cnn", "cnn", "cifar_resnet18", "lstm", "tcn"])
@pytest.mark.parametrize("scale", ["embedded", "paper"])
def test_regular_and_guided_training_differ_in_their_objective_alone(model, scale):
    dataset = "series_gaussian_middle" if model in ("lstm", "tcn") else "cifar10"
    one, other = (sl.Training(dataset, model, name, scale).settings for name in ("regular", "saliency_guided"))
    assert {name for name in one if one[name] != other[name]} == {"objective", "options"}


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
    with pytest.raises(ValueError, match="a judge must predict the same classes: it was trained on shapes"):
        sl.Score(maps, "pixel_perturbation", judge=sl.Training("shapes"))
    with pytest.raises(ValueError, match="max_sensitivity explains the model again"):
        sl.Score(maps, "max_sensitivity", judge=second)


def test_samples_are_stored_with_the_classes_that_they_were_made_for(outputs):
    spec = sl.Samples(BEGUN, count=70, steps=2)
    made = sl.sample(spec)
    test = sl.load("mnist5k")
    assert torch.equal(made.labels, test.labels[:70])
    rows = torch.arange(70)
    direct = sl.activation_maximisation(sl.train(BEGUN).model, made.labels, shape=(1, 28, 28), steps=2, indices=rows)
    torch.testing.assert_close(made.images, direct, rtol=1e-4, atol=1e-5)
    assert sl.from_dict(spec.to_dict()) == spec
    assert torch.equal(pipeline.build(spec).images, made.images)
    for bad in ({"count": 0}, {"steps": -1}, {"rate": float("inf")}, {"decay": -1}):
        with pytest.raises(ValueError, match=f"{next(iter(bad))} must be"):
            sl.Samples(BEGUN, **bad)


def test_settings_of_every_recipe_are_complete():
    for name, recipe in sl.recipes().items():
        for scale in ("embedded", "paper"):
            assert recipe[scale]["source"], (name, scale)
    paper = dataclasses.replace(sl.Training(), scale="paper").settings
    # the PAG authors' numbers
    assert (paper["optimiser"], paper["learning_rate"], paper["weight_decay"]) == ("adamw", 1e-3, 1e-2)
    assert (paper["epochs"], paper["batch_size"], paper["schedule"], paper["augmentation"]) == (50, 128, "constant", "none")
