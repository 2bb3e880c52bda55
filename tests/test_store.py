"""The store: written once, checked when read, safe against kills, crowds and full disks."""

import json
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import filelock
import numpy as np
import pytest
import torch

import saliency_lib as sl
from saliency_lib import paths
from saliency_lib.artefacts import store
from saliency_lib.core import files
from saliency_lib.core.files import replace_file, write_tensors

SPEC = sl.Training(seed=7)


def write(folder):
    write_tensors(folder / "numbers.safetensors", {"x": np.arange(1000.0)})
    return {"answer": 42}


def never(folder):
    raise AssertionError("built again")


def everything(outputs):
    """All that lies in the store but its locks."""
    return sorted(str(path.relative_to(outputs)) for path in outputs.rglob("*") if ".locks" not in path.parts)


def test_an_artefact_is_built_once_and_read_back(outputs):
    assert store.find(SPEC) is None
    built = store.fetch(SPEC, write)
    again = store.fetch(SPEC, never)
    assert again.provenance == built.provenance
    assert again.facts == {"answer": 42}
    np.testing.assert_array_equal(again.tensors("numbers.safetensors")["x"], np.arange(1000.0))
    assert everything(outputs) == [
        "training",
        *(f"training/{SPEC.name}{rest}" for rest in ("", "/numbers.safetensors", "/provenance.json")),
    ]


def test_provenance_says_what_made_it_and_names_no_machine(outputs):
    origin = store.fetch(sl.Score(sl.Explanation(SPEC)), write).provenance
    assert origin["upstream"][0]["digest"] == sl.Explanation(SPEC).digest
    assert sl.from_dict(origin["spec"]) == sl.Score(sl.Explanation(SPEC))
    assert {"commit", "dirty", "versions", "command", "files", "created"} <= set(origin)
    assert str(paths.ROOT) not in json.dumps(origin) and os.uname().nodename not in json.dumps(origin)


@pytest.mark.slow
def test_the_command_in_the_provenance_builds_the_artefact(outputs, tmp_path):
    spec = sl.Training(model="cnn", changes={"epochs": 1, "model_options": {"width": 1}})
    command = store.rebuild_command(spec).replace("python ", f"{sys.executable} ", 1)
    printed = subprocess.run(
        command, shell=True, env=os.environ | {"SALIENCY_OUTPUTS": str(outputs)}, capture_output=True, text=True
    )
    assert printed.returncode == 0, printed.stderr
    assert printed.stdout.strip().endswith(spec.name)
    assert store.find(spec).facts["test_accuracy"] > 0


def test_the_default_models_are_read_and_never_written(outputs):
    built = store.fetch(SPEC, write).folder
    default = outputs / "defaults" / "training" / SPEC.name
    default.parent.mkdir(parents=True)
    built.rename(default)
    assert store.fetch(SPEC, never).folder == store.find(SPEC).folder == default
    store.fetch(sl.Training(seed=8), write)
    assert [folder.name for folder in default.parent.iterdir()] == [SPEC.name]
    (default / "numbers.safetensors").unlink()
    with pytest.raises(ValueError, match=rf"defaults/training/{SPEC.name} is damaged or foreign: numbers.safetensors is missing"):
        store.find(SPEC)


def test_the_default_models_of_the_checkout_are_those_of_this_version():
    folders = {folder.name for folder in (paths.OUTPUTS / "defaults" / "training").iterdir()}
    found = [store.find(spec) for spec in store.known("training")]
    assert {one.folder.name for one in found if "defaults" in one.folder.parts} == folders and len(folders) >= 9


def test_what_is_known_are_the_specifications_of_both_places_without_what_cannot_be_found(outputs):
    assert store.known("training") == []
    other = sl.Training(seed=8)
    store.fetch(other, write)
    default = outputs / "defaults" / "training" / SPEC.name
    default.parent.mkdir(parents=True)
    store.fetch(SPEC, write).folder.rename(default)
    for name, content in (("broken", "{"), ("list", "[]"), ("foreign", json.dumps({"spec": SPEC.to_dict()}))):
        (outputs / "training" / name).mkdir()
        (outputs / "training" / name / store.PROVENANCE).write_text(content)
    assert store.known("training") == sorted([SPEC, other], key=lambda spec: spec.name) and store.known("score") == []


@pytest.mark.parametrize("damage", ["truncated", "changed", "missing", "provenance", "facts", "foreign"])
def test_a_damaged_artefact_is_an_error_that_names_the_file_and_the_way_out(damage, outputs):
    folder = store.fetch(SPEC, write).folder
    file, origin = folder / "numbers.safetensors", folder / "provenance.json"
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[:-100])
    elif damage == "changed":
        file.write_bytes(file.read_bytes()[:-1] + b"\1")
    elif damage == "missing":
        file.unlink()
    elif damage == "provenance":
        origin.write_text(origin.read_text()[:50])
    elif damage == "facts":
        origin.write_text(origin.read_text().replace('"facts"', '"fakts"'))
    else:
        origin.write_text(origin.read_text().replace('"seed": 7', '"seed": 8'))
    named = "provenance.json" if damage in ("provenance", "facts", "foreign") else "numbers.safetensors"
    with pytest.raises(ValueError, match=rf"{SPEC.name} is damaged or foreign: {named}.*delete the folder"):
        store.fetch(SPEC, write)


def test_a_build_that_fails_leaves_nothing(outputs):
    def fail(folder):
        write(folder)
        raise KeyError("no")

    with pytest.raises(KeyError):
        store.fetch(SPEC, fail)
    assert everything(outputs) == ["training"]
    assert store.fetch(SPEC, write).facts == {"answer": 42}


@pytest.mark.slow
def test_what_a_killed_process_left_is_cleared_away(outputs):
    code = (
        "import os, signal, saliency_lib as sl\nfrom saliency_lib.artefacts import store\n"
        "def build(folder):\n    (folder / 'half').write_text('x'); os.kill(os.getpid(), signal.SIGKILL)\n"
        "store.fetch(sl.Training(seed=7), build)"
    )
    ended = subprocess.run([sys.executable, "-c", code], env=os.environ | {"SALIENCY_OUTPUTS": str(outputs)})
    assert ended.returncode == -signal.SIGKILL
    assert any("half" in name for name in everything(outputs))
    draft = store.checkpoint(SPEC).with_name(store.checkpoint(SPEC).name + ".123")
    draft.write_bytes(b"half")
    store.fetch(SPEC, write)
    assert everything(outputs) == [
        "training",
        *(f"training/{SPEC.name}{rest}" for rest in ("", "/numbers.safetensors", "/provenance.json")),
    ]


def _build_slowly(outputs, queue):
    paths.OUTPUTS = outputs

    def build(folder):
        queue.put("built")
        time.sleep(0.5)
        return write(folder)

    queue.put(store.fetch(SPEC, build).facts["answer"])


def test_two_processes_that_want_the_same_artefact_build_it_once(outputs):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    crowd = [context.Process(target=_build_slowly, args=(outputs, queue)) for _ in range(3)]
    for process in crowd:
        process.start()
    said = [queue.get(timeout=60) for _ in range(4)]
    for process in crowd:
        process.join()
    assert sorted(map(str, said)) == ["42", "42", "42", "built"]


def test_a_place_that_cannot_be_written_is_an_error_before_any_work(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr(paths, "OUTPUTS", tmp_path / "file" / "outputs")
    with pytest.raises(OSError, match=r"nothing was stored in .*it cannot be written.*SALIENCY_OUTPUTS"):
        store.fetch(SPEC, never)


@pytest.mark.parametrize("name", ["training", ".locks"])
def test_a_file_where_a_folder_of_the_store_has_to_be_is_an_error_with_the_way_out(name, outputs):
    outputs.mkdir()
    (outputs / name).write_text("in the way")
    with pytest.raises(OSError, match=r"nothing was stored in .*something else is in the way .*SALIENCY_OUTPUTS"):
        store.fetch(SPEC, never)


def _build_within(outputs, limit, queue, work):
    torch.set_num_threads(1)  # a forked process lacks the threads of the process that it comes from, and would wait for them
    paths.OUTPUTS = outputs
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        work()
    except OSError as error:
        queue.put(str(error))


@pytest.mark.parametrize(
    "work",
    [lambda: store.fetch(SPEC, write), lambda: sl.train(sl.Training(changes={"epochs": 2}))],
    ids=["artefact", "checkpoint"],
)
def test_a_full_disk_is_an_error_that_leaves_nothing(work, outputs):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=_build_within, args=(outputs, 4000, queue, work))
    process.start()
    message = queue.get(timeout=60)
    process.join()
    assert "nothing was stored" in message and "larger than allowed" in message and message.count("free some space") == 1
    assert everything(outputs) == ["training"]


def test_the_longest_names_fit_and_stay_apart(outputs):
    class Long(type(SPEC)):
        slug = "x" * 240 + "é" * 20
        kind = "training"

    made = [Long(seed=seed) for seed in (1, 2)]
    folders = [store.fetch(spec, write).folder for spec in made]
    assert len(set(folders)) == 2 and store.fetch(made[0], never).folder == folders[0]
    assert all(len(os.fsencode(store.checkpoint(spec).name)) < 240 and spec.name.endswith(spec.digest[:8]) for spec in made)
    assert SPEC.name == f"{SPEC.slug}-{SPEC.digest[:8]}"


@pytest.mark.parametrize("where", ["", "provenance.json", "numbers.safetensors"])
@pytest.mark.parametrize("kind", ["pipe", "loop"])
def test_a_pipe_or_a_loop_of_links_in_the_store_is_an_error_and_does_not_hang(where, kind, outputs):
    place = store.fetch(SPEC, write).folder / where
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    os.mkfifo(place) if kind == "pipe" else place.symlink_to(place.name)
    with pytest.raises(ValueError, match=rf"{SPEC.name} is damaged or foreign: .*; delete"):
        store.fetch(SPEC, never)


def test_the_drafts_of_other_artefacts_that_killed_processes_left_are_cleared_away_too(outputs):
    other, busy = sl.Training(seed=8), sl.Training(seed=9)
    for spec in (other, busy):
        draft = store.place(spec).with_name(f".{spec.name}-abcd1234")
        draft.mkdir(parents=True)
        (draft / "half").write_text("x")
    with filelock.FileLock(store.lock_of(busy)):
        store.fetch(SPEC, write)
    left = [path for path in (outputs / "training").iterdir() if path.name.startswith(".")]
    assert left == [store.place(busy).with_name(f".{busy.name}-abcd1234")]


def test_a_file_that_is_replaced_leaves_no_old_drafts_and_no_threads_collide(tmp_path):
    file = tmp_path / "table.csv"
    old, young = tmp_path / "table.csv.123-4", tmp_path / "table.csv.124-5"
    for left in (old, young):
        left.write_text("half")
    os.utime(old, (0, 0))
    other = tmp_path / "table.csv.backup"
    other.write_text("mine")
    os.utime(other, (0, 0))

    def slowly(text):
        def write(draft):
            for letter in text:
                with draft.open("a") as stream:
                    stream.write(letter)
                time.sleep(0.001)

        replace_file(file, write)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(slowly, ["abc" * 9] * 8))
    assert file.read_text() == "abc" * 9
    assert sorted(path.name for path in tmp_path.iterdir()) == [file.name, young.name, other.name]


def test_a_file_is_on_the_disk_before_it_gets_its_name(outputs, monkeypatch):
    done, flushed = [], files.flush
    for module in (files, store):
        monkeypatch.setattr(module, "flush", lambda file: done.append("flush") or flushed(file))
    for name in ("replace", "rename"):
        named = getattr(Path, name)
        monkeypatch.setattr(Path, name, lambda file, target, named=named: done.append("name") or named(file, target))
    store.fetch(SPEC, write)
    assert done == ["flush", "flush", "name"]
    replace_file(outputs / "file", lambda draft: draft.write_text("x"))
    assert done[3:] == ["flush", "name"]


def test_who_waits_for_another_process_says_so(outputs, monkeypatch, capsys):
    monkeypatch.setattr(files, "PATIENCE", 0.05)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=_build_slowly, args=(outputs, queue))
    process.start()
    assert queue.get(timeout=60) == "built"
    store.fetch(SPEC, never)
    process.join()
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"waiting for process {process.pid}" in said and SPEC.name in said
    assert not list((outputs / ".locks").glob("*.holder"))
