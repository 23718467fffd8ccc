# Each target installs what it needs inside this folder: .venv has the newest Airflow, .venvs/<version> the others. An
# environment is installed again when pyproject.toml or its constraints change.

NEWEST := 3.3.2
OLDER := 2.11.2 3.0.6 3.1.8 3.2.2
# The first Python that a version of Airflow does not support.
TOO_NEW := 3.14
TOO_NEW_2.11.2 := 3.13
TOO_NEW_3.0.6 := 3.13
# BOUND_<version> excludes releases that a version of Airflow allows but does not run with.
BOUND_3.0.6 := fastapi<0.118 pyjwt<2.11 svcs<26
BOUND_3.2.2 := fastapi<0.137 svcs<26

# The wheel is tested with these before a release; "lowest" is the oldest release of everything that pyproject.toml allows.
RELEASED := lowest $(OLDER) $(NEWEST)

ENVIRONMENTS := $(OLDER:%=.venvs/%) .venv
PYTHON := .venv/bin/python
UV := .venv/bin/uv
BENCH := .venvs/bench
CHAOS := .venvs/chaos
DOCS := .venvs/docs
BROWSER := .venvs/browser
TOOLS := .venvs/package
LINT := .venvs/lint
PRERELEASE := .venvs/prerelease
WHEEL := .venvs/wheel
# The wheel of PostgreSQL warns that root has no session folder.
CALM := -W 'ignore:XDG_RUNTIME_DIR is not set'
PRISM := .prism/node_modules/.bin/prism
# The pictures in the docs.
PICTURES := simulator connection-form button log page-overview page-backfills page-charts page-phone page-panel
# The figures of make bench, for make bench-history.
FIGURES := .bench/figures.jsonl
AXE := .browser/node_modules/axe-core/axe.min.js
PORT := 8080

export UV_PYTHON_DOWNLOADS := never
# Settings of another Airflow or Python in the user's shell must not change what runs here. With PYTHONDONTWRITEBYTECODE,
# which images of containers set, each process would compile Airflow again.
$(foreach name,$(filter AIRFLOW_% PYTHONPATH PYTHONHOME PYTHONDONTWRITEBYTECODE,$(.VARIABLES)),$(eval unexport $(name)))
# Without it, every import of Airflow creates a folder in the user's home.
export AIRFLOW_HOME := $(CURDIR)/.airflow
# Requests to this machine use no proxy.
export no_proxy := localhost,127.0.0.1,$(no_proxy),$(NO_PROXY)

.DEFAULT_GOAL := help
.PHONY: help demo demo-picture airflow dev install install-browser test test-quick test-fast test-all test-newest $(OLDER:%=test-%) test-versions test-prerelease test-system contract chromium browser browser-airflow chaos chaos-short lint lint-settings format bench bench-history docs constraints build package release-notes audit test-wheel clean
.DELETE_ON_ERROR:

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/.installed ## run a sync through Airflow against a simulated Planasonix, and print each step
	@$(PYTHON) -m dev.demo

demo-picture: .venv/.installed ## draw what the demo prints into docs/images/demo.svg, for the README
	@$(PYTHON) -m dev.record_demo docs/images/demo.svg

airflow: .venv/.installed ## start a local Airflow with its UI, beside a simulated Planasonix (PORT=8080)
	@$(PYTHON) -m dev.local_airflow --port $(PORT)

dev: .venv/.installed $(LINT)/.installed ## prepare an editor's environment: .venv, all tools, and git's hooks
	@.venv/bin/prek install --quiet
	@echo "The interpreter is .venv/bin/python. Before each commit, prek checks what the commit changes."

# A worker that has nothing left to do takes tests from others.
PARALLEL := -n auto --dist worksteal
# The tests of packages that import no Airflow; tests/test_architecture.py checks these packages.
WITHOUT_AIRFLOW := tests/api tests/chaos tests/simulator tests/support tests/waiting

test: .venv/.installed $(LINT)/.installed ## check style and types, and run the quick tests on the newest Airflow; takes two minutes
	@$(MAKE) --no-print-directory --jobs=2 lint test-quick

# mypy uses one core, so it runs beside the tests.
test-quick: .venv/.installed
	$(PYTHON) -m pytest $(PARALLEL) -m 'not slow'

test-fast: .venv/.installed ## run the quickest tests of what needs no Airflow; takes less than half a minute
	$(PYTHON) -m pytest $(PARALLEL) -m 'not slow and not heavy' -p no:schemathesis $(WITHOUT_AIRFLOW)

install: $(ENVIRONMENTS:%=%/.installed) $(LINT)/.installed $(DOCS)/.installed ## install every Airflow, and the tools of make lint and make docs

install-browser: $(BROWSER)/.installed $(AXE) ## install what drives Chromium in make browser; needs npm

# The tests run at a low priority, because in .ci/run, chaos-short and browser-airflow run beside them and depend on time.
# The newest Airflow is last: its tests use all cores, so none is idle at the end.
test-all: $(OLDER:%=test-%) test-newest ## run all tests on the newest Airflow, and those that depend on it on the others

test-newest: .venv/.installed
	nice $(PYTHON) -m pytest -q $(PARALLEL)

# Whole DAGs run on the oldest and the newest version; the other slow tests, and those for which one version is enough, on
# the newest. An older version's tests run in one process, because .ci/run tests several versions at once.
OLDEST := $(firstword $(OLDER))
ON_ONE_VERSION := $(WITHOUT_AIRFLOW) tests/contract tests/packaging $(patsubst %,tests/test_%.py,architecture llms openapi windows)
$(OLDER:%=test-%): test-%: .venvs/%/.installed
	nice .venvs/$*/bin/python -m pytest -q -p no:schemathesis $(ON_ONE_VERSION:%=--ignore %) -m 'not slow$(if $(filter $(OLDEST),$*), or dag)'

# Runs the tests in every environment of $(1), with the arguments $(2), and fails if they fail in one.
define pytest-in
@failed=; for environment in $(1); do \
	echo "--- $$($$environment/bin/python -c \
		'from importlib.metadata import version; print("Airflow", version("apache-airflow"))') ($$environment)"; \
	$$environment/bin/python -m pytest -q $(2) || failed="$$failed $$environment"; \
done; test -z "$$failed" || { echo "Failed in:$$failed" >&2; exit 1; }
endef

# The environments of the Airflow versions in ON, or of all.
TESTED := $(if $(ON),$(patsubst .venvs/$(NEWEST),.venv,$(ON:%=.venvs/%)),$(ENVIRONMENTS))
test-versions: $(TESTED:%=%/.installed) ## run all tests on every supported Airflow version; takes an hour (ON=3.3.2)
	$(call pytest-in,$(TESTED),$(PARALLEL))

# Runs pytest by the command $(1). Its exit status 1 means failed tests; only other errors are fatal.
list-failures = { $(1) || { test $$? = 1 && echo "Failed tests are listed above. They are not fatal."; }; }

# A pre-release may be broken, or change before its release, so failed tests are only listed. Everything else has its newest
# release. Pre-releases of Airflow's own packages must be allowed by name.
test-prerelease: | $(UV) ## run the tests on the newest pre-release of Airflow, if one is newer than the tested versions
	@newest=$$($(PYTHON) -m pip index versions --pre apache-airflow 2>/dev/null | sed -n '1s/.*(\(.*\)).*/\1/p') && \
	test -n "$$newest" || { echo "The releases of Airflow cannot be listed." >&2; exit 1; }; \
	test "$$newest" != $(NEWEST) || { echo "No release of Airflow is newer than $(NEWEST)."; exit 0; }; \
	echo "Installing Airflow $$newest into $(PRERELEASE)" && \
	python=$$(sh dev/find-python $(TOO_NEW)) && $(UV) venv --quiet --clear --python $$python $(PRERELEASE) && \
	$(UV) pip install --quiet --python $(PRERELEASE) -e '.[simulator]' --group dev \
		"apache-airflow==$$newest" 'apache-airflow-core>=3a0' 'apache-airflow-task-sdk>=1a0' && \
	$(call list-failures,$(PRERELEASE)/bin/python -m pytest -q -n auto)

test-system: $(TESTED:%=%/.installed) ## run the tests that need a running Airflow; takes an hour for each version (ON=3.3.2)
	$(call pytest-in,$(TESTED),tests/system)

# To repeat a failure: make contract SEED=… TIMES=…
contract: SEED := $(shell od -An -N3 -tu4 /dev/urandom)
contract: TIMES := 50
contract: .venv/.installed ## check simulator and client against the OpenAPI document; takes minutes (TIMES=50, SEED=random)
	@if command -v npm > /dev/null; then $(MAKE) --no-print-directory $(PRISM); fi
	HYPOTHESIS_EXAMPLES=$(TIMES) CONTRACT_SEED=$(strip $(SEED)) \
		$(PYTHON) -m pytest -n auto tests/contract -o norecursedirs=.* --hypothesis-seed=$(strip $(SEED))

# An independent server of the OpenAPI document; it needs Node.js 20.
$(PRISM):
	@echo "Installing Prism into .prism"
	@npm install --silent --no-audit --no-fund --ignore-scripts --prefix .prism @stoplight/prism-cli@5.14.2

FIND_CHROMIUM := command -v chromium > /dev/null || { echo "There is no Chromium on the PATH: apt-get install chromium" >&2; exit 1; }
# The first prerequisite of make browser, so that a missing Chromium is noticed before the installations.
chromium:
	@$(FIND_CHROMIUM)

browser: chromium $(BROWSER)/.installed $(AXE) $(ENVIRONMENTS:%=%/.installed) ## test Airflow's UI and the simulator's pages in Chromium; pictures are in .browser (WRITE=docs)
	$(BROWSER)/bin/python -m pytest tests/browser $(CALM)
	@$(if $(WRITE),cp $(PICTURES:%=.browser/%.png) $(WRITE)/images/)

# Without the prerequisite chromium: with -j, make would start the targets of .ci/run that follow before this one.
browser-airflow: $(BROWSER)/.installed $(AXE) .venvs/$(OLDEST)/.installed .venv/.installed ## run the quick tests of Airflow's UI on the oldest and the newest Airflow
	@$(FIND_CHROMIUM)
	$(BROWSER)/bin/python -m pytest tests/browser/test_connection_form.py tests/browser/test_planasonix_page.py tests/browser/test_task_page.py \
		-k '$(OLDEST) or $(NEWEST)' -m 'not slow' $(CALM)

# Checks pages for accessibility.
$(AXE):
	@echo "Installing axe-core into .browser"
	@npm install --silent --no-audit --no-fund --ignore-scripts --prefix .browser axe-core@4.14.1

# A seed repeats its plan of kills and faults exactly. Odd seeds run distributed, and so do all with DISTRIBUTED=1.
chaos: SEED := $(shell od -An -N2 -tu2 /dev/urandom)
chaos: $(CHAOS)/.installed ## kill every component while sixty tasks run, and audit the result; takes six minutes (SEED=random)
	@$(CHAOS)/bin/python $(CALM) -m tests.chaos --seed $(strip $(SEED)) $(if $(filter-out 0,$(DISTRIBUTED)),--distributed)

chaos-short: .venv/.installed ## the same with a third of the tasks and one seed, in less than five minutes
	@$(PYTHON) $(CALM) -m tests.chaos --seed 1904 --short --local

docs: $(DOCS)/.installed ## build the documentation into docs/_build; a warning is an error
	@rm -rf docs/_build
	@$(DOCS)/bin/sphinx-build -q -W --keep-going -E -d .venvs/docs/doctrees -b html docs docs/_build
	@test -s docs/_build/llms.txt && test -s docs/_build/reference/operators.html.md
	@echo "Open docs/_build/index.html"

lint: .venv/.installed lint-settings ## check style, format, types, workflows and scripts
	$(PYTHON) -m ruff check
	$(PYTHON) -m ruff format --check
	$(PYTHON) -m mypy

SCRIPTS := .ci/run dev/find-python dev/store-benchmarks dev/test-wheel
CHECK_SCHEMA := $(LINT)/bin/check-jsonschema --quiet --builtin-schema
lint-settings: $(LINT)/.installed ## check workflows, settings of services, and shell scripts; uses no network
	$(LINT)/bin/actionlint -shellcheck $(LINT)/bin/shellcheck
	$(LINT)/bin/zizmor --offline --pedantic --quiet --no-progress .github
	$(LINT)/bin/shellcheck $(SCRIPTS)
	$(CHECK_SCHEMA) custom.github-workflows-require-timeout .github/workflows/*.yml
	$(CHECK_SCHEMA) vendor.dependabot .github/dependabot.yml
	$(CHECK_SCHEMA) vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml
	$(CHECK_SCHEMA) vendor.github-issue-forms $(filter-out %/config.yml,$(wildcard .github/ISSUE_TEMPLATE/*.yml))
	$(CHECK_SCHEMA) vendor.readthedocs .readthedocs.yaml

format: .venv/.installed ## format the code, and fix what can be fixed
	$(PYTHON) -m ruff format
	$(PYTHON) -m ruff check --fix

bench: export BENCH_FIGURES := $(CURDIR)/$(FIGURES)
bench: .venv/.installed $(BENCH)/.installed ## measure imports, parsing, the simulator and waiting; takes 15 minutes
	@rm -f $(FIGURES)
	$(PYTHON) benchmarks/imports.py
	$(PYTHON) benchmarks/parsing.py
	$(PYTHON) benchmarks/simulator.py
	$(BENCH)/bin/python benchmarks/waiting.py --write docs

bench-history: ## compare what make bench has measured with earlier nights, and store it on a branch of origin
	@sh dev/store-benchmarks $(FIGURES)

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
	@echo "Compiling constraints/lint.txt"
	@$(UV) pip compile dev/lint-requirements.txt --quiet --upgrade --universal --python-version 3.11 \
		--no-header --no-annotate --no-emit-index-url --output-file constraints/lint.txt
	@echo "Compiling constraints/airflow-lowest.txt"
	@echo '-e .[openlineage,testing]' | $(UV) pip compile - --group test \
		--quiet --upgrade --universal --python-version 3.11 --resolution lowest-direct \
		--no-header --no-annotate --no-emit-index-url --no-emit-package airflow-provider-planasonix \
		--output-file constraints/airflow-lowest.txt

build: $(UV) ## build the wheel and the source distribution into dist/
	@rm -rf dist
	@$(UV) build --quiet --sdist --wheel --out-dir dist
	@ls dist/*

package: build $(TOOLS)/.installed ## build and check the distributions and the licences of all dependencies; write an SBOM
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

release-notes: ## print the release notes of a tag, if the version and the changelog fit it (TAG=v1.2.3)
	@$$(sh dev/find-python $(TOO_NEW)) -m dev.release_notes "$$TAG"

audit: package ## ask an online service for known vulnerabilities of all dependencies
	@$(UV) pip freeze --quiet --python $(WHEEL) | grep -v '^airflow-provider-planasonix' > $(WHEEL)/requirements.txt
	$(TOOLS)/bin/pip-audit --strict --no-deps --disable-pip --progress-spinner off -r $(WHEEL)/requirements.txt

test-wheel: build ## run the tests against the installed wheel, on each supported Airflow (ON=3.3.2)
	@failed=; for version in $(or $(ON),$(RELEASED)); do \
		case $$version in 2.* | lowest) too_new=$(TOO_NEW_2.11.2) ;; *) too_new=$(TOO_NEW) ;; esac; \
		python=$(or $(WITH),$$(sh dev/find-python $$too_new)) && \
			sh dev/test-wheel $$version $$python || failed="$$failed $$version"; \
	done; test -z "$$failed" || { echo "Failed on:$$failed" >&2; exit 1; }

clean: ## remove everything that the other targets created
	rm -rf .venv .venvs .airflow .bench .browser .chaos .demo .prism build dist docs/_build .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +

$(UV):
	@python=$$(sh dev/find-python $(TOO_NEW)) && $$python -m venv .venv
	@$(PYTHON) -m pip install --quiet uv

.venv/.installed: constraints/airflow-$(NEWEST).txt pyproject.toml | $(UV)
	@echo "Installing Airflow $(NEWEST) into .venv"
	@$(UV) pip install --quiet --python .venv -c $< -e '.[simulator]' --group dev
	@touch $@

# Other providers that the benchmarks compare with; the tests run without them.
$(BENCH)/.installed: benchmarks/requirements.txt constraints/airflow-$(NEWEST).txt pyproject.toml | $(UV)
	@echo "Installing the packages of the benchmarks into $(BENCH)"
	@python=$$(sh dev/find-python $(TOO_NEW)) && $(UV) venv --quiet --allow-existing --python $$python $(BENCH)
	@$(UV) pip install --quiet --python $(BENCH) -c constraints/airflow-$(NEWEST).txt -e '.[simulator]' -r $<
	@touch $@

# Celery and its broker; the tests run without them.
$(CHAOS)/.installed: tests/chaos/requirements.txt constraints/airflow-$(NEWEST).txt pyproject.toml | $(UV)
	@echo "Installing a distributed Airflow into $(CHAOS)"
	@python=$$(sh dev/find-python $(TOO_NEW)) && $(UV) venv --quiet --allow-existing --python $$python $(CHAOS)
	@$(UV) pip install --quiet --python $(CHAOS) -c constraints/airflow-$(NEWEST).txt -e '.[simulator]' --group dev -r $<
	@touch $@

# Sphinx reads the package without importing it, so it needs none of its dependencies.
$(DOCS)/.installed: docs/requirements.txt constraints/docs.txt | $(UV)
	@echo "Installing Sphinx into $(DOCS)"
	@python=$$(sh dev/find-python $(TOO_NEW)) && $(UV) venv --quiet --allow-existing --python $$python $(DOCS)
	@$(UV) pip install --quiet --python $(DOCS) -c constraints/docs.txt -r $<
	@touch $@

# The tools that check a release do not import the package.
$(TOOLS)/.installed: dev/requirements.txt constraints/package.txt | $(UV)
	@echo "Installing the tools of a release into $(TOOLS)"
	@python=$$(sh dev/find-python $(TOO_NEW)) && $(UV) venv --quiet --allow-existing --python $$python $(TOOLS)
	@$(UV) pip install --quiet --python $(TOOLS) -c constraints/package.txt -r $<
	@touch $@

$(LINT)/.installed: dev/lint-requirements.txt constraints/lint.txt | $(UV)
	@echo "Installing the tools that check settings into $(LINT)"
	@python=$$(sh dev/find-python $(TOO_NEW)) && $(UV) venv --quiet --allow-existing --python $$python $(LINT)
	@$(UV) pip install --quiet --python $(LINT) -c constraints/lint.txt -r $<
	@touch $@

# Playwright; Chromium itself is installed by the operating system.
$(BROWSER)/.installed: tests/browser/requirements.txt constraints/airflow-$(NEWEST).txt pyproject.toml | $(UV)
	@echo "Installing Playwright into $(BROWSER)"
	@python=$$(sh dev/find-python $(TOO_NEW)) && $(UV) venv --quiet --allow-existing --python $$python $(BROWSER)
	@$(UV) pip install --quiet --python $(BROWSER) -c constraints/airflow-$(NEWEST).txt -e '.[simulator]' --group dev -r $<
	@touch $@

# Compiled only for a version without constraints.
.PRECIOUS: constraints/airflow-%.txt
constraints/airflow-%.txt: | $(UV)
	$(call compile-for,$*)

.venvs/%/.installed: constraints/airflow-%.txt pyproject.toml | $(UV)
	@echo "Installing Airflow $* into .venvs/$*"
	@python=$$(sh dev/find-python $(or $(TOO_NEW_$*),$(TOO_NEW))) && \
		$(UV) venv --quiet --allow-existing --python $$python .venvs/$*
	@$(UV) pip install --quiet --python .venvs/$* -c $< -e '.[simulator]' --group dev
	@touch $@
