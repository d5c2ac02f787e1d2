"""Several agents, or copies of one, that think at the same time. Real git, processes and SQLite."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
from support.sessions import (
    EXACT_PROGRAM,
    EXACT_TASK,
    Night,
    change,
    edit,
    make_task,
    night,
    task_of,
)

from autoresearch import agents
from autoresearch.commands.start import open_session
from autoresearch.core import turns as core_turns
from autoresearch.core.loop import Loop
from autoresearch.core.scheduler import AgentScheduler
from autoresearch.errors import AgentError, ServiceRefusal
from autoresearch.protocols import Failure, Proposal, Turn

TASK = EXACT_TASK + "combine = false\n"
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
    return make_task(tmp_path / "task", EXACT_PROGRAM, TASK)


@pytest.fixture
def worse() -> Thought:
    """Each turn sets a worse value than the one before it."""
    values = iter(range(2000, 9000))
    return lambda turn: change(VALUE=float(next(values)))(turn)


def together(count: int, then: Thought, turns: list[Turn], after: int = 0) -> Thought:
    """`count` turns, the first ones or those `after` the first, think until all of them are under
    way; a turn alone would fail."""
    meeting, lock = threading.Barrier(count), threading.Lock()

    def think(turn: Turn) -> Proposal | Failure | None:
        with lock:
            turns.append(turn)
            number = len(turns)
        if after < number <= after + count:
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
    found = spend(root, {"claude": together(2, costly, turns, after=1)}, **settings)
    # The first goes alone, as nobody knows what a turn costs.
    assert [turn.usd_left for turn in turns[:3]] == pytest.approx([0.5, 0.4, 0.4])
    assert len(turns) == 5  # and not six, though two are under way at a time
    assert found.reason.startswith("1 dollars spent")


def test_a_service_that_is_down_for_a_moment_is_asked_again(root: Path, worse: Thought) -> None:
    """Though it has refused two turns, which were under way at the same time."""
    turns: list[Turn] = []

    def refused_at_first(turn: Turn) -> Proposal | Failure | None:
        if turn in turns[:2]:
            raise ServiceRefusal("key refused: 401")
        return worse(turn)

    settings = {"agent__at_once": 2, "runner__slots": 2, "limits__experiments": 2}
    with patch.object(core_turns, "REFUSED_S", 0.5):
        found = spend(root, {"claude": together(2, refused_at_first, turns)}, **settings)
    assert found.verdicts == [("discard", "worse")] * 2


def test_who_leaves_while_its_copy_thinks_passes_no_limit(root: Path, worse: Thought) -> None:
    turns: list[Turn] = []
    has_left = threading.Event()

    def first_leaves(turn: Turn) -> Proposal | Failure | None:
        if turn is turns[0]:
            has_left.set()
            raise AgentError("no such model")
        has_left.wait(TIMEOUT_S)
        return worse(turn)

    both = {"claude": together(2, first_leaves, turns), "codex": worse}
    settings = {"agent__at_once": 2, "runner__slots": 2, "limits__experiments": 3}
    found = spend(root, both, **settings)
    assert len(found.experiments) == 1 + 3
    assert found.reason == "3 experiments done"


def test_copies_that_fail_together_wait_as_one() -> None:
    agents = AgentScheduler(
        [("a", Thinker("a", lambda _: None), 1.0)],
        copies={"a": [Thinker("a", lambda _: None) for _ in range(8)]},
    )
    [member] = agents.members
    first = agents.note_failure(member, Failure("rate limited", "", 3600.0), 0.0)
    others = [agents.note_failure(member, Failure("service down", ""), 1.0) for _ in range(8)]
    assert (first.seconds, first.grew) == (3600.0, True)
    assert {(pause.seconds, pause.grew) for pause in others} == {(3599.0, False)}
    assert member.ready_at == 3600.0 and agents.next(3599.0) is None
    assert agents.note_failure(member, Failure("service down", ""), 3600.0).seconds == 2.0


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
