# Each target makes the environment it needs in .venv; nothing else has to be installed but Python 3.11 or newer.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: help demo test test-slow cluster-test lint format figures clean clean-caches

help:
	@echo "make demo       set-up, then the main job on embedded samples: tokenizer, preprocessing, pre-training, sweeps, comparison"
	@echo "make test       set-up, then the tests"
	@echo "make test-slow  the tests that take minutes too"
	@echo "make cluster-test  ray up on three hosts made on this machine, one killed while training (a quarter of an hour; needs root)"
	@echo "make lint       style, types, import direction"
	@echo "make figures    draw the figure of the attention rule anew (pages are taken by docs/figures/shoot_*.py, which need a browser)"
	@echo "make clean      remove the environment, the demo's output and all caches"

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "pmlm needs Python 3.11 or newer: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing pmlm into $(VENV) (a few minutes the first time)"
	$(PIP_INSTALL) --editable .
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing pmlm and its development tools into $(VENV) (a few minutes the first time)"
	$(PIP_INSTALL) --editable '.[dev]'
	@touch $@ $(VENV)/.run

demo: $(VENV)/.run
	PATH="$(CURDIR)/$(BIN):$$PATH" bash recipes/demo.sh

# Two at a time, file by file: what is made once for a file is made once, and a Ray that tests share is each process's own.
test: $(VENV)/.dev
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -m "slow or not slow"

# Root on Linux, and Debian's openssh-server, rsync and iproute2.
cluster-test: $(VENV)/.dev
	$(BIN)/python deploy/testbed/trial.py

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

figures: $(VENV)/.dev
	$(BIN)/python docs/figures/draw_attention.py

clean: clean-caches
	rm -rf $(VENV) outputs/demo

clean-caches:
	find pmlm_core pipelines tune_spaces benchmarks tests -name __pycache__ -prune -exec rm -rf {} +
	rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
