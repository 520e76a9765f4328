# Needs Python 3.11 or newer, git and make; everything else goes into .venv.

PYTHON ?= python3
UV_VERSION := 0.13.9
VENV := .venv
STAMP := $(VENV)/.ready
ARGS ?=

# --inexact keeps uv and pip themselves in it. The virtual environment is the folder .venv of this clone, whatever is active outside,
# and its interpreter is the one it was made with: uv downloads none.
export UV_PROJECT_ENVIRONMENT := $(VENV)
export UV_PYTHON := $(VENV)/bin/python
export UV_PYTHON_DOWNLOADS := never
unexport VIRTUAL_ENV
unexport PYTHONPATH
unexport PYTHONHOME

.PHONY: setup run test browser bench chaos lint types layers format clean

setup: $(STAMP)
	@:

$(STAMP): pyproject.toml uv.lock Makefile
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 or newer is needed: no '$(PYTHON)' is on the PATH (PYTHON=… names another)." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; '$(PYTHON)' is $$($(PYTHON) -V 2>&1) (PYTHON=… names another)." >&2; exit 1; }
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV) || { echo "Python's own venv module is needed (on Debian: apt install python3-venv)." >&2; exit 1; }
	@$(VENV)/bin/python -m pip --version >/dev/null 2>&1 || $(VENV)/bin/python -m ensurepip --upgrade >/dev/null || { echo "Python's own ensurepip module is needed (on Debian: apt install python3-venv)." >&2; exit 1; }
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	$(VENV)/bin/uv sync --quiet --locked --all-extras --inexact --compile-bytecode
	@touch $@

run: setup
	@$(VENV)/bin/dispatcher demo $(ARGS)

test: setup lint types layers browser
	$(VENV)/bin/python -m pytest -n 2 --dist loadgroup $(ARGS)

# The browser tests' Chromium: what is there, or else what can be had (as root on Debian by apt-get).
browser: setup
	@$(VENV)/bin/python -m tests.browser.chromium

chaos: setup
	@$(VENV)/bin/python -m tests.chaos $(ARGS)

bench: setup
	@$(VENV)/bin/python -m bench $(ARGS)

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: setup
	$(VENV)/bin/mypy

layers: setup
	$(VENV)/bin/lint-imports --no-cache

format: setup
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
