# Everything that a target needs is set up by it, inside this folder: .venv has the newest Airflow, .venvs/<version> the
# others. An environment is installed anew when pyproject.toml or its constraints change.

NEWEST := 3.3.2
OLDER := 2.11.2 3.1.8
# The Python that is too new for a version of Airflow.
TOO_NEW := 3.14
TOO_NEW_2.11.2 := 3.13

ENVIRONMENTS := $(OLDER:%=.venvs/%) .venv
AIRFLOW_3 := $(filter-out .venvs/2.%,$(ENVIRONMENTS))
PYTHON := .venv/bin/python
UV := .venv/bin/uv
PRISM := .prism/node_modules/.bin/prism
PORT := 8080

export UV_PYTHON_DOWNLOADS := never
# What the user's shell says about another Airflow, or another Python's modules, would change what runs here.
$(foreach name,$(filter AIRFLOW_% PYTHONPATH PYTHONHOME,$(.VARIABLES)),$(eval unexport $(name)))
# Without it, whatever imports Airflow makes a folder in the user's home.
export AIRFLOW_HOME := $(CURDIR)/.airflow
# A proxy on the way out is no way to what runs here.
export no_proxy := localhost,127.0.0.1,$(no_proxy),$(NO_PROXY)

.DEFAULT_GOAL := help
.PHONY: help demo airflow test test-versions test-system contract lint format bench constraints build clean
.DELETE_ON_ERROR:

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/.installed ## run a sync through Airflow against a simulated Planasonix, and tell what happened
	@$(PYTHON) -m dev.demo

airflow: .venv/.installed ## a whole local Airflow, with its UI, beside a simulated Planasonix (PORT=8080)
	@$(PYTHON) -m dev.local_airflow --port $(PORT)

test: lint ## check style and types, then run the tests on the newest Airflow
	$(PYTHON) -m pytest -n auto

# Runs the tests in every environment of $(1), with the arguments $(2), and fails if they fail in one.
define pytest-in
@failed=; for environment in $(1); do \
	echo "--- $$($$environment/bin/python -c \
		'from importlib.metadata import version; print("Airflow", version("apache-airflow"))') ($$environment)"; \
	$$environment/bin/python -m pytest -q $(2) || failed="$$failed $$environment"; \
done; test -z "$$failed" || { echo "Failed in:$$failed" >&2; exit 1; }
endef

test-versions: $(ENVIRONMENTS:%=%/.installed) ## run the tests on every Airflow version that is supported
	$(call pytest-in,$(ENVIRONMENTS),-n auto)

test-system: $(AIRFLOW_3:%=%/.installed) ## run the tests that need a whole running Airflow; takes half an hour
	$(call pytest-in,$(AIRFLOW_3),tests/system)

# What fails once is found again by the same numbers: make contract SEED=… TIMES=…
contract: SEED := $(shell od -An -N3 -tu4 /dev/urandom)
contract: TIMES := 50
contract: .venv/.installed ## hold simulator and client to the OpenAPI document for minutes (TIMES=50, SEED=random)
	@if command -v npm > /dev/null; then $(MAKE) --no-print-directory $(PRISM); fi
	HYPOTHESIS_EXAMPLES=$(TIMES) CONTRACT_SEED=$(strip $(SEED)) \
		$(PYTHON) -m pytest -n auto tests/contract -o norecursedirs=.* --hypothesis-seed=$(strip $(SEED))

# A server that others wrote; it needs Node.js 20.
$(PRISM):
	@echo "Installing Prism into .prism"
	@npm install --silent --no-audit --no-fund --ignore-scripts --prefix .prism @stoplight/prism-cli@5.14.2

lint: .venv/.installed ## check style, format and types
	$(PYTHON) -m ruff check
	$(PYTHON) -m ruff format --check
	$(PYTHON) -m mypy

format: .venv/.installed ## format the code, and fix what can be fixed
	$(PYTHON) -m ruff format
	$(PYTHON) -m ruff check --fix

bench: .venv/.installed ## measure what importing the package costs a DAG file
	$(PYTHON) tests/benchmarks/imports.py

constraints: $(UV) ## move the constraints to the newest releases
	@for version in $(OLDER) $(NEWEST); do \
		echo "Compiling constraints/airflow-$$version.txt"; \
		printf '%s\n' '-e .' "apache-airflow==$$version" | $(UV) pip compile pyproject.toml - \
			--quiet --upgrade --universal --python-version 3.11 --all-extras --group dev \
			--no-header --no-annotate --no-emit-index-url --no-emit-package airflow-provider-planasonix \
			--output-file constraints/airflow-$$version.txt || exit 1; \
	done

build: $(UV) ## build the wheel and the source distribution into dist/
	$(UV) build --quiet --out-dir dist
	@ls dist/*

clean: ## remove everything that the other targets made
	rm -rf .venv .venvs .airflow .demo .prism build dist docs/_build .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +

$(UV):
	@python=$$(sh dev/find-python $(TOO_NEW)) && $$python -m venv .venv
	@$(PYTHON) -m pip install --quiet uv

.venv/.installed: constraints/airflow-$(NEWEST).txt pyproject.toml | $(UV)
	@echo "Installing Airflow $(NEWEST) into .venv"
	@$(UV) pip install --quiet --python .venv -c $< -e '.[simulator]' --group dev
	@touch $@

.venvs/%/.installed: constraints/airflow-%.txt pyproject.toml | $(UV)
	@echo "Installing Airflow $* into .venvs/$*"
	@python=$$(sh dev/find-python $(or $(TOO_NEW_$*),$(TOO_NEW))) && \
		$(UV) venv --quiet --allow-existing --python $$python .venvs/$*
	@$(UV) pip install --quiet --python .venvs/$* -c $< -e '.[simulator]' --group dev
	@touch $@
