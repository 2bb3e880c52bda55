"""The batch: plans at both scales, profiles, GPUs handed out one by one, a queue, and a batch that is killed in the middle."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import yaml

import saliency_lib as sl
from saliency_lib import paths
from saliency_lib.artefacts import tables
from saliency_lib.artefacts.recipes import SCALES
from saliency_lib.data.series import BOXES, PROCESSES
from saliency_lib.notebook.blessed import EQUIVALENT
from workflow import collect, plans

WORKFLOW = paths.ROOT / "workflow"
BIN = Path(sys.executable).parent
AT_SCALE = [(plan, scale) for plan in plans.names() for scale in plans.scales(plan)]


def until(found, what):
    """Wait until `found()` gives something true, and return it."""
    for _ in range(2000):
        if value := found():
            return value
        time.sleep(0.05)
    pytest.fail(f"waited in vain for {what}")


def snakemake(*words, folder=paths.ROOT, **environment):
    """A run of the batch with its own outputs, no progress bars and one thread."""
    environment = (
        os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}", "TQDM_DISABLE": "1", "PYTHONPATH": str(folder)} | environment
    )
    return subprocess.Popen(
        [BIN / "snakemake", "--nolock", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
        env=environment,
        start_new_session=True,
    )


def printed(process):
    text, _ = process.communicate()
    return text


# Plans.


@pytest.mark.parametrize(("plan", "scale"), AT_SCALE)
def test_every_step_of_a_plan_asks_for_models_and_data_that_there_are(plan, scale):
    for step in plans.steps(plan, scale):
        values, declared = step.in_full, plans.defaults(step.notebook)
        for name, value in values.items():
            assert declared[name] is None or type(value) is type(declared[name]), (step.notebook, name)
        recipes = str(values.get("recipes") or values.get("recipe") or "").split() or [None]
        for model in str(values.get("model") or values.get("models") or "").split():
            for recipe in recipes:
                sl.Training(values["dataset"], model, recipe, values["scale"], values["seed"])
        assert step.scale == scale and (scale == "embedded" or values["scale"] == "paper")


def test_plans_know_the_scales_of_trainings():
    assert {*SCALES} - {*plans.SCALES} == {"real"}  # of trainings, which a notebook of a plan may name


def test_each_paper_has_a_plan_at_both_scales():
    reported = {file.stem for file in (paths.ROOT / "data" / "reported").glob("*.csv")} - {"claims"}
    assert set(plans.PAPERS) == reported == set(plans.USUAL["paper"])
    for paper in plans.PAPERS:
        assert plans.scales(paper) == ["embedded", "paper"]
        for scale in plans.scales(paper):
            assert any(step.notebook == f"04_{paper}" for step in plans.steps(paper, scale))


@pytest.mark.parametrize("paper", ["active_gradients", "saliency_benchmark", "score_matching"])
def test_the_papers_scale_has_the_networks_of_its_reported_numbers(paper):
    _, numbers = sl.notebook.reported(paper)
    chosen = [step.in_full for step in plans.steps(paper, "paper")]
    ours = {(one.get("dataset"), one.get("model"), one.get("recipe") or "standard") for one in chosen}
    theirs = set(numbers[["dataset", "model", "training"]].itertuples(index=False, name=None))
    theirs = {row for row in theirs if row[0] in sl.DATASETS and row[2] != "pretrained"}
    assert theirs <= ours and len(theirs) >= 4


def test_the_papers_scale_of_guided_training_has_all_time_series():
    steps = plans.steps("guided_training", "paper")
    series = [step.parameters["dataset"] for step in steps if step.notebook == "03_time_series"]
    assert sorted(series) == sorted(f"series_{process}_{shape}" for process in PROCESSES for shape in BOXES)


def test_the_usual_batch_runs_every_notebook_and_none_twice():
    steps = plans.batch()
    assert {step.notebook for step in steps} == {file.stem for file in paths.NOTEBOOKS.glob("0[1-6]_*.ipynb")}
    full = [(step.notebook, sorted(map(str, step.in_full.items()))) for step in steps]
    assert not [one for one in full if full.count(one) > 1]


def write_plan(folder, monkeypatch, change, like="photos"):
    """Write a plan `mine` that is another one but for some fields, in a copy of params/."""
    content = yaml.safe_load((paths.PARAMS / "plans" / f"{like}.yaml").read_text())
    shutil.copytree(paths.PARAMS, folder / "params")
    (folder / "params" / "plans" / "mine.yaml").write_text(yaml.safe_dump(content | change))
    monkeypatch.setattr(paths, "PARAMS", folder / "params")


def test_the_same_sweep_at_the_other_scale_has_a_folder_of_its_own(tmp_path, monkeypatch):
    run = {"sweep": {"model": ["cnn"]}, "notebooks": {"01_train": {}}}
    write_plan(tmp_path, monkeypatch, run | {"paper": [run]})
    (small,), (large,) = plans.steps("mine"), plans.steps("mine", "paper")
    assert small.output != large.output and large.file == "params/paper.yaml"


def test_the_steps_of_all_plans_at_both_scales_share_no_folder():
    steps = [step for plan, scale in AT_SCALE for step in plans.steps(plan, scale)]
    assert len({step.output for step in steps}) == len(steps)
    folders = {scale: {step.output.parent for step in steps if step.scale == scale} for scale in ("embedded", "paper")}
    assert not folders["embedded"] & folders["paper"]


def test_a_step_waits_for_earlier_stages_that_differ_in_nothing_it_sweeps():
    steps = plans.steps("score_matching", "paper")
    last = steps[-1]
    assert last.notebook == "04_score_matching"
    assert set(plans.needed_by(last)) == {step.output for step in steps if step.notebook == "01_train"} and len(steps) == 6
    steps = plans.steps("active_gradients", "paper")
    for step in steps:
        if step.notebook.startswith("04"):
            assert plans.needed_by(step) == [step.output.with_name("01_train.ipynb")]


def test_what_a_step_waits_for_does_not_depend_on_the_batch():
    """Snakemake runs a notebook again when its inputs are others."""
    for plan in plans.PAPERS:
        for step in plans.steps(plan):
            assert {file.parent for file in plans.needed_by(step)} <= {step.output.parent}


def test_unknown_scales_and_plans_without_one_say_what_there_is():
    with pytest.raises(ValueError, match="scale 'papre' is not known; did you mean 'paper'"):
        plans.batch("photos", "papre")
    with pytest.raises(ValueError, match=r"plan 'photos' has no scale 'paper'; plans that have it: active_gradients, guided_non"):
        plans.batch("active_gradients,photos", "paper")
    with pytest.raises(ValueError, match="plan 'foto' is not known"):
        plans.batch("shapes,foto")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"title": None}, "title must be a valid string, got None"),
        ({"parameters": "params/foto.yaml"}, "plan 'mine' names the parameter file params/foto.yaml, which does not exist"),
        ({"beside": ["embeded"]}, "plan beside it 'embeded' is not known; did you mean 'embedded'"),
        ({"kept": {"mine": "03_deletion"}}, "kept.mine must be a valid dictionary, got '03_deletion'"),
        ({"paper": {"sweep": {}}}, "paper must be a valid list, got {'sweep': {}}"),
        ({"paper": []}, "paper must have at least 1 item"),
        ({"paper": [{"sweep": {}}]}, "paper.0.notebooks is missing"),
        ({"paper": [{"notebooks": {}, "title": "x"}]}, "field of run 'title' is not known; one of: notebooks, parameters, sweep"),
        ({"paper": [{"notebooks": {}, "sweep": {"model": "cnn"}}]}, "paper.0.sweep.model must be a valid list, got 'cnn'"),
        ({"paper": [{"notebooks": {}, "sweep": {"model": []}}]}, "paper.0.sweep.model must have at least 1 item"),
        ({"paper": [{"notebooks": {"01_train": {"modle": "cnn"}}}]}, "parameter of 01_train in plan 'mine' 'modle' is not known"),
        ({"paper": [{"notebooks": {"01_train": {}}}, {"notebooks": {"01_train": {"seed": 1}}}]}, "'mine' runs 01_train twice"),
    ],
)
def test_a_bad_plan_is_refused(change, message, tmp_path, monkeypatch):
    write_plan(tmp_path, monkeypatch, {"paper": [{"notebooks": {}}]} | change)
    with pytest.raises(ValueError, match=message):
        [plans.steps("mine", scale) for scale in plans.SCALES]


def test_the_error_of_a_bad_plan_names_its_file(tmp_path, monkeypatch):
    write_plan(tmp_path, monkeypatch, {"titel": "x"})
    with pytest.raises(
        ValueError, match=r"^params/plans/mine.yaml is not a valid plan: field of plan 'titel' .* mean 'title'\?$"
    ):
        plans.read("mine")


# Tables that are kept.


def kept_tables():
    return [(plan, name) for plan in plans.names() for name in collect.kept(plan)]


@pytest.mark.parametrize(("plan", "name"), kept_tables())
def test_the_measured_tables_of_a_name_come_from_the_step_that_its_plan_keeps(plan, name):
    step = collect.kept(plan)[name]
    made = [json.loads(file.read_text()) for file in (paths.ROOT / "data" / "measured").glob(f"{name}_*.json")]
    made = [one for one in made if f"/{step.notebook}.ipynb " in one["command"]]
    assert made or plans.read(plan).hours  # which a plan says that is not measured yet
    for origin in made:
        common = origin["parameters"].keys() & step.in_full.keys() - {*EQUIVALENT}
        assert {key: origin["parameters"][key] for key in common} == {key: step.in_full[key] for key in common}
        if name != "imagenet_samples":  # measured with an earlier notebook, which had other parameters
            equivalent = {key: step.in_full[key] for key in EQUIVALENT if key in step.in_full}
            assert plans.defaults(step.notebook) | origin["parameters"] | equivalent == step.in_full


BENCHMARKS = ("benchmarks", "rise_passes", "architectures")  # tables of `python -m benchmarks` and `python -m docs.architectures`


def test_every_measured_table_is_kept_by_one_plan():
    names = [name for _, name in kept_tables()]
    files = [file.stem for file in (paths.ROOT / "data" / "measured").glob("*.csv") if file.stem not in BENCHMARKS]
    assert len(set(names)) == len(names)
    assert all(any(file.startswith(f"{name}_") for name in names) for file in files) and len(files) > 15


def sealed(step, **changed):
    """A table in the outputs folder as a step's notebook keeps it."""
    parameters = step.in_full | changed
    file = paths.OUTPUTS / "tables" / "-".join([step.notebook, *map(str, changed.values())]) / "allegiance.csv"
    tables.keep(file, pd.DataFrame({"fill": [parameters["fill"]]}), {"command": step.command, "parameters": parameters})
    return file


BOTH = """
title: Two fills
parameters: params/cifar10.yaml
sweep: {model: [cnn], fill: [black, white]}
notebooks:
  03_allegiance: {scale: paper, images: 10000}
kept:
  cifar10_black: {notebook: 03_allegiance, fill: black}
  cifar10_white: {notebook: 03_allegiance, fill: white}
"""


@pytest.fixture
def measured(outputs, tmp_path, monkeypatch):
    """An empty folder for measured tables, in a copy of what plans read."""
    for name in ("params", "notebooks/blessed"):
        shutil.copytree(paths.ROOT / name, tmp_path / name)
    (tmp_path / "data" / "measured").mkdir(parents=True)
    (tmp_path / "params" / "plans" / "both.yaml").write_text(BOTH)
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(paths, "PARAMS", tmp_path / "params")
    return tmp_path / "data" / "measured"


def test_collecting_copies_each_kept_table_with_its_origin_under_its_name(measured):
    for step in collect.kept("both").values():
        sealed(step, fill=step.parameters["fill"])
        sealed(step, fill=step.parameters["fill"], images=7)  # another run, which is not kept
    expected = [measured / f"cifar10_{fill}_allegiance.csv" for fill in ("black", "white")]
    expected[0].write_text("an older one")
    assert collect.collect(["both"]) == (expected, [])
    for fill in ("black", "white"):
        table, origin = tables.measured(f"cifar10_{fill}_allegiance")
        assert list(table["fill"]) == [fill] and origin["parameters"]["images"] == 10000
    assert len(list(measured.iterdir())) == 4


def test_collecting_copies_nothing_if_one_table_is_missing_or_was_changed(measured):
    black, white = collect.kept("both").values()
    sealed(black, fill="black")
    with pytest.raises(FileNotFoundError, match=r"no table made by `papermill .* white.*; run `make measured MEASURED=both"):
        collect.collect(["both"])
    sealed(white, fill="white").write_text("fill\ngrey\n")
    with pytest.raises(ValueError, match=r"allegiance\.csv was changed after it was made"):
        collect.collect(["both"])
    assert not list(measured.iterdir())


def test_a_plan_that_says_its_hours_is_collected_in_parts(measured):
    file = paths.PARAMS / "plans" / "both.yaml"
    file.write_text(file.read_text().replace("sweep:", "hours: 2\nsweep:"))
    black, _ = collect.kept("both").values()
    sealed(black, fill="black")
    assert collect.collect(["both"]) == ([measured / "cifar10_black_allegiance.csv"], ["cifar10_white"])


def test_how_many_processes_shared_a_run_does_not_matter(measured):
    one = collect.kept("cifar10_single_deletion")["cifar_resnet20_single_deletion"]
    file = paths.OUTPUTS / "tables" / one.notebook / "claims.csv"
    file = file.parent.with_name(f"{one.notebook}-x") / file.name
    parameters = one.in_full | {"processes": 1}
    assert one.in_full["processes"] == 2
    tables.keep(file, pd.DataFrame({"claim": ["a"]}), {"command": one.command, "parameters": parameters})
    assert collect.collect(["cifar10_single_deletion"])[1] == []
    tables.keep(file, pd.DataFrame({"claim": ["a"]}), {"command": one.command, "parameters": parameters | {"images": 7}})
    assert collect.collect(["cifar10_single_deletion"]) == ([], ["cifar_resnet20_single_deletion"])


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        ({"notebook": "03_allegiance"}, "mine in kept of plan 'mine' describes 2 of its notebook runs, not one"),
        ({"notebook": "03_deletion", "fill": "black"}, "mine in kept of plan 'mine' describes 0 of its notebook runs"),
        (
            {"notebook": "03_allegiance", "fil": "black"},
            "field of mine in kept of plan 'mine' 'fil' is not known; did you mean 'fill'",
        ),
    ],
)
def test_a_kept_table_that_no_single_step_makes_is_refused(kept, message, tmp_path, monkeypatch):
    write_plan(tmp_path, monkeypatch, yaml.safe_load(BOTH) | {"kept": {"mine": kept}})
    with pytest.raises(ValueError, match=message):
        collect.kept("mine")


def test_collecting_from_the_command_line_says_what_is_wrong_in_one_line():
    ended = subprocess.run([sys.executable, "-m", "workflow.collect", "fotos"], capture_output=True, text=True, cwd=paths.ROOT)
    assert ended.returncode == 1 and ended.stderr == "workflow.collect: plan 'fotos' is not known; did you mean 'photos'?\n"


# Dry runs: none of them needs data.


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scale", "profile"), [("embedded", "gpus"), ("paper", "slurm")], ids=["embedded on GPUs", "paper on a cluster"]
)
def test_a_dry_run_of_all_plans_prints_what_each_would_run(scale, profile, tmp_path, monkeypatch):
    chosen = [plan for plan in plans.names() if scale in plans.scales(plan)]
    words = ["-n", "-p", "--forceall", "--profile", WORKFLOW / "profiles" / profile]
    words += ["--config", f"scale={scale}", f"plans={','.join(chosen)}"]
    process = snakemake(*words, SALIENCY_OUTPUTS=str(tmp_path / "outputs"), SALIENCY_DATA=str(tmp_path / "none"))
    text = printed(process)
    assert process.returncode == 0, text
    monkeypatch.setattr(plans, "RUNS", tmp_path / "outputs" / "runs")
    lines = re.findall(r"OMP_NUM_THREADS=\d+ (.*)", text)
    given = "workflow/gpu.sh " if profile == "gpus" else ""
    assert sorted(lines) == sorted(f"{given}{step.command}" for step in plans.batch(",".join(chosen), scale))
    assert ("runtime=1440" in text and "nodes=1" in text) == (profile == "slurm")
    assert not (tmp_path / "outputs").exists()


@pytest.mark.slow
def test_a_batch_at_an_unknown_scale_stops_at_once():
    process = snakemake("-n", "--cores", "1", "--config", "scale=large")
    assert "scale 'large' is not known; one of: embedded, paper" in printed(process)
    assert process.returncode != 0


# GPUs: each job has one to itself. The jobs here only write down which they were given.


def on_gpu(command, *words, errors=None, **environment):
    words = [WORKFLOW / "gpu.sh", "bash", "-c", command, "job", *map(str, words)]
    return subprocess.Popen(words, env=os.environ | environment, stderr=errors)


def given(file):
    return until(lambda: file.exists() and file.read_text().strip(), f"{file.name} to be given a GPU")


@pytest.mark.slow
def test_jobs_have_gpus_of_their_own_and_a_killed_one_gives_its_back(tmp_path):
    shared = {"CUDA_VISIBLE_DEVICES": "3,GPU-5a", "TMPDIR": str(tmp_path)}
    hold = 'echo "$CUDA_VISIBLE_DEVICES" > "$1"; exec sleep 600'
    jobs = {name: on_gpu(hold, tmp_path / name, **shared) for name in "ab"}
    try:
        assert {given(tmp_path / "a"), given(tmp_path / "b")} == {"3", "GPU-5a"}
        with (tmp_path / "said").open("w") as errors:
            jobs["c"] = on_gpu(hold, tmp_path / "c", errors=errors, **shared)
        until(lambda: "all of GPU 3 GPU-5a are taken; waiting for one" in (tmp_path / "said").read_text(), "a word that it waits")
        assert not (tmp_path / "c").exists()
        jobs["a"].kill()
        assert given(tmp_path / "c") == given(tmp_path / "a")
    finally:
        for job in jobs.values():
            job.kill()
            job.wait()


@pytest.mark.slow
def test_no_gpu_is_ever_given_to_two_jobs_at_once(tmp_path):
    shared = {"CUDA_VISIBLE_DEVICES": "0,1,2", "TMPDIR": str(tmp_path)}
    work = 'cd "$1"; mkdir busy-$CUDA_VISIBLE_DEVICES || exit 1; sleep 0.2; rmdir busy-$CUDA_VISIBLE_DEVICES; touch done-$2'
    jobs = [on_gpu(work, tmp_path, number, **shared) for number in range(6)]
    assert [job.wait(120) for job in jobs] == [0] * 6
    assert len(list(tmp_path.glob("done-*"))) == 6


@pytest.mark.slow
def test_the_gpus_are_those_that_the_driver_lists(tmp_path):
    fake = tmp_path / "bin" / "nvidia-smi"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\nprintf '0\\n1\\n'\n")
    fake.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    environment |= {"PATH": f"{fake.parent}:{os.environ['PATH']}", "TMPDIR": str(tmp_path)}
    words = [WORKFLOW / "gpu.sh", "sh", "-c", 'echo "$CUDA_VISIBLE_DEVICES"']
    assert subprocess.run(words, capture_output=True, text=True, env=environment).stdout == "0\n"
    refused = subprocess.run(words, capture_output=True, text=True, env=environment | {"CUDA_VISIBLE_DEVICES": ""})
    assert refused.returncode == 1 and "no GPU here" in refused.stderr and not refused.stdout


# The queue of one machine.


def queue(script, *words, folder):
    process = subprocess.run([WORKFLOW / f"{script}.sh", *words], capture_output=True, text=True, cwd=folder, check=True)
    return process.stdout.strip()


def test_the_queue_tells_running_ended_failed_and_killed_jobs_apart(tmp_path):
    def submit(text):
        script = Path(tempfile.mkstemp(dir=tmp_path)[1])
        script.write_text(text)
        return queue("submit", script.name, folder=tmp_path)

    def status(number, wanted):
        return until(lambda: queue("status", number, folder=tmp_path) == wanted, f"a job that is {wanted}")

    def group(number):
        file = tmp_path / ".snakemake" / "queue" / number / "group"
        return int(until(lambda: file.exists() and file.read_text().strip(), "a job to begin"))

    (tmp_path / "gate").touch()
    waiting = "while [ -e gate ]; do sleep 0.05; done; exit 0"
    ended, stopped, killed = submit(waiting), submit("sleep 600"), submit("sleep 600")
    assert [queue("status", number, folder=tmp_path) for number in (ended, stopped, killed)] == ["running"] * 3
    group(stopped)
    queue("cancel", stopped, folder=tmp_path)
    os.killpg(group(killed), signal.SIGKILL)
    assert status(stopped, "failed") and status(killed, "failed")
    assert queue("status", ended, folder=tmp_path) == "running"
    (tmp_path / "gate").unlink()
    assert status(ended, "success")
    assert status(submit("exit 3"), "failed")
    assert queue("status", "unheard", folder=tmp_path) == "failed"
    told = subprocess.run([WORKFLOW / "cancel.sh", "unheard"], capture_output=True, text=True, cwd=tmp_path).stderr
    assert told == "workflow/cancel.sh: there is no job unheard\n"


PLAN = {
    "title": "Small",
    "parameters": "params/embedded.yaml",
    "notebooks": {"01_train": {}, "03_allegiance": {"images": 20, "methods": "gradient random"}},
}


def project(folder):
    """A copy of the project with a small plan `small`, whose outputs and batch are its own."""
    for name in ("saliency_lib", "params", "notebooks", "workflow"):
        shutil.copytree(paths.ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"))
    (folder / "data").mkdir()
    for name in ("reported", "measured"):
        (folder / "data" / name).symlink_to(paths.ROOT / "data" / name)
    (folder / "params" / "plans" / "small.yaml").write_text(yaml.safe_dump(PLAN))
    recipes = folder / "params" / "training.yaml"
    recipes.write_text(
        recipes.read_text().replace("{model: cnn, dataset: mnist5k, epochs: 25,", "{model: cnn, dataset: mnist5k, epochs: 3,")
    )
    assert recipes.read_text() != (paths.PARAMS / "training.yaml").read_text()
    return folder


def finished(file):
    """Whether an executed notebook ran to its end."""
    if not file.exists():
        return False
    cells = [cell for cell in nbformat.read(file, as_version=4).cells if cell.cell_type == "code"]
    return all(cell.execution_count for cell in cells)


@pytest.mark.slow
def test_a_batch_runs_through_an_executor_of_clusters(tmp_path):
    folder = project(tmp_path / "project")
    words = ["--profile", "workflow/profiles/local-cluster", "--seconds-between-status-checks", "1"]
    process = snakemake(*words, "--config", "plans=benchmarks", folder=folder)
    text = printed(process)
    assert process.returncode == 0, text
    assert re.search(r"Submitted job \d+ with external jobid", text)
    assert finished(folder / "outputs" / "runs" / "benchmarks" / "run" / "05_benchmarks.ipynb")
    (log,) = (folder / ".snakemake" / "queue").glob("*/log")
    assert "1 of 1 steps (100%) done" in log.read_text()


def results(folder):
    files = [*(folder / "outputs" / "tables").rglob("*.*"), *(folder / "outputs" / "training").glob("*/weights.safetensors")]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


@pytest.mark.killed
def test_a_batch_that_is_killed_and_started_again_gives_the_same_tables(tmp_path):
    words = ["--cores", "1", "--rerun-incomplete", "--config", "plans=small"]
    calm, killed = project(tmp_path / "calm"), project(tmp_path / "killed")
    process = snakemake(*words, folder=calm)
    text = printed(process)
    assert process.returncode == 0, text
    outputs = killed / "outputs"
    for sign, notebook in (("training/.*.checkpoint.safetensors", "01_train"), ("score/[!.]*", "03_allegiance")):
        process = snakemake(*words, folder=killed)
        until(lambda one=process, sign=sign: list(outputs.glob(sign)) or one.poll() is not None, sign)
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        process.stdout.close()
        assert list(outputs.glob(sign)) and not finished(outputs / "runs" / "small" / "run" / f"{notebook}.ipynb")
    assert not (outputs / "tables").exists()
    process = snakemake(*words, folder=killed)
    text = printed(process)
    assert process.returncode == 0, text
    expected = results(calm)
    assert len(expected) == 3 and results(killed) == expected
