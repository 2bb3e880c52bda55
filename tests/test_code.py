"""A function that is registered outside the library is part of what its results are named by."""

import functools
import importlib
import random
import sys
import types

import pytest
import torch

import saliency_lib as sl
from saliency_lib.core import code
from saliency_lib.core.code import code_sha256

TABLES = (sl.METHODS, sl.METRICS, sl.OBJECTIVES, sl.MODELS, sl.DATASETS)
TRAINING = sl.Training(changes={"epochs": 1, "model_options": {"width": 1}, "images": 200})


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Return a function that writes a module of a user's project, and loads it again."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    for table in TABLES:
        monkeypatch.setattr(table, "_entries", dict(table._entries))

    def written(text, name="mine"):
        (tmp_path / f"{name}.py").write_text("import torch, saliency_lib as sl\n" + text)
        sys.modules.pop(name, None)
        importlib.invalidate_caches()
        return importlib.import_module(name)

    yield written
    for name in ("mine", "other"):
        sys.modules.pop(name, None)


METHOD = """
FACTOR = 1.0
def helper(images):
    return images.mean(1)
def factory(power):
    def mine(model, images, targets=None):
        return FACTOR * helper(images) ** power
    return mine
sl.METHODS.register(name="mine")(factory(1))
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("FACTOR * helper", "2 * helper"),
        ("FACTOR = 1.0", "FACTOR = 2.0"),
        ("mean(1)", "mean(1) / 2"),
        ("factory(1)", "factory(2)"),
    ],
    ids=["code", "constant", "helper", "closure"],
)
def test_a_method_that_was_changed_gives_its_own_maps(old, new, project, outputs):
    project(METHOD)
    spec = sl.Explanation(TRAINING, "mine", stop=3)
    before = sl.explain(spec).maps
    project(METHOD.replace(old, new))
    again = sl.Explanation(TRAINING, "mine", stop=3)
    assert not torch.equal(sl.explain(again).maps, before)
    project("\n# a comment\n" + METHOD)
    assert torch.equal(sl.explain(sl.Explanation(TRAINING, "mine", stop=3)).maps, before)


METRIC = """
@sl.METRICS.register(lower_is_better=True)
def mine(model, images, maps, targets=None, *, seed=0):
    return one_number(maps.mean((1, 2)) + 1)
"""
OBJECTIVE = """
@sl.OBJECTIVES.register
def mine(model, images, labels):
    return torch.nn.functional.cross_entropy(model(images), labels) + 1
"""
MODEL = """
class Net(torch.nn.Module):
    def __init__(self, channels, classes):
        super().__init__()
        self.linear = torch.nn.Linear(channels * 784, classes)
    def forward(self, images):
        return self.linear(images.flatten(1) + 1)
@sl.MODELS.register
def mine(classes, channels, pretrained):
    return Net(channels, classes)
"""
DATASET = """
@sl.DATASETS.register(shape=(1, 8))
def mine(split, download):
    def read(chosen, side):
        return {"images": torch.ones(len(chosen), 1, side, side) / (1 + 1), "labels": torch.tensor([i % 2 for i in chosen])}
    return sl.Split(6, ("a", "b"), read)
"""


def trained(**changes):
    return {"changes": {"epochs": 1, "images": 200, **changes}}


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        (METRIC, lambda: sl.Score(sl.Explanation(TRAINING, "edges"), "mine")),
        (OBJECTIVE, lambda: sl.Training(**trained(objective="mine"))),
        (MODEL, lambda: sl.Training(model="mine", **trained())),
        (DATASET, lambda: sl.Training("mine")),
        (DATASET, lambda: sl.Explanation(TRAINING, "edges", dataset="mine")),
    ],
    ids=["metric", "objective", "model", "dataset", "explained dataset"],
)
def test_a_change_of_any_registered_function_renames_its_results(text, spec, project):
    project(text)
    before = spec().digest
    project(text)
    assert spec().digest == before
    project(text.replace("+ 1)", "+ 2)").replace("labels) + 1", "labels) + 2"))
    assert spec().digest != before


def test_a_helper_of_another_module_of_the_project_counts_and_an_installed_one_counts_by_its_name(project):
    project("def helper(images):\n    return images.mean(1)\n", "other")
    text = "import other, numpy\ndef mine(model, images, targets=None):\n    return other.helper(images) + numpy.mean(1)\n"
    before = code_sha256(project(text).mine)
    project("def helper(images):\n    return images.amax(1)\n", "other")
    assert code_sha256(project(text).mine) != before


HIDDEN = {  # two texts of a module that differ in what it is easy to overlook; `other` is another module of the project
    "a module of a package": "import pack.inner\ndef mine(model, images):\n    return pack.inner.helper(images)",
    "a module in a closure": "import other\ndef made(one):\n    return lambda model, x: one.helper(x)\nmine = made(other)",
    "an import in the function": "def mine(model, images):\n    from other import helper\n    return helper(images)",
    "an import of a module in the function": "def mine(model, x):\n    from pack import inner\n    return inner.helper(x)",
    "a decorated method": "@torch.no_grad()\ndef mine(model, images):\n    return images + 1",
    "a decorator": "@torch.no_grad()\ndef mine(model, images):\n    return images",
    "a decorated helper": "@torch.no_grad()\ndef helper(x):\n    return x + 1\ndef mine(model, x):\n    return helper(x)",
    "a function of the type of its argument": (
        "import functools\n@functools.singledispatch\ndef helper(x):\n    return x\n@helper.register\ndef _(x: int):\n"
        "    return x + 1\ndef mine(model, images):\n    return helper(images)"
    ),
    "a picker": "import operator\npick = operator.itemgetter(1)\ndef mine(model, images):\n    return pick(images)",
    "a method of an array": "scale = torch.full((2,), 1).mul\ndef mine(model, images):\n    return scale(images)",
    "a long pattern": f"import re\nmark = re.compile('{'a' * 220} + 1')\ndef mine(model, images):\n    return mark",
    "a class of lists": "class Mine(list):\n    def add(self, x):\n        return x + 1\none = Mine()\ndef mine(model):\n    one",
    "a class of texts": "class Mine(str):\n    def add(self, x):\n        return x + 1\none = Mine()\ndef mine(model):\n    one",
    "a method of an enumeration": (
        "import enum\nclass Mine(enum.Enum):\n    ONE = 0\n    def add(self, x):\n        return x + 1\n"
        "def mine(model, images):\n    return Mine.ONE"
    ),
    "a class of classes": (
        "class Kind(type):\n    def add(self, x):\n        return x + 1\nclass Mine(metaclass=Kind):\n    pass\n"
        "def mine(model, images):\n    return Mine"
    ),
    "a slot": "class Mine:\n    __slots__ = ('x',)\none = Mine()\none.x = 0 + 1\ndef mine(model, images):\n    return one",
}  # fmt: skip


@pytest.mark.parametrize("what", HIDDEN)
def test_a_change_that_is_easy_to_overlook_counts(what, project, tmp_path):
    helper, found = "def helper(x):\n    return x + 1\n", []
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "__init__.py").write_text("")
    for old, new in (("", ""), ("", ""), ("+ 1", "+ 2"), ("(1)", "(2)"), (", 1)", ", 2)"), ("no_grad", "enable_grad")):
        (tmp_path / "pack" / "inner.py").write_text(helper.replace(old, new))
        for name in ("pack", "pack.inner"):
            sys.modules.pop(name, None)
        project(helper.replace(old, new), "other")
        found.append(code_sha256(project(HIDDEN[what].replace(old, new)).mine))
    assert found[0] == found[1] and len(set(found)) > 1


class Base:
    offset = 1


class Twin:
    offset = 1


def with_helper(helper):
    space = {"__name__": "cell", "helper": helper}
    exec("def mine(model, images):\n    return [helper(image) for image in (lambda: images)()] or (lambda: helper)", space)
    return space["mine"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda a, b: a + b, lambda a, b: a - b),
        (lambda a, b: a, lambda a, *b: a),
        (lambda a, b: a, lambda a, b, /: a),
        (with_helper(lambda x: x), with_helper(lambda x: -x)),
        *[tuple(functools.partial(print, value) for value in pair) for pair in (
            (torch.zeros(4), torch.zeros(2, 2)),
            (torch.zeros(4), torch.zeros(4, dtype=torch.int32)),
            (type("Mine", (Base,), {}), type("Mine", (Twin,), {})),
        )],
    ],
)  # fmt: skip
def test_any_part_of_a_function_counts(one, other):
    assert code_sha256(one) == code_sha256(one) != code_sha256(other)


def test_a_set_is_the_same_in_any_order():
    sets = {0, 8}, {8, 0}
    assert list(sets[0]) != list(sets[1])
    assert len({code_sha256(functools.partial(print, one)) for one in sets}) == 1


def test_a_module_that_names_itself_in_a_circle_ends(project, tmp_path):
    project("import other as other\ndef helper(x):\n    return x\n", "other")
    assert code_sha256(project("import other\ndef mine(model, images):\n    return other.other.helper(images)").mine)


def test_another_version_of_the_package_counts(project, monkeypatch):
    mine = project("def mine(model, images, targets=None):\n    return images.mean(1)\n").mine
    found = []
    for number in ("1.0", "1.0", "1.1"):
        monkeypatch.setattr(code, "_distributions", lambda: {"mine": ["mine-package"]})
        monkeypatch.setattr(code, "version", lambda name, number=number: number)
        found.append(code_sha256(mine))
    assert found[0] == found[1] != found[2]


def test_the_code_that_runs_counts_and_not_a_file_that_was_edited_since(project, tmp_path):
    module = project("def mine(model, images, targets=None):\n    return images.mean(1)\n")
    before = code_sha256(module.mine)
    (tmp_path / "mine.py").write_text("def mine(model, images, targets=None):\n    return images.amax(1)\n")
    assert code_sha256(module.mine) == before


def test_a_function_without_a_file_counts_too():
    made = []
    for number in (1, 2, 1):
        namespace = {"__name__": "cell"}
        exec(f"def mine(model, images, targets=None, *, power={number}):\n    return images.mean(1)", namespace)
        made.append(code_sha256(namespace["mine"]))
    assert made[0] == made[2] != made[1]


def test_a_wrapper_of_a_function_of_the_library_is_not_the_librarys():
    @functools.wraps(sl.METHODS["gradient"].written)
    def mine(model, images, targets=None):
        return images.mean(1)

    assert sl.METHODS.entry(mine, "mine").code
    assert sl.METHODS.entry(functools.partial(sl.METHODS["smoothgrad"].written, samples=2), "mine").code
    assert not any(
        entry.code for table in (sl.METHODS, sl.METRICS, sl.OBJECTIVES, sl.MODELS, sl.DATASETS) for entry in table.values()
    )


@pytest.mark.parametrize(
    "value", [torch.ones(2), [1, {2, 3}], {"a": (None, 1.5)}, len, torch.float32, types, torch.nn.Conv2d(1, 1, 1)]
)
def test_plain_values_arrays_networks_and_modules_can_be_in_a_closure(value):
    assert code_sha256(lambda: value) == code_sha256(lambda: value)


def test_what_cannot_be_told_apart_is_refused_with_the_way_out(monkeypatch):
    source = random.Random(0)
    draw = source.random

    def mine(model, images, targets=None):
        return images.mean(1) * source.random()

    monkeypatch.setitem(sl.METHODS._entries, "mine", sl.METHODS.entry(mine, "mine"))
    with pytest.raises(ValueError, match=r"uses 'draw', a random\.Random"):
        code_sha256(lambda: draw())
    monkeypatch.setitem(sl.METHODS._entries, "len", sl.METHODS.entry(len, "len"))
    with pytest.raises(ValueError, match=r"method 'mine' uses 'source', a random\.Random, .*; make it inside the function"):
        sl.Explanation(TRAINING, "mine").digest  # noqa: B018
    with pytest.raises(ValueError, match=r"method 'len' has no Python code.*; wrap it in a Python function"):
        sl.Explanation(TRAINING, "len").digest  # noqa: B018


def test_a_method_that_changes_its_own_values_while_it_runs_stores_nothing(monkeypatch, outputs):
    calls = []

    def mine(model, images, targets=None):
        calls.append(len(images))
        return images.mean(1)

    monkeypatch.setitem(sl.METHODS._entries, "mine", sl.METHODS.entry(mine, "mine"))
    spec = sl.Explanation(TRAINING, "mine", stop=2)
    with pytest.raises(ValueError, match=r"changed .* while it ran.*nothing was stored"):
        sl.explain(spec)
    assert list((outputs / "explanation").iterdir()) == []
