"""The scripts that measure gpt on a GPU, at toy size on the CPU: `make test-slow`."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.tiny_gpt import GPT, run_python, write_corpus

pytest.importorskip("torch", reason="gpt trains with torch: pip install torch")
pytest.importorskip("tokenizers", reason="gpt needs tokenizers: pip install tokenizers")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
ORIGINAL = ROOT / "tests" / "support" / "original_train.py"

SCORE_OURS = """
import sys
import torch, our_train, prepare

class Wrapped:
    def __init__(self, model):
        self.model = model
    def __call__(self, idx, targets, reduction):
        logits = self.model(idx).flatten(0, 1)
        return torch.nn.functional.cross_entropy(logits, targets.flatten(), reduction=reduction)

model, _ = our_train.load_model(sys.argv[1], "cpu")
print("val_bpb:", prepare.evaluate_bpb(Wrapped(model), prepare.Tokenizer.from_directory(), 8))
"""


def bench(*options: object) -> str:
    script = ROOT / "benchmarks" / "gpu.py"
    done = subprocess.run(
        [sys.executable, str(script), "--toy", "--budget", "1", *map(str, options)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_everything_is_measured_and_kept(tmp_path: Path) -> None:
    corpus, work = write_corpus(tmp_path / "corpus.txt"), tmp_path / "work"
    options = ["--work", work, "--corpus", corpus, "--seeds", 2, "--experiments", 1]
    output = bench(*options, "--original", ORIGINAL)
    assert "no GPU" in output and "The baseline, 2 seeds" in output
    for name in ("val_bpb, mean", "its standard deviation", "tokens a second", "peak memory"):
        assert re.search(rf"\| {name} \| [\d,.]+", output), name
    assert re.search(r"\| precompiled: no \| [\d.]+ \|\n\| precompiled: yes \|", output)
    ours, theirs = re.findall(r"^\| val_bpb \| ([\d.]+) \| ([\d.]+) \|$", output, re.MULTILINE)[0]
    assert 0 < float(ours) < 8 and 0 < float(theirs) < 8
    begun = (work / "session.json").stat().st_mtime_ns
    assert bench(*options, "--original", ORIGINAL).endswith(
        output[output.index("The baseline, 2") :]
    )
    assert (work / "session.json").stat().st_mtime_ns == begun
    assert json.loads((work / "original.json").read_text())["attention"] == "ours"

    # The original is scored as our scorer does it.
    original = work / "original"
    (original / "score_ours.py").write_text(SCORE_OURS)
    env = {"BUDGET": "1", "SEED": "1"}
    done = run_python(original, "score_ours.py", str(work / "ours" / "model.pt"), **env)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[-1]) == pytest.approx(float(ours), abs=2e-5)


def test_published_improvements_are_judged(tmp_path: Path) -> None:
    task = tmp_path / "task"
    new = [sys.executable, "-m", "autoresearch", "new", "gpt", str(task)]
    subprocess.run(new, check=True, capture_output=True)
    corpus = write_corpus(tmp_path / "corpus.txt")
    for command in (["toy.py"], ["prepare.py", "--corpus", str(corpus)]):
        assert run_python(task, *command).returncode == 0
    file = task / "autoresearch.toml"
    text = file.read_text().replace('budget = "3s"', 'budget = "1s"')
    file.write_text(text + "\n[judge]\nbaseline_runs = 2\n")
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qam", "toy"]
    subprocess.run(git, cwd=task, check=True)
    patches = tmp_path / "patches"
    patches.mkdir()
    for name in ("03-warmdown.patch", "17-sharper-attention.patch", "02-depth-9.patch"):
        shutil.copy(GPT / "published" / name, patches)
    script = ROOT / "benchmarks" / "published.py"
    done = subprocess.run(
        [sys.executable, str(script), str(task), "--patches", str(patches)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    table = done.stdout[done.stdout.index("| change |") :].splitlines()
    assert len(table) == 5
    assert table[2] == "| depth 8 -> 9 at the same width | -0.0043 |  | not measured |"  # toy: 2
    for line in table[3:]:
        assert re.search(r"\| [-+]0\.\d{4}.* \| (keep|discard, [\w ]+) \|$", line), line
