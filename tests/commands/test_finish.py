"""`finish`: a clean branch of a real session's keeps, in a real repository."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from support.commands import Done, call
from support.sessions import (
    ScriptedAgent,
    change,
    commit_all,
    edit,
    git,
    make_task,
    night,
    run_session,
)

from autoresearch.commands.fsck import audit
from autoresearch.store.ledger import Ledger
from autoresearch.store.lock import Lock
from autoresearch.store.paths import SessionPaths
from autoresearch.task.reading import load

FAST = {"judge__level": "fast", "judge__baseline_runs": 2}  # few runs
BRANCH = "autoresearch/t-final"
EVIL = "Signed-off-by: Eve <eve@evil>\x1b[31m `rm -rf /` " + "very long " * 20


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A session of three keeps and a discard; the third changes the first one's line again."""
    root = make_task(tmp_path_factory.mktemp("finished") / "task")
    agent = ScriptedAgent(
        change("lower the value", VALUE=9.0),
        change("worse", VALUE=12.0),
        change(EVIL, BONUS=1.0),
        change("lower it again", VALUE=8.0),
    )
    run_session(root, agent, verified=True, **FAST, limits__experiments=4)
    git(root, "config", "user.name", "Ada Lovelace")
    git(root, "config", "user.email", "ada@example.org")
    return root


@pytest.fixture
def root(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that session's repository. Git knows its user from its configuration alone."""
    for name in ("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL"):
        monkeypatch.delenv(name, raising=False)
    shutil.copytree(finished, tmp_path / "task", symlinks=True)
    return tmp_path / "task"


def finish(root: Path, *words: object) -> dict[str, Any]:
    done = call(root, "finish", *words, "--json")
    assert done.returncode == 0, done.stderr
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts


def refuse(root: Path, *words: object) -> str:
    refs = git(root, "for-each-ref")
    done: Done = call(root, "finish", *words)
    assert done.returncode == 2 and done.stdout == ""
    assert git(root, "for-each-ref") == refs
    return done.stderr


def take_state(root: Path) -> tuple[str, ...]:
    """All that is the user's: HEAD, the index, the checkout and what is not committed."""
    files = [path for path in root.iterdir() if path.name not in (".git", ".autoresearch")]
    return (
        (root / ".git" / "HEAD").read_text(),
        git(root, "ls-files", "--stage"),
        git(root, "status", "--porcelain"),
        *(f"{path.name} {path.read_bytes()!r}" for path in sorted(files)),
    )


def test_one_commit_for_each_keep_gives_exactly_the_measured_files(root: Path) -> None:
    (root / "prog.py").write_text("# in the middle of something\n")
    git(root, "branch", "elsewhere")
    before = take_state(root)
    facts = finish(root)
    assert take_state(root) == before
    session = night(root)
    assert facts["name"] == BRANCH and facts["state"] == "made" and facts["pushed"] is False
    assert facts["tip"] == git(root, "rev-parse", BRANCH) and facts["measured"] == 4
    assert git(root, "diff", session.experiments[4].commit, BRANCH) == ""
    assert git(root, "merge-base", "main", BRANCH) == session.record.base_commit
    log = git(root, "log", "--reverse", "--format=%an <%ae> %cn %s", f"main..{BRANCH}").split("\n")
    assert [line.split(" Ada Lovelace ")[0] for line in log] == [
        "Ada Lovelace <ada@example.org>"
    ] * 3
    assert "lower the value" in log[0] and "lower it again" in log[2]
    message = git(root, "log", "-1", "--format=%B", BRANCH)
    assert "better than experiment 3 (95 % interval +" in message.replace("\n", " ")
    trailers = git(root, "log", "-1", "--format=%(trailers)", BRANCH).split("\n")
    assert trailers[:2] == ["Autoresearch-Session: t", "Autoresearch-Experiment: 4"]
    assert audit(load(root)) == []
    git(root, "fsck", "--strict")


def test_a_description_is_text_in_the_message(root: Path) -> None:
    finish(root)
    message = git(root, "log", "-1", "--format=%B", f"{BRANCH}~1")
    assert len(message.split("\n")[0]) <= 72 and "\x1b" not in message
    assert "very long very long" in message.replace("\n", " ")
    trailers = git(root, "log", "-1", "--format=%(trailers:key=Signed-off-by)", f"{BRANCH}~1")
    assert trailers == ""


def test_the_same_again_changes_nothing_and_squash_moves_our_own(root: Path) -> None:
    tip = finish(root)["tip"]
    assert finish(root)["state"] == "unchanged"
    facts = finish(root, "--squash")
    assert facts["state"] == "moved" and len(facts["commits"]) == 1
    assert facts["commits"][0]["experiments"] == [1, 3, 4]
    assert git(root, "rev-list", "--count", f"main..{BRANCH}") == "1"
    assert git(root, "diff", tip, BRANCH) == ""
    assert "Improve score by 3 measured changes" in git(root, "log", "-1", "--format=%B", BRANCH)


def test_a_branch_of_the_users_is_left_alone(root: Path) -> None:
    git(root, "branch", BRANCH)
    assert f"branch {BRANCH} exists, and is not as this command made it" in refuse(root)
    assert finish(root, "--branch", "mine")["name"] == "mine"
    git(root, "checkout", "-q", "mine")
    edit(root, SPREAD=0.2)
    commit_all(root)
    assert "committed to it" in refuse(root, "--branch", "mine")
    assert "cannot be made beside branch 'mine'" in refuse(root, "--branch", "mine/more")
    assert "'a..b' cannot be a branch" in refuse(root, "--branch", "a..b")
    assert "is that of session 't'" in refuse(root, "--branch", "autoresearch/t")


def test_a_branch_that_is_checked_out_does_not_move(root: Path) -> None:
    finish(root)
    git(root, "checkout", "-q", BRANCH)
    assert finish(root)["state"] == "unchanged"
    assert f"branch {BRANCH} is checked out" in refuse(root, "--squash")


def test_a_change_is_left_out_when_the_others_fit_without_it(root: Path) -> None:
    facts = finish(root, "--without", 3)
    assert facts["left_out"] == [3] and facts["measured"] is None
    diff = git(root, "diff", "main", BRANCH)
    assert "+VALUE = 8.0" in diff and "BONUS = 1.0" not in diff
    assert "the change of experiment 4 does not fit" in refuse(root, "--without", 1)
    assert finish(root, "--without", 1, "--without", 4)["commits"][0]["experiments"] == [3]
    assert "experiment 2 is no keep that the best is made of; these are: 1, 3, 4" in refuse(
        root, "--without", 2
    )
    everything = ("--without", 1, "--without", 3, "--without", 4)
    assert "the unchanged program" in refuse(root, *everything)


def test_a_session_at_work_and_later_keeps(root: Path) -> None:
    lock = Lock(SessionPaths(root, "t"))
    try:
        done = call(root, "finish")
    finally:
        lock.release()
    assert done.returncode == 0 and "the same command adds the keeps to come" in done.stdout
    run_session(root, ScriptedAgent(change("more", VALUE=7.0)), **FAST, limits__experiments=5)
    facts = finish(root)
    assert facts["state"] == "moved" and [c["experiments"] for c in facts["commits"]][-1] == [5]


def test_who_the_user_is_has_to_be_known(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git(root, "config", "user.email", "")
    assert 'user.email missing. Set each, as in: git config user.email "..."' in refuse(root)
    monkeypatch.setenv("GIT_AUTHOR_EMAIL", "other@example.org")
    finish(root)
    assert git(root, "log", "-1", "--format=%ae", BRANCH) == "other@example.org"


def test_what_cannot_be_finished_is_said(root: Path, tmp_path: Path) -> None:
    assert "no session 'x'" in refuse(root, "--tag", "x")
    ledger = Ledger(SessionPaths(root, "t").ledger)
    commit = ledger.keeps(ledger.session("t"))[1].commit
    ledger.close()
    git(tmp_path, "clone", "-q", "--no-local", "--single-branch", str(root), "clone")
    shutil.copytree(root / ".autoresearch", tmp_path / "clone" / ".autoresearch")
    assert f"commit {commit[:7]} of experiment 1 is gone" in refuse(tmp_path / "clone")
    shutil.rmtree(root / ".git")
    (root / ".git").write_text("gitdir: /nowhere/.git/worktrees/task\n")
    done = call(root, "finish")
    assert done.returncode == 2 and "names a repository that is gone" in done.stderr


def test_the_reports_have_the_diff_of_each_keep(root: Path) -> None:
    done = call(root, "report", "--html")
    assert f"written: {root / 'report.html'}" in done.stdout
    html, markdown = (root / "report.html").read_text(), (root / "report.md").read_text()
    assert html.count('<article class="card keep"') == 3
    assert '<span class="add">+VALUE = 9.0</span>' in html and "+VALUE = 9.0" in markdown
    seeds = [run.seed for run in night(root).runs if run.role == "verify"]
    assert seeds and all(f"{seed} |" in markdown and f">{seed}</td>" in html for seed in seeds)
    assert git(root, "status", "--porcelain") == ""
    (root / "report.html").write_text("mine")
    assert "is not ours, and was left alone" in call(root, "report", "--html").stdout
    assert (root / "report.html").read_text() == "mine"


def test_a_session_without_a_keep(tmp_path: Path) -> None:
    root = make_task(tmp_path / "task")
    run_session(root, ScriptedAgent(change("worse", VALUE=12.0)), **FAST)
    assert "has no keep after 1 experiment: there is nothing to take" in refuse(root)


def test_a_ledger_of_another_version(root: Path) -> None:
    with sqlite3.connect(SessionPaths(root, "t").ledger) as database:
        database.execute("PRAGMA user_version = 999")
    database.close()
    assert "was written by a newer autoresearch (ledger version 999" in refuse(root)
