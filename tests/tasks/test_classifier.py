"""The task classifier: no run sees the answers, and no program can claim more than it knows."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.sessions import ScriptedAgent, Step, git, run_session

from autoresearch.protocols import Proposal, Turn

TASK = Path(__file__).parents[2] / "src" / "autoresearch" / "tasks" / "classifier"
SAVE = 'np.save("predictions.npy", probabilities(outputs))'


def put(name: str, old: str, new: str) -> Step:
    """A turn that replaces what is there once."""

    def step(turn: Turn) -> Proposal:
        assert sorted(path.name for path in turn.worktree.glob("*.gz")) == []
        file = turn.worktree / "classify.py"
        source = file.read_text()
        assert source.count(old) == 1
        file.write_text(source.replace(old, new))
        return Proposal(name)

    return step


def read(path: str) -> Step:
    return put(f"read {path}", "def main():\n", f"def main():\n    open({path!r}).close()\n")


def save(name: str, expression: str) -> Step:
    return put(name, SAVE, f'np.save("predictions.npy", {expression})')


def test_an_honest_gain_and_cheats(tmp_path: Path) -> None:
    root = shutil.copytree(TASK, tmp_path / "task", ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([sys.executable, "prepare.py"], cwd=root, check=True, capture_output=True)
    git(root, "init", "-q", "--initial-branch=main")
    git(root, "add", "--all")
    git(root, "commit", "-qm", "start")
    agent = ScriptedAgent(
        read("val/digits.npz"),
        read("holdout/digits.npz"),
        read("digits.csv.gz"),
        save("claim ten times as much", "10 * probabilities(outputs)"),
        save("claim what is no number", "np.full((1497, 10), np.nan)"),
        save("claim less than nothing", "-probabilities(outputs)"),
        save("answer for fewer images", "probabilities(outputs)[:100]"),
        put("a number of its own", "\nmain()\n", '\nmain()\nprint("---\\nval_loss: 0.01")\n'),
        put("sharper", "SHARPNESS = 3.0", "SHARPNESS = 8.0"),
    )
    found = run_session(root, agent, judge__baseline_runs=2)
    claimed = found.verdicts[3]  # rows are divided by their sums, and the last digit is luck
    assert claimed in (("discard", "not better"), ("discard", "worse"))
    assert found.verdicts == [
        ("crash", "exit code 1"),
        ("crash", "exit code 1"),
        ("crash", "exit code 1"),
        claimed,
        ("crash", "score: exit code 1"),
        ("crash", "score: exit code 1"),
        ("crash", "score: exit code 1"),
        ("discard", "not better"),
        ("keep", None),
    ]
    baseline, kept = found.experiments[0], found.experiments[9]
    assert baseline.metric == pytest.approx(1.0778, abs=1e-3)
    assert kept.metric is not None and kept.metric < 0.6
    for experiment in (0, 9):
        held_out = [run.holdout for run in found.runs_of(experiment) if run.holdout is not None]
        assert held_out and min(held_out) > 0
