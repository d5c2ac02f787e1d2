"""Whatever an agent prints, its turn comes to an `TurnResult` that the ledger can hold: never to an
exception, and never to a number that is none."""

from __future__ import annotations

import copy
import importlib
import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from autoresearch.agents.support import availability, events
from autoresearch.agents.support.events import LONGEST_WAIT_S, MAX_AMOUNT, Cause, TurnResult
from autoresearch.agents.support.headless import Headless, Settings, Spec, first_line
from autoresearch.agents.support.process import Output
from autoresearch.errors import AgentError
from autoresearch.protocols import Failure

RECORDINGS = {
    path: [line for line in path.read_text().split("\n") if line.strip()]
    for path in sorted((Path(__file__).parent / "recordings").glob("*/*.out"))
}
NAMES = ("aider", "claude", "codex", "command", "gemini", "mini", "opencode", "pi", "qwen")
KEYS = (
    *("type", "subtype", "is_error", "result", "usage", "error", "message", "code", "status"),
    *("data", "statusCode", "name", "part", "reason", "tokens", "input", "output", "reasoning"),
    *("cache", "read", "write", "cost", "total", "text", "role", "content", "stopReason"),
    *("errorMessage", "totalTokens", "item", "stats", "models", "response", "info", "extra"),
    *("exit_status", "messages", "model_stats", "instance_cost", "total_tokens", "submission"),
    *("input_tokens", "output_tokens", "total_cost_usd", "cache_read_input_tokens"),
    *("description", "hypothesis", "notes", "usd", "cause"),
)
WORDS = (
    *("result", "success", "error_during_execution", "item.completed", "agent_message", "error"),
    *("turn.completed", "turn.failed", "step_finish", "text", "stop", "tool-calls", "message_end"),
    *("assistant", "agent_start", "agent_end", "Submitted", "LimitsExceeded", "aborted", "429"),
)
AIDER = (
    "Tokens: 1.0k sent, 20 received. Cost: $0.0012 message, $0.01 session.",
    "Tokens: ... sent, , received",
    "Tokens: 1,234 sent, 5.6.7 received. Cost: $1.2.3 message",
    f"Tokens: {'9' * 400} sent, 1M received. Cost: ${'9' * 400} message",
    "Tokens: ٣ sent, ٣k received",
    "litellm.RateLimitError: 429",
    "Aider v0.86",
)

TEXTS = st.one_of(
    st.text(max_size=12), st.sampled_from(["\ud83d", "\0", "limit reached|9999999999"])
)
NUMBERS = st.one_of(
    st.integers(),
    st.floats(),  # nan and the infinities too: Python's and JavaScript's writers let them out
    st.sampled_from([10**30, -1, 2**63 - 1, 2**63, 1e308, 429, True]),
)
VALUES = st.recursive(
    st.one_of(st.none(), NUMBERS, st.sampled_from(WORDS), TEXTS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(st.sampled_from(KEYS), TEXTS), inner, max_size=5),
    ),
    max_leaves=12,
)
DEEP = '{"a":' * 3_000 + "1" + "}" * 3_000
LINES = st.one_of(
    st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=6).map(json.dumps),
    VALUES.map(json.dumps),
    st.text(max_size=30),
    st.sampled_from([*AIDER, DEEP, "[" * 3_000, "[", "]", "{", "}", '{"type":', "{}", ""]),
)


def spec_of(name: str) -> Spec:
    module = importlib.import_module(f"autoresearch.agents.{name}")
    if isinstance(module.create, Spec):
        return module.create
    return Spec(program=name, argv=lambda ask: (name,), read_events=module.read_events)


SPECS = {name: spec_of(name) for name in NAMES}


def holds(ended: object) -> TurnResult:
    """It is an `TurnResult`, and of the types it says."""
    assert isinstance(ended, TurnResult)
    for text in (ended.text, ended.message, ended.hypothesis, ended.notes):
        assert isinstance(text, str)
    assert ended.tokens is None or (type(ended.tokens) is int and 0 <= ended.tokens < MAX_AMOUNT)
    assert ended.usd is None or (type(ended.usd) is float and 0 <= ended.usd < MAX_AMOUNT)
    assert ended.resets_at is None or math.isfinite(ended.resets_at)
    assert ended.cause is None or (isinstance(ended.cause, Cause) and ended.message)
    assert len(first_line(ended.text)) <= 200
    return ended


def answered(name: str, lines: list[str], edited: bool, stopped: str | None, stderr: str) -> None:
    """And the turn is a proposal, a failure with a wait that ends, or a reason not to go on."""
    ended = holds(SPECS[name].read_events(tuple(lines)))
    output = Output(tuple(lines), stderr, 0 if edited else 1, stopped)
    try:
        failure = Headless(SPECS[name], Settings())._failure(output, ended, edited)
    except AgentError as error:
        assert f"{name}: " in str(error)
        return
    if failure is not None:
        assert isinstance(failure, Failure)
        assert failure.reason
        assert failure.retry_after_s is None or 0 <= failure.retry_after_s <= LONGEST_WAIT_S
        if failure.reason == Cause.RATE_LIMITED:  # 0 would be asked again at once, for ever
            assert failure.retry_after_s != 0


@settings(max_examples=80, deadline=None)
@given(st.lists(LINES, max_size=8), st.booleans(), st.sampled_from([None, "timeout", "lost"]))
@example([DEEP], False, None)
@example(["[\n" * 3_000], False, None)
def test_any_lines(lines: list[str], edited: bool, stopped: str | None) -> None:
    """All agents read the same lines: to think of them takes most of the time."""
    for name in NAMES:
        answered(name, lines, edited, stopped, "\n".join(lines[:3]))


def document(lines: list[str]) -> bool:
    return lines[0] in ("{", "[") or lines[0].startswith("[")


def places(value: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """The paths of everything within a JSON value."""
    found = [path]
    if isinstance(value, Mapping):
        for key, inner in value.items():
            found += places(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value[:6]):
            found += places(inner, (*path, index))
    return found


def replaced(value: Any, path: tuple[str | int, ...], fresh: object) -> Any:
    """A copy of a JSON value with something else at one place."""
    if not path:
        return fresh
    whole = copy.deepcopy(value)
    inner = whole
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = fresh
    return whole


# What the readers look at: a recording's long instructions and file contents are nobody's keys.
LOOKED_AT = frozenset(KEYS)


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: f"{path.parent.name}-{path.stem}")
@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_recording_with_anything_in_any_place(path: Path, data: st.DataObject) -> None:
    lines = list(RECORDINGS[path])
    whole = document(lines)
    at = 0 if whole else data.draw(st.integers(0, len(lines) - 1))
    try:
        value = json.loads("\n".join(lines) if whole else lines[at])
    except ValueError:  # the recording breaks off there, or is aider's
        value = None
    known = [p for p in places(value) if all(isinstance(k, int) or k in LOOKED_AT for k in p)]
    fresh = data.draw(VALUES)
    mutated = json.dumps(replaced(value, data.draw(st.sampled_from(known)), fresh))
    lines = [mutated] if whole else [*lines[:at], mutated, *lines[at + 1 :]]
    answered(path.parent.name, lines, data.draw(st.booleans()), None, "")


Change = Callable[[list[str], int, int], list[str]]
CHANGES: dict[str, Change] = {
    "a line is cut": lambda lines, i, n: [*lines[:i], lines[i][:n], *lines[i + 1 :]],
    "a line is missing": lambda lines, i, n: [*lines[:i], *lines[i + 1 :]],
    "a line comes again": lambda lines, i, n: [*lines, lines[i]],
    "the lines are turned round": lambda lines, i, n: lines[::-1],
    "noise": lambda lines, i, n: [*lines[:i], "[WARN] {odd}", *lines[i:]],
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@settings(max_examples=60, deadline=None)
@given(st.sampled_from(list(RECORDINGS)), st.integers(0, 10**6), st.integers(0, 200))
def test_a_recording_that_was_damaged(change: Change, path: Path, line: int, column: int) -> None:
    lines = RECORDINGS[path]
    answered(path.parent.name, change(lines, line % len(lines), column), False, None, "")


@settings(deadline=None)
@given(st.lists(st.one_of(NUMBERS, VALUES), max_size=5))
def test_a_sum_is_an_amount(values: list[object]) -> None:
    plausible = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    plausible = [v for v in plausible if 0 <= v < MAX_AMOUNT]
    expected = sum(plausible) if plausible and sum(plausible) < MAX_AMOUNT else None
    dollars = None if expected is None else float(expected)
    assert events.sum_dollars(*values) == (
        None if dollars is None or dollars >= MAX_AMOUNT else dollars
    )
    tokens = events.sum_tokens(*values)
    assert tokens == (None if expected is None else round(expected))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.one_of(st.text(max_size=20), st.sampled_from(["[x]", "{", "[1,"])), max_size=6),
    VALUES,
)
def test_the_document_at_the_end_is_found_whatever_stands_above(
    above: list[str], value: object
) -> None:
    """Unless what stands above begins a document that goes on to the end."""
    for wanted in ({"found": value}, [value]):
        text = json.dumps(wanted, indent=1, allow_nan=False) if _finite(wanted) else "{}"
        noise = [line for line in above if not line.lstrip().startswith(("{", "["))]
        found = events.last_document([*noise, "[x]", *text.split("\n"), " "])
        assert found == json.loads(text)


def _finite(value: object) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return False
    return True


@settings(max_examples=200, deadline=None)
@given(
    st.text(max_size=80)
    | st.lists(
        st.sampled_from(
            [
                "try again in ",
                "retry after ",
                "9" * 300,
                "1.5",
                "h",
                "ms",
                "٣",
                " ",
                "resets: ",
                ".",
            ]
        ),
        max_size=8,
    ).map("".join)
)
@example("try again in " + "9" * 400 + "h")
def test_a_complaint_says_how_long_to_wait_or_nothing(message: str) -> None:
    wait_s = events.retry_after_s(message)
    assert wait_s is None or 0 <= wait_s <= LONGEST_WAIT_S
    assert events.cause_of(message) in (None, *Cause)
    assert len(events.find_complaint(message)) <= events.MESSAGE_LENGTH


HOSTILE = (
    *(
        "9",
        "a",
        "a.b-",
        "9.9",
        "-",
        " ",
        "(",
        "'x",
        "no ",
        "no_",
        "exceed",
        "exceed quota",
        "http/1",
    ),
    *("model 9", "models/", "x model ", "retry ", "retry after ", "try again in 1h", "status: "),
    *("Tokens: 1 sent, 9", "Tokens: Cost: $1 ", "Model ", "Added ", "Failed at ", '"x": 1 '),
)


@pytest.mark.parametrize("piece", HOSTILE)
def test_hostile_text_is_read_in_linear_time(piece: str) -> None:
    """It takes 0.1 s. A quadratic pattern takes 2 s and more for this text, a cubic one days."""
    text = f"x{piece * (20_000 // len(piece))}!"
    began = time.process_time()
    events.cause_of(text)
    events.find_complaint(text)
    events.retry_after_s(text)
    first_line(text)
    availability.NUMBER.search(text)
    holds(SPECS["aider"].read_events([text, f"Tokens: 1 sent, {text[1:]}"]))
    assert time.process_time() - began < 1


def test_a_flood_of_beginnings_is_read_in_bounded_time() -> None:
    """Quadratic in the lines it would take minutes; `pytest`'s limit holds it."""
    for line in ("[", "{", "{}", '{"a": 1}', "[1, 2"):
        holds(SPECS["gemini"].read_events((line,) * 60_000))
        holds(SPECS["qwen"].read_events((line,) * 60_000))
