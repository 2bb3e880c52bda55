"""Running a model in chunks: what happens when a chunk fails, and what the table of methods says that it costs."""

import re

import pytest
import torch
from conftest import quick
from torch import nn

import saliency_lib as sl
from saliency_lib.core.batching import arranged, frozen, in_chunks, is_out_of_memory
from saliency_lib.training.loop import fit


class RowsFirst(nn.Module):
    """A network that fails, with a message of its own, if the channels of its inputs are innermost in memory."""

    def __init__(self, message: str):
        super().__init__()
        self.layouts, self.message = [], message

    def forward(self, inputs):
        self.layouts.append(inputs.is_contiguous())
        if not inputs.is_contiguous():
            raise RuntimeError(self.message)
        return inputs.flatten(1)[:, :4]


@pytest.mark.parametrize("message", ["view size is not compatible", "no kernel for these strides"])
def test_a_model_that_cannot_read_channels_last_gets_rows_first_from_then_on(message, images):
    model = RowsFirst(message)
    maps = sl.METHODS["occlusion"](model, images, window=8, stride=8, batch_size=5)
    assert torch.isfinite(maps).all()
    assert model.layouts[0] is False and all(model.layouts[1:])
    sl.METHODS["occlusion"](model, images, window=8, stride=8)
    assert model.layouts.count(False) == 1


class Failing(nn.Module):
    """A network that fails whatever the layout, until it is repaired."""

    def __init__(self):
        super().__init__()
        self.layouts, self.broken = [], True

    def forward(self, inputs):
        self.layouts.append(inputs.is_contiguous())
        if self.broken:
            raise RuntimeError("broken")
        return inputs.flatten(1)[:, :4]


@pytest.mark.parametrize("method", ["occlusion", "guided_path_integrated_gradients"])
def test_another_failure_is_raised_after_one_retry_and_is_not_blamed_on_the_layout(method, images):
    model = Failing()
    with pytest.raises(RuntimeError, match=r"^broken$"):
        sl.METHODS[method](model, images, torch.zeros(5).long())
    tried = len(model.layouts)
    assert tried == 2
    model.broken = False
    sl.METHODS["occlusion"](model, images, window=8, stride=8)
    assert not any(model.layouts[tried:])


def test_outside_a_frozen_model_nothing_is_tried_again():
    calls = []

    def work(start, stop):
        calls.append((start, stop))
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        in_chunks(work, 6, 3)
    assert calls == [(0, 3)]


def test_memory_that_runs_out_for_one_input_is_raised():
    calls = []

    def work(start, stop):
        calls.append(stop - start)
        raise torch.OutOfMemoryError("no room")

    with pytest.raises(torch.OutOfMemoryError, match="no room"):
        in_chunks(work, 6, 5)
    assert calls == [5, 2, 1]


def test_the_text_by_which_memory_that_ran_out_is_recognised_is_that_of_this_torch():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**52, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(torch.OutOfMemoryError()) and not is_out_of_memory(RuntimeError("size mismatch"))


def test_inputs_have_channels_last_unless_few_of_them_need_a_gradient(images):
    with frozen(nn.Identity()), torch.no_grad():
        assert arranged(images).is_contiguous(memory_format=torch.channels_last)
    with torch.enable_grad():
        assert arranged(images[:2]).is_contiguous() and not arranged(images).is_contiguous()


# What a method costs.

CLASSES = 3
TERM = re.compile(r"(?P<count>[\d,]+) (?P<kind>[FB])(?: per (?P<unit>class|distinct mask|channel))?(?: at (?P<side>\d+) px)?")


class Counting(nn.Module):
    """A small network that counts the images of its forward passes and of the backward passes through its logits."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU())
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(96, CLASSES))
        self.passes = {"F": 0, "B": 0}

    def forward(self, inputs):
        self.passes["F"] += len(inputs)
        logits = self.head(self.features(inputs))
        if logits.requires_grad:
            logits.register_hook(self.note)
        return logits

    def note(self, gradient):
        self.passes["B"] += len(gradient)


@pytest.mark.parametrize("name", sorted(sl.METHODS))
def test_the_table_says_how_many_passes_a_method_takes_per_image(name):
    words = sl.METHODS[name].passes
    terms = [] if words == "none" else [TERM.fullmatch(term).groupdict() for term in words.split(" + ")]
    side = next((int(term["side"]) for term in terms if term["side"]), 16)
    model, image = Counting(), torch.rand(1, 3, side, side)

    def passes(count):
        model.passes = {"F": 0, "B": 0}
        sl.METHODS[name](model, image.expand(count, -1, -1, -1), torch.zeros(count).long())
        return model.passes

    one, three = passes(1), passes(3)  # the check of the targets takes a pass of its own, whatever the number of images
    masks = len((model.features(image)[0] > 0.1).unique(dim=0))
    units = {"class": CLASSES, "distinct mask": masks, "channel": len(model.features(image)[0]), None: 1}
    expected = {
        kind: sum(int(t["count"].replace(",", "")) * units[t["unit"]] for t in terms if t["kind"] == kind) for kind in "FB"
    }
    assert {kind: (three[kind] - one[kind]) / 2 for kind in "FB"} == expected
    assert all(0 <= one[kind] - expected[kind] <= 1 for kind in "FB")


class Normalised(nn.Module):
    def __init__(self, norm):
        super().__init__()
        self.first, self.norm, self.last = nn.Conv2d(3, 4, 3), norm, nn.Linear(4, 3)

    def forward(self, images):
        return self.last(self.norm(self.first(images)).relu().mean((2, 3)))


@pytest.mark.parametrize("name", sorted(set(sl.METHODS) - {"edges", "random"}))
def test_a_batchnorm_that_normalises_by_the_batch_is_refused(name, images):
    model = Normalised(nn.BatchNorm2d(4, track_running_stats=False)).eval()
    with torch.no_grad():
        assert not torch.allclose(model(images)[0], model(images[:1])[0], atol=1e-4)
    with pytest.raises(ValueError, match="norm is a BatchNorm2d without running statistics, so the output for an image depends"):
        sl.METHODS[name](model, images, **quick(name))
    with (
        pytest.raises(ValueError, match="the model is a BatchNorm1d without"),
        frozen(nn.BatchNorm1d(3, track_running_stats=False)),
    ):
        pass
    with pytest.raises(ValueError, match="norm is a BatchNorm2d without"):
        sl.METRICS["deletion"](model, images, images.mean(1))


@pytest.mark.parametrize("norm", [nn.InstanceNorm2d(4), nn.GroupNorm(2, 4), nn.BatchNorm2d(4), nn.BatchNorm2d(4, affine=False)])
def test_a_normalisation_that_looks_at_one_image_is_not_refused(norm, images):
    model = Normalised(norm)
    alone = sl.METHODS["gradient"](model, images[:1], 0)
    torch.testing.assert_close(sl.METHODS["gradient"](model, images, 0)[:1], alone)


class Tiny(nn.Module):
    """A network that notes what becomes of a denormal number while it runs."""

    def __init__(self):
        super().__init__()
        self.last, self.seen = nn.Linear(192, 3), []

    def forward(self, images):
        self.seen.append(float(torch.tensor(1e-39) * 1))
        return self.last(images.flatten(1)[:, :192])


@pytest.mark.parametrize("before", [False, True])
def test_denormal_numbers_are_zero_in_kernels_and_trainings_and_afterwards_as_before(before):
    model, images = Tiny(), torch.rand(4, 3, 8, 8)
    can = torch.set_flush_denormal(before)  # whether the processor flushes them at all
    try:
        sl.METHODS["gradient"](model, images)
        fit(model, images, torch.arange(4) % 3, {**sl.Training().settings, "epochs": 1}, seed=0)
        assert model.seen and {value == 0 for value in model.seen} == {can}
        with frozen(model), pytest.raises(ValueError, match="inner"), frozen(nn.Identity()):
            raise ValueError("inner")
        model(images)
        assert (model.seen[-1] == 0) is (before and can)
    finally:
        torch.set_flush_denormal(False)
