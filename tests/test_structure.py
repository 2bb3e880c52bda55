"""The architecture as the imports show it, and rules that no single module can hold."""

import ast
import inspect
import re
import subprocess
import sys
from collections.abc import Mapping

import pytest

import saliency_lib as sl
from saliency_lib import paths
from saliency_lib.core.registry import Entry, Registry

LIBRARY = paths.ROOT / "saliency_lib"
KERNELS = {"attribution", "evaluation", "training", "data", "networks"}

MAY_IMPORT = {  # which packages a package may use besides itself
    "paths": set(),
    "core": {"paths"},
    **{name: {"core", "paths"} for name in KERNELS},
    "artefacts": {"core", "paths", *KERNELS},
    "statistics": {"core"},
    "figures": {"statistics", "core"},
    "notebook": {"artefacts", "core", "figures", "paths", "statistics", *KERNELS},
    "command": {"artefacts", "attribution", "core", "data", "networks", "page"},
    "page": {"core", "figures"},
    "contract": {"core", *KERNELS},
    "comparison": {"core", "figures", "statistics", *KERNELS},
    "__init__": set(),
    "__main__": {"artefacts", "paths"},
}
WITHOUT_TORCH = {"paths", "statistics", "figures"}
ONE_HOME = {  # optional packages, each imported by one module, when it is used
    "captum": "attribution/deeplift.py",
    "lime": "attribution/lime.py",
    "lightning_fabric": "training/loop.py",
    "ipywidgets": "notebook/explorer",
    "IPython": "notebook",
}


def imports(file):
    """Modules that a file imports, with those of ours as `saliency_lib.<module>`."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = [f"saliency_lib.{alias.name}" for alias in node.names] if node.module == "saliency_lib" else [node.module]
            found |= set(names)
    return found


MODULES = sorted(LIBRARY.rglob("*.py"))


@pytest.mark.parametrize("file", MODULES, ids=lambda file: str(file.relative_to(LIBRARY)))
def test_a_module_imports_only_what_the_design_allows(file):
    home = file.relative_to(LIBRARY).parts[0].removesuffix(".py")
    ours = {name.split(".")[1] for name in imports(file) if name.startswith("saliency_lib.")}
    assert ours - {home} <= MAY_IMPORT[home]
    foreign = {name.split(".")[0] for name in imports(file)}
    assert not (home in WITHOUT_TORCH and foreign & {"torch", "torchvision"})
    assert not foreign & {"docs", "workflow", "benchmarks"}
    assert not foreign & {"pickle"} - ({"pickle"} if home == "networks" else set())  # it names pickle's error, and reads none
    for library, only in ONE_HOME.items():
        assert library not in foreign or str(file.relative_to(LIBRARY)).startswith(only)


@pytest.mark.parametrize("file", MODULES, ids=lambda file: str(file.relative_to(LIBRARY)))
def test_a_module_reaches_no_other_by_a_string(file):
    tree = ast.parse(file.read_text())
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    assert not [text for text in texts if re.fullmatch(r"saliency_lib(\.\w+)+", text)]
    place = str(file.relative_to(LIBRARY))
    follows = place == "core/code.py"  # the imports of functions from outside the library
    assert "__import__" not in file.read_text() or follows
    assert (
        "import_module" not in file.read_text() or place == "networks/references.py"
    )  # modules of the user's own, by their names


@pytest.mark.slow
@pytest.mark.parametrize("package", sorted(WITHOUT_TORCH))
def test_a_package_without_torch_does_not_load_it(package):
    code = f"import sys, saliency_lib.{package}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.slow
def test_digits_are_measured_without_torchvision_whose_import_takes_seconds():
    code = """import sys, saliency_lib as sl
images, model = sl.DATASETS["mnist5k"]().images[:2], sl.MODELS["cnn"](10, 1).eval()
sl.METRICS["deletion"](model, images, sl.METHODS["gradient"](model, images), steps=2)
sl.train, sl.score, sl.Training("mnist5k", "cnn").digest
assert "torchvision" not in sys.modules and "torch._dynamo" not in sys.modules
assert "resnet18" in sl.MODELS and "torchvision" in sys.modules"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("file", MODULES, ids=lambda file: str(file.relative_to(LIBRARY)))
def test_a_module_can_be_read_at_a_sitting_and_is_safe(file):
    text = file.read_text()
    assert len(text.splitlines()) <= 350
    assert ast.get_docstring(ast.parse(text)), "a module says what it is"
    assert not re.search(r"\beval\(|\bexec\(|yaml\.load\(|pickle\.load|torch\.save", text.replace(".eval()", ""))
    for call in re.findall(r"torch\.load\([^)]*\)", text):
        assert "weights_only=True" in call


@pytest.mark.parametrize("table", [sl.METHODS, sl.METRICS, sl.OBJECTIVES], ids=lambda table: table.kind)
def test_every_entry_says_what_it_is_and_where_it_comes_from(table):
    for name in table:
        text = table[name].__doc__ or ""
        assert len(text.split()) > 8, name
        assert name in ("random", "cross_entropy") or "Source:" in text, name


def test_no_file_of_the_project_names_a_machine():
    for file in [
        *MODULES,
        *(paths.ROOT / "tests").rglob("*.py"),
        *paths.PARAMS.rglob("*.yaml"),
        *paths.NOTEBOOKS.glob("*.ipynb"),
    ]:
        assert not re.search(r"(?<!\|)/(home|root|Users)/\w", file.read_text()), file.name


def test_no_tracked_file_is_large_but_the_default_models():
    names = subprocess.run(["git", "ls-files", "-z"], cwd=paths.ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\0"
    )
    sizes = {name: (paths.ROOT / name).stat().st_size for name in names if name and (paths.ROOT / name).exists()}
    large = {name for name, size in sizes.items() if size > 600 * 1024}
    assert len(sizes) > 300 and not [name for name in large if not re.fullmatch(r"outputs/defaults/.*\.safetensors", name)]


def test_an_unknown_name_lists_what_there_is():
    table = Registry("colour", Entry)
    table.register(lambda: None, name="red")
    with pytest.raises(ValueError, match=r"^colour 'blue' is not known; one of: red"):
        table["blue"]
    with pytest.raises(ValueError, match="did you mean 'red'"):
        table["read"]
    with pytest.raises(ValueError, match=r"'red' is registered already, by .*test_structure; choose another name"):
        table.register(len, name="red")
    with pytest.raises(ValueError, match="colour None is not known"):
        table[None]
    assert "red" in table and len(table) == 1 and table.get("blue") is None


def test_a_cell_that_runs_again_replaces_what_it_registered():
    table = Registry("colour", Entry)

    def cell(answer):
        @table.register
        def red():
            return answer

    cell(1), cell(2)
    assert table["red"]() == 2 and list(table) == ["red"]


def two_colours():
    """A table of red, and of blue, which is entered when it is asked for."""
    table, times = Registry("colour", Entry), []
    table.register(lambda: None, name="red")

    @table.more
    def enter():
        times.append(1)
        if len(times) == 1:
            raise KeyboardInterrupt
        table.register(lambda: "ours", name="blue")

    return table, times


@pytest.mark.parametrize(
    "read", [len, list, repr, Registry._repr_html_, lambda table: table["blue"], lambda table: "green" in table]
)
def test_more_names_are_entered_once_when_they_are_asked_for(read):
    table, times = two_colours()
    assert table["red"].name == "red" and "red" in table and not times
    with pytest.raises(KeyboardInterrupt):
        read(table)
    read(table)
    assert table["blue"]() == "ours" and list(table) == ["red", "blue"] and len(table) == times.count(1) == 2


def test_a_name_that_is_entered_later_cannot_be_taken():
    table, times = two_colours()
    times.append(1)
    with pytest.raises(ValueError, match="'blue' is registered already"):
        table.register(len, name="blue")


def test_a_table_is_a_mapping_that_completes_and_prints_its_facts():
    assert isinstance(sl.METHODS, Mapping) and dict(sl.METHODS)["rise"] is sl.METHODS["rise"]
    assert "rise" in sl.METHODS._ipython_key_completions_()
    lines = repr(sl.METHODS).splitlines()
    assert lines[0] == f"{len(sl.METHODS)} methods" and len(lines) == len(sl.METHODS) + 2
    assert lines[1].split() == ["name", "family", "passes", "per", "image", "paper"]
    assert next(line for line in lines if line.startswith("rise ")).split()[:2] == ["rise", "mask"]
    for table in (sl.METHODS, sl.METRICS, sl.OBJECTIVES, sl.MODELS, sl.DATASETS):
        assert table._repr_html_().count("<tr>") == len(table) + 1


def test_an_entry_shows_the_function_that_was_registered():
    entry = sl.METHODS["rise"]
    assert inspect.signature(entry) == inspect.signature(entry.function)
    assert inspect.getdoc(entry) == inspect.getdoc(entry.function) and entry.__name__ == "rise"


def test_the_public_surface_is_there():
    for name in sl.__all__:
        assert getattr(sl, name) is not None
    with pytest.raises(AttributeError, match="explian"):
        sl.explian  # noqa: B018


def test_paths_stay_inside():
    for name in ("..", "../x", "/etc/passwd", "", "a/../../x"):
        with pytest.raises(ValueError, match="does not name something inside"):
            paths.inside(paths.DATA, name)
    assert paths.inside(paths.DATA, "a/b") == (paths.DATA / "a" / "b").resolve()
