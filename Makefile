# `make demo` and `make test` set up everything they need. PYTHON picks the interpreter (3.11+).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO ?= demo

.PHONY: demo test test-slow test-gpu test-faults test-web test-agents test-cluster test-exports check format clean

demo: $(VENV)/torch
	PATH="$(abspath $(BIN)):$$PATH" sh scripts/demo $(DEMO)

# Three workers: of two cores, two would leave a quarter idle, as tests wait for processes and disks.
test: $(VENV)/torch $(VENV)/dev
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/pytest -q -n 3 -m "not slow and not faults and not agents and not gpu and not web and not cluster and not exports"

test-slow: $(VENV)/torch $(VENV)/dev
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/pytest -q -m slow

# On a machine with an NVIDIA GPU, whose PyTorch sees it.
test-gpu: $(VENV)/torch $(VENV)/dev
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/pytest -q -m gpu

# Whatever can go wrong, injected: kill -9 at every durable action, full disks, other processes.
test-faults: $(VENV)/torch $(VENV)/dev
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/pytest -q -n 2 tests/faults tests/commands/test_fsck.py

# The page of `watch` in the system's chromium.
test-web: $(VENV)/torch $(VENV)/dev $(VENV)/browser
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/pytest -q -m web

# Ray clusters of several nodes on this machine, and a Slurm of one node if it is installed.
test-cluster: $(VENV)/torch $(VENV)/dev $(VENV)/cluster
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/pytest -q -m cluster

# The libraries that exports write with, and their readers. Nothing is sent anywhere.
test-exports: $(VENV)/torch $(VENV)/dev $(VENV)/exports
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/pytest -q -m exports

# Real coding agents, installed here from their registries, against a scripted model server.
test-agents: $(VENV)/torch $(VENV)/dev .agents/made
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/pytest -q -m agents

.agents/made:
	npm install --prefix .agents --no-fund --no-audit @openai/codex@0.169 opencode-ai@1.18 \
		@mariozechner/pi-coding-agent@0.73 @google/gemini-cli@0.61 @qwen-code/qwen-code@0.15
	$(PYTHON) -m venv .agents/mini && .agents/mini/bin/pip install -q 'mini-swe-agent>=2.4,<2.5' mcp
	$(PYTHON) -m venv .agents/aider && .agents/aider/bin/pip install -q 'aider-chat==0.86.*'
	@touch $@

check: $(VENV)/dev
	PATH="$(abspath $(BIN)):$$PATH" sh scripts/check

format: $(VENV)/dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) .agents $(DEMO)

$(VENV)/made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed, this is %s: make PYTHON=..." % sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	@touch $@

# The harness with what tiny_gpt needs: PyTorch, in the version that pyproject.toml pins.
$(VENV)/torch: $(VENV)/made pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[torch]'
	@touch $@

$(VENV)/browser: $(VENV)/made pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[browser]'
	@touch $@

$(VENV)/exports: $(VENV)/made pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[exports]'
	@touch $@

$(VENV)/cluster: $(VENV)/made pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[ray,slurm]'
	@touch $@

$(VENV)/dev: $(VENV)/made pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@
