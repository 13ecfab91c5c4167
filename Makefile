# make run    serve the example with its janitor (PORT=8000)
# make test   run the tests
# make check  lint, types and tests, as CI does
# make torture    processes, a killer and a janitor at a few sessions (SECONDS=120, SEED=...)
# make fuzz       inputs that are led by what they reach (FUZZ_SECONDS=720)
# make bench-janitor  the janitor beside others (SESSIONS=10000,..., DIR=, ONLY=, JSON=)
# make faults     every error at every system call, and all else that is too long for make test

PYTHON ?= python3
PORT ?= 8000
SECONDS ?= 120
FUZZ_SECONDS ?= 720
SESSIONS ?= 10000,100000,1000000
VENV := .venv
BIN := $(VENV)/bin
SPREAD := --numprocesses auto --dist worksteal
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: run test lint types check torture fuzz faults bench-janitor clean

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

torture: $(VENV)/.dev
	$(BIN)/python tests/torture/torture.py --seconds $(SECONDS) $(if $(SEED),--seed $(SEED))

fuzz: $(VENV)/.dev
	@$(PIP) install --editable '.[fuzz]'
	$(BIN)/python tests/fuzz/guided.py --seconds $(FUZZ_SECONDS) $(if $(SEED),--seed $(SEED))

faults: $(VENV)/.dev
	FILESESSION_FAULTS=all FILESESSION_COUNTER=all $(BIN)/python -m pytest $(SPREAD) \
	  tests/faults tests/processes/test_lost_updates.py

bench-janitor: $(VENV)/.dev
	@$(PIP) install --editable '.[bench]'
	$(BIN)/python tests/bench/janitor.py --sessions $(SESSIONS) $(if $(DIR),--dir $(DIR)) \
	  $(if $(ONLY),--only $(ONLY)) $(if $(JSON),--json $(JSON))

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
