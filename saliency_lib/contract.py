"""The laws that every method and metric keeps, as tests: `pytest --pyargs saliency_lib.contract -k my_method`.

They run on a small network with random weights, in seconds, and cover plug-ins as well as the library's own entries.
"""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from saliency_lib.attribution import METHODS
from saliency_lib.evaluation import METRICS
from saliency_lib.networks import MODELS

SIDE, BATCH = 32, 3


def _model() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MODELS["cnn"](classes=5, channels=3).eval()


def _images() -> Tensor:
    return torch.rand(BATCH, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def _options(table: Any, name: str, **given: Any) -> dict[str, Any]:
    return table.cheap(name) | table.taken(name, given)


def _maps(name: str, images: Tensor, rows: list[int], model: nn.Module | None = None) -> Tensor:
    options = _options(METHODS, name, indices=torch.tensor(rows), seed=3)
    return METHODS[name](model or _model(), images[rows], torch.tensor([1, 4, 2])[rows], **options)


def _close(found: Tensor, expected: Tensor, atol: float = 0.0) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=atol + 1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("name", list(METHODS))
class TestMethod:
    """What a method promises."""

    def test_a_map_has_a_finite_number_per_pixel(self, name: str) -> None:
        """The maps are (B, H, W), finite, on the device and of the precision of the images, and need no gradient."""
        images = _images()
        maps = _maps(name, images, [0, 1, 2])
        assert maps.shape == (BATCH, SIDE, SIDE) and maps.isfinite().all()
        assert maps.dtype == images.dtype and maps.device == images.device and not maps.requires_grad

    def test_a_map_depends_neither_on_the_other_images_nor_on_their_order(self, name: str) -> None:
        """A map is the same in another order, and alone."""
        images = _images()
        maps = _maps(name, images, [0, 1, 2])
        _close(_maps(name, images, [2, 0, 1]), maps[[2, 0, 1]])
        _close(_maps(name, images, [1]), maps[1:2])

    def test_the_model_and_the_images_stay_as_they_were(self, name: str) -> None:
        """Weights, gradients, hooks, modes and pixels are untouched, and the random numbers of others too."""
        model, images = _model().train(), _images()
        before, pixels = {key: value.clone() for key, value in model.state_dict().items()}, images.clone()
        state = torch.get_rng_state()
        _maps(name, images, [0, 1, 2], model)
        assert model.training and all(torch.equal(before[key], value) for key, value in model.state_dict().items())
        assert torch.equal(images, pixels) and all(parameter.grad is None for parameter in model.parameters())
        assert not any(part._forward_hooks or part._backward_hooks for part in model.modules())
        assert torch.equal(torch.get_rng_state(), state), "draw from a generator of your own, seeded by an option seed"

    def test_the_same_call_gives_the_same_map(self, name: str) -> None:
        """Two calls agree."""
        _close(_maps(name, _images(), [0, 1, 2]), _maps(name, _images(), [0, 1, 2]))


@pytest.mark.parametrize("name", list(METRICS))
class TestMetric:
    """What a metric promises."""

    @staticmethod
    def _area(name: str, rows: list[int], scale: float = 1.0) -> Tensor:
        generator = torch.Generator().manual_seed(2)
        maps = torch.rand(BATCH, SIDE, SIDE, generator=generator)
        objects = torch.rand(BATCH, SIDE, SIDE, generator=generator) > 0.6
        given = {"indices": torch.tensor(rows), "seed": 3, "objects": objects[rows], "explain": _explained(rows)}
        options = _options(METRICS, name, **given)
        return METRICS[name](_model(), _images()[rows], scale * maps[rows], torch.tensor([1, 4, 2])[rows], **options).area

    def test_an_image_has_one_finite_number(self, name: str) -> None:
        """The areas are (B,) and finite."""
        area = self._area(name, [0, 1, 2])
        assert area.shape == (BATCH,) and area.isfinite().all()

    def test_an_area_depends_neither_on_the_other_images_nor_on_their_order(self, name: str) -> None:
        """An area is the same in another order, and alone."""
        area = self._area(name, [0, 1, 2])
        _close(self._area(name, [2, 0, 1]), area[[2, 0, 1]], 1e-6)
        _close(self._area(name, [1]), area[1:2], 1e-6)


def _explained(rows: list[int]) -> Any:
    def explain(model: nn.Module, images: Tensor, targets: Tensor | None = None, **options: Any) -> Tensor:
        return METHODS["gradient"](model, images, targets)

    return explain
