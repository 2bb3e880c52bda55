"""The perturbation engine and its metrics: by hand, by law, and against RISE's definition and torch-cam."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import Linear
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from test_attribution import assert_same_state, state
from torch import nn
from torchcam.metrics import DeletionInsertionMetric

import saliency_lib as sl
from saliency_lib.evaluation.curves import even_fractions, ranks
from saliency_lib.inputs import blur

METRICS = sorted(sl.METRICS)


class Sum(nn.Module):
    """The logit of class 0 is the sum of all pixels, that of class 1 is 0."""

    def forward(self, images):
        total = images.flatten(1).sum(1)
        return torch.stack([total, torch.zeros_like(total)], 1)


TWO_BY_TWO = torch.tensor([[[[0.4, 0.3], [0.2, 0.1]]]])
HALVES = [0, 0.5, 1]


def curve(maps, **options):
    return sl.perturbation_curve(Sum(), TWO_BY_TWO, maps, torch.tensor([0]), score="logit", fractions=HALVES, **options)


@pytest.mark.parametrize(
    ("start", "order", "values", "area"),
    [
        ("image", "most_relevant_first", [1.0, 0.3, 0.0], 0.4),
        ("image", "least_relevant_first", [1.0, 0.7, 0.0], 0.6),
        ("fill", "most_relevant_first", [0.0, 0.7, 1.0], 0.6),
        ("fill", "least_relevant_first", [0.0, 0.3, 1.0], 0.4),
    ],
)
def test_two_by_two_by_hand(start, order, values, area):
    result = curve(TWO_BY_TWO[:, 0], start=start, order=order, fill="black")
    torch.testing.assert_close(result.fractions, torch.tensor(HALVES))
    torch.testing.assert_close(result.values, torch.tensor([values]))
    torch.testing.assert_close(result.area, torch.tensor([area]))


def test_deletion_and_insertion_two_by_two_by_hand():
    arguments = (Sum(), TWO_BY_TWO, TWO_BY_TWO[:, 0], torch.tensor([0]))
    deleted = sl.METRICS["deletion"](*arguments, steps=4, score="logit", fill="black")
    torch.testing.assert_close(deleted.values, torch.tensor([[1.0, 0.6, 0.3, 0.1, 0.0]]))
    torch.testing.assert_close(deleted.area, torch.tensor([(0.5 + 0.6 + 0.3 + 0.1) / 4]))
    inserted = sl.METRICS["insertion"](*arguments, steps=4, score="logit", fill="black")
    torch.testing.assert_close(inserted.values, torch.tensor([[0.0, 0.4, 0.7, 0.9, 1.0]]))
    torch.testing.assert_close(inserted.area, torch.tensor([(0.4 + 0.7 + 0.9 + 0.5) / 4]))


@pytest.mark.parametrize(
    ("fill", "end"), [("black", 0.0), ("white", 4.0), ("grey", 2.0), ("mean", 0.0), (torch.tensor(0.25), 1.0)]
)
def test_the_last_point_is_the_score_of_the_fill(fill, end):
    assert curve(TWO_BY_TWO[:, 0], fill=fill).values[0, -1] == pytest.approx(end)
    assert curve(TWO_BY_TWO[:, 0], fill=lambda images: images + 1).values[0, -1] == pytest.approx(5.0)


def test_prediction_scores_by_hand():
    weight = torch.tensor([[[[1.0, 0.0]]], [[[0.0, 1.0]]]])  # class 0 is the left pixel, class 1 the right one
    images, maps = torch.tensor([[[[0.9, 0.5]]]]), torch.tensor([[[1.0, 0.0]]])
    options = dict(fractions=HALVES, fill="black")
    unchanged = sl.perturbation_curve(Linear(weight), images, maps, torch.tensor([1]), score="unchanged", **options)
    assert unchanged.values.tolist() == [[1, 0, 1]]  # class 0, then the right pixel alone: 1, then a tie, which goes to 0
    correct = sl.perturbation_curve(Linear(weight), images, maps, torch.tensor([1]), score="correct", **options)
    assert correct.values.tolist() == [[0, 1, 0]]
    with_function = sl.perturbation_curve(Linear(weight), images, maps, score=lambda logits, t, p: logits.sum(1), **options)
    torch.testing.assert_close(with_function.values, torch.tensor([[1.4, 0.5, 0.0]]))


def test_ties_go_by_index_in_both_orders():
    maps = torch.tensor([[[1.0, 2.0, 1.0], [2.0, 0.0, 1.0]]])
    assert ranks(maps).tolist() == [[2, 0, 3, 1, 5, 4]]
    assert ranks(maps, descending=False).tolist() == [[1, 4, 2, 5, 0, 3]]
    assert sl.tied(maps).tolist() == pytest.approx([5 / 6])
    assert sl.tied(torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])).tolist() == [0]
    assert sl.tied(torch.zeros(1, 2, 2)).tolist() == [1]


def rise_by_definition(model, image, saliency, mode, step):
    """Section 6.1 of the paper's released metric, one step at a time, for one normalised image (1, C, H, W)."""
    kernel = np.zeros((11, 11))
    kernel[5, 5] = 1
    weights = torch.zeros(3, 3, 11, 11)
    for channel in range(3):
        weights[channel, channel] = torch.tensor(gaussian_filter(kernel, 5))
    blurred = F.conv2d(image, weights, padding=5)
    start, finish = (image, torch.zeros_like(image)) if mode == "deletion" else (blurred, image)
    target = model(image).argmax(1).item()
    order = np.argsort(-saliency.flatten().numpy(), kind="stable")
    current, scores = start.clone(), []
    for t in range(-(-order.size // step) + 1):
        scores.append(model(current).softmax(1)[0, target].item())
        chosen = order[t * step : (t + 1) * step]
        current.view(1, 3, -1)[:, :, chosen] = finish.reshape(1, 3, -1)[:, :, chosen]
    scores = np.array(scores)
    return scores, (scores.sum() - scores[0] / 2 - scores[-1] / 2) / (len(scores) - 1)


@pytest.mark.parametrize("mode", ["deletion", "insertion"])
def test_the_rise_preset_is_rises_definition(mode, smooth, images):
    class Pixels(nn.Module):
        """The network with its normalisation as first layer, as ours have it."""

        pixel_mean = torch.tensor([0.48, 0.45, 0.4])

        def normalise(self, pixels):
            return (pixels - self.pixel_mean.view(-1, 1, 1)) / 0.22

        def forward(self, pixels):
            return smooth(self.normalise(pixels))

    maps = torch.rand(5, 16, 16, generator=torch.Generator().manual_seed(9))
    model = Pixels()
    ours = sl.METRICS[mode](model, images, maps)
    for row in range(5):
        scores, area = rise_by_definition(smooth, model.normalise(images[row : row + 1]), maps[row], mode, step=16)
        np.testing.assert_allclose(ours.values[row].numpy(), scores, rtol=1e-5, atol=1e-6)
        assert ours.area[row].item() == pytest.approx(area, rel=1e-5)


def test_the_blur_is_rises_kernel():
    delta = torch.zeros(1, 1, 31, 31)
    delta[0, 0, 15, 15] = 1
    blurred = blur(delta)
    assert blurred.sum().item() == pytest.approx(1)
    assert blurred[0, 0, 10:21, 10:21].sum().item() == pytest.approx(1)
    assert blurred.max().item() == pytest.approx(0.0088, abs=5e-5)
    assert blurred[0, 0, 10:21, 10:21].min().item() == pytest.approx(0.0077, abs=5e-5)


@pytest.mark.parametrize("steps", [7, 16, 256])
def test_deletion_and_insertion_agree_with_torchcam(steps, smooth, images):
    maps = torch.rand(5, 16, 16, generator=torch.Generator().manual_seed(9))

    class Given:
        """Stands where torch-cam has its extractor, and hands it the maps."""

        model = smooth

        def __call__(self, class_idx=None, scores=None, **options):
            return [maps]

        def fuse_cams(self, cams):
            return cams[0]

        def _hooks_off(self):
            return torch.no_grad()

    for fill in (torch.zeros(1), torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(10))):
        metric = DeletionInsertionMetric(Given(), lambda logits: logits.softmax(-1), steps=steps, baseline=fill)
        metric.update(images)
        theirs = metric.summary()
        for name in ("deletion", "insertion"):
            ours = sl.METRICS[name](smooth, images, maps, steps=steps, fill=fill)
            key = next(key for key in theirs if name in key)
            assert ours.area.mean().item() == pytest.approx(theirs[key], rel=1e-5)


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("batch_size", [1, 7, 10_000])
def test_curves_do_not_depend_on_the_batch_size(name, batch_size, smooth, images):
    smooth, images = smooth.double(), images.double()
    maps = torch.rand(5, 16, 16, generator=torch.Generator().manual_seed(9))
    whole = sl.METRICS[name](smooth, images, maps)
    cut = sl.METRICS[name](smooth, images, maps, batch_size=batch_size)
    torch.testing.assert_close(cut.values, whole.values, rtol=1e-9, atol=0)
    assert whole.area.shape == (5,) and whole.values.shape == (5, len(whole.fractions))


@pytest.mark.parametrize("name", METRICS)
def test_an_image_has_the_same_curve_alone_and_among_others_in_any_order(name, smooth, images):
    smooth, images = smooth.double(), images.double()
    maps = torch.rand(5, 16, 16, generator=torch.Generator().manual_seed(9))
    order = torch.tensor([4, 1, 2])
    for fill in (None, "noise"):
        whole = sl.METRICS[name](smooth, images, maps, fill=fill)
        some = sl.METRICS[name](smooth, images[order], maps[order], fill=fill, indices=order)
        torch.testing.assert_close(some.values, whole.values[order], rtol=1e-9, atol=0)


@pytest.mark.parametrize("name", METRICS)
def test_the_model_is_left_as_it_was_found(name, relu_net, images):
    relu_net.train()
    before = state(relu_net)
    sl.METRICS[name](relu_net, images, images.mean(1))
    assert_same_state(before, state(relu_net))
    with pytest.raises(ValueError):
        sl.METRICS[name](relu_net, images, images.mean(1), torch.tensor([0, 0, 0, 0, 99]))
    assert_same_state(before, state(relu_net))


@pytest.mark.parametrize("name", METRICS)
def test_only_the_order_of_a_map_counts(name, smooth, images):
    maps = torch.rand(5, 16, 16, generator=torch.Generator().manual_seed(9))
    one, other = sl.METRICS[name](smooth, images, maps), sl.METRICS[name](smooth, images, maps.exp() * 7 - 3)
    assert torch.equal(one.values, other.values)


@pytest.mark.parametrize("name", METRICS)
def test_all_maps_share_the_ends_of_their_curves(name, smooth, images):
    one, other = (
        sl.METRICS[name](smooth, images, torch.rand(5, 16, 16, generator=torch.Generator().manual_seed(k))) for k in (1, 2)
    )
    torch.testing.assert_close(one.values[:, [0, -1]], other.values[:, [0, -1]])
    assert not torch.allclose(one.values, other.values)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), steps=st.integers(2, 40), fill=st.sampled_from(["black", "white", "mean", "noise"]))
def test_inserting_a_map_is_deleting_its_negative_backwards(seed, steps, fill):
    source = torch.Generator().manual_seed(seed)
    model = Linear(torch.randn(3, 2, 6, 5, generator=source, dtype=torch.float64))
    images = torch.rand(2, 2, 6, 5, generator=source, dtype=torch.float64)
    maps = torch.randperm(60, generator=source).double().view(2, 6, 5)  # without ties
    fractions = even_fractions(30, steps)
    backwards = sorted((30 - round(30 * f)) / 30 for f in fractions)
    deleted = sl.perturbation_curve(model, images, -maps, fractions=backwards, fill=fill)
    inserted = sl.perturbation_curve(model, images, maps, fractions=fractions, fill=fill, start="fill")
    torch.testing.assert_close(inserted.values, deleted.values.flip(1), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(inserted.area, deleted.area, rtol=1e-9, atol=1e-12)


def test_the_true_contributions_give_the_best_area_and_their_negative_the_worst(linear, images):
    targets = torch.zeros(5, dtype=torch.long)
    contributions = (linear.weight[0].detach() * images).sum(1)
    areas = {
        name: sl.perturbation_curve(
            linear, images, maps, targets, fractions=even_fractions(256, 64), fill="black", score="logit"
        ).area
        for name, maps in {"best": contributions, "worst": -contributions, "random": torch.rand(5, 16, 16)}.items()
    }
    assert (areas["best"] < areas["random"]).all()
    assert (areas["random"] < areas["worst"]).all()


@given(pixels=st.integers(1, 5000), steps=st.integers(1, 400))
def test_even_fractions_cover_the_image_in_equal_strides_of_whole_pixels(pixels, steps):
    counts = [round(f * pixels) for f in even_fractions(pixels, steps)]
    strides = np.diff(counts)
    assert counts[0] == 0 and counts[-1] == pixels and len(counts) <= steps + 1
    assert (strides[:-1] == strides[0]).all() and 0 < strides[-1] <= strides[0]


def test_memory_that_runs_out_halves_the_chunk_and_changes_nothing(smooth, images):
    class Small(nn.Module):
        def forward(self, inputs):
            if len(inputs) > 3:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes")
            return smooth(inputs)

    maps = images.mean(1)
    for name in METRICS:
        torch.testing.assert_close(sl.METRICS[name](Small(), images, maps).values, sl.METRICS[name](smooth, images, maps).values)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_images_still_have_exact_fractions(dtype, smooth):
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)).to(dtype)

    class Wide(nn.Module):
        """Takes any precision and answers in float32, as under autocast."""

        def forward(self, inputs):
            return smooth(inputs.float())

    curve = sl.METRICS["deletion"](Wide(), images, images.mean(1), steps=256)
    assert curve.values.dtype == curve.area.dtype == torch.float32
    torch.testing.assert_close(curve.fractions, torch.arange(257) / 256)


def test_a_model_without_finite_scores_is_refused(smooth, images):
    class Broken(nn.Module):
        def forward(self, inputs):
            return smooth(inputs) / (inputs.flatten(1).sum(1, keepdim=True) > 300)

    with pytest.raises(ValueError, match=r"the score is NaN or infinite for images \["):
        sl.METRICS["deletion"](Broken(), images, images.mean(1), torch.zeros(5, dtype=torch.long))


def test_maps_that_do_not_fit_or_hold_nan_are_refused(smooth, images):
    for name in METRICS:
        with pytest.raises(ValueError, match=r"maps \(5, 8, 8\) do not fit images \(5, 3, 16, 16\)"):
            sl.METRICS[name](smooth, images, torch.zeros(5, 8, 8))
        damaged = torch.zeros(5, 16, 16)
        damaged[3, 2, 1] = torch.nan
        with pytest.raises(ValueError, match=r"maps hold NaN or infinity \(maps \[3\]\)"):
            sl.METRICS[name](smooth, images, damaged)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fractions": [0, 0.5, 0.4]}, "fractions must be at least two rising numbers"),
        ({"fractions": [0, 1.5]}, "fractions must be at least two rising numbers within"),
        ({"fractions": [0.3]}, "fractions must be at least two"),
        ({"order": "most"}, "order 'most' is not known"),
        ({"start": "blur"}, "start 'blur' is not known"),
        ({"score": "accuracy"}, "score 'accuracy' is not known"),
        ({"fill": "gray"}, "did you mean 'grey'"),
    ],
)
def test_bad_options_are_refused(options, message, smooth, images):
    with pytest.raises(ValueError, match=message):
        sl.perturbation_curve(smooth, images, images.mean(1), **{"fractions": HALVES, **options})


def test_bad_options_of_the_presets_are_refused(smooth, images):
    with pytest.raises(ValueError, match="preset 'rize' is not known; did you mean 'rise'"):
        sl.METRICS["deletion"](smooth, images, images.mean(1), preset="rize")
    with pytest.raises(ValueError, match="steps must be a whole number from 1"):
        sl.METRICS["insertion"](smooth, images, images.mean(1), steps=0)
