# `make demo` and `make test` do all the set-up themselves; the second run is fast.
# Another interpreter: make test PYTHON=python3.12

PYTHON ?= $(shell for name in python3 python3.13 python3.12 python3.11; do \
	"$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo "$$name" && break; done)
DEMO ?= demo

VENV := .venv
BIN := $(VENV)/bin
RUN := $(BIN)/python
INSTALLED := $(VENV)/.installed
BENCH_INSTALLED := $(VENV)/.installed-bench

# Those that need nothing but the package and take minutes; the others say what they take.
BENCHES := affine_pairs memory surface_metrics training_step two_processes

.PHONY: help demo test lint bench clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    train and compare both segmenters on a synthetic cohort, into $(DEMO)/"
	@echo "make test    all checks and tests; set SHAPEGUIDE_DATA for those on real data"
	@echo "make lint    format, lint, types and import contract only"
	@echo "make bench   print the tables of benchmarks/ that need no data and no training"
	@echo "make clean   remove caches and build output; keeps $(VENV), runs/ and $(DEMO)/"

$(INSTALLED): pyproject.toml constraints.txt
	@if [ -z "$(PYTHON)" ]; then \
		echo "no Python 3.11 or newer found; name one: make PYTHON=/path/to/python3.11" >&2; exit 1; fi
	@$(RUN) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	@echo "installing shapeguide and its tools into $(VENV) (once)"
	@$(RUN) -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

$(BENCH_INSTALLED): $(INSTALLED)
	@$(RUN) -m pip install --quiet --constraint constraints.txt --editable '.[dev,bench]'
	@touch $@

demo: $(INSTALLED)
	$(BIN)/shapeguide demo --out $(DEMO)

lint: $(INSTALLED)
	$(RUN) -m ruff format --check
	$(RUN) -m ruff check
	$(RUN) -m mypy
	$(BIN)/lint-imports

test: lint
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n auto --dist loadfile -m "not slow and not gpu" --cov --cov-report=term --cov-fail-under=90

bench: $(BENCH_INSTALLED)
	@for name in $(BENCHES); do echo "== $$name"; $(RUN) "benchmarks/$$name.py" || exit 1; done

clean:
	rm -rf build dist .coverage .coverage.* htmlcov
	rm -rf .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
