"""Commands by their command line: detached sessions, signals, views, copies of ready tasks."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.commands import COMMAND, call, start_process
from support.sessions import (
    PROGRAM,
    TASK,
    ScriptedAgent,
    change,
    commit_all,
    edit,
    git,
    make_task,
    night,
    run_session,
    side,
    wait_until,
)

from autoresearch.cli import main as cli
from autoresearch.cli.detached import find_error, parse_line
from autoresearch.commands.fsck import audit
from autoresearch.measure.runs import leftovers
from autoresearch.store.lock import find_owner
from autoresearch.store.paths import SessionPaths
from autoresearch.task.reading import load


def answer(where: Path, *words: object) -> Any:
    done = call(where, *words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def gate(root: Path) -> Path:
    """Runs log that they have begun, then wait until this file exists."""
    gate = side(root) / "gate"
    edit(root, WAIT_A=str(gate))
    commit_all(root)
    return gate


@pytest.fixture
def paths(root: Path) -> Iterator[SessionPaths]:
    """Of a session `t`, which is ended after the test."""
    paths = SessionPaths(root, "t")
    yield paths
    if (pid := find_owner(paths)) is not None:
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: find_owner(paths) is None)


def run_detached(root: Path) -> dict[str, Any]:
    facts: dict[str, Any] = answer(root, "run", "--detach", "--experiments", 1, "--tag", "t")
    return facts


def wait_for_run(paths: SessionPaths) -> None:
    wait_until(lambda: any(paths.runs.glob("0000/*/log")))


# ---- a session without a terminal --------------------------------------------------------------


def test_a_detached_session_is_watched_to_its_end(
    root: Path, paths: SessionPaths, gate: Path
) -> None:
    facts = run_detached(root)
    assert facts == {"tag": "t", "pid": find_owner(paths), "log": str(paths.log)}
    assert answer(root, "status")["running"] is True
    watcher = start_process(root, "attach", "--json")
    gate.touch()
    out, _ = watcher.communicate(timeout=200)
    assert watcher.returncode == 0
    *events, last = [json.loads(line) for line in out.splitlines()]
    assert any("baseline 3 of 3" in event["text"] for event in events)
    assert last["running"] is False and last["finished"] == 1
    assert answer(root, "status")["running"] is False
    assert audit(load(root)) == []


def test_watching_ends_and_the_session_goes_on(root: Path, paths: SessionPaths, gate: Path) -> None:
    run_detached(root)
    watcher = start_process(root, "attach")
    wait_for_run(paths)
    with paths.log.open("a") as log:
        log.write("something\n")
    assert watcher.stdout is not None
    while watcher.stdout.readline() != "something\n":  # it is watching
        assert watcher.poll() is None
    watcher.send_signal(signal.SIGINT)
    out, _ = watcher.communicate(timeout=30)
    assert watcher.returncode == 0 and "session t goes on" in out
    assert find_owner(paths) is not None
    gate.touch()


def test_a_second_start_is_refused(root: Path, paths: SessionPaths, gate: Path) -> None:
    run_detached(root)
    for words in (("run", "--tag", "t"), ("run", "--tag", "t", "--detach")):
        done = call(root, *words)
        assert done.returncode == 3 and "autoresearch attach --tag t" in done.stderr
    gate.touch()


def test_stop_ends_a_session_after_the_runs_under_way(
    root: Path, paths: SessionPaths, gate: Path
) -> None:
    run_detached(root)
    wait_for_run(paths)
    stopping = start_process(root, "stop", "--json")
    wait_until(lambda: "finishing the runs under way" in paths.log.read_text())
    gate.touch()
    out, _ = stopping.communicate(timeout=60)
    assert json.loads(out) == {"stopped": "t"} and find_owner(paths) is None
    assert [run.finished for run in night(root).runs] == [True]
    assert audit(load(root)) == []
    for words in (["stop"], ["stop", "--after"], ["pause"], ["resume"]):
        done = call(root, *words)
        assert done.returncode == 2 and "session 't' is not running" in done.stderr


def test_a_session_pauses_goes_on_and_ends_by_commands(
    root: Path, paths: SessionPaths, gate: Path
) -> None:
    run_detached(root)
    wait_for_run(paths)
    assert "pauses after" in answer(root, "pause")["told"]
    assert "running, asked to pause" in call(root, "status").stdout
    assert "goes on" in answer(root, "resume")["told"]
    assert "ends after" in answer(root, "stop", "--after")["told"]
    gate.touch()
    wait_until(lambda: find_owner(paths) is None, 60)
    assert "stopped: asked to end after the experiment under way" in call(root, "status").stdout


def test_stop_now_does_not_wait(root: Path, paths: SessionPaths, gate: Path) -> None:
    run_detached(root)
    wait_for_run(paths)
    assert answer(root, "stop", "--now") == {"stopped": "t"}
    assert not gate.exists() and leftovers(paths) == []
    assert [run.finished for run in night(root).runs] == [False]


def test_stop_reaches_a_session_in_the_background_of_a_script(
    root: Path, paths: SessionPaths, gate: Path
) -> None:
    """A shell that is not interactive lets commands with `&` ignore Ctrl-C."""
    line = " ".join((*COMMAND, "run", "--plain", "--tag", "t"))
    subprocess.run(["sh", "-c", f"{line} > output 2>&1 &"], cwd=root, check=True)
    wait_for_run(paths)
    assert answer(root, "stop", "--now") == {"stopped": "t"}


def test_a_start_that_fails_says_why_here_or_in_its_log(root: Path) -> None:
    git(root, "branch", "autoresearch/t")
    done = call(root, "run", "--detach", "--tag", "t", "--json")
    facts = json.loads(done.stdout)
    reason = "a branch 'autoresearch/t' exists"
    if done.returncode == 0:  # on a slow machine it is refused after REFUSAL_S
        wait_until(lambda: reason in Path(facts["log"]).read_text())
    else:
        assert done.returncode == 2 and facts["message"].startswith(reason)


def test_the_error_is_found_in_the_output_of_a_command() -> None:
    log = "    autoresearch: cannot start x\nautoresearch: cannot start y\n"
    assert find_error(f"baseline\nautoresearch: it failed:\n{log}") == f"it failed:\n{log}".strip()
    as_json = json.dumps({"error": "BaselineError", "message": "it failed"})
    for words in (f"autoresearch: it failed\n{as_json}\n", f"{as_json}\nautoresearch: it failed\n"):
        assert find_error(words) == "it failed"
    assert find_error("Traceback\nKeyError\n") == "Traceback\nKeyError"
    assert find_error("") == "it ended without a word"


def test_events_as_json(root: Path) -> None:
    done = call(root, "run", "--json", "--agent", "tuner", "--experiments", 1, "--tag", "t")
    *events, last = [json.loads(line) for line in done.stdout.splitlines()]
    assert all({"at", "event", "text"} <= event.keys() for event in events)
    finished = [event for event in events if event["event"] == "experiment_finished"]
    assert [event["number"] for event in finished] == [1]
    assert last["stopped"] == "1 experiment done" and last["finished"] == 1


def test_a_line_of_a_log_is_an_event() -> None:
    assert parse_line('{"event": "warned", "text": "x"}') == {"event": "warned", "text": "x"}
    for line in ("12:00:00 setup: true", "{not JSON", "[1]", ""):
        assert parse_line(line) == {"text": line}


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c(root: Path, paths: SessionPaths, gate: Path, times: int) -> None:
    session = start_process(root, "run", "--plain", "--tag", "t", "--experiments", 1)
    wait_for_run(paths)
    session.send_signal(signal.SIGINT)
    assert session.stdout is not None
    while "finishing the runs under way" not in (line := session.stdout.readline()):
        assert line
    if times == 1:
        gate.touch()
    else:
        session.send_signal(signal.SIGINT)
    rest, _ = session.communicate(timeout=60)
    assert session.returncode == 130 and "To go on: autoresearch run --tag t" in rest
    assert [run.finished for run in night(root).runs] == [times == 1]
    gate.touch()
    again = call(root, "run", "--tag", "t", "--experiments", 1)
    assert again.returncode == 0, again.stderr
    assert audit(load(root)) == []


def test_options_cannot_be_abbreviated(root: Path) -> None:
    """`run --det` would start itself again and again."""
    done = call(root, "run", "--det")
    assert done.returncode == 2 and "unrecognized arguments: --det" in done.stderr


# ---- status, log, show -------------------------------------------------------------------------


def test_show_prints_the_output_of_the_change(root: Path) -> None:
    """Its runs include those of the incumbent."""
    run_session(root, ScriptedAgent(change(VALUE=5.0)), verified=True)
    shown = answer(root, "show", 1)
    assert shown["status"] == "keep"
    assert {run["role"] for run in shown["runs"]} >= {"control", "verify baseline"}
    (score,) = re.findall(r"^score: (\S+)", shown["output"], re.MULTILINE)
    assert float(score) == pytest.approx(5.0, abs=0.1)


def test_before_the_first_session(root: Path, tmp_path: Path) -> None:
    for command in ("status", "log", "report", "attach", "stop"):
        done = call(root, command)
        assert done.returncode == 2 and "no session was started here yet" in done.stderr
    broken = make_task(tmp_path / "broken", "LR = 0.1\nraise SystemExit(3)\n")
    git(broken, "branch", "autoresearch/t")
    assert call(broken, "run", "--tag", "t").returncode == 2  # it leaves an empty ledger
    done = call(broken, "status")
    assert done.returncode == 2 and "no session was started here yet" in done.stderr


def test_a_branch_below_ours_is_an_obstacle(root: Path) -> None:
    git(root, "branch", "autoresearch/t/x")
    done = call(root, "run", "--tag", "t", "--experiments", 1)
    assert done.returncode == 2 and "a branch 'autoresearch/t/x' exists" in done.stderr
    assert git(root, "for-each-ref", "refs/autoresearch") == ""
    assert call(root, "run", "--tag", "tt", "--experiments", 1).returncode == 0


# ---- making a task -----------------------------------------------------------------------------


def test_a_copy_that_cannot_be_made_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = call(tmp_path, "new", "instant", "/proc/nope")
    assert done.returncode == 7 and "cannot make /proc/nope" in done.stderr
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty").chmod(0o700)
    with monkeypatch.context() as patched:
        patched.setenv("PATH", str(tmp_path))  # no git
        for name in ("absent", "empty"):
            done = call(tmp_path, "new", "instant", name)
            assert done.returncode == 2 and "git init failed" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]
    assert not list((tmp_path / "empty").iterdir())
    assert (tmp_path / "empty").stat().st_mode & 0o777 == 0o700
    (tmp_path / "nowhere").symlink_to(tmp_path / "absent")
    assert call(tmp_path, "new", "instant", "nowhere").returncode == 2
    assert (tmp_path / "nowhere").is_symlink()
    assert call(tmp_path, "new", "instant", "empty").returncode == 0
    assert (tmp_path / "empty").stat().st_mode & 0o777 == 0o700


def test_init_writes_all_or_says_why_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_task(tmp_path / "task", PROGRAM, TASK)
    (root / "autoresearch.toml").unlink()
    (root / "prog.py").rename(root / "two.txt")
    done = call(root, "init", "--agent-files")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert {path.name for path in root.iterdir()} == {".git", "two.txt"}
    (root / "two.txt").rename(root / "train.py")
    write = Path.write_text

    def full(path: Path, text: str) -> int:
        if path.name != "program.md":
            return write(path, text)
        write(path, text[:10])
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(SystemExit) as ended:
        cli.main(["init", str(root), "--metric", "score", "--goal", "minimize"])
    assert ended.value.code == 7 and "program.md: No space left" in capsys.readouterr().err
    assert {path.name for path in root.iterdir()} == {".git", "train.py"}


def test_one_run_tells_no_noise(root: Path) -> None:
    done = call(root, "check", "--runs", 1)
    assert done.returncode == 2 and "--runs 1: at least 2" in done.stderr
