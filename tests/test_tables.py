"""Sealed tables: read only if unchanged, written whole or not at all."""

import errno
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest

from saliency_lib import paths
from saliency_lib.artefacts import tables

FRAME = pd.DataFrame({"method": ["rise", "none"], "area": [1 / 3, 2.0], "note": ["", "NA"]})
ORIGIN = {"command": "make it", "parameters": {"images": 2}}


@pytest.fixture
def file(outputs):
    tables.keep(outputs / "tables" / "one" / "areas.csv", FRAME, ORIGIN)
    return outputs / "tables" / "one" / "areas.csv"


def test_a_kept_table_is_read_back_with_its_origin(file):
    assert file.read_text() == "method,area,note\nrise,0.333333,\nnone,2.000000,NA\n"
    frame, origin = tables.read(file)
    assert frame["area"].tolist() == [0.333333, 2.0]
    assert list(origin) == ["command", "sha256", "parameters"] and {**ORIGIN, "sha256": origin["sha256"]} == origin
    rows, again = tables.read_rows(file)
    assert again == origin
    assert rows == [
        {"method": "rise", "area": "0.333333", "note": ""},
        {"method": "none", "area": "2.000000", "note": "NA"},
    ]


@pytest.mark.parametrize("read", [tables.read, tables.read_rows])
def test_a_changed_table_is_refused_with_the_command_that_makes_it_again(file, read):
    file.write_text(file.read_text().replace("2.0", "3.0"))
    with pytest.raises(ValueError, match=r"one/areas\.csv was changed after it was made: .*; run `make it` to make it again"):
        read(file)


@pytest.mark.parametrize("read", [tables.read, tables.read_rows])
@pytest.mark.parametrize(
    ("old", "new"), [('"make it"', '"rm -r /"'), ('"images": 2', '"images": 9'), ("{", "["), ('"sha256"', '"sha255"')]
)
def test_what_is_said_of_a_table_cannot_be_changed_either(old, new, file, read):
    seal = file.with_suffix(".json")
    assert old in seal.read_text()
    seal.write_text(seal.read_text().replace(old, new))
    with pytest.raises(ValueError, match=r"one/areas\.json was changed after it was made .*put it back.* or run again"):
        read(file)


@pytest.mark.parametrize("first", [False, True])
def test_a_table_whose_two_files_were_not_both_renamed_is_read_all_the_same(first, file, monkeypatch):
    if first:
        file.unlink()
        file.with_suffix(".json").unlink()
    renamed = Path.replace

    def rename(draft, target):
        if target.name == "areas.json":
            raise KeyboardInterrupt
        return renamed(draft, target)

    monkeypatch.setattr(Path, "replace", rename)
    monkeypatch.setattr(Path, "unlink", lambda path, missing_ok=False: None)  # as if killed
    with pytest.raises(KeyboardInterrupt):
        tables.keep(file, FRAME.assign(area=0.5), ORIGIN)
    monkeypatch.undo()
    assert tables.read(file)[0]["area"].tolist() == [0.5, 0.5]


def test_a_table_that_is_written_again_while_it_is_read_is_the_new_one(file, monkeypatch):
    whole, again = Path.read_bytes, [FRAME.assign(area=0.5)]

    def read(path):
        content = whole(path)
        if again:
            tables.keep(file, again.pop(), ORIGIN)
        return content

    monkeypatch.setattr(Path, "read_bytes", read)
    assert tables.read(file)[0]["area"].tolist() == [0.5, 0.5]


def test_two_that_write_the_same_table_take_turns(file, monkeypatch):
    renamed, between, goes_on = Path.replace, threading.Event(), threading.Event()

    def rename(draft, target):
        if target.name == "areas.json" and not between.is_set():
            between.set()
            assert goes_on.wait(30)
        return renamed(draft, target)

    monkeypatch.setattr(Path, "replace", rename)
    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(tables.keep, file, FRAME.assign(area=1.0), ORIGIN)
        assert between.wait(30)
        other = pool.submit(tables.keep, file, FRAME.assign(area=2.0), ORIGIN)
        with pytest.raises(TimeoutError):
            other.result(timeout=0.3)
        goes_on.set()
        assert one.result(30) is other.result(30) is None
    assert tables.read(file)[0]["area"].tolist() == [2.0, 2.0]


def test_the_draft_of_another_table_is_not_taken_for_what_is_said_of_this_one(file):
    draft = file.with_suffix(".json.1-2")
    draft.write_text(file.with_suffix(".json").read_text())
    file.write_text(file.read_text().replace("2.0", "3.0"))
    with pytest.raises(ValueError, match=r"areas\.csv was changed after it was made"):
        tables.read(file)


def test_a_table_without_a_seal_is_refused(file):
    seal = file.with_suffix(".json")
    origin = json.loads(seal.read_text())
    del origin["seal"]
    seal.write_text(json.dumps(origin))
    with pytest.raises(ValueError, match="its seal does not fit"):
        tables.read(file)


@pytest.mark.parametrize("failing", ["areas.csv", "areas.json"])
def test_a_table_that_cannot_be_written_leaves_the_old_one(file, failing, monkeypatch):
    before = file.read_bytes(), file.with_suffix(".json").read_bytes()
    written = Path.write_text

    def write(draft, text):
        if draft.name.startswith(failing):
            raise OSError(errno.ENOSPC, "full", str(draft))
        return written(draft, text)

    monkeypatch.setattr(Path, "write_text", write)
    with pytest.raises(OSError, match="nothing was stored"):
        tables.keep(file, FRAME.assign(area=0.0), ORIGIN)
    assert (file.read_bytes(), file.with_suffix(".json").read_bytes()) == before
    assert sorted(path.name for path in file.parent.iterdir()) == ["areas.csv", "areas.json"]


def test_every_measured_table_is_the_one_that_was_measured():
    names = [file.stem for file in (paths.ROOT / "data" / "measured").glob("*.csv")]
    assert len(names) > 20
    for name in names:
        frame, origin = tables.measured(name)
        assert len(frame) and origin["command"], name


def test_claims_and_reported_numbers_are_read_by_paper():
    claims, numbers = tables.reported("score_matching")
    assert set(claims["paper"]) == {"score_matching"} and claims.index.tolist() == list(range(len(claims))) and len(numbers)
    with pytest.raises(ValueError, match="paper 'score_matchin' is not known; did you mean 'score_matching'"):
        tables.claimed("score_matchin")
