"""CONTRIBUTING.md names commands, files and decorators that there are."""

import dataclasses
import re

import pytest

import saliency_lib as sl
from saliency_lib import paths
from saliency_lib.core.registry import Entry

TEXT = (paths.ROOT / "CONTRIBUTING.md").read_text()


@pytest.mark.parametrize("table", ["METHODS", "METRICS", "OBJECTIVES", "DATASETS", "MODELS"])
def test_the_decorator_of_a_table_takes_the_facts_of_its_entries(table):
    (said,) = re.findall(rf"@sl\.{table}\.register\((.*?)\)", TEXT)
    entry = next(iter(getattr(sl, table).values()))
    own = {field.name for field in dataclasses.fields(Entry)}
    facts = [field.name for field in dataclasses.fields(entry) if field.name not in own]
    assert said == ", ".join(f"{fact}=" for fact in facts)


def test_its_make_targets_exist():
    targets = set(re.findall(r"^([a-z]+):", (paths.ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"`?make ([a-z]+)`?", TEXT)) - {"a"}
    assert {"env", "check", "test", "bless", "elsewhere"} <= named <= targets


def test_its_files_exist():
    folders = "saliency_lib|docs|data|params|tests|workflow|notebooks|outputs/defaults"
    named = {name for name in re.findall(rf"[`( ]((?:{folders})/[\w./]+)", TEXT) if not re.search("<|{", name)}
    assert len(named) > 12 and not [name for name in named if not (paths.ROOT / name).exists()]
