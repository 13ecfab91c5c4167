# make run    serve the example with its janitor (PORT=8000)
# make test   run the tests
# make check  lint, types and tests, as CI does

PYTHON ?= python3
PORT ?= 8000
VENV := .venv
BIN := $(VENV)/bin
SPREAD := --numprocesses auto --dist worksteal
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: run test lint types check clean

run: $(VENV)/.examples
	@$(BIN)/python examples/run.py --port $(PORT)

test: $(VENV)/.dev
	$(BIN)/python -m pytest $(SPREAD)

lint: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(VENV)/.dev
	$(BIN)/mypy

check: lint types
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest $(SPREAD)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

clean:
	rm -rf $(VENV) var build dist .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	  "filesession needs python 3.11 or later; this is " + sys.version.split()[0] + \
	  ". Name another one: make PYTHON=python3.12")'
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "python cannot make a virtual environment; on Debian: apt-get install python3-venv"; exit 1; }

$(VENV)/.examples: $(BIN)/python pyproject.toml
	@echo "installing filesession and its examples into $(VENV) ..."
	@$(PIP) install --editable '.[examples]'
	@touch $@

$(VENV)/.dev: $(BIN)/python pyproject.toml
	@echo "installing filesession and its development tools into $(VENV) ..."
	@$(PIP) install --editable '.[examples,testing,dev]'
	@touch $@
