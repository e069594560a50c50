# make demo    set up and run the demonstration
# make test    set up, lint, type-check and run all tests
# make soak    tell many simulated stories: make soak SEEDS=0-2000
# make storm   kill -9 under a mounted file system, for about ten minutes (root; SEED=N, ROUNDS=N)
# make bench   set up and measure against peers on this machine

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
JOBS ?= 4
SEEDS ?= 0-2000
SEED ?= 1
ROUNDS ?= 4
AZURITE = 3.35.0

.PHONY: demo test soak storm bench lint clean

demo: $(VENV)/.demo
	$(BIN)/backstay demo

test: lint $(VENV)/.azurite
	$(BIN)/python -m pytest -q -n $(JOBS) --dist worksteal

soak: $(VENV)/.test
	$(BIN)/python -m tests.simulation --seeds $(SEEDS)

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pipeline.lifecycle.diagram --check README.md

storm: $(VENV)/.test
	$(BIN)/python -m tests.storm --rounds $(ROUNDS) --seed $(SEED)

bench: $(VENV)/.test $(VENV)/.azurite
	$(BIN)/python -m bench

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.test: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[test,bench]'
	touch $@ $(VENV)/.demo

# An emulator of Azure Blob Storage, for the tests: beside the packages of the virtual environment.
$(VENV)/.azurite: $(VENV)/.test
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/npm install --prefix $(VENV)/azurite --no-audit --no-fund --silent azurite@$(AZURITE)
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
