"""Several agents, or copies of one, that think at the same time. Real git, processes and SQLite."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
from support.sessions import Night, change, edit, make_task, night, task_of

from autoresearch import agents
from autoresearch.commands.start import open_session
from autoresearch.core.loop import Loop
from autoresearch.protocols import Failure, Proposal, Turn

PROGRAM = "VALUE = 1000.0\nprint('METRIC score=%r' % VALUE)\n"
TASK = """\
objective = "lower the score"
editable = ["prog.py"]
[run]
command = "python -S -E prog.py"
[metric]
name = "score"
goal = "minimize"
[judge]
deterministic = true
combine = false
"""
TIMEOUT_S = 20.0

Thought = Callable[[Turn], Proposal | Failure | None]


class Thinker:
    """Thinks as it is told. Its copies share the thought."""

    wants_briefing = True

    def __init__(self, name: str, thought: Thought) -> None:
        self.name = name
        self._thought = thought

    def propose(self, turn: Turn) -> Proposal | Failure | None:
        return self._thought(turn)


def spend(root: Path, thoughts: dict[str, Thought], **settings: object) -> Night:
    """A session of agents with these names and equal shares."""
    settings = {"agent__name": list(thoughts), "agent__probe": False, **settings}
    load_it = patch.object(agents, "load", lambda name, *_, **__: Thinker(name, thoughts[name]))
    with load_it, open_session(task_of(root, **settings), "t", lambda _: None) as session:
        reason = Loop(session).run()
    return night(root, "t", reason)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_task(tmp_path / "task", PROGRAM, TASK)


@pytest.fixture
def worse() -> Thought:
    """Each turn sets a worse value than the one before it."""
    values = iter(range(2000, 9000))
    return lambda turn: change(VALUE=float(next(values)))(turn)


def together(count: int, then: Thought, turns: list[Turn]) -> Thought:
    """Thinks until `count` turns are under way, the first time; a turn alone would fail."""
    meeting = threading.Barrier(count)

    def think(turn: Turn) -> Proposal | Failure | None:
        turns.append(turn)
        if len(turns) <= count:
            meeting.wait(TIMEOUT_S)
        return then(turn)

    return think


def test_two_agents_think_at_the_same_time(root: Path, worse: Thought) -> None:
    turns: list[Turn] = []
    thought = together(2, worse, turns)
    found = spend(
        root, {"claude": thought, "codex": thought}, runner__slots=2, limits__experiments=4
    )
    assert found.verdicts == [("discard", "worse")] * 4
    assert turns[0].worktree != turns[1].worktree
    assert sorted(one.agent for one in found.experiments[1:]) == [
        "claude",
        "claude",
        "codex",
        "codex",
    ]


def test_copies_of_one_agent_think_at_the_same_time(root: Path, worse: Thought) -> None:
    """And no more experiments begin than the limit allows, though three turns are under way."""
    turns: list[Turn] = []
    settings = {"agent__at_once": 3, "runner__slots": 2, "limits__experiments": 4}
    found = spend(root, {"claude": together(3, worse, turns)}, **settings)
    assert found.verdicts == [("discard", "worse")] * 4
    assert len(turns) == 4
    assert len({turn.worktree for turn in turns[:3]}) == 3


def test_they_think_ahead_of_one_slot(root: Path, worse: Thought) -> None:
    turns: list[Turn] = []
    settings = {"agent__at_once": 3, "limits__experiments": 5}
    found = spend(root, {"claude": together(3, worse, turns)}, **settings)
    assert found.verdicts == [("discard", "worse")] * 5


def test_what_is_kept_meanwhile_is_under_every_change(root: Path) -> None:
    """Two turns on the same incumbent: the later change is merged onto the earlier keep."""
    program = "VALUE = 1000.0\n\nBONUS = 0.0\nprint('METRIC score=%r' % (VALUE - BONUS))\n"
    root = make_task(root.parent / "two", program, TASK)
    edits: Iterator[dict[str, object]] = iter([{"VALUE": 900.0}, {"BONUS": 50.0}])
    turns: list[Turn] = []

    def think(turn: Turn) -> Proposal | None:
        constants = next(edits, None)
        if constants is None:
            return None
        edit(turn.worktree, **constants)
        return Proposal(str(constants))

    found = spend(root, {"claude": together(2, think, turns)}, agent__at_once=2, runner__slots=2)
    assert found.verdicts == [("keep", None)] * 2
    assert found.reason == "the agent has nothing more to propose"
    assert min(one.metric or 0.0 for one in found.experiments) == 850.0


def test_money_is_shared_by_the_turns_under_way(root: Path, worse: Thought) -> None:
    def costly(turn: Turn) -> Proposal | Failure | None:
        proposal = worse(turn)
        assert isinstance(proposal, Proposal)
        return Proposal(proposal.description, usd=0.2)

    turns: list[Turn] = []
    settings = {"agent__at_once": 2, "runner__slots": 2, "limits__usd": 1.0}
    found = spend(root, {"claude": together(2, costly, turns)}, **settings)
    assert [turn.usd_left for turn in turns[:2]] == [0.5, 0.5]
    assert len(turns) == 5  # and not six, though two are under way at a time
    assert found.reason.startswith("1 dollars spent")


def test_a_fast_agent_waits_for_its_share(root: Path, worse: Thought) -> None:
    """The slow one thinks while the fast one is at most one turn ahead."""
    fast_turns, gap = 0, []

    def fast(turn: Turn) -> Proposal | Failure | None:
        nonlocal fast_turns
        fast_turns += 1
        return worse(turn)

    def slow(turn: Turn) -> Proposal | Failure | None:
        before = fast_turns
        threading.Event().wait(0.3)
        gap.append(fast_turns - before)
        return worse(turn)

    both = {"claude": slow, "codex": fast}
    found = spend(root, both, runner__slots=2, limits__experiments=8)
    assert max(gap) <= 2
    assert sum(one.agent == "codex" for one in found.experiments) == 4
