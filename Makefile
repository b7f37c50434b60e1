# bknb's commands. Each does the set-up that it needs; a second run finds it done.
.DEFAULT_GOAL := help
SHELL := /bin/sh

# The first Python from 3.11 up that can make virtual environments.
PYTHON ?= $(shell for p in python3 /usr/bin/python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
NEED_PYTHON = $(if $(PYTHON),,$(error bknb needs Python 3.11 or newer with venv: apt-get install python3-venv))
export PATH := $(CURDIR)/.venv/bin:$(PATH):/usr/sbin:/sbin

.PHONY: help setup setup-demo demo test lab bench soak conformance lint test-oldest lock clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 24

setup:  ## .venv and every Debian package that tests need
	@$(NEED_PYTHON)$(PYTHON) .ci/setup.py test

setup-demo:  ## only what the demo and the notebooks need
	@$(NEED_PYTHON)$(PYTHON) .ci/setup.py demo

demo: setup-demo  ## run notebooks/01_first_build.ipynb in a real kernel and print what it built
	@python .ci/demo.py

lab: setup-demo  ## JupyterLab on notebooks/, extension ready
	jupyter lab --ServerApp.root_dir=$(CURDIR)/notebooks $(if $(filter 0,$(shell id -u)),--allow-root)

test: setup  ## every test, those in a real browser included
	pytest -m "not slow"

soak: setup  ## the long runs
	pytest -m slow

conformance: setup  ## BuildKit's measured answers, case by case
	@python -m tests.conformance

bench: setup  ## the rows of PERFORMANCE.md that stand, beside their floor programs
	python -m tests.bench

lint: setup  ## ruff and mypy --strict
	ruff check
	mypy

test-oldest: setup  ## the tests on the lowest versions that pyproject.toml allows
	@$(NEED_PYTHON)$(PYTHON) .ci/setup.py oldest
	PATH=$(CURDIR)/.venv-oldest/bin:$$PATH python -m pytest -m "not slow"

lock:  ## resolve requirements.lock and .ci/dev.lock anew
	@sh .ci/lock

clean:  ## remove what the commands made here
	rm -rf .venv .venv-oldest build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
