"""Near misses tried together: which changes wait, how they are merged, what becomes of them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.sessions import TASK, ScriptedAgent, change, git, make_task, run_session, side

from autoresearch.agents.support.near_misses import COMBINED, PREFIX, Combiner, _is_near_miss
from autoresearch.merging import MAX_LINES, merge, merge_files
from autoresearch.protocols import Failure, Proposal, Turn
from autoresearch.records import Experiment, Status

LETTERS = "ABCDEF"
SUMS = """\
A = 0
B = 0
C = 0
D = 0
E = 0
F = 0

with open("COUNTER", "a") as file:
    file.write("x")
    count = file.tell()
gain = A + B + C + D + E + F
noise = 0 if gain else (count % 2 - 0.5) * 0.1
print("score:", 10 - gain * 0.065 + noise)
"""
"""The unchanged program prints 9.95 and 10.05 in turn: a change alone is 1.2 sd better."""


def make_sums(folder: Path, program: str = SUMS, toml: str = TASK) -> Path:
    root = folder / "task"
    return make_task(root, program.replace("COUNTER", str(side(root) / "counter")), toml)


def test_near_misses_are_tried_together_and_kept(tmp_path: Path) -> None:
    agent = ScriptedAgent(*(change(**{name: 1}) for name in LETTERS))
    root = make_sums(tmp_path)
    found = run_session(root, agent, judge__baseline_runs=6)
    alone = [one for one in found.experiments[1:] if one.status == "discard"]
    together = next(one for one in found.experiments if one.description.startswith(PREFIX))
    assert {one.reason for one in alone[:COMBINED]} == {"not better"}
    assert together.status == "keep"
    assert together.description == PREFIX + ", ".join(str(one.number) for one in alone[:COMBINED])
    assert all(one.description in together.hypothesis for one in alone[:COMBINED])
    program = git(root, "show", "autoresearch/t:prog.py")
    assert program.count(" = 1\n") == COMBINED
    assert together.number == alone[COMBINED - 1].number + 1


def test_a_resumed_session_does_not_try_them_again(tmp_path: Path) -> None:
    root = make_sums(tmp_path)
    four = (change(**{name: 1}) for name in LETTERS[:COMBINED])
    run_session(root, ScriptedAgent(*four), judge__baseline_runs=6)
    found = run_session(root, ScriptedAgent(change(E=1), change(F=1)), judge__baseline_runs=6)
    assert sum(one.description.startswith(PREFIX) for one in found.experiments) == 1


def test_they_wait_for_an_agent_that_works(tmp_path: Path) -> None:
    root = make_sums(tmp_path)
    four = (change(**{name: 1}) for name in LETTERS[:COMBINED])
    options = {"judge__baseline_runs": 6}
    run_session(root, ScriptedAgent(*four), limits__experiments=COMBINED, **options)

    def fail(_: Turn) -> Failure:
        return Failure("no answer", "the service is down", 0.0)

    def copy_the_words(turn: Turn) -> Proposal:
        change(E=1)(turn)
        return Proposal(f"{PREFIX}1, 2, 3, 4")

    found = run_session(root, ScriptedAgent(fail, copy_the_words), **options)
    own, together = found.experiments[COMBINED + 1 :]
    assert (own.description, own.hypothesis) == (f"{PREFIX}1, 2, 3, 4", "")
    assert together.description == own.description and together.status == "keep"


def test_a_copy_of_an_agent_that_fails_proposes_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """The harness would believe that the agent works again."""
    turn: Any = None
    own, together = Proposal("own"), Proposal(f"{PREFIX}1, 2, 3, 4")
    failure = Failure("no answer", "the service is down", 0.0)
    waiting: list[Proposal] = []
    combiner = Combiner()
    monkeypatch.setattr(combiner, "propose", lambda _: waiting[0] if waiting else None)
    other = combiner.join(ScriptedAgent(lambda _: own), "other")
    first = combiner.join(ScriptedAgent(lambda _: failure), "agent")
    second = combiner.join(ScriptedAgent(lambda _: own, lambda _: own), "agent")
    assert [one.propose(turn) for one in (other, second, first)] == [own, own, failure]
    waiting.append(together)
    assert [one.propose(turn) for one in (other, second, first)] == [together, own, together]


@pytest.mark.parametrize(
    ("reason", "detail", "is_near_miss"),
    [
        ("not better", "+0.8 sd in the screen", True),
        ("not better", "+0.7 sd in the screen", False),
        ("not confirmed", "+12.1 sd in the screen", True),
        ("worse", "-0.9 sd in the screen", False),
        ("guard failed: tests (exit code 1)", "", False),
        ("not better", "+inf sd in the screen", False),
    ],
)
def test_the_screen_says_what_a_near_miss_is(reason: str, detail: str, is_near_miss: bool) -> None:
    done = Experiment(1, 0, "c1", "a", "LR 1 -> 2", 0, Status.DISCARD, reason, 1.0, detail)
    assert _is_near_miss(done) == is_near_miss


@pytest.mark.parametrize("toml", ["combine = false", "deterministic = true"])
def test_no_near_misses(tmp_path: Path, toml: str) -> None:
    program = SUMS if "combine" in toml else SUMS.replace("* 0.1", "* 0").replace("0.065", "-1")
    root = make_sums(tmp_path, program, TASK + f"[judge]\n{toml}\n")
    agent = ScriptedAgent(*(change(**{name: 1}) for name in LETTERS))
    found = run_session(root, agent, judge__baseline_runs=6)
    assert len(found.experiments) == 1 + len(LETTERS)


def test_changes_of_the_same_line_do_not_fit_together(tmp_path: Path) -> None:
    root = make_sums(tmp_path, SUMS.replace("gain * 0.065", "(gain > 0) * 0.065"))
    agent = ScriptedAgent(*(change(A=value) for value in range(1, 7)))
    found = run_session(root, agent, judge__baseline_runs=6)
    assert {one.status for one in found.experiments[1:]} == {"discard"}
    assert not [one for one in found.experiments if one.description.startswith(PREFIX)]


# ---- merging -------------------------------------------------------------------------------------

BASE = b"a\nb\nc\nd\n"


@pytest.mark.parametrize(
    ("ours", "theirs", "merged"),
    [
        (b"A\nb\nc\nd\n", b"a\nB\nc\nd\n", b"A\nB\nc\nd\n"),  # neighbours
        (b"A\nb\nc\nd\n", b"A\nb\nc\nd\n", b"A\nb\nc\nd\n"),  # the same
        (b"A\nb\nc\nd\n", b"X\nb\nc\nd\n", None),  # the same line
        (b"a\nb\nd\n", b"a\nb\nc\nd\ne\n", b"a\nb\nd\ne\n"),  # removed, appended
        (b"a\nx\nb\nc\nd\n", b"a\ny\nb\nc\nd\n", None),  # both insert at one place
        (b"a\nd\n", b"a\nb\nC\nd\n", None),  # changed what was removed
        (b"a\nb\nc\nd", b"A\nb\nc\nd\n", b"A\nb\nc\nd"),  # the newline at the end
        (b"", b"A\nb\nc\nd\n", None),
        (b"a\nb\nc\nd", b"a\nb\nc\nd\ne\n", None),  # the newline is gone, and a line follows
        (b"A\nb\nc\nd\n", b"a\nb\nc\nd\0\n", None),  # no text
    ],
)
def test_merge(ours: bytes, theirs: bytes, merged: bytes | None) -> None:
    assert merge(BASE, ours, theirs) == merged
    assert merge(BASE, theirs, ours) == merged


def test_long_files_are_not_merged() -> None:
    long = b"a\n" * (MAX_LINES + 1)
    assert merge(long, b"b\n", b"c\n") is None
    assert merge_files({"a": long}, {"a": long}, {"a": b"c\n"}) == {"a": b"c\n"}


def test_files_of_equal_lines_are_merged_at_once() -> None:
    """In ten seconds, if whole files were compared."""
    blank = b"\n" * MAX_LINES
    began = time.process_time()
    assert merge(blank, b"a" + blank, blank[1:] + b"b\n") == b"a" + blank[1:] + b"b\n"
    assert time.process_time() - began < 1


def test_files_that_come_or_go_are_not_merged() -> None:
    base = {"a": b"1\n", "b": b"2\n"}
    assert merge_files(base, base, {"a": b"1\n"}) is None
    assert merge_files(base, {"b": b"2\n"}, base | {"a": b"x\n"}) is None
    assert merge_files(base, base, base | {"new": b""}) is None
    ours, theirs = base | {"a": b"x\n"}, base | {"b": b"y\n"}
    assert merge_files(base, ours, theirs) == {"a": b"x\n", "b": b"y\n"}


LINES = st.lists(st.sampled_from([b"a\n", b"b\n", b"c\n"]), max_size=8).map(b"".join)


@given(LINES, LINES)
def test_a_merge_with_the_base_changes_nothing(base: bytes, changed: bytes) -> None:
    assert merge(base, base, changed) == changed
    assert merge(base, changed, base) == changed
    assert merge(base, changed, changed) == changed


@given(LINES, LINES, LINES)
def test_the_order_of_the_sides_does_not_matter(base: bytes, one: bytes, other: bytes) -> None:
    assert merge(base, one, other) == merge(base, other, one)
