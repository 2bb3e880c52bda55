"""Which epoch's weights are kept, and how accuracy is counted."""

import pytest
import torch
from test_loop import SETTINGS, dark_and_bright, network, weights
from torch import nn

import saliency_lib as sl
from saliency_lib.training import loop
from saliency_lib.training.objectives import cross_entropy
from saliency_lib.training.selection import Best, accuracy, judge
from saliency_lib.training.settings import Selection


@pytest.fixture
def blobs():
    return dark_and_bright()


def falling_then_rising(monkeypatch, values):
    """Make the judged accuracies those of a list, epoch by epoch."""
    given = iter(values)

    def judge(model, judged, selection, epoch, best):
        value = next(given)
        if value > best.value:
            best.epoch, best.value = epoch, value
            best.weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        return {"validation_accuracy": value, "best": float(best.epoch == epoch)}

    monkeypatch.setattr(loop, "judge", judge)


def test_the_selected_epoch_is_the_best_one_and_patience_ends_the_run(blobs, monkeypatch):
    snapshots = []

    def watching(model, images, labels, **options):
        snapshots.append(weights(model))
        return cross_entropy(model, images, labels, **options)

    monkeypatch.setitem(sl.OBJECTIVES._entries, "cross_entropy", sl.OBJECTIVES.entry(watching, "cross_entropy"))
    falling_then_rising(monkeypatch, [0.5, 0.7, 0.6, 0.7, 0.9])
    model = network()
    selection = {"by": "accuracy", "share": 0.2, "patience": 2}
    history = loop.fit(model, *blobs, SETTINGS | {"epochs": 9, "selection": selection}, seed=0)
    assert [row["best"] for row in history] == [1, 1, 0, 0]  # an equal one is not better, and two without a better are enough
    batches = len(snapshots) // 4
    assert torch.equal(weights(model), snapshots[2 * batches])  # the weights at the end of the second epoch


def test_a_selection_holds_images_out_which_are_never_trained_on(blobs, monkeypatch):
    seen = []

    def watching(model, images, labels, **options):
        seen.append(images.clone())
        return cross_entropy(model, images, labels, **options)

    monkeypatch.setitem(sl.OBJECTIVES._entries, "cross_entropy", sl.OBJECTIVES.entry(watching, "cross_entropy"))
    history = loop.fit(network(), *blobs, SETTINGS | {"selection": {"share": 0.2}}, seed=0)
    used = {image.numpy().tobytes() for batch in seen for image in batch}
    assert len(used) == 52 == len(blobs[0]) - round(0.2 * 65)
    assert all({"validation_loss", "validation_accuracy", "best"} <= set(row) for row in history)


def test_the_validation_rows_are_the_models_own_loss_and_accuracy(blobs):
    model = network()
    history = loop.fit(model, *blobs, SETTINGS | {"selection": {"split": "test", "by": "accuracy"}}, seed=0, test=blobs)
    assert [row["validation_accuracy"] for row in history] == pytest.approx([row["test_accuracy"] for row in history])
    best = max(history, key=lambda row: row["validation_accuracy"])
    with torch.no_grad():
        loss = nn.functional.cross_entropy(model(blobs[0]), blobs[1])
    assert loss.item() == pytest.approx(best["validation_loss"], rel=1e-5)


def test_a_stopped_run_with_a_selection_goes_on_to_the_same_weights(blobs, tmp_path, monkeypatch):
    settings = SETTINGS | {"epochs": 4, "selection": {"share": 0.2, "by": "accuracy"}}
    straight = network()
    history = loop.fit(straight, *blobs, settings, seed=1)
    judge = loop.judge

    def stopping(model, judged, selection, epoch, best):
        if epoch == 3:
            raise KeyboardInterrupt
        return judge(model, judged, selection, epoch, best)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "judge", stopping)
        with pytest.raises(KeyboardInterrupt):
            loop.fit(network(), *blobs, settings, seed=1, checkpoint=tmp_path / "c")
    resumed = network(seed=99)
    assert loop.fit(resumed, *blobs, settings, seed=1, checkpoint=tmp_path / "c") == history
    assert torch.equal(weights(straight), weights(resumed))


def test_an_epoch_that_is_only_as_good_is_not_better(blobs):
    model, best = network(), Best()
    selection = Selection(by="accuracy")
    rows = [judge(model, blobs, selection, epoch, best) for epoch in (1, 2)]
    assert [row["best"] for row in rows] == [1, 0] and best.epoch == 1


def test_a_resumed_run_remembers_the_weights_of_its_best_epoch(blobs, tmp_path, monkeypatch):
    settings = SETTINGS | {"epochs": 3, "selection": {"share": 0.2}}
    falling_then_rising(monkeypatch, [0.9, 0.5, 0.6])
    straight = network()
    loop.fit(straight, *blobs, settings, seed=1)
    falling_then_rising(monkeypatch, [0.9, 0.5])  # and in the third epoch there is no answer
    with pytest.raises(StopIteration):
        loop.fit(network(), *blobs, settings, seed=1, checkpoint=tmp_path / "c")
    falling_then_rising(monkeypatch, [0.6])
    resumed = network(seed=99)
    loop.fit(resumed, *blobs, settings, seed=1, checkpoint=tmp_path / "c")
    assert torch.equal(weights(straight), weights(resumed))


def test_a_selection_by_test_images_needs_them(blobs):
    with pytest.raises(ValueError, match="the selection compares epochs on the test images, but there are none"):
        loop.fit(network(), *blobs, SETTINGS | {"selection": {"split": "test"}}, seed=0)


def test_a_share_that_leaves_no_image_is_refused(blobs):
    with pytest.raises(ValueError, match=r"a share of 0\.001 holds 0 of 65 images out for validation"):
        loop.fit(network(), *blobs, SETTINGS | {"selection": {"share": 0.001}}, seed=0)


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
    assert accuracy(Bright(), *blobs, batch_size=7) == pytest.approx(right)
