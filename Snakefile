# The batch: one rule a stage, each a papermill line. `snakemake -n -p` prints the lines, `snakemake --cores 2` runs them.
#
#   snakemake --cores 2                              the plans that `make reproduce` runs
#   snakemake --cores 2 --config plans=photos        one plan of params/plans/ (several: plans=embedded,photos)
#   snakemake --cores 8 --resources gpu=1            at most one job at a time on the GPU
#
# An executed notebook in outputs/runs/ is done and is not run again until it, its parameters or what it builds on change.
# Results lie in the store, so that a notebook which is run again finds them.
from saliency_lib import paths, plans

RUNS = paths.relative(plans.RUNS)
STEPS = {
    (step.plan, step.combination, step.notebook): step
    for plan in str(config.get("plans", "embedded,shapes,time_series,photos,benchmarks")).split(",")
    for step in plans.steps(plan)
}


def step(wildcards):
    return STEPS[wildcards.plan, wildcards.combination, wildcards.notebook]


def needs(wildcards):
    """The notebook itself, its parameter file, and the executed notebooks of the stages before it."""
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
    threads: workflow.cores
    resources: gpu=1
    shell: "OMP_NUM_THREADS={threads} {params.command}"


rule explain:
    input: needs
    output: RUNS + "/{plan}/{combination}/{notebook,02_[^/]+}.ipynb"
    params: command=command
    threads: workflow.cores
    resources: gpu=1
    shell: "OMP_NUM_THREADS={threads} {params.command}"


rule measure:
    input: needs
    output: RUNS + "/{plan}/{combination}/{notebook,03_[^/]+}.ipynb"
    params: command=command
    threads: 1
    resources: gpu=1
    shell: "OMP_NUM_THREADS={threads} {params.command}"


rule paper:
    input: needs
    output: RUNS + "/{plan}/{combination}/{notebook,0[45]_[^/]+}.ipynb"
    params: command=command
    threads: 1
    shell: "OMP_NUM_THREADS={threads} {params.command}"
