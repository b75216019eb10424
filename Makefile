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
unexport PYTHONDONTWRITEBYTECODE VIRTUAL_ENV PYTHONPATH PYTHONHOME

BIN := .venv/bin
STAMP := .venv/.stamp
STEP := @scripts/step

# --- set-up: each step leaves a stamp, so that a second run skips it ---------------------------------

# Raise the number in this file when a recipe changes: every checkout then sets itself up again.
SETUP := requirements/setup-version

$(STAMP)/venv: $(SETUP)
	$(STEP) "Python environment" scripts/venv .venv
	@mkdir -p $(@D) && touch $@

$(STAMP)/base: $(STAMP)/venv requirements/uv.lock requirements/base.lock
	$(STEP) "installer (uv)" scripts/install .venv requirements/uv.lock \
	  || echo "  uv is not to be had here; pip does its work"
	$(STEP) "libraries" scripts/install .venv requirements/base.lock
	@touch $@

$(STAMP)/app: $(STAMP)/base pyproject.toml
	$(STEP) "Skep itself" scripts/install .venv --app
	@touch $@

$(STAMP)/test: $(STAMP)/app requirements/test.lock
	$(STEP) "libraries and parts for the tests" scripts/install .venv requirements/test.lock
	@touch $@

.PHONY: help
help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile
