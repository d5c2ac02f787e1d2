"""kill -9 at any moment: nothing finished is lost or made twice, and nothing is left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
from support.sessions import ScriptedAgent, change, run_session, wait_until, workspace_of

from autoresearch.git.objects import STALE_LOCK_S
from autoresearch.measure.execution import SESSION
from autoresearch.store.paths import SessionPaths

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "nothing_lost.py"

HARNESS = """\
import os, sys
from pathlib import Path
from autoresearch.protocols import RunSpec
from autoresearch.runners.local import LocalRunner

folder, script = Path(sys.argv[1]), sys.argv[2]
LocalRunner(1).run(
    RunSpec(
        argv=("/bin/sh", "-c", script),
        tree=folder,
        log=folder / "log",
        outcome=folder / "outcome.json",
        env={"PATH": os.environ["PATH"]},
        timeout_s=60,
    )
)
"""


def test_killed_and_resumed() -> None:
    """A few kills; `benchmarks/nothing_lost.py` has fifty."""
    command = [sys.executable, str(BENCHMARK), "--kills", "4", "--experiments", "8"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_run_that_ends_while_the_harness_is_dead_is_finished(tmp_path: Path) -> None:
    script = "while [ ! -e go ]; do sleep 0.01; done; exit 3"
    harness = subprocess.Popen([sys.executable, "-c", HARNESS, str(tmp_path), script])
    wait_until((tmp_path / "log").exists)
    wait_until(lambda: psutil.Process(harness.pid).children(recursive=True)[1:])
    warden, run = psutil.Process(harness.pid).children(recursive=True)[:2]
    warden.suspend()
    (tmp_path / "go").touch()
    wait_until(lambda: run.status() == psutil.STATUS_ZOMBIE)
    harness.kill()
    harness.wait()
    warden.resume()
    wait_until((tmp_path / "outcome.json").exists)
    outcome = json.loads((tmp_path / "outcome.json").read_text())
    assert (outcome["exit_code"], outcome["stopped"]) == (3, None)
    wait_until(lambda: not warden.is_running())


def test_what_is_under_way_dies_with_the_harness(tmp_path: Path) -> None:
    script = "(setsid sleep 600 & echo $! > pid); sleep 600"
    harness = subprocess.Popen([sys.executable, "-c", HARNESS, str(tmp_path), script])
    wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip())
    family = psutil.Process(harness.pid).children(recursive=True)
    harness.kill()
    harness.wait()
    wait_until(lambda: not any(process.is_running() for process in family), timeout_s=5)
    assert not (tmp_path / "outcome.json").exists()


def test_what_outlived_its_warden_dies_at_the_next_start(root: Path) -> None:
    env = os.environ | {SESSION: str(SessionPaths(root, "t").folder)}
    left = subprocess.Popen(["sleep", "600"], env=env, start_new_session=True)
    run_session(root, ScriptedAgent())
    assert left.wait(timeout=5) == -9


def test_locks_left_on_refs_are_removed(root: Path) -> None:
    run_session(root, ScriptedAgent(change(SPREAD=0.2)))
    refs = root / ".git" / "refs"
    for name in ("autoresearch/t/2", "autoresearch/t/best", "heads/autoresearch/t"):
        (refs / name).parent.mkdir(parents=True, exist_ok=True)
        (refs / f"{name}.lock").touch()
    night = run_session(root, ScriptedAgent(change(VALUE=1.0)))
    assert night.verdicts[1] == ("keep", None)
    assert night.branch() == night.experiments[2].commit
    assert not list(refs.rglob("*.lock"))


def test_a_lock_on_the_packed_refs_is_respected_while_it_is_young(root: Path) -> None:
    repository = workspace_of(root)
    lock = root / ".git" / "packed-refs.lock"
    lock.touch()
    for number, age_s in enumerate((0, STALE_LOCK_S + 1)):
        then = time.time() - age_s
        os.utime(lock, (then, then))
        commit = repository.commit(repository.head(), {"prog.py": b"%d" % number}, "a change\n")
        repository.refs.keep("t", number, commit)
        repository.pack()
        assert lock.exists() == (not age_s)
        assert repository.refs.get(f"refs/autoresearch/t/{number}") == commit
