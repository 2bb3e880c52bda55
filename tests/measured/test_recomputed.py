"""Numbers of data/measured/ computed once more by other code: the definitions in numpy and torch, without our kernels.

It takes ten minutes and more per network, and needs the data that are never committed: `pytest -m measured tests/measured`.
"""

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

import saliency_lib as sl
from saliency_lib import paths
from saliency_lib.artefacts import tables

pytestmark = [
    pytest.mark.measured,
    pytest.mark.skipif(
        not all((paths.DATA / name).is_dir() for name in ("cifar10", "imagenet_samples")),
        reason="needs data (see data/README.md)",
    ),
]
USUAL = (0.485, 0.456, 0.406)  # ImageNet's mean colour
MEANS = {"squeezenet1_0_compressed": np.divide((123, 117, 104), 255)}  # of the networks that are normalised otherwise
MEANS |= {f"efficientnet_lite{number}": np.full(3, 127 / 255) for number in range(3)}
AT_ONCE = 250 * 32**2  # pixels
TIES = 0.003  # what another order of tied pixels, and other roundings, may change


def networks_of(table):
    files = sorted((paths.ROOT / "data" / "measured").glob(f"*_{table}.csv"))
    names = [file.stem.removesuffix(f"_{table}") for file in files]
    return [name for name in names if name in sl.MODELS]


def row(name, method):
    found = tables.measured(name)[0]
    return found[found["method"] == method].iloc[0]


def guide(unit, inputs, output):
    """Let only positive gradients pass a ReLU or a max-pool."""
    if output.requires_grad:
        output.register_hook(lambda gradients: gradients.clamp(min=0))


class Question:
    """A network with published weights and images, and what it predicts for them."""

    def __init__(self, name, images):
        entry = sl.MODELS[name]
        self.model = entry(entry.known, 3, pretrained=True).eval()
        self.mean = np.array(MEANS.get(name, USUAL), np.float32)[:, None, None]
        self.images = images
        self.parts = max(1, images[:, 0].size // AT_ONCE)
        self.classes = self.logits(images).argmax(1)

    @classmethod
    def of(cls, name, origin):
        """The question that a measured table answers, from what its JSON file says."""
        asked = origin["parameters"]
        training = sl.Training(asked["dataset"], name)
        chosen = {"stop": asked["images"] * asked.get("stride", 1), "stride": asked.get("stride", 1)}
        return cls(name, sl.images_of(sl.Explanation(training, "random", **chosen)).images.numpy())

    def logits(self, pictures):
        with torch.inference_mode():
            return np.concatenate([self.model(torch.from_numpy(part)).numpy() for part in np.array_split(pictures, self.parts)])

    def probabilities(self, pictures):
        logits = self.logits(pictures).astype(np.float64)
        shares = np.exp(logits - logits.max(1, keepdims=True))
        return (shares / shares.sum(1, keepdims=True))[np.arange(len(pictures)), self.classes[: len(pictures)]]

    def slopes(self, pictures, classes):
        inputs = torch.from_numpy(pictures).requires_grad_()
        self.model(inputs)[torch.arange(len(inputs)), torch.from_numpy(classes)].sum().backward()
        return inputs.grad.numpy()

    def path_maps(self, nodes):
        """Integrated gradients from the mean colour with Gauss-Legendre nodes, summed over the channels."""
        places, weights = np.polynomial.legendre.leggauss(nodes)
        start, maps = self.mean, []
        parts = zip(np.array_split(self.images, self.parts), np.array_split(self.classes, self.parts), strict=True)
        for part, classes in parts:
            way = part - start
            points = [(start + (1 + place) / 2 * way).astype(np.float32) for place in places]
            maps.append(sum(w / 2 * self.slopes(point, classes) for w, point in zip(weights, points, strict=True)) * way)
        return np.concatenate(maps).sum(1)

    def area(self, maps, first, last, steps):
        """Area of the class's probability while `last` replaces the pixels of `first`, the largest of the map before others."""
        order = np.argsort(-maps.reshape(len(maps), -1), axis=1, kind="stable")
        pixels = order.shape[1]
        counts = [*range(0, pixels, -(-pixels // steps)), pixels]
        current, values = first.reshape(*first.shape[:2], -1).copy(), []
        final = last.reshape(current.shape)
        rows = np.arange(len(maps))[:, None]
        for before, count in zip([0, *counts[:-1]], counts, strict=True):
            changed = order[:, before:count]
            current[rows, :, changed] = final[rows, :, changed]
            values.append(self.probabilities(current.reshape(first.shape)))
        return float(np.trapezoid(np.array(values), np.array(counts) / pixels, axis=0).mean())


def blurred(images, mean):
    """The Gaussian blur of RISE: 11 pixels, sigma 5, with the mean colour outside."""
    point = np.zeros((11, 11))
    point[5, 5] = 1
    kernel = ndimage.gaussian_filter(point, 5)
    centred = images - mean
    soft = np.stack([[ndimage.correlate(channel, kernel, mode="constant") for channel in one] for one in centred])
    return (soft + mean).astype(np.float32)


@pytest.mark.parametrize("network", networks_of("guided_nonlinearity_areas"))
def test_areas_of_guided_nonlinearity(network):
    table = f"{network}_guided_nonlinearity_areas"
    plain, guided = row(table, "integrated_gradients"), row(table, "gnl_integrated_gradients")
    origin = tables.measured(table)[1]
    asked, steps = Question.of(network, origin), origin["parameters"]["steps"]
    nothing, soft = np.broadcast_to(asked.mean, asked.images.shape), blurred(asked.images, asked.mean)
    assert len(asked.images) == plain["images"]
    maps = asked.path_maps(20)
    assert asked.area(abs(maps), asked.images, nothing, steps) == pytest.approx(plain["deletion_absolute"], abs=TIES)
    assert asked.area(maps, asked.images, nothing, steps) == pytest.approx(plain["deletion_signed"], abs=TIES)
    assert asked.area(maps, soft, asked.images, steps) == pytest.approx(plain["insertion_signed"], abs=TIES)
    for unit in asked.model.modules():
        if isinstance(unit, nn.ReLU | nn.ReLU6 | nn.MaxPool2d):
            unit.register_forward_hook(guide)
    maps = asked.path_maps(20)
    assert asked.area(abs(maps), asked.images, nothing, steps) == pytest.approx(guided["deletion_absolute"], abs=TIES)


@pytest.mark.parametrize("network", networks_of("active_gradients_black"))
@pytest.mark.parametrize("fill", ["black", "white"])
def test_areas_of_active_gradients(network, fill):
    table, column = f"{network}_active_gradients_{fill}", f"allegiance_{fill}"
    asked = Question.of(network, tables.measured(table)[1])
    every = np.stack([asked.slopes(asked.images, np.full(len(asked.images), number)) for number in range(10)])
    own = every[asked.classes, np.arange(len(asked.images))]
    others = np.where(np.arange(10)[:, None] == asked.classes, np.nan, 0)[..., None, None, None] + every
    if fill == "black":
        signed, only = np.maximum(own, 0), own > np.nanmax(others, 0)
        names = ("gradient", "positive_gradient", "active_gradient")
    else:
        signed, only = np.maximum(-own, 0), own < np.nanmin(others, 0)
        names = ("gradient", "negative_gradient", "inactive_gradient")
    shares = (0, 0.03, 0.05, 0.07, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    for name, maps in zip(names, (abs(own), signed, np.where(only, abs(own), 0)), strict=True):
        flat, values = maps.max(1).reshape(len(maps), -1), []
        ordered = -np.sort(-flat, axis=1)
        for share in shares:
            changed = flat > ordered[:, round(share * flat.shape[1])][:, None]
            pictures = np.where(changed.reshape(-1, 1, 32, 32), np.float32(fill == "white"), asked.images)
            values.append((asked.logits(pictures).argmax(1) == asked.classes).mean())
        assert np.trapezoid(values, shares) == pytest.approx(row(table, name)[column], abs=TIES)
