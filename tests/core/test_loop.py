"""A night, end to end: real git, real processes, a real ledger, and an agent that does as told."""

from __future__ import annotations

import datetime
import itertools
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import pytest
from support.audits import findings
from support.sessions import (
    PROGRAM,
    TASK,
    Night,
    ScriptedAgent,
    Step,
    change,
    commit_all,
    edit,
    git,
    make_task,
    rewrite,
    run_session,
    side,
    task_of,
    wait_until,
)

from autoresearch.commands.fsck import audit
from autoresearch.core import judge, scheduler, turns
from autoresearch.core.session import Session
from autoresearch.core.turns import TurnTaker
from autoresearch.errors import AgentError, BaselineError, TaskError
from autoresearch.protocols import Failure, Proposal, Turn
from autoresearch.records import UNSELECTED
from autoresearch.store.ledger import Ledger
from autoresearch.store.paths import SessionPaths
from autoresearch.store.queries import list_failed_turns

Counted = Callable[[], list[str]]


def metrics(night: Night, number: int, *roles: str) -> list[float]:
    return [run.metric for run in night.runs_of(number, *roles) if run.metric is not None]


def agrees(night: Night) -> None:
    """Branch, refs and results.tsv follow from the ledger."""
    best = max((e for e in night.experiments if e.status == "keep"), key=lambda e: e.order or 0)
    assert night.branch() == best.commit
    assert git(night.root, "rev-parse", f"refs/autoresearch/{night.tag}/best") == best.commit
    for one in night.experiments:
        ref = f"refs/autoresearch/{night.tag}/{one.number}"
        assert git(night.root, "rev-parse", ref) == one.commit
    finished = sorted(
        (e for e in night.experiments if e.order is not None), key=lambda e: e.order or 0
    )
    rows = [(row[0], row[3], row[4], row[5]) for row in night.results[1:]]
    assert rows == [(e.commit[:7], str(e.status), e.description, str(e.number)) for e in finished]


# ---- verdicts ----------------------------------------------------------------------------------


def test_a_night(root: Path, counted: Counted) -> None:
    agent = ScriptedAgent(
        change(VALUE=20.0),
        change("half of it", VALUE=5.0),
        rewrite("raise SystemExit(3)\n", "broken"),
        rewrite('print("---\\nscore: nan")\n'),
    )
    found = run_session(root, agent)
    assert found.verdicts == [
        ("discard", "worse"),
        ("keep", None),
        ("crash", "exit code 3"),
        ("crash", "metric is 'nan', not a finite number"),
    ]
    assert found.reason == "the agent has nothing more to propose"
    worse, kept, crashed = found.experiments[1:4]
    assert worse.metric == pytest.approx(20, abs=0.1)
    assert crashed.metric is None
    assert kept.description == "half of it"
    # The branch is the kept change and nothing else, on the user's commit.
    assert git(root, "log", "--format=%s", "main..autoresearch/t") == "half of it"
    assert "VALUE = 5.0" in git(root, "show", "autoresearch/t:prog.py")
    assert crashed.base == 2
    agrees(found)
    assert found.results[0][:5] == ["commit", "score", "memory_gb", "status", "description"]
    assert [row[3] for row in found.results[1:]] == ["keep", "discard", "keep", "crash", "crash"]
    assert found.results[4][1:4] == ["0.000000", "0.0", "crash"]
    # Every run counted once, on a seed of its own.
    assert len(counted()) == len(set(counted())) == len(found.runs) - 2  # two never got that far
    assert all(run.finished for run in found.runs)
    for folder in (found.paths.trees, found.paths.turns):
        assert not list(folder.iterdir())


def test_the_metric_of_a_keep_comes_from_fresh_runs_only(root: Path) -> None:
    found = run_session(root, ScriptedAgent(change(VALUE=5.0)))
    kept = found.experiments[1]
    fresh = metrics(found, 1, "remeasure")
    assert len(fresh) == judge.FRESH_RUNS
    assert kept.metric == fmean(fresh)
    assert len(metrics(found, 1, "candidate")) == len(metrics(found, 1, "control")) == 3
    assert {run.commit for run in found.runs_of(1, "control")} == {found.experiments[0].commit}
    baseline = found.experiments[0]
    assert baseline.metric == fmean(metrics(found, 0, "baseline"))


def test_the_result_is_measured_again_at_the_end(root: Path) -> None:
    found = run_session(root, ScriptedAgent(change(VALUE=5.0)), verified=True)
    best, base = found.runs_of(1, "verify"), found.runs_of(1, "verify baseline")
    assert len(best) == len(base) == 3
    assert {run.commit for run in best} == {found.experiments[1].commit}
    assert {run.commit for run in base} == {found.experiments[0].commit}
    assert not set(UNSELECTED) & {run.role for run in (*best, *base)}
    said = "measuring again: 2 versions, to 3 runs each"
    assert said in found.lines
    again = run_session(root, ScriptedAgent(), verified=True)
    assert said not in again.lines and len(again.runs) == len(found.runs)


def test_not_better(root: Path) -> None:
    """Better than the incumbent, but not by enough to tell it from noise."""
    found = run_session(root, ScriptedAgent(change(VALUE=9.9999)), judge__level="strict")
    assert found.verdicts[0][0] == "discard"
    assert found.verdicts[0][1] in ("worse", "not better", "not confirmed")
    assert len(found.runs_of(1, "screen")) <= 3
    assert found.experiments[1].metric == fmean(metrics(found, 1, "screen"))


def test_not_confirmed(tmp_path: Path) -> None:
    """Lucky in the screen, then no better than the incumbent in fresh runs."""
    marker = tmp_path / "side" / "screened"
    lucky = (
        f"import os\nluck = not os.path.exists({str(marker)!r})\n"
        f"open({str(marker)!r}, 'w').close()\n"
    )
    program = PROGRAM.replace("score = VALUE", "score = (5 if luck else 20) * 0 + VALUE")
    root = make_task(tmp_path / "task", PROGRAM)
    lucky_program = lucky + program.replace(
        "(5 if luck else 20) * 0 + VALUE", "(5 if luck else 20)"
    )
    found = run_session(root, ScriptedAgent(rewrite(lucky_program)))
    assert found.verdicts == [("discard", "not confirmed")]
    assert found.experiments[1].metric == pytest.approx(5, abs=0.1)  # of the screen
    assert found.branch() == found.experiments[0].commit
    assert len(found.runs_of(1, "candidate")) >= 1


def test_a_kept_change_that_crashes_later_is_replaced(root: Path) -> None:
    """By the clock, or because what it needs is gone. It must not keep its place for ever."""
    flag = side(root) / "flag"
    good = PROGRAM.replace("VALUE = 10.0", "VALUE = 5.0")
    bomb = good.replace("noise =", f"os.path.exists({str(flag)!r}) and sys.exit(3)\nnoise =")

    def light(turn: Turn) -> Proposal | Failure | None:
        flag.touch()
        return rewrite(PROGRAM.replace("VALUE = 10.0", "VALUE = 20.0"))(turn)

    better = rewrite(PROGRAM.replace("VALUE = 10.0", "VALUE = 4.0"))
    found = run_session(root, ScriptedAgent(rewrite(bomb), light, better))
    assert found.verdicts == [("keep", None), ("discard", "worse"), ("keep", None)]
    assert {run.metric for run in found.runs_of(3, "control")} == {None}
    assert audit(task_of(root)) == []


def test_a_metric_to_maximize(root: Path) -> None:
    agent = ScriptedAgent(change(VALUE=5.0), change(VALUE=20.0))
    found = run_session(root, agent, metric__goal="maximize")
    assert found.verdicts == [("discard", "worse"), ("keep", None)]
    assert found.experiments[2].metric == pytest.approx(20, abs=0.1)


@pytest.mark.parametrize("level", ["fast", "strict"])
def test_levels(root: Path, level: str) -> None:
    found = run_session(root, ScriptedAgent(change(VALUE=5.0)), judge__level=level)
    assert found.verdicts == [("keep", None)]
    k = {"fast": (2, 2), "strict": (4, 4)}[level]
    assert (len(found.runs_of(1, "candidate")), len(found.runs_of(1, "control"))) == k


def test_a_guarded_number_out_of_bounds(tmp_path: Path) -> None:
    program = PROGRAM + 'print("memory:", 100 / VALUE)\n'
    root = make_task(tmp_path / "task", program, TASK + '[guards]\nmemory = "<= 15"\n')
    agent = ScriptedAgent(
        change(VALUE=5.0),
        change(VALUE=9.0),
        rewrite(PROGRAM.replace("VALUE = 10.0", "VALUE = 2.0")),
    )
    found = run_session(root, agent)
    assert found.verdicts == [
        ("discard", "guard failed: memory = 20, not memory <= 15"),
        ("keep", None),
        ("discard", "guard failed: memory was not printed"),
    ]
    assert found.experiments[1].metric == pytest.approx(5, abs=0.1)


def test_a_guard_command(tmp_path: Path) -> None:
    """Run once, after the screen, in a pristine tree of the change."""
    toml = TASK + '[guards.commands]\nsane = "python -S -E guard.py"\n'
    guard = (
        "import os, pathlib, prog_text\n"
        "pathlib.Path(os.environ['COUNTED'] + '-guard').open('a').write('x')\n"
        "raise SystemExit('VALUE = 1.0' in prog_text.read())\n"
    )
    helper = "def read():\n    return open('prog.py').read()\n"
    root = make_task(
        tmp_path / "task", toml=toml, files={"guard.py": guard, "prog_text.py": helper}
    )
    count = tmp_path / "side" / "count"
    os.environ["COUNTED"] = str(count)
    try:
        agent = ScriptedAgent(change(VALUE=1.0), change(VALUE=20.0), change(VALUE=2.0))
        found = run_session(root, agent)
    finally:
        del os.environ["COUNTED"]
    assert found.verdicts == [
        ("discard", "guard failed: sane (exit code 1)"),
        ("discard", "worse"),
        ("keep", None),
    ]
    # Of the unchanged program, of the first change and of the last; not of the one screened out.
    assert Path(f"{count}-guard").read_text() == "xxx"
    assert (found.paths.runs / "0001" / "guard-sane.log").exists()


def test_a_guard_command_has_a_time_limit_of_its_own(tmp_path: Path) -> None:
    program = PROGRAM + "SLOW = False\n"
    guard = "import prog, time\ntime.sleep(60 if prog.SLOW else 0)\n"
    toml = TASK + "[guards.commands]\n"
    toml += 'quick = { command = "python -S -E guard.py", timeout = "3s" }\n'
    root = make_task(tmp_path / "task", program, toml, files={"guard.py": guard})
    found = run_session(root, ScriptedAgent(change(VALUE=1.0, SLOW=True), change(VALUE=1.0)))
    assert found.verdicts == [("discard", "guard failed: quick (timeout)"), ("keep", None)]


def test_a_guard_command_that_the_unchanged_program_fails(tmp_path: Path) -> None:
    """Else every change of the night would be discarded for it."""
    root = make_task(tmp_path / "task", toml=TASK + '[guards.commands]\ntests = "false"\n')
    with pytest.raises(BaselineError, match=r"guard.*tests.*exit code 1"):
        run_session(root, ScriptedAgent(change(VALUE=1.0)))


# ---- tasks without noise -----------------------------------------------------------------------

EXACT = PROGRAM.replace("SPREAD = 0.1", "SPREAD = 0.0")


def test_declared_deterministic(tmp_path: Path) -> None:
    root = make_task(tmp_path / "task", EXACT)
    agent = ScriptedAgent(change(VALUE=9.999), change(VALUE=9.9991), change(SPREAD=0.0000001))
    found = run_session(root, agent, judge__deterministic=True)
    assert found.verdicts[0] == ("keep", None)
    assert found.verdicts[1] == ("discard", "worse")
    assert found.experiments[1].metric == 9.999
    assert all("no Landlock" in line for line in found.record.warnings)
    assert len(found.runs_of(2)) == 1


def test_a_keep_of_a_deterministic_task_must_reproduce_exactly(tmp_path: Path) -> None:
    root = make_task(tmp_path / "task", EXACT)
    agent = ScriptedAgent(change(VALUE=5.0, SPREAD=0.1))
    found = run_session(root, agent, judge__deterministic=True)
    assert found.verdicts == [("discard", "not reproduced")]


def test_undeclared_but_the_same_on_every_seed_is_said_loudly(tmp_path: Path) -> None:
    root = make_task(tmp_path / "task", EXACT)
    found = run_session(root, ScriptedAgent(change(VALUE=5.0)))
    assert found.verdicts == [("keep", None)]
    assert found.record.deterministic
    assert any("every seed gave score 10" in line for line in found.lines)
    assert any("AUTORESEARCH_SEED" in warning for warning in found.record.warnings)
    assert len(found.runs_of(0, "baseline")) == 3


COARSE = """\
import os

VALUE = 0.8

count = os.environ["COUNTED"]
with open(count, "a") as file:
    file.write("x")
noise = 0.01 * (os.path.getsize(count) % 2) if VALUE != 0.8 else 0.0
print("score:", VALUE + noise)
"""


def test_a_coarse_metric_is_not_deterministic_for_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Accuracy of two digits: six runs happened to print 0.80. A change that prints 0.88 and 0.89
    was discarded as "not reproduced", and so was every other improvement of the night."""
    root = make_task(tmp_path / "task", COARSE)
    monkeypatch.setenv("COUNTED", str(side(root) / "count"))
    agent = ScriptedAgent(change(VALUE=0.88), change(VALUE=0.85), change(VALUE=0.95))
    found = run_session(root, agent, metric__goal="maximize")
    assert [verdict[0] for verdict in found.verdicts] == ["keep", "discard", "keep"]
    assert not found.record.deterministic
    warning = next(line for line in found.record.warnings if "not deterministic" in line)
    assert "experiment 1 gave" in warning and "0.88" in warning and "0.89" in warning
    assert len(found.runs_of(0, "segment")) == judge.FRESH_RUNS
    assert len(found.runs_of(1, "candidate")) == len(found.runs_of(1, "control")) == 3
    assert not findings(root)


def test_declared_deterministic_but_it_is_not(root: Path) -> None:
    with pytest.raises(BaselineError, match="declared deterministic"):
        run_session(root, ScriptedAgent(), judge__deterministic=True)


# ---- turns that come to nothing ----------------------------------------------------------------


def delete(turn: Turn) -> Proposal:
    (turn.worktree / "prog.py").unlink()
    return Proposal("deleted")


def nothing(turn: Turn) -> Proposal:
    return Proposal("nothing")


def failure(turn: Turn) -> Failure:
    return Failure("service down", "503", retry_after_s=0)


def test_fruitless_turns_cost_no_run_and_are_no_experiment(root: Path) -> None:
    found = run_session(root, ScriptedAgent(nothing, failure, delete, change(VALUE=5.0)))
    assert found.verdicts == [("keep", None)]
    ledger = Ledger(found.paths.ledger, readonly=True)
    assert [turn[2] for turn in list_failed_turns(ledger, found.record)] == [
        "no change",
        "service down",
        "deleted",
    ]
    ledger.close()
    assert sum("came to nothing" in line for line in found.lines) == 3


def test_ten_fruitless_turns_count_as_one_experiment(root: Path) -> None:
    agent = ScriptedAgent(*[nothing] * 10, change(VALUE=5.0), change(VALUE=4.0))
    found = run_session(root, agent, limits__experiments=2)
    assert found.reason == "2 experiments done"
    assert found.verdicts == [("keep", None)]


def test_what_was_measured_is_not_measured_again(root: Path) -> None:
    agent = ScriptedAgent(change(VALUE=20.0), change(VALUE=20.0), change(VALUE=21.0))
    found = run_session(root, agent)
    assert [one.description for one in found.experiments[1:]] == ["VALUE 20.0", "VALUE 21.0"]
    assert any("duplicate: the same files as experiment 1" in line for line in found.lines)


def test_comments_and_formatting_are_not_measured(root: Path) -> None:
    """Neither beside the incumbent nor beside what was measured against it. The answer is in the
    ledger."""
    commented = rewrite("# as before\n" + PROGRAM, "a comment")
    spelled = rewrite(PROGRAM.replace("VALUE = 10.0", "VALUE = (2_0.00)"), "the same 20")
    other = rewrite(PROGRAM.replace("VALUE = 10.0", "VALUE = 2_1.0"), "another number")
    found = run_session(root, ScriptedAgent(commented, change(VALUE=20.0), spelled, other))
    assert [one.description for one in found.experiments[1:]] == ["VALUE 20.0", "another number"]
    said = [line for line in found.lines if "duplicate" in line]
    same = "duplicate: but for comments and formatting the same program as experiment"
    assert f"{same} 0 (keep, 3 runs)" in said[0]
    assert f"{same} 1 (discard, worse, -" in said[1]


def test_a_failing_agent_is_waited_for(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Longer and longer, from the start again after an experiment; and not beyond the limits."""
    pauses: list[float] = []
    clock = [0.0]
    monkeypatch.setattr(scheduler, "BACKOFF_S", (1.0, 3.0))

    class Clock:
        @staticmethod
        def monotonic() -> float:
            return clock[0]

        @staticmethod
        def sleep(seconds: float) -> None:
            clock[0] += seconds

        time = staticmethod(time.time)

    def down(retry_after_s: float | None = None) -> Step:
        def step(turn: Turn) -> Failure:
            pauses.append(clock[0])
            return Failure("service down", "503", retry_after_s)

        return step

    def works(turn: Turn) -> Proposal:
        pauses.append(clock[0])
        return change(VALUE=20.0)(turn)

    monkeypatch.setattr(turns, "time", Clock)
    agent = ScriptedAgent(down(), down(), down(), down(60.0), works, down(), nothing)
    run_session(root, agent)
    pauses.append(clock[0])
    waited = [b - a for a, b in itertools.pairwise(pauses)]
    assert waited == pytest.approx([1, 2, 3, 60, 0, 1], abs=0.25)


def test_an_agent_that_is_broken_is_a_failed_turn(root: Path) -> None:
    def broken(turn: Turn) -> Proposal:
        raise UnicodeDecodeError("utf-8", b"", 0, 1, "a bug")

    def later(turn: Turn) -> Proposal:
        return change(VALUE=5.0)(turn)

    found = run_session(root, ScriptedAgent(broken, later))
    assert found.verdicts == [("keep", None)]
    assert any("UnicodeDecodeError" in line for line in found.lines)


def test_an_agent_that_cannot_go_on_ends_the_session(root: Path) -> None:
    def refused(turn: Turn) -> Proposal:
        raise AgentError("the key was refused")

    with pytest.raises(AgentError, match="the key was refused"):
        run_session(root, ScriptedAgent(change(VALUE=5.0), refused))
    found = run_session(root, ScriptedAgent(change(VALUE=1.0)))
    assert found.verdicts == [("keep", None), ("keep", None)]
    agrees(found)


def test_what_an_agent_sees(tmp_path: Path) -> None:
    """The incumbent's files, no git, no hidden files; and the history as data."""
    toml = TASK.replace("[metric]", "[metric]") + (
        '[score]\ncommand = "python -S -E score.py"\nreads = ["out"]\nhidden = ["secret"]\n'
    )
    program = PROGRAM.replace('print("score:", score)', 'open("out", "w").write(str(score))')
    score = 'print("---")\nprint("score:", open("out").read())\nopen("secret/key")\n'
    root = make_task(
        tmp_path / "task", program, toml, {"score.py": score, "secret/key": "x", ".hidden": "y"}
    )
    seen: list[set[str]] = []

    def look(turn: Turn) -> Proposal:
        seen.append({p.relative_to(turn.worktree).as_posix() for p in turn.worktree.rglob("*")})
        assert turn.editable == ("prog.py",)
        assert turn.briefing == ""
        assert turn.history.incumbent().number == len(seen) - 1
        assert len(turn.history.finished()) == len(seen) - 1
        return change(VALUE=10.0 / (1 + len(seen)))(turn)

    found = run_session(root, ScriptedAgent(look, look))
    assert found.verdicts == [("keep", None)] * 2
    assert seen == [{"prog.py", "score.py", ".hidden", "autoresearch.toml"}] * 2


def test_an_agent_that_reads_gets_a_briefing_and_a_repository_of_one_commit(root: Path) -> None:
    class Reader(ScriptedAgent):
        wants_briefing = True

    def look(turn: Turn) -> Proposal:
        assert "lower the score" in turn.briefing
        assert "- Edit only: prog.py" in turn.briefing
        assert git(turn.worktree, "rev-list", "--all", "--count") == "1"
        assert git(turn.worktree, "status", "--porcelain") == ""
        assert git(turn.worktree, "rev-parse", "--show-toplevel") == str(turn.worktree)
        assert git(turn.worktree, "remote") == ""
        return change(VALUE=5.0)(turn)

    assert run_session(root, Reader(look)).verdicts == [("keep", None)]


# ---- several slots -----------------------------------------------------------------------------


def gated(tmp_path: Path, first: dict[str, object], second: dict[str, object]) -> Night:
    """Two changes of the same incumbent in flight: the first is kept while the second's first run
    is still going on."""
    root = make_task(tmp_path / "task")
    proposed, kept = tmp_path / "proposed", tmp_path / "kept"

    def propose_second(turn: Turn) -> Proposal:
        edit(turn.worktree, WAIT_B=str(kept), **second)
        proposed.touch()
        return Proposal("second")

    def hear(line: str) -> None:
        if line.startswith("   1 keep"):
            kept.touch()

    agent = ScriptedAgent(change("first", WAIT_A=str(proposed), **first), propose_second)
    return run_session(root, agent, say=hear, runner__slots=2)


def test_a_change_in_flight_begins_again_on_the_new_incumbent(tmp_path: Path) -> None:
    found = gated(tmp_path, {"VALUE": 8.0}, {"BONUS": 2.0})
    assert found.verdicts == [("keep", None)] * 2
    second = found.experiments[2]
    assert (second.base, second.attempt) == (1, 1)
    for role in ("candidate", "control"):
        assert all(run.attempt == 1 for run in found.runs_of(2, role)), "a run on the old incumbent"
    assert second.metric == pytest.approx(6.0, abs=0.1)
    for role in ("screen", "candidate", "control", "remeasure"):
        runs = [run for run in found.runs_of(2, role) if run.attempt == 1]
        assert runs, f"no {role} after the move"
        base = found.experiments[1].commit
        assert {run.commit for run in runs} == {base if role == "control" else second.commit}
    assert second.metric == fmean(
        run.metric or 0 for run in found.runs_of(2, "remeasure") if run.attempt == 1
    )
    assert git(found.root, "log", "--format=%s", "main..autoresearch/t") == "second\nfirst"
    agrees(found)


def test_nothing_is_kept_against_a_stale_incumbent(tmp_path: Path) -> None:
    """The second change beats the old incumbent clearly, and does nothing for the new one."""
    found = gated(tmp_path, {"VALUE": 1.0}, {"BONUS": 3.0})
    assert found.verdicts[0] == ("keep", None)
    assert found.verdicts[1][0] == "discard"
    assert found.verdicts[1][1] in ("worse", "not better", "not confirmed")
    assert found.experiments[2].attempt == 1
    assert found.experiments[2].metric == pytest.approx(1.0, abs=0.1)
    agrees(found)


def test_a_change_that_conflicts_with_the_new_incumbent(tmp_path: Path) -> None:
    found = gated(tmp_path, {"VALUE": 8.0}, {"VALUE": 3.0})
    assert found.verdicts == [("keep", None), ("discard", "conflict")]
    agrees(found)


def test_a_change_that_the_new_incumbent_contains(tmp_path: Path) -> None:
    root = make_task(tmp_path / "task")
    proposed, kept = tmp_path / "proposed", tmp_path / "kept"

    def both(turn: Turn) -> Proposal:
        edit(turn.worktree, VALUE=5.0)
        proposed.touch()
        return Proposal("half of the first")

    def hear(line: str) -> None:
        if line.startswith("   1 keep"):
            kept.touch()

    # The first waits until the second is proposed; the second never gets a run until it is moved.
    first = change("first", WAIT_A=str(proposed), VALUE=5.0)
    found = run_session(root, ScriptedAgent(first, both), say=hear, runner__slots=2)
    statuses = sorted(status for status, _ in found.verdicts)
    assert statuses == ["discard", "keep"]
    agrees(found)


def test_slots_work_at_the_same_time(root: Path, tmp_path: Path) -> None:
    """Two experiments that wait for each other."""
    a, b = tmp_path / "side" / "a", tmp_path / "side" / "b"
    meet = PROGRAM.replace("for gate in", "open(MINE, 'w').close()\nfor gate in")
    one = f"MINE = {str(a)!r}\n" + meet.replace('WAIT_A = ""', f"WAIT_A = {str(b)!r}")
    two = f"MINE = {str(b)!r}\n" + meet.replace('WAIT_A = ""', f"WAIT_A = {str(a)!r}")
    agent = ScriptedAgent(
        rewrite(one.replace("VALUE = 10", "VALUE = 30")),
        rewrite(two.replace("VALUE = 10", "VALUE = 31")),
    )
    found = run_session(root, agent, runner__slots=2)
    assert found.verdicts == [("discard", "worse")] * 2
    slots = {run.slot for run in found.runs}
    assert slots == {0, 1}


def test_many_slots_agree_with_the_ledger(root: Path, counted: Counted) -> None:
    """Top-ups included: each run is made once, whoever asks for it."""
    steps = [change(VALUE=10.0 + (i + 1) / 7) for i in range(24)]
    steps[4] = change(VALUE=5.0)
    found = run_session(root, ScriptedAgent(*steps), runner__slots=2)
    assert len(counted()) == len(set(counted())) == len(found.runs)
    assert sorted(run.index for run in found.runs if run.role == "topup") == [10, 20]
    assert sorted(e.order or 0 for e in found.experiments) == list(range(25))
    agrees(found)


# ---- limits ------------------------------------------------------------------------------------


def test_experiments_count_over_all_resumes(root: Path, counted: Counted) -> None:
    steps = [change(VALUE=20.0 + i) for i in range(9)]
    assert len(run_session(root, ScriptedAgent(*steps[:2])).experiments) == 1 + 2
    found = run_session(root, ScriptedAgent(*steps[2:]), limits__experiments=4)
    assert found.reason == "4 experiments done"
    assert len(found.experiments) == 1 + 4
    before = len(counted())
    again = run_session(root, ScriptedAgent(*steps[4:]), limits__experiments=4)
    assert (again.reason, len(counted())) == ("4 experiments done", before)
    assert len(counted()) == len(set(counted())) == len(again.runs)
    agrees(again)


def test_patience(root: Path) -> None:
    steps = [change(VALUE=5.0), *(change(VALUE=20.0 + i) for i in range(9))]
    found = run_session(root, ScriptedAgent(*steps), limits__patience=3)
    assert found.reason == "3 experiments without a keep"
    assert len(found.experiments) == 1 + 4


def test_target(root: Path) -> None:
    steps = [change(VALUE=8.0), change(VALUE=4.0), change(VALUE=2.0)]
    found = run_session(root, ScriptedAgent(*steps), limits__target=5.0)
    assert found.reason == "target reached: score 5"
    assert found.verdicts == [("keep", None)] * 2


def test_hours(root: Path) -> None:
    steps = [change(VALUE=20.0 + i) for i in range(500)]
    found = run_session(root, ScriptedAgent(*steps), limits__hours=2 / 3600)
    assert found.reason == "0.000555556 hours worked"
    assert 1.5 < found.record.elapsed_s < 8
    more = run_session(root, ScriptedAgent(*steps), limits__hours=2 / 3600)
    assert len(more.experiments) == len(found.experiments)


def test_until(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of day, reckoned once, on the clock that nobody can set back."""
    from autoresearch.commands import start as module

    class Evening(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Evening:
            return cls(2026, 11, 23, 6, 59, 58)

    monkeypatch.setattr(module, "datetime", Evening)
    steps = [change(VALUE=20.0 + i) for i in range(500)]
    began = time.monotonic()
    found = run_session(root, ScriptedAgent(*steps), limits__until="07:00")
    assert found.reason == "it is 07:00"
    assert time.monotonic() - began < 10


def test_a_clock_that_is_set_back(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Order and durations come from counters and the monotonic clock."""
    now = [2_000_000_000.0]

    def backwards() -> float:
        now[0] -= 3600
        return now[0]

    monkeypatch.setattr(time, "time", backwards)
    steps = [change(VALUE=20.0), change(VALUE=5.0), change(VALUE=21.0)]
    found = run_session(root, ScriptedAgent(*steps), limits__hours=1.0)
    assert found.verdicts == [("discard", "worse"), ("keep", None), ("discard", "worse")]
    assert [e.order for e in found.experiments] == [0, 1, 2, 3]
    assert 0 < found.record.elapsed_s < 60
    assert all((run.wall_s or 0) > 0 for run in found.runs)
    agrees(found)


# ---- stopping and going on ---------------------------------------------------------------------


class Stopper:
    """Stops the session from within, at a moment that is known exactly: while the first
    experiment's first run waits for the second proposal."""

    def __init__(self, tmp_path: Path, counted: Counted, at_once: bool) -> None:
        self.counted = counted
        self.gate = tmp_path / "gate"
        self.at_once = at_once
        self.session: Session | None = None

    def see(self, session: Session) -> None:
        self.session = session

    def second(self, turn: Turn) -> Proposal:
        assert self.session is not None
        edit(turn.worktree, VALUE=21.0)
        wait_until(lambda: len(self.counted()) == 4)  # the first run is under way
        self.session.stop("interrupted")
        if self.at_once:
            self.session.runner.interrupt()
        else:
            self.gate.touch()
        return Proposal("second")


@pytest.mark.parametrize("at_once", [False, True])
def test_stop_and_resume(root: Path, tmp_path: Path, counted: Counted, at_once: bool) -> None:
    stopper = Stopper(tmp_path, counted, at_once)
    agent = ScriptedAgent(change(VALUE=5.0, WAIT_A=str(stopper.gate)), stopper.second)
    found = run_session(root, agent, before=stopper.see, runner__slots=2)
    assert found.reason == found.record.stopped == "interrupted"
    assert [one.status for one in found.experiments] == ["keep", None, None]
    finished = [run for run in found.runs if run.finished]
    assert len(finished) == (3 if at_once else 4)
    stopper.gate.touch()

    resumed = run_session(root, ScriptedAgent(change(VALUE=22.0)))
    assert resumed.verdicts[0] == ("keep", None)
    assert len(resumed.experiments) == 1 + 3
    assert all(one.status for one in resumed.experiments)
    assert [run for run in resumed.runs if run.id in {r.id for r in finished}] == finished
    seeds = counted()
    assert len(seeds) == len(set(seeds)) == len(resumed.runs) + (1 if at_once else 0)  # cut off
    agrees(resumed)


def test_stopped_before_the_baseline_was_done(root: Path, counted: Counted) -> None:
    def stop_after_one(line: str) -> None:
        if line.startswith("baseline 1"):
            sessions[0].stop("interrupted")

    sessions: list[Session] = []
    found = run_session(root, ScriptedAgent(), say=stop_after_one, before=sessions.append)
    assert (found.reason, len(found.runs)) == ("interrupted", 1)
    resumed = run_session(root, ScriptedAgent(change(VALUE=5.0)))
    assert resumed.verdicts == [("keep", None)]
    assert len(counted()) == len(set(counted())) == len(resumed.runs)


def test_a_baseline_that_was_stopped_and_then_changed_is_the_new_one(root: Path) -> None:
    """No number of the old code may say how good the new code is."""

    def stop_after_one(line: str) -> None:
        if line.startswith("baseline 1"):
            sessions[0].stop("interrupted")

    sessions: list[Session] = []
    run_session(root, ScriptedAgent(), say=stop_after_one, before=sessions.append)
    edit(root, VALUE=3.0)
    commit_all(root)
    found = run_session(root, ScriptedAgent(change(VALUE=1.0)))
    head = git(root, "rev-parse", "HEAD")
    assert found.record.base_commit == found.experiments[0].commit == head
    assert found.experiments[0].metric == pytest.approx(3.0, abs=0.1)
    assert found.verdicts == [("keep", None)]
    agrees(found)


def test_a_failed_baseline_is_made_anew(tmp_path: Path) -> None:
    """Mended outside the repository: only the runs of the new attempt count."""
    toml = TASK.replace("[metric]", 'budget = "1s"\n[metric]').replace('"90s"', '"1s"')
    slow = PROGRAM.replace(
        "seed = int", "while os.path.exists('/dev/shm/x') and 0: pass\nseed = int"
    )
    program = slow.replace("noise =", "if os.environ.get('COUNTED'): time.sleep(9)\nnoise =")
    root = make_task(tmp_path / "task", program, toml)
    os.environ["COUNTED"] = str(tmp_path / "side" / "counted")
    try:
        with pytest.raises(BaselineError, match="timeout"):
            run_session(root, ScriptedAgent())
    finally:
        del os.environ["COUNTED"]
    found = run_session(root, ScriptedAgent(change(VALUE=5.0)))
    assert found.verdicts == [("keep", None)]
    assert found.experiments[0].attempt == 1
    assert [run.reason for run in found.runs_of(0)] == ["timeout", None, None, None]
    assert found.record.allowance_s == pytest.approx(1.0, abs=0.2)  # nothing of the timeout's


def test_a_guard_or_a_run_that_is_lost_is_made_again(tmp_path: Path) -> None:
    """It kills its own warden, once (which it could not if it were confined): nobody has judged
    it."""
    side = str(tmp_path / "side")
    kill = (
        "import os\n"
        f"if not os.path.exists({side!r} + NAME):\n"
        f"    open({side!r} + NAME, 'w').close()\n    os.kill(os.getppid(), 9)\n"
    )
    toml = TASK + '[guards.commands]\nsane = "python -S -E guard.py"\n'
    guard = "NAME = '/guard' + str('VALUE = 5.0' in open('prog.py').read())\n" + kill
    root = make_task(tmp_path / "task", toml=toml, files={"guard.py": guard})
    lost = "NAME = '/run'\n" + kill + PROGRAM.replace("10.0", "5.0")
    found = run_session(root, ScriptedAgent(rewrite(lost)), runner__confine=False)
    assert found.verdicts == [("keep", None)]
    assert sum("made again" in line for line in found.lines) == 3


def test_a_run_that_never_comes_back_is_a_crash(root: Path) -> None:
    killer = "import os\nos.kill(os.getppid(), 9)\n"
    agent = ScriptedAgent(rewrite(killer), change(VALUE=5.0))
    found = run_session(root, agent, runner__confine=False)
    assert found.verdicts == [("crash", "lost 5 times running"), ("keep", None)]


def test_the_setup_command_runs_once(tmp_path: Path) -> None:
    file = tmp_path / "side" / "setups"
    toml = TASK.replace("[metric]", f'setup = "echo x >> {file}"\n[metric]')
    root = make_task(tmp_path / "task", toml=toml)
    run_session(root, ScriptedAgent(change(VALUE=20.0)))
    run_session(root, ScriptedAgent(change(VALUE=21.0)))
    assert file.read_text() == "x\n"


# ---- the user's own things ---------------------------------------------------------------------


def test_the_checkout_is_left_as_it_is(root: Path) -> None:
    (root / "notes.txt").write_text("mine, not committed")
    (root / "autoresearch.toml").write_text(TASK + "\n# changed, not committed\n")

    def state() -> dict[str, tuple[int, int, bytes]]:
        return {
            path.name: (path.stat().st_mtime_ns, path.stat().st_mode, path.read_bytes())
            for path in root.iterdir()
            if path.is_file() and path.name != "results.tsv"
        }

    before = state(), git(root, "status", "--porcelain"), git(root, "rev-parse", "HEAD")
    index = (root / ".git" / "index").read_bytes()
    found = run_session(root, ScriptedAgent(change(VALUE=5.0), change(VALUE=20.0)))
    assert found.verdicts[0] == ("keep", None)
    assert (root / ".git" / "index").read_bytes() == index
    after = state(), git(root, "status", "--porcelain"), git(root, "rev-parse", "HEAD")
    assert before == after
    assert git(root, "symbolic-ref", "HEAD") == "refs/heads/main"
    assert git(root, "stash", "list") == git(root, "remote") == ""
    git(root, "fsck", "--strict")


def test_the_users_git_configuration_plays_no_part(root: Path, tmp_path: Path) -> None:
    hooks = root / ".git" / "hooks"
    for name in ("pre-commit", "commit-msg", "post-commit", "reference-transaction"):
        (hooks / name).write_text(f"#!/bin/sh\ntouch {tmp_path / 'hooked'}\nexit 1\n")
        (hooks / name).chmod(0o755)
    git(root, "config", "commit.gpgsign", "true")
    git(root, "config", "core.autocrlf", "true")
    git(root, "config", "filter.bad.clean", "false")
    (root / ".git" / "info" / "attributes").write_text("* filter=bad text\n")
    found = run_session(root, ScriptedAgent(change(VALUE=5.0)))
    assert found.verdicts == [("keep", None)]
    assert not (tmp_path / "hooked").exists()
    assert (
        b"\r"
        not in subprocess.run(
            ["git", "cat-file", "blob", "autoresearch/t:prog.py"], cwd=root, capture_output=True
        ).stdout
    )


def test_a_branch_somebody_stands_on_is_left_alone(root: Path) -> None:
    first = run_session(root, ScriptedAgent(change(VALUE=5.0)))
    git(root, "checkout", "-q", "autoresearch/t")
    found = run_session(root, ScriptedAgent(change(VALUE=1.0)))
    assert found.verdicts == [("keep", None)] * 2
    assert found.branch() == first.experiments[1].commit
    best = git(root, "rev-parse", "refs/autoresearch/t/best")
    assert best == found.experiments[2].commit
    assert any("is checked out, so it was not moved" in w for w in found.record.warnings)
    assert git(root, "status", "--porcelain") == ""
    git(root, "checkout", "-q", "main")
    agrees(run_session(root, ScriptedAgent()))


def test_a_branch_moved_by_the_user_is_left_alone(root: Path) -> None:
    run_session(root, ScriptedAgent(change(VALUE=5.0)))
    git(root, "checkout", "-q", "autoresearch/t")
    (root / "notes").write_text("mine")
    commit_all(root)
    mine = git(root, "rev-parse", "HEAD")
    git(root, "checkout", "-q", "main")
    found = run_session(root, ScriptedAgent(change(VALUE=1.0)))
    assert found.verdicts == [("keep", None)] * 2
    assert found.branch() == mine
    assert any("was moved by somebody else" in warning for warning in found.record.warnings)
    assert git(root, "rev-parse", "refs/autoresearch/t/best") == found.experiments[2].commit


def test_refs_and_results_are_made_again_from_the_ledger(root: Path) -> None:
    found = run_session(root, ScriptedAgent(change(VALUE=5.0), change(VALUE=20.0)))
    for ref in git(root, "for-each-ref", "--format=%(refname)", "refs/autoresearch").split():
        git(root, "update-ref", "-d", ref)
    git(root, "update-ref", "-d", "refs/heads/autoresearch/t")
    lines = (root / "results.tsv").read_text()
    (root / "results.tsv").unlink()
    again = run_session(root, ScriptedAgent())
    assert (root / "results.tsv").read_text() == lines
    assert again.experiments == found.experiments
    agrees(again)


def test_two_sessions_of_a_task(root: Path) -> None:
    run_session(root, ScriptedAgent(change(VALUE=5.0)), tag="one")
    found = run_session(root, ScriptedAgent(change(VALUE=6.0)), tag="two")
    assert found.verdicts == [("keep", None)]
    agrees(found)
    assert git(root, "show", "autoresearch/one:prog.py") != git(
        root, "show", "autoresearch/two:prog.py"
    )


def test_a_task_below_the_top_of_its_repository(tmp_path: Path) -> None:
    top = tmp_path / "repo"
    root = top / "deep" / "task"
    root.mkdir(parents=True)
    (root / "prog.py").write_text(
        PROGRAM + "import sys; sys.path.insert(0, '../..'); import shared\n"
    )
    (root / "autoresearch.toml").write_text(TASK)
    (top / "shared.py").write_text("")
    git(top, "init", "-q", "--initial-branch=main")
    commit_all(top)

    def deep(turn: Turn) -> Proposal:
        assert turn.editable == ("deep/task/prog.py",)
        edit(turn.worktree / "deep" / "task", VALUE=5.0)
        return Proposal("deep")

    found = run_session(root, ScriptedAgent(deep))
    assert found.verdicts == [("keep", None)]
    assert git(top, "diff", "--name-only", "main", "autoresearch/t") == "deep/task/prog.py"
    assert git(top, "status", "--porcelain") == ""


def test_a_session_in_a_linked_worktree(root: Path, tmp_path: Path) -> None:
    git(root, "worktree", "add", "-q", str(tmp_path / "linked"), "-b", "side")
    found = run_session(tmp_path / "linked", ScriptedAgent(change(VALUE=5.0)))
    assert found.verdicts == [("keep", None)]
    assert git(tmp_path / "linked", "status", "--porcelain") == ""


def test_desk_is_closed_when_the_agent_has_nothing_more(root: Path) -> None:
    agent = ScriptedAgent()
    run_session(root, agent, runner__slots=2)
    assert len(agent.turns) == 1
    assert TurnTaker.__doc__
    assert SessionPaths(root, "t").ledger.exists()


# ---- simpler programs --------------------------------------------------------------------------

SIMPLE = """\
import os

VALUE = 10.0

PENALTY = 0.0

TRICK_A = 0.06

TRICK_B = 0.06

# a comment
seed = int(os.environ["AUTORESEARCH_SEED"])
noise = (seed * 2654435761 % 2**32 / 2**32 - 0.5) * 0.02
score = VALUE + noise + PENALTY
score -= TRICK_A
score -= TRICK_B
print("---")
print("score:", score)
"""


def without(*starts: str, description: str = "shorter") -> Step:
    """A turn that removes lines."""

    def step(turn: Turn) -> Proposal:
        file = turn.worktree / "prog.py"
        lines = file.read_text().splitlines(keepends=True)
        file.write_text("".join(line for line in lines if not line.startswith(starts)))
        return Proposal(description)

    return step


def test_a_simpler_program_may_be_a_little_worse_once(tmp_path: Path) -> None:
    """The margin is the session's: what the first simplification gave away is not there for the
    second."""
    root = make_task(tmp_path / "task", program=SIMPLE)
    agent = ScriptedAgent(without("score -= TRICK_A"), without("score -= TRICK_B"))
    # By six runs: an unlucky estimate of the noise by three hides a gain of 7 sd.
    found = run_session(root, agent, judge__simplify=0.1, judge__baseline_runs=6)
    assert found.verdicts == [("keep", None), ("discard", "worse")]
    assert "simpler and not 0.1 worse" in found.experiments[1].detail


def test_without_the_margin_it_is_discarded(tmp_path: Path) -> None:
    root = make_task(tmp_path / "task", program=SIMPLE)
    found = run_session(root, ScriptedAgent(without("score -= TRICK_A")))
    assert found.verdicts == [("discard", "worse")]


def test_only_removing_code_counts_as_simpler(tmp_path: Path) -> None:
    """A change of the same size, and one that removes comments and blank lines, get no margin."""
    root = make_task(tmp_path / "task", program=SIMPLE)
    agent = ScriptedAgent(change(PENALTY=0.05), lambda turn: worse_without_comments(turn))
    found = run_session(root, agent, judge__simplify=0.1)
    assert [status for status, _ in found.verdicts] == ["discard", "discard"]


def worse_without_comments(turn: Turn) -> Proposal:
    without("#", "\n")(turn)
    file = turn.worktree / "prog.py"
    file.write_text(file.read_text().replace("PENALTY = 0.0", "PENALTY = 0.051"))
    return Proposal("fewer lines, none of them code")


def test_a_simpler_deterministic_program_may_cost_the_margin(tmp_path: Path) -> None:
    program = SIMPLE.replace("* 0.02", "* 0")
    root = make_task(tmp_path / "task", program=program)
    agent = ScriptedAgent(without("score -= TRICK_A"), without("score -= TRICK_B"))
    found = run_session(root, agent, judge__simplify=0.1, judge__deterministic=True)
    assert found.verdicts == [("keep", None), ("discard", "worse")]


def test_a_keep_gains_the_least(tmp_path: Path) -> None:
    """A gain of 1 is real, and the user has said that less than 2 is not worth a commit."""
    root = make_task(tmp_path / "task")
    agent = ScriptedAgent(change(VALUE=9.0), change(VALUE=7.0))
    found = run_session(root, agent, judge__least=2.0)
    assert found.verdicts == [("discard", "not better"), ("keep", None)]


def test_on_a_deterministic_task_a_tie_and_a_gain_of_rounding_are_no_progress(
    tmp_path: Path,
) -> None:
    root = make_task(tmp_path / "task", program=PROGRAM.replace("SPREAD = 0.1", "SPREAD = 0.0"))
    agent = ScriptedAgent(change(VALUE=10), change(VALUE=9.999999999), change(VALUE=9.9999999))
    found = run_session(root, agent, judge__deterministic=True)
    assert found.verdicts == [("discard", "not better"), ("discard", "not better"), ("keep", None)]
    assert found.experiments[2].detail == "a gain of 1e-09, below 1e-08"


# ---- a session that goes on ---------------------------------------------------------------------


def test_a_session_says_in_what_head_differs(root: Path) -> None:
    """The default tag is the date, so a second `run` on one day goes on with the first's commit."""
    run_session(root, ScriptedAgent(change(VALUE=1.0)))
    again = run_session(root, ScriptedAgent())
    assert not [line for line in again.lines if "HEAD" in line]
    edit(root, VALUE=5.0)
    dirty = run_session(root, ScriptedAgent())
    assert any("prog.py has uncommitted changes, which session" in line for line in dirty.lines)
    commit_all(root)
    best = dirty.branch()[:7]
    other = run_session(root, ScriptedAgent())
    assert any(f"goes on from {best}; HEAD" in line for line in other.lines)
    assert any("differs in prog.py. --tag NAME begins a new" in line for line in other.lines)
    git(root, "checkout", "-q", "--detach", best)  # the incumbent itself
    assert not [line for line in run_session(root, ScriptedAgent()).lines if "HEAD" in line]
    (root / "notes.md").write_text("no run depends on it")
    commit_all(root)
    run_session(root, ScriptedAgent())
    (root / "score.py").write_text("another evaluator")
    commit_all(root)
    with pytest.raises(TaskError, match=r"other frozen files: score\.py.*--tag NAME begins a new"):
        run_session(root, ScriptedAgent())
