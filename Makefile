# Everything a person does with a checkout. `make run` and `make test` need nothing but python3, make and git.

PYTHON ?=
VENV   := .venv
BIN    := $(VENV)/bin
OCI    := $(VENV)/lib/kubelite-oci/modules
PREFIX ?= /usr/local
DESTDIR ?=
export PYTHONDONTWRITEBYTECODE ?=

# Each node, shim and command of a test is an interpreter of its own, and a guest keeps nothing: compiled here, once. What
# cannot be written (a checkout of somebody else's) only makes it slower.
COMPILE = @echo 'compiling the sources' && $(BIN)/python -m compileall -qq kubelite manifests runtime state tests || true

.PHONY: help setup run stop install uninstall check docs reference lock test test-unit worlds test-pythons test-lowest coverage test-kernel test-uml chaos fuzz soak bench load format clean

help:            ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 22

setup: $(VENV)/.ready $(OCI)  ## a virtual environment with kubelite and what its tests and checks use

$(VENV)/.ready: pyproject.toml requirements-dev.lock deploy/setup deploy/venv
	@PYTHON=$(PYTHON) deploy/setup $(VENV)
	@touch $@

# kubelite-oci has its modules in one file, which it does not believe once a source has changed: it starts slower then.
$(OCI): deploy/oci-command $(wildcard $(addprefix runtime/,*.py oci/*.py oci/*/*.py oci/cli/startup/*.py cgroups/*.py cgroups/*/*.py security/*.py)) | $(VENV)/.ready
	@deploy/oci-command $(VENV)

run: setup       ## (root) start a node on manifests/examples and show its pods
	@deploy/run $(BIN)/kubelite manifests/examples

stop: setup      ## (root) end what `make run` started: pods (gracefully, within STOP_TIMEOUT=2m; NOW=1 kills them), network, daemon
	@NOW="$(NOW)" STOP_TIMEOUT="$(STOP_TIMEOUT)" deploy/stop $(BIN)/kubelite

install: setup   ## (root) install kubelite, its manual pages and its systemd unit; DESTDIR=…: below it, for packagers
	@PREFIX=$(PREFIX) PYTHON=$(PYTHON) DESTDIR=$(DESTDIR) deploy/install

uninstall:       ## (root) undo `make install`, as gracefully as `make stop`; manifests and images stay unless PURGE=1
	@NOW="$(NOW)" STOP_TIMEOUT="$(STOP_TIMEOUT)" PREFIX=$(PREFIX) DESTDIR=$(DESTDIR) deploy/uninstall

.PHONY: wheel
wheel: setup     ## dist/: a wheel, and the source archive it is built from
	rm -rf build dist
	$(BIN)/python -m build --no-isolation --outdir dist

.PHONY: sbom
sbom: setup      ## dist/kubelite.cdx.json: what an installation contains (CycloneDX)
	@deploy/sbom $(BIN)/python

.PHONY: deb
deb:             ## dist/: a Debian package for the release that this machine runs
	@deploy/deb/make

check: setup     ## style, types, architecture
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: setup      ## the documentation as a site in site/; fails where a link leads nowhere
	@deploy/docs/setup $(VENV)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	$(BIN)/python -m deploy.docs.links site

reference: setup ## the pages of docs/reference that are generated from the code
	$(BIN)/python -m deploy.docs.reference

lock:            ## the lock files anew after a change of dependencies; UPGRADE=1: each at its newest version
	@deploy/lock $(if $(wildcard $(BIN)/python),$(BIN)/python,$(or $(PYTHON),python3))

test: setup      ## every test this machine can run; says what is missing for the rest
	$(COMPILE)
	@deploy/test $(BIN)/python

test-unit: setup ## the tests that need neither root nor a kernel, in seconds
	$(BIN)/python -m pytest tests/unit

# Each world is a random beginning with random troubles, from which controllers must come to a legal end.
WORLDS_OF = $(addprefix tests/unit/controllers/test_,$(addsuffix .py,$(1)))

worlds: setup    ## 10,000 random worlds for each controller: about six minutes of CPU; WORLDS=… of each
	TEST_WORLDS=$(or $(WORLDS),10000) $(BIN)/python -m pytest -n 2 --timeout=1200 \
		$(call WORLDS_OF,stateful_worlds job_worlds daemon_worlds replica_set deployment_rollouts cron_job_worlds disruption_worlds)

test-pythons:    ## types and unit tests on each Python from 3.11 to 3.14 that this machine has; PYTHONS="PATH…" for others
	@deploy/test-pythons .pythons

test-lowest: setup ## the unit tests with the oldest release of each dependency that pyproject.toml allows
	@deploy/test-lowest $(BIN)/python

coverage: setup  ## what the tests execute, as a table: unit tests, and as root a part of the others; FILES=… to choose
	$(COMPILE)
	@FILES="$(FILES)" deploy/coverage $(BIN)/python

test-kernel: setup ## (root) the engine and the node on this machine's kernel
	$(COMPILE)
	$(BIN)/python -m pytest tests/kernel tests/conformance tests/callers tests/fuzz tests/packaging tests/e2e

# What the version of cgroups or the guest's kernel can change: the engine, all of it, and of the node what limits, measures,
# freezes and kills (a test that does not is marked either_cgroup); project quotas, which few machines' kernels have. WHOLE=1
# adds what was never seen to differ; registries, screens and other programs' parsers stay outside.
OF_CGROUPS := explaining fields main_job metrics metrics_values pod_lifecycle quotas runtime_class scheduling survival tour
SELDOM := build build_killed build_runs cli debug history hooks hostile kubectl network nfs pod_namespaces pod_volumes probes
NOT_IN_UML := $(wildcard tests/kernel/test_images_*.py) tests/kernel/test_oci_execve_stub_aarch64.py
IN_UML := $(patsubst %,tests/e2e/test_%.py,$(OF_CGROUPS) $(if $(WHOLE),$(SELDOM))) \
	$(filter-out $(NOT_IN_UML),$(wildcard tests/conformance/test_*.py tests/kernel/test_*.py))

.PHONY: clients
clients: setup   ## (root) try each client of the Kubernetes API that a registry has, and write docs/reference/clients.md
	@deploy/clients/setup .clients
	TEST_RECORD=1 $(BIN)/python -m pytest tests/clients
	$(BIN)/python -m deploy.docs.reference

test-uml: setup  ## (root) on cgroup v2, inside User Mode Linux, what that can change, and AppArmor; WHOLE=1: the rest, too
	$(COMPILE)
	tests/uml/run --skips tests/uml/skips --env TEST_PATIENCE=5 --env TEST_ALONE=1 \
		--share 3 --mem 3G --each $(IN_UML) -- $(BIN)/python -m \
		$(if $(TEST_RERUN),tests.rerun_failures $(TEST_RERUN),pytest -p no:cacheprovider) -rs --timeout=600 $(if $(WHOLE),,-m 'not either_cgroup')
	tests/uml/run --boot apparmor=1 --boot security=apparmor --env TEST_PATIENCE=5 --env TEST_ALLOWED_SKIPS=none \
		-- $(BIN)/python -m pytest -p no:cacheprovider -rs --timeout=600 tests/e2e/test_apparmor.py

chaos: setup     ## (root) five minutes of a random mix of orders and blows; SEED=… SECONDS=… PODS=… BLOWS=… to choose
	$(COMPILE)
	$(BIN)/python -m tests.chaos $(if $(SEED),--seed $(SEED)) $(if $(SECONDS),--seconds $(SECONDS)) $(if $(PODS),--pods $(PODS)) \
		$(if $(BLOWS),--blows $(BLOWS))

fuzz: setup      ## (root) 100,000 config.json and state files, bytes of others and API requests, mostly wrong; SEED=… CASES=… REAL=… STATE=… FOREIGN=… API=…
	$(BIN)/python -m tests.fuzz $(if $(SEED),--seed $(SEED)) $(if $(CASES),--cases $(CASES)) $(if $(REAL),--real $(REAL)) \
		$(if $(STATE),--state $(STATE)) $(if $(FOREIGN),--foreign $(FOREIGN)) $(if $(API),--api $(API))

soak: setup      ## (root) 5,000 containers, 8 at a time, callers killed at random points: is anything left? N=… SEED=…
	$(BIN)/python -m tests.chaos.soak $(if $(N),--containers $(N)) $(if $(SEED),--seed $(SEED))

.PHONY: churn
churn: setup     ## (root) two hours of edits, crashes, builds, pulls, scrapes and execs: does the node grow? SECONDS=… PODS=… SEED=…
	$(BIN)/python -m tests.chaos.churn $(if $(SECONDS),--seconds $(SECONDS)) $(if $(PODS),--pods $(PODS)) $(if $(SEED),--seed $(SEED))

bench: setup     ## (root) every speed beside every peer that is installed, in ten minutes; QUICK=1 ONLY=… ROWS=… ROUNDS=… JSON=…
	$(BIN)/python -m tests.bench $(if $(QUICK),--quick) $(if $(ONLY),--only $(ONLY)) $(if $(ROWS),--rows $(ROWS)) \
		$(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(JSON),--json $(JSON)) $(if $(RECORD),--record)

load: setup      ## (root) one node with 50, 100, 250 and 500 pods: does time and memory a pod stay the same? PODS=… JSON=…
	$(BIN)/python -m tests.bench.load $(if $(PODS),--pods $(PODS)) $(if $(JSON),--json $(JSON)) $(if $(RECORD),--record)

.PHONY: bench-dns
bench-dns: setup ## (root) the node's DNS server beside dnsmasq; QUERIES=… JSON=…
	$(BIN)/python -m tests.bench.dns $(if $(QUERIES),--queries $(QUERIES)) $(if $(JSON),--json $(JSON))

scrapes: setup   ## (root) what /metrics costs with 50 to 500 containers, and what an hour of scrapes leaves; CONTAINERS=… EACH=… BUSY=1 HOUR=… JSON=…
	$(BIN)/python -m tests.bench.scrapes $(if $(CONTAINERS),--containers $(CONTAINERS)) $(if $(EACH),--each $(EACH)) \
		$(if $(BUSY),--busy) $(if $(HOUR),--hour $(HOUR)) $(if $(JSON),--json $(JSON))

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .clients .pythons build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
