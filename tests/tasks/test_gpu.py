"""On a machine with an NVIDIA GPU: `make test-gpu`. Runs compute on it although they are confined,
slots share it out, and tiny_gpt and gpt train and are scored there."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.sessions import TASK, ScriptedAgent, change, git, make_task, run_session
from support.tiny_gpt import GPT, import_modules, run_python, write_corpus
from support.tiny_gpt import TASK as TINY_GPT

from autoresearch.commands.fsck import audit
from autoresearch.sandbox import landlock
from autoresearch.sandbox.run_policy import why_unconfined
from autoresearch.task.reading import load

torch = pytest.importorskip("torch", reason="needs torch with CUDA")

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(600)]

PROGRAM = """\
import os, torch
VALUE = 10.0
torch.manual_seed(int(os.environ["AUTORESEARCH_SEED"]))
x = torch.randn(2000, 2000, device="cuda")
noise = (x @ x.T).mean().item()
print("visible:", os.environ.get("CUDA_VISIBLE_DEVICES"))
print("---")
print("score:", VALUE + 0.01 * noise)
print("peak_vram_mb:", torch.cuda.max_memory_allocated() / 2**20)
print("gpus:", torch.cuda.device_count())
"""


def test_there_is_a_gpu_and_something_confines() -> None:
    assert torch.cuda.is_available(), "torch sees no GPU"
    assert landlock.abi() > 0, "this kernel has no Landlock"


def test_a_confined_run_computes_on_the_gpu(tmp_path: Path) -> None:
    toml = TASK.replace("python -S -E", "python").replace("90s", "5m")
    root = make_task(tmp_path / "task", PROGRAM, toml)
    assert why_unconfined(load(root)) is None
    agent = ScriptedAgent(change(VALUE=5.0), change(VALUE=50.0))
    found = run_session(root, agent, runner__slots=2)
    assert [status for status, _ in found.verdicts] == ["keep", "discard"]
    for run in found.runs:
        assert run.numbers["peak_vram_mb"] > 10
        assert run.numbers["gpus"] >= 1
    assert audit(load(root)) == []


def test_tiny_gpt_trains_and_is_scored_on_the_gpu(tmp_path: Path) -> None:
    """Its budget is wall seconds then, and its model answers from its sandbox on the GPU too."""
    root = shutil.copytree(TINY_GPT, tmp_path / "task", ignore=shutil.ignore_patterns("__pyc*"))
    corpus = write_corpus(tmp_path / "corpus.txt")
    prepare = [sys.executable, "prepare.py", "--corpus", str(corpus)]
    subprocess.run(prepare, cwd=root, check=True, capture_output=True)
    file = root / "autoresearch.toml"
    text = file.read_text().replace('"10s"', '"3s"').replace('clock = "cpu"', 'clock = "wall"')
    file.write_text(text)
    git(root, "init", "-q", "--initial-branch=main")
    git(root, "add", "--all")
    git(root, "commit", "-qm", "start")
    found = run_session(root, ScriptedAgent())
    assert found.verdicts == []
    for run in found.runs:
        assert run.reason is None and run.metric is not None and 0 < run.metric < 8
        assert run.numbers["peak_vram_mb"] > 10
        assert run.numbers["num_steps"] > 20
        assert run.numbers["checked_windows"] > 0
        assert run.numbers["training_seconds"] == pytest.approx(3.0, rel=0.2)
    assert audit(load(root)) == []


def test_gpt_trains_and_is_scored_on_the_gpu(tmp_path: Path) -> None:
    """Smaller than by default, but with all that only a GPU has: bfloat16, compiled kernels from
    precompile.py, windows by FlexAttention or FlashAttention."""
    root = shutil.copytree(GPT, tmp_path / "task", ignore=shutil.ignore_patterns("__pyc*"))
    with import_modules(root, ("toy",)) as modules:
        file = root / "train.py"
        knobs = {"DEPTH": "4", "WIDTH": "256", "SEQ_LEN": "512", "TOTAL_BATCH": "2**15"}
        file.write_text(modules.toy.set_values(file.read_text(), knobs | {"DEVICE_BATCH": "32"}))
    file = root / "autoresearch.toml"
    file.write_text(file.read_text().replace('"5m"', '"5s"'))
    corpus = write_corpus(tmp_path / "corpus.txt", size=3_000_000)
    for command in (["prepare.py", "--corpus", str(corpus)], ["precompile.py"]):
        done = run_python(root, *command)
        assert done.returncode == 0, done.stderr
    git(root, "init", "-q", "--initial-branch=main")
    git(root, "add", "--all")
    git(root, "commit", "-qm", "start")
    found = run_session(root, ScriptedAgent())
    assert found.verdicts == []
    for run in found.runs:
        assert run.reason is None and run.metric is not None and 0 < run.metric < 8
        assert run.numbers["peak_vram_mb"] > 10
        assert run.numbers["training_seconds"] == pytest.approx(5.0, rel=0.2)
        assert run.numbers["checked_windows"] > 0
    assert audit(load(root)) == []
