"""RISE, SIDU and LIME against their definitions, against laws, and against the packages that users compare with."""

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import pytorch_sidu
import skimage.transform
import torch
from conftest import Linear
from hypothesis import given, settings
from hypothesis import strategies as st
from lime import lime_image
from torch import nn

import saliency_lib as sl
from saliency_lib.attribution.lime import perturbations, proximity, ridge, signs_of_the_largest
from saliency_lib.attribution.masks import Masks, interpolation, mask_scores, masked_readings, weighted_sum
from saliency_lib.attribution.rise import random_grids
from saliency_lib.attribution.sidu import feature_masks
from saliency_lib.core.segments import mean_colours, numbered, superpixels
from saliency_lib.core.streams import seed_of

RISE, SIDU, GRIDS, LIME = (sl.METHODS[name] for name in ("rise", "sidu", "sidu_grids", "lime"))
ALL = torch.tensor([0])


class Constant(nn.Module):
    """The same logits (K,) for every image, after a layer that SIDU can read."""

    def __init__(self, *logits):
        super().__init__()
        self.layer = nn.Conv2d(3, 6, 3, padding=1)
        self.logits = torch.tensor(logits)

    def forward(self, inputs):
        self.layer(inputs)
        return self.logits.to(inputs).expand(len(inputs), -1)


class Watching(nn.Module):
    """Notes the size of every batch that a model sees; out of memory at the calls named."""

    def __init__(self, inner, fail_at=()):
        super().__init__()
        self.inner, self.seen, self.calls, self.fail_at = inner, [], 0, fail_at

    def forward(self, inputs):
        self.calls += 1
        if self.calls in self.fail_at and len(inputs) > 1:
            raise torch.OutOfMemoryError("no room")
        self.seen.append(len(inputs))
        return self.inner(inputs)


def enlarged(grid, height, width):
    """Enlarging as the released codes of RISE and SIDU do it."""
    return skimage.transform.resize(grid, (height, width), order=1, mode="reflect", anti_aliasing=False)


def blocks(images, side):
    """Squares of side x side pixels as segments (B, H, W)."""
    down, across = (torch.arange(images.shape[i]) // side for i in (2, 3))
    return (down[:, None] * (int(across.max()) + 1) + across).expand(len(images), -1, -1)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 9), st.integers(1, 40), st.integers(0, 99))
def test_enlarging_agrees_with_scikit_image_and_torch(small, large, seed):
    row = torch.rand(small, small, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    for edge, expected in {
        "mirror": torch.from_numpy(enlarged(row.numpy(), large, large)),
        "clamp": nn.functional.interpolate(row[None, None], (large, large), mode="bilinear")[0, 0],
        "corners": nn.functional.interpolate(row[None, None], (large, large), mode="bilinear", align_corners=True)[0, 0],
    }.items():
        weights = interpolation(small, large, edge, row)
        torch.testing.assert_close(weights.T @ row @ weights, expected)
        torch.testing.assert_close(weights.sum(0), torch.ones_like(weights[0]))


@pytest.mark.parametrize(("shape", "cells"), [((16, 16), 8), ((30, 21), 4), ((9, 40), 9), ((7, 5), 1)])
def test_rise_masks_are_grids_enlarged_by_scikit_image_and_cut_at_a_shift_within_one_cell(shape, cells):
    height, width = shape
    masks = random_grids(torch.zeros(1, 3, *shape, dtype=torch.float64), 40, cells, 0.5, seed=3).at(ALL, torch.arange(40))[0]
    tall, wide = -(-height // cells), -(-width // cells)
    basis = np.eye(cells * cells).reshape(-1, cells, cells)
    whole = np.stack([enlarged(one, (cells + 1) * tall, (cells + 1) * wide) for one in basis])
    shifts = [(top, left) for top in range(tall) for left in range(wide)]
    used = set()
    for mask in masks.numpy():
        for top, left in shifts:  # some grid of zeros and ones at some shift is the mask
            cut = whole[:, top : top + height, left : left + width].reshape(len(basis), -1).T
            grid = np.linalg.lstsq(cut, mask.ravel(), rcond=None)[0].round()
            if np.allclose(cut @ grid, mask.ravel(), atol=1e-9) and set(grid) <= {0, 1}:
                used.add((top, left))
                break
        else:
            pytest.fail("no grid and shift gives this mask")
    assert len(used) > len(shifts) / 4 or cells == 1


def test_rise_masks_do_not_depend_on_how_many_are_drawn_nor_on_the_dtype():
    images = torch.zeros(1, 3, 12, 20)
    few, many = (random_grids(images, count, 4, 0.3, seed=1) for count in (5, 50))
    numbers = torch.arange(5)
    assert torch.equal(few.at(ALL, numbers), many.at(ALL, numbers))
    assert torch.equal(few.at(ALL, numbers[2:4]), many.at(ALL, numbers)[:, 2:4])
    precise = random_grids(images.double(), 5, 4, 0.3, seed=1).at(ALL, numbers)
    torch.testing.assert_close(few.at(ALL, numbers).double(), precise, rtol=0, atol=1e-6)
    assert not torch.equal(few.at(ALL, numbers), random_grids(images, 5, 4, 0.3, seed=2).at(ALL, numbers))


@pytest.mark.parametrize("keep", [0.1, 0.5, 1.0])
def test_the_mean_mask_of_rise_is_the_share_that_is_kept(keep):
    masks = random_grids(torch.zeros(1, 1, 20, 14, dtype=torch.float64), 4000, 5, keep, seed=0).at(ALL, torch.arange(4000))[0]
    error = masks.std(0) / 4000**0.5
    assert masks.min() >= 0 and masks.max() <= 1 + 1e-12
    assert ((masks.mean(0) - keep).abs() <= 5 * error + 1e-12).all()


def test_the_expected_map_of_rise_for_a_linear_model_follows_from_the_masks_covariance():
    size, cells, keep, count = 8, 4, 0.3, 10_000
    weight = torch.randn(2, 1, size, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    image = torch.rand(1, 1, size, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    cell = size // cells
    long = (cells + 1) * cell
    # along one axis a mask is the grid times these columns, at each shift with the same chance
    line = np.stack([enlarged(np.tile(one, (cells, 1)), long, long)[0] for one in np.eye(cells)])
    overlap = torch.from_numpy(np.mean([line[:, i : i + size].T @ line[:, i : i + size] for i in range(cell)], axis=0))
    shares = (weight[1] * image[0])[0]
    expected = (keep**2 * shares.sum() + keep * (1 - keep) * overlap @ shares @ overlap) / keep
    options = dict(masks=count, cells=cells, keep=keep, fill="black", score="logit")
    found = RISE(Linear(weight), image, torch.tensor([1]), **options)[0]
    masks = random_grids(image, count, cells, keep, seed=0).at(ALL, torch.arange(count))[0]
    error = ((masks * shares).sum((1, 2))[:, None, None] * masks / keep).std(0) / count**0.5
    assert ((found - expected).abs() < 5 * error).all()
    assert (found.std() > 10 * error.mean()).all()  # the errors are small beside what they are errors of


def test_rise_of_a_constant_model_is_its_score_times_the_mean_mask_over_keep(images):
    masks = random_grids(images, 30, 4, 0.4, seed=0).at(ALL, torch.arange(30))[0]
    maps = RISE(Constant(0.0, 1.0), images, torch.tensor([0, 1, 0, 1, 0]), masks=30, cells=4, keep=0.4)
    score = torch.tensor([0.0, 1.0]).softmax(0)[[0, 1, 0, 1, 0]]
    torch.testing.assert_close(maps, score[:, None, None] * masks.mean(0) / 0.4)


def test_rise_agrees_with_its_definition_in_one_piece(smooth, images):
    masks = random_grids(images, 20, 8, 0.5, seed=7).at(ALL, torch.arange(20))[0]
    with torch.no_grad():
        scores = torch.stack([smooth(image * masks[:, None]).softmax(1)[:, 2] for image in images])
    expected = torch.einsum("bm,mhw->bhw", scores, masks) / (20 * 0.5)
    torch.testing.assert_close(RISE(smooth, images, torch.full((5,), 2), masks=20, seed=7), expected)


def test_the_benchmarks_rise_keeps_what_a_normal_draw_below_its_keep_would_and_fills_with_black(smooth, images):
    released = RISE(smooth, images, masks=20, variant="saliency_benchmark")
    torch.testing.assert_close(released.amin((1, 2)), torch.zeros(5))
    torch.testing.assert_close(released.amax((1, 2)), torch.ones(5))
    share = 0.539828  # of a normal distribution below 0.1
    grids = random_grids(images, 20, 7, share, edge="clamp")
    scores = mask_scores(smooth, images, smooth(images).argmax(1), grids, fill="black", score="softmax_twice")
    plain = weighted_sum(grids, scores, images)
    low, high = plain.amin((1, 2), keepdim=True), plain.amax((1, 2), keepdim=True)
    torch.testing.assert_close(released, (plain - low) / (high - low))
    drawn = torch.randn(20_000, generator=torch.Generator().manual_seed(0)) < 0.1
    assert abs(drawn.float().mean() - share) < 5 * (share * (1 - share) / 20_000) ** 0.5
    assert RISE(Constant(0.0, 0.0), images, masks=3, cells=1, variant="saliency_benchmark").abs().max() == 0


def test_the_score_of_the_released_benchmark_is_the_softmax_of_the_softmax(images):
    whole = Masks(1, lambda rows, numbers: images.new_ones(1, 1, 16, 16))
    options = dict(score="softmax_twice")
    scores = mask_scores(Constant(0.0, 800.0), images, torch.tensor([0, 1, 1, 0, 1]), whole, **options)
    low, high = 1 / (1 + np.e), np.e / (1 + np.e)  # of the probabilities 0 and 1
    torch.testing.assert_close(scores[:, 0], torch.tensor([low, high, high, low, high], dtype=torch.float32))


def test_masked_readings_give_what_the_reader_sees_and_whose_copy_it_is(images):
    values = torch.rand(5, 7, 16, 16)
    masks = Masks(7, lambda rows, numbers: values[rows[:, None], numbers])
    seen = masked_readings(
        nn.Identity(),
        images,
        masks,
        lambda copies, rows: torch.cat([copies.mean((2, 3)), rows[:, None]], 1),
        fill="white",
        batch_size=3,
    )
    expected = (values[:, :, None] * images[:, None] + 1 - values[:, :, None]).mean((3, 4))
    torch.testing.assert_close(seen[..., :3], expected)
    assert torch.equal(seen[..., 3], torch.arange(5.0)[:, None].expand(5, 7))


def sidu_by_definition(model, image, target, features, *, sigma=0.25, threshold=0.1):
    """SIDU of one image as its released code has it: every map enlarged, every prediction kept, in double precision."""
    with torch.no_grad():
        masks = np.stack([enlarged((one > threshold).numpy().astype(float), *image.shape[1:]) for one in features])
        predict = lambda pixels: model(pixels).softmax(1).double().numpy()  # noqa: E731
        before, after = predict(image[None])[0], predict(image * torch.from_numpy(masks)[:, None].to(image))
    unlike = np.linalg.norm(after[:, None] - after[None], axis=2).sum(1)
    unlike = (unlike - unlike.min()) / (unlike.max() - unlike.min() + 1e-13)
    weights = np.sqrt(np.exp(-(abs(before - after) ** 2) / sigma**2)) * unlike[:, None]
    return np.einsum("n,nhw->hw", weights[:, target], masks) / len(masks) / 0.5


def test_sidu_agrees_with_its_definition(relu_net, images):
    relu_net, images = relu_net.double().eval(), images.double()
    maps = SIDU(relu_net, images, torch.tensor([0, 1, 2, 3, 0]), layer="5")
    with torch.no_grad():
        features = relu_net[:6](images)
    for row, target in enumerate([0, 1, 2, 3, 0]):
        expected = sidu_by_definition(relu_net, images[row], target, features[row])
        np.testing.assert_allclose(maps[row].numpy(), expected, rtol=1e-9, atol=1e-12)
    assert maps.std() > 0.01


def test_equal_feature_maps_cost_one_forward_pass_and_count_as_often_as_they_occur(relu_net, images):
    relu_net, images = relu_net.double().eval(), images[:1].double()
    with torch.no_grad():
        relu_net[4].weight[1::2] = relu_net[4].weight[::2]
        relu_net[4].bias[1::2] = relu_net[4].bias[::2]
        features = relu_net[:6](images)[0]
    model = Watching(relu_net)
    found = SIDU(model, images, torch.tensor([1]), layer=relu_net[5])
    different = len({one.tobytes() for one in (features > 0.1).numpy()})
    assert 1 < different <= 6
    assert sum(model.seen) == 1 + different  # the image and each mask once
    np.testing.assert_allclose(found[0], sidu_by_definition(relu_net, images[0], 1, features), rtol=1e-9, atol=1e-12)
    masks, times = feature_masks(features, images, 0.1)
    assert masks.count == different and times.sum() == 12


@pytest.mark.parametrize("method", ["sidu", "sidu_grids"])
def test_sidu_of_a_constant_model_is_nothing(method, images):
    maps = sl.METHODS[method](Constant(0.3, 1.0), images)
    assert torch.equal(maps, torch.zeros_like(maps))


def test_two_masks_with_equal_predictions_have_equal_weights_and_others_have_not(images):
    from saliency_lib.attribution.sidu import prediction_weights

    class Corner(nn.Module):
        def forward(self, inputs):
            return torch.stack([3 * inputs[:, 0, 0, 0], inputs[:, 0, 0, 0] * 0], 1)

    image = images[:1].double()
    image[0, 0, 0, 0] = 1.0
    stack = torch.rand(7, 16, 16, dtype=torch.float64)
    stack[:, 0, 0] = corner = torch.tensor([0.1, 0.25, 0.5, 0.6, 0.25, 0.9, 1.0])  # the model sees nothing else
    masks = Masks(7, lambda rows, numbers: stack[numbers][None])
    whole, times = Corner()(image)[0], torch.ones(7, dtype=torch.float64)
    black = torch.zeros_like(image)
    weights = prediction_weights(Corner(), image, torch.tensor(0), whole, masks, times, 0.25, substrate=black)[0]
    # of an even number of predictions on a line, the two middle ones would be equally unique; of seven only one is least
    predicted = (3 * corner.double()).sigmoid()
    unlike = 2**0.5 * (predicted[:, None] - predicted).abs().sum(1)
    unlike = (unlike - unlike.min()) / (unlike.max() - unlike.min())
    expected = torch.exp(-(predicted - predicted[-1]).square() / (2 * 0.25**2)) * unlike
    torch.testing.assert_close(weights, expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(weights[1], weights[4], rtol=1e-12, atol=0)
    assert weights.sort().values.diff().gt(1e-6).sum() == 5
    assert weights.min() == 0 and weights.max() <= 1


@pytest.mark.parametrize("variant", ["original", "pytorch_sidu"])
def test_a_permutation_of_the_feature_maps_leaves_sidu_as_it_is(variant, relu_net, images):
    relu_net.eval()
    before = SIDU(relu_net, images, layer="5", variant=variant)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        relu_net[4].weight.copy_(relu_net[4].weight[order])
        relu_net[4].bias.copy_(relu_net[4].bias[order])
        relu_net[9].weight.copy_(relu_net[9].weight.view(4, 12, 4)[:, order].flatten(1))
    torch.testing.assert_close(SIDU(relu_net, images, layer="5", variant=variant), before)
    assert before.std() > 1e-3


def test_the_variant_pytorch_sidu_is_that_package_and_sees_no_class(relu_net, images):
    relu_net.eval()
    theirs = pytorch_sidu.sidu(relu_net, "5", images)
    ours = SIDU(relu_net, images, layer="5", variant="pytorch_sidu")
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    assert ours.std() > 1e-3
    for target in range(4):
        assert torch.equal(SIDU(relu_net, images, torch.full((5,), target), layer="5", variant="pytorch_sidu"), ours)
    assert not torch.equal(
        SIDU(relu_net, images, torch.zeros(5).long(), layer="5"), SIDU(relu_net, images, torch.ones(5).long(), layer="5")
    )


@pytest.mark.parametrize("variant", ["original", "pytorch_sidu"])
@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_sidu_of_many_different_masks_does_not_depend_on_the_batch_nor_on_company(variant, batch_size, relu_net, images):
    relu_net, images = relu_net.double(), images.double()
    options = dict(layer="5", variant=variant, fill="noise", seed=2)
    whole = SIDU(relu_net, images, **options)
    cut = SIDU(relu_net, images[[3, 1]], indices=[3, 1], batch_size=batch_size, **options)
    torch.testing.assert_close(cut, whole[[3, 1]], rtol=0, atol=1e-9 * float(whole.max()))
    assert not torch.equal(whole, SIDU(relu_net, images, layer="5", variant=variant, fill="noise", seed=3))


def test_sidu_grids_weigh_rises_masks_as_sidu_does(smooth, images):
    smooth, images = smooth.double(), images.double()
    masks = random_grids(images, 15, 4, 0.3, seed=5).at(ALL, torch.arange(15))[0].numpy()
    maps = GRIDS(smooth, images, torch.full((5,), 3), masks=15, cells=4, keep=0.3, seed=5)
    with torch.no_grad():
        for image, found in zip(images, maps, strict=True):
            after = smooth(image * torch.from_numpy(masks)[:, None]).softmax(1).numpy()
            unlike = np.linalg.norm(after[:, None] - after[None], axis=2).sum(1)
            unlike = (unlike - unlike.min()) / (unlike.max() - unlike.min())
            change = after[:, 3] - smooth(image[None]).softmax(1)[0, 3].item()
            expected = np.einsum("n,nhw->hw", np.exp(-(change**2) / 0.125) * unlike, masks) / (15 * 0.3)
            np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-10)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 12), st.integers(1, 40), st.integers(0, 99))
def test_the_regression_is_scikit_learns(parts, samples, seed):
    from sklearn.linear_model import Ridge

    rows = perturbations(samples, parts, seed, 0).double()
    values = torch.rand(samples, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    expected = Ridge(alpha=1).fit(rows, values, sample_weight=proximity(rows)).coef_
    np.testing.assert_allclose(ridge(rows, values, proximity(rows)), expected, rtol=1e-7, atol=1e-10)


def test_lime_is_the_packages_explanation_of_the_same_rows(relu_net, images):
    relu_net, images = relu_net.double().eval(), images.double()
    segments, target, samples = blocks(images, 4), torch.tensor([2, 0, 1, 3, 2]), 60
    ours = LIME(relu_net, images, target, segments=segments, samples=samples, seed=4)

    def classify(copies):
        with torch.no_grad():
            return relu_net(torch.as_tensor(copies).permute(0, 3, 1, 2)).softmax(1).numpy()

    for row in range(5):
        explainer = lime_image.LimeImageExplainer(random_state=0)
        rows = perturbations(samples, 16, 4, row).numpy().astype(int)
        explainer.random_state = SimpleNamespace(randint=lambda low, high, size, rows=rows: rows.ravel())  # it draws our rows
        found = explainer.explain_instance(
            images[row].permute(1, 2, 0).numpy(),
            classify,
            labels=(int(target[row]),),
            top_labels=None,
            num_samples=samples,
            segmentation_fn=lambda picture, row=row: segments[row].numpy(),
            random_seed=0,
        )
        weights = dict(found.local_exp[int(target[row])])
        expected = np.vectorize(weights.get)(segments[row].numpy())
        np.testing.assert_allclose(ours[row], expected, rtol=1e-7, atol=1e-10)
        # the benchmark's picture: the signs of the 15 largest
        mask = found.get_image_and_mask(int(target[row]), positive_only=False, num_features=15)[1]
        coefficients = torch.tensor([[weights[part] for part in range(16)]])
        assert torch.equal(signs_of_the_largest(coefficients)[0, segments[row]].long(), torch.from_numpy(mask))


def test_the_backend_lime_is_the_package_with_its_own_rows(relu_net, images, capfd):
    relu_net, images = relu_net.double().eval(), images[:2].double()
    segments, target = blocks(images, 4), torch.tensor([2, 0])
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    options = dict(segments=segments, samples=60, indices=[5, 9])
    found = LIME(relu_net, images, target, backend="lime", **options)
    assert (np.random.get_state()[1] == state).all()  # noqa: NPY002
    assert capfd.readouterr() == ("", "")

    def classify(copies):
        with torch.no_grad():
            return relu_net(torch.as_tensor(copies).permute(0, 3, 1, 2)).softmax(1).numpy()

    explainer = lime_image.LimeImageExplainer(random_state=seed_of("lime", 0, 9))
    theirs = explainer.explain_instance(
        images[1].permute(1, 2, 0).numpy(),
        classify,
        labels=(0,),
        top_labels=None,
        num_samples=60,
        segmentation_fn=lambda picture: segments[1].numpy(),
    )
    capfd.readouterr()
    expected = np.vectorize(dict(theirs.local_exp[0]).get)(segments[1].numpy())
    np.testing.assert_allclose(found[1], expected, rtol=1e-7, atol=1e-10)
    many = dict(segments=segments, samples=3000)
    one, other = (LIME(relu_net, images, target, backend=backend, **many) for backend in ("torch", "lime"))
    assert (one - other).abs().max() < 0.1 * one.abs().max()  # other rows, the same limit
    again = LIME(relu_net, images[1:], target[1:], backend="lime", segments=segments[1:], samples=60, indices=[9], batch_size=7)
    torch.testing.assert_close(again[0], found[1])


def test_lime_recovers_a_model_linear_in_the_segments_up_to_shrinkage(images):
    images, segments = images[:2].double(), blocks(images[:2], 4)
    coefficients = torch.randn(16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weight = (coefficients[segments[0]] / 16)[None, None].expand(2, 3, -1, -1) / 3  # mean over a segment's 16 pixels
    white = torch.ones_like(images)
    options = dict(segments=segments, fill="black", score="logit")
    few, many = (LIME(Linear(weight), white, torch.tensor([0, 1]), samples=n, **options) for n in (500, 20_000))
    truth = coefficients[segments]
    assert (many - truth).abs().max() < 0.01 * truth.abs().max()
    assert (many - truth).abs().mean() < (few - truth).abs().mean() / 5  # the shrinkage 1 against ever more rows


def test_proximity_is_lime_s_kernel_of_the_cosine_distance():
    from sklearn.metrics import pairwise_distances

    rows = torch.tensor([[1, 1, 1, 1], [1, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]]).double()
    distance = pairwise_distances(rows, rows[:1], metric="cosine").ravel()
    np.testing.assert_allclose(proximity(rows), np.sqrt(np.exp(-(distance**2) / 0.25**2)), rtol=1e-12)
    assert proximity(rows)[0] == 1


def test_superpixels_are_lime_s_own_segments():
    images = torch.from_numpy(skimage.transform.resize(skimage.data.astronaut(), (48, 40))).permute(2, 0, 1)[None]
    taken = []

    def classify(copies):
        return np.tile([0.5, 0.5], (len(copies), 1))

    explainer = lime_image.LimeImageExplainer(random_state=0)
    found = explainer.explain_instance(images[0].permute(1, 2, 0).numpy(), classify, num_samples=2, random_seed=3)
    taken = superpixels(images, seed=3)
    assert (taken[0].numpy() == found.segments).all()
    assert len(taken.unique()) > 3
    assert torch.equal(superpixels(images.mean(1, keepdim=True)), superpixels(images.mean(1, keepdim=True).expand(-1, 3, -1, -1)))
    with pytest.raises(ValueError, match="need images of 1 or 3 channels, got 4; pass segments='grid'"):
        superpixels(torch.rand(1, 4, 8, 8))


@pytest.mark.parametrize("size", [28, 63, 64])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_below_64_pixels_have_tens_of_segments_and_larger_ones_those_of_quickshift(size, channels):
    images = sl.DATASETS["shapes"](stop=4, size=size).images[:, :channels]
    segments = numbered(images, None, 0)
    if size == 64:
        assert torch.equal(segments, numbered(images, "quickshift", 0))
    else:
        assert torch.equal(segments, numbered(images, "slic", 0))
        assert all(25 <= len(one.unique()) <= 60 for one in segments)


def test_digits_have_tens_of_segments_and_lime_gives_each_its_weight():
    digits = sl.DATASETS["mnist5k"](stop=20).images
    assert all(25 <= int(one.max()) + 1 <= 60 for one in numbered(digits, None, 0))
    assert all(int(one.max()) < 5 for one in numbered(digits, "quickshift", 0))
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 3))
    assert all(len(one.unique()) > 20 for one in LIME(model, digits[:3], samples=100, score="logit"))


def test_the_variant_of_the_benchmark_has_quickshift_whatever_the_size(smooth, images):
    options = dict(variant="saliency_benchmark", samples=30)
    assert torch.equal(LIME(smooth, images, **options), LIME(smooth, images, segments="quickshift", **options))
    assert not torch.equal(LIME(smooth, images, **options), LIME(smooth, images, segments="slic", **options))


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_a_grid_has_seven_by_seven_segments_for_any_channels(channels):
    segments = numbered(torch.rand(2, channels, 14, 21), "grid", 0)
    assert torch.equal(segments[0], segments[1])
    assert torch.equal(segments[0], (7 * (torch.arange(14)[:, None] // 2) + torch.arange(21) // 3))
    assert numbered(torch.rand(1, channels, 3, 5), "grid", 0).unique().tolist() == list(range(15))


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 3), (5, 40)])
@pytest.mark.parametrize("name", ["quickshift", "slic", "grid"])
def test_tiny_and_black_images_have_segments(name, size):
    for images in (torch.zeros(1, 1, *size), torch.rand(1, 3, *size)):
        assert numbered(images, name, 0).shape == (1, *size)


def test_segments_may_be_a_function_and_are_numbered_in_each_image(smooth, images):
    odd = blocks(images, 8) * 7 - 3
    assert numbered(images, odd, 0).unique().tolist() == [0, 1, 2, 3]
    by_function = LIME(smooth, images, segments=lambda image: blocks(image[None], 8)[0].numpy(), samples=20)
    torch.testing.assert_close(by_function, LIME(smooth, images, segments=odd, samples=20))
    colours = mean_colours(images, numbered(images, odd, 0))
    torch.testing.assert_close(colours[2, :, 0, 0], images[2, :, :8, :8].mean((1, 2)))
    assert torch.equal(colours[2, :, 0, 0], colours[2, :, 7, 7])


def test_an_image_has_the_same_lime_among_images_with_more_segments(smooth, images):
    smooth, images = smooth.double(), images.double()
    segments = torch.stack([blocks(images[:1], side)[0] for side in (16, 8, 4, 2, 8)])
    whole = LIME(smooth, images, segments=segments, samples=30)
    alone = torch.cat([LIME(smooth, images[[i]], segments=segments[[i]], samples=30, indices=[i]) for i in range(5)])
    torch.testing.assert_close(alone, whole, rtol=0, atol=1e-12)
    assert all(len(one.unique()) == n for one, n in zip(whole, (1, 4, 16, 64, 4), strict=True))


@pytest.mark.parametrize("backend", ["torch", "lime"])
def test_lime_of_the_benchmark_is_signs_and_grey_or_undivided_images_work(backend, relu_net, images):
    ternary = LIME(relu_net, images[:2], variant="saliency_benchmark", segments=blocks(images[:2], 2), backend=backend)
    for one in ternary:
        assert set(one.unique().tolist()) <= {-1, 0, 1}
        assert (one != 0).sum() == 15 * 4  # of 64 segments of 4 pixels
    grey = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    maps = LIME(grey, images[:2, :1], samples=20, backend=backend)
    assert maps.shape == (2, 16, 16) and torch.isfinite(maps).all()
    undivided = LIME(relu_net, images[:2], segments=torch.zeros(2, 16, 16).int(), samples=20, backend=backend)
    assert torch.isfinite(undivided).all() and len(undivided[0].unique()) == 1


@pytest.mark.parametrize(
    ("name", "options"),
    [("rise", {"masks": 200}), ("sidu_grids", {"masks": 200}), ("lime", {"samples": 200}), ("sidu", {"layer": "0"})],
)
def test_no_more_copies_are_made_at_a_time_than_the_batch_size(name, options, relu_net, images, monkeypatch):
    held = []
    made = Masks.__init__

    def noting(self, count, at):
        made(self, count, lambda rows, numbers: held.append(masks := at(rows, numbers)) or masks)

    def largest():
        return max(masks.shape[0] * masks.shape[1] for masks in held)

    monkeypatch.setattr(Masks, "__init__", noting)
    model = Watching(relu_net)
    if name == "sidu":
        options = {"layer": relu_net[0]}
    sl.METHODS[name](model, images, batch_size=6, **options)
    assert max(model.seen) <= 6 and largest() <= 6
    assert sum(model.seen) >= 8


@pytest.mark.parametrize("name", ["rise", "sidu", "sidu_grids", "lime"])
@pytest.mark.parametrize("fail_at", [(2, 3), (5,), (4, 6, 7)])
def test_memory_that_runs_out_in_the_middle_changes_nothing(name, fail_at, relu_net, images):
    relu_net, images = relu_net.double(), images.double()
    options = {"rise": {"masks": 50}, "sidu_grids": {"masks": 50}, "lime": {"samples": 50}, "sidu": {"layer": relu_net[5]}}[name]
    whole = sl.METHODS[name](Watching(relu_net), images, batch_size=4, **options)
    hit = sl.METHODS[name](Watching(relu_net, fail_at), images, batch_size=4, **options)
    torch.testing.assert_close(hit, whole, rtol=0, atol=1e-9 * float(whole.abs().max()))


@pytest.mark.parametrize("name", ["rise", "sidu", "sidu_grids", "lime"])
def test_one_class_and_one_channel_give_finite_maps(name):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 1))
    maps = sl.METHODS[name](model, torch.rand(2, 1, 11, 17))
    assert maps.shape == (2, 11, 17) and torch.isfinite(maps).all()
    if name.startswith("sidu"):
        assert maps.min() >= 0 and maps.max() > 0  # a lone output takes the place of the probability


def test_one_pixel_is_explained_or_refused_with_a_way_out(linear):
    model, pixel = Linear(torch.randn(2, 3, 1, 1)), torch.rand(1, 3, 1, 1)
    with pytest.raises(ValueError, match="cells must be from 1 to 1 for images of 1x1, got 8"):
        RISE(model, pixel, cells=8)
    assert torch.isfinite(RISE(model, pixel, cells=1, masks=10)).all()
    torch.testing.assert_close(RISE(model, pixel, masks=10), RISE(model, pixel, cells=1, masks=10))  # a text of one token
    assert torch.isfinite(LIME(model, pixel, samples=10)).all()
    with pytest.raises(ValueError, match="no layer of this model has features at positions"):
        SIDU(model, pixel)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("rise", {"cells": 17}, "cells must be from 1 to 16 for images of 16x16, got 17"),
        ("rise", {"cells": 0}, "cells of .* must be a whole number of at least 1, got 0"),
        ("rise", {"masks": 0}, "masks of .* must be a whole number from 1 to .*, got 0"),
        ("rise", {"keep": 0.0}, "keep of rise must be a number above 0 and at most 1, got 0.0"),
        ("rise", {"keep": 1.5, "variant": "saliency_benchmark"}, "at most 1, got 1.5"),
        ("rise", {"variant": "paper"}, "variant of rise 'paper' is not known; one of: original, saliency_benchmark"),
        ("rise", {"fill": "gray"}, "fill of .* 'gray' is not known; did you mean 'grey'"),
        ("rise", {"score": "loss"}, "score of .* 'loss' is not known"),
        ("sidu", {"variant": "pytorch-sidu"}, "did you mean 'pytorch_sidu'"),
        ("sidu", {"layer": "conv1"}, "layer with features at positions 'conv1' is not known"),
        ("sidu", {"sigma": 0}, "sigma of .* must be a number above 0, got 0"),
        ("sidu_grids", {"masks": -1}, "masks of .* must be a whole number from 1 to .*, got -1"),
        ("sidu_grids", {"sigma": -1.0}, "sigma of .* must be a number above 0, got -1.0"),
        ("lime", {"samples": 0}, "samples of .* must be a whole number from 1 to .*, got 0"),
        ("lime", {"variant": "signs"}, "variant of lime 'signs' is not known; one of: saliency_benchmark, weights"),
        ("lime", {"backend": "captum"}, "backend of lime 'captum' is not known; one of: lime, torch"),
        ("lime", {"score": "loss", "backend": "lime"}, "score of .* 'loss' is not known"),
        ("lime", {"segments": torch.zeros(5, 16, 15).int()}, r"of shape \(5, 16, 16\), got \(5, 16, 15\) of torch.int32"),
        ("lime", {"segments": torch.zeros(5, 16, 16)}, r"whole numbers of shape \(5, 16, 16\), got .* of torch.float32"),
        ("lime", {"segments": lambda image: torch.zeros(3, 3).int()}, r"got \(5, 3, 3\) of torch.int32"),
        ("lime", {"segments": "slick"}, "segments of .* 'slick' is not known; did you mean 'slic'"),
        ("lime", {"segments": 7}, "segments of lime must be .* got 7"),
    ],
)
def test_bad_options_of_mask_methods_are_refused(name, options, message, smooth, images):
    with pytest.raises(ValueError, match=message):
        sl.METHODS[name](smooth, images, **options)


def test_sidu_refuses_a_layer_without_positions(images):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(784, 3))
    with pytest.raises(ValueError, match=r"the layer's output must be features at positions, .*got \(5, 3\)"):
        SIDU(model, images, layer=model[2])


PEAK = """
import torch, saliency_lib as sl
torch.manual_seed(0)
torch.set_num_threads(1)
model = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 10))
image = torch.rand(1, 3, 96, 96)
def peak(masks):  # of this process; ru_maxrss would begin with that of its parent
    sl.METHODS["rise"](model, image, masks=masks)
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
few = peak(500)
print(peak(8000) / few)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_masks():
    assert float(subprocess.check_output([sys.executable, "-c", PEAK])) < 1.1
