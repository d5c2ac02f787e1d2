"""Proposals ahead of runs: made while every slot is busy, with one slot and real runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from support.sessions import (
    PROGRAM,
    Night,
    ScriptedAgent,
    Step,
    change,
    edit,
    make_task,
    run_session,
    wait_until,
)

from autoresearch.core.session import Session
from autoresearch.protocols import Proposal, Turn

# Constants on lines beside each other, as people write them.
CLOSE = PROGRAM.replace("0\n\nBONUS", "0\nBONUS")


def run_ahead(
    tmp_path: Path,
    first: dict[str, float],
    second: dict[str, float],
    wants_briefing: bool = False,
    **settings: object,
) -> tuple[Night, ScriptedAgent]:
    """A session of two changes in one slot. The first one's runs wait until the second is proposed,
    which without proposals ahead would never be."""
    root, proposed = make_task(tmp_path / "task", CLOSE), tmp_path / "proposed"

    def propose_second(turn: Turn) -> Proposal:
        edit(turn.worktree, **second)
        proposed.touch()
        return Proposal("second")

    agent = ScriptedAgent(change("first", WAIT_A=str(proposed), **first), propose_second)
    agent.wants_briefing = wants_briefing
    return run_session(root, agent, **settings), agent


def test_the_next_change_is_proposed_while_the_slot_is_busy(tmp_path: Path) -> None:
    found, _ = run_ahead(tmp_path, {"VALUE": 20.0}, {"VALUE": 21.0}, agent__ahead=True)
    assert found.verdicts == [("discard", "worse")] * 2
    first, second = (found.runs_of(number)[0] for number in (1, 2))
    assert second.started_at >= first.started_at + (first.wall_s or 0.0)  # one run at a time


def test_a_change_is_merged_onto_what_was_kept_meanwhile(tmp_path: Path) -> None:
    """Though its line stands beside the other one. It has no run on the earlier incumbent."""
    found, _ = run_ahead(tmp_path, {"VALUE": 8.0}, {"BONUS": 2.0}, agent__ahead=True)
    assert found.verdicts == [("keep", None)] * 2
    first, second = found.experiments[1:]
    assert (second.base, second.attempt) == (1, 1)
    runs = found.runs_of(2, "screen", "candidate", "control", "remeasure")
    assert {run.attempt for run in runs} == {1}
    assert {run.commit for run in runs if run.role == "control"} == {first.commit}
    assert {run.commit for run in runs if run.role != "control"} == {second.commit}


def test_a_change_of_the_same_line_is_dropped_and_the_ledger_says_so(tmp_path: Path) -> None:
    found, _ = run_ahead(tmp_path, {"VALUE": 8.0}, {"VALUE": 3.0}, agent__ahead=True)
    assert found.verdicts == [("keep", None), ("discard", "conflict")]
    assert found.experiments[2].detail == "changes the same lines as experiment 1, kept since"
    assert not found.runs_of(2)
    # What was not measured answers nobody: made again on the new incumbent, it is measured.
    again = run_session(found.root, ScriptedAgent(change("as second was", VALUE=3.0, WAIT_A="")))
    assert again.verdicts[2][0] == "keep"


def test_an_agent_that_reads_is_told_what_is_measured(tmp_path: Path) -> None:
    """And proposes ahead without being asked to."""
    found, agent = run_ahead(
        tmp_path, {"VALUE": 20.0}, {"VALUE": 21.0}, wants_briefing=True, agent__ahead=None
    )
    assert found.verdicts == [("discard", "worse")] * 2
    section = agent.turns[1].briefing.partition("Being measured now")[2].partition("\n## ")[0]
    assert "- 1: first" in section


def test_other_agents_wait_for_the_last_result(tmp_path: Path) -> None:
    root = make_task(tmp_path / "task")
    open_experiments: list[int] = []

    def look(value: float) -> Step:
        def step(turn: Turn) -> Proposal:
            open_experiments.append(len(turn.history.in_flight()))
            edit(turn.worktree, VALUE=value)
            return Proposal("a value")

        return step

    steps = [look(20.0 + i) for i in range(3)]
    run_session(root, ScriptedAgent(*steps))
    assert open_experiments == [0, 0, 0]
    run_session(root, ScriptedAgent(*steps), tag="u", agent__ahead=True)
    assert open_experiments[3:] == [0, 1, 1]


def test_a_limit_leaves_the_change_to_the_next_start(tmp_path: Path) -> None:
    found, agent = run_ahead(
        tmp_path, {"VALUE": 8.0}, {"BONUS": 2.0}, agent__ahead=True, limits__target=9.0
    )
    assert found.reason == "target reached: score 9"
    assert [e.status for e in found.experiments[1:]] == ["keep", None]
    assert not found.runs_of(2)
    more = run_session(found.root, agent, agent__ahead=True)
    assert more.verdicts == [("keep", None)] * 2
    assert len(agent.turns) == 3  # the third has nothing more to propose


def test_limits_on_proposals_count_what_waits(tmp_path: Path) -> None:
    """The last change that the limit allows is proposed ahead, and measured."""
    found, agent = run_ahead(
        tmp_path, {"VALUE": 20.0}, {"VALUE": 21.0}, agent__ahead=True, limits__experiments=2
    )
    assert found.verdicts == [("discard", "worse")] * 2
    assert len(agent.turns) == 2


def test_a_paused_session_does_not_begin_what_waits(tmp_path: Path) -> None:
    root, proposed = make_task(tmp_path / "task", CLOSE), tmp_path / "proposed"
    sessions: list[Session] = []
    begun: list[bool] = []

    def pause_and_propose(turn: Turn) -> Proposal:
        sessions[0].requests.pause()
        edit(turn.worktree, VALUE=21.0)
        proposed.touch()
        return Proposal("second")

    def resume_later() -> None:
        session = sessions[0]
        wait_until(lambda: len(session.ledger.in_flight(session.record)) == 1)
        begun.append(bool(session.ledger.runs(session.record, 2)))
        session.requests.resume()

    hear = _call_once_in_a_thread("   1 discard", resume_later)
    agent = ScriptedAgent(change("first", WAIT_A=str(proposed), VALUE=20.0), pause_and_propose)
    found = run_session(root, agent, say=hear, before=sessions.append, agent__ahead=True)
    assert found.verdicts == [("discard", "worse")] * 2
    assert begun == [False]


def _call_once_in_a_thread(line: str, act: Callable[[], None]) -> Callable[[str], None]:
    from threading import Thread

    def hear(said: str) -> None:
        if said.startswith(line):
            Thread(target=act).start()

    return hear
