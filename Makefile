# make help
PYTHON ?= python3
CORES ?= 2
export PATH := $(CURDIR)/.venv/bin:$(PATH)
.DEFAULT_GOAL := help
.PHONY: help env reproduce report measured lint check test elsewhere browser killed bench bless lab clean

help:  ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /make \1\t/' | expand -t 18

# nothing is installed inside the conda environment of environment.yml
env: $(if $(filter saliency-compendium,$(CONDA_DEFAULT_ENV)),,.venv/installed)  ## only the environment, in .venv/ (7.5 GB, a few minutes)

.venv/installed: requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name it: make PYTHON=python3.12 ...")'
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet -r requirements.txt
	.venv/bin/python -m pip install --quiet --no-deps --no-build-isolation -e . quantus==0.6.0  # without its opencv, which needs a display
	touch $@

# one batch at a time; the words after BATCH are arguments of snakemake
BATCH = mkdir -p outputs/.locks && flock -o -n -E 9 outputs/.locks/batch snakemake --cores $(CORES) --rerun-incomplete --nolock --quiet rules
ALONE = || { code=$$?; [ $$code != 9 ] || echo "another make is running plans here; wait for it"; exit $$code; }

# the longest jobs begin first, so that the others do not wait for them
LONGEST = score_matching/model-cnn/04_score_matching embedded/model-cnn/05_leaderboard photos/model-efficientnet_lite0/02_explain
reproduce: env  ## run the embedded plans and make the report (under 15 minutes on 2 cores)
	$(BATCH) --prioritize $(LONGEST:%=outputs/runs/%.ipynb) $(ALONE)
	@$(MAKE) --no-print-directory report

REPORT = outputs/report/html/index.html
report: env  ## the HTML report from the executed notebooks; none of them is run again
	python -m docs
	@echo "The report is at $(REPORT)"

# plans that take long; the tables that they keep are in data/measured/
MEASURED = $(patsubst params/plans/%.yaml,%,$(shell grep -l ^kept: params/plans/*.yaml))
measured: env  ## run the plans that take long and copy their tables to data/measured/ (MEASURED="<plan> <plan>" for some)
	$(BATCH) --config plans='$(MEASURED)' $(ALONE)
	python -m workflow.collect $(MEASURED)

lint: env
	ruff check .
	ruff format --check .
	mypy

PYTEST = SALIENCY_PLUGINS=none OMP_NUM_THREADS=1 pytest -n $(CORES) --dist worksteal
check: lint  ## style, types and fast tests (under 2 minutes on 2 cores)
	$(PYTEST) -m 'not slow and not browser and not killed and not slurm and not measured'

test: lint  ## style, types, all tests, and the notebooks' stored outputs (under 10 minutes on 2 cores)
	$(PYTEST)
	$(PYTEST) --dist loadfile --no-loadscope-reorder -p no:randomly --nbval $(shell ls -r notebooks/0*.ipynb)  # the longest first

elsewhere: env  ## the tests and the notebooks of the last commit as on six other processors and thread counts (an hour)
	CORES=$(CORES) .ci/elsewhere

# one window has all notebooks, so a file of tests stays with one worker
browser: env  ## JupyterLab, the explorer and the site in a headless Chromium (Debian's, installed if it is missing)
	command -v "$${CHROMIUM:-chromium}" > /dev/null || { as=$$([ $$(id -u) = 0 ] || echo sudo); $$as apt-get update -qq && \
	  $$as env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium; }
	$(PYTEST) --dist loadfile -m browser tests/browser

killed: env  ## the batch, killed twice and started again, gives the same tables byte for byte (3 minutes)
	OMP_NUM_THREADS=1 pytest -m killed tests/test_batch.py

bench: env  ## speed and memory of every engine beside other packages, into data/measured/ (three quarters of an hour on one core)
	OMP_NUM_THREADS=1 python -m benchmarks

# the longest first; a notebook is replaced when it has run to its end
bless: env  ## run the notebooks with their defaults and store the outputs and the tables that `make test` compares
	mkdir -p outputs/.bless
	cd notebooks && ls -r 0*.ipynb | SALIENCY_BLESS=1 OMP_NUM_THREADS=1 $(SILENT) xargs -P $(CORES) -I {} sh -ec ' \
	  papermill --no-progress-bar {} ../outputs/.bless/{} || { echo "{} has failed; see outputs/.bless/{}"; exit 1; }; \
	  PYTHONPATH=.. python -m workflow.tidy ../outputs/.bless/{}; mv ../outputs/.bless/{} {}'
	python -m docs results
SILENT = PYTHONWARNINGS="ignore:DeepLIFT is not complete"  # 03_shift_invariance says it in words

lab: env  ## JupyterLab on the notebooks
	jupyter lab notebooks

clean:  ## delete the results of runs in outputs/; what git tracks stays
	git clean -fdX outputs
