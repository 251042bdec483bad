# The two commands of the README do everything from a fresh checkout:
#
#   make demo    build, analyse a shipped capture on the terminal, write a ruleset from it and check it with nft
#   make test    build, lint, check types, run the tests
#
# Both work as root and as a plain user. They write in the checkout only (.venv/, build/, demo-output/, the compiled
# kernels beside their sources); missing Debian packages are installed where that is allowed, see .ci/packages.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.SUFFIXES:
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO_CAPTURE := samples/captures/heartbleed-success.pcap

# nft, iptables and ip live in sbin, which a plain user's PATH on Debian leaves out.
export PATH := $(PATH):/usr/local/sbin:/usr/sbin:/sbin
export PYTHON VENV
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# The kernels as setup.py names them: a change to one of them is a reason to build again.
KERNELS := $(wildcard $(addsuffix .py,$(subst .,/,$(shell sed -n 's/^ *"\(analyzer\.[a-z0-9_.]*\)",$$/\1/p' setup.py))))

.PHONY: help demo test build packages lock readme clean

help:
	@sed -n 's/^#   //p' Makefile

demo: PACKAGES_FOR := demo
demo: build
	@printf '\n$$ tlswall analyze %s\n\n' '$(DEMO_CAPTURE)'
	@$(BIN)/tlswall analyze $(DEMO_CAPTURE)
	@mkdir -p demo-output
	@printf '\n$$ tlswall rules %s -o demo-output/rules.nft\n\n' '$(DEMO_CAPTURE)'
	@$(BIN)/tlswall rules $(DEMO_CAPTURE) -o demo-output/rules.nft
	@printf '\n$$ nft -c -f demo-output/rules.nft\n\n'
	@.ci/nft-check demo-output/rules.nft

test: PACKAGES_FOR := test
test: build
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy --strict
	$(BIN)/pytest

build: $(VENV)/built

packages:
	@.ci/packages '$(PACKAGES_FOR)'

# Once per lock file: the virtual environment and everything in it, by hash.
$(VENV)/locked: requirements-dev.lock | packages
	@echo 'Making $(VENV) and installing requirements-dev.lock ...'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install -qq --require-hashes -r requirements-dev.lock
	@touch $@

# Once per change of a kernel. setuptools and Cython come from the lock, so nothing is fetched for the build.
$(VENV)/built: $(VENV)/locked pyproject.toml setup.py $(KERNELS) | packages
	@echo 'Compiling the kernels and installing tlswall ...'
	@$(BIN)/pip install -qq --no-build-isolation --no-deps --config-settings editable_mode=compat --editable .
	@.ci/kernels $(KERNELS)
	@$(BIN)/python -m compileall -q analyzer rulegen  # or every start compiles them again where Python may not write
	@touch $@

# Renews requirements-dev.lock from pyproject.toml: for Python 3.11 and later, with hashes.
lock:
	@$(PYTHON) -m venv build/uv
	@build/uv/bin/pip install -qq uv
	@$(PYTHON) -c 'import tomllib; print("\n".join(tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"]))' | \
	  UV_CUSTOM_COMPILE_COMMAND='make lock' build/uv/bin/uv pip compile --quiet --upgrade --universal \
	  --python-version 3.11 --generate-hashes --no-annotate --no-emit-index-url --no-emit-find-links \
	  --group dev pyproject.toml - -o requirements-dev.lock
	@grep -c == requirements-dev.lock | sed 's/$$/ packages locked/'

# Renews the output that README.md shows.
readme: build
	@$(BIN)/python .ci/readme

clean:
	rm -rf $(VENV) build demo-output .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info
	find analyzer rulegen -name '*.so' -delete
