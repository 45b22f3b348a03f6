# The verbs of this project; `make` alone lists them.
#
# Needs make, Python 3.11 or later (another than python3: make PYTHON=python3.12 …) and, the first time, a
# package index. All paths are relative, so the folder may have any name.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --quiet --quiet --disable-pip-version-check --no-input

.DELETE_ON_ERROR:
.SUFFIXES:
.DEFAULT_GOAL := help
.PHONY: help run test test-system chaos soak fuzz bench bench-memory profile fmt check green image app clean

help: ## list the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

run: .venv/.run ## start Collector on 127.0.0.1:8080, with the embedded sink writing to data/
	@COLLECTOR_WORKERS=$${COLLECTOR_WORKERS:-2} exec $(BIN)/collector serve

test: check ## lint, types, and every test that needs only Python packages
	@$(BIN)/python -m pytest -q -n 2 --dist loadfile

test-system: .venv/.test ## tests with namespaces, real tmpfs mounts and strace; installs those when it may
	@sh tests/system/install
	@$(BIN)/python -m pytest -q -m system

chaos: .venv/.test ## ten minutes of every fault we can make, alone and mixed, and what became of each event
	@$(BIN)/python -m tests.system.chaos --seconds 600 $(if $(SEED),--seed $(SEED)) $(if $(FAULTS),--faults $(FAULTS))

soak: .venv/.test ## the same, of killed workers and reloads alone
	@$(BIN)/python -m tests.system.chaos --seconds 600 --faults kill-worker,hup

fuzz: .venv/.fuzz ## look for bytes that tell the hot door from Flask's; SECONDS=600 and SEED=7 say how long and which
	@$(BIN)/python -m tests.doors.fuzz --seconds $(or $(SECONDS),600) $(if $(SEED),--seed $(SEED))

bench: .venv/.test ## measure on this machine: rates, latencies, curves (plots in docs/bench), sinks, Splunk, overload; thirteen minutes
	@$(BIN)/python -m bench

bench-memory: .venv/.run ## ten minutes of full load, and whether a worker's memory stays flat; a plot in docs/bench
	@$(BIN)/python -m bench --only memory --seconds 600

profile: .venv/.profile ## where the time of an upload goes, in CPU µs, and what the floor is; a plot in docs/bench; three minutes
	@$(BIN)/python -m bench.profile $(if $(FOLDED),--folded $(FOLDED))

fmt: .venv/.test ## format, and mend what can be mended
	@$(BIN)/ruff check --quiet --fix-only .
	@$(BIN)/ruff format --quiet .

check: .venv/.test ## lint, format and types, without the tests
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@$(BIN)/mypy --no-error-summary

green: .venv/.test ## the tests of what runs in a worker, with everything patched by gevent
	@$(BIN)/python tests/green.py -q

image: ## build the container image, with the first of docker, podman, buildah
	@for tool in docker podman buildah; do \
	  if command -v $$tool >/dev/null; then exec $$tool build -t collector:dev .; fi; \
	done; echo "make image needs docker, podman or buildah: none is installed" >&2; exit 1

app: .venv/.test ## package the Splunk app into dist/
	@$(BIN)/python -m dashboards package

clean: ## remove the environment and every cache; data/ stays
	@rm -rf .venv .venv-* build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Each stamp is made when its step has succeeded, so a step that failed is done again.

.venv/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Collector needs Python 3.11 or later; $(PYTHON) is not, or is not there. Try: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "Making .venv (once)"
	@$(PYTHON) -m venv --clear .venv || { rm -rf .venv; \
	  echo "$(PYTHON) can't make a virtual environment; on Debian, install python3-venv" >&2; exit 1; }
	@touch $@

# gunicorn_h1c may come as source only.
EXPLAIN = { command -v cc >/dev/null || echo "no C compiler: gunicorn_h1c comes as source and needs one, and Python's headers (on Debian: gcc python3-dev)" >&2; exit 1; }

.venv/.run: .venv/.made setup.cfg pyproject.toml
	@echo "Installing Collector into .venv"
	@$(PIP) install --editable . || $(EXPLAIN)
	@touch $@

.venv/.test: .venv/.made setup.cfg pyproject.toml
	@echo "Installing Collector and its test tools into .venv"
	@$(PIP) install --editable '.[test]' || $(EXPLAIN)
	@touch .venv/.run $@

.venv/.fuzz: .venv/.test
	@echo "Installing the fuzzer into .venv"
	@$(PIP) install --editable '.[test,fuzz]' || $(EXPLAIN)
	@touch $@

.venv/.profile: .venv/.run
	@echo "Installing py-spy into .venv"
	@$(PIP) install --editable '.[profile]' || $(EXPLAIN)
	@touch $@
