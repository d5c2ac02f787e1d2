"""fsck finds disagreements with the ledger, and restores what follows from it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support.audits import findings, sql
from support.commands import call
from support.sessions import (
    ScriptedAgent,
    alive,
    change,
    git,
    make_task,
    rewrite,
    run_session,
    task_of,
)
from support.sessions import night as read_night

from autoresearch.commands.fsck import audit, repair
from autoresearch.errors import BusyError, LedgerError
from autoresearch.measure.execution import SESSION
from autoresearch.store.lock import Lock
from autoresearch.store.paths import SessionPaths

STEPS = (change(VALUE=9.0), change(VALUE=20.0), rewrite("import sys; sys.exit(3)\n"))
"""A keep, a discard and a crash."""


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The task after a session of three experiments; not to be changed."""
    root = make_task(tmp_path_factory.mktemp("night") / "task")
    finished = run_session(root, ScriptedAgent(*STEPS))
    assert finished.verdicts == [("keep", None), ("discard", "worse"), ("crash", "exit code 3")]
    return root


@pytest.fixture
def done(night: Path, tmp_path: Path) -> Path:
    """A copy of it: a folder may be moved with all that is in it."""
    return Path(shutil.copytree(night, tmp_path / "task", symlinks=True))


def test_a_session_in_good_order(done: Path) -> None:
    assert audit(task_of(done)) == []
    assert audit(task_of(done), "t") == []
    assert repair(task_of(done)) == []


def test_several_sessions(done: Path) -> None:
    run_session(done, ScriptedAgent(change(VALUE=20.0)), tag="u")
    assert audit(task_of(done)) == []
    (done / "results.tsv").unlink()
    run_session(done, ScriptedAgent(), tag="t")  # the earlier one again: the table is its now
    assert audit(task_of(done)) == []


def test_a_deterministic_task_and_one_without_noise(tmp_path: Path) -> None:
    quiet = make_task(tmp_path / "quiet")
    finished = run_session(quiet, ScriptedAgent(change(SPREAD=0.0, VALUE=9.0)), judge__level="fast")
    assert finished.verdicts == [("keep", None)]
    assert audit(task_of(quiet)) == []
    program = (quiet / "prog.py").read_text().replace("SPREAD = 0.1", "SPREAD = 0.0")
    exact = make_task(tmp_path / "exact", program=program)
    finished = run_session(exact, ScriptedAgent(*STEPS), judge__deterministic=True)
    assert [status for status, _ in finished.verdicts] == ["keep", "discard", "crash"]
    assert audit(task_of(exact)) == []


# ---- repairable damage -------------------------------------------------------------------------


def ref_gone(root: Path) -> None:
    git(root, "update-ref", "-d", "refs/autoresearch/t/2")


def ref_elsewhere(root: Path) -> None:
    git(root, "update-ref", "refs/autoresearch/t/2", "HEAD")


def best_elsewhere(root: Path) -> None:
    git(root, "update-ref", "refs/autoresearch/t/best", "HEAD")


def branch_gone(root: Path) -> None:
    git(root, "branch", "-D", "autoresearch/t")


def branch_behind(root: Path) -> None:
    git(root, "branch", "-f", "autoresearch/t", "main")


def results_gone(root: Path) -> None:
    (root / "results.tsv").unlink()


def results_torn(root: Path) -> None:
    os.truncate(root / "results.tsv", (root / "results.tsv").stat().st_size - 20)


def results_behind(root: Path) -> None:
    lines = (root / "results.tsv").read_text().splitlines(keepends=True)
    (root / "results.tsv").write_text("".join(lines[:-1]))


def unknown_folder(root: Path) -> None:
    (SessionPaths(root, "t").runs / "0002" / "00999").mkdir()


def tree_left(root: Path) -> None:
    (SessionPaths(root, "t").trees / "00001").mkdir(parents=True)


def turn_left(root: Path) -> None:
    (SessionPaths(root, "t").turns / "worktree").mkdir(parents=True)


def outcome_left(root: Path) -> None:
    folder = next(SessionPaths(root, "t").runs.glob("0001/*"))
    (folder / "outcome.json").write_text("{}")


def lock_left(root: Path) -> None:
    (root / ".git" / "refs" / "autoresearch" / "t" / "7.lock").parent.mkdir(
        parents=True, exist_ok=True
    )
    (root / ".git" / "refs" / "autoresearch" / "t" / "7.lock").touch()


def draft_left(root: Path) -> None:
    (root / ".results.tsv.1.tmp").touch()


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (ref_gone, "ref"),
        (ref_elsewhere, "ref"),
        (best_elsewhere, "ref"),
        (branch_gone, "branch"),
        (branch_behind, "branch"),
        (results_gone, "results.tsv"),
        (results_torn, "results.tsv"),
        (results_behind, "results.tsv"),
        (unknown_folder, "run folder"),
        (tree_left, "leftover"),
        (turn_left, "leftover"),
        (outcome_left, "leftover"),
        (lock_left, "leftover"),
        (draft_left, "leftover"),
    ],
    ids=lambda given: given.__name__ if callable(given) else "",
)
def test_repair_restores_what_follows_from_the_ledger(
    done: Path, damage: Callable[[Path], None], what: str
) -> None:
    results = (done / "results.tsv").read_bytes()
    damage(done)
    assert findings(done) == [(what, True)]
    assert [finding.what for finding in repair(task_of(done))] == [what]
    assert audit(task_of(done)) == []
    assert (done / "results.tsv").read_bytes() == results


def test_a_process_that_outlived_its_run(done: Path) -> None:
    env = os.environ | {SESSION: str(SessionPaths(done, "t").folder)}
    left = subprocess.Popen(["sleep", "600"], env=env, start_new_session=True)
    assert findings(done) == [("process", True)]
    repair(task_of(done))
    left.wait(timeout=5)
    assert not alive(left.pid)
    assert audit(task_of(done)) == []


# ---- other damage ------------------------------------------------------------------------------


def commit_gone(root: Path) -> None:
    commit = git(root, "rev-parse", "refs/autoresearch/t/2")
    for pack in (root / ".git" / "objects" / "pack").glob("*.pack"):
        data = pack.read_bytes()
        for file in pack.parent.glob(f"{pack.stem}.*"):
            file.unlink()
        subprocess.run(["git", "unpack-objects", "-q"], cwd=root, input=data, check=True)
    (root / ".git" / "objects" / commit[:2] / commit[2:]).unlink()


def metric_changed(root: Path) -> None:
    sql(root, "UPDATE experiment SET metric = metric - 1 WHERE number = 1")


def screen_changed(root: Path) -> None:
    sql(root, "UPDATE run SET metric = 3 WHERE experiment = 2")


def order_changed(root: Path) -> None:
    sql(root, "UPDATE experiment SET [order] = 9 WHERE number = 3")


def verdict_cut(root: Path) -> None:
    sql(root, "UPDATE experiment SET ended_at = NULL WHERE number = 2")


def crash_invented(root: Path) -> None:
    sql(root, "UPDATE experiment SET reason = 'timeout' WHERE number = 3")


def confirmation_gone(root: Path) -> None:
    sql(
        root,
        "UPDATE run SET finished = 0 WHERE experiment = 1 AND role = 'control' AND [index] = 1",
    )


def confirmation_lost(root: Path) -> None:
    sql(root, "UPDATE run SET metric = 5 WHERE experiment = 1 AND role = 'control' AND [index] = 1")


def run_of_another_commit(root: Path) -> None:
    sql(root, "UPDATE run SET [commit] = 'x' WHERE experiment = 2")


def log_gone(root: Path) -> None:
    next(SessionPaths(root, "t").runs.glob("0003/*/log")).unlink()


def results_replaced(root: Path) -> None:
    (root / "results.tsv").write_text("mine\n")


def unknown_ref(root: Path) -> None:
    git(root, "update-ref", "refs/autoresearch/t/77", "HEAD")


def branch_moved(root: Path) -> None:
    (root / "notes.txt").write_text("mine")
    git(root, "checkout", "-q", "autoresearch/t")
    git(root, "add", "notes.txt")
    git(root, "commit", "-qm", "mine")
    git(root, "checkout", "-q", "main")


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (commit_gone, "commit"),
        (metric_changed, "metric"),
        (screen_changed, "metric"),
        (order_changed, "order"),
        (verdict_cut, "verdict"),
        (crash_invented, "verdict"),
        (confirmation_gone, "verdict"),
        (confirmation_lost, "verdict"),
        (run_of_another_commit, "run"),
        (log_gone, "run folder"),
        (results_replaced, "results.tsv"),
        (unknown_ref, "ref"),
        (branch_moved, "branch"),
    ],
    ids=lambda given: given.__name__ if callable(given) else "",
)
def test_repair_leaves_other_damage(done: Path, damage: Callable[[Path], None], what: str) -> None:
    damage(done)
    unrepairable = [finding for finding in audit(task_of(done)) if not finding.repairable]
    assert what in [finding.what for finding in unrepairable]
    before = {
        path: path.read_bytes()
        for path in done.rglob("*")
        if path.name != "lock"
        and path.is_file()
        and ".git" not in path.parts
        and "ledger" not in path.name
    }
    repair(task_of(done))
    after = [finding for finding in audit(task_of(done)) if not finding.repairable]
    assert after == unrepairable  # repair does not hide them
    for path, data in before.items():
        if path.name != "results.tsv" or what == "results.tsv":
            assert path.read_bytes() == data


def test_a_branch_that_is_checked_out_is_not_moved(done: Path) -> None:
    git(done, "checkout", "-q", "autoresearch/t")
    (done / "notes.txt").write_text("mine")
    git(done, "add", "notes.txt")
    git(done, "commit", "-qm", "mine")
    mine = git(done, "rev-parse", "HEAD")
    assert audit(task_of(done)) == []
    assert repair(task_of(done)) == []
    assert git(done, "rev-parse", "autoresearch/t") == mine


# ---- the ledger itself, and its owner ----------------------------------------------------------


@pytest.mark.parametrize("check", [audit, repair])
def test_a_damaged_ledger_is_refused(done: Path, check: Callable[[object], object]) -> None:
    file = SessionPaths(done, "t").ledger
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(LedgerError, match=r"is damaged.*\.recover"):
        check(task_of(done))
    assert file.read_bytes() == whole[: len(whole) // 2]


def test_no_ledger(root: Path) -> None:
    with pytest.raises(LedgerError, match="no session was started here"):
        audit(task_of(root))


def test_while_a_process_owns_a_session(done: Path) -> None:
    tree_left(done)  # as a run under way has one
    ref_gone(done)
    lock = Lock(SessionPaths(done, "t"))
    try:
        assert audit(task_of(done)) == []
        with pytest.raises(BusyError, match="owned by a running process"):
            repair(task_of(done), "t")
        metric_changed(done)
        assert findings(done) == [("metric", False)]
    finally:
        lock.release()
    assert {what for what, _ in findings(done)} == {"leftover", "ref", "metric", "results.tsv"}


def test_an_interrupted_session_is_in_order(root: Path) -> None:
    """The next start continues open experiments and runs, and needs their trees."""
    run_session(root, ScriptedAgent(change(VALUE=9.0)))
    sql(
        root,
        "UPDATE experiment SET status = NULL, reason = NULL, metric = NULL, ended_at = NULL,"
        " [order] = NULL WHERE number = 1",
    )
    sql(root, "UPDATE run SET finished = 0 WHERE experiment = 1 AND role = 'screen'")
    [screen] = [run for run in read_night(root).runs if run.role == "screen"]
    (SessionPaths(root, "t").trees / f"{screen.id:05d}").mkdir(parents=True)
    assert "leftover" not in [what for what, _ in findings(root)]


# ---- the command -------------------------------------------------------------------------------


def test_the_command(done: Path) -> None:
    healthy = call(done, "fsck")
    assert (healthy.returncode, healthy.stdout) == (0, "everything agrees with the ledger\n")
    branch_gone(done)
    damaged = call(done, "fsck", "--tag", "t")
    assert damaged.returncode == 1
    assert "branch: autoresearch/t: it is missing" in damaged.stdout
    assert "[repairable]" in damaged.stdout
    assert "fsck --repair" in damaged.stdout
    repaired = call(done, "fsck", "--repair")
    assert repaired.returncode == 0
    assert "repaired: branch: autoresearch/t" in repaired.stdout
    assert call(done, "fsck").returncode == 0
    unknown = call(done, "fsck", "--tag", "nobody", "--json")
    assert unknown.returncode == 2
    assert json.loads(unknown.stdout)["error"] == "LedgerError"


def test_as_json(done: Path) -> None:
    branch_gone(done)
    metric_changed(done)
    damaged = call(done, "fsck", "--json", "--repair")
    assert damaged.returncode == 1
    facts = json.loads(damaged.stdout)
    assert [finding["what"] for finding in facts["repaired"]] == ["branch"]
    assert {finding["what"] for finding in facts["findings"]} == {"metric", "results.tsv"}
    assert facts["findings"][0].keys() == {"what", "where", "detail", "repairable"}
