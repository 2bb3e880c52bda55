"""The training loop: it learns, repeats itself, continues where it was stopped, and says what is wrong."""

import pytest
import torch
from torch import nn

import saliency_lib as sl
from saliency_lib.training.loop import _average_buffers, fit
from saliency_lib.training.objectives import cross_entropy

SETTINGS = {**sl.Training().settings, "epochs": 3, "batch_size": 16, "learning_rate": 0.01}


def dark_and_bright():
    """Images of two classes that differ in brightness, and their labels."""
    source = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 2, (65,), generator=source)
    return torch.rand(65, 1, 8, 8, generator=source) * 0.5 + 0.4 * labels.view(-1, 1, 1, 1), labels


@pytest.fixture
def blobs():
    return dark_and_bright()


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2), nn.Linear(144, 2))


def weights(model):
    return torch.cat([value.flatten().double() for value in model.state_dict().values()])


@pytest.mark.parametrize("optimiser", ["adamw", "adam", "sgd", "adadelta"])
@pytest.mark.parametrize("schedule", ["constant", "cosine", "one_cycle", "step"])
def test_every_optimiser_and_schedule_learns(optimiser, schedule, blobs):
    rate = {"sgd": 0.1, "adadelta": 1.0}.get(optimiser, 0.01)
    changes = {
        "optimiser": optimiser,
        "schedule": schedule,
        "milestones": [6],
        "momentum": 0.9,
        "learning_rate": rate,
        "epochs": 8,
    }
    model = network()
    history = fit(model, *blobs, SETTINGS | changes, seed=0, test=blobs)
    assert [row["epoch"] for row in history] == list(range(1, 9))
    assert history[-1]["loss"] < 0.7 * history[0]["loss"]
    assert history[-1]["test_accuracy"] > 0.9
    assert not model.training


def test_the_same_seed_gives_the_same_weights_and_another_does_not(blobs):
    models = [network() for _ in range(3)]
    for model, seed in zip(models, (5, 5, 6), strict=True):
        fit(model, *blobs, SETTINGS, seed=seed)
    assert torch.equal(weights(models[0]), weights(models[1]))
    assert not torch.equal(weights(models[0]), weights(models[2]))


@pytest.mark.parametrize("optimiser", ["adamw", "sgd", "adadelta"])
def test_a_stopped_run_goes_on_to_the_same_weights(optimiser, blobs, tmp_path, monkeypatch):
    settings = SETTINGS | {"optimiser": optimiser, "momentum": 0.9, "schedule": "one_cycle", "augmentation": "crop_flip"}
    straight = network()
    history = fit(straight, *blobs, settings, seed=1, checkpoint=tmp_path / "a")

    class Stop(Exception):
        pass

    calls = 0

    def stopping(*arguments, **options):
        nonlocal calls
        calls += 1
        if calls == 8:  # in the middle of the second of three epochs
            raise Stop
        return cross_entropy(*arguments, **options)

    stopped = network()
    with monkeypatch.context() as patch:
        patch.setitem(sl.OBJECTIVES._entries, "cross_entropy", sl.OBJECTIVES.entry(stopping, "cross_entropy"))
        with pytest.raises(Stop):
            fit(stopped, *blobs, settings, seed=1, checkpoint=tmp_path / "b")
    resumed = network(seed=99)
    again = fit(resumed, *blobs, settings, seed=1, checkpoint=tmp_path / "b")
    assert torch.equal(weights(straight), weights(resumed))
    assert again == history


def test_a_truncated_checkpoint_is_an_error_that_names_it(blobs, tmp_path):
    file = tmp_path / "checkpoint.safetensors"
    fit(network(), *blobs, SETTINGS, seed=1, checkpoint=file)
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(ValueError, match=r"checkpoint .*checkpoint.safetensors is damaged .*; delete .* to train from the start"):
        fit(network(), *blobs, SETTINGS, seed=1, checkpoint=file)


def test_a_checkpoint_of_another_model_is_refused(blobs, tmp_path):
    fit(network(), *blobs, SETTINGS, seed=1, checkpoint=tmp_path / "c")
    with pytest.raises(ValueError, match="is damaged"):
        fit(nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), *blobs, SETTINGS, seed=1, checkpoint=tmp_path / "c")


def test_a_diverging_run_stops_and_names_the_batch_the_recipe_and_what_is_kept(blobs, tmp_path):
    diverging = SETTINGS | {"optimiser": "sgd", "learning_rate": 1e30}
    message = (
        r"digits: the loss became (nan|inf) in batch \d of epoch 1 of 3 \(nothing was stored\); lower the recipe's learning_rate"
    )
    with pytest.raises(ValueError, match=message):
        fit(network(), blobs[0] * 1e30, blobs[1], diverging, seed=0, title="digits")

    file = tmp_path / "state.safetensors"
    calls = 0

    def breaking(*arguments, **options):
        nonlocal calls
        calls += 1
        return cross_entropy(*arguments, **options) * (float("nan") if calls == 7 else 1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sl.OBJECTIVES._entries, "cross_entropy", sl.OBJECTIVES.entry(breaking, "cross_entropy"))
        with pytest.raises(ValueError, match=r"nan in batch 2 of epoch 2 of 3 \(the state after epoch 1 is stored in .*state.s"):
            fit(network(), *blobs, SETTINGS, seed=0, checkpoint=file)
    again, straight = network(), network()
    fit(again, *blobs, SETTINGS, seed=0, checkpoint=file)  # goes on from the good state
    fit(straight, *blobs, SETTINGS, seed=0)
    assert torch.equal(weights(again), weights(straight))


def test_weights_that_the_last_step_breaks_are_not_kept(blobs, tmp_path, monkeypatch):
    def rooted(model, images, labels, **options):
        """Its value is finite and its gradient is not: that of a root at 0."""
        return cross_entropy(model, images, labels, **options) + (0 * model[5].bias).sum().sqrt()

    monkeypatch.setitem(sl.OBJECTIVES._entries, "cross_entropy", sl.OBJECTIVES.entry(rooted, "cross_entropy"))
    with pytest.raises(ValueError, match=r"5\.bias became infinite or NaN in epoch 1 of 1 \(nothing was stored\)"):
        fit(network(), *blobs, SETTINGS | {"epochs": 1, "batch_size": 65}, seed=0, checkpoint=tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_training_leaves_the_gradient_flags_as_they_were(blobs):
    model = network()
    model[0].weight.requires_grad_(False)
    before = [parameter.requires_grad for parameter in model.parameters()]
    kept = model[0].weight.clone()
    for trainable in ("all", "head"):
        fit(model, *blobs, SETTINGS | {"trainable": trainable}, seed=0, head=model[5])
        assert [parameter.requires_grad for parameter in model.parameters()] == before
        assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(model[0].weight, kept)  # what was frozen stays so


def test_devices_agree_on_batch_norms_statistics():
    class Two:
        """Two devices, the other of which has statistics that are larger by 2."""

        world_size = 2

        def all_reduce(self, tensor, reduce_op):
            assert reduce_op == "mean"
            return (tensor + (tensor + 2)) / 2

    model = network()
    before = model[1].running_mean.clone(), model[1].running_var.clone()
    _average_buffers(Two(), model)
    assert torch.equal(model[1].running_mean, before[0] + 1) and torch.equal(model[1].running_var, before[1] + 1)
    assert model[1].num_batches_tracked == 0


@pytest.mark.slow
def test_batches_that_devices_cannot_share_are_refused(blobs):
    with pytest.raises(ValueError, match="batches of 1 images cannot be shared by 2 devices"):
        fit(network(), *blobs, SETTINGS | {"batch_size": 2, "devices": 2}, seed=0)


def test_where_the_head_alone_is_trained_nothing_else_moves_but_what_batch_norm_counts(blobs):
    for batch_norm, moves in (("updated", True), ("frozen", False)):
        model, before = network(), network()
        fit(model, *blobs, SETTINGS | {"trainable": "head", "batch_norm": batch_norm}, seed=0, head=model[5])
        same = {name: torch.equal(value, before.state_dict()[name]) for name, value in model.state_dict().items()}
        assert not same["5.weight"] and not same["5.bias"]
        assert same["0.weight"] and same["1.weight"] and same["1.bias"]
        assert same["1.running_mean"] is not moves and same["1.num_batches_tracked"] is not moves


def test_a_head_that_nobody_names_cannot_be_trained_alone(blobs):
    with pytest.raises(ValueError, match="the settings train the head alone; pass head="):
        fit(network(), *blobs, SETTINGS | {"trainable": "head"}, seed=0)


@pytest.mark.slow
def test_two_devices_share_a_batch_and_end_with_the_weights_of_one(blobs):
    def plain():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Softplus(), nn.Linear(8, 2)).double()

    images, labels = blobs[0].double(), blobs[1]
    common = SETTINGS | {"augmentation": "crop_flip", "objective": "gradient_norm", "options": {"weight": 0.1}, "epochs": 2}
    one, two = plain(), plain()
    history = fit(one, images, labels, common, seed=0, test=(images, labels))
    shared = fit(two, images, labels, common | {"devices": 2}, seed=0, test=(images, labels))
    assert torch.allclose(weights(one), weights(two), rtol=1e-9)
    assert [row["loss"] for row in shared] == pytest.approx([row["loss"] for row in history], rel=1e-6)


def test_mixed_precision_runs_the_model_in_bfloat16_and_keeps_float32_weights(blobs, monkeypatch):
    dtypes = set()

    def watching(model, images, labels, **options):
        dtypes.add(model(images).dtype)
        return cross_entropy(model, images, labels, **options)

    monkeypatch.setitem(sl.OBJECTIVES._entries, "cross_entropy", sl.OBJECTIVES.entry(watching, "cross_entropy"))
    model = network()
    history = fit(model, *blobs, SETTINGS | {"precision": "bf16-mixed"}, seed=0)
    assert dtypes == {torch.bfloat16}
    assert {value.dtype for value in model.parameters()} == {torch.float32}
    assert history[-1]["loss"] < history[0]["loss"]


@pytest.mark.parametrize("setting", ["optimiser", "schedule", "augmentation", "objective"])
def test_an_unknown_setting_is_refused(setting, blobs):
    with pytest.raises(ValueError, match=f"{setting} 'adamm' is not known"):
        fit(network(), *blobs, SETTINGS | {setting: "adamm"}, seed=0)


def test_training_leaves_the_global_random_state_alone(blobs):
    model, before = network(), torch.get_rng_state()
    fit(model, *blobs, SETTINGS, seed=0)
    assert torch.equal(before, torch.get_rng_state())
