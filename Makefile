# Everything happens in .venv, which is made when missing; no target needs more than Python and make.
#
# Variables:
#   PYTHON  the interpreter that makes .venv; by default the first Python >= 3.11 that is found
#   TORCH   how pip is asked for torch; constraints.txt fixes the version. Linux wheels usually bring CUDA along; for the smaller
#           CPU build give pip the index that holds it: make demo TORCH="torch --extra-index-url <index of CPU builds>".
#           Read when torch is installed: to change it later, remove .venv first.
#   JOBS    processes that tests run in, each with its own imports and fixtures; by default 2, or 1 on a single core

TORCH ?= torch
VENV := .venv
IN_VENV := $(VENV)/bin/python
PIP := $(IN_VENV) -m pip
CANDIDATES = $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python3.14 python)
# conftest.py sets what tests need: offline, and one thread, with which models this small run as fast as with two.
JOBS ?= $(shell n=$$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1); [ $$n -ge 2 ] && echo 2 || echo 1)
PYTEST := $(IN_VENV) -m pytest $(if $(filter-out 1,$(JOBS)),--numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder)
FAST := not slow and not process and not research and not beside

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast test-rest test-research lint style bench clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

demo: $(VENV)/.installed-base ## adapt the built-in model, evaluate, index and search; results in demo/
	$(VENV)/bin/slq demo -o demo

test: style ## the one test command: lint, types, every test and docstring example, but for long experiments
	$(PYTEST) -m "not research"

test-fast: $(VENV)/.installed-test ## tests and examples of slq itself that take less than a second each, and no lint
	$(PYTEST) -m "$(FAST)" tests src

test-rest: $(VENV)/.installed-test ## what `make test` runs beside style and test-fast
	$(PYTEST) -m "not research and (slow or process or beside)"

test-research: $(VENV)/.installed-test ## every test of the experiments, the long ones too
	$(PYTEST) research/tests

lint: style ## ruff and mypy; tests/lint runs mypy too, which takes one core for a minute
	$(IN_VENV) -m mypy

style: $(VENV)/.installed-test ## ruff (check and format)
	$(IN_VENV) -m ruff check
	$(IN_VENV) -m ruff format --check

bench: $(VENV)/.installed-test ## measure the miniature again: research/results/miniature.json
	$(IN_VENV) -m research.bench.miniature

clean: ## remove results of the demo, caches and builds; .venv and your runs stay
	rm -rf demo build dist .pytest_cache .mypy_cache .ruff_cache src/slq.egg-info packages/*/src/*.egg-info packages/*/build
	find src tests packages research -type d -name __pycache__ -exec rm -rf {} +

# One stamp for each step of the installation; each waits for the one before, so that `make -j` never runs pip twice at once.

$(IN_VENV):
	@for python in $(CANDIDATES); do \
	  if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    echo "making $(VENV) with $$("$$python" --version)"; \
	    "$$python" -m venv $(VENV) && exit 0; \
	    rm -rf $(VENV); \
	    echo "$$python cannot make a virtual environment; on Debian and Ubuntu the package python3-venv is missing." >&2; \
	    exit 1; \
	  fi; \
	done; \
	echo "slq needs Python 3.11 or newer; none of these is: $(CANDIDATES). Install one, or name it: make PYTHON=/path/to/python" >&2; \
	exit 1

$(VENV)/.installed-torch: constraints.txt | $(IN_VENV)
	$(PIP) install $(TORCH) -c constraints.txt
	@touch $@

$(VENV)/.installed-base: pyproject.toml constraints.txt $(VENV)/.installed-torch
	$(PIP) install -e . -c constraints.txt
	@touch $@

$(VENV)/.installed-test: pyproject.toml packages/slq-karr/pyproject.toml constraints.txt $(VENV)/.installed-base
	$(PIP) install -e ".[test]" -e packages/slq-karr -c constraints.txt
	@touch $@
