# Three commands are all one needs: `make demo`, `make test`, `make format`. The rest is for those who look closer.
# Nothing has to be installed first but Python 3.11 or later; everything else goes into .venv by pip.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo page serve test lowest lint format evidence docs benchmarks clean

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check
# What was tested is installed; where an index does not have it, the newest that pyproject.toml allows.
INSTALL = ($(PIP) -c constraints.txt -e $(1) || { \
	echo "constraints.txt cannot be met here: taking the newest versions that pyproject.toml allows" >&2; $(PIP) -e $(1); })

help:
	@echo "make demo      outline lesions and follow them over three scans, with a picture"
	@echo "make test      set up, check style, types and layers, run the tests"
	@echo "make serve     the reading room on the cases in CASES=folder (node and npm make its page; make page: it alone)"
	@echo "make lint      the checks alone          make format    apply the style"
	@echo "make evidence  measure every claim anew  make docs      build the site into site/"
	@echo "make lowest    the tests with the oldest packages allowed    make clean  remove all that these made"

demo: $(VENV)/.base
	@$(BIN)/lesionlocator demo

# The reading room's page, from viewer/. Whoever installs a wheel has it already; nothing else needs node.
PAGE := src/lesionlocator/server/page/index.html
page: $(PAGE)

$(PAGE): $(wildcard viewer/src/*) viewer/build.mjs viewer/package-lock.json
	@command -v node npm >/dev/null && test "$$(command -v node npm | wc -l)" = 2 || { \
		echo "no page: found no node or no npm (Debian, Ubuntu: apt install nodejs npm)" >&2; exit 2; }
	@cd viewer && { test node_modules -nt package-lock.json || npm ci --silent --no-progress && touch node_modules; }
	@cd viewer && node build.mjs

CASES := .
serve: $(VENV)/.server page
	@$(BIN)/lesionlocator serve $(CASES) --open

test: lint
	@$(MAKE) --no-print-directory page || true
	@$(BIN)/python -m pytest -q -n 2 --dist=worksteal $(TESTS)

# The tests again with the oldest packages that pyproject.toml allows, in an environment of its own. The wheel has been
# tried already; that old packages deprecate each other is not our concern.
lowest:
	@$(MAKE) --no-print-directory VENV=.venv-lowest .venv-lowest/.lowest
	@.venv-lowest/bin/python -m pytest -q -n 2 --dist=worksteal -W ignore::DeprecationWarning --ignore tests/test_wheel.py

lint: $(VENV)/.dev
	@echo "style, types, layers"
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/pyright --pythonpath $(BIN)/python
	@$(BIN)/lint-imports --no-logo > $(VENV)/layers.txt || { cat $(VENV)/layers.txt; exit 1; }

format: $(VENV)/.dev
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format .

evidence: $(VENV)/.dev
	@$(BIN)/python evidence/run.py

benchmarks: $(VENV)/.base
	@for script in benchmarks/*.py; do $(BIN)/python $$script; done

docs: $(VENV)/.docs
	@$(BIN)/zensical build --strict

clean:
	rm -rf viewer/node_modules src/lesionlocator/server/page $(VENV) .venv-lowest site dist build .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

# The environment, in layers: what the demo needs comes first and alone, so that it is there soon.

$(VENV)/.base: pyproject.toml constraints.txt
	@echo "setting up $(VENV) (once, half a minute to two)"
	@for python in python3.11 python3.12 python3.13 python3 python; do \
		$$python -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
		test -x $(BIN)/python || $$python -m venv $(VENV); \
		exit; \
	done; \
	echo "found no Python 3.11 or later that can make an environment; needed one, with its venv module;" \
		"install it (Debian, Ubuntu: apt install python3-venv) and try again" >&2; exit 2
	@$(call INSTALL,.)
	@touch $@

$(VENV)/.dev: $(VENV)/.base
	@echo "adding what the tests need (once, about a minute)"
	@$(call INSTALL,".[dev]")
	@touch $@

$(VENV)/.server: $(VENV)/.base
	@echo "adding what the reading room needs"
	@$(call INSTALL,".[server]")
	@touch $@

$(VENV)/.lowest: constraints-lowest.txt $(VENV)/.base
	@echo "putting the oldest packages in their place"
	@$(PIP) -c constraints-lowest.txt -e ".[test]"
	@touch $@

$(VENV)/.docs: $(VENV)/.base
	@echo "adding what the site needs"
	@$(call INSTALL,".[docs]")
	@touch $@
