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

# Compiled Python is kept, also where the environment says otherwise (images for containers often
# do): tests and measurements start hundreds of processes, each of which would compile all anew.
export PYTHONDONTWRITEBYTECODE =

.PHONY: demo test soak storm bench lint compiled collected pytest clean

demo: $(VENV)/.demo
	$(BIN)/backstay demo

# Types are checked on one processor, beside the tests; the emulator comes over the network
# meanwhile.
test: $(VENV)/.test
	$(MAKE) --no-print-directory --jobs=3 lint pytest

pytest: collected $(VENV)/.azurite
	$(BIN)/python -m pytest -q -n $(JOBS) --dist worksteal

# Collected once before the workers do: they find the tests compiled, and say what cannot be.
collected: compiled
	$(BIN)/python -m pytest -q --collect-only >/dev/null || true

compiled: $(VENV)/.test
	$(BIN)/python -m compileall -q pipeline stages bench

soak: $(VENV)/.test
	$(BIN)/python -m tests.simulation --seeds $(SEEDS)

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pipeline.lifecycle.diagram --check README.md
	$(BIN)/python -m bench publish --check

storm: $(VENV)/.test
	$(BIN)/python -m tests.storm --rounds $(ROUNDS) --seed $(SEED)

bench: compiled $(VENV)/.azurite
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
