# Needs python3 (3.11 or newer, with venv), a C compiler and make; nothing else, not even git.
# Another interpreter: make test PYTHON=python3.13 (gets an environment of its own).

PYTHON ?= python3
VENV ?= .venv$(if $(filter-out python3,$(PYTHON)),-$(notdir $(PYTHON)))
PY := $(VENV)/bin/python
ARGS ?=

# -qq: errors only. A stale pip cannot read [dependency-groups], hence its own upgrade first.
PIP := $(PY) -m pip -qq --disable-pip-version-check --no-input
export PIP_ROOT_USER_ACTION := ignore

CYTHON_SOURCES := $(wildcard derecho/*.pyx derecho/*.pxd derecho/_core/*.pyx derecho/_core/*.pxd)
BELL_SOURCES := $(wildcard derecho/_bell*.py derecho/_bell*.c derecho/_bell*.h)
SETUP := $(VENV)/.setup
BUILT := $(VENV)/.built
FLAVOUR := trace=$(DERECHO_TRACE) annotate=$(DERECHO_ANNOTATE) checked=$(DERECHO_CHECKED) fast=$(DERECHO_FAST_THREAD_STATE)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test check check-style check-types check-cython check-layers bench build coverage wheel clean format where FORCE

help:  ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

demo: $(BUILT)  ## Set up if needed, then show a workflow surviving kill -9
	@$(PY) -m derecho demo $(ARGS)

test: $(BUILT)  ## Set up if needed, then run every test, warnings being errors (ARGS="-k timer" to choose)
	$(PY) -m pytest $(ARGS)

check: check-style check-types check-cython check-layers  ## Read the code without running it (-k: go on after a failure)

check-style: $(SETUP)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

check-types: $(BUILT)
	$(PY) -m mypy
	$(PY) -m mypy.stubtest derecho._core --allowlist tests/typing/stubtest-allowlist.txt

check-cython: $(SETUP)
	PATH="$(abspath $(VENV))/bin:$$PATH" cython-lint $(CYTHON_SOURCES)

# Not by lint-imports itself: it cannot see a compiled module and takes an import of it for one of the whole package.
check-layers: $(BUILT)
	$(PY) -m pytest -q tests/test_layers.py

format: $(SETUP)  ## Rewrite the code as `check` wants it, where a tool can
	$(PY) -m ruff check --fix-only --quiet .
	$(PY) -m ruff format .

bench: $(BUILT)  ## Run the benchmarks and keep the figures in .benchmarks/
	$(PY) -m pytest bench --benchmark-only --benchmark-autosave $(ARGS)

build: $(BUILT)  ## Compile what changed (DERECHO_TRACE=1, DERECHO_ANNOTATE=1: see setup.py)

coverage: $(BUILT)  ## Run the tests under coverage and list the lines they miss
	$(PIP) install --group coverage
	$(PY) -m coverage run -m pytest $(ARGS)
	$(PY) -m coverage combine --quiet
	$(PY) -m coverage report

wheel: $(SETUP)  ## Build sdist and wheel into dist/, check both, verify the wheel in an environment of its own
	rm -rf dist
	@echo building sdist and wheel
	@log=$$(mktemp); $(PY) -m build --outdir dist . > $$log 2>&1 || { cat $$log >&2; rm -f $$log; exit 1; }; rm -f $$log
	$(PY) wheels/check_dist.py dist
	$(PY) wheels/prove.py dist

clean:  ## Remove everything that was made here, environments included
	rm -rf .venv .venv-* build dist wheelhouse *.egg-info htmlcov .coverage .coverage.* .benchmarks
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	rm -f derecho/*.so derecho/*.pyd derecho/_core.c derecho/_core.html
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

where:
	@echo $(PY)

# Tools, dependencies and derecho itself, editable. Redone when what it was made from changes.
$(SETUP): pyproject.toml setup.py
	@echo "setting up $(VENV) (once; about a minute)"
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "derecho needs Python 3.11 or newer: make $(MAKECMDGOALS) PYTHON=python3.11")'
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@$(PIP) install --upgrade 'pip>=25.1'
	@$(PIP) install --group dev
	@$(PIP) install --no-build-isolation --editable '.[postgres,sqlite,pydantic]'
	@touch $@

$(BUILT): $(SETUP) $(VENV)/.flavour $(CYTHON_SOURCES) $(BELL_SOURCES)
	@test ! -e $@ -o $@ -nt $(VENV)/.flavour || force=--force; log=$$(mktemp); \
	if $(PY) setup.py -q build_ext --inplace $$force > $$log 2>&1; \
	then rm -f $$log; else cat $$log >&2; rm -f $$log; exit 1; fi
	@touch $@

# Holds how the core was last compiled here, and changes only when that does.
$(VENV)/.flavour: FORCE | $(SETUP)
	@echo '$(FLAVOUR)' | cmp -s - $@ || echo '$(FLAVOUR)' > $@

FORCE:
