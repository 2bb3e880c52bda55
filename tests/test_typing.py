"""What editors, type checkers and IPython see of the library."""

import subprocess
import sys

import pytest
from IPython.core.oinspect import Inspector

import saliency_lib as sl
from saliency_lib import paths

SNIPPET = """
import torch
import saliency_lib as sl

maps: torch.Tensor = sl.METHODS["rise"](torch.nn.Identity(), torch.zeros(1, 3, 8, 8))
area: torch.Tensor = sl.METRICS["deletion"](torch.nn.Identity(), torch.zeros(1, 3, 8, 8), maps).area
trained: torch.nn.Module = sl.train(sl.Training("mnist5k", "cnn")).model
"""


@pytest.mark.slow
def test_a_type_checker_knows_every_public_name_and_finds_a_misspelt_one(tmp_path):
    file = tmp_path / "snippet.py"
    names = "".join(f"sl.{name}\n" for name in sl.__all__)
    file.write_text(f"{SNIPPET}{names}sl.explian\nlength: int = sl.METHODS['rise'](torch.nn.Identity(), torch.zeros(1))\n")
    mypy = [sys.executable, "-m", "mypy", "--config-file", paths.ROOT / "pyproject.toml", file]  # with the cache of `make lint`
    found = subprocess.run(mypy, capture_output=True, text=True, cwd=paths.ROOT).stdout.splitlines()
    errors = [line.partition("error: ")[2] for line in found if "error: " in line]
    assert len(errors) == 2, found
    assert errors[0].startswith('Module has no attribute "explian"') and '"Tensor"' in errors[1] and '"int"' in errors[1]


def test_ipython_shows_signature_and_docstring_of_an_entry():
    shown = Inspector(theme_name="nocolor").info(sl.METHODS["rise"], oname="sl.METHODS['rise']")
    assert "masks" in (shown["definition"] or "") + (shown["call_def"] or "")
    assert shown["docstring"].startswith(sl.METHODS["rise"].function.__doc__.splitlines()[0])
