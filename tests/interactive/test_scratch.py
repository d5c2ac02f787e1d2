"""Scratch runs: measured and recorded, but nothing depends on them. Real command lines."""

from __future__ import annotations

import json
import shutil
import signal
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.commands import call, start_process
from support.sessions import PROGRAM, TASK, edit, make_task, night, task_of, wait_until

from autoresearch.commands.fsck import audit
from autoresearch.core import history
from autoresearch.core.control import Stopped
from autoresearch.core.loop import Loop
from autoresearch.records import Role
from autoresearch.store import queries
from autoresearch.store.ledger import Ledger
from autoresearch.store.lock import find_owner
from autoresearch.store.paths import SessionPaths

BUDGET = 2


def answer(where: Path, *words: str) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(call(where, *words, "--json").stdout)
    return facts


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_task(tmp_path_factory.mktemp("started") / "task")
    answer(root, "start", "--tag", "t", "--scratch", str(BUDGET))
    return root


@pytest.fixture
def work(started: Path, tmp_path: Path) -> Path:
    """The folder of a started session of its own."""
    root = shutil.copytree(started, tmp_path / "task", symlinks=True)
    return SessionPaths(root, "t").work


def root_of(work: Path) -> Path:
    return work.parent.parent.parent


def read_state(root: Path) -> tuple[Any, ...]:
    """What a decision rests on: incumbent, its score, the noise, the limits that are left."""
    with closing(Ledger(SessionPaths(root, "t").ledger, readonly=True)) as ledger:
        record = ledger.session("t")
        best = ledger.incumbent(record)
        bar = history.reference(ledger, record, best)
        counts = (ledger.started(record), ledger.fruitless_turns(record))
        typical = queries.list_latest_runs(ledger, record, 100)
        return best, bar, counts, ledger.finished(record), [run.name for run in typical]


def test_its_number_decides_nothing(work: Path) -> None:
    """Far better, or crashed: incumbent, score, noise and counts stay. The same edit can be tried
    afterwards."""
    root = root_of(work)
    before = read_state(root)
    edit(work, VALUE=2.0)
    report = answer(work, "scratch", "-m", "a low value")
    assert (report["status"], report["scratch"], report["left"]) == ("scratch", 1, BUDGET - 1)
    assert report["metric"] == pytest.approx(2.0, abs=0.1)
    assert report["gain"] == pytest.approx(report["score"] - report["metric"])
    assert "VALUE = 2.0" in (work / "prog.py").read_text(), "the folder is as it was"
    (work / "prog.py").write_text("raise ValueError('boom')\n")
    done = call(work, "scratch", "-m", "broken")
    assert done.returncode == 1 and "    | ValueError: boom" in done.stdout
    assert read_state(root) == before
    assert (root / "results.tsv").read_text().count("\n") == 2  # the heading and the baseline
    assert audit(task_of(root)) == []
    shutil.copy(root / "prog.py", work)
    edit(work, VALUE=12.0)
    verdict = answer(work, "try", "-m", "the same again")
    assert (verdict["status"], verdict["reason"]) == ("discard", "worse"), "it is no duplicate"
    scratch = [run for run in night(root, "t").runs if run.role is Role.SCRATCH]
    assert [run.experiment for run in scratch] == [0, 0]


def test_the_budget_is_the_users(work: Path) -> None:
    root = root_of(work)
    for _ in range(BUDGET):
        assert answer(work, "scratch")["status"] == "scratch", "an unchanged folder can be run"
    done = call(work, "scratch", "-m", "one more")
    assert done.returncode == 1 and f"{BUDGET} scratch runs are spent" in done.stdout
    assert "ten such turns" not in done.stdout
    assert len([run for run in night(root, "t").runs if run.role == "scratch"]) == BUDGET
    answer(root, "start", "--tag", "t", "--scratch", "0", "--hours", "1e-6")
    report = answer(work, "scratch")
    assert (report["status"], report["limit"]) == ("limit", "1e-06 hours worked")
    assert night(root, "t").record.stopped == "1e-06 hours worked"
    answer(root, "start", "--tag", "t", "--hours", "1")
    assert "scratch = 0" in answer(work, "scratch")["detail"]
    assert call(work, "start", "--scratch", "-1").returncode == 2


def test_a_frozen_file_is_refused_and_counts_for_nothing(work: Path) -> None:
    before = read_state(root_of(work))
    (work / "new.txt").write_text("")
    report = answer(work, "scratch")
    assert (report["status"], report["reason"]) == ("refused", "frozen file")
    assert read_state(root_of(work)) == before and report["left"] == BUDGET


def test_a_killed_one_is_forgotten(work: Path, tmp_path: Path) -> None:
    """It costs nothing, and that is said."""
    root = root_of(work)
    gate = tmp_path / "gate"
    edit(work, VALUE=8.0, WAIT_A=str(gate))
    process = start_process(work, "scratch", "-m", "slow")
    wait_until(lambda: any(run.role == "scratch" for run in night(root, "t").runs))
    assert call(work, "try", "-m", "meanwhile").returncode == 3
    process.send_signal(signal.SIGKILL)
    process.communicate()
    wait_until(lambda: find_owner(SessionPaths(root, "t")) is None)
    lost = call(work, "try", "--resume")  # as `wait` does
    assert lost.returncode == 1 and "cut off" in lost.stdout
    assert audit(task_of(root)) == []
    gate.touch()
    report = answer(work, "scratch", "-m", "again")
    assert (report["status"], report["scratch"], report["left"]) == ("scratch", 1, BUDGET - 1)


def test_one_that_is_stopped_before_it_begins_does_not_report_an_earlier_one(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(loop: Loop) -> None:
        raise Stopped

    assert answer(work, "scratch", "-m", "first")["scratch"] == 1
    monkeypatch.setattr(Loop, "begin", stop)
    done = call(work, "scratch", "-m", "second", "--json")
    assert done.returncode == 1 and json.loads(done.stdout)["status"] == "lost"
    monkeypatch.undo()
    assert answer(work, "wait")["status"] == "lost"
    assert [row["description"] for row in answer(work, "log", "--scratch")] == ["first"]


def test_a_run_that_was_made_again_counts_and_not_the_disturbed_one(work: Path) -> None:
    edit(work, VALUE=8.0)
    answer(work, "scratch", "-m", "eight")
    commit = answer(work, "show", "s1")["commit"]
    with closing(Ledger(SessionPaths(root_of(work), "t").ledger)) as ledger:
        run = ledger.open_run(
            ledger.session("t"),
            experiment=0,
            attempt=0,
            role=Role.SCRATCH,
            index=1,
            commit=commit,
            now=0.0,
            segment=1,
        )
        ledger.finish_run(
            run,
            metric=8.5,
            reason=None,
            numbers={},
            slot=0,
            exit_code=0,
            wall_s=1.0,
            cpu_s=1.0,
            peak_memory_bytes=None,
        )
    assert answer(work, "show", "s1")["metric"] == 8.5
    assert [row["metric"] for row in answer(work, "log", "--scratch")] == [8.5]


def test_hidden_files_stay_hidden_and_views_count_the_looks(tmp_path: Path) -> None:
    """The scorer is the same, and its own words are withheld. The sealed holdout is not asked."""
    scorer = (
        "print('the answer is', open('hidden').read())\nif float(open('out').read()) < 6: 1 / 0\n"
    )
    root = make_task(
        tmp_path / "task",
        PROGRAM + "open('out', 'w').write(str(score))\n",
        TASK
        + '[score]\ncommand = "python -S -E score.py"\nreads = ["out"]\nhidden = ["hidden"]\n'
        + '[holdout]\ncommand = "python -S -E score.py"\nhidden = ["sealed"]\n',
        {
            "score.py": scorer + "print('score:', open('out').read())\n",
            "hidden": "forty-two",
            "sealed": "forty-three",
        },
    )
    work = Path(answer(root, "start", "--tag", "t")["worktree"])
    edit(work, VALUE=9.0)
    good = answer(work, "scratch", "-m", "nine")
    assert good["status"] == "scratch" and [file.split()[0] for file in good["files"]] == ["out"]
    edit(work, VALUE=8.0)
    answer(work, "scratch", "-m", "eight")
    edit(work, VALUE=5.0)
    done = call(work, "scratch", "-m", "lower")
    assert "score: exit code 1" in done.stdout and "is withheld" in done.stdout
    assert "forty-two" not in done.stdout + done.stderr + json.dumps(good)
    runs = [run for run in night(root, "t").runs if run.role is Role.SCRATCH]
    assert [run.holdout for run in runs] == [None] * 3
    briefing = answer(work, "brief")["briefing"]
    section = briefing.partition("## Scratch runs")[2]
    assert section.index("eight") < section.index("nine"), "the best first"
    assert "47 of 50 are left" in briefing
    listed = call(root, "log", "--scratch").stdout
    assert "eight" in listed and "eight" not in call(root, "log").stdout
    assert [row["scratch"] for row in answer(root, "log", "--scratch")] == [1, 2, 3]
    call(root, "report")
    page = (root / "report.md").read_text()
    assert "3 runs that the agent asked for" in page and "and 3 times more here" in page
