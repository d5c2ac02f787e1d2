"""What the harness does where it has less than on Linux. Nothing of ours has run on macOS: here
what is missing there is taken away (`support/macos/sitecustomize.py`)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from support.sessions import TASK, alive, make_task, side

from autoresearch.agents import codex
from autoresearch.agents.support.headless import Ask
from autoresearch.core import limits
from autoresearch.runners.warden import limits as warden_limits
from autoresearch.store.paths import SessionPaths

ELSEWHERE = Path(__file__).parents[1] / "support" / "macos"
LEFT = """\
import os, sys, time
if os.fork() == 0:
    os.setsid()
    with open({pids!r}, "a") as file:
        file.write(str(os.getpid()) + " ")
    time.sleep(600)
while not os.path.exists({pids!r}): time.sleep(0.005)
{then}
print("---")
print("score:", 1)
"""


def autoresearch(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "autoresearch", *words],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(ELSEWHERE)},
        capture_output=True,
        text=True,
        timeout=200,
    )


def test_a_session(tmp_path: Path) -> None:
    root = tmp_path / "task"
    assert autoresearch(tmp_path, "new", "instant", str(root)).returncode == 0
    done = autoresearch(root, "run", "--experiments", "3", "--tag", "t", "--slots", "2")
    assert done.returncode == 0, done.stderr
    assert "runs are not confined" in done.stdout
    made = json.loads(autoresearch(root, "log", "--json").stdout)
    assert len(made) == 4 and not any("lost" in (one["reason"] or "") for one in made)
    assert autoresearch(root, "fsck").stdout == "everything agrees with the ledger\n"
    assert (root / "progress.png").exists() and (root / "report.md").exists()


@pytest.mark.parametrize("then", ["", "time.sleep(600)"])
def test_what_left_its_session_dies_with_its_run(tmp_path: Path, then: str) -> None:
    pids = side(tmp_path / "task") / "pids"
    program = LEFT.format(pids=str(pids), then=then)
    root = make_task(tmp_path / "task", program, TASK.replace("90s", "2s"))
    done = autoresearch(root, "check", "--json", "--runs", "2")
    found = [int(pid) for pid in pids.read_text().split()]
    if then:
        assert done.returncode != 0 and "timeout" in done.stdout
    else:
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        assert "processes die with their run, unless" in " ".join(told["enforced"])
        assert any("no Landlock" in line for line in told["not_enforced"])
    assert found and not any(map(alive, found))


def test_the_clock_of_a_night_goes_on_while_the_machine_sleeps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(time, "CLOCK_BOOTTIME", raising=False)
    asked = []
    monkeypatch.setattr(time, "clock_gettime", lambda clock: asked.append(clock) or 7.0)
    assert limits.boot_clock() == 7.0 and asked == [time.CLOCK_MONOTONIC_RAW]


def test_there_is_room_for_the_names_of_sockets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of multiprocessing's, for one, in a run's own temporary folder."""
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(tempfile, "tempdir", "/var/folders/zz/zyxvpxvq6csfxvn_n0000000000000/T")
    run = SessionPaths(tmp_path, "t").temporary / "12345-holdout"
    assert len(str(run / "pymp-xxxxxxxx" / "listener-xxxxxxxx")) <= 103
    monkeypatch.setattr(tempfile, "tempdir", "/scratch")
    assert SessionPaths(tmp_path, "t").temporary.parent == Path("/scratch")


def test_processes_are_limited_where_nobody_counts_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(warden_limits, "LINUX", False)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    there = warden_limits.max_threads(0)
    most = warden_limits.max_threads(100)
    assert there is not None and most is not None and there > 1
    assert abs(most - there - 100) < 50  # others come and go


def test_codex_keeps_its_own_sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    words = codex.argv(Ask(None, "", tmp_path / "prompt", tmp_path, ("train.py",)))
    assert "workspace-write" in words and not any("bypass" in word for word in words)
