# Everything a person does with a checkout. `make run` and `make test` need nothing but python3, make and git.

PYTHON ?=
VENV   := .venv
BIN    := $(VENV)/bin
PREFIX ?= /usr/local
export PYTHONDONTWRITEBYTECODE ?=

.PHONY: help setup run stop install uninstall check test test-unit test-kernel test-uml chaos bench load format clean

help:            ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 22

setup: $(VENV)/.ready  ## a virtual environment with kubelite in it, nothing else

$(VENV)/.ready: pyproject.toml deploy/setup deploy/venv
	@PYTHON=$(PYTHON) deploy/setup $(VENV)
	@touch $@

run: setup       ## (root) start a node on manifests/examples and show its pods
	@deploy/run $(BIN)/kubelite manifests/examples

stop: setup      ## (root) end what `make run` started: pods, network, daemon
	@deploy/stop $(BIN)/kubelite

install: setup   ## (root) install kubelite and its systemd unit
	@PREFIX=$(PREFIX) PYTHON=$(PYTHON) deploy/install

uninstall:       ## (root) undo `make install`; manifests and images stay unless PURGE=1
	@PREFIX=$(PREFIX) deploy/uninstall

check: setup     ## style, types, architecture
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: setup      ## every test this machine can run; says what is missing for the rest
	@deploy/test $(BIN)/python

test-unit: setup ## the tests that need neither root nor a kernel, in seconds
	$(BIN)/python -m pytest tests/unit

test-kernel: setup ## (root) the engine and the node on this machine's kernel
	$(BIN)/python -m pytest tests/kernel tests/conformance tests/callers tests/e2e

test-uml: setup  ## (root) the same on cgroup v2, inside User Mode Linux
	tests/uml/run --skips tests/uml/skips --env KUBELITE_TEST_PATIENCE=5 --each tests/e2e/test_*.py tests/conformance/test_*.py tests/kernel/test_*.py -- \
		$(BIN)/python -m pytest -rs -p no:cacheprovider --timeout=600

chaos: setup     ## (root) five minutes of a random mix of orders and blows; SEED=… SECONDS=… PODS=… to choose
	$(BIN)/python -m tests.chaos $(if $(SEED),--seed $(SEED)) $(if $(SECONDS),--seconds $(SECONDS)) $(if $(PODS),--pods $(PODS))

bench: setup     ## (root) every speed beside every peer that is installed, in ten minutes; QUICK=1 ONLY=… ROWS=… ROUNDS=… JSON=…
	$(BIN)/python -m tests.bench $(if $(QUICK),--quick) $(if $(ONLY),--only $(ONLY)) $(if $(ROWS),--rows $(ROWS)) \
		$(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(JSON),--json $(JSON)) $(if $(RECORD),--record)

load: setup      ## (root) one node with 50, 100, 250 and 500 pods: does time and memory a pod stay the same? PODS=… JSON=…
	$(BIN)/python -m tests.bench.load $(if $(PODS),--pods $(PODS)) $(if $(JSON),--json $(JSON)) $(if $(RECORD),--record)

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
