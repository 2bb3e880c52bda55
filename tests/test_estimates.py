"""Maps of fewer passes: RISE's estimators and designs, bisection of the line of integrated gradients, stopping at a tolerance."""

import dataclasses
import itertools

import numpy as np
import pytest
import skimage.transform
import torch
from conftest import Linear
from torch import nn

import saliency_lib as sl
from saliency_lib.attribution.backward import gaussian_ball
from saliency_lib.attribution.estimators import ESTIMATORS, Grids, _left_out, centred, estimated, looks
from saliency_lib.attribution.lime import perturbations
from saliency_lib.attribution.masks import Masks
from saliency_lib.attribution.rise import DESIGNS, drawn_grids, random_grids

RISE, IG = sl.METHODS["rise"], sl.METHODS["integrated_gradients"]
ALL = torch.tensor([0])
NEW = [name for name in ESTIMATORS if name != "original"]


class Square(nn.Module):
    """Logits that are the squares of a linear model's, plus a constant."""

    def __init__(self, weight, plus=0.0):
        super().__init__()
        self.linear, self.plus = Linear(weight), plus

    def forward(self, images):
        return self.linear(images).square() + self.plus


class Counting(nn.Module):
    """Counts the images that a model receives."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.count = inner, 0

    def forward(self, images):
        self.count += len(images)
        return self.inner(images)


def grids_of(stack, together=1):
    """These masks (n, H, W) as a set whose distribution is not known."""
    return Grids(Masks(len(stack), lambda rows, numbers: stack[numbers][None]), 0.5, together, stack, stack)


def drawn(images, count, cells, keep, seed, design):
    return drawn_grids(images, count, cells, keep, seed, edge="mirror", design=design)


def small_square(side=6, plus=0.0):
    weight = torch.randn(2, 1, side, side, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return Square(weight, plus), torch.rand(1, 1, side, side, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def expected_map(model, image, cells, keep):
    """The covariance of the score and the mask over keep, from all grids at all shifts, enlarged by scikit-image."""
    side, shifts = image.shape[-1], -(-image.shape[-1] // cells)
    long = (cells + 1) * shifts
    total, mean, chance = 0, 0, 0
    for bits in itertools.product([0, 1], repeat=cells * cells):
        grid = np.array(bits, dtype=float).reshape(cells, cells)
        whole = skimage.transform.resize(grid, (long, long), order=1, mode="reflect", anti_aliasing=False)
        share = keep ** sum(bits) * (1 - keep) ** (len(bits) - sum(bits)) / shifts**2
        for top, left in itertools.product(range(shifts), repeat=2):
            mask = torch.from_numpy(whole[top : top + side, left : left + side].copy())
            score = float(model(image * mask)[0, 1].detach())
            total, mean, chance = total + share * score * mask, mean + share * score, chance + share
    assert chance == pytest.approx(1)
    return total / keep - mean


def test_a_centred_score_is_the_score_minus_the_mean_of_the_other_draws():
    stack = torch.rand(4, 2, 2)
    found, _ = centred(grids_of(stack[:3]), torch.tensor([[1.0, 2.0, 6.0]]))
    torch.testing.assert_close(found, torch.tensor([[-3.0, -1.5, 4.5]]))
    pairs, _ = centred(grids_of(stack, together=2), torch.tensor([[1.0, 3.0, 5.0, 7.0]]))
    torch.testing.assert_close(pairs, torch.tensor([[-5.0, -3.0, 3.0, 5.0]]))  # the others' means are 6 and 2


@pytest.mark.parametrize("together", [1, 2])
def test_each_draw_is_left_out_of_the_fit_that_its_residual_is_of(together):
    design = torch.cat([torch.ones(12, 1), torch.rand(12, 3)], 1).double()
    scores, shrinkage = torch.rand(2, 12, dtype=torch.float64), torch.diag(torch.tensor([0, 0.7, 0.7, 0.7]).double())
    found, slopes = _left_out(design, scores, together, 0.7)
    fits = []
    for draw in torch.arange(12).split(together):
        others = torch.ones(12, dtype=torch.bool).index_fill(0, draw, False)
        rest = design[others]
        fits.append(torch.linalg.solve(rest.T @ rest + shrinkage, rest.T @ scores[:, others].T))
        torch.testing.assert_close(found[:, draw], scores[:, draw] - (design[draw] @ fits[-1]).T)
    torch.testing.assert_close(slopes[1:], torch.stack(fits).mean(0)[1:])


def test_the_features_of_a_mask_are_computed_once_and_are_its_means_over_rectangles():
    grids, made = drawn(torch.zeros(1, 1, 12, 12), 80, 4, 0.3, 1, "independent"), []
    masks = grids.masks.at(ALL, torch.arange(80))[0].double()
    counting = Masks(80, lambda rows, numbers: (made.extend(numbers.tolist()), grids.masks.at(rows, numbers))[1])
    counted = dataclasses.replace(grids, masks=counting)
    for count in (7, 50, 20, 80):
        expected = masks[:count].unflatten(2, (3, 4)).unflatten(1, (3, 4)).mean((2, 4)).flatten(1) - 0.3
        torch.testing.assert_close(counted.features(count), expected[:count])
    assert made == list(range(80))


def test_a_centred_map_of_three_masks_is_what_it_is_by_hand():
    stack = torch.tensor([[[1.0, 0.0]], [[1.0, 1.0]], [[0.0, 1.0]]])
    maps, _ = estimated(grids_of(stack), torch.tensor([[1.0, 2.0, 6.0]]), centred, torch.zeros(1, 1, 1, 2), None)
    torch.testing.assert_close(maps, torch.tensor([[[-4.5, 3.0]]]) / 3)


def test_a_centred_map_is_the_sum_of_its_definition(smooth, images):
    masks = random_grids(images, 20, 8, 0.5, seed=7).at(ALL, torch.arange(20))[0]
    with torch.no_grad():
        scores = torch.stack([smooth(image * masks[:, None]).softmax(1)[:, 2] for image in images])
    expected = torch.einsum("bm,mhw->bhw", scores - scores.mean(1, keepdim=True), masks) / (19 * 0.5)
    found = RISE(smooth, images, torch.full((5,), 2), masks=20, seed=7, estimator="centred")
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("estimator", NEW)
@pytest.mark.parametrize("design, keep", [("independent", 0.3), ("antithetic", 0.3), ("antithetic", 0.5)])  # 0.5: complements
def test_the_mean_of_many_small_maps_is_the_covariance_of_score_and_mask_over_keep(estimator, design, keep):
    model, image = small_square()
    options = dict(masks=8, cells=2, keep=keep, fill="black", score="logit", estimator=estimator, design=design)
    maps = torch.cat([RISE(model, image, torch.tensor([1]), seed=seed, **options) for seed in range(500)])
    expected = expected_map(model, image, 2, keep)
    error = maps.std(0) / len(maps) ** 0.5
    assert ((maps.mean(0) - expected).abs() < 5 * error).all()
    assert expected.std() > 2 * error.mean()


@pytest.mark.parametrize("design", ["antithetic", "independent"])
def test_in_pairs_of_complements_the_original_is_the_centred_map_up_to_a_constant(design):
    model, image = small_square()
    options = dict(masks=40, cells=2, fill="black", score="logit", design=design)
    original, new = (RISE(model, image, torch.tensor([1]), estimator=name, **options) for name in ("original", "centred"))
    assert ((original - new).std() < 1e-9 * new.std()) == (design == "antithetic")


def test_the_original_has_the_same_expectation_plus_the_mean_score():
    model, image = small_square()
    options = dict(masks=20_000, cells=2, fill="black", score="logit")
    original, new = (RISE(model, image, torch.tensor([1]), estimator=name, **options)[0] for name in ("original", "centred"))
    assert (original - original.mean() - new + new.mean()).abs().max() < 0.05 * new.std()


@pytest.mark.parametrize("estimator", NEW)
@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("tolerance", [None, 0.1])
def test_the_new_maps_of_a_constant_model_are_exactly_nothing(estimator, design, tolerance, images):
    class Constant(nn.Module):
        def forward(self, inputs):
            return torch.tensor([0.3, 1.1]).expand(len(inputs), 2)

    maps = RISE(Constant(), images, masks=30, cells=4, keep=0.4, estimator=estimator, design=design, tolerance=tolerance)
    assert torch.equal(maps, torch.zeros_like(maps))


@pytest.mark.parametrize("estimator", NEW)
@pytest.mark.parametrize("design", DESIGNS)
def test_adding_to_the_score_changes_no_new_map_and_scaling_it_scales_the_map(estimator, design):
    model, image = small_square()
    options = dict(masks=40, cells=2, fill="black", score="logit", estimator=estimator, design=design)
    plain = RISE(model, image, torch.tensor([1]), **options)
    model.plus = 100.0
    torch.testing.assert_close(RISE(model, image, torch.tensor([1]), **options), plain, rtol=1e-9, atol=1e-9)
    model.plus = 0.0
    with torch.no_grad():
        model.linear.weight.mul_(2)
    torch.testing.assert_close(RISE(model, image, torch.tensor([1]), **options), 4 * plain)


def test_a_linear_score_of_the_mask_leaves_the_controlled_map_little_noise():
    weight = torch.randn(2, 1, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weight = weight.repeat_interleave(8, 2).repeat_interleave(8, 3)  # the model sees the features of the regression
    image = torch.ones(1, 1, 24, 24, dtype=torch.float64)
    options = dict(masks=800, cells=4, fill="black", score="logit")

    def spread(estimator):
        maps = [RISE(Linear(weight), image, ALL, seed=seed, estimator=estimator, **options) for seed in range(30)]
        maps = torch.cat(maps)
        return (maps - maps.mean((1, 2), keepdim=True)).var(0).mean().sqrt()

    original, new, control = (spread(name) for name in ("original", "centred", "controlled"))
    assert new < original
    assert control < 0.1 * new


@pytest.mark.parametrize("keep", [0.2, 0.5, 0.8])
def test_both_masks_of_a_pair_keep_the_share_and_are_complements_at_one_half(keep):
    image = torch.zeros(1, 1, 20, 14, dtype=torch.float64)
    masks = drawn(image, 8000, 5, keep, 0, "antithetic").masks.at(ALL, torch.arange(8000))[0]
    for half in (masks[::2], masks[1::2]):
        assert half.min() >= 0 and half.max() <= 1 + 1e-12
        assert ((half.mean(0) - keep).abs() <= 5 * half.std(0) / 4000**0.5).all()
        single = random_grids(image, 4000, 5, keep, seed=1).at(ALL, torch.arange(4000))[0]
        assert abs(half.var(0).mean() / single.var(0).mean() - 1) < 0.05
    together = ((masks[::2] - keep) * (masks[1::2] - keep)).mean()
    assert together < 0
    if keep == 0.5:
        torch.testing.assert_close(masks[::2] + masks[1::2], torch.ones_like(masks[::2]))


def test_stratified_masks_use_every_shift_once_per_round():
    image = torch.zeros(1, 1, 12, 12, dtype=torch.float64)
    grids = drawn(image, 40, 3, 0.5, 2, "stratified")
    masks = grids.masks.at(ALL, torch.arange(40))[0]
    basis = torch.eye(9, dtype=torch.float64).view(9, 3, 3)
    tops = []
    for mask in masks:
        errors = []
        for top, left in itertools.product(range(4), repeat=2):
            span = (grids.down[top].T @ (basis @ grids.across[left])).flatten(1).T
            fit = torch.linalg.lstsq(span, mask.flatten()[:, None]).solution.round()
            errors.append(float((span @ fit - mask.flatten()[:, None]).abs().max()))
        best = [divmod(k, 4) for k, error in enumerate(errors) if error < 1e-9]
        tops.append({top for top, _ in best})
    for start in range(0, 40, 4):  # a grid of equal rows shows no shift, so a mask may fit several
        assert any(all(top in seen for top, seen in zip(order, tops[start : start + 4], strict=True))
                   for order in itertools.permutations(range(4)))  # fmt: skip


@pytest.mark.parametrize("design", DESIGNS)
def test_a_mask_of_a_design_does_not_depend_on_how_many_are_drawn(design):
    images = torch.zeros(1, 3, 12, 20)
    few, many = (drawn(images, count, 4, 0.3, 1, design).masks for count in (6, 50))
    assert torch.equal(few.at(ALL, torch.arange(6)), many.at(ALL, torch.arange(6)))


def test_too_few_masks_are_refused(smooth, images):
    with pytest.raises(ValueError, match=r"estimator 'centred' needs at least 2 masks of this design, got 1"):
        RISE(smooth, images, masks=1, estimator="centred")
    with pytest.raises(ValueError, match="needs at least 4 masks of this design, got 2"):
        RISE(smooth, images, masks=2, estimator="controlled", design="antithetic")
    with pytest.raises(ValueError, match="has pairs of masks, so their number must be even, got 9"):
        RISE(smooth, images, masks=9, design="antithetic")


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("design", DESIGNS)
def test_the_standard_error_of_a_map_is_its_deviation_over_seeds(estimator, design):
    model, image = small_square(side=12)
    options = dict(masks=64, cells=3, fill="black", score="logit", estimator=estimator, design=design, tolerance=1e-9)
    with pytest.warns(UserWarning, match="raise masks or the tolerance"):
        found = [sl.estimate("rise", model, image, ALL, seed=seed, **options) for seed in range(60)]
    maps = torch.cat([one.maps for one in found])
    spans = maps.amax((1, 2)) - maps.amin((1, 2))
    maps = maps - maps.mean((1, 2), keepdim=True)
    told = (torch.cat([one.error for one in found]) * spans).square().mean().sqrt()
    assert told / maps.var(0).mean().sqrt() == pytest.approx(1, abs=0.25)


def test_about_one_map_in_three_ends_further_from_its_limit_than_the_tolerance():
    model, image = small_square()
    options = dict(masks=4000, cells=2, fill="black", score="logit", estimator="centred", tolerance=0.1)
    limit = expected_map(model, image, 2, 0.5)
    maps = torch.cat([RISE(model, image, torch.tensor([1]), seed=seed, **options) for seed in range(80)])
    miss = (maps - limit - (maps - limit).mean((1, 2), keepdim=True)).square().mean((1, 2)).sqrt()
    further = miss > options["tolerance"] * (maps.amax((1, 2)) - maps.amin((1, 2)))
    assert further.double().mean() == pytest.approx(1 / 3, abs=0.15)


@pytest.mark.parametrize("estimator", NEW)
def test_images_that_end_at_a_tolerance_have_the_map_of_as_many_masks_whatever_their_batch(estimator, smooth, images):
    smooth, images = smooth.double(), images.double()
    options = dict(cells=4, score="logit", estimator=estimator, fill="noise", seed=3, masks=3000)
    options["tolerance"] = 0.06
    found = sl.estimate("rise", smooth, images, **options)
    assert (found.error <= options["tolerance"]).all() and len(found.passes.unique()) > 1
    for row in range(5):
        count = int(found.passes[row])
        alone = sl.estimate("rise", smooth, images[[row]], indices=[row], batch_size=7, **options)
        assert int(alone.passes) == count
        torch.testing.assert_close(alone.maps[0], found.maps[row], rtol=1e-9, atol=1e-9)
        whole = RISE(smooth, images[[row]], indices=[row], **options | {"masks": count, "tolerance": None})
        torch.testing.assert_close(found.maps[row], whole[0], rtol=1e-7, atol=1e-9)


def test_a_smaller_tolerance_takes_more_masks_and_no_more_than_there_are(smooth, images):
    model = Counting(smooth.double())
    targets = torch.zeros(5, dtype=torch.long)
    loose, strict = (
        sl.estimate("rise", model, images.double(), targets, cells=4, tolerance=tolerance, masks=2000, estimator="centred")
        for tolerance in (0.12, 0.06)
    )
    assert (strict.passes >= loose.passes).all() and strict.passes.sum() > loose.passes.sum()
    assert model.count == int(loose.passes.sum() + strict.passes.sum()) + 2  # one image each finds the number of classes
    with pytest.warns(
        UserWarning, match=r"5 of 5 images have an error of up to .* after 100 masks, above the tolerance of 1e-06"
    ):
        assert (sl.estimate("rise", smooth, images.double(), tolerance=1e-6, masks=100).passes == 100).all()
    assert looks(100, 1) == [64, 80, 100] and looks(10, 1) == [10] and looks(64, 2) == [64]


def test_a_method_without_a_tolerance_is_refused(smooth, images):
    with pytest.raises(ValueError, match="tolerance"):
        sl.estimate("gradient", smooth, images, tolerance=0.1)
    with pytest.raises(ValueError, match=r"rise stops where its error is at most a tolerance; pass one"):
        sl.estimate("rise", smooth, images)


class Hinge(nn.Module):
    """The logits 0 and max(x - 1/2, 0) of the first pixel x."""

    def forward(self, images):
        hinge = (images[:, 0, 0, :1] - 0.5).relu()
        return torch.cat([0 * hinge, hinge], 1)


class Ramp(nn.Module):
    """The logits 0 and max(x - 9/32, 0) - max(x - 21/32, 0) of the first pixel x."""

    def forward(self, images):
        pixel = images[:, 0, 0, :1]
        ramp = (pixel - 9 / 32).relu() - (pixel - 21 / 32).relu()
        return torch.cat([0 * ramp, ramp], 1)


def test_only_the_interval_at_a_kink_is_halved():
    image = torch.ones(1, 1, 1, 2, dtype=torch.float64)
    found = sl.estimate("integrated_gradients", Hinge(), image, 1, baseline="black", tolerance=0.01)
    # beside the kink, an interval of length d is missed by d/2 of 1/2: 1/8, 1/16, ..., until 1/128 at d = 1/128
    assert found.passes.tolist() == [9 + 4]
    assert found.error.tolist() == pytest.approx([1 / 128])
    torch.testing.assert_close(found.maps, torch.tensor([[[0.5 - 1 / 256, 0]]], dtype=torch.float64))


def test_errors_of_two_intervals_that_cancel_are_both_halved():
    image = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    found = sl.estimate("integrated_gradients", Ramp(), image, 1, baseline="black", tolerance=0.01)
    assert int(found.passes) > 9 and float(found.error) <= 0.01  # those of the first round are 1/32 and -1/32 of 3/8


def test_a_linear_model_takes_the_nodes_of_the_first_round(linear, images):
    found = sl.estimate("integrated_gradients", linear, images, torch.full((5,), 2), tolerance=1e-4, baseline="white")
    assert (found.passes == 9).all()
    torch.testing.assert_close(found.maps, (linear.weight[2].detach() * (images - 1)).sum(1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("tolerance", [0.1, 0.01, 0.001])
def test_the_completeness_error_is_at_most_the_tolerance(tolerance, relu_net, images):
    relu_net, images = relu_net.double().eval(), images.double()
    targets = torch.tensor([0, 1, 2, 3, 0])
    found = sl.estimate("integrated_gradients", relu_net, images, targets, tolerance=tolerance, steps=2000, baseline="blur")
    change = sl.completeness_error(relu_net, images, torch.zeros_like(images[:, 0]), targets, baseline="blur")
    error = sl.completeness_error(relu_net, images, found.maps, targets, baseline="blur") / change
    assert (error <= tolerance + 1e-12).all() and (error <= found.error + 1e-12).all()
    assert (found.passes < 2000).all()


def test_all_nodes_of_a_line_are_used_and_each_is_passed_once(relu_net, images):
    model = Counting(relu_net.double().eval())
    targets = torch.zeros(5, dtype=torch.long)
    found = sl.estimate("integrated_gradients", model, images.double(), targets, tolerance=1e-3, steps=2000)
    assert model.count == int(found.passes.sum()) + 1  # one image finds the number of classes
    assert len(found.passes.unique()) > 1


@pytest.mark.parametrize("name", ["integrated_gradients", "gnl_integrated_gradients", "active_integrated_gradients"])
def test_bisected_maps_are_those_of_many_fixed_nodes(name, smooth, images):
    smooth, images = smooth.double(), images.double()
    fixed = sl.METHODS[name](smooth, images, steps=400)
    for tolerance, most in ((1e-2, 0.1), (1e-4, 0.01)):
        found = sl.estimate(name, smooth, images, tolerance=tolerance, steps=2000)
        assert ((found.maps - fixed).flatten(1).norm(dim=1) < most * fixed.flatten(1).norm(dim=1)).all()


@pytest.mark.parametrize("name", ["integrated_gradients", "gnl_integrated_gradients"])
@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_the_nodes_of_an_image_do_not_depend_on_its_batch(name, batch_size, relu_net, images):
    relu_net, images = relu_net.double().eval(), images.double()
    options = dict(tolerance=0.01, steps=500, baseline="noise", seed=2)
    whole = sl.estimate(name, relu_net, images, **options)
    cut = sl.estimate(name, relu_net, images[[3, 1]], indices=[3, 1], batch_size=batch_size, **options)
    assert cut.passes.tolist() == whole.passes[[3, 1]].tolist()
    torch.testing.assert_close(cut.maps, whole.maps[[3, 1]], rtol=1e-9, atol=1e-9)


def test_an_image_equal_to_its_baseline_has_no_error(smooth):
    found = sl.estimate("integrated_gradients", smooth, torch.zeros(2, 3, 16, 16), tolerance=0.01, baseline="black")
    assert found.error.tolist() == [0, 0] and found.passes.tolist() == [9, 9] and found.maps.abs().max() == 0


def test_lines_end_at_the_most_nodes_with_a_warning(relu_net, images):
    with pytest.warns(UserWarning, match=r"5 of 5 images have an error of up to .* after 20 steps, above the tolerance of 1e-09"):
        found = sl.estimate("integrated_gradients", relu_net, images, tolerance=1e-9, steps=20)
    assert (found.passes == 20).all()
    with pytest.raises(ValueError, match="with a tolerance, steps must be at least 9, the nodes of the first round, got 8"):
        IG(relu_net, images, tolerance=0.1, steps=8)


def test_series_end_at_a_tolerance_too():
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.Softplus(), nn.Linear(6, 3)).double()
    found = sl.estimate("integrated_gradients", model, torch.rand(4, 6, 2, dtype=torch.float64), tolerance=0.01)
    assert found.maps.shape == (4, 6, 2) and (found.error <= 0.01).all()


def test_an_option_that_came_later_is_in_the_digest_only_if_it_is_given():
    def digest(method, **options):
        return sl.Explanation(sl.Training(), method=method, options=options).digest

    for method, options in (("rise", {"estimator": "centred"}), ("integrated_gradients", {"tolerance": 0.01})):
        assert sl.METHODS[method].added
        assert digest(method, **options) != digest(method)
        assert not set(sl.METHODS[method].added) & set(sl.Explanation(sl.Training(), method=method).implied()["options in full"])


def test_paired_noise_of_smoothgrad_cancels_where_the_gradient_is_linear():
    class Quadratic(nn.Module):
        def forward(self, inputs):
            return torch.stack([inputs.flatten(1).square().sum(1), inputs.flatten(1).sum(1)], 1)

    images = torch.rand(3, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    options = dict(samples=6, sigma=0.3, reduction="sum")
    paired = sl.METHODS["smoothgrad"](Quadratic(), images, 0, design="antithetic", **options)
    torch.testing.assert_close(paired, 2 * images[:, 0])  # the gradient at x + e is 2 (x + e)
    assert not torch.allclose(sl.METHODS["smoothgrad"](Quadratic(), images, 0, **options), 2 * images[:, 0])


def test_a_pair_of_noisy_copies_has_the_first_draw_and_its_opposite(images):
    rows = torch.zeros(2, dtype=torch.long)
    pair = gaussian_ball(images, 2, 0.2, 5, None, paired=True).at(rows, torch.arange(2))
    single = gaussian_ball(images, 1, 0.2, 5, None).at(rows[:1], rows[:1])
    torch.testing.assert_close(pair[0], single[0])
    torch.testing.assert_close(pair.mean(0), images[0])


@pytest.mark.parametrize("samples", [1, 2, 3, 8, 9])
def test_rows_of_lime_in_pairs_are_complements_after_the_first(samples):
    rows = perturbations(samples, 7, 3, 1, paired=True)
    assert rows.shape == (samples, 7) and rows[0].all()
    assert torch.equal(rows[2::2], ~rows[1::2][: len(rows[2::2])])
    assert torch.equal(rows[1::2], perturbations(samples, 7, 3, 1)[1::2])


def test_weights_of_paired_rows_are_nearer_to_those_of_very_many(relu_net, images):
    options = dict(segments=torch.arange(16).view(4, 4).repeat_interleave(4, 0).repeat_interleave(4, 1).expand(5, -1, -1))
    limit = sl.METHODS["lime"](relu_net, images, samples=5000, seed=99, score="logit", **options)

    def miss(design):
        maps = [sl.METHODS["lime"](relu_net, images, samples=200, seed=seed, design=design, score="logit", **options)
                for seed in range(20)]  # fmt: skip
        return (torch.stack(maps) - limit).square().mean()

    assert miss("antithetic") < miss("independent")
    with pytest.raises(ValueError, match="the backend 'lime' draws its own rows"):
        sl.METHODS["lime"](relu_net, images, design="antithetic", backend="lime", **options)
