"""The training engine: it learns, it repeats itself, it goes on where it was stopped, and it says what is wrong."""

import dataclasses

import pytest
import torch
from torch import nn

import saliency_lib as sl
from saliency_lib.training import loop as training
from saliency_lib.training.objectives import cross_entropy
from saliency_lib.training.schedules import SCHEDULES, crop_flip
from saliency_lib.training.settings import Selection

SETTINGS = {**sl.Training().settings, "epochs": 3, "batch_size": 16, "learning_rate": 0.01}


@pytest.fixture
def blobs():
    """Images of two classes that differ in brightness."""
    source = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 2, (65,), generator=source)
    return torch.rand(65, 1, 8, 8, generator=source) * 0.5 + 0.4 * labels.view(-1, 1, 1, 1), labels


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
    history = training.fit(model, *blobs, SETTINGS | changes, seed=0, test=blobs)
    assert [row["epoch"] for row in history] == list(range(1, 9))
    assert history[-1]["loss"] < 0.7 * history[0]["loss"]
    assert history[-1]["test_accuracy"] > 0.9
    assert not model.training


def test_the_same_seed_gives_the_same_weights_and_another_does_not(blobs):
    models = [network() for _ in range(3)]
    for model, seed in zip(models, (5, 5, 6), strict=True):
        training.fit(model, *blobs, SETTINGS, seed=seed)
    assert torch.equal(weights(models[0]), weights(models[1]))
    assert not torch.equal(weights(models[0]), weights(models[2]))


@pytest.mark.parametrize("optimiser", ["adamw", "sgd", "adadelta"])
def test_a_stopped_run_goes_on_to_the_same_weights(optimiser, blobs, tmp_path, monkeypatch):
    settings = SETTINGS | {"optimiser": optimiser, "momentum": 0.9, "schedule": "one_cycle", "augmentation": "crop_flip"}
    straight = network()
    history = training.fit(straight, *blobs, settings, seed=1, checkpoint=tmp_path / "a")

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
            training.fit(stopped, *blobs, settings, seed=1, checkpoint=tmp_path / "b")
    resumed = network(seed=99)
    again = training.fit(resumed, *blobs, settings, seed=1, checkpoint=tmp_path / "b")
    assert torch.equal(weights(straight), weights(resumed))
    assert again == history


def test_a_truncated_checkpoint_is_an_error_that_names_it(blobs, tmp_path):
    file = tmp_path / "checkpoint.safetensors"
    training.fit(network(), *blobs, SETTINGS, seed=1, checkpoint=file)
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(ValueError, match=r"checkpoint .*checkpoint.safetensors is damaged .*; delete .* to train from the start"):
        training.fit(network(), *blobs, SETTINGS, seed=1, checkpoint=file)


def test_a_checkpoint_of_another_model_is_refused(blobs, tmp_path):
    training.fit(network(), *blobs, SETTINGS, seed=1, checkpoint=tmp_path / "c")
    with pytest.raises(ValueError, match="is damaged"):
        training.fit(nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), *blobs, SETTINGS, seed=1, checkpoint=tmp_path / "c")


def test_a_diverging_run_stops_and_names_the_batch_the_recipe_and_what_is_kept(blobs, tmp_path):
    diverging = SETTINGS | {"optimiser": "sgd", "learning_rate": 1e30}
    message = (
        r"digits: the loss became (nan|inf) in batch \d of epoch 1 of 3 \(nothing was stored\); lower the recipe's learning_rate"
    )
    with pytest.raises(ValueError, match=message):
        training.fit(network(), blobs[0] * 1e30, blobs[1], diverging, seed=0, title="digits")

    file = tmp_path / "state.safetensors"
    calls = 0

    def breaking(*arguments, **options):
        nonlocal calls
        calls += 1
        return cross_entropy(*arguments, **options) * (float("nan") if calls == 7 else 1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sl.OBJECTIVES._entries, "cross_entropy", sl.OBJECTIVES.entry(breaking, "cross_entropy"))
        with pytest.raises(ValueError, match=r"nan in batch 2 of epoch 2 of 3 \(the state after epoch 1 is stored in .*state.s"):
            training.fit(network(), *blobs, SETTINGS, seed=0, checkpoint=file)
    again, straight = network(), network()
    training.fit(again, *blobs, SETTINGS, seed=0, checkpoint=file)  # goes on from the good state
    training.fit(straight, *blobs, SETTINGS, seed=0)
    assert torch.equal(weights(again), weights(straight))


def falling_then_rising(monkeypatch, values):
    """Make the judged accuracies those of a list, epoch by epoch."""
    given = iter(values)

    def judge(model, judged, selection, epoch, best):
        value = next(given)
        if value > best.value:
            best.epoch, best.value = epoch, value
            best.weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        return {"validation_accuracy": value, "best": float(best.epoch == epoch)}

    monkeypatch.setattr(training, "judge", judge)


def test_the_selected_epoch_is_the_best_one_and_patience_ends_the_run(blobs, monkeypatch):
    snapshots = []

    def watching(model, images, labels, **options):
        snapshots.append(weights(model))
        return cross_entropy(model, images, labels, **options)

    monkeypatch.setitem(sl.OBJECTIVES._entries, "cross_entropy", sl.OBJECTIVES.entry(watching, "cross_entropy"))
    falling_then_rising(monkeypatch, [0.5, 0.7, 0.6, 0.7, 0.9])
    model = network()
    selection = {"by": "accuracy", "share": 0.2, "patience": 2}
    history = training.fit(model, *blobs, SETTINGS | {"epochs": 9, "selection": selection}, seed=0)
    assert [row["best"] for row in history] == [1, 1, 0, 0]  # an equal one is not better, and two without a better are enough
    batches = len(snapshots) // 4
    assert torch.equal(weights(model), snapshots[2 * batches])  # the weights at the end of the second epoch


def test_a_selection_holds_images_out_which_are_never_trained_on(blobs, monkeypatch):
    seen = []

    def watching(model, images, labels, **options):
        seen.append(images.clone())
        return cross_entropy(model, images, labels, **options)

    monkeypatch.setitem(sl.OBJECTIVES._entries, "cross_entropy", sl.OBJECTIVES.entry(watching, "cross_entropy"))
    history = training.fit(network(), *blobs, SETTINGS | {"selection": {"share": 0.2}}, seed=0)
    used = {image.numpy().tobytes() for batch in seen for image in batch}
    assert len(used) == 52 == len(blobs[0]) - round(0.2 * 65)
    assert all({"validation_loss", "validation_accuracy", "best"} <= set(row) for row in history)


def test_the_validation_rows_are_the_models_own_loss_and_accuracy(blobs):
    model = network()
    history = training.fit(model, *blobs, SETTINGS | {"selection": {"split": "test", "by": "accuracy"}}, seed=0, test=blobs)
    assert [row["validation_accuracy"] for row in history] == pytest.approx([row["test_accuracy"] for row in history])
    best = max(history, key=lambda row: row["validation_accuracy"])
    with torch.no_grad():
        loss = nn.functional.cross_entropy(model(blobs[0]), blobs[1])
    assert loss.item() == pytest.approx(best["validation_loss"], rel=1e-5)


def test_a_stopped_run_with_a_selection_goes_on_to_the_same_weights(blobs, tmp_path, monkeypatch):
    settings = SETTINGS | {"epochs": 4, "selection": {"share": 0.2, "by": "accuracy"}}
    straight = network()
    history = training.fit(straight, *blobs, settings, seed=1)
    judge = training.judge

    def stopping(model, judged, selection, epoch, best):
        if epoch == 3:
            raise KeyboardInterrupt
        return judge(model, judged, selection, epoch, best)

    with monkeypatch.context() as patch:
        patch.setattr(training, "judge", stopping)
        with pytest.raises(KeyboardInterrupt):
            training.fit(network(), *blobs, settings, seed=1, checkpoint=tmp_path / "c")
    resumed = network(seed=99)
    assert training.fit(resumed, *blobs, settings, seed=1, checkpoint=tmp_path / "c") == history
    assert torch.equal(weights(straight), weights(resumed))


def test_an_epoch_that_is_only_as_good_is_not_better(blobs):
    model, best = network(), training.Best()
    selection = Selection(by="accuracy")
    rows = [training.judge(model, blobs, selection, epoch, best) for epoch in (1, 2)]
    assert [row["best"] for row in rows] == [1, 0] and best.epoch == 1


def test_a_resumed_run_remembers_the_weights_of_its_best_epoch(blobs, tmp_path, monkeypatch):
    settings = SETTINGS | {"epochs": 3, "selection": {"share": 0.2}}
    falling_then_rising(monkeypatch, [0.9, 0.5, 0.6])
    straight = network()
    training.fit(straight, *blobs, settings, seed=1)
    falling_then_rising(monkeypatch, [0.9, 0.5])  # and in the third epoch there is no answer
    with pytest.raises(StopIteration):
        training.fit(network(), *blobs, settings, seed=1, checkpoint=tmp_path / "c")
    falling_then_rising(monkeypatch, [0.6])
    resumed = network(seed=99)
    training.fit(resumed, *blobs, settings, seed=1, checkpoint=tmp_path / "c")
    assert torch.equal(weights(straight), weights(resumed))


def test_weights_that_the_last_step_breaks_are_not_kept(blobs, tmp_path, monkeypatch):
    def rooted(model, images, labels, **options):
        """Its value is finite and its gradient is not: that of a root at 0."""
        return cross_entropy(model, images, labels, **options) + (0 * model[5].bias).sum().sqrt()

    monkeypatch.setitem(sl.OBJECTIVES._entries, "cross_entropy", sl.OBJECTIVES.entry(rooted, "cross_entropy"))
    with pytest.raises(ValueError, match=r"5\.bias became infinite or NaN in epoch 1 of 1 \(nothing was stored\)"):
        training.fit(network(), *blobs, SETTINGS | {"epochs": 1, "batch_size": 65}, seed=0, checkpoint=tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_training_leaves_the_gradient_flags_as_they_were(blobs):
    model = network()
    model[0].weight.requires_grad_(False)
    before = [parameter.requires_grad for parameter in model.parameters()]
    kept = model[0].weight.clone()
    for trainable in ("all", "head"):
        training.fit(model, *blobs, SETTINGS | {"trainable": trainable}, seed=0, head=model[5])
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
    training._average_buffers(Two(), model)
    assert torch.equal(model[1].running_mean, before[0] + 1) and torch.equal(model[1].running_var, before[1] + 1)
    assert model[1].num_batches_tracked == 0


@pytest.mark.slow
def test_batches_that_devices_cannot_share_are_refused(blobs):
    with pytest.raises(ValueError, match="batches of 1 images cannot be shared by 2 devices"):
        training.fit(network(), *blobs, SETTINGS | {"batch_size": 2, "devices": 2}, seed=0)


def test_a_selection_by_test_images_needs_them(blobs):
    with pytest.raises(ValueError, match="the selection compares epochs on the test images, but there are none"):
        training.fit(network(), *blobs, SETTINGS | {"selection": {"split": "test"}}, seed=0)


def test_a_share_that_leaves_no_image_is_refused(blobs):
    with pytest.raises(ValueError, match=r"a share of 0\.001 holds 0 of 65 images out for validation"):
        training.fit(network(), *blobs, SETTINGS | {"selection": {"share": 0.001}}, seed=0)


def test_where_the_head_alone_is_trained_nothing_else_moves_but_what_batch_norm_counts(blobs):
    for batch_norm, moves in (("updated", True), ("frozen", False)):
        model, before = network(), network()
        training.fit(model, *blobs, SETTINGS | {"trainable": "head", "batch_norm": batch_norm}, seed=0, head=model[5])
        same = {name: torch.equal(value, before.state_dict()[name]) for name, value in model.state_dict().items()}
        assert not same["5.weight"] and not same["5.bias"]
        assert same["0.weight"] and same["1.weight"] and same["1.bias"]
        assert same["1.running_mean"] is not moves and same["1.num_batches_tracked"] is not moves


@pytest.mark.slow
def test_two_devices_share_a_batch_and_end_with_the_weights_of_one(blobs):
    def plain():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Softplus(), nn.Linear(8, 2)).double()

    images, labels = blobs[0].double(), blobs[1]
    common = SETTINGS | {"augmentation": "crop_flip", "objective": "gradient_norm", "options": {"weight": 0.1}, "epochs": 2}
    one, two = plain(), plain()
    history = training.fit(one, images, labels, common, seed=0, test=(images, labels))
    shared = training.fit(two, images, labels, common | {"devices": 2}, seed=0, test=(images, labels))
    assert torch.allclose(weights(one), weights(two), rtol=1e-9)
    assert [row["loss"] for row in shared] == pytest.approx([row["loss"] for row in history], rel=1e-6)


def test_mixed_precision_runs_the_model_in_bfloat16_and_keeps_float32_weights(blobs, monkeypatch):
    dtypes = set()

    def watching(model, images, labels, **options):
        dtypes.add(model(images).dtype)
        return cross_entropy(model, images, labels, **options)

    monkeypatch.setitem(sl.OBJECTIVES._entries, "cross_entropy", sl.OBJECTIVES.entry(watching, "cross_entropy"))
    model = network()
    history = training.fit(model, *blobs, SETTINGS | {"precision": "bf16-mixed"}, seed=0)
    assert dtypes == {torch.bfloat16}
    assert {value.dtype for value in model.parameters()} == {torch.float32}
    assert history[-1]["loss"] < history[0]["loss"]


def test_the_oscillating_rate_is_that_of_the_benchmarks_scheduler():
    """CosineAnnealingLR(T_max=20, eta_min=1e-5) at a rate of 1e-6, stepped by batch."""
    parameter = nn.Parameter(torch.zeros(()))
    optimiser = torch.optim.Adam([parameter], lr=1e-6)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=20, eta_min=1e-5)
    for step in range(100):
        ours = 1e-6 * SCHEDULES["oscillating"](step, 100, 0, ())
        assert ours == pytest.approx(optimiser.param_groups[0]["lr"], rel=1e-6)
        optimiser.step()
        scheduler.step()


@pytest.mark.parametrize("setting", ["optimiser", "schedule", "augmentation", "objective"])
def test_an_unknown_setting_is_refused(setting, blobs):
    with pytest.raises(ValueError, match=f"{setting} 'adamm' is not known"):
        training.fit(network(), *blobs, SETTINGS | {setting: "adamm"}, seed=0)


def test_training_leaves_the_global_random_state_alone(blobs):
    model, before = network(), torch.get_rng_state()
    training.fit(model, *blobs, SETTINGS, seed=0)
    assert torch.equal(before, torch.get_rng_state())


def test_crop_flip_shifts_by_up_to_four_pixels_and_mirrors_half():
    images = torch.zeros(4000, 1, 9, 9)
    images[:, :, 4, 4] = 1
    images[:, :, 4, 5] = 0.5  # at the right of the bright pixel, so at its left where mirrored
    moved = crop_flip(images, torch.Generator().manual_seed(0))
    bright = (moved[:, 0] == 1).flatten(1).int().argmax(1)
    rows, columns = bright // 9, bright % 9
    assert set(rows.tolist()) == set(range(9)) == set(columns.tolist())
    left = torch.roll(moved, 1, 3)[moved == 1] == 0.5
    inside = (columns > 0) & (columns < 8)  # where both neighbours are seen
    assert abs(left[inside].float().mean() - 0.5) < 5 * (0.25 / inside.sum()) ** 0.5


def test_cross_entropy_by_hand():
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2, bias=False))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[0.0], [1.0]]))
    loss = cross_entropy(model, torch.tensor([[[[0.0]]], [[[1.0]]]]), torch.tensor([0, 1]))
    # -log of 1/2 and of e/(1+e), averaged
    assert loss.item() == pytest.approx((0.693147 + 0.313262) / 2, rel=1e-5)


def test_accuracy_counts_right_answers(blobs):
    class Bright(nn.Module):
        def __init__(self):
            super().__init__()
            self.cut = nn.Parameter(torch.tensor(0.45))

        def forward(self, images):
            mean = images.flatten(1).mean(1)
            return torch.stack([self.cut.expand_as(mean), mean], 1)

    right = ((blobs[0].flatten(1).mean(1) > 0.45).long() == blobs[1]).float().mean().item()
    assert right > 0.5
    assert training.accuracy(Bright(), *blobs, batch_size=7) == pytest.approx(right)


def test_settings_of_every_recipe_are_complete():
    for name, recipe in sl.recipes().items():
        for scale in ("embedded", "paper"):
            assert recipe[scale]["source"], (name, scale)
    paper = dataclasses.replace(sl.Training(), scale="paper").settings
    # the PAG authors' numbers
    assert (paper["optimiser"], paper["learning_rate"], paper["weight_decay"]) == ("adamw", 1e-3, 1e-2)
    assert (paper["epochs"], paper["batch_size"], paper["schedule"], paper["augmentation"]) == (50, 128, "constant", "none")
