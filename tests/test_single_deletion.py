"""Single deletion: by definition with SciPy, and by law; and the training that brings such images into the domain."""

import itertools

import pytest
import torch
from scipy import stats
from torch import nn

import saliency_lib as sl
from saliency_lib.evaluation.single_deletion import mean_ranks


def single_deletion(model, images, maps, targets=None, **options):
    return sl.METRICS["single_deletion"](model, images, maps, targets, **options)


@pytest.mark.parametrize("side", [4, 3])
def test_it_is_spearmans_correlation_of_sums_and_falls_over_the_patches(side, smooth, images):
    maps = torch.randn(5, 16, 16, generator=torch.Generator().manual_seed(3))
    targets = torch.tensor([0, 1, 2, 3, 0])
    found = single_deletion(smooth, images, maps, targets, side=side, fill=0.3, batch_size=7)
    edges = [n for n in range(17) if n == 0 or n * side // 16 != (n - 1) * side // 16]
    edges = edges if edges[-1] == 16 else [*edges, 16]
    assert len(edges) == side + 1
    with torch.no_grad():
        whole = smooth(images)
        for row, target in enumerate(targets.tolist()):
            sums, falls = [], []
            for top, bottom in itertools.pairwise(edges):
                for left, right in itertools.pairwise(edges):
                    lacking = images[row : row + 1].clone()
                    lacking[:, :, top:bottom, left:right] = 0.3
                    sums.append(float(maps[row, top:bottom, left:right].double().sum()))
                    falls.append(float(whole[row, target] - smooth(lacking)[0, target]))
            assert float(found.area[row]) == pytest.approx(stats.spearmanr(sums, falls).statistic, abs=1e-6)


def test_contributions_to_a_linear_model_are_ordered_as_its_falls(linear, images):
    shares = ((images - 0.5) * linear.weight[2].detach()).sum(1)
    for sign in (1, -1):
        assert single_deletion(linear, images, sign * shares, 2, fill=0.5).area.tolist() == pytest.approx([sign] * 5)
    assert single_deletion(linear, images, shares.flip(1), 2, fill=0.5).area.abs().max() < 0.95


def test_a_map_of_one_value_and_a_model_of_one_answer_have_no_correlation(linear, images):
    assert (single_deletion(linear, images, torch.full((5, 16, 16), 0.7)).area == 0).all()
    flat = nn.Sequential(nn.Flatten(), nn.Linear(768, 3))
    nn.init.zeros_(flat[1].weight)
    assert (single_deletion(flat, images, images.mean(1)).area == 0).all()


def test_equal_values_share_the_mean_of_their_ranks():
    values = torch.tensor([[3.0, 1.0, 3.0, 2.0, 3.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
    assert mean_ranks(values).tolist() == stats.rankdata(values.numpy(), axis=1).tolist()


# The objective and the recipe


class Watching(nn.Module):
    """A linear model that keeps what it saw."""

    def __init__(self, classes):
        super().__init__()
        self.linear, self.seen = nn.Linear(3 * 16 * 16, classes), []
        self.pixel_mean = torch.tensor([0.2, 0.4, 0.6])

    def forward(self, inputs):
        self.seen.append(inputs.detach().clone())
        return self.linear(inputs.flatten(1))


def test_half_of_the_images_lack_one_patch_each_and_the_rest_are_whole():
    model, images = Watching(4), 2 + torch.rand(400, 3, 16, 16)
    labels = torch.randint(4, (400,))
    torch.manual_seed(1)
    loss = sl.OBJECTIVES["patch_deletion"](model, images, labels)
    (seen,) = model.seen
    torch.testing.assert_close(loss, nn.functional.cross_entropy(model.linear(seen.flatten(1)), labels))
    gone = (seen != images).any(1)
    torch.testing.assert_close(seen.movedim(1, -1)[gone], model.pixel_mean.expand(int(gone.sum()), 3))
    counts = gone.unfold(1, 4, 4).unfold(2, 4, 4).sum((3, 4)).flatten(1)  # per patch
    lacking = counts.sum(1) > 0
    assert set(counts.unique().tolist()) == {0, 16} and (counts[lacking] == 16).sum(1).eq(1).all()
    assert 160 < int(lacking.sum()) < 240  # four standard deviations
    assert (counts[lacking].argmax(1).bincount(minlength=16) > 0).all()


@pytest.mark.parametrize(("share", "lacking"), [(0.0, 0), (1.0, 40)])
def test_the_share_and_the_grid_are_those_that_are_asked_for(share, lacking):
    model, images = Watching(3), 2 + torch.rand(40, 3, 16, 16)
    sl.OBJECTIVES["patch_deletion"](model, images, torch.zeros(40, dtype=torch.long), share=share, side=2, fill="black")
    gone = (model.seen[0] == 0).all(1).flatten(1).sum(1)
    assert int((gone > 0).sum()) == lacking and set(gone.tolist()) <= {0, 64}


def test_the_recipe_keeps_the_head_and_the_classes(outputs):
    begun = sl.Training(changes={"epochs": 1, "model_options": {"width": 2}, "images": 200})
    spec = sl.Training(
        "mnist5k", "cnn", "patch_deletion", start=begun, changes={"epochs": 1, "images": 100, "learning_rate": 1e-9}
    )
    before, after = (sl.train(one).model.state_dict() for one in (begun, spec))
    assert before.keys() == after.keys()
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match=r"keeps the head .* predict the classes of shapes; .*'patch_deletion:shapes'"):
        sl.Training("shapes", "efficientnet_lite0", "patch_deletion")
    assert sl.Training("cifar10", "cifar_resnet20", "patch_deletion").settings["objective"] == "patch_deletion"
