# Every target sets up what it needs in .venv; a stamp file says that it is done. `make help` lists them.

VENV  := .venv
PY    := $(VENV)/bin/python
STAMP := $(VENV)/.stamp
DEMO  := demo-output
CONSUMERS := $(CURDIR)/.consumers

# The first interpreter that is new enough; another one with `make demo PYTHON=/path/to/python`.
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13 python3.14 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$p; break; }; done)

export PIP_DISABLE_PIP_VERSION_CHECK := 1
PIP := $(PY) -m pip install --quiet --constraint constraints.txt

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: demo test lint format types layers bench reproduce docs-check clean help docs gallery linkcheck

demo: $(STAMP)-demo  ## solve a real problem: one L2 penalty per feature on the breast-cancer data
	@mkdir -p $(DEMO)
	@$(PY) -m bilevelpy solve models/breast_cancer.blv \
		--out $(DEMO)/breast_cancer.json --plot $(DEMO)/breast_cancer.png

# Two test processes on two cores: each gets one thread, or they would fight for the cores.
test: $(STAMP)-consumers  ## run the test suite
	@OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 \
		BILEVELPY_CONSUMERS=$(CONSUMERS) \
		$(PY) -m pytest -n 2 -m "not bench" $(PYTEST_ARGS)

lint: $(STAMP)-dev  ## style and formatting (ruff)
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .

format: $(STAMP)-dev  ## format the code (ruff)
	@$(PY) -m ruff format .

types: $(STAMP)-dev  ## static types (mypy --strict)
	@$(PY) -m mypy

layers: $(STAMP)-dev  ## who may import whom (import-linter)
	@$(VENV)/bin/lint-imports

bench: $(STAMP)-bench  ## measure speed against hand-written code
	@$(PY) -m benchmarks $(BENCH_ARGS)

docs: $(STAMP)-docs  ## build the documentation with warnings as errors (docs/_build/html)
	@$(PY) -m sphinx -W --keep-going -q -b html docs docs/_build/html

linkcheck: $(STAMP)-docs  ## ask whether the links of the documentation to other places answer
	@$(PY) -m sphinx -q -b linkcheck docs docs/_build/linkcheck

gallery: $(STAMP)-docs  ## write the pages of models that have changed
	@$(PY) docs/make_gallery.py

reproduce: $(STAMP)-test  ## run the tables of the papers again, write docs/reproduce.md and its pictures
	@OMP_NUM_THREADS=1 $(PY) -m benchmarks.reproduce $(REPRODUCE_ARGS)

docs-check: $(STAMP)-test  ## run the examples of README and docs
	@$(PY) -m pytest tests/docs $(PYTEST_ARGS)

clean:  ## remove the virtual environment, caches and outputs
	@rm -rf $(VENV) $(CONSUMERS) $(DEMO) bench-output docs/_build dist build .pytest_cache .mypy_cache .ruff_cache \
		.hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(STAMP)-venv:
	@test -n "$(PYTHON)" || { echo "bilevelpy needs Python 3.11 or newer; found none on the PATH" >&2; exit 1; }
	@echo "making $(VENV) with $(PYTHON)" >&2
	@$(PYTHON) -m venv $(VENV)
	@touch $@

# One chain, so that `make -j` never runs pip twice at once.
$(STAMP)-demo: pyproject.toml constraints.txt | $(STAMP)-venv
	@echo "installing bilevelpy and its dependencies (minutes the first time: torch is large)" >&2
	@$(PIP) --editable '.[plot]'
	@touch $@

$(STAMP)-test: $(STAMP)-demo
	@echo "installing the test tools" >&2
	@$(PIP) --editable '.[plot,test]'
	@touch $@

# Readers of our exports that are no packages of this Python; tests say which of them they miss.
$(STAMP)-consumers: tests/exporters/setup_consumers.sh | $(STAMP)-test
	@echo "installing readers of exported models" >&2
	@tests/exporters/setup_consumers.sh $(CONSUMERS) || echo "some readers are missing" >&2
	@touch $@

$(STAMP)-dev: $(STAMP)-test
	@echo "installing the linters" >&2
	@$(PIP) --editable '.[plot,test,dev]'
	@touch $@

$(STAMP)-docs: $(STAMP)-test
	@echo "installing Sphinx" >&2
	@$(PIP) --editable '.[plot,test,docs]'
	@touch $@

$(STAMP)-bench: $(STAMP)-test
	@$(PIP) --editable '.[plot,test,bench]'
	@touch $@
