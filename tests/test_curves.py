"""The perturbation engine and its metrics: by hand, by law, and against RISE's definition and torch-cam."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import Linear, context
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from test_attribution import assert_same_state, state
from torch import nn
from torchcam.metrics import DeletionInsertionMetric

import saliency_lib as sl
from saliency_lib.core.fills import blur
from saliency_lib.evaluation.perturbation import Imputed, even_fractions
from saliency_lib.evaluation.ranking import ranks

METRICS = sorted(sl.METRICS)
CURVES = ["allegiance", "deletion", "insertion", "masked_accuracy", "pixel_perturbation"]
RANKED = [
    "allegiance",
    "auprc",
    "comprehensiveness",
    "deletion",
    "insertion",
    "iou_f1",
    "masked_accuracy",
    "pic",
    "pixel_perturbation",
    "pointing_game",
    "relative_deletion",
    "relevance_rank",
    "road",
    "srg",
    "sufficiency",
    "token_f1",
]
STILL = {  # do not run the model
    "auprc",
    "aup",
    "aur",
    "complexity",
    "iou_f1",
    "pointing_game",
    "relevance_mass",
    "relevance_rank",
    "sparseness",
    "token_f1",
}
LOOKING = sorted(set(METRICS) - STILL)
CLOSE = {"rtol": 1e-9, "atol": 1e-12}


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


@pytest.mark.parametrize("start", ["image", "fill"])
def test_a_fill_may_depend_on_what_is_missing(start):
    maps, told = TWO_BY_TWO[:, 0], []

    def at(rows, missing):
        told.append(missing.flatten(1).int().tolist())
        return missing.sum((1, 2)).view(-1, 1, 1, 1).expand(-1, 1, 2, 2).float()

    result = curve(maps, fill=Imputed(at), start=start)
    assert told == [[[1, 1, 0, 0], [1, 1, 1, 1]]] if start == "image" else [[[1, 1, 1, 1], [0, 0, 1, 1]]]
    expected = [1.0, 4.3, 16.0] if start == "image" else [16.0, 4.7, 1.0]
    torch.testing.assert_close(result.values, torch.tensor([expected]))


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


@pytest.fixture
def maps():
    """Maps of the five images, without ties."""
    return torch.rand(5, 16, 16, generator=torch.Generator().manual_seed(9))


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_gives_each_image_a_curve_and_says_how_it_is_read(name, smooth, images, maps):
    result = sl.METRICS[name](smooth, images.requires_grad_(), maps.requires_grad_(), **context(name, images))
    assert not (result.values.requires_grad or result.area.requires_grad)
    assert result.area.shape == (5,) and result.values.shape == (5, len(result.fractions))
    assert torch.isfinite(result.values).all() and (result.fractions.diff() >= 0).all()
    assert result.fractions.dtype == result.values.dtype == result.area.dtype == torch.float32
    if len(result.fractions) == 1:
        assert result.fractions.tolist() == [1] and torch.equal(result.area, result.values[:, 0])
    else:
        torch.testing.assert_close(result.area, torch.trapezoid(result.values, result.fractions, dim=1))
    assert isinstance(sl.METRICS[name].lower_is_better, bool)


@pytest.mark.parametrize("name", [name for name in METRICS if "batch_size" in sl.METRICS.options(name)])
@pytest.mark.parametrize("batch_size", [1, 7, 10_000])
def test_curves_do_not_depend_on_the_batch_size(name, batch_size, smooth, images, maps):
    smooth, images = smooth.double(), images.double()
    options = context(name, images)
    whole = sl.METRICS[name](smooth, images, maps.double(), **options)
    cut = sl.METRICS[name](smooth, images, maps.double(), batch_size=batch_size, **options)
    torch.testing.assert_close(cut.values, whole.values, **CLOSE)


@pytest.mark.parametrize("fill", [None, "noise", "uniform", "gaussian", "corner", "image_mean", "wide_blur"])
@pytest.mark.parametrize("name", METRICS)
def test_an_image_has_the_same_curve_alone_and_among_others_in_any_order(name, fill, smooth, images, maps):
    if fill and "fill" not in sl.METRICS.options(name):
        return
    smooth, images, maps = smooth.double(), images.double(), maps.double()
    order, options = torch.tensor([4, 1, 2]), {"fill": fill} if fill else {}
    whole = sl.METRICS[name](smooth, images, maps, **options, **context(name, images))
    some = sl.METRICS[name](smooth, images[order], maps[order], **options, **context(name, images[order], order))
    torch.testing.assert_close(some.values, whole.values[order], **CLOSE)


@pytest.mark.parametrize("name", METRICS)
def test_curves_hardly_depend_on_the_precision(name, smooth, images, maps):
    single = sl.METRICS[name](smooth, images, maps, **context(name, images)).values
    double = sl.METRICS[name](smooth.double(), images.double(), maps.double(), **context(name, images.double())).values
    assert double.dtype == torch.float64
    torch.testing.assert_close(single.double(), double, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", METRICS)
def test_the_model_is_left_as_it_was_found(name, relu_net, images):
    relu_net.train()
    before, options = state(relu_net), context(name, images)
    training = sl.METRICS[name](relu_net, images, images.mean(1), **options)
    assert_same_state(before, state(relu_net))
    assert torch.equal(training.values, sl.METRICS[name](relu_net.eval(), images, images.mean(1), **options).values)
    relu_net.train()
    if name in LOOKING:
        with pytest.raises(ValueError, match="from 0 to 3; they range from 0 to 99"):
            sl.METRICS[name](relu_net, images, images.mean(1), torch.tensor([0, 0, 0, 0, 99]), **options)
    assert_same_state(before, state(relu_net))


@pytest.mark.parametrize("name", METRICS)
def test_nothing_is_printed_and_the_global_random_numbers_stay(name, smooth, images, maps, capsys):
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    one = sl.METRICS[name](smooth, images, maps, **context(name, images))
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == np.random.get_state()[1].tolist()  # noqa: NPY002
    assert "".join(capsys.readouterr()) == ""
    torch.rand(3)
    assert torch.equal(one.values, sl.METRICS[name](smooth, images, maps, **context(name, images)).values)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *(("deletion", {"fill": fill}) for fill in ("noise", "uniform", "gaussian")),
        *((name, {}) for name in ("road", "infidelity", "max_sensitivity", "model_randomisation", "pic", "sensitivity_n")),
    ],
)
def test_the_seed_fixes_what_is_random(name, options, smooth, images, maps):
    options |= context(name, images)
    one, same, other = (sl.METRICS[name](smooth, images, maps, seed=seed, **options).values for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.allclose(one, other, rtol=1e-7, atol=0)


@pytest.mark.parametrize("name", RANKED)
def test_only_the_order_of_a_map_counts(name, smooth, images, maps):
    options = context(name, images)
    one, other = (sl.METRICS[name](smooth, images, each, **options) for each in (maps, maps.exp() * 7 - 3))
    assert torch.equal(one.values, other.values)


@pytest.mark.parametrize("name", ["deletion", "insertion"])
@pytest.mark.parametrize("preset", sl.METRICS["deletion"].presets)
def test_all_maps_share_the_ends_of_their_curves(name, preset, smooth, images):
    images = images.repeat(1, 1, 2, 3)
    model = nn.Sequential(nn.AdaptiveAvgPool2d(16), smooth)
    one, other = (
        sl.METRICS[name](model, images, torch.rand(5, 32, 48, generator=torch.Generator().manual_seed(k)), preset=preset)
        for k in (1, 2)
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


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), steps=st.integers(1, 12))
def test_the_true_contributions_give_the_best_area_and_their_negative_the_worst(seed, steps):
    source = torch.Generator().manual_seed(seed)
    model = Linear(torch.randn(2, 1, 3, 4, generator=source, dtype=torch.float64))
    images = torch.rand(1, 1, 3, 4, generator=source, dtype=torch.float64)
    contributions = (model.weight[0].detach() * images).sum(1)
    fractions = even_fractions(12, steps)

    def area(maps, **options):
        chosen = dict(fractions=fractions, fill="black", score="logit") | options
        return sl.perturbation_curve(model, images, maps, 0, **chosen).area.item()

    kept = contributions.sum() - torch.cat([torch.zeros(1), contributions.flatten().sort(descending=True).values.cumsum(0)])
    best = np.trapezoid([kept[round(12 * f)] for f in fractions], fractions)
    other = torch.rand(1, 3, 4, generator=source)
    assert area(contributions) == pytest.approx(best, abs=1e-12)
    assert area(contributions) - 1e-12 <= area(other) <= area(-contributions) + 1e-12
    assert area(-contributions) == pytest.approx(area(contributions, order="least_relevant_first"), abs=1e-12)


@given(pixels=st.integers(1, 5000), steps=st.integers(1, 400))
def test_even_fractions_cover_the_image_in_equal_strides_of_whole_pixels(pixels, steps):
    counts = [round(f * pixels) for f in even_fractions(pixels, steps)]
    strides = np.diff(counts)
    assert counts[0] == 0 and counts[-1] == pixels and len(counts) <= steps + 1
    assert (strides[:-1] == strides[0]).all() and 0 < strides[-1] <= strides[0]


class Small(nn.Module):
    """A model on a machine with memory for three inputs."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, inputs):
        if len(inputs) > 3:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes")
        return self.inner(inputs)


@pytest.mark.parametrize("name", METRICS)
def test_memory_that_runs_out_halves_the_chunk_and_changes_nothing(name, smooth, images):
    images, exact = images.double(), copy.deepcopy(smooth).double()  # so that rounding hides nothing
    maps, options = images.mean(1), context(name, images)
    cut, whole = (sl.METRICS[name](model, images, maps, **options).values for model in (Small(exact), exact))
    torch.testing.assert_close(cut, whole, rtol=1e-9, atol=1e-9)


class Wide(nn.Module):
    """Takes any precision and answers in float32, as under autocast."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, inputs):
        return self.inner(inputs.float())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", METRICS)
def test_half_precision_images_have_scores_in_float32(name, dtype, smooth, images, maps):
    images = images.to(dtype)
    half = sl.METRICS[name](Wide(smooth), images, maps.to(dtype), **context(name, images)).values
    whole = sl.METRICS[name](smooth, images.float(), maps.to(dtype).float(), **context(name, images.float())).values
    assert half.dtype == torch.float32
    if name not in ("max_sensitivity", "model_randomisation"):  # where the maps of the moved images are rounded too
        torch.testing.assert_close(half, whole, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_images_still_have_exact_fractions(dtype, smooth):
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)).to(dtype)
    curve = sl.METRICS["deletion"](Wide(smooth), images, images.mean(1), steps=256)
    assert curve.values.dtype == curve.area.dtype == torch.float32
    torch.testing.assert_close(curve.fractions, torch.arange(257) / 256)


class Broken(nn.Module):
    """Gives no number for the dark half of the images."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, inputs):
        return self.inner(inputs) / (inputs.flatten(1).sum(1, keepdim=True) > 386)


@pytest.mark.parametrize(
    "name", [*CURVES, "average_drop", "average_increase", "infidelity", "aopc", "irof", "pic", "relative_deletion", "road", "srg"]
)
def test_a_model_without_finite_scores_is_refused(name, smooth, images):
    targets = torch.zeros(5, dtype=torch.long)
    with pytest.raises(ValueError, match=r"the score is NaN or infinite for images \["):
        sl.METRICS[name](Broken(smooth), images, images.mean(1), targets, **context(name, images))


@pytest.mark.parametrize("name", METRICS)
def test_maps_that_do_not_fit_or_hold_nan_are_refused(name, smooth, images):
    damaged = torch.zeros(5, 16, 16)
    damaged[3, 2, 1] = torch.nan
    for maps, message in [
        (torch.zeros(5, 8, 8), r"maps \(5, 8, 8\) do not fit images \(5, 3, 16, 16\)"),
        (damaged, r"maps contain NaN or infinity \(maps \[3\]\)"),
        (None, r"maps must be floats of shape \(B, H, W\), got None"),
    ]:
        with pytest.raises(ValueError, match=message):
            sl.METRICS[name](smooth, images, maps, **context(name, images))
    with pytest.raises(ValueError, match="images must be floats of shape"):
        sl.METRICS[name](smooth, images[0, 0], images[0], **context(name, images))
    if name in LOOKING:  # three series of 16 steps, which this network does not take
        with pytest.raises((ValueError, RuntimeError), match=r"pass one image as images\[None\]"):
            sl.METRICS[name](smooth, images[0], images[0], **context(name, images))


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("shape", [(2, 1, 16, 16), (2, 3, 1, 1), (1, 1, 1, 5)])
@pytest.mark.parametrize("classes", [1, 4])
def test_one_channel_one_pixel_one_class_and_constant_maps_are_no_exception(name, shape, classes):
    torch.manual_seed(5)
    last = nn.Softplus() if classes == 1 else nn.Identity()  # one output stands for itself, and is then a positive number
    layers = nn.Conv2d(shape[1], 2, 1), nn.Softplus(), nn.Flatten(), nn.Linear(2 * shape[2] * shape[3], classes), last
    model, images = nn.Sequential(*layers), torch.rand(shape)
    if classes == 1 and name in ("allegiance", "masked_accuracy", "pixel_perturbation"):
        with pytest.raises(ValueError, match="the model gives one number and no classes"):
            sl.METRICS[name](model, images, torch.zeros(shape[0], *shape[2:]), **context(name, images))
        return
    for value in (0.0, 0.7, -0.7):
        maps = torch.full((shape[0], *shape[2:]), value)
        result = sl.METRICS[name](model, images, maps, **(context(name, images) | objects(name, maps)))
        assert torch.isfinite(result.values).all() and torch.isfinite(result.area).all()


def objects(name, maps):
    return {"objects": torch.ones_like(maps, dtype=torch.bool)} if "objects" in sl.METRICS.options(name) else {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fractions": [0, 0.5, 0.4]}, "fractions must be at least two non-decreasing numbers"),
        ({"fractions": [0, 1.5]}, "fractions must be at least two non-decreasing numbers in"),
        ({"fractions": [0.3]}, "fractions must be at least two"),
        ({"order": "most"}, "order of .* 'most' is not known"),
        ({"start": "blur"}, "start of .* 'blur' is not known"),
        ({"score": "accuracy"}, "score of .* 'accuracy' is not known"),
        ({"ties": "apart"}, "ties of .* 'apart' is not known"),
        ({"fractions": [0, float("nan")]}, "fractions of .* must be a list of numbers, got"),
        ({"fill": "gray"}, "did you mean 'grey'"),
    ],
)
def test_bad_options_are_refused(options, message, smooth, images):
    with pytest.raises(ValueError, match=message):
        sl.perturbation_curve(smooth, images, images.mean(1), **{"fractions": HALVES, **options})


def test_bad_options_of_the_presets_are_refused(smooth, images):
    with pytest.raises(ValueError, match=r"preset of .* 'rize' is not known; did you mean 'rise'"):
        sl.METRICS["deletion"](smooth, images, images.mean(1), preset="rize")
    with pytest.raises(ValueError, match=r"steps of .* must be a whole number from 1 to .*"):
        sl.METRICS["insertion"](smooth, images, images.mean(1), steps=0)
