"""Writers that are killed at random moments, and at every operation of the file system: nothing is lost, nothing is wrong."""

import dataclasses
import json
import os
import random
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from tqdm.auto import tqdm

import saliency_lib as sl
from docs import __main__ as site
from saliency_lib import paths
from saliency_lib.artefacts import store, tables
from saliency_lib.core.files import replace_file, write_tensors
from tests.faults.campaign import Count, trials

pytestmark = pytest.mark.faults

SPEC = sl.Training(seed=7)
CRASHED = 86
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


def build(folder):
    write_tensors(folder / "numbers.safetensors", {"x": np.arange(2000.0)})
    (folder / "history.csv").write_text("epoch\n1\n")
    return {"answer": 42}


def child(work):
    """Do some work in a process of its own, and return its id."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        torch.set_num_threads(1)  # a forked process lacks the threads of the process that it comes from
        tqdm.set_lock(threading.RLock())  # tqdm's own is shared, and would be held for ever by one that is killed
        with open(os.devnull, "w") as nothing:
            sys.stderr = sys.stdout = nothing
            work()
        status = 0
    finally:
        os._exit(status)


def crash_at(number):
    """Let this process end, as if killed, at its n-th operation that changes the file system; a write is half done then."""
    left = [number]

    def count():
        left[0] -= 1
        return left[0] < 0

    def hook(event, arguments):
        changes = event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod")
        opens = event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITES and str(arguments[0]) != os.devnull
        if (changes or opens) and count():
            os._exit(CRASHED)

    def torn(write):
        def half(path, content, *rest, **options):
            if count():
                write(path, content[: len(content) // 2], *rest, **options)
                os._exit(CRASHED)
            return write(path, content, *rest, **options)

        return half

    Path.write_bytes, Path.write_text = torn(Path.write_bytes), torn(Path.write_text)
    synced = os.fsync
    os.fsync = lambda descriptor: os._exit(CRASHED) if count() else synced(descriptor)
    sys.addaudithook(hook)


def at_every_operation(work, check, count, most=200):
    """Crash the work at its first operation, its second, and so on until it ends whole; check after each crash."""
    for number in range(most):
        pid = child(lambda number=number: (crash_at(number), work()))
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert status in (0, CRASHED), status
        try:
            check()
            count.add()
        except Exception as error:
            count.add(f"after operation {number}: {type(error).__name__}: {error}")
        if status == 0:
            return
    raise AssertionError("the work never ends")


@pytest.mark.slow
def test_an_artefact_that_is_crashed_at_every_operation_is_not_there_or_whole(outputs, capsys):
    count = Count("crash points of an artefact")

    def check():
        found = store.find(SPEC)
        assert found is None or found.tensors("numbers.safetensors")["x"].sum() == np.arange(2000.0).sum()
        again = store.fetch(SPEC, build)
        assert again.facts == {"answer": 42}
        assert [path.name for path in (outputs / "training").iterdir()] == [SPEC.name]
        shutil.rmtree(outputs)

    at_every_operation(lambda: store.fetch(SPEC, build), check, count)
    count.report(capsys, least=12)


def test_a_table_that_is_crashed_at_every_operation_is_the_old_or_the_new_one(outputs, capsys):
    count, file = Count("crash points of a table"), outputs / "tables" / "one" / "areas.csv"
    old, new = pd.DataFrame({"area": [1.0] * 9}), pd.DataFrame({"area": [2.0] * 9})
    tables.keep(file, old, {"command": "old"})

    def check():
        frame, origin = tables.read(file)
        assert (frame["area"].iloc[0], origin["command"]) in ((1.0, "old"), (2.0, "new")) and frame["area"].nunique() == 1
        tables.keep(file, old, {"command": "old"})
        assert tables.read(file)[1]["command"] == "old"

    at_every_operation(lambda: tables.keep(file, new, {"command": "new"}), check, count)
    count.report(capsys, least=8)


def test_a_file_that_is_crashed_at_every_operation_is_the_old_or_the_new_one(tmp_path, capsys):
    count, file = Count("crash points of a file"), tmp_path / "file"
    file.write_text("old" * 1000)

    def check():
        assert file.read_text() in ("old" * 1000, "new" * 1000)
        file.write_text("old" * 1000)

    at_every_operation(lambda: replace_file(file, lambda draft: draft.write_text("new" * 1000)), check, count)
    count.report(capsys, least=4)


@pytest.mark.slow
def test_a_site_that_is_crashed_at_every_operation_is_the_old_or_the_new_one(tmp_path, capsys, monkeypatch):
    count, target = Count("crash points of the site"), tmp_path / "report" / "html"
    monkeypatch.setattr(site, "SITE", tmp_path / "report")
    monkeypatch.setattr(site.content, "steps", lambda: [type("Step", (), {"output": paths.ROOT / "README.md"})])
    monkeypatch.setattr(site.content, "read", lambda step: None)
    monkeypatch.setattr(site, "write", lambda run, missing, source: source.mkdir())

    def make(text):
        def sphinx(source, draft):
            if text is None:
                raise RuntimeError("it cannot be made")
            draft.mkdir()
            (draft / "index.html").write_text(text)

        monkeypatch.setattr(site, "sphinx", sphinx)
        return site.build()

    make("old")

    def check():
        with pytest.raises(RuntimeError):
            make(None)
        assert (target / "index.html").read_text() in ("old", "new")
        assert {path.name for path in target.parent.iterdir()} == {"html"}
        make("old")

    at_every_operation(lambda: make("new"), check, count)
    count.report(capsys, least=8)


@pytest.mark.slow
def test_writers_that_are_killed_at_random_moments_lose_nothing_and_store_nothing_wrong(outputs, capsys):
    count, draws = Count("kills of writers"), random.Random(0)
    specs = [sl.Training(seed=seed) for seed in range(100)]  # more than one writer stores before it is killed
    table = outputs / "tables" / "one" / "areas.csv"
    tables.keep(table, pd.DataFrame({"n": [0] * 50}), {"command": "0"})
    told = outputs / "told"

    def work():
        for number, spec in enumerate(specs, 1):
            store.fetch(spec, build)
            tables.keep(table, pd.DataFrame({"n": [number] * 50}), {"command": str(number)})
            replace_file(told, lambda draft, number=number: draft.write_text(json.dumps(list(range(number)))))

    for _ in range(trials(25)):
        pid = child(work)
        time.sleep(draws.uniform(0.01, 0.25))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        try:
            found = {spec.seed: artefact for spec in specs if (artefact := store.find(spec))}
            assert all(artefact.facts == {"answer": 42} for artefact in found.values())
            frame, origin = tables.read(table)
            assert set(frame["n"]) == {int(origin["command"])}
            if told.exists():
                finished = json.loads(told.read_text())
                assert finished == list(range(len(finished))) and [*found][: len(finished)] == finished
            count.add()
        except Exception as error:
            count.add(f"{type(error).__name__}: {error}")
    store.fetch(dataclasses.replace(SPEC, seed=999), build)
    assert not [path for path in (outputs / "training").iterdir() if path.name.startswith(".")]
    count.report(capsys)


@pytest.mark.slow
def test_a_training_that_is_crashed_at_every_operation_goes_on_from_its_last_epoch(outputs, capsys):
    count, spec = (
        Count("crash points of a training"),
        sl.Training(changes={"epochs": 2, "images": 10, "model_options": {"width": 1}}),
    )
    straight = {name: value.clone() for name, value in sl.train(spec).model.state_dict().items()}
    shutil.rmtree(outputs)

    def check():
        trained = sl.train(spec)
        assert all(torch.equal(value, straight[name]) for name, value in trained.model.state_dict().items())
        assert [path.name for path in store.place(spec).parent.iterdir()] == [spec.name]
        shutil.rmtree(outputs)

    at_every_operation(lambda: sl.train(spec), check, count)
    count.report(capsys, least=20)


@pytest.mark.slow
def test_a_training_that_is_killed_at_random_moments_gives_the_weights_of_one_that_was_not(outputs, capsys):
    count, draws = Count("kills of a training"), random.Random(1)
    spec = sl.Training(changes={"epochs": 8, "model_options": {"width": 1}, "images": 400})
    straight = {name: value.clone() for name, value in sl.train(spec).model.state_dict().items()}
    history = sl.train(spec).history
    for _ in range(trials(2)):
        shutil.rmtree(outputs)
        kills = 0
        while not store.place(spec).exists() and kills < 40:
            pid = child(lambda: sl.train(spec))
            time.sleep(draws.uniform(0.05, 0.4) + 0.02 * kills)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            kills += 1
            count.add()
        trained = sl.train(spec)
        same = all(torch.equal(value, straight[name]) for name, value in trained.model.state_dict().items())
        count.add(None if same and trained.history.equals(history) else f"other weights after {kills} kills")
        assert not [path for path in store.place(spec).parent.iterdir() if path.name.startswith(".")]
    count.report(capsys, least=3)
