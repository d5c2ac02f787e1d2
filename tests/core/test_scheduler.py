"""Whose turn it is: the roster alone, and sessions of several agents with real git, processes and
SQLite on a task that takes milliseconds."""

from __future__ import annotations

import itertools
import json
import os
import re
import shlex
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from unittest.mock import patch

import pytest
from support.commands import Done, call
from support.sessions import (
    EXACT_PROGRAM,
    EXACT_TASK,
    Night,
    Step,
    change,
    make_task,
    night,
    task_of,
)

from autoresearch import agents
from autoresearch.commands import probe
from autoresearch.commands.start import open_session
from autoresearch.core import scheduler
from autoresearch.core import turns as desk
from autoresearch.core.loop import Loop
from autoresearch.core.scheduler import AgentScheduler
from autoresearch.core.session import Session
from autoresearch.errors import AgentError, ServiceRefusal
from autoresearch.protocols import Failure, Proposal, Turn
from autoresearch.store.ledger import Ledger
from autoresearch.store.paths import ledger_path
from autoresearch.store.queries import list_failed_turns, list_shares
from autoresearch.store.rows import Share

TASK = EXACT_TASK + "baseline_runs = 2\n"


@pytest.fixture
def quick(tmp_path: Path) -> Path:
    return make_task(tmp_path / "task", EXACT_PROGRAM, TASK)


class Fake:
    """Answers as it is told to, and for ever with the last of its steps."""

    wants_briefing = False

    def __init__(self, name: str, *steps: Step, probes: bool = False) -> None:
        self.name = name
        self.steps = list(steps)
        self.probes = probes
        self.turns: list[Turn] = []
        self.closed = 0

    def propose(self, turn: Turn) -> Proposal | Failure | None:
        self.turns.append(turn)
        return self.steps[min(len(self.turns), len(self.steps)) - 1](turn)

    def close(self) -> None:
        self.closed += 1


VALUES = itertools.count(2000)


def worse(tokens: int | None = None, usd: float | None = None) -> Step:
    """A new value each time, never a keep."""

    def step(turn: Turn) -> Proposal:
        value = next(VALUES)
        change(VALUE=float(value))(turn)
        return Proposal(f"value {value}", tokens=tokens, usd=usd)

    return step


def fails(reason: str, message: str = "", retry_after_s: float | None = None) -> Step:
    return lambda turn: Failure(reason, message, retry_after_s)


def refused(turn: Turn) -> Proposal:
    raise AgentError("401: the key was refused")


def done(turn: Turn) -> None:
    return None


def edits_hello(turn: Turn) -> Proposal:
    """What a first small turn asks for; afterwards a value."""
    if turn.editable != ("hello.txt",):
        return worse(100, 0.01)(turn)  # type: ignore[return-value]
    assert "goodbye, world" in turn.briefing and "hello.txt" in turn.briefing
    file = turn.worktree / "hello.txt"
    file.write_text(file.read_text().replace("goodbye", "hello"))
    return Proposal("said hello", tokens=7, usd=0.5)


def spend(
    root: Path,
    given: Sequence[Fake],
    weights: dict[str, float] | None = None,
    before: Callable[[Session], None] | None = None,
    **settings: object,
) -> Night:
    """A session of these agents, started or resumed, to its end."""
    known = {one.name: one for one in given}
    fallback = str(settings.get("agent__fallback", ""))
    names = [name for name in known if name != fallback]
    settings.setdefault("agent__name", weights or names)
    lines: list[str] = []
    load = patch.object(agents, "load", lambda name, *_, **__: known[name])
    with (
        load,
        open_session(
            task_of(root, **settings), "t", lambda event: lines.append(str(event))
        ) as session,
    ):
        if before is not None:
            before(session)
        reason = Loop(session).run()
    return night(root, "t", reason, lines)


def by(found: Night) -> Counter[str]:
    return Counter(one.agent for one in found.experiments[1:])


def turns(root: Path) -> list[tuple[str, str, str, int | None, float | None]]:
    """(agent, reason, message, tokens, usd) of every turn that became no experiment."""
    with closing(Ledger(root / ".autoresearch" / "ledger.sqlite", readonly=True)) as ledger:
        rows = ledger.select("SELECT agent, reason, message, tokens, usd FROM turn ORDER BY id")
        return [(row[0], row[1], row[2], row[3], row[4]) for row in rows]


class Clock:
    """Time for the desk and the loop's waits: it passes when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept += seconds

    time = staticmethod(time.time)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(desk, "time", clock)
    monkeypatch.setattr(probe, "time", clock)
    monkeypatch.setattr(desk, "POLL_S", 5.0)
    return clock


# ---- the roster alone --------------------------------------------------------------------------


def at_work(weights: dict[str, float], begun: dict[str, int] | None = None) -> AgentScheduler:
    return AgentScheduler(
        [(name, Fake(name), weight) for name, weight in weights.items()], None, begun
    )


def take(one: AgentScheduler, count: int, now: float = 0.0) -> Counter[str]:
    taken: Counter[str] = Counter()
    for _ in range(count):
        member = one.next(now)
        assert member is not None
        one.note_experiment(member)
        taken[member.name] += 1
    return taken


def test_shares_by_weight_at_every_moment() -> None:
    weights = {"a": 3.0, "b": 1.0, "c": 0.5}
    one = at_work(weights)
    taken: Counter[str] = Counter()
    for number in range(1, 451):
        taken += take(one, 1)
        for name, weight in weights.items():
            assert abs(taken[name] - number * weight / 4.5) < 2
    assert taken == {"a": 300, "b": 100, "c": 50}


def test_what_was_begun_before_counts() -> None:
    assert take(at_work({"a": 1, "b": 1}, {"a": 10, "b": 4, "gone": 50}), 6) == {"b": 6}


def test_one_that_comes_to_nothing_lets_the_others_go_first() -> None:
    """Its edits are refused, always: every other turn is the other's, and none waits."""
    one = at_work({"a": 3, "b": 1})
    names = []
    for _ in range(8):
        member = one.next(0.0)
        assert member is not None
        names.append(member.name)
        if member.name == "a":
            assert one.note_failure(member, Failure("no change", "", 0.0), 0.0).seconds == 0
        else:
            one.note_experiment(member)
    assert "".join(names) == "abababab"


def test_when_all_come_to_nothing_all_go_on() -> None:
    one = at_work({"a": 1, "b": 1})
    names = []
    for _ in range(6):
        member = one.next(0.0)
        assert member is not None
        names.append(member.name)
        one.note_failure(member, Failure("no change", "", 0.0), 0.0)
    assert Counter(names) == {"a": 3, "b": 3}


def test_each_waits_for_itself() -> None:
    one = at_work({"a": 1, "b": 1})
    now, pauses = 0.0, []
    a = one.members[0]
    for _ in range(11):
        pause = one.note_failure(a, Failure("agent failed", ""), now)
        pauses.append(pause.seconds)
        assert one.next(now) is one.members[1]
        assert a.ready_at == now + pause.seconds
        now = a.ready_at
    assert pauses == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    assert one.reset_failures(a) == 11 and one.reset_failures(a) == 0
    longer = one.note_failure(a, Failure("rate limited", "", 3600.0), now)
    assert (longer.seconds, longer.grew) == (3600.0, True)
    shorter = one.note_failure(a, Failure("rate limited", "", 0.5), now)
    assert (shorter.seconds, shorter.grew) == (2.0, False)
    one.note_failure(one.members[1], Failure("timeout", ""), now)
    assert one.next(now) is None


def test_a_service_is_waited_for_whatever_it_says() -> None:
    """A retry-after of 0 would be a loop that never ends and never counts."""
    one = at_work({"a": 1})
    assert one.note_failure(one.members[0], Failure("service down", "", 0.0), 0.0).seconds == 1.0
    for _ in range(3000):  # no overflow
        pause = one.note_failure(one.members[0], Failure("service down", "", 0.0), 0.0)
    assert pause.seconds == 300.0


def test_the_fallback_comes_when_nobody_is_left() -> None:
    given = [("a", Fake("a"), 1.0), ("b", Fake("b"), 1.0)]
    one = AgentScheduler(given, ("f", Fake("f")), {"f": 3})
    a, b = one.members
    assert one.leave(a, AgentError("first")) is None
    taking_over = one.leave(b)  # in good order, but not everybody did
    assert taking_over is not None and (taking_over.name, taking_over.begun) == ("f", 3)
    assert one.next(0.0) is taking_over
    assert one.leave(taking_over) is None and not one.members


def test_the_fallback_stays_away_from_a_good_end() -> None:
    one = AgentScheduler([("a", Fake("a"), 1.0)], ("f", Fake("f")))
    assert one.leave(one.members[0]) is None
    assert not one.members


def test_the_last_refusal_is_raised() -> None:
    one = at_work({"a": 1, "b": 1})
    one.leave(one.members[0], AgentError("first"))
    with pytest.raises(AgentError, match="second"):
        one.leave(one.members[0], AgentError("second"))
    alone = AgentScheduler([("a", Fake("a"), 1.0)], ("f", Fake("f")))
    fallback = alone.leave(alone.members[0], AgentError("first"))
    assert fallback is not None
    with pytest.raises(AgentError, match="second"):
        alone.leave(fallback, AgentError("second"))


def test_a_close_that_breaks_leaves_nobody_open() -> None:
    class Broken(Fake):
        def close(self) -> None:
            raise OSError("gone")

    last, said = Fake("last"), []
    AgentScheduler([("a", Broken("a"), 1.0), ("b", last, 1.0)]).close(said.append)
    assert last.closed == 1
    assert list(map(str, said)) == ["agent a did not close: OSError: gone"]


# ---- shares ------------------------------------------------------------------------------------


def test_shares_over_several_sessions_and_a_resume(quick: Path) -> None:
    pair = [Fake("claude", worse()), Fake("tuner", worse())]
    weights = {"claude": 3.0, "tuner": 1.0}
    first = spend(quick, pair, weights, limits__experiments=10)
    assert by(first) in ({"claude": 8, "tuner": 2}, {"claude": 7, "tuner": 3})
    assert by(spend(quick, pair, weights, limits__experiments=20)) == {"claude": 15, "tuner": 5}
    assert all(one.closed == 3 for one in pair)  # the trial load before the session counts as one
    # Another weight from here on: the ledger says who is behind, and by how much.
    found = spend(quick, pair, {"claude": 1.0, "tuner": 1.0}, limits__experiments=28)
    assert by(found) == {"claude": 15, "tuner": 13}
    assert found.results[-1][9] == "tuner"


def test_shares_with_slots(quick: Path) -> None:
    pair = [Fake("a", worse()), Fake("b", worse())]
    found = spend(quick, pair, {"a": 1, "b": 2}, limits__experiments=12, runner__slots=2)
    assert by(found) == {"a": 4, "b": 8}


def test_one_that_always_fails_costs_the_others_nothing(quick: Path, clock: Clock) -> None:
    pair = [Fake("broken", fails("agent failed", "segfault")), Fake("fine", worse())]
    found = spend(quick, pair, {"broken": 9, "fine": 1}, limits__experiments=12)
    assert by(found) == {"fine": 12}
    assert clock.slept == 0.0  # the loop waits only when all do
    told = [line for line in found.lines if "broken came to nothing" in line]
    assert len(told) == len(pair[0].turns) == 1
    assert told[0].endswith("agent failed: segfault; it waits 1 s")


def test_the_loop_waits_only_when_all_wait(quick: Path, clock: Clock) -> None:
    pair = [
        Fake("a", fails("service down", "503", 60.0), worse()),
        Fake("b", fails("service down", "503", 40.0), fails("service down", "503"), worse()),
    ]
    found = spend(quick, pair, limits__experiments=6)
    assert by(found) == {"b": 6}  # nobody sleeps any more, so no time passes for a
    assert 42 <= clock.slept <= 50
    assert len(pair[0].turns) == 1
    assert "b works again, after 2 turns that failed" in found.lines


def test_one_that_has_nothing_more_leaves_in_good_order(quick: Path) -> None:
    pair = [Fake("a", worse(), worse(), done), Fake("b", worse(), worse(), worse(), worse(), done)]
    found = spend(quick, pair)
    assert by(found) == {"a": 2, "b": 4}
    assert found.reason == "the agent has nothing more to propose"
    assert "a has nothing more to propose; the others go on" in found.lines


def test_agents_of_one_name_go_by_how_they_were_asked_for(quick: Path) -> None:
    """Two programs: each is known by its own command, and a resume knows them again."""
    counts = quick.parent / "counts"
    counts.mkdir()
    edit = "import re, sys; s = open('prog.py').read()\n"
    for name, start in (("one", 3000), ("two", 4000)):
        lines = (
            f"import pathlib\nn = pathlib.Path({str(counts)!r}, {name!r} + '.n')\n"
            f"k = int(n.read_text()) + 1 if n.exists() else {start}\nn.write_text(str(k))\n"
            f"{edit}open('prog.py', 'w').write(re.sub('VALUE = .*', f'VALUE = {{k}}.0', s))\n"
            "print(f'value {k}')\n"
        )
        (quick.parent / f"{name}.py").write_text(lines)
    specs = [
        f"command:{sys.executable} -S -E {shlex.quote(str(quick.parent / name))}.py"
        for name in ("one", "two")
    ]
    for experiments in (2, 4):
        settings = {"agent__name": specs, "agent__write": [str(counts)]}
        settings["limits__experiments"] = experiments
        with open_session(task_of(quick, **settings), "t", lambda line: None) as session:
            Loop(session).run()
    assert by(night(quick)) == dict.fromkeys(specs, 2)


def test_two_models_of_one_agent_have_two_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda program: f"/bin/{program}")
    assert agents.load("codex").name == "codex"
    assert agents.load("codex", "gpt-5").name == "codex:gpt-5"
    assert agents.load("codex", None, {"model": "o4"}).name == "codex:o4"


# ---- leaving, and the fallback -----------------------------------------------------------------


def test_a_refused_key_without_a_fallback_ends_the_session(quick: Path) -> None:
    with pytest.raises(AgentError, match="401"):
        spend(quick, [Fake("a", worse(), refused)])
    left = night(quick)
    assert left.record.stopped == "401: the key was refused"
    assert by(left) == {"a": 1}
    resumed = spend(quick, [Fake("a", worse())], limits__experiments=3)
    assert by(resumed) == {"a": 3}


def test_a_refused_key_with_a_fallback(quick: Path) -> None:
    pair = [Fake("a", worse(), refused), Fake("f", worse())]
    found = spend(quick, pair, agent__fallback="f", limits__experiments=5)
    assert by(found) == {"a": 1, "f": 4}
    expected = "agent a has left: 401: the key was refused (the fallback f takes over)"
    assert expected in found.record.warnings
    assert f"warning: {expected}" in found.lines
    assert pair[1].closed == pair[0].closed


def test_the_others_go_on_before_the_fallback_does(quick: Path) -> None:
    trio = [Fake("a", refused), Fake("b", worse(), worse(), done), Fake("f", worse())]
    found = spend(quick, trio, agent__fallback="f", limits__experiments=5)
    assert by(found) == {"b": 2, "f": 3}
    assert (
        "agent a has left: 401: the key was refused (b goes on without it)" in found.record.warnings
    )
    assert "no other agent is left: the fallback f takes over" in found.record.warnings


def test_a_fallback_that_is_an_agent_already_is_none(quick: Path) -> None:
    with pytest.raises(AgentError, match="401"):
        spend(quick, [Fake("a", refused)], agent__name="a", agent__fallback="a")


def test_an_unknown_fallback_is_refused_before_there_is_a_session(quick: Path) -> None:
    task = task_of(quick, agent__fallback="tunr")
    with (
        pytest.raises(AgentError, match="Did you mean 'tuner'"),
        open_session(task, "t", lambda line: None),
    ):
        pass
    with closing(Ledger(quick / ".autoresearch" / "ledger.sqlite", readonly=True)) as ledger:
        assert ledger.sessions() == []


# ---- waiting -----------------------------------------------------------------------------------


def test_an_hour_without_a_service_uses_up_no_experiment(quick: Path, clock: Clock) -> None:
    down = [fails("rate limited", "429"), fails("service down", "503")] * 12
    agent = Fake("a", worse(), *down, worse())
    found = spend(quick, [agent], limits__experiments=3)
    assert by(found) == {"a": 3}
    assert clock.slept > 3600
    assert len(turns(quick)) == 24
    told = [line for line in found.lines if "came to nothing" in line]
    assert [line.rpartition("; ")[2] for line in told] == [
        f"it waits {pause} s" for pause in (1, 2, 4, 8, 16, 32, 64, 128, 256, 300)
    ]
    assert "a works again, after 24 turns that failed" in found.lines


def test_limits_in_time_hold_while_it_waits(quick: Path) -> None:
    begun = spend(quick, [Fake("b", worse())], limits__experiments=1).record
    began = time.monotonic()
    agent = Fake("a", fails("rate limited", "429", 3600.0))
    found = spend(quick, [agent], limits__hours=(begun.elapsed_s + 1.5) / 3600)
    assert found.reason.endswith("hours worked")
    assert time.monotonic() - began < 60
    assert len(agent.turns) == 1


def test_other_failures_still_count_as_fruitless(
    quick: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "BACKOFF_S", (0.1, 0.1))
    agent = Fake("a", *[fails("agent failed", "no")] * 10, worse())
    found = spend(quick, [agent], limits__experiments=2)
    assert by(found) == {"a": 1} and found.reason == "2 experiments done"


# ---- costs -------------------------------------------------------------------------------------


def unchanged(turn: Turn) -> Proposal:
    return Proposal("nothing at all", tokens=40, usd=0.25)


def test_the_costs_of_refused_turns_are_kept(quick: Path) -> None:
    def frozen(turn: Turn) -> Proposal:
        (turn.worktree / "autoresearch.toml").write_text("")
        return Proposal("meddled", tokens=2, usd=0.5)

    repeat = change(VALUE=7777.0)

    def duplicate(turn: Turn) -> Proposal:
        repeat(turn)
        return Proposal("again", tokens=1000, usd=1.0)

    agent = Fake("a", unchanged, frozen, repeat, duplicate, done)
    found = spend(quick, [agent])
    assert [(reason, tokens, usd) for _, reason, _, tokens, usd in turns(quick)] == [
        ("no change", 40, 0.25),
        ("frozen file", 2, 0.5),
        ("duplicate", 1000, 1.0),
    ]
    with closing(Ledger(found.paths.ledger, readonly=True)) as ledger:
        assert ledger.costs(found.record) == (1042, 1.75)
        assert ledger.largest_turn(found.record) == (1000, 1.0)
        assert list_shares(ledger, found.record) == [Share("a", 1, 0, 3, 1042, 1.75)]


def test_what_cannot_be_a_cost_is_none(quick: Path) -> None:
    """No answer of an agent may push a limit away."""
    odd = [(-5, -1.0), (2**80, float("nan")), (True, float("inf")), ("many", "a lot")]
    steps = [worse(tokens, usd) for tokens, usd in odd]  # type: ignore[arg-type]
    found = spend(quick, [Fake("a", *steps, done)], limits__usd=1.0, limits__tokens=10)
    assert len(found.experiments) == 1 + 4
    assert all((one.tokens, one.usd) == (None, None) for one in found.experiments)


def test_dollars_hold_with_the_turn_that_comes_next(quick: Path) -> None:
    agent = Fake("a", worse(usd=0.1), worse(usd=0.3), worse(usd=0.1))
    found = spend(quick, [agent], limits__usd=1.0)
    assert found.reason == (
        "0.8 of 1 dollars spent, and a turn took up to 0.3: the next one could pass the limit"
    )
    assert len(agent.turns) == 6  # 0.1, 0.3, 0.1, 0.1, 0.1, 0.1
    assert [turn.usd_left for turn in agent.turns] == pytest.approx([1, 0.9, 0.6, 0.5, 0.4, 0.3])


def test_dollars_and_tokens_may_be_used_to_the_last(quick: Path) -> None:
    found = spend(quick, [Fake("a", worse(usd=0.1))], limits__usd=0.3)
    assert (found.reason, len(found.experiments)) == ("0.3 dollars spent", 4)
    more = spend(quick, [Fake("a", worse(100))], limits__tokens=450)
    assert (
        more.reason == "400 of 450 tokens used, and a turn took up to 100: the next one could "
        "pass the limit"
    )


def test_a_turn_that_was_killed_counts_as_the_largest(quick: Path, clock: Clock) -> None:
    killed = fails("timeout", "did not end in time")
    agent = Fake("a", worse(100, 0.25), killed, fails("agent failed"), worse(100, 0.25))
    found = spend(quick, [agent], limits__usd=1.0, limits__tokens=10_000)
    assert len(found.experiments) == 4  # 0.25, the one that was killed, 0.25, 0.25
    costs = [(tokens, usd) for *_, tokens, usd in turns(quick)]
    assert costs == [(100, 0.25), (None, None)]
    unlimited = Fake("a", killed, done)
    spend(quick, [unlimited])
    assert turns(quick)[-1][3:] == (None, None)


def test_who_never_says_what_it_uses_is_told_of(quick: Path) -> None:
    silent, honest, tuner = Fake("a", worse()), Fake("b", worse(100)), Fake("c", worse())
    silent.wants_briefing = honest.wants_briefing = True
    given = {"limits__usd": 9.0, "limits__tokens": 90_000, "limits__experiments": 6}
    found = spend(quick, [silent, honest, tuner], **given)
    said = [one.partition(" does not say what it uses: ") for one in found.record.warnings]
    told = [(who, what.partition(" does not hold")[0]) for who, _, what in said if what]
    wanted = [("agent a", "tokens"), ("agent a", "usd"), ("agent b", "usd")]
    assert sorted(told) == [(who, f"[limits] {what}") for who, what in wanted]


def test_no_limit_no_budget(quick: Path) -> None:
    agent = Fake("a", worse(usd=2.0), done)
    spend(quick, [agent])
    assert agent.turns[0].usd_left is None


def test_claude_is_told_what_is_left(tmp_path: Path) -> None:
    from autoresearch.agents import claude
    from autoresearch.agents.support.headless import Ask

    def words(usd_left: float | None) -> str:
        ask = Ask(None, "", tmp_path / "stdin", tmp_path, ("train.py",), usd_left)
        return " ".join(claude.argv(ask))

    assert "--max-budget-usd 2.34 " in words(2.349) + " "
    assert "--max-budget-usd 0.01 " in words(0.0) + " "
    assert "--max-budget-usd" not in words(None)


# ---- a service that refuses --------------------------------------------------------------------


def no_key(turn: Turn) -> Proposal:
    raise ServiceRefusal("key refused: 401")


def test_who_is_refused_once_is_asked_again(quick: Path, clock: Clock) -> None:
    agent = Fake("a", no_key, worse(), no_key, worse())
    found = spend(quick, [agent], limits__experiments=2)
    assert by(found) == {"a": 2} and not any("has left" in one for one in found.record.warnings)
    assert [reason for _, reason, *_ in turns(quick)] == ["refused"] * 2
    assert clock.slept >= 120.0


def test_who_is_refused_twice_running_leaves(quick: Path, clock: Clock) -> None:
    pair = [Fake("a", no_key), Fake("b", worse())]
    found = spend(quick, pair, limits__experiments=100, limits__patience=8)
    assert len(pair[0].turns) == 1  # the minute has not passed
    alone = Fake("a", no_key)
    with pytest.raises(ServiceRefusal, match="key refused: 401"):
        spend(quick, [alone], limits__experiments=100)
    assert len(alone.turns) == 2 and len(found.experiments) == 9


def test_what_a_refused_turn_cost_is_counted(quick: Path, clock: Clock) -> None:
    """The first, the second running that ends the agent's part, and one of the first small turn."""

    def paid(turn: Turn) -> Proposal:
        raise ServiceRefusal("no credit: 402", tokens=100, usd=0.25)

    def odd(turn: Turn) -> Proposal:
        raise AgentError("no way", tokens=-3, usd=float("nan"))

    with pytest.raises(ServiceRefusal):
        spend(quick, [Fake("a", worse(7, 0.5), paid)], limits__usd=9.0)
    assert turns(quick) == [("a", "refused", "no credit: 402", 100, 0.25)] * 2
    with closing(Ledger(ledger_path(quick), readonly=True)) as ledger:
        assert ledger.costs(ledger.session("t")) == (207, 1.0)
    with pytest.raises(AgentError):
        spend(quick, [Fake("a", odd)], limits__usd=9.0)
    assert turns(quick)[-1] == ("a", "refused", "no way", None, None)


def test_what_a_first_small_turn_cost_that_was_refused(quick: Path) -> None:
    def paid(turn: Turn) -> Proposal:
        raise ServiceRefusal("key refused", tokens=100, usd=0.25)

    with pytest.raises(ServiceRefusal):
        spend(quick, [Fake("a", paid, probes=True)])
    assert turns(quick) == [("a", "probe", "cannot go on: key refused", 100, 0.25)]


# ---- the first small turn ----------------------------------------------------------------------


def test_a_first_small_turn_that_works(quick: Path) -> None:
    agent = Fake("a", edits_hello, probes=True)
    found = spend(quick, [agent], limits__experiments=2)
    small, *others = agent.turns
    assert small.editable == ("hello.txt",)
    assert small.timeout_s == 180.0 and others[0].timeout_s == 900.0
    assert not small.worktree.exists()
    assert turns(quick) == [("a", "probe", "done: said hello", 7, 0.5)]
    with closing(Ledger(found.paths.ledger, readonly=True)) as ledger:
        assert ledger.costs(found.record) == (7 + 200, pytest.approx(0.5 + 0.02))
        assert ledger.fruitless_turns(found.record) == 0
        assert list_failed_turns(ledger, found.record) == []
    spend(quick, [agent], limits__experiments=3)  # there is a baseline: no more of it
    assert [turn.editable for turn in agent.turns].count(("hello.txt",)) == 1


def test_its_deadline_is_the_agents_when_that_is_shorter(quick: Path) -> None:
    agent = Fake("a", edits_hello, probes=True)
    spend(quick, [agent], agent__timeout=20, limits__experiments=1)
    assert agent.turns[0].timeout_s == 20.0


def no_edit(turn: Turn) -> Proposal:
    return Proposal("I would rather not", tokens=3)


def bug(turn: Turn) -> Proposal:
    raise KeyError("a bug")


HOPELESS = {
    "401: the key was refused": refused,
    "agent failed: it said nothing": fails("agent failed", "it said nothing"),
    "unknown events: what?": fails("unknown events", "what?"),
    "timeout: did not end": fails("timeout", "did not end"),
    "no change: I would rather not": no_edit,
    "no change: it has nothing to propose": done,
    "agent broke: KeyError: 'a bug'": bug,
}


@pytest.mark.parametrize("said", HOPELESS)
def test_who_fails_at_first_ends_the_session_with_nothing_measured(quick: Path, said: str) -> None:
    with pytest.raises(AgentError) as caught:
        spend(quick, [Fake("a", HOPELESS[said], probes=True)])  # type: ignore[list-item]
    assert said in str(caught.value)
    left = night(quick)
    assert left.experiments == [] and left.runs == []
    assert not (quick / "results.tsv").exists()
    assert [reason for _, reason, *_ in turns(quick)] == ["probe"]
    resumed = spend(quick, [Fake("a", edits_hello, probes=True)], limits__experiments=2)
    assert by(resumed) == {"a": 2}


@pytest.mark.parametrize("said", HOPELESS)
def test_who_fails_at_first_is_left_out_where_others_remain(quick: Path, said: str) -> None:
    pair = [Fake("a", HOPELESS[said], probes=True), Fake("b", worse())]  # type: ignore[list-item]
    found = spend(quick, pair, limits__experiments=2)
    assert by(found) == {"b": 2} and len(pair[0].turns) == 1
    [warning] = [line for line in found.record.warnings if line.startswith("agent a has left")]
    assert said in warning and warning.endswith("(b goes on without it)")


def test_a_fallback_takes_over_at_first_and_is_tried_too(quick: Path) -> None:
    pair = [Fake("a", refused, probes=True), Fake("f", edits_hello, probes=True)]
    found = spend(quick, pair, agent__fallback="f", limits__experiments=1)
    assert by(found) == {"f": 1}
    assert [turn.editable for turn in pair[1].turns] == [("hello.txt",), ("prog.py",)]
    lazy = [Fake("a", edits_hello, probes=True), Fake("f", bug, probes=True)]
    spend(quick, lazy, agent__fallback="f", limits__experiments=2)
    assert lazy[1].turns == []


@pytest.mark.parametrize("reason", ["rate limited", "service down"])
def test_a_service_that_is_down_at_first_may_recover(
    quick: Path, clock: Clock, reason: str
) -> None:
    agent = Fake("a", fails(reason, "later", 30.0), worse(), probes=True)
    found = spend(quick, [agent], limits__experiments=2)
    assert by(found) == {"a": 2}
    assert clock.slept >= 30.0
    assert any(f"{reason}: later" in warning for warning in found.record.warnings)
    assert "a works again, after 1 turn that failed" in found.lines


def test_no_first_small_turn_where_it_is_switched_off_or_not_wanted(quick: Path) -> None:
    off = Fake("a", worse(), probes=True)
    spend(quick, [off], agent__probe=False, limits__experiments=1)
    unasked = Fake("b", worse())
    spend(quick, [unasked], limits__experiments=2)
    assert [turn.editable for turn in (*off.turns, *unasked.turns)] == [("prog.py",)] * 2
    assert agents.load("command", "true").probes is False  # type: ignore[attr-defined]


def test_it_has_a_repository_when_it_reads(quick: Path) -> None:
    def step(turn: Turn) -> Proposal:
        assert (turn.worktree / ".git" / "HEAD").exists()
        return edits_hello(turn)

    agent = Fake("a", step, probes=True)
    agent.wants_briefing = True
    assert by(spend(quick, [agent], limits__experiments=1)) == {"a": 1}


def test_an_interrupt_during_a_first_small_turn(quick: Path) -> None:
    sessions: list[Session] = []

    def interrupted(turn: Turn) -> Failure:
        sessions[0].stop("interrupted")
        return Failure("interrupted", "was stopped", 0.0)

    agent = Fake("a", interrupted, probes=True)
    found = spend(quick, [agent], before=sessions.append)
    assert (found.reason, found.runs, found.record.warnings) == ("interrupted", [], ())


# ---- from the command line, with a program for a coding agent ------------------------------------

CODEX = """\
#!/bin/sh
[ "$SAYS" ] && {{ echo '{{"type": "turn.failed", "error": {{"message": "'"$SAYS"'"}}}}'; exit 1; }}
if [ -e hello.txt ]; then echo hello, world >hello.txt
else echo "VALUE = $$.5" >prog.py; echo "print('METRIC score=%r' % VALUE)" >>prog.py; fi
echo '{{"type": "item.completed", "item": {{"type": "agent_message", "text": "did it"}}}}'
echo '{{"type": "turn.completed", "usage": {{"input_tokens": 1000, "output_tokens": 20}}}}'
"""


def command_line(root: Path, says: str, *words: str) -> Done:
    """`autoresearch run` with a program called codex that says what a refused one would."""
    programs = root.parent / "bin"
    programs.mkdir(exist_ok=True)
    script = CODEX.format().replace("/sh\n", f"/sh\nSAYS={shlex.quote(says)}\n", 1)
    (programs / "codex").write_text(script)
    (programs / "codex").chmod(0o755)
    with patch.dict(os.environ, {"PATH": f"{programs}:{os.environ['PATH']}"}):
        return call(root, "run", "--tag", "t", "--plain", *words)


def test_not_logged_in_ends_with_exit_code_5_and_nothing_measured(quick: Path) -> None:
    ended = command_line(quick, "401 Unauthorized: not logged in", "--agent", "codex:gpt-5")
    assert ended.returncode == 5, ended.stdout + ended.stderr
    assert "codex:gpt-5: key refused: 401 Unauthorized: not logged in. Log in with" in ended.stderr
    assert night(quick).experiments == []
    assert not (quick / "report.md").exists() and not (quick / "results.tsv").exists()
    again = command_line(quick, "", "--agent", "codex:gpt-5", "--experiments", "2")
    assert again.returncode == 0, again.stdout + again.stderr
    assert by(night(quick)) == {"codex:gpt-5": 2}
    assert [reason for _, reason, *_ in turns(quick)] == ["probe", "probe"]


def test_shares_a_fallback_and_costs_from_the_command_line(quick: Path) -> None:
    words = ("--agent", "codex:gpt-5:3,codex:o4", "--fallback", "tuner", "--experiments", "8")
    ended = command_line(quick, "", *words)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert by(night(quick)) == {"codex:gpt-5": 6, "codex:o4": 2}
    report = (quick / "report.md").read_text()
    assert "The agents took 10,200 tokens: 1,275 tokens an experiment" in report
    assert re.search(r"^\| codex:gpt-5 \| 6 \| \d \| [^|]* \|[^|]*\| 7,140 \|  \|", report, re.M)
    said = json.loads(call(quick, "status", "--json").stdout)
    told = [(one["name"], one["experiments"], one["tokens"], one["usd"]) for one in said["agents"]]
    assert told == [("codex:gpt-5", 6, 7140, None), ("codex:o4", 2, 3060, None)]
    assert said["tokens_per_experiment"] == 1275
    assert "agent      codex:o4: 2 experiments, " in call(quick, "status").stdout
    tokens = command_line(quick, "", *words[:4], "--tokens", "12500")
    assert "11220 of 12500 tokens used" not in tokens.stdout
    assert "12240 of 12500 tokens used, and a turn took up to 1020" in tokens.stdout


def test_a_key_refused_at_first_and_the_fallback(tmp_path: Path) -> None:
    program = EXACT_PROGRAM.replace("1000.0", "1.0  # in [0.5, 2]")
    root = make_task(tmp_path / "task", program, TASK)
    words = ("--agent", "codex", "--fallback", "tuner", "--experiments", "2")
    ended = command_line(root, "404: model_not_found", *words)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert by(night(root)) == {"tuner": 2}
    assert "the fallback tuner takes over" in (root / "report.md").read_text()
