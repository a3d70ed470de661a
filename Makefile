# make run: serve the demo on 127.0.0.1:8080.   make test: the whole suite.   make bench: measure.
# Everything lives in .venv; a second run finds it there and starts at once.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BUILT := $(VENV)/.built
DEV := $(VENV)/.dev
SOURCES := $(wildcard ext/*.pyx ext/*.pxd)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1

.PHONY: run test bench build docs clean help
.DELETE_ON_ERROR:

run: $(BUILT)
	@exec $(BIN)/python -m imgserve demo

test: $(DEV)
	$(BIN)/python -m pytest

bench: $(DEV)
	$(BIN)/python -m benchmarks

# A wheel and a source archive in dist/.
build: $(DEV)
	$(BIN)/python -m build

# Write the generated tables of the README anew.
docs: $(DEV)
	$(BIN)/python -m imgserve reference --update README.md

help:
	@sed -n 's/^# //p;s/^\([a-z]*\): \$$(.*/  make \1/p' Makefile

# The interpreter and the compiler are looked at first, so that what is missing is said in one line.
$(VENV)/.python: .ci/look-first
	@sh .ci/look-first "$(PYTHON)"
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(BUILT): $(VENV)/.python pyproject.toml setup.py $(SOURCES)
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(DEV): $(BUILT)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info demo .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	rm -f imgserve/fast/*.so
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
