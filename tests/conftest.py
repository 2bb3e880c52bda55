"""What the tests share: seeds, small models whose true answers are known, images, a store of their own."""

import argparse
import os
import zlib
from pathlib import Path

import hypothesis
import pytest
import torch
from torch import nn

import saliency_lib as sl
from docs import __main__ as site
from saliency_lib import paths
from workflow import plans


def pytest_addoption(parser):
    """Name pytest-randomly's seed --seed: it fixes every generator and the order of the tests."""
    help = "fixes all random numbers and the order of the tests (default: 0)"
    parser.addoption("--seed", dest="randomly_seed", type=int, default=argparse.SUPPRESS, help=help)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    """Take seed 0 if none is given, and make hypothesis follow the seed and print how to reproduce a failure."""
    os.environ["SALIENCY_PLUGINS"] = "none"  # the tests are of the library; plug-ins have saliency_lib.contract
    paths.PLUGINS = Path("none")
    if config.option.randomly_seed == "default":
        config.option.randomly_seed = 0
    config.option.hypothesis_seed = str(config.option.randomly_seed)
    hypothesis.settings.register_profile("seeded", print_blob=True, database=None, deadline=None)
    hypothesis.settings.load_profile("seeded")


@pytest.fixture(autouse=True)
def seeded(request):
    """Seed torch's global generator for each test; pytest-randomly seeds those of Python and NumPy."""
    torch.manual_seed(zlib.crc32(f"{request.config.option.randomly_seed} {request.node.nodeid}".encode()))


@pytest.fixture
def outputs(tmp_path, monkeypatch):
    """An empty store for one test."""
    monkeypatch.setattr(paths, "OUTPUTS", tmp_path / "outputs")
    return tmp_path / "outputs"


@pytest.fixture
def images():
    """Five random colour images of 16x16."""
    return torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def smooth():
    """A small smooth network: its integrals converge and its maps have no ties."""
    torch.manual_seed(2)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.Softplus(),
        nn.AvgPool2d(2),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.Softplus(),
        nn.Flatten(),
        nn.Linear(8 * 8 * 8, 4),
    ).eval()


@pytest.fixture
def relu_net():
    """A small network with what upsets hooks and modes: in-place ReLU, BatchNorm, dropout, max-pool."""
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 12, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(48, 4),
    )


class Linear(nn.Module):
    """Logits that are linear in the pixels: class c weighs pixel p by weight[c, p]."""

    def __init__(self, weight: torch.Tensor):
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, images):
        return images.flatten(1) @ self.weight.flatten(1).T


@pytest.fixture
def linear():
    """A linear model over (3, 16, 16) with 4 classes."""
    return Linear(torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(4)))


def quarters(image: torch.Tensor) -> torch.Tensor:
    """Four segments (H, W) of an image (C, H, W), fewer if it is a single line."""
    height, width = image.shape[1:]
    return 2 * (torch.arange(height)[:, None] >= height // 2) + (torch.arange(width) >= width // 2)


def quick(method: str) -> dict:
    """Options that make a method cheap enough for a loop over all methods; its laws hold with any."""
    known = sl.METHODS.options(method)
    cheap = {"steps": 8, "samples": 12, "window": 5, "stride": 3, "masks": 12}
    if method in ("lime", "kernel_shap"):  # noise is one superpixel
        cheap["segments"] = quarters
    return {name: value for name, value in cheap.items() if name in known}


def context(metric: str, images: torch.Tensor, rows: torch.Tensor | None = None) -> dict:
    """Options that let any metric run on these images, small: what explains them, where their objects are.

    Args:
        rows: the images' rows in a larger set, which a metric that draws random numbers is told.
    """
    known = sl.METRICS.options(metric)
    rows = torch.arange(len(images)) if rows is None else rows
    y, x = (torch.arange(n, device=images.device) for n in images.shape[2:])
    inside = (y[:, None] >= images.shape[2] // 3) & (x >= rows.to(images.device).view(-1, 1, 1) % images.shape[3] // 2)
    usual = {
        "explain": lambda model, images, targets: sl.METHODS["gradient"](model, images, targets),
        "objects": inside,
        "samples": 4,
        "steps": 4,
        "fractions": (0.25, 0.5),
        "indices": rows,
    }
    return {name: value for name, value in usual.items() if name in known}


def take_stored_notebooks_as_executed(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let the site find the stored notebooks as the executed ones of the usual plans of digits, and be made in the folder."""
    patch.setattr(plans, "RUNS", folder / "runs")
    patch.setattr(site, "SITE", folder / "report")
    for step in (step for plan in ("embedded", *plans.PAPERS) for step in plans.steps(plan)):
        step.output.parent.mkdir(parents=True, exist_ok=True)
        step.output.write_text((paths.NOTEBOOKS / f"{step.notebook}.ipynb").read_text())
