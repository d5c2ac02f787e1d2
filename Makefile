# `make demo` and `make test` set up everything they need. PYTHON picks the interpreter (3.11+).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO ?= demo

.PHONY: demo test test-slow check format clean

demo: $(VENV)/torch
	PATH="$(abspath $(BIN)):$$PATH" sh scripts/demo $(DEMO)

test: $(VENV)/torch $(VENV)/dev
	$(BIN)/pytest -q -n 2 -m "not slow"

test-slow: $(VENV)/torch $(VENV)/dev
	$(BIN)/pytest -q -m slow

check: $(VENV)/dev
	PATH="$(abspath $(BIN)):$$PATH" sh scripts/check

format: $(VENV)/dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) $(DEMO)

$(VENV)/made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed, this is %s: make PYTHON=..." % sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	@touch $@

# PyTorch alone first: its CPU build where pip offers one, without its rarely used extras.
$(VENV)/torch: $(VENV)/made pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[torch]'
	@touch $@

$(VENV)/dev: $(VENV)/made pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@
