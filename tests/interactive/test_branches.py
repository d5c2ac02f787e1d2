"""`--from N`: go another way from an older keep. And what an agent can look up: `diff`, `show`."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.commands import call
from support.sessions import (
    PROGRAM,
    TASK,
    ScriptedAgent,
    change,
    edit,
    git,
    make_task,
    night,
    run_session,
    task_of,
)

from autoresearch.commands.fsck import audit
from autoresearch.core.turns import TurnTaker
from autoresearch.interactive import trial
from autoresearch.store.paths import SessionPaths

EXACT = PROGRAM.replace("SPREAD = 0.1", "SPREAD = 0.0") + "open('out', 'w').write('left')\n"


def answer(where: Path, *words: str) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(call(where, *words, "--json").stdout)
    return facts


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A session with two keeps, a value and then a bonus, a discard and a scratch run."""
    toml = TASK + "[judge]\ndeterministic = true\n"
    root = make_task(tmp_path_factory.mktemp("kept") / "task", EXACT, toml)
    changes = (change("VALUE", VALUE=8.0), change("BONUS", BONUS=1.0), change("half", BONUS=0.5))
    run_session(root, ScriptedAgent(*changes))
    work = Path(answer(root, "start", "--tag", "t")["worktree"])
    edit(work, BONUS=0.5)
    assert answer(work, "scratch", "-m", "half")["metric"] == 7.5
    edit(work, BONUS=1.0)
    return root


@pytest.fixture
def work(kept: Path, tmp_path: Path) -> Path:
    return SessionPaths(shutil.copytree(kept, tmp_path / "task", symlinks=True), "t").work


def root_of(work: Path) -> Path:
    return work.parent.parent.parent


def test_a_try_from_an_older_keep_is_judged_as_a_whole(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the incumbent, which is 7. What the incumbent has and the older keep lacks is not in
    it. As a keep it is a change of the incumbent, like any other."""
    monkeypatch.setattr(trial, "PLATEAU", 2)
    begun = answer(work, "start", "--from", "1")
    assert begun["from"] == 1 and git(work, "status", "--porcelain") == ""
    assert "BONUS = 0.0" in (work / "prog.py").read_text()
    edit(work, VALUE=7.5)
    report = answer(work, "try", "-m", "not enough")
    assert (report["status"], report["metric"]) == ("discard", 7.5)
    assert (report["gain"], report["base"], report["files"]) == (-0.5, 2, ["out (4 bytes)"])
    assert "another direction" in report["advice"], "two experiments without a keep"
    assert "BONUS = 1.0" in (work / "prog.py").read_text(), "the folder holds the incumbent again"
    answer(work, "start", "--from", "1")
    edit(work, VALUE=6.0)
    report = answer(work, "try", "-m", "enough")
    assert (report["status"], report["metric"]) == ("keep", 6.0)
    assert (report["gain"], report["base"]) == (1.0, 2) and "advice" not in report
    after = night(root_of(work), "t")
    best = after.experiments[-1]
    assert (best.base, best.description) == (2, "from #1: enough")
    assert git(root_of(work), "rev-parse", f"{best.commit}~") == after.experiments[2].commit
    assert "BONUS = 0.0" in (work / "prog.py").read_text()
    assert audit(task_of(root_of(work))) == []
    made = call(root_of(work), "finish")
    assert made.returncode == 0 and f"files of experiment {best.number}" in made.stdout


def test_try_from_moves_the_edit_onto_the_older_keep(work: Path) -> None:
    file = work / "prog.py"
    file.write_text(file.read_text().replace("seed = int(", "VALUE -= 0.5\nseed = int(", 1))
    report = answer(work, "try", "--from", "1", "-m", "lower")
    assert (report["status"], report["metric"]) == ("discard", 7.5), "without the bonus"
    tried = night(root_of(work), "t").experiments[-1]
    text = git(root_of(work), "show", f"{tried.commit}:prog.py")
    assert "BONUS = 0.0" in text and "VALUE -= 0.5" in text


def test_an_edit_that_resembles_the_incumbent_stays_whole(work: Path) -> None:
    """The folder was made from the older keep, however near to the incumbent its edit comes."""
    answer(work, "start", "--from", "1")
    edit(work, VALUE=6.5, BONUS=1.0)
    before = (work / "prog.py").read_text()
    answer(work, "start", "--from", "1")
    assert (work / "prog.py").read_text() == before
    report = answer(work, "try", "--from", "1", "-m", "both")
    assert (report["status"], report["metric"]) == ("keep", 5.5)


def test_an_edit_that_resembles_the_incumbent_moves_whole_to_another_keep(work: Path) -> None:
    answer(work, "start", "--from", "1")
    edit(work, BONUS=1.0)
    answer(work, "start", "--from", "0")
    text = (work / "prog.py").read_text()
    assert "VALUE = 10.0" in text and "BONUS = 1.0" in text


def test_a_full_disk_does_not_change_what_is_tried(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next `try` still judges the whole folder, not its edit on top of the incumbent."""

    def fill_disk(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    answer(work, "start", "--from", "1")
    edit(work, VALUE=7.5)
    monkeypatch.setattr(TurnTaker, "take", fill_disk)
    with pytest.raises(OSError, match="No space"):
        call(work, "try", "-m", "lower")
    monkeypatch.undo()
    report = answer(work, "try", "-m", "lower")
    assert (report["status"], report["metric"]) == ("discard", 7.5), "without the bonus"
    assert report["description"] == "from #1: lower"


@pytest.mark.parametrize("value", [8.0, 10.0])
def test_a_refused_try_from_an_older_keep_leaves_the_folder(work: Path, value: float) -> None:
    """Without an edit it is that keep again. With the old value it is the baseline again."""
    file = work / "prog.py"
    edit(work, VALUE=value)
    before = file.read_text()
    for _ in range(2):
        report = answer(work, "try", "--from", "1", "-m", "x")
        assert (report["status"], report["reason"]) == ("refused", "duplicate")
        assert file.read_text() == before
    assert git(work, "status", "--porcelain") == ("M prog.py" if value == 10.0 else "")
    assert "from" not in answer(work, "start")


def test_an_edit_that_does_not_fit_stays_in_the_folder(work: Path) -> None:
    edit(work, BONUS=2.0)
    before = (work / "prog.py").read_text()
    report = answer(work, "try", "--from", "1", "-m", "x")
    assert (report["status"], report["reason"]) == ("refused", "conflict")
    refused = call(work, "start", "--from", "1")
    assert refused.returncode == 2 and "does not fit onto experiment 1" in refused.stderr
    assert (work / "prog.py").read_text() == before
    assert answer(work, "scratch")["metric"] == 6.0


def test_start_goes_back_to_the_incumbent_but_leaves_an_edit(work: Path) -> None:
    answer(work, "start", "--from", "0")
    assert "VALUE = 10.0" in (work / "prog.py").read_text()
    assert "from" not in answer(work, "start")
    assert "BONUS = 1.0" in (work / "prog.py").read_text()
    answer(work, "start", "--from", "1")
    edit(work, VALUE=9.0)
    assert answer(work, "start")["from"] == 1
    assert "VALUE = 9.0" in (work / "prog.py").read_text()


@pytest.mark.parametrize("number", ["3", "9", "-1"])
def test_only_a_keep_can_be_branched_from(work: Path, number: str) -> None:
    for words in (("start", f"--from={number}"), ("try", f"--from={number}", "-m", "x")):
        done = call(work, *words)
        assert done.returncode == 2 and "was kept: 0, 1, 2" in done.stderr


def test_diff_and_show(kept: Path) -> None:
    lines = call(kept, "diff", "0", "2").stdout.splitlines()
    assert [line for line in lines if line.startswith("+") and "prog" not in line] == [
        "+VALUE = 8.0",
        "+BONUS = 1.0",
    ]
    assert "+BONUS = 0.5" in call(kept, "diff", "2", "s1").stdout
    assert call(kept, "diff", "3", "s1").stdout == "the files are the same\n"
    shown = call(kept, "show", "s1").stdout
    assert "on #2: half" in shown and "+BONUS = 0.5" in shown and "score: 7.5" in shown
    assert answer(kept, "show", "2")["files"] == [{"path": "out", "bytes": 4}]
    assert call(kept, "show", "2", "--file", "out").stdout == "left\n"


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("show", "x"), "such as s3"),
        (("show", "s9"), "it has 1 to 1"),
        (("diff", "0", "99"), "no experiment 99"),
        (("show", "2", "--file", "../log"), "it left out"),
    ],
)
def test_what_is_not_there_is_said(kept: Path, words: tuple[str, ...], problem: str) -> None:
    done = call(kept, *words)
    assert done.returncode == 2 and problem in done.stderr
