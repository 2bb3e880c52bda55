"""The profile of clusters on a real SLURM: a cluster of this one machine, two jobs at once, one of which is killed."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
import yaml
from test_batch import finished, printed, project, results, snakemake, until

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(
        not all(map(shutil.which, ("munged", "slurmctld", "slurmd", "sbatch"))) or os.geteuid() != 0,
        reason="needs root and Debian's slurm-wlm and munge",
    ),
]

PLAN = {
    "title": "Two trainings",
    "parameters": "params/embedded.yaml",
    "sweep": {"seed": [0, 1]},
    "notebooks": {"01_train": {}, "03_allegiance": {"images": 20}},
}
HOME = Path("/etc/slurm")
CONTROLLER = """
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=9000 Gres=gpu:2
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture
def cluster(tmp_path):
    """A cluster of one node with two processors and two GPUs, which stand for no device; ends with the test."""
    folder = tmp_path / "slurm"
    (folder / "state").mkdir(parents=True)
    (folder / "spool").mkdir()
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o400)
    ports = free_port(), free_port()
    own = {HOME / "slurm.conf": CONTROLLER.format(host=socket.gethostname(), ports=ports, folder=folder)}
    own[HOME / "gres.conf"] = "Name=gpu File=/dev/null\nName=gpu File=/dev/zero\n"
    if any(file.exists() for file in own):
        pytest.skip(f"this machine belongs to a cluster: {HOME} has its settings")
    HOME.mkdir(exist_ok=True)
    for file, text in own.items():  # a job does not keep SLURM_CONF, which could name another place
        file.write_text(text)
    files = {name: f"--{name}-file={folder}/munged.{name}" for name in ("pid", "log", "seed")}
    munge = ["munged", "--force", "--foreground", f"--key-file={key}", f"--socket={folder}/munge.socket", *files.values()]
    programs = [subprocess.Popen(munge)]
    until((folder / "munge.socket").exists, "munged")
    for name in ("slurmctld", "slurmd"):
        programs.append(subprocess.Popen([name, "-D"], stdout=(folder / f"{name}.log").open("w"), stderr=subprocess.STDOUT))
    until(lambda: "idle" in asked("sinfo", "--noheader", "--format=%t"), "an idle node")
    yield folder
    subprocess.run(["scancel", "--user=root"], check=False)
    for one in reversed(programs):
        one.send_signal(signal.SIGTERM)
        one.wait(30)
    for file in own:
        file.unlink()


def asked(*command):
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def running():
    """The numbers of the jobs that run, as the cluster says."""
    return asked("squeue", "--noheader", "--states=RUNNING", "--format=%A").split()


def test_two_jobs_run_at_once_and_a_killed_one_is_made_again_to_the_same_bytes(cluster, tmp_path):
    folders = [project(tmp_path / name) for name in ("calm", "cluster")]
    for folder in folders:
        (folder / "params" / "plans" / "two.yaml").write_text(yaml.safe_dump(PLAN))
    process = snakemake("--cores", "2", "--config", "plans=two", folder=folders[0], OMP_NUM_THREADS="1")
    text = printed(process)
    assert process.returncode == 0, text
    words = ["--profile", "workflow/profiles/slurm", "--seconds-between-status-checks", "2"]
    words += ["--slurm-init-seconds-before-status-checks", "2", "--slurm-status-command", "squeue"]  # it has no accounting
    process = snakemake(*words, "--config", "plans=two", folder=folders[1])
    jobs = until(lambda: (found := running()) and len(found) == 2 and found, "two jobs at once")
    checkpoints = folders[1] / "outputs" / "training"
    until(lambda: list(checkpoints.glob(".*.checkpoint.safetensors")) or process.poll() is not None, "a checkpoint")
    assert jobs[0] in running()
    subprocess.run(["scancel", "--signal=KILL", "--full", jobs[0]], check=True)
    text = printed(process)
    assert process.returncode == 0, text
    assert f"SLURM-job '{jobs[0]}' failed" in text, text
    time.sleep(1)
    assert running() == []
    made = sorted((folders[1] / "outputs" / "runs" / "two").rglob("*.ipynb"))
    assert len(made) == 4 and all(map(finished, made))
    expected = results(folders[0])
    assert len(expected) == 6 and results(folders[1]) == expected
