# Everything that a target needs is set up by it, inside this folder: .venv has the newest Airflow, .venvs/<version> the
# others. An environment is installed anew when pyproject.toml or its constraints change.

NEWEST := 3.3.2
OLDER := 2.11.2 3.1.8
# The Python that is too new for a version of Airflow.
TOO_NEW := 3.14
TOO_NEW_2.11.2 := 3.13
# BOUND_<version> is what else a version of Airflow needs, where it allows releases that it does not run with.

# What the wheel is tried on before a release: versions of Airflow, and "lowest", which is the oldest of everything that
# pyproject.toml allows.
RELEASED := lowest $(OLDER) $(NEWEST)

ENVIRONMENTS := $(OLDER:%=.venvs/%) .venv
AIRFLOW_3 := $(filter-out .venvs/2.%,$(ENVIRONMENTS))
PYTHON := .venv/bin/python
UV := .venv/bin/uv
BENCH := .venvs/bench
CHAOS := .venvs/chaos
DOCS := .venvs/docs
BROWSER := .venvs/browser
TOOLS := .venvs/package
WHEEL := .venvs/wheel
# PostgreSQL's wheel warns that root has no folder for a session.
CALM := -W 'ignore:XDG_RUNTIME_DIR is not set'
PRISM := .prism/node_modules/.bin/prism
# Those that the docs show.
PICTURES := simulator connection-form button log
AXE := .browser/node_modules/axe-core/axe.min.js
PORT := 8080

export UV_PYTHON_DOWNLOADS := never
# What the user's shell says about another Airflow, or another Python's modules, would change what runs here.
$(foreach name,$(filter AIRFLOW_% PYTHONPATH PYTHONHOME,$(.VARIABLES)),$(eval unexport $(name)))
# Without it, whatever imports Airflow makes a folder in the user's home.
export AIRFLOW_HOME := $(CURDIR)/.airflow
# A proxy on the way out is no way to what runs here.
export no_proxy := localhost,127.0.0.1,$(no_proxy),$(NO_PROXY)

.DEFAULT_GOAL := help
.PHONY: help demo demo-picture airflow test test-versions test-system contract browser browser-airflow chaos chaos-short lint format bench docs constraints build package audit test-wheel clean
.DELETE_ON_ERROR:

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/.installed ## run a sync through Airflow against a simulated Planasonix, and tell what happened
	@$(PYTHON) -m dev.demo

demo-picture: .venv/.installed ## draw what the demo prints into docs/images/demo.svg, for the README
	@$(PYTHON) -m dev.record_demo docs/images/demo.svg

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

test-system: $(AIRFLOW_3:%=%/.installed) ## run the tests that need a whole running Airflow; takes an hour
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

browser: $(BROWSER)/.installed $(AXE) $(ENVIRONMENTS:%=%/.installed) ## look at Airflow's UI and the simulator's pages in Chromium; pictures are in .browser (WRITE=docs)
	$(BROWSER)/bin/python -m pytest tests/browser $(CALM)
	@$(if $(WRITE),cp $(PICTURES:%=.browser/%.png) $(WRITE)/images/)

browser-airflow: $(BROWSER)/.installed $(ENVIRONMENTS:%=%/.installed) ## the same, but for the simulator's pages: connection form, button and log on each Airflow
	$(BROWSER)/bin/python -m pytest tests/browser/test_connection_form.py tests/browser/test_task_page.py $(CALM)

# What looks for what keeps people out of a page.
$(AXE):
	@echo "Installing axe-core into .browser"
	@npm install --silent --no-audit --no-fund --ignore-scripts --prefix .browser axe-core@4.14.1

# A seed repeats its plan of kills and faults exactly. Odd seeds run distributed, and so do all with DISTRIBUTED=1.
chaos: SEED := $(shell od -An -N2 -tu2 /dev/urandom)
chaos: $(CHAOS)/.installed ## kill everything amid sixty tasks, and audit what is left; takes six minutes (SEED=random)
	@$(CHAOS)/bin/python $(CALM) -m tests.chaos --seed $(strip $(SEED)) $(if $(filter-out 0,$(DISTRIBUTED)),--distributed)

chaos-short: .venv/.installed ## the same with a third of the tasks and one seed, in less than five minutes
	@$(PYTHON) $(CALM) -m tests.chaos --seed 1904 --short --local

docs: $(DOCS)/.installed ## build the documentation into docs/_build; a warning is an error
	@rm -rf docs/_build
	@$(DOCS)/bin/sphinx-build -q -W --keep-going -E -d .venvs/docs/doctrees -b html docs docs/_build
	@echo "Open docs/_build/index.html"

lint: .venv/.installed ## check style, format and types
	$(PYTHON) -m ruff check
	$(PYTHON) -m ruff format --check
	$(PYTHON) -m mypy

format: .venv/.installed ## format the code, and fix what can be fixed
	$(PYTHON) -m ruff format
	$(PYTHON) -m ruff check --fix

bench: .venv/.installed $(BENCH)/.installed ## measure imports, parsing, the simulator and waiting; takes a quarter of an hour
	$(PYTHON) benchmarks/imports.py
	$(PYTHON) benchmarks/parsing.py
	$(PYTHON) benchmarks/simulator.py
	$(BENCH)/bin/python benchmarks/waiting.py --write docs

# Compiles the constraints of the Airflow versions $(1), with the option $(2).
define compile-for
@$(foreach version,$(1), \
	echo "Compiling constraints/airflow-$(version).txt"; \
	printf '%s\n' '-e .' 'apache-airflow==$(version)' $(BOUND_$(version):%='%') | $(UV) pip compile pyproject.toml - \
		--quiet $(2) --universal --python-version 3.11 --all-extras --group dev \
		--no-header --no-annotate --no-emit-index-url --no-emit-package airflow-provider-planasonix \
		--output-file constraints/airflow-$(version).txt || exit 1;)
endef

constraints: $(UV) ## move the constraints to the newest releases
	$(call compile-for,$(OLDER) $(NEWEST),--upgrade)
	@echo "Compiling constraints/docs.txt"
	@$(UV) pip compile docs/requirements.txt --quiet --upgrade --universal --python-version 3.11 \
		--no-header --no-annotate --no-emit-index-url --output-file constraints/docs.txt
	@echo "Compiling constraints/package.txt"
	@$(UV) pip compile dev/requirements.txt --quiet --upgrade --universal --python-version 3.11 \
		--no-header --no-annotate --no-emit-index-url --output-file constraints/package.txt
	@echo "Compiling constraints/airflow-lowest.txt"
	@echo '-e .[openlineage,testing]' | $(UV) pip compile - --group test \
		--quiet --upgrade --universal --python-version 3.11 --resolution lowest-direct \
		--no-header --no-annotate --no-emit-index-url --no-emit-package airflow-provider-planasonix \
		--output-file constraints/airflow-lowest.txt

build: $(UV) ## build the wheel and the source distribution into dist/
	@rm -rf dist
	@$(UV) build --quiet --sdist --wheel --out-dir dist
	@ls dist/*

package: build $(TOOLS)/.installed ## build, look at what was built, its dependencies' licences too, and list those (SBOM)
	@$(UV) build --quiet --wheel --out-dir dist/again dist/*.tar.gz
	cmp dist/*.whl dist/again/*.whl
	@rm -r dist/again
	$(TOOLS)/bin/twine check --strict dist/*
	$(TOOLS)/bin/check-wheel-contents dist/*.whl
	@python=$$(sh dev/find-python $(TOO_NEW)) && $(UV) venv --quiet --clear --python $$python $(WHEEL)
	@$(UV) pip install --quiet --python $(WHEEL) -c constraints/airflow-$(NEWEST).txt dist/*.whl
	@version=$$(ls dist/*.whl | cut -d- -f2) && \
		sed "s/^dynamic = .*/version = \"$$version\"/" pyproject.toml > $(WHEEL)/pyproject.toml && \
		$(TOOLS)/bin/cyclonedx-py environment $(WHEEL) --pyproject $(WHEEL)/pyproject.toml --mc-type library \
			--output-reproducible --output-file dist/airflow_provider_planasonix-$$version.cdx.json
	@$(UV) pip install --quiet --python $(WHEEL) -c constraints/airflow-$(NEWEST).txt \
		"$$(echo dist/*.whl)[openlineage,simulator,testing]"
	$(TOOLS)/bin/pip-licenses --python $(WHEEL)/bin/python --summary
	@ls -l dist

audit: package ## ask an online service for known weaknesses of all that a wheel brings along
	@$(UV) pip freeze --quiet --python $(WHEEL) | grep -v '^airflow-provider-planasonix' > $(WHEEL)/requirements.txt
	$(TOOLS)/bin/pip-audit --strict --no-deps --disable-pip --progress-spinner off -r $(WHEEL)/requirements.txt

test-wheel: build ## run the tests against the installed wheel, on each supported Airflow (ON=3.3.2)
	@failed=; for version in $(or $(ON),$(RELEASED)); do \
		case $$version in 2.* | lowest) too_new=$(TOO_NEW_2.11.2) ;; *) too_new=$(TOO_NEW) ;; esac; \
		python=$(or $(WITH),$$(sh dev/find-python $$too_new)) && \
			sh dev/test-wheel $$version $$python || failed="$$failed $$version"; \
	done; test -z "$$failed" || { echo "Failed on:$$failed" >&2; exit 1; }

clean: ## remove everything that the other targets made
	rm -rf .venv .venvs .airflow .browser .chaos .demo .prism build dist docs/_build .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +

$(UV):
	@python=$$(sh dev/find-python $(TOO_NEW)) && $$python -m venv .venv
	@$(PYTHON) -m pip install --quiet uv

.venv/.installed: constraints/airflow-$(NEWEST).txt pyproject.toml | $(UV)
	@echo "Installing Airflow $(NEWEST) into .venv"
	@$(UV) pip install --quiet --python .venv -c $< -e '.[simulator]' --group dev
	@touch $@

# Others' packages that waiting is compared with: they stay out of where the tests run.
$(BENCH)/.installed: benchmarks/requirements.txt constraints/airflow-$(NEWEST).txt pyproject.toml | $(UV)
	@echo "Installing what the benchmarks compare with into $(BENCH)"
	@python=$$(sh dev/find-python $(TOO_NEW)) && $(UV) venv --quiet --allow-existing --python $$python $(BENCH)
	@$(UV) pip install --quiet --python $(BENCH) -c constraints/airflow-$(NEWEST).txt -e '.[simulator]' -r $<
	@touch $@

# Celery and its broker: they, too, stay out of where the tests run.
$(CHAOS)/.installed: tests/chaos/requirements.txt constraints/airflow-$(NEWEST).txt pyproject.toml | $(UV)
	@echo "Installing what a distributed Airflow needs into $(CHAOS)"
	@python=$$(sh dev/find-python $(TOO_NEW)) && $(UV) venv --quiet --allow-existing --python $$python $(CHAOS)
	@$(UV) pip install --quiet --python $(CHAOS) -c constraints/airflow-$(NEWEST).txt -e '.[simulator]' --group dev -r $<
	@touch $@

# What builds the documentation reads the package, and needs none of its dependencies.
$(DOCS)/.installed: docs/requirements.txt constraints/docs.txt | $(UV)
	@echo "Installing what builds the documentation into $(DOCS)"
	@python=$$(sh dev/find-python $(TOO_NEW)) && $(UV) venv --quiet --allow-existing --python $$python $(DOCS)
	@$(UV) pip install --quiet --python $(DOCS) -c constraints/docs.txt -r $<
	@touch $@

# What looks at what was built: it imports none of it.
$(TOOLS)/.installed: dev/requirements.txt constraints/package.txt | $(UV)
	@echo "Installing what looks at a release into $(TOOLS)"
	@python=$$(sh dev/find-python $(TOO_NEW)) && $(UV) venv --quiet --allow-existing --python $$python $(TOOLS)
	@$(UV) pip install --quiet --python $(TOOLS) -c constraints/package.txt -r $<
	@touch $@

# What drives a browser; Chromium itself is the operating system's.
$(BROWSER)/.installed: tests/browser/requirements.txt constraints/airflow-$(NEWEST).txt pyproject.toml | $(UV)
	@command -v chromium > /dev/null || { echo "There is no Chromium on the PATH: apt-get install chromium" >&2; exit 1; }
	@echo "Installing what drives a browser into $(BROWSER)"
	@python=$$(sh dev/find-python $(TOO_NEW)) && $(UV) venv --quiet --allow-existing --python $$python $(BROWSER)
	@$(UV) pip install --quiet --python $(BROWSER) -c constraints/airflow-$(NEWEST).txt -e '.[simulator]' --group dev -r $<
	@touch $@

# Of a version that has none yet; those of the others stay as they are.
.PRECIOUS: constraints/airflow-%.txt
constraints/airflow-%.txt: | $(UV)
	$(call compile-for,$*)

.venvs/%/.installed: constraints/airflow-%.txt pyproject.toml | $(UV)
	@echo "Installing Airflow $* into .venvs/$*"
	@python=$$(sh dev/find-python $(or $(TOO_NEW_$*),$(TOO_NEW))) && \
		$(UV) venv --quiet --allow-existing --python $$python .venvs/$*
	@$(UV) pip install --quiet --python .venvs/$* -c $< -e '.[simulator]' --group dev
	@touch $@
