"""What a run depends on changes during a session: nothing is compared across."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.sessions import (
    PROGRAM,
    TASK,
    Night,
    ScriptedAgent,
    Step,
    change,
    git,
    make_task,
    run_session,
    side,
    task_of,
    wait_until,
)

from autoresearch.commands.fsck import audit
from autoresearch.commands.report import write_report
from autoresearch.commands.start import open_session
from autoresearch.core import history, judge
from autoresearch.core.loop import Loop
from autoresearch.core.session import Session, Stopped
from autoresearch.core.verification import verify
from autoresearch.errors import BaselineError, TaskError
from autoresearch.measure.fingerprint import list_changes, make_fingerprint, summarize_changes
from autoresearch.measure.runs import SPOILED
from autoresearch.protocols import Proposal, Turn
from autoresearch.records import Metric, Role, Run
from autoresearch.report import collect, summary
from autoresearch.report.machine import find_trends
from autoresearch.report.page import describe_trends, draw_page
from autoresearch.store.ledger import Ledger
from autoresearch.store.paths import SessionPaths
from autoresearch.store.rows import Segment
from autoresearch.task.reading import override

DATA = TASK.replace("[run]", '[run]\ninputs = ["data/"]')
READS = PROGRAM.replace(
    "score = VALUE + noise", 'score = VALUE + float(open("data/shift").read()) + noise'
)
"""The score is worse by what is in data/shift."""


@pytest.fixture
def fed(tmp_path: Path) -> Path:
    """A task whose score depends on data that is not in git."""
    return make_fed(tmp_path)


def make_fed(folder: Path, toml: str = DATA, program: str = READS) -> Path:
    root = make_task(folder / "task", program, toml, {".gitignore": "data/\n"})
    shift(root, 0.0)
    return root


def shift(root: Path, by: float) -> None:
    (root / "data").mkdir(exist_ok=True)
    (root / "data" / "shift").write_text(f"{by}\n")


def then(action: Callable[[], object], step: Step) -> Step:
    """Somebody does that while the agent thinks."""

    def both(turn: Turn) -> Any:
        action()
        return step(turn)

    return both


def segments(root: Path, tag: str = "t") -> list[Segment]:
    ledger = Ledger(SessionPaths(root, tag).ledger, readonly=True)
    try:
        return ledger.segments(ledger.session(tag))
    finally:
        ledger.close()


def report(root: Path, tag: str = "t") -> str:
    paths = SessionPaths(root, tag)
    ledger = Ledger(paths.ledger)
    try:
        write_report(ledger, paths, task_of(root))
        found = collect.summarise(ledger, tag, time.time(), whole=True)
        summary.to_json(found)
        return draw_page(found)
    finally:
        ledger.close()


def decided_in(found: Night, number: int) -> set[int]:
    """The segments of the runs that decided an experiment."""
    one = found.experiments[number]
    roles = ("screen", "candidate", "control", "remeasure")
    return {r.segment for r in found.runs_of(number, *roles) if r.attempt == one.attempt}


def agrees(found: Night) -> None:
    assert audit(task_of(found.root)) == []


# ---- data --------------------------------------------------------------------------------------


def test_a_touch_is_no_change(fed: Path) -> None:
    file = fed / "data" / "shift"

    def touch() -> None:
        shutil.copy(file, file.with_suffix(".new"))  # another inode and another time
        file.with_suffix(".new").replace(file)

    found = run_session(fed, ScriptedAgent(change(VALUE=5.0), then(touch, change(VALUE=1.0))))
    assert found.verdicts == [("keep", None)] * 2
    assert [(one.number, one.after_order) for one in segments(fed)] == [(0, -1)]
    assert found.record.warnings == ()
    assert found.runs_of(1, "segment") == []
    agrees(found)


def test_changed_data_begin_a_segment(fed: Path) -> None:
    """Better data make everything 3 better: no change of the agent's may profit from that."""
    agent = ScriptedAgent(
        change(VALUE=8.0),
        then(lambda: shift(fed, -3.0), change(VALUE=9.5)),  # 6.5 now, but the incumbent has 5
        change(VALUE=7.0),
    )
    found = run_session(fed, agent, verified=True)
    assert found.verdicts == [("keep", None), ("discard", "worse"), ("keep", None)]
    [first, second] = segments(fed)
    assert (second.number, second.after_order) == (1, 1)
    assert second.reason == "input data/shift"
    assert first.fingerprint["input data/shift"] != second.fingerprint["input data/shift"]
    assert [decided_in(found, number) for number in (1, 2, 3)] == [{0}, {1}, {1}]
    again = found.runs_of(1, "segment")
    assert len(again) == judge.FRESH_RUNS
    assert all(run.metric == pytest.approx(5.0, abs=0.1) for run in again)
    assert any("changed during the session: input data/shift" in line for line in found.lines)
    assert {run.segment for run in found.runs_of(3, "verify", "verify baseline")} == {1}
    agrees(found)


def test_gains_are_within_their_segment(fed: Path) -> None:
    agent = ScriptedAgent(
        change(VALUE=8.0), then(lambda: shift(fed, 50.0), change(VALUE=7.0)), change(VALUE=6.5)
    )
    found = run_session(fed, agent, verified=True)
    assert found.verdicts == [("keep", None)] * 3
    ledger = Ledger(SessionPaths(fed, "t").ledger, readonly=True)
    try:
        seen = collect.summarise(ledger, "t", time.time(), whole=True)
    finally:
        ledger.close()
    gains = [one.gain for one in seen.keeps[1:]]
    assert gains == [pytest.approx(gain, abs=0.15) for gain in (2.0, 1.0, 0.5)]
    assert seen.gain == pytest.approx(3.5, abs=0.3)
    assert seen.incumbent and seen.incumbent.score == pytest.approx(56.5, abs=0.1)
    assert seen.noise_sd is not None and seen.noise_sd < 0.1
    assert [one.gain for one in seen.recent if one.number] == gains
    assert seen.verification and seen.verification.gain == pytest.approx(3.5, abs=0.2)
    assert seen.verification.drift is None
    text = report(fed)
    assert "The session has 2 segments" in text
    assert "| 1 | " in text and "input data/shift" in text
    assert (fed / "progress.png").read_bytes().startswith(b"\x89PNG")


def test_data_that_change_while_a_run_uses_them(tmp_path: Path, fed: Path) -> None:
    """That run says nothing: it is no crash, and its experiment begins again."""
    gate = tmp_path / "gate"

    def meanwhile() -> None:
        wait_until(lambda: any((fed / ".autoresearch" / "t" / "runs" / "0001").glob("*/log")))
        shift(fed, 20.0)
        gate.touch()

    someone = threading.Thread(target=meanwhile)

    def propose(turn: Turn) -> Proposal:
        someone.start()
        return change(VALUE=5.0, WAIT_A=str(gate))(turn)

    found = run_session(fed, ScriptedAgent(propose))
    someone.join()
    assert found.verdicts == [("keep", None)]
    assert found.experiments[1].attempt == 1
    spoiled = [run for run in found.runs if run.reason == SPOILED]
    assert [(run.experiment, run.attempt, run.metric) for run in spoiled] == [(1, 0, None)]
    assert decided_in(found, 1) == {1}
    assert found.experiments[1].metric == pytest.approx(25.0, abs=0.1)
    agrees(found)


def test_several_slots(tmp_path: Path, fed: Path) -> None:
    """While one slot is in the middle of an experiment, the other's agent meets changed data."""
    gate = tmp_path / "gate"

    def propose(turn: Turn) -> Proposal:
        runs = fed / ".autoresearch" / "t" / "runs" / "0001"
        wait_until(lambda: len(list(runs.glob("*/log"))) >= 1)
        shift(fed, -5.0)
        gate.touch()
        return change(VALUE=9.0)(turn)

    agent = ScriptedAgent(change(VALUE=8.0, WAIT_A=str(gate)), propose, change(VALUE=7.0))
    found = run_session(fed, agent, runner__slots=2)
    assert [one.number for one in segments(fed)] == [0, 1]
    assert any(run.segment == 0 for run in found.runs_of(1))  # it began on the old data
    for number in (1, 2, 3):  # one of them may not fit any more onto what was kept meanwhile
        assert decided_in(found, number) <= {1}
    assert any(decided_in(found, number) for number in (1, 2, 3))
    assert ("keep", None) in found.verdicts
    agrees(found)


def test_data_that_change_while_the_baseline_is_measured(fed: Path, tmp_path: Path) -> None:
    def hear(line: str) -> None:
        if line.startswith("baseline 2 of"):
            shift(fed, 7.0)

    found = run_session(fed, ScriptedAgent(), say=hear)
    assert found.experiments[0].attempt == 1
    assert found.experiments[0].metric == pytest.approx(17.0, abs=0.1)
    used = [run for run in found.runs_of(0, "baseline") if run.attempt == 1]
    assert {run.segment for run in used} == {1} and len(used) == 3
    assert [one.after_order for one in segments(fed)] == [-1, -1]
    agrees(found)


def test_a_resume_with_other_data_begins_a_segment(fed: Path) -> None:
    run_session(fed, ScriptedAgent(change(VALUE=8.0)))
    shift(fed, 3.0)
    found = run_session(fed, ScriptedAgent(change(VALUE=7.0)))
    assert found.verdicts == [("keep", None)] * 2
    assert [one.reason for one in segments(fed)] == ["the session began", "input data/shift"]
    assert found.experiments[2].metric == pytest.approx(10.0, abs=0.1)
    assert len(found.runs_of(1, "segment")) == judge.FRESH_RUNS
    again = run_session(fed, ScriptedAgent())  # nothing changed since
    assert len(again.runs_of(1, "segment")) == judge.FRESH_RUNS
    assert len(segments(fed)) == 2
    agrees(again)


def test_an_experiment_in_flight_begins_again(fed: Path) -> None:
    """Its screen was made on the old data, then the session was stopped."""

    def stop_then(session: Session) -> None:
        made = session.make

        def make(number: int, attempt: int, role: Role, *rest: Any) -> Run:
            if role is Role.CANDIDATE:
                session.stop("enough")
            return made(number, attempt, role, *rest)

        session.make = make  # type: ignore[method-assign]

    run_session(fed, ScriptedAgent(change(VALUE=8.0)), before=stop_then)
    shift(fed, 3.0)
    found = run_session(fed, ScriptedAgent())
    assert found.verdicts == [("keep", None)]
    assert found.experiments[1].attempt == 1
    assert decided_in(found, 1) == {1}
    assert {run.segment for run in found.runs_of(1, "screen") if run.attempt == 0} == {0}
    agrees(found)


def test_data_that_vanish(fed: Path, tmp_path: Path) -> None:
    away = tmp_path / "away"
    step = then(lambda: (fed / "data").rename(away), change(VALUE=7.0))
    with pytest.raises(TaskError, match="does not exist any more"):
        run_session(fed, ScriptedAgent(change(VALUE=8.0), step))
    away.rename(fed / "data")
    found = run_session(fed, ScriptedAgent())
    assert found.verdicts == [("keep", None)] * 2
    assert decided_in(found, 2) == {segments(fed)[-1].number}
    agrees(found)


def test_an_incumbent_that_does_not_bear_the_change(fed: Path) -> None:
    step = then(lambda: (fed / "data" / "shift").write_text("none"), change(VALUE=7.0))
    with pytest.raises(BaselineError, match="the incumbent, experiment 1, does not run any more"):
        run_session(fed, ScriptedAgent(change(VALUE=8.0), step))
    shift(fed, 1.0)
    found = run_session(fed, ScriptedAgent())
    assert found.verdicts == [("keep", None)] * 2
    assert found.experiments[2].metric == pytest.approx(8.0, abs=0.1)
    agrees(found)


def test_data_that_never_rest(fed: Path) -> None:
    """Such as a log file among the inputs."""
    calm: list[bool] = []

    def restless(session: Session) -> None:
        commands = session.executor.commands
        execute = commands.execute

        def executed(*arguments: Any) -> Any:
            outcome = execute(*arguments)
            if not calm:
                shift(fed, time.monotonic())
            return outcome

        commands.execute = executed  # type: ignore[method-assign]

    with pytest.raises(TaskError, match="input data/shift changed 6 times before anything was"):
        run_session(fed, ScriptedAgent(change(VALUE=8.0)), before=restless)
    calm.append(True)
    shift(fed, 0.0)
    found = run_session(fed, ScriptedAgent(change(VALUE=8.0)), before=restless)
    assert found.verdicts == [("keep", None)]
    agrees(found)


def test_exact_comparisons(tmp_path: Path) -> None:
    """A deterministic task: the incumbent's number is another one in each segment."""
    root = make_fed(tmp_path, program=READS.replace("SPREAD = 0.1", "SPREAD = 0.0"))
    agent = ScriptedAgent(
        change(VALUE=8.0), then(lambda: shift(root, -3.0), change(VALUE=9.0)), change(VALUE=7.5)
    )
    found = run_session(root, agent)
    assert found.verdicts == [("keep", None), ("discard", "worse"), ("keep", None)]
    assert [run.metric for run in found.runs_of(1, "segment")] == [5.0]
    assert "added up over 2 segments" in report(root)
    with open_session(task_of(root), "t", lambda event: None) as session:
        Loop(session).begin()
        verify(session, runs=1)
    assert "`score` 7 → 4.5: 2.5 better" in report(root)  # both in one segment
    assert "added up" not in report(root)
    agrees(found)


def test_data_in_git_are_those_of_the_commit(tmp_path: Path) -> None:
    """What lies in the checkout of them is not what a run sees, so it does not matter."""
    root = make_task(tmp_path / "task", READS, DATA, {"data/shift": "0.0\n"})
    step = then(lambda: shift(root, 5.0), change(VALUE=7.0))
    found = run_session(root, ScriptedAgent(change(VALUE=8.0), step))
    assert found.experiments[2].metric == pytest.approx(7.0, abs=0.1)
    assert len(segments(root)) == 1
    git(root, "checkout", "-q", "data")
    agrees(found)


def test_the_scorers_hidden_files(tmp_path: Path) -> None:
    toml = TASK + '[score]\ncommand = "python -S -E score.py"\nreads = ["out"]\nhidden = ["key"]\n'
    program = PROGRAM.replace('print("score:", score)', 'open("out", "w").write(str(score))')
    score = 'print("---")\nprint("score:", float(open("out").read()) + float(open("key").read()))\n'
    root = make_task(tmp_path / "task", program, toml, {"score.py": score, ".gitignore": "key\n"})
    (root / "key").write_text("1.0")
    step = then(lambda: (root / "key").write_text("2.0"), change(VALUE=7.0))
    found = run_session(root, ScriptedAgent(change(VALUE=8.0), step))
    assert found.verdicts == [("keep", None)] * 2
    assert [one.reason for one in segments(root)][1:] == ["hidden key"]
    assert found.experiments[2].metric == pytest.approx(9.0, abs=0.1)
    agrees(found)


# ---- packages and programs ---------------------------------------------------------------------


def test_a_package_is_upgraded(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "installed" / "lib" / "python3.11" / "site-packages"
    for name in ("numpy-1.26.4.dist-info", "other-1.0.dist-info"):
        (site / name).mkdir(parents=True)
    (tmp_path / "installed" / "bin").mkdir()
    (tmp_path / "installed" / "bin" / "python").symlink_to(os.path.realpath(sys.executable))
    path = f"{tmp_path / 'installed' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    monkeypatch.setenv("PATH", path)

    def upgrade() -> None:
        (site / "numpy-1.26.4.dist-info").rename(site / "numpy-2.0.0.dist-info")

    agent = ScriptedAgent(change(VALUE=8.0), then(upgrade, change(VALUE=7.0)))
    found = run_session(root, agent)
    assert found.verdicts == [("keep", None)] * 2
    [_, second] = segments(root)
    assert "package numpy 1.26.4 -> 2.0.0" in second.reason
    assert decided_in(found, 2) == {1}
    assert any("package numpy 1.26.4 -> 2.0.0" in warning for warning in found.record.warnings)
    agrees(found)


def test_a_path_that_finds_the_same_interpreter_is_no_change(root: Path, tmp_path: Path) -> None:
    """Its packages count. A script may call any interpreter, so all packages count there."""
    sites = []
    for name in ("a", "b"):
        binary = tmp_path / name / "bin" / "python"
        binary.parent.mkdir(parents=True)
        binary.symlink_to(os.path.realpath(sys.executable))
        sites.append(tmp_path / name / "lib" / "python3.11" / "site-packages")
        (sites[-1] / f"numpy-{len(sites)}.0.dist-info").mkdir(parents=True)

    def find(command: str, *sites: Path) -> str | None:
        task = override(task_of(root), **{"run.command": command})
        env = {"PATH": f"{tmp_path / 'a' / 'bin'}{os.pathsep}{os.environ['PATH']}"}
        return make_fingerprint(task, env, sites, ()).refresh({}).get("package numpy")

    assert find("python prog.py", *sites) == find("python prog.py", sites[0]) == "1.0"
    assert find("sh run.sh", *sites) == find("sh run.sh", *reversed(sites)) == "1.0, 2.0"


def test_what_a_change_is_called() -> None:
    before = {"package a": "1", "package b": "1", "input x": "aa", "@input x": "k", "kernel": "6"}
    after = {"package a": "2", "package c": "3", "input x": "bb", "@input x": "l", "kernel": "6"}
    assert list_changes(before, after) == [
        "input x",
        "package a 1 -> 2",
        "package b 1 is gone",
        "package c 3 is new",
    ]
    assert list_changes(before, before | {"@input x": "other"}) == []
    assert summarize_changes([str(number) for number in range(8)]) == "0, 1, 2, 3, 4, and 3 more"


def test_what_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_fed(tmp_path, DATA.replace('["COUNTED"]', '["MINE"]'))
    (root / "data" / "deep").mkdir()
    (root / "data" / "deep" / "round").symlink_to(root / "data")  # it leads back
    (root / "data" / "gone").symlink_to(root / "nothing")
    os.mkfifo(root / "data" / "pipe")  # to read it would take for ever
    task, env = task_of(root), {"PATH": os.environ["PATH"], "MINE": "a secret"}
    first = make_fingerprint(task, env, [tmp_path / "no-site"], ()).refresh({})
    assert {"input data/shift", "input data/pipe", "input data/gone", "program python"} <= set(
        first
    )
    assert {"kernel", "CPU", "variable MINE"} <= set(first)
    assert "a secret" not in str(first)
    assert list_changes(first, make_fingerprint(task, env, [], ()).refresh(first)) == []
    assert list_changes(first, make_fingerprint(task, env | {"MINE": "b"}, [], ()).refresh({})) == [
        "variable MINE"
    ]


def test_contents_are_read_once(fed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, read = task_of(fed), [0]
    hash_file = "autoresearch.measure.fingerprint._hash_file"

    def counted(file: Path) -> str:
        read[0] += file.name == "shift"
        return file.read_text() if file.name == "shift" else ""

    monkeypatch.setattr(hash_file, counted)
    fingerprint = make_fingerprint(task, {}, [], ())
    first = fingerprint.refresh({})
    assert fingerprint.refresh(first) is first
    assert make_fingerprint(task, {}, [], ()).refresh(first) == first
    assert read[0] == 1
    os.utime(fed / "data" / "shift", (1, 1))
    assert list_changes(first, fingerprint.refresh(first)) == []
    assert read[0] == 2


def test_many_files_are_one_fact(fed: Path) -> None:
    for number in range(60):
        (fed / "data" / str(number)).write_text("x")
    fingerprint = make_fingerprint(task_of(fed), {}, [], ())
    first = fingerprint.refresh({})
    (fed / "data" / "7").write_text("yy")
    assert list_changes(first, fingerprint.refresh(first)) == ["input data"]


# ---- drift -------------------------------------------------------------------------------------

SLOW = PROGRAM.replace("score = VALUE + noise", "score = VALUE + noise + SLOWER").replace(
    "seed = int", 'SLOWER = 5.0 if os.path.exists(os.environ["SLOW"]) else 0.0\nseed = int'
)
DRIFTING = TASK.replace('["COUNTED"]', '["COUNTED", "SLOW"]')


@pytest.fixture
def throttled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Callable[[], object]]:
    """A task on a machine that can be slowed down."""
    root = make_task(tmp_path / "task", SLOW, DRIFTING)
    file = side(root) / "slow"
    file.parent.mkdir()
    monkeypatch.setenv("SLOW", str(file))
    monkeypatch.setattr(judge, "TOPUP_EVERY", 2)
    return root, file.touch


def test_a_machine_that_throttles(throttled: tuple[Path, Callable[[], object]]) -> None:
    root, slow_down = throttled
    agent = ScriptedAgent(
        change(VALUE=8.0), then(slow_down, change(VALUE=20.0)), change(VALUE=7.0), change(VALUE=30)
    )
    found = run_session(root, agent)
    assert [status for status, _ in found.verdicts] == ["keep", "discard", "keep", "discard"]
    reasons = [one.reason for one in segments(root)]
    assert len(reasons) == 2, reasons
    assert reasons[1].startswith("the machine drifted: the incumbent measured 1")
    assert segments(root)[1].after_order == 2
    assert [(run.index, run.retry) for run in found.runs_of(1, "topup")] == [(2, 0), (2, 1)]
    assert len(found.runs_of(1, "segment")) == judge.FRESH_RUNS
    assert found.experiments[3].metric == pytest.approx(12.0, abs=0.1)
    assert found.runs_of(3, "topup") and len(segments(root)) == 2  # the machine stands still again
    assert "the machine drifted" in report(root)
    agrees(found)


def test_a_drift_is_seen_though_the_session_was_stopped(
    throttled: tuple[Path, Callable[[], object]],
) -> None:
    root, slow_down = throttled

    def stop_at_the_second_look(session: Session) -> None:
        made = session.make

        def make(number: int, attempt: int, role: Role, *rest: Any, retry: int = 0) -> Run:
            if role is Role.TOPUP and retry:
                raise Stopped
            return made(number, attempt, role, *rest, retry=retry)

        session.make = make  # type: ignore[method-assign]

    agent = ScriptedAgent(change(VALUE=8.0), then(slow_down, change(VALUE=20.0)))
    run_session(root, agent, before=stop_at_the_second_look)
    assert len(segments(root)) == 1
    found = run_session(root, ScriptedAgent())
    assert len(segments(root)) == 2
    assert len(found.runs_of(1, "segment")) == judge.FRESH_RUNS
    agrees(found)


def test_a_still_machine_drifts_nowhere(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge, "TOPUP_EVERY", 1)
    steps = [change(VALUE=20.0 + number) for number in range(6)]
    found = run_session(root, ScriptedAgent(*steps))
    assert len(segments(root)) == 1
    assert len([run for run in found.runs if run.role == "topup" and not run.retry]) == 6


def test_two_runs_have_to_say_so() -> None:
    known = judge.Reference(Metric("loss"), (1.0, 1.1, 0.9, 1.0), 0.1, 20)

    def drifted(first: float, second: float) -> bool:
        return judge.drifted(known, first, lambda _: second)

    assert drifted(2.0, 2.0) and drifted(0.0, 0.1)
    assert not drifted(2.0, 1.0)  # one lucky run
    assert not drifted(2.0, 0.0)  # wild, but no drift
    assert not judge.drifted(known, 1.1, lambda _: pytest.fail("it was in line"))
    unknown = judge.Reference(Metric("loss"), (1.0,), 0.0, 0)
    assert not judge.drifted(unknown, 9.0, lambda _: pytest.fail("nothing is known"))


# ---- the report --------------------------------------------------------------------------------


def runs_over_hours(
    value: Callable[[float], float], wall: Callable[[float], float], noise: float = 0.01
) -> list[Run]:
    """Two commits' runs, one every six minutes."""
    made = []
    for number in range(80):
        hours = number / 10
        base = 5.0 if number < 40 else 3.0
        wobble = noise * (number * 7 % 11 - 5) / 5
        made.append(
            Run(
                id=number,
                experiment=0,
                attempt=0,
                role=Role.CONTROL,
                index=number,
                commit="a" if number < 40 else "b",
                seed=number,
                started_at=3600 * hours,
                finished=True,
                metric=base + value(hours) + wobble,
                wall_s=wall(hours) * (1 + wobble),
                cpu_s=10.0 * (1 + wobble),
            )
        )
    return made


def test_a_machine_that_stood_still() -> None:
    found = find_trends(runs_over_hours(lambda h: 0.0, lambda h: 12.0), Metric("loss"))
    assert found is not None
    assert describe_trends(found) == "It stood still, as far as 80 runs of incumbents tell."


def test_a_neighbour_shows_in_the_report() -> None:
    found = find_trends(runs_over_hours(lambda h: 0.01 * h, lambda h: 12 * 1.1**h), Metric("loss"))
    assert found is not None and found.metric is not None
    text = describe_trends(found)
    assert "The same code became worse by" in text
    assert "% more wall time a run" in text and "CPU time" not in text


def test_too_few_runs_say_nothing() -> None:
    assert find_trends(runs_over_hours(lambda h: h, lambda h: h + 1)[:8], Metric("loss")) is None


def test_a_session_of_minutes_has_no_trend_by_the_hour() -> None:
    runs = runs_over_hours(lambda h: 0.01 * h, lambda h: 12 * 1.1**h)
    quick = [replace(run, started_at=run.started_at / 600) for run in runs]
    assert find_trends(runs, Metric("loss")) is not None
    assert find_trends(quick, Metric("loss")) is None


# ---- the audit, and the margin -----------------------------------------------------------------


def test_a_verdict_across_segments_is_found(fed: Path) -> None:
    found = run_session(fed, ScriptedAgent(change(VALUE=8.0)))
    ledger = Ledger(SessionPaths(fed, "t").ledger)
    [screen, *_] = found.runs_of(1, "screen")
    ledger._db.execute("UPDATE run SET segment = 1 WHERE id = ?", (screen.id,))
    ledger.close()
    [finding] = audit(task_of(fed))
    assert (finding.what, finding.detail) == ("verdict", "of segment 0, by runs of [1]")


def test_verify_when_something_changes_meanwhile(fed: Path) -> None:
    run_session(fed, ScriptedAgent(change(VALUE=8.0)))
    said: list[str] = []
    with open_session(task_of(fed), "t", lambda event: said.append(str(event))) as session:
        Loop(session).begin()
        made, count = session.make, [0]

        def make(*name: Any) -> Run:
            count[0] += 1
            if count[0] == 2:  # of eight
                shift(fed, 4.0)
            return made(*name)

        session.make = make  # type: ignore[method-assign]
        verify(session, 4)
        row = session.record
        runs = [
            run
            for one in session.ledger.all_experiments(row)
            for run in session.ledger.runs(row, one.number)
        ]
    checked = [run for run in runs if run.role in ("verify", "verify baseline")]
    assert sum(run.segment == 1 for run in checked) == 8
    assert audit(task_of(fed)) == []


def test_what_a_margin_gave_away_is_counted_by_segment(fed: Path) -> None:
    """Worse data are no loss of the incumbent's."""
    agent = ScriptedAgent(change(VALUE=8.0), then(lambda: shift(fed, 9.0), change(VALUE=7.0)))
    run_session(fed, agent)
    ledger = Ledger(SessionPaths(fed, "t").ledger)
    try:
        row = ledger.session("t")
        score = history.reference(ledger, row, ledger.incumbent(row)).score
        assert history.lost(ledger, row, score) < 0.1
        assert history.lost(ledger, row, score + 0.5) == pytest.approx(0.5, abs=0.1)
    finally:
        ledger.close()


# ---- what reviews found --------------------------------------------------------------------------


def test_a_task_below_the_top_of_its_repository(tmp_path: Path) -> None:
    """Only what its commits hold of its own folder is read from them."""
    top = make_task(tmp_path / "top", files={"data/other": "1", ".gitignore": "sub/data/\n"})
    root = top / "sub"
    root.mkdir()
    for name, text in {"prog.py": READS, "autoresearch.toml": DATA}.items():
        (root / name).write_text(text)
    shift(root, 0.0)
    git(top, "add", "--all")
    git(top, "commit", "-qm", "below")

    def lower(turn: Turn) -> Proposal:
        [path] = turn.editable
        file = turn.worktree / path
        file.write_text(file.read_text().replace("VALUE = 10.0", "VALUE = 5.0"))
        return Proposal("lower")

    found = run_session(root, ScriptedAgent(then(lambda: shift(root, 3.0), lower)))
    assert [one.reason for one in segments(root)][1:] == ["input data/shift"]
    assert decided_in(found, 1) == {1}


def test_two_threads_that_warn_do_not_wait_for_each_other(fed: Path) -> None:
    """One sees a change while another has something to say, again and again."""
    with open_session(task_of(fed), "t", lambda line: None) as session:
        session.segments.refresh()
        stop = threading.Event()

        def talk() -> None:
            number = 0
            while not stop.is_set():
                session.warn(f"something {number % 3}")
                session.update(warnings=[])
                number += 1

        talking = threading.Thread(target=talk)
        talking.start()
        try:
            for number in range(5):  # as often as it may change before anything is finished
                shift(fed, number + 1.0)
                session.segments.refresh()
        finally:
            stop.set()
        talking.join(timeout=20)
        assert not talking.is_alive()
        assert session.segments.current == 5


def test_what_takes_long_to_look_at_is_looked_at_less_often(
    fed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []
    with open_session(task_of(fed), "t", lambda line: None) as session:
        session.segments.refresh()
        fingerprint = session.segments._environment()
        real = fingerprint.refresh

        def slow(known: Any) -> Any:
            looks.append(time.monotonic())
            time.sleep(0.15)
            return real(known)

        monkeypatch.setattr(fingerprint, "refresh", slow)
        for _ in range(5):
            session.segments.refresh()
    assert len(looks) == 1
