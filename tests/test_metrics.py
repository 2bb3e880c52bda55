"""The papers' metrics by hand, fidelity, sanity and localisation: by hand, by law, and against other libraries."""

import captum.metrics
import numpy as np
import pytest
import quantus
import torch
import torchvision
from conftest import Linear, context
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_grad_cam.metrics.road import NoisyLinearImputer
from scipy.stats import spearmanr
from skimage.metrics import structural_similarity
from torch import nn
from torchvision.models import swin_transformer
from torchvision.models.convnext import CNBlockConfig

import saliency_lib as sl
from saliency_lib.core.fills import filled
from saliency_lib.evaluation.allegiance import ALLEGIANCE_FRACTIONS
from saliency_lib.evaluation.fidelity import squares
from saliency_lib.evaluation.ranking import ranks
from saliency_lib.evaluation.road import imputed
from saliency_lib.evaluation.sanity import SIMILARITIES, average_ranks, rank_correlation, structure


class Bright(nn.Module):
    """Class 0 where the image's pixels sum to more than a bound, else class 1; logits 0 and bound - sum."""

    def __init__(self, bound):
        super().__init__()
        self.bound = bound

    def forward(self, images):
        total = images.flatten(1).sum(1)
        return torch.stack([torch.zeros_like(total), self.bound - total], 1)


ONES = torch.ones(1, 1, 4, 4)
RISING = torch.arange(1.0, 17).view(1, 4, 4)  # the last pixel is the most relevant


def scores(name, bound, maps=RISING, images=ONES, targets=None, **options):
    return sl.METRICS[name](Bright(bound), images, maps, targets, **options)


def test_allegiance_four_by_four_by_hand():
    # round(16 p) black pixels: 0 0 1 1 2 3 5 6 8 10 11 13 14; more than 9.5 of 16 bright ones are left for the first eight
    result = scores("allegiance", 9.5)
    assert result.values.tolist() == [[1] * 8 + [0] * 5]
    torch.testing.assert_close(result.fractions, torch.tensor(ALLEGIANCE_FRACTIONS, dtype=torch.float32))
    assert result.area.item() == pytest.approx(0.4 + 0.05)  # 1 up to 0.4, then half of the next tenth
    white = scores("allegiance", 9.5, images=torch.zeros(1, 1, 4, 4), fill="white")
    assert white.values.tolist() == [[1] * 9 + [0] * 4]  # class 1 until 10 pixels are white


def test_allegiance_leaves_pixels_that_tie_with_the_one_at_the_cut():
    maps = torch.tensor([[[4.0, 3, 3, 3], [2, 2, 2, 2], [0, 0, 0, 0], [0, 0, 0, 0]]])
    taken = []

    class Counting(nn.Module):
        def forward(self, images):
            taken.extend((16 - images.flatten(1).sum(1)).int().tolist())
            return torch.stack([images.flatten(1).sum(1), torch.zeros(len(images))], 1)

    sl.METRICS["allegiance"](Counting(), ONES, maps)
    value = maps.flatten().sort(descending=True).values
    by_definition = [int((maps > value[round(16 * p)]).sum()) for p in ALLEGIANCE_FRACTIONS]
    assert taken == [0, *(count for p, count in zip(ALLEGIANCE_FRACTIONS, by_definition, strict=True) if round(16 * p))]
    assert by_definition == [0, 0, 1, 1, 1, 1, 4, 4, 8, 8, 8, 8, 8]  # and never a pixel of value 0


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), levels=st.integers(1, 20), descending=st.booleans())
def test_pixels_that_tie_go_together_when_all_of_them_are_within_the_cut(seed, levels, descending):
    maps = torch.randint(levels, (2, 3, 5), generator=torch.Generator().manual_seed(seed)).float()
    place = ranks(maps, descending=descending, together=True)
    ordered = maps.flatten(1).sort(1, descending=descending).values
    for count in range(15):
        cut = ordered[:, count, None]
        beyond = maps.flatten(1) > cut if descending else maps.flatten(1) < cut
        assert torch.equal(place < count, beyond)


def test_a_model_of_one_answer_has_an_allegiance_of_nine_tenths(images):
    result = sl.METRICS["allegiance"](Bright(-1e9), images, images.mean(1))
    assert result.area.tolist() == pytest.approx([0.9] * 5)


def test_masked_accuracy_four_by_four_by_hand():
    images = ONES.clone()
    images[0, 0, 0, 0] = 0.5  # the corner is the least relevant pixel; sums are 15.5 - count / 2
    result = scores("masked_accuracy", 12.9, maps=-RISING, images=images, targets=torch.tensor([0]))
    counts = [0, 1, 3, 4, 6, 8, 9, 11, 12, 14]  # int(16 d); at 6 pixels the sum is 12.5
    torch.testing.assert_close(result.fractions, torch.tensor(counts) / 16)
    assert result.values.tolist() == [[1, 1, 1, 1, 0, 0, 0, 0, 0, 0]]
    assert result.area.item() == pytest.approx(4 / 16 + 1 / 16)
    wrong = scores("masked_accuracy", 12.9, maps=-RISING, images=images, targets=torch.tensor([1]))
    assert wrong.values.tolist() == [[0, 0, 0, 0, 1, 1, 1, 1, 1, 1]]


def test_masked_accuracy_masks_a_pixel_of_the_smallest_image():
    counts = sl.METRICS["masked_accuracy"](Bright(0.5), torch.ones(1, 1, 1, 2), torch.ones(1, 1, 2)).fractions * 2
    assert counts.tolist() == [0, 1, 1, 1, 1, 1, 1, 1, 1, 1]


def test_the_fills_of_masked_accuracy_by_hand():
    images = torch.stack([torch.tensor([[[0.2, 0.4], [0.6, 0.8]]]), torch.full((1, 2, 2), 0.3)])
    fill = {name: filled(name, None, images) for name in ("corner", "image_mean", "uniform", "gaussian")}
    torch.testing.assert_close(fill["corner"][:, 0, 1, 1], torch.tensor([0.2, 0.3]))
    torch.testing.assert_close(fill["image_mean"][:, 0, 1, 1], torch.tensor([0.5, 0.3]))
    assert fill["uniform"][0].min() >= 0.2 and fill["uniform"][0].max() <= 0.8 and (fill["uniform"][1] == 0.3).all()
    many = filled("gaussian", None, torch.full((3000, 1, 2, 2), 0.4))
    assert torch.equal(many[:, 0, 0, 0], many[:, 0, 1, 1])  # one draw a channel
    assert many.mean().item() == pytest.approx(0.4, abs=0.1) and many[:, 0, 0, 0].std().item() == pytest.approx(1, abs=0.1)
    two = torch.stack([torch.linspace(0, 0.2, 16).view(4, 4), torch.linspace(0.7, 0.9, 16).view(4, 4)])[None]
    drawn = filled("uniform", None, two)[0]  # in the range of each channel
    assert drawn[0].max() <= 0.2 and drawn[1].min() >= 0.7
    assert (filled(0.25, None, images) == 0.25).all()


@pytest.mark.parametrize(("variant", "less"), [("corrected", 0), ("released", 1)])
def test_pixel_perturbation_four_by_four_by_hand(variant, less):
    shares = 10 ** (np.arange(25) / 12 - 2)
    counts = [max(0, int(16 * share + 1e-9) - less) for share in shares]
    result = scores("pixel_perturbation", 12.1, targets=torch.tensor([0]), variant=variant)  # 16 - count / 2
    torch.testing.assert_close(result.fractions, torch.tensor(counts) / 16)
    assert result.values.tolist() == [[float(count <= 7) for count in counts]]
    assert counts[-1] == 16 - less and counts[0] == 0
    first = scores("pixel_perturbation", 14.9, maps=-RISING, variant=variant, order="most_relevant_first", fill="image_mean")
    assert first.values.min() == 1  # the mean of a flat image changes nothing


def test_pixel_perturbation_takes_the_least_relevant_pixels_first():
    images = (RISING / 16)[:, None]
    options = dict(images=images, targets=torch.tensor([0]), fill="black")
    good, bad = (scores("pixel_perturbation", 6.0, maps=maps, **options).area for maps in (images[:, 0], -images[:, 0]))
    assert good > bad


def test_released_pixel_perturbation_takes_one_pixel_less():
    images = torch.ones(1, 1, 32, 32)
    maps = torch.randperm(1024, generator=torch.Generator().manual_seed(0)).float().view(1, 32, 32)
    result = scores("pixel_perturbation", 0.0, maps=maps, images=images, variant="released")
    assert (result.fractions[[0, 12, 24]] * 1024).tolist() == [9, 101, 1023]


def test_the_saliency_benchmark_by_hand():
    images, maps = torch.ones(1, 1, 40, 40), torch.rand(1, 40, 40, generator=torch.Generator().manual_seed(0))
    model, targets, options = Bright(800.0), torch.tensor([0]), {"preset": "saliency_benchmark"}
    deleted = sl.METRICS["deletion"](model, images, maps, targets, **options)
    torch.testing.assert_close(deleted.fractions * 1600, torch.tensor([0.0, 500, 1000, 1500, 1600]))
    torch.testing.assert_close(deleted.values, torch.tensor([[1.0, 1, 0, 0, 0]]))
    assert deleted.area.item() == pytest.approx((500 + 250) / 1600)
    inserted = sl.METRICS["insertion"](model, images, maps, targets, fill="black", **options)
    torch.testing.assert_close(inserted.values, torch.tensor([[0.0, 0, 1, 1, 1]]))
    released = sl.METRICS["insertion"](model, images, maps, targets, fill="black", variant="released", **options)
    torch.testing.assert_close(released.values, torch.tensor([[1.0, 0, 1, 1, 1]]))
    assert (released.area - inserted.area).item() == pytest.approx(250 / 1600)


def test_the_saliency_benchmark_starts_from_torchvisions_blur():
    images = torch.rand(1, 2, 64, 70, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    theirs = torchvision.transforms.functional.gaussian_blur(images, [127, 127], [17.0, 17.0])
    torch.testing.assert_close(filled("wide_blur", None, images), theirs, rtol=1e-6, atol=0)  # its kernel is of float32


@pytest.mark.parametrize("side", [1, 2, 9])
def test_the_wide_blur_of_small_images_mirrors_them_again_and_again(side):
    torch.testing.assert_close(filled("wide_blur", None, torch.ones(1, 1, side, side)), torch.ones(1, 1, side, side))
    images = torch.rand(1, 1, side, side, generator=torch.Generator().manual_seed(0))
    pixels = np.pad(images[0, 0].double().numpy(), 63, mode="reflect")
    kernel = np.exp(-np.square(np.arange(-63, 64)) / (2 * 17**2))
    kernel = np.outer(kernel, kernel) / kernel.sum() ** 2
    expected = [[(pixels[y : y + 127, x : x + 127] * kernel).sum() for x in range(side)] for y in range(side)]
    np.testing.assert_allclose(filled("wide_blur", None, images)[0, 0].numpy(), expected, rtol=1e-5)


def test_the_gnl_preset_ranks_the_absolute_value(smooth, images):
    maps = images.mean(1) - 0.5
    for name in ("deletion", "insertion"):
        gnl = sl.METRICS[name](smooth, images, maps, preset="gnl")
        assert torch.equal(gnl.values, sl.METRICS[name](smooth, images, maps.abs()).values)
        assert not torch.equal(gnl.values, sl.METRICS[name](smooth, images, maps).values)
    by_hand = scores("deletion", 9.0, maps=-RISING, preset="gnl", fill="black", score="correct", targets=torch.tensor([0]))
    assert by_hand.values.tolist() == [[1, 1, 0, 0, 0]]  # a row of four pixels a step, 16 12 8 4 0 left
    assert by_hand.area.item() == pytest.approx(1 / 4 + 1 / 8)


def missing_pixels(share, seed=3):
    return torch.rand(2, 9, 12, generator=torch.Generator().manual_seed(seed)) < share


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_imputation_agrees_with_quantus_and_grad_cam(share):
    images = torch.rand(2, 3, 9, 12, generator=torch.Generator().manual_seed(2))
    missing = missing_pixels(share)
    ours = imputed(images, missing)
    assert torch.equal(ours.where(~missing[:, None], 0), images.where(~missing[:, None], 0))
    for row in range(2):
        holes = missing[row].flatten().nonzero()[:, 0].numpy()
        theirs = quantus.functions.perturb_func.noisy_linear_imputation(images[row].numpy(), holes, noise=0.0)
        np.testing.assert_allclose(ours[row].numpy(), theirs.reshape(3, 9, 12), atol=1e-5)
        theirs = NoisyLinearImputer(noise=0.0)(images[row], 1 - missing[row].int())
        torch.testing.assert_close(ours[row], theirs, atol=1e-5, rtol=0)


def test_imputation_reproduces_a_linear_ramp_inside():
    ramp = (0.1 * torch.arange(9.0)[:, None] + 0.05 * torch.arange(12.0)).expand(2, 1, 9, 12).double()
    missing = missing_pixels(0.5)
    missing[:, [0, -1]] = missing[:, :, 0] = missing[:, :, -1] = False
    torch.testing.assert_close(imputed(ramp, missing), ramp)
    everything = imputed(ramp, torch.ones(2, 9, 12, dtype=torch.bool))
    torch.testing.assert_close(everything, ramp.mean((2, 3), keepdim=True).expand_as(ramp))


def test_road_is_half_of_least_less_most_relevant_first(smooth, images):
    maps, fractions = torch.rand(5, 16, 16, generator=torch.Generator().manual_seed(9)), (0.2, 0.6)
    result = sl.METRICS["road"](smooth, images, maps, fractions=fractions, sigma=0.0)
    target = smooth(images).argmax(1)
    for column, fraction in enumerate(fractions):
        count, pair = round(256 * fraction), []
        for descending in (True, False):
            order = maps.flatten(1).argsort(1, descending=descending)[:, :count]
            missing = torch.zeros(5, 256, dtype=torch.bool).scatter(1, order, True).view(5, 16, 16)
            pair.append(smooth(imputed(images, missing)).softmax(1).gather(1, target[:, None])[:, 0])
        torch.testing.assert_close(result.values[:, column], (pair[1] - pair[0]) / 2, rtol=1e-4, atol=1e-6)
    opposite = sl.METRICS["road"](smooth, images, -maps, fractions=fractions, sigma=0.0)
    torch.testing.assert_close(opposite.values, -result.values, atol=1e-6, rtol=1e-4)


def test_roads_noise_has_its_standard_deviation(images):
    seen = []

    class Watching(nn.Module):
        def forward(self, inputs):
            seen.append(inputs.clone())
            return torch.stack([inputs.flatten(1).sum(1), torch.zeros(len(inputs))], 1)

    flat = torch.full_like(images, 0.5)
    sl.METRICS["road"](Watching(), flat, images.mean(1), fractions=(0.5, 0.9))
    changed = torch.cat(seen) - 0.5
    assert changed[changed != 0].std().item() == pytest.approx(0.01, rel=0.05)


@pytest.mark.parametrize("scaling", ["none", "optimal"])
def test_infidelity_agrees_with_captum_for_the_same_squares(scaling, smooth, images):
    maps = torch.rand(5, 16, 16, generator=torch.Generator().manual_seed(9))
    targets = torch.tensor([0, 1, 2, 3, 0])
    boxes = squares(images, 6, seed=3).flatten(0, 1)

    def perturb(inputs):
        masks = torch.zeros_like(inputs)
        for mask, (top, left, side) in zip(masks, boxes.tolist(), strict=True):
            mask[:, top : top + side, left : left + side] = 1
        return masks, inputs * (1 - masks) + 0.5 * masks

    attributions = maps[:, None].expand(-1, 3, -1, -1) / 3
    theirs = captum.metrics.infidelity(
        smooth, perturb, images, attributions, target=targets, n_perturb_samples=6, normalize=scaling == "optimal"
    )
    ours = sl.METRICS["infidelity"](smooth, images, maps, targets, samples=6, scaling=scaling, fill="grey", seed=3)
    torch.testing.assert_close(ours.area, theirs, rtol=1e-4, atol=1e-7)


def test_infidelity_is_zero_where_the_map_tells_all(linear, images):
    linear, images = linear.double(), images.double()
    targets = torch.arange(5) % 4
    shares = (linear.weight[targets].detach() * images).sum(1)
    options = {"samples": 20, "fill": "black"}
    for maps, scaling, area in [(shares, "none", 0), (7 * shares, "optimal", 0), (-2 * shares, "optimal", 0)]:
        result = sl.METRICS["infidelity"](linear, images, maps, targets, scaling=scaling, **options)
        torch.testing.assert_close(result.area, torch.full((5,), float(area), dtype=torch.float64), atol=1e-20, rtol=0)
    nothing, wrong = (sl.METRICS["infidelity"](linear, images, m, targets, **options).area for m in (0 * shares, shares.flip(1)))
    assert (wrong > 0).all() and (wrong <= nothing).all()  # the best scale is at least as good as 0


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), height=st.integers(1, 9), width=st.integers(1, 9))
def test_squares_lie_anywhere_within_the_image(seed, height, width):
    top, left, side = squares(torch.zeros(2, 1, height, width), 50, seed=seed).unbind(2)
    assert top.min() >= 0 and left.min() >= 0 and side.min() >= 1 and side.max() <= max(1, min(height, width) // 2)
    assert (top + side).max() == height and (left + side).max() == width


def test_average_drop_and_increase_by_hand():
    model = Linear(torch.tensor([[[[1.0, 0.0]]], [[[0.0, 1.0]]]]))
    images = torch.tensor([[[[1.0, 0.5]]]]).expand(3, 1, 1, 2)
    maps = torch.tensor([[[3.0, -1.0]], [[0.0, 2.0]], [[0.0, 0.0]]])  # keeps the left pixel, the right one, none
    whole, left, right, none = (torch.tensor(x).sigmoid() for x in (0.5, 1.0, -0.5, 0.0))
    targets = torch.tensor([0, 0, 0])
    drop, rise = (sl.METRICS[name](model, images, maps, targets) for name in ("average_drop", "average_increase"))
    assert left > whole
    torch.testing.assert_close(drop.area, torch.stack([torch.tensor(0.0), 1 - right / whole, 1 - none / whole]))
    assert rise.area.tolist() == [1, 0, 0]
    scaled = sl.METRICS["average_drop"](model, images, 10 * maps, targets)
    torch.testing.assert_close(scaled.area, drop.area)


def test_average_drop_and_increase_agree_with_torchcam(smooth, images):
    from torchcam.metrics import ClassificationMetric

    maps = torch.rand(5, 16, 16, generator=torch.Generator().manual_seed(9))
    maps = maps / maps.amax((1, 2), keepdim=True)

    class Given:
        model = smooth

        def __call__(self, class_idx=None, scores=None, **options):
            return [maps]

        def fuse_cams(self, cams):
            return cams[0]

        def _hooks_off(self):
            return torch.no_grad()

    metric = ClassificationMetric(Given(), lambda logits: logits.softmax(-1))
    metric.update(images)
    theirs = metric.summary()
    ours = {name: sl.METRICS[name](smooth, images, maps).area.mean().item() for name in ("average_drop", "average_increase")}
    assert ours["average_drop"] == pytest.approx(theirs["avg_drop"], rel=1e-4)
    assert ours["average_increase"] == pytest.approx(theirs["conf_increase"])


def gradient(model, images, targets):
    return sl.METHODS["gradient"](model, images, targets)


def test_max_sensitivity_agrees_with_captum_for_the_same_draws(smooth, images):
    targets, moved = torch.tensor([0, 1, 2, 3, 0]), []

    def watched(model, inputs, targets):
        moved.append(inputs.clone())
        return gradient(model, inputs, targets)

    maps = gradient(smooth, images, targets)
    ours = sl.METRICS["max_sensitivity"](smooth, images, maps, targets, explain=watched, samples=6, radius=0.05)
    draws = torch.stack(moved, 1)  # image by image, as captum repeats them
    assert len(moved) == 6 and (draws - images[:, None]).abs().max().item() == pytest.approx(0.05, rel=1e-2)
    theirs = captum.metrics.sensitivity_max(
        lambda inputs, target: (gradient(smooth, inputs[0] if isinstance(inputs, tuple) else inputs, target),),
        images,
        perturb_func=lambda inputs: draws.flatten(0, 1),
        n_perturb_samples=6,
        target=targets,
    )
    torch.testing.assert_close(ours.area, theirs, rtol=1e-4, atol=1e-6)


def test_the_gradient_of_a_linear_model_has_no_sensitivity(linear, images):
    maps = gradient(linear, images, 0)
    result = sl.METRICS["max_sensitivity"](linear, images, maps, 0, explain=gradient, samples=3)
    assert result.area.tolist() == [0] * 5
    nothing = sl.METRICS["max_sensitivity"](linear, images, 0 * maps, 0, explain=lambda m, x, t: 0 * maps)
    assert nothing.area.tolist() == [0] * 5


def test_sensitivity_grows_with_the_number_of_draws_and_explains_the_class_of_the_whole_image(smooth, images):
    asked = []

    def watched(model, inputs, targets):
        asked.append(targets)
        return gradient(model, inputs, targets)

    maps = gradient(smooth, images, None)
    few, many = (sl.METRICS["max_sensitivity"](smooth, images, maps, explain=watched, samples=samples).area for samples in (2, 8))
    assert (many >= few).all()
    assert all(torch.equal(targets, smooth(images).argmax(1)) for targets in asked)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), levels=st.sampled_from([2, 5, 1000]))
def test_rank_correlation_agrees_with_scipy(seed, levels):
    one, other = torch.randint(levels, (2, 3, 4, 5), generator=torch.Generator().manual_seed(seed)).double()
    theirs = [spearmanr(a.flatten(), b.flatten()).statistic for a, b in zip(one, other, strict=True)]
    torch.testing.assert_close(rank_correlation(one, other), torch.tensor(theirs, dtype=torch.float64).nan_to_num(0))


def test_ranks_that_tie_share_their_mean():
    assert average_ranks(torch.tensor([[3.0, 1.0, 1.0, 2.0]])).tolist() == [[3, 0.5, 0.5, 2]]


def test_constant_maps_are_like_one_another_and_like_no_other():
    flat, other = torch.full((1, 8, 8), 0.3), torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert rank_correlation(flat, 2 * flat).tolist() == [1]
    assert rank_correlation(flat, other).tolist() == [0]
    assert structure(flat, 2 * flat).tolist() == [1]
    assert structure(flat, other).item() < 0.2


def test_only_the_foreground_of_the_original_map_is_correlated():
    original = torch.tensor([[[0.0, 0, 0, 0], [0, 0, 1, 2], [0, 0, -3, 4]]])
    reversed_, moved = original.clone(), original.roll(2, 2)
    reversed_[0, 1, 2:], reversed_[0, 2, 2:] = torch.tensor([4.0, -3]), torch.tensor([2.0, 1])
    assert SIMILARITIES["spearman"](original, reversed_).item() == pytest.approx(-1)
    assert SIMILARITIES["spearman_signed"](original, reversed_).item() == pytest.approx(
        spearmanr([1, 2, -3, 4], [4, -3, 2, 1])[0]
    )
    assert rank_correlation(original.abs(), reversed_.abs()).item() > 0.5  # the eight zeros that both maps have
    assert SIMILARITIES["spearman"](original, moved).item() == 0  # it is constant on the foreground, and not elsewhere


def test_maps_without_a_background_are_correlated_everywhere(images):
    one, other = images[:, 0], images[:, 1]
    torch.testing.assert_close(SIMILARITIES["spearman"](one, other), rank_correlation(one, other))
    signs, some = torch.tensor([[[0.0, 0, 0], [0, 1, 1]]]), torch.tensor([[[0.0, 0, 1], [0, 1, 1]]])
    torch.testing.assert_close(SIMILARITIES["spearman"](signs, some), rank_correlation(signs, some))  # its foreground is constant


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_a_map_that_becomes_constant_is_no_evidence(similarity, smooth, images):
    maps = images.mean(1)
    for original, other in ((maps, 0 * maps), (0 * maps, maps), (0 * maps, 0 * maps)):
        result = sl.METRICS["model_randomisation"](
            smooth, images, original, explain=lambda m, x, t, other=other: other, similarity=similarity
        )
        assert (result.values == 1).all()


def test_structure_is_that_of_scikit_image(images):
    one, other = images[:, 0], images[:, 1]
    unit = lambda x: ((x - x.min()) / (x.max() - x.min())).double().numpy()  # noqa: E731
    theirs = [structural_similarity(unit(a), unit(b), data_range=1) for a, b in zip(one, other, strict=True)]
    torch.testing.assert_close(structure(-one, other), torch.tensor(theirs))
    assert structure(one, one).tolist() == pytest.approx([1] * 5)


def test_a_method_that_does_not_look_at_the_model_does_not_notice_its_randomisation(smooth, images):
    maps = sl.METHODS["edges"](smooth, images)
    for similarity in ("spearman", "spearman_signed", "ssim"):
        result = sl.METRICS["model_randomisation"](
            smooth, images, maps, explain=lambda m, x, t: sl.METHODS["edges"](m, x), similarity=similarity
        )
        torch.testing.assert_close(result.values, torch.ones(5, 4))
        assert result.area.tolist() == pytest.approx([1] * 5)
        torch.testing.assert_close(result.fractions, torch.tensor([0, 1 / 3, 2 / 3, 1]))


def test_layers_are_randomised_from_the_last_to_the_first_and_stay_so(smooth, images):
    seen = []

    def watched(model, inputs, targets):
        seen.append({name: value.clone() for name, value in model.named_parameters()})
        return gradient(model, inputs, targets)

    before = {name: value.clone() for name, value in smooth.named_parameters()}
    result = sl.METRICS["model_randomisation"](smooth, images, gradient(smooth, images, None), explain=watched)
    changed = [{name.split(".")[0] for name in now if not torch.equal(now[name], before[name])} for now in seen]
    assert changed == [{"6"}, {"6", "3"}, {"6", "3", "0"}]
    assert torch.equal(seen[0]["6.weight"], seen[2]["6.weight"])
    assert (result.values[:, 0] == 1).all() and (result.values[:, 1:] < 0.99).all()
    few = sl.METRICS["model_randomisation"](smooth, images, gradient(smooth, images, None), explain=gradient, steps=2)
    torch.testing.assert_close(few.fractions, torch.tensor([0, 2 / 3, 1]))
    torch.testing.assert_close(few.values[:, 1:], result.values[:, 2:])


def test_what_a_metric_needs_is_asked_for(smooth, images):
    maps = images.mean(1)
    for name in ("max_sensitivity", "model_randomisation"):
        with pytest.raises(ValueError, match="explain is missing; pass explain="):
            sl.METRICS[name](smooth, images, maps)
        with pytest.raises(ValueError, match=r"maps \(5, 3, 16, 16\) do not fit"):
            sl.METRICS[name](smooth, images, maps, explain=lambda model, images, targets: images)
    for name in ("pointing_game", "relevance_mass", "relevance_rank", "token_f1", "iou_f1", "auprc"):
        with pytest.raises(ValueError, match="objects are missing; pass objects="):
            sl.METRICS[name](smooth, images, maps)
        with pytest.raises(ValueError, match=r"objects must be bool masks of the maps' shape \(5, 16, 16\), got"):
            sl.METRICS[name](smooth, images, maps, objects=maps)
        with pytest.raises(ValueError, match=r"the object of images \[0, 2\] has no pixel"):
            sl.METRICS[name](smooth, images, maps, objects=torch.tensor([0, 1, 0, 1, 1]).bool().view(5, 1, 1).expand(5, 16, 16))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("model_randomisation", {"similarity": "hog"}, "similarity of .* 'hog' is not known"),
        ("model_randomisation", {"steps": 0}, "steps of .* must be a whole number from 1 to .*"),
        ("max_sensitivity", {"samples": 0}, "samples of .* must be a whole number from 1 to .*"),
        ("max_sensitivity", {"radius": float("nan")}, "radius of .* must be a number of at least 0"),
        ("infidelity", {"samples": 2.5}, "samples of .* must be a whole number from 1 to .*"),
        ("infidelity", {"scaling": "best"}, "scaling of .* 'best' is not known"),
        ("infidelity", {"score": "accuracy"}, "score of .* 'accuracy' is not known"),
        ("road", {"sigma": -1.0}, "sigma of .* must be a number of at least 0"),
        ("pointing_game", {"tolerance": -1}, "tolerance of .* must be a number of at least 0"),
        ("pixel_perturbation", {"variant": "paper"}, "variant of .* 'paper' is not known"),
        ("insertion", {"variant": "released"}, "variant 'released' needs preset 'saliency_benchmark'"),
        ("allegiance", {"fill": "blakc"}, "did you mean 'black'"),
    ],
)
def test_bad_options_are_refused(name, options, message, smooth, images):
    with pytest.raises(ValueError, match=message):
        sl.METRICS[name](smooth, images, images.mean(1), **(context(name, images) | options))


def test_a_model_without_parameters_cannot_be_randomised(images):
    with pytest.raises(ValueError, match="Bright has no parameters"):
        sl.METRICS["model_randomisation"](Bright(1.0), images, images.mean(1), explain=lambda m, x, t: x.mean(1))


def trained(model):
    """The model with parameters that no initialisation gives, as after training."""
    source = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.rand(parameter.shape, generator=source)
    return model.eval()


OTHERS = {
    "vit": lambda: torchvision.models.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=4),
    "swin": lambda: torchvision.models.SwinTransformer([4, 4], 8, [2, 2], [2, 2], [4, 4], num_classes=4),
    "swin_v2": lambda: torchvision.models.SwinTransformer(
        [4, 4], 8, [1, 1], [2, 2], [4, 4], num_classes=4, block=swin_transformer.SwinTransformerBlockV2
    ),
    "convnext": lambda: torchvision.models.ConvNeXt([CNBlockConfig(8, 16, 2), CNBlockConfig(16, None, 1)], num_classes=4),
    "weight_norm": lambda: nn.Sequential(nn.Flatten(), nn.utils.parametrizations.weight_norm(nn.Linear(3072, 4))),
    "batch_norm": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.PReLU(4), nn.Flatten(), nn.Linear(3600, 4)),
}
OWN = ("cnn", "sgt_cnn", "cifar_resnet9", "cifar_resnet18", "lstm", "lstm_cell_attention", "tcn", "transformer")


@pytest.mark.parametrize("name", [*OTHERS, *OWN])
def test_no_parameter_stays_trained_when_all_layers_are_random(name):
    model = trained(OTHERS[name]() if name in OTHERS else sl.MODELS[name](classes=4))
    shape = (1, 1, 50, 50) if name in OWN[4:] else (1, 3, 28, 28) if name == "sgt_cnn" else (1, 3, 32, 32)
    images, runs, state = torch.rand(shape), [], torch.get_rng_state()
    for seed in (0, 0, 1):
        seen = []

        def watched(model, inputs, targets, seen=seen):
            seen.append({key: value.clone() for key, value in model.named_parameters()})
            return inputs[:, 0]

        sl.METRICS["model_randomisation"](model, images, images[:, 0], 0, explain=watched, steps=3, seed=seed)
        runs.append(seen[-1])
    assert torch.equal(state, torch.get_rng_state())
    kept = [key for key, value in model.named_parameters() if len(value.unique()) > 1 and torch.equal(value, runs[0][key])]
    assert kept == []
    assert all(torch.equal(runs[1][key], value) for key, value in runs[0].items())
    assert not all(torch.equal(runs[2][key], value) for key, value in runs[0].items())


def test_a_parameter_of_no_layer_is_drawn_with_its_own_mean_and_spread():
    model, seen = Linear(5 + 2 * torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(4))), []

    def watched(model, inputs, targets):
        seen.append(model.weight.clone())
        return inputs[:, 0]

    images = torch.rand(1, 3, 32, 32)
    sl.METRICS["model_randomisation"](model, images, images[:, 0], 0, explain=watched)
    assert seen[0].mean().item() == pytest.approx(5, abs=0.1) and seen[0].std().item() == pytest.approx(2, abs=0.1)
    assert abs(torch.corrcoef(torch.stack([seen[0].flatten(), model.weight.flatten()]))[0, 1].item()) < 0.05


def test_ssim_says_that_it_needs_a_window(images):
    with pytest.raises(ValueError, match="ssim needs maps of at least 3x3 pixels"):
        structure(images[:, 0, :2, :2], images[:, 0, :2, :2])


def test_localisation_by_hand():
    maps = torch.tensor([[[0.0, 0, 0, 0], [0, 4, 2, 0], [0, 1, 1, 0], [-9, 0, 0, 0]]])
    objects = torch.zeros(1, 4, 4, dtype=torch.bool)
    objects[0, 1:3, 2:] = True  # holds 2 and 1 of 8; its four pixels against the top four 4 2 1 1
    on = lambda name, **options: sl.METRICS[name](None, maps[:, None].abs(), maps, objects=objects, **options).area.item()  # noqa: E731
    assert on("relevance_mass") == pytest.approx(3 / 8)
    assert on("relevance_rank") == pytest.approx(2 / 4)
    assert on("pointing_game") == 0 and on("pointing_game", tolerance=1) == 1


def test_the_tolerance_of_the_pointing_game_is_a_distance():
    maps, objects = torch.zeros(1, 8, 8), torch.zeros(1, 8, 8, dtype=torch.bool)
    maps[0, 1, 1], objects[0, 4, 5] = 1, True
    hits = [sl.METRICS["pointing_game"](None, maps[:, None], maps, objects=objects, tolerance=t).area.item() for t in (4.9, 5)]
    assert hits == [0, 1]


def test_localisation_of_special_maps_and_objects():
    images, everything = torch.rand(2, 1, 6, 6), torch.ones(2, 6, 6, dtype=torch.bool)
    maps = torch.rand(2, 6, 6, generator=torch.Generator().manual_seed(0))
    half = everything.clone()
    half[:, 3:] = False
    for name in ("pointing_game", "relevance_mass", "relevance_rank"):
        on = lambda maps, objects, name=name: sl.METRICS[name](None, images, maps, objects=objects).area.tolist()  # noqa: E731
        assert on(maps, everything) == pytest.approx([1, 1])
        assert on(half.float(), half) == [1, 1]
        assert on(half.float(), ~half) == [0, 0]
    mass = lambda maps: sl.METRICS["relevance_mass"](None, images, maps, objects=half).area.tolist()  # noqa: E731
    assert mass(torch.full((2, 6, 6), 7.0)) == pytest.approx([0.5, 0.5])
    assert mass(torch.zeros(2, 6, 6)) == mass(-maps) == [0, 0]
    assert mass(1e-30 * maps) == pytest.approx(mass(maps))


@pytest.mark.parametrize("name", sorted(sl.METRICS))
@pytest.mark.parametrize("dtype", [torch.int64, torch.bool])
def test_maps_that_are_no_floats_are_refused(name, dtype, smooth, images):
    with pytest.raises(
        ValueError, match=r"maps must be floats of shape .* and torch\.(int64|bool); convert them with maps.float"
    ):
        sl.METRICS[name](smooth, images, torch.ones(5, 16, 16, dtype=dtype), **context(name, images))


def test_the_numbers_of_the_papers_are_the_defaults():
    """If one of them changes, raise "score" in REVISIONS."""
    from saliency_lib.attribution import lime, rise, sidu
    from saliency_lib.evaluation.deletion import PRESETS

    def plain(variants, name):
        return {key: value for key, value in variants[name].items() if not callable(value)}

    grids = {"masks": 2000, "cells": 8, "keep": 0.5, "fill": "mean", "score": "probability", "edge": "mirror"}
    assert plain(rise.VARIANT_SETTINGS, "original") == grids
    grids = {"masks": 500, "cells": 7, "keep": 0.1, "fill": "black", "score": "softmax_twice", "edge": "clamp"}
    assert plain(rise.VARIANT_SETTINGS, "saliency_benchmark") == grids
    assert sidu.VARIANT_SETTINGS["original"] == {"threshold": 0.1, "sigma": 0.25, "fill": "mean", "edge": "mirror"}
    assert sidu.VARIANT_SETTINGS["pytorch_sidu"] == {"threshold": 0.15, "sigma": 0.1, "fill": "black", "edge": "corners"}
    assert plain(lime.VARIANT_SETTINGS, "weights") == {"samples": 1000, "segments": None, "score": "probability"}
    benchmark = {"samples": 100, "segments": "quickshift", "score": "softmax_twice"}
    assert plain(lime.VARIANT_SETTINGS, "saliency_benchmark") == benchmark
    for preset, fills in {
        "rise": ("mean", "blur"),
        "gnl": ("mean", "blur"),
        "saliency_benchmark": ("black", "wide_blur"),
    }.items():
        assert (PRESETS[preset]["deletion_fill"], PRESETS[preset]["insertion_fill"]) == fills
    expected = {
        "smoothgrad": {"samples": 25, "sigma": 0.15},
        "integrated_gradients": {"steps": 50, "baseline": "mean"},
        "gnl_integrated_gradients": {"steps": 50, "baseline": "mean", "pool_rule": "exact"},
        "guided_path_integrated_gradients": {"steps": 200, "fraction": 0.25, "band": 0.02, "baseline": "black"},
        "gradient_shap": {"sigma": 0.09},
    }
    for name, options in expected.items():
        assert sl.METHODS.defaults(name) == sl.METHODS.defaults(name) | options
    assert sl.METRICS.defaults("max_sensitivity")["radius"] == 0.02 and sl.METRICS.defaults("max_sensitivity")["samples"] == 10
    assert sl.METRICS.defaults("pixel_perturbation")["fill"] == "grey"
    assert sl.METRICS.defaults("masked_accuracy")["fill"] == "corner"
