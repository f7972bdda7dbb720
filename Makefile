# One command each: set up what it needs in .venv, then do it.
# A second call starts at once. pip's own configuration and environment
# variables (index, proxy, cache, constraint, ...) hold throughout.
SHELL := /bin/bash
.DEFAULT_GOAL := help

# the virtual environment, and the Python it is made with (empty: the first of
# python3, python3.11, python3.12, python3.10 that fits)
VENV ?= .venv
PYTHON ?=
# what `make install` is for: `downstream` (everything) or `distill`
FOR ?= downstream
# where `make install` installs: an active environment of venv or conda (but
# conda's base), else .venv
CONDA := $(if $(filter-out base,$(CONDA_DEFAULT_ENV)),$(CONDA_PREFIX))
PY ?= $(or $(VIRTUAL_ENV),$(CONDA),$(VENV))/bin/python
# which tests, and more arguments for pytest, as in
# `make test TESTS=tests/test_models ARGS='-x -k clip'`
TESTS ?= tests projects
ARGS ?=
# `make real`: a folder of photographs without labels, and one in ImageNet's
# layout that is never trained on; more arguments for agreement.py in ARGS
PHOTOS ?=
LABELLED ?=
# processes that share the tests; each computes with one thread
JOBS ?= auto

# Without bytecode beside the sources every process compiles what it imports.
unexport PYTHONDONTWRITEBYTECODE

STAMPS := $(VENV)/.stamps
RUN := $(VENV)/bin/python
# compiling 7 GB of packages to bytecode takes longer than importing the part
# that is used
PIP := -m pip --disable-pip-version-check install --no-compile
# mm* packages want opencv-python, which the headless build stands in for
PINNED := $(RUN) $(PIP) --no-warn-conflicts -c requirements/constraints.txt
MM := tools/install/install_mm.py
MM_FILES := $(wildcard tools/install/*.py) requirements/mminstall.txt

.PHONY: help install demo real reproduce docs test lint format clean

help:  ## list the targets
	@sed -nE 's/^([a-z]+):.*## (.*)/\1\t\2/p' Makefile | expand -t 10

$(STAMPS)/venv:
	@python=$$(PYTHON='$(PYTHON)' tools/install/find_python.sh) && \
	    echo "Virtual environment $(VENV) with $$python" && \
	    "$$python" -m venv '$(VENV)'
	@mkdir -p $(STAMPS) && touch $@

# enough for distillation; mmcv without its compiled operators
$(STAMPS)/runtime: $(STAMPS)/venv requirements/runtime.txt \
    requirements/constraints.txt setup.py kpu_mm/version.py $(MM_FILES)
	$(PINNED) -r requirements/runtime.txt
	$(RUN) $(MM) --for distill
	$(RUN) $(PIP) --no-deps --editable .
	@touch $@

$(STAMPS)/demo: $(STAMPS)/runtime requirements/demo.txt
	$(PINNED) -r requirements/demo.txt
	@touch $@

$(STAMPS)/lint: $(STAMPS)/runtime requirements/tests.txt
	$(PINNED) -r requirements/tests.txt
	@touch $@

$(STAMPS)/test: $(STAMPS)/lint requirements/downstream.txt \
    requirements/export.txt requirements/page.txt
	$(PINNED) -r requirements/downstream.txt -r requirements/export.txt \
	    -r requirements/page.txt
	$(RUN) $(MM) --for downstream
	@touch $@

# released weights, which no other target needs
$(STAMPS)/real: $(STAMPS)/lint requirements/real.txt
	$(PINNED) -r requirements/real.txt
	@touch $@

# The reference imports every module, and the quick start trains.
$(STAMPS)/docs: $(STAMPS)/test requirements/docs.txt
	$(PINNED) -r requirements/docs.txt
	@touch $@

# An environment that has torch keeps its versions wherever they are new enough.
install: $(if $(filter $(VENV)/%,$(PY)),$(STAMPS)/venv)  ## install kpu_mm for use: FOR=downstream or FOR=distill
	pins=$$('$(PY)' -c 'import importlib.util as u; print("" if \
	    u.find_spec("torch") else "-c requirements/constraints.txt")') && \
	'$(PY)' $(PIP) $$pins -r requirements/runtime.txt \
	    $(if $(filter downstream,$(FOR)),-r requirements/downstream.txt)
	'$(PY)' $(MM) --for $(FOR)
	'$(PY)' $(PIP) --no-deps --editable .

demo: $(STAMPS)/demo  ## distil two small trained teachers on the CPU, test, draw, export
	OMP_NUM_THREADS=1 $(RUN) -m projects.micro_lab.demo --work-dir work_dirs/demo

real: $(STAMPS)/real  ## a released model, bit for bit; with PHOTOS=folder, a student of it
	OMP_NUM_THREADS=1 $(RUN) -m pytest -m real projects/real_model
	$(if $(PHOTOS),OMP_NUM_THREADS=1 $(RUN) -m projects.real_model.agreement --photos '$(PHOTOS)' \
	    $(if $(LABELLED),--labelled '$(LABELLED)') $(ARGS))

reproduce: $(STAMPS)/test  ## the paper's tables at micro size, on the CPU, in hours
	$(RUN) -m projects.micro_lab.reproduce --work-dir work_dirs/reproduce

docs: $(STAMPS)/docs  ## build the documentation site in build/site; a warning is an error
	$(RUN) -m sphinx -q -W --keep-going -c docs -d build/doctrees . build/site

test: $(STAMPS)/test  ## run the tests, detection included
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n $(JOBS) --dist loadfile $(TESTS) $(ARGS)

lint: $(STAMPS)/lint  ## check style and types
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

format: $(STAMPS)/lint  ## rewrite the sources in the project's style
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

clean:  ## remove what builds and tests leave behind; .venv stays
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find kpu_mm tests tools configs projects -name __pycache__ -prune -exec rm -rf {} +
