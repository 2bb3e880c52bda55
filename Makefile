# make help
PYTHON ?= python3
CORES ?= 2
export PATH := $(CURDIR)/.venv/bin:$(PATH)
.DEFAULT_GOAL := help
.PHONY: help env reproduce report measured test browser killed lint bench bless lab clean

help:  ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /make \1\t/' | expand -t 18

# inside the conda environment of environment.yml nothing is installed
env: $(if $(filter saliency-compendium,$(CONDA_DEFAULT_ENV)),,.venv/installed)  ## the environment alone, in .venv/ (5 GB, a few minutes)

.venv/installed: requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name it: make PYTHON=python3.12 ...")'
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet -r requirements.txt
	.venv/bin/python -m pip install --quiet --no-deps --no-build-isolation -e . quantus==0.6.0  # without its opencv, which needs a display
	touch $@

# one batch at a time; what follows BATCH are snakemake's arguments
BATCH = mkdir -p outputs/.locks && flock -o -n -E 9 outputs/.locks/batch snakemake --cores $(CORES) --rerun-incomplete --nolock --quiet rules
ALONE = || { code=$$?; [ $$code != 9 ] || echo "another make is running plans here; wait for it"; exit $$code; }

reproduce: env  ## run the embedded plans and make the report (under 25 minutes on 2 cores)
	$(BATCH) $(ALONE)
	@$(MAKE) --no-print-directory report

REPORT = outputs/report/html/index.html
report: env $(REPORT)  ## the HTML report from the executed notebooks, none of them run again
	@echo "The report is at $(REPORT)"

$(REPORT): $(shell find outputs/runs -name '*.ipynb' 2>/dev/null) $(wildcard params/plans/*.yaml docs/*.py workflow/plans.py data/measured/*) CITATION.cff data/reported/claims.csv | env
	python -m docs.site

# plans that take hours, and of those of `make reproduce` the one whose leaderboard the README shows; for each where its tables
# go: outputs/tables/<notebook with parameters>/ to data/measured/<name>_
MEASURED = imagenet_samples cifar10_allegiance cifar10_regimes cifar10_papers embedded
KEPT_imagenet_samples = imagenet_samples:05_leaderboard-imagenet_samples-efficientnet_lite0-* \
  imagenet_guided_nonlinearity:04_guided_nonlinearity-imagenet_samples-efficientnet_lite0-*
KEPT_cifar10_allegiance = cifar10_black:03_allegiance-cifar10-cnn-*=10000 cifar10_white:03_allegiance-cifar10-cnn-*=white
KEPT_cifar10_regimes = cifar10_pixels:03_pixel_perturbation-cifar10-cifar_resnet9-* cifar10_samples:03_sample_quality-cifar10-cifar_resnet9-*
KEPT_cifar10_papers = $(foreach paper,active_gradients guided_nonlinearity saliency_benchmark guided_training,cifar10_$(paper):04_$(paper)-cifar10-cnn-*)
KEPT_embedded = digits:05_leaderboard-mnist5k-cnn-recipes=standard+softplus+saliency_guided+*
empty :=
comma := ,
measured: env  ## what the README says of ImageNet and CIFAR-10, into data/measured/ (hours; MEASURED=<plans> for some)
	$(BATCH) --config plans=$(subst $(empty) $(empty),$(comma),$(strip $(MEASURED))) $(ALONE)
	@for pair in $(foreach plan,$(MEASURED),$(foreach pair,$(KEPT_$(plan)),'$(pair)')); do \
	  set -- outputs/tables/$${pair#*:}; \
	  [ -d "$$1" ] && [ $$# = 1 ] || { echo "there must be one folder outputs/tables/$${pair#*:}; found: $$*"; exit 1; }; \
	  for file in "$$1"/*.*; do cp "$$file" data/measured/$${pair%%:*}_$${file##*/} || exit 1; done; done

lint: env  ## style and format
	ruff check .
	ruff format --check .

test: env lint  ## all tests and the notebooks' stored outputs (under 15 minutes on 2 cores)
	OMP_NUM_THREADS=1 pytest -n $(CORES)
	OMP_NUM_THREADS=1 pytest --nbval notebooks -n $(CORES) --dist loadfile

# without a report, one of the plans that read what the tests have put into the store
browser: env  ## JupyterLab, the explorer and the report in a headless Chromium (Debian's, installed if it is missing)
	command -v "$${CHROMIUM:-chromium}" > /dev/null || { as=$$([ $$(id -u) = 0 ] || echo sudo); $$as apt-get update -qq && \
	  $$as env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium; }
	test -f $(REPORT) || { $(BATCH) --config plans=$(WARM) $(ALONE); }
	@$(MAKE) --no-print-directory report
	OMP_NUM_THREADS=1 pytest -n $(CORES) -m browser tests/browser

WARM = active_gradients,guided_nonlinearity,saliency_benchmark,guided_training,score_matching,shapes,benchmarks

killed: env  ## the batch, killed twice and started again, gives the same tables byte for byte (3 minutes)
	SLOW=1 OMP_NUM_THREADS=1 pytest tests/test_batch.py -k killed_and_started

bench: env  ## every engine beside its peer, into data/measured/ (under 15 minutes on one core)
	OMP_NUM_THREADS=1 python -m benchmarks

bless: env  ## run the notebooks with their defaults and store the outputs that nbval checks
	for notebook in notebooks/0*.ipynb; do \
	  TQDM_DISABLE=1 papermill --no-progress-bar $$notebook $$notebook --cwd notebooks && \
	  nbstripout --keep-output --keep-count --extra-keys 'metadata.papermill metadata.language_info cell.metadata.papermill cell.metadata.execution' $$notebook || exit 1; \
	done

lab: env  ## JupyterLab on the notebooks
	jupyter lab notebooks

clean:  ## delete what runs have made in outputs/, keep what git tracks
	git clean -fdX outputs
