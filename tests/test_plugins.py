"""Plug-ins: files in plugins/ and installed packages enter the tables, keep the laws, and fail with their own name."""

import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest

from saliency_lib import paths
from saliency_lib.core import plugins
from saliency_lib.core.registry import Entry, Registry


@pytest.fixture
def table(monkeypatch, tmp_path):
    """A table of its own, in a project without plug-ins."""
    monkeypatch.setattr(paths, "PLUGINS", tmp_path / "plugins")
    monkeypatch.setattr(plugins, "_loaded", set())
    made = Registry("method", Entry)
    made.register(lambda model: 1, name="known")
    plugins.accept_plugins(made)
    monkeypatch.setattr(plugins, "mine", made, raising=False)
    (tmp_path / "plugins").mkdir()
    yield made
    for name in [name for name in sys.modules if name.startswith(plugins.PACKAGE)]:
        del sys.modules[name]


REGISTERS = """
from saliency_lib.core import plugins


@plugins.mine.register
def {name}(model):
    return {value}
"""


def test_a_file_is_imported_when_a_name_is_unknown_or_all_are_listed(table, tmp_path):
    (tmp_path / "plugins" / "one.py").write_text(REGISTERS.format(name="mine", value=3))
    (tmp_path / "plugins" / "_draft.py").write_text("raise RuntimeError")
    assert not table.has("mine") and table["mine"](None) == 3 and list(table) == ["known", "mine"]
    assert table["mine"].code, "a change of it gives its results other names"


def test_a_file_that_cannot_be_imported_is_named_and_known_names_still_work(table, tmp_path):
    (tmp_path / "plugins" / "bad.py").write_text("import no_such_package_here")
    for _ in range(2):  # also the second time
        with pytest.raises(
            ImportError, match=r"plugins/bad\.py cannot be imported .*no_such_package_here.*; correct it, or move it"
        ):
            table["other"]
    assert table["known"](None) == 1
    (tmp_path / "plugins" / "bad.py").write_text(REGISTERS.format(name="other", value=2))
    assert table["other"](None) == 2


def point(table, name, load):
    return SimpleNamespace(name=name, value="their_package:x", dist=SimpleNamespace(name="their-package"), load=load)


def test_an_installed_package_is_imported_once(table, monkeypatch):
    calls = []

    def load():
        calls.append(1)
        table.register(lambda model: 5, name="theirs")

    groups = []
    found = [point(table, "theirs", load)]
    monkeypatch.setattr(plugins, "entry_points", lambda group: groups.append(group) or found)
    assert table["theirs"](None) == 5 and list(table) == ["known", "theirs"] and len(calls) == 1
    assert groups == ["saliency_compendium.methods"]


@pytest.mark.parametrize(
    ("load", "message"),
    [
        (lambda: 1 / 0, r"'theirs' of the package their-package cannot be imported \(ZeroDivisionError"),
        (lambda: None, "their-package announces the method 'theirs' and does not register it"),
    ],
)
def test_a_package_that_fails_is_named(table, monkeypatch, load, message):
    monkeypatch.setattr(plugins, "entry_points", lambda group: [point(table, "theirs", load)])
    with pytest.raises(ImportError, match=message):
        table["theirs"]


RUN = """
import sys, pytest
from pathlib import Path
from saliency_lib import paths
paths.PLUGINS = Path(sys.argv[1]) / "plugins"
words = ["-q", "-p", "no:cacheprovider", "-p", "no:randomly", "--rootdir", sys.argv[1]]
sys.exit(pytest.main([*words, "--pyargs", "saliency_lib.contract", "-k", "my_method or my_metric"]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("broken", [False, True])
def test_the_template_keeps_the_laws_and_a_method_that_breaks_one_fails(tmp_path, broken):
    (tmp_path / "plugins").mkdir()
    file = tmp_path / "plugins" / "mine.py"
    shutil.copy(paths.ROOT / "plugins" / "_template.py", file)
    if broken:  # a map that depends on the other images
        text = file.read_text()
        file.write_text(text.replace(".pow(power).sum(1)", ".pow(power).sum(1) / len(images)"))
        assert file.read_text() != text
    ended = subprocess.run([sys.executable, "-c", RUN, tmp_path], cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == broken and ("1 failed, 5 passed" if broken else "6 passed") in ended.stdout, ended.stdout[-2000:]
