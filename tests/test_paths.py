"""Paths: data and outputs come from the checkout, from environment variables, or from the working folder."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from saliency_lib import paths

ASKED = "import json; from saliency_lib import paths as p; print(json.dumps([str(getattr(p, name)) for name in {names}]))"


def found(folder, *names, library=paths.ROOT, **environment):
    """The folders that the library finds when Python starts in a folder."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SALIENCY")}
    words = [sys.executable, "-c", ASKED.format(names=list(names))]
    environment = kept | {"PYTHONPATH": str(library)} | environment
    return json.loads(subprocess.run(words, capture_output=True, text=True, check=True, cwd=folder, env=environment).stdout)


@pytest.fixture
def installed(tmp_path):
    """A folder with the library as a wheel installs it: outside a checkout, with the recipes inside."""
    library = tmp_path / "site" / "saliency_lib"
    library.mkdir(parents=True)
    for name in ("__init__.py", "__init__.pyi", "paths.py"):
        shutil.copy(paths.ROOT / "saliency_lib" / name, library)
    (library / "params").mkdir()
    (tmp_path / "site" / "params").mkdir()  # another package's
    shutil.copy(paths.ROOT / "params" / "training.yaml", library / "params")
    return library.parent


def test_the_librarys_own_checkout_goes_before_the_working_folder(tmp_path):
    expected = [str(paths.ROOT), str(paths.ROOT / "params"), str(paths.ROOT / "data")]
    assert found(tmp_path, "CHECKOUT", "PARAMS", "DATA") == expected


def test_environment_variables_go_before_the_checkout(tmp_path):
    variables = {"SALIENCY_DATA": str(tmp_path / "d"), "SALIENCY_OUTPUTS": str(tmp_path / "o")}
    assert found(tmp_path, "DATA", "OUTPUTS", **variables) == list(variables.values())


def test_an_installed_library_finds_the_checkout_above_the_working_folder(installed):
    notebooks = paths.ROOT / "notebooks"
    expected = [str(paths.ROOT), str(paths.ROOT / "params"), str(paths.ROOT / "outputs")]
    assert found(notebooks, "CHECKOUT", "PARAMS", "OUTPUTS", library=installed) == expected


def test_outside_a_checkout_folders_are_those_of_the_working_folder_and_recipes_those_of_the_package(installed, tmp_path):
    names = ("CHECKOUT", "PARAMS", "DATA", "OUTPUTS")
    expected = ["None", str(installed / "saliency_lib" / "params"), str(tmp_path / "data"), str(tmp_path / "outputs")]
    assert found(tmp_path, *names, library=installed) == expected


def test_a_folder_that_nobody_named_is_not_created(tmp_path, monkeypatch):
    monkeypatch.delenv("SALIENCY_OUTPUTS", raising=False)
    monkeypatch.setattr(paths, "CHECKOUT", None)
    monkeypatch.setattr(paths, "OUTPUTS", tmp_path / "outputs")
    with pytest.raises(FileNotFoundError, match=r"no folder .*/outputs to write to; create it, set SALIENCY_OUTPUTS to another"):
        paths.made(tmp_path / "outputs" / "training")
    assert not (tmp_path / "outputs").exists()
    (tmp_path / "outputs").mkdir()
    assert paths.made(tmp_path / "outputs" / "training").is_dir()


def test_a_folder_of_a_checkout_or_an_environment_variable_is_created(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "DATA", tmp_path / "data")
    assert paths.CHECKOUT and paths.made(tmp_path / "data" / "weights").is_dir()
    monkeypatch.setattr(paths, "CHECKOUT", None)
    monkeypatch.setattr(paths, "OUTPUTS", tmp_path / "mine")
    monkeypatch.setenv("SALIENCY_OUTPUTS", str(tmp_path / "mine"))
    assert paths.made(tmp_path / "mine" / "training").is_dir()
