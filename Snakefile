# The batch: one rule a stage, each a papermill line. `snakemake -n -p` prints the lines, `snakemake --cores 2` runs them.
#
#   snakemake --cores 2                                        the plans that `make reproduce` runs
#   snakemake --cores 2 --config plans=photos                  one plan of params/plans/ (several: plans=embedded,photos)
#   snakemake --cores 8 --config plans=score_matching scale=paper    the same paper at its own scale (without plans: all five)
#   snakemake --cores 8 --resources gpu=2                      two GPUs: every job has one of them to itself
#   snakemake --profile workflow/profiles/slurm ...            a cluster; workflow/README.md has the profiles
#
# An executed notebook in outputs/runs/ is done and is not run again until it, its parameters or what it builds on change.
# Results lie in the store, so that a notebook which is run again finds them.
import sys

sys.path.insert(0, workflow.basedir)
from saliency_lib import paths
from workflow import plans

RUNS = paths.relative(plans.RUNS)
SCALE = str(config.get("scale", "embedded"))
STEPS = {(step.plan, step.combination, step.notebook): step for step in plans.batch(config.get("plans"), SCALE)}

# where GPUs are counted, a job gets one of its own; a cluster's scheduler does this itself
OWN_GPU = "workflow/gpu.sh " if "gpu" in workflow.resource_settings.resources else ""

# what a job asks a cluster for: all that trains many networks can use, at most so many cores, megabytes and minutes
MANY, FEW = (8, 4) if SCALE == "paper" else (8, 1)
MEMORY, MINUTES = (32_000, 24 * 60) if SCALE == "paper" else (4_000, 60)


def step(wildcards):
    return STEPS[wildcards.plan, wildcards.combination, wildcards.notebook]


def needs(wildcards):
    """The notebook itself, its parameter file, and the executed notebooks of the stages before it in its plan."""
    one = step(wildcards)
    return [f"notebooks/{one.notebook}.ipynb", one.file, *map(paths.relative, plans.needed_by(one))]


def command(wildcards):
    return step(wildcards).command


rule all:
    input:
        [paths.relative(one.output) for one in STEPS.values()],


rule train:
    input: needs
    output: RUNS + "/{plan}/{combination}/{notebook,01_[^/]+}.ipynb"
    params: command=command
    threads: MANY
    resources: gpu=1, mem_mb=MEMORY, runtime=MINUTES
    shell: "OMP_NUM_THREADS={threads} {OWN_GPU}{params.command}"


rule explain:
    input: needs
    output: RUNS + "/{plan}/{combination}/{notebook,02_[^/]+}.ipynb"
    params: command=command
    threads: MANY
    resources: gpu=1, mem_mb=MEMORY, runtime=MINUTES
    shell: "OMP_NUM_THREADS={threads} {OWN_GPU}{params.command}"


rule measure:
    input: needs
    output: RUNS + "/{plan}/{combination}/{notebook,03_[^/]+}.ipynb"
    params: command=command
    threads: FEW
    resources: gpu=1, mem_mb=MEMORY, runtime=MINUTES
    shell: "OMP_NUM_THREADS={threads} {OWN_GPU}{params.command}"


rule paper:
    input: needs
    output: RUNS + "/{plan}/{combination}/{notebook,04_[^/]+}.ipynb"
    params: command=command
    threads: FEW
    resources: gpu=1, mem_mb=MEMORY, runtime=MINUTES
    shell: "OMP_NUM_THREADS={threads} {OWN_GPU}{params.command}"


rule compare:
    input: needs
    output: RUNS + "/{plan}/{combination}/{notebook,05_[^/]+}.ipynb"
    params: command=command
    threads: FEW
    resources: gpu=1, mem_mb=MEMORY, runtime=MINUTES
    shell: "OMP_NUM_THREADS={threads} {OWN_GPU}{params.command}"
