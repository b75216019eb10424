# Skep's daily work. `make help` prints what is here; CI runs `make test` and nothing else.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules --no-print-directory

ifneq ($(words $(CURDIR)),1)
$(error the path of this checkout has a space in it, which make cannot handle: move it, then try again)
endif

PYTHON ?= python3
NODE_BIN ?= $(CURDIR)/.venv/bin
export PYTHON
export PATH := $(NODE_BIN):$(CURDIR)/.venv/bin:$(PATH)
export UV_SYSTEM_CERTS := 1
export NODE_USE_SYSTEM_CA := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
unexport PYTHONDONTWRITEBYTECODE PYTHONHOME PYTHONPATH VIRTUAL_ENV

BIN := .venv/bin
STAMP := .venv/.stamp
STEP := scripts/step
PYTEST := $(BIN)/pytest -q

.PHONY: help
help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

# --- use --------------------------------------------------------------------------------------------

.PHONY: run test
run: $(STAMP)/app ## set everything up, then `skep up` (ARGS="--chat-port 8000" passes flags on)
	@STEP_LOG=.venv/web.log $(MAKE) web 2>/dev/null \
	  || echo "note: the web pages could not be built (see .venv/web.log); \`$(BIN)/skep chat\` works without them"
	@exec $(BIN)/skep up $(ARGS)

test: $(STAMP)/test $(STAMP)/web $(STAMP)/parts .venv-hermes/.stamp ## set everything up, then every suite; CI runs exactly this
	@$(BIN)/python scripts/suites.py

# --- while you work ---------------------------------------------------------------------------------

.PHONY: fmt lint types imports unit docs check web
fmt: $(STAMP)/test ## format the Python code
	@$(BIN)/ruff format -q .
	@$(BIN)/ruff check -q --fix-only .

lint: $(STAMP)/test ## look for faults with ruff, and at the format
	@$(BIN)/ruff check -q .
	@$(BIN)/ruff format -q --check .

types: $(STAMP)/test ## check the types with pyright, strict
	@$(BIN)/pyright

imports: $(STAMP)/test ## check who imports whom
	@$(BIN)/lint-imports --no-logo

unit: $(STAMP)/test ## run the unit and contract tests
	@$(PYTEST) -n 2 tests/unit tests/contract

docs: $(STAMP)/test ## write the generated pages anew, run the examples
	@$(BIN)/python scripts/decisions.py
	@$(BIN)/python scripts/reference.py
	@$(PYTEST) tests/docs

check: fmt lint types imports unit docs ## the six above, one after the other: before a commit

web: $(STAMP)/web ## build the two web pages

# --- rarely -----------------------------------------------------------------------------------------

.PHONY: bench faults lock clean
bench: $(STAMP)/test .venv-hermes/.stamp ## measure, as ratios beside peers in the same run (ARGS="--only help")
	@$(BIN)/python -m bench $(ARGS)

faults: $(STAMP)/test $(STAMP)/parts ## run the fault suite at release length
	@SKEP_TEST_FAULTS=release $(PYTEST) --timeout 3600 tests/faults

lock: $(STAMP)/base ## resolve the requirements anew (UPGRADE=1 takes newer versions)
	@$(STEP) "locks" scripts/lock $(if $(UPGRADE),--upgrade)

clean: ## remove everything that set-up made; what Skep keeps for you is elsewhere
	@rm -rf .venv .venv-hermes web/node_modules src/skep/_web test-results .pytest_cache .ruff_cache .import_linter_cache .hypothesis

# --- set-up: each step leaves a stamp, so that a second run skips it ----------------------------------

# Raise the number in this file when a recipe changes: every checkout then sets itself up again.
SETUP := requirements/setup-version

# A virtual environment holds its own path: a moved checkout starts over. So do web pages that were removed.
ifneq ($(file <$(STAMP)/venv),$(CURDIR))
$(shell rm -f $(STAMP)/venv)
endif
ifeq ($(wildcard src/skep/_web/chat/index.html),)
$(shell rm -f $(STAMP)/web)
endif

$(STAMP)/venv: $(SETUP)
	@$(STEP) "Python environment" scripts/venv .venv
	@mkdir -p $(@D) && printf %s "$(CURDIR)" > $@

$(STAMP)/base: $(STAMP)/venv requirements/uv.lock requirements/base.lock
	@$(STEP) "installer" scripts/install .venv requirements/uv.lock || echo "  pip does its work"
	@$(STEP) "libraries" scripts/install .venv requirements/base.lock
	@touch $@

$(STAMP)/app: $(STAMP)/base pyproject.toml
	@$(STEP) "Skep itself" scripts/install .venv --app
	@touch $@

$(STAMP)/test: $(STAMP)/app requirements/test.lock
	@$(STEP) "libraries and parts for the tests" scripts/install .venv requirements/test.lock
	@touch $@

.venv-hermes/.stamp: $(STAMP)/base requirements/hermes.lock
	@$(STEP) "environment for Hermes" scripts/venv .venv-hermes
	@$(STEP) "Hermes" scripts/install .venv-hermes requirements/hermes.lock
	@touch $@

$(STAMP)/parts: $(STAMP)/test scripts/parts.py
	@$(BIN)/python scripts/parts.py
	@touch $@

WEB_SOURCES := $(if $(wildcard web),$(shell find web -name node_modules -prune -o -type f -print))

web/node_modules/.stamp: $(STAMP)/base web/package-lock.json web/.npmrc
	@$(STEP) "libraries of the web pages" npm --prefix web ci --fetch-retries 1 --fetch-timeout 60000
	@touch $@

$(STAMP)/web: web/node_modules/.stamp $(WEB_SOURCES)
	@$(STEP) "web pages" npm --prefix web run build
	@touch $@
