# Everything a newcomer needs: each target sets up what it uses, from nothing but Python 3.11 and a package index.
PYTHON ?= python3
VENV ?= .venv
WS_HOME ?=
WORKERS ?= 2
BIN := $(VENV)/bin
export WS_HOME
export MLFLOW_DISABLE_TELEMETRY := true
export HF_HUB_DISABLE_TELEMETRY := 1

# Half of the time goes to waiting (fsync, servers, killed processes), so workers share cores well.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help demo test test-all check format ui audit sbom clean

help: ## show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { echo "Python 3.11 is needed, $(PYTHON) is another: try make PYTHON=python3.11"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(VENV)/.installed ## zoo -> hub -> crawl -> tokens -> backbone -> evaluation -> report, in a few minutes
	$(BIN)/ws-pipeline demo

ui: $(VENV)/.installed ## Dagster and MLflow on loopback, on what the demo made
	$(BIN)/ws-pipeline ui

test: $(VENV)/.installed-dev ## the tests, without the slow ones
	$(PYTEST)

test-all: $(VENV)/.installed-dev ## the tests, with the slow ones
	$(PYTEST) -m 'not network'

check: $(VENV)/.installed-dev ## style, types, layering
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

audit: ## the pins against the public advisories; needs a network, and tools of its own
	$(PYTHON) -m venv $(VENV)-audit
	$(VENV)-audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	$(VENV)-audit/bin/pip-audit --strict --requirement constraints.txt --no-deps --disable-pip

sbom: $(VENV)/.installed-dev ## what is installed, with licences, as CycloneDX on standard output
	@$(BIN)/python -m ws_pipeline_tests.deployment.sbom

format: $(VENV)/.installed-dev ## rewrite files in the house style
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## remove the environment, caches and WS_HOME (else .ws)
	rm -rf $(VENV) $(VENV)-audit $(or $(WS_HOME),.ws) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
