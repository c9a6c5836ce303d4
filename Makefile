# The targets of the project. Each one sets up its requirements first.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
EXTRAS := cloud,colab,dev,docs,notebooks,onnx,pacs,ray,reference,tables,view
# threads of two workers that wait for work must not take the processors from those that have some; Python keeps what it
# compiled, because many tests start the program
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_WAIT_POLICY=passive $(BIN)/python -m pytest
WORKERS ?= 2

.PHONY: help setup demo test test-all soak fuzz check colab bench docs wheel sdist clean

help: ## Show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort

$(VENV)/.base: pyproject.toml constraints.txt scripts/install.sh scripts/lock.py
	PYTHON=$(PYTHON) scripts/install.sh $(VENV)
	@touch $@

$(VENV)/.full: pyproject.toml constraints.txt scripts/install.sh scripts/lock.py
	PYTHON=$(PYTHON) scripts/install.sh $(VENV) $(EXTRAS)
	@touch $@ $(VENV)/.base

setup: $(VENV)/.full ## Install all packages for development into .venv

demo: $(VENV)/.base ## All stages on a small generated study: about a minute
	$(BIN)/ctenrich demo --out demo-run

test: $(VENV)/.full ## The test suite: about a quarter of an hour on 2 cores
	$(PYTEST) -m "not long" -n $(WORKERS) --dist worksteal -q

test-all: $(VENV)/.full check ## Also the long tests: parity, faults, services, browsers, notebooks
	$(PYTEST) -m "long" -n $(WORKERS) --dist worksteal -q

soak: $(VENV)/.full ## Kills, faults and ten thousand series: takes hours
	$(BIN)/python -m benchmarks.soak

fuzz: $(VENV)/.full ## Ten thousand damaged files and three hundred damaged series: takes minutes
	$(BIN)/python -m benchmarks.fuzz

check: $(VENV)/.full ## Lint, types, layers, mappings, known holes of the dependencies
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/ctenrich check-mappings
	$(BIN)/python scripts/audit.py

colab: ## The tests of SQL and of the notebooks with Colab's packages (COLAB: its pip freeze; needs Python 3.13, some GB)
	scripts/test_as_on_colab.sh $(COLAB) .venv-colab

bench: $(VENV)/.full ## Speed and memory compared with other tools, as ratios
	$(BIN)/python -m benchmarks

docs: $(VENV)/.full ## Build the documentation site
	$(BIN)/mkdocs build --strict

wheel: $(VENV)/.full ## Build the wheel into dist/
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

sdist: $(VENV)/.full ## Build the source distribution into dist/
	$(BIN)/python -m hatchling build --target sdist

clean: ## Remove the outputs of the targets
	rm -rf $(VENV) .venv-colab demo-run dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage
