"""What agents print is read right: on streams recorded by `RECORD=1 make test-agents`.

`agents/claude/` alone is written by hand, after Claude Code's documentation.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

from autoresearch.agents.support.events import (
    Cause,
    TurnResult,
    cause_of,
    find_complaint,
    retry_after_s,
)
from autoresearch.agents.support.headless import first_line
from autoresearch.records import SERVICE_REASONS

RECORDINGS = Path(__file__).parent / "recordings"
STREAMS = sorted(RECORDINGS.glob("*/*.out"))
COMPLAINTS = sorted(RECORDINGS.glob("*/*.err"))
NAMES = ("aider", "claude", "codex", "gemini", "mini", "opencode", "pi", "qwen")
CAUSES = {
    "ok": (None,),
    "ok-diff": (None,),  # aider's other format of edits
    "idle": (None, Cause.FAILED),  # mini-swe-agent insists on a tool call
    "limited": (Cause.RATE_LIMITED,),
    "broken": (Cause.SERVICE_DOWN,),
    "refused": (Cause.KEY_REFUSED,),
    "unknown": (Cause.UNKNOWN_MODEL,),
    "malformed": (Cause.FAILED, Cause.SERVICE_DOWN, Cause.UNKNOWN_EVENTS, None),
    "hang": (Cause.UNKNOWN_EVENTS,),  # cut off at the deadline
}


def read(name: str, lines: list[str]) -> TurnResult:
    ended = importlib.import_module(f"autoresearch.agents.{name}").read_events(tuple(lines))
    assert isinstance(ended, TurnResult)
    return ended


def lines_of(path: Path) -> list[str]:
    return [line for line in path.read_text().split("\n") if line.strip()]


@pytest.mark.parametrize("path", STREAMS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_recorded_turn(path: Path) -> None:
    name, mode = path.parent.name, path.stem
    ended = read(name, lines_of(path))
    assert ended.cause in CAUSES[mode], ended
    if mode.startswith("ok"):
        assert first_line(ended.text) == "Set X to 0.5 in train.py."
        assert ended.tokens is not None and ended.tokens >= 2040 - 1020 * (name == "aider")
    if ended.cause is not None:
        assert ended.message


@pytest.mark.parametrize("path", STREAMS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_stream_that_breaks_off_is_no_success(path: Path) -> None:
    lines = lines_of(path)
    for length in range(len(lines)):
        ended = read(path.parent.name, lines[:length])
        assert ended.cause is not None or length == len(lines) - 1


@pytest.mark.parametrize("path", COMPLAINTS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_what_was_said_on_stderr_alone(path: Path) -> None:
    said = find_complaint(path.read_text())
    assert cause_of(said) in CAUSES[path.stem]
    assert retry_after_s(said) == (7.0 if path.stem == "limited" else None)
    assert len(said) <= 600


@pytest.mark.parametrize("name", NAMES)
def test_unknown_events_are_named_with_the_raw_line(name: str) -> None:
    for line in ('{"type": "brand.new", "message": 7}', "[1, 2]", '{"type":', "what?"):
        ended = read(name, [line])
        assert ended.cause is Cause.UNKNOWN_EVENTS
        assert line in ended.message
    assert read(name, []).cause is Cause.UNKNOWN_EVENTS


def test_the_core_waits_for_a_service_by_the_same_words() -> None:
    assert SERVICE_REASONS == (Cause.RATE_LIMITED, Cause.SERVICE_DOWN)


@pytest.mark.parametrize("name", ["claude", "opencode", "pi"])
def test_a_turn_that_was_cut_off_says_what_it_used(name: str) -> None:
    whole = lines_of(RECORDINGS / name / "ok.out")
    tokens = read(name, whole).tokens
    cut = read(name, whole[:-1])
    assert tokens is not None and cut.tokens is not None and 1020 <= cut.tokens <= tokens


def test_a_message_of_claude_in_several_events_counts_once() -> None:
    usage = {"input_tokens": 500_000, "cache_read_input_tokens": 20_000, "output_tokens": 1}
    event = {"type": "assistant", "message": {"id": "m", "usage": usage}}
    assert read("claude", [json.dumps(event)] * 3).tokens == 520_001


def test_claudes_limit_says_when_it_ends() -> None:
    assert read("claude", lines_of(RECORDINGS / "claude" / "limited.out")).resets_at == 1764000000.0


def test_dollars_are_read_where_they_are_told() -> None:
    for name in ("aider", "claude", "opencode", "pi"):
        usd = read(name, lines_of(RECORDINGS / name / "ok.out")).usd
        assert usd is not None and 0 < usd < 0.1


@pytest.mark.parametrize(
    ("message", "cause"),
    [
        ("429 You exceeded your current quota, check your API key", Cause.RATE_LIMITED),
        ("Resource exhausted. You exceeded your current quota. Retry in 34s", Cause.RATE_LIMITED),
        ("You've hit your usage limit. Try again in 3 hours.", Cause.RATE_LIMITED),
        ("Error code: 429 - {'code': 'insufficient_quota'}, check your API key", Cause.NO_CREDIT),
        ("Quota exceeded. Check your plan and billing details.", Cause.NO_CREDIT),
        ("Your credit balance is too low to access the Anthropic API.", Cause.NO_CREDIT),
        ("API Error: 402 Insufficient Balance", Cause.NO_CREDIT),
        ("402 Payment Required", Cause.NO_CREDIT),
        ("This request requires more credits, or fewer max_tokens.", Cause.NO_CREDIT),
        ("Billing hard limit has been reached", Cause.NO_CREDIT),
        ("layer 402 of 405", None),
        ("Error code: 401 - Incorrect API key provided", Cause.KEY_REFUSED),
        ("Invalid API key · Please run /login", Cause.KEY_REFUSED),
        ("Not logged in", Cause.KEY_REFUSED),
        ("No auth type is selected. Please configure an auth type", Cause.KEY_REFUSED),
        ("The model `gpt-9` does not exist or you do not have access to it.", Cause.UNKNOWN_MODEL),
        ("models/gemini-9 is not found for API version v1beta", Cause.UNKNOWN_MODEL),
        ("litellm.InternalServerError: 500", Cause.SERVICE_DOWN),
        ("connect ECONNREFUSED 127.0.0.1:1", Cause.SERVICE_DOWN),
        ("overloaded_error", Cause.SERVICE_DOWN),
        ("I could not decide", None),
        ("HTTP/1.1 403 Forbidden", Cause.KEY_REFUSED),
        ("API key not valid. Please pass a valid API key.", Cause.KEY_REFUSED),
        ("401 status code (no body)", Cause.KEY_REFUSED),
        ('{"error":{"code":503,"status":"UNAVAILABLE"}}', Cause.SERVICE_DOWN),
        ("The 'gpt-9' model is not supported with this account", Cause.UNKNOWN_MODEL),
        ('model "qwen3:8b" not found, try pulling it first', Cause.UNKNOWN_MODEL),
        ("expected 401 columns", None),
        ("loaded 429 rows", None),
        ("line 401: values must be in log index order, not in the log", None),
        ("no models of that size were not found", None),
        ("the model output was not found in out.txt", None),
        ("epoch 500 of 502, batch 503", None),
    ],
)
def test_what_a_complaint_means(message: str, cause: Cause | None) -> None:
    assert cause_of(message) is cause


@pytest.mark.parametrize(
    ("message", "status", "cause"),
    [
        ("later", 429, Cause.RATE_LIMITED),
        ("insufficient_quota", 429, Cause.NO_CREDIT),
        ("later", 402, Cause.NO_CREDIT),
        ("insufficient_quota", 503, Cause.SERVICE_DOWN),
        ("rate limit", 401, Cause.KEY_REFUSED),
        ("Your credit balance is too low", 400, Cause.NO_CREDIT),
        ("no", 400, None),
    ],
)
def test_what_a_status_means(message: str, status: int, cause: Cause | None) -> None:
    assert cause_of(message, status) is cause


WORDS_OF_A_MODEL = "I looked at line 401: HTTP 401 Unauthorized, rate limited, run /login"


@pytest.mark.parametrize("name", ["claude", "qwen"])
def test_a_models_text_names_no_cause(name: str) -> None:
    event = {"type": "result", "is_error": True, "subtype": "success", "result": WORDS_OF_A_MODEL}
    text = json.dumps([event] if name == "qwen" else event)
    assert read(name, [text]).cause is Cause.FAILED
    event["result"] = "API Error: 401 Unauthorized"
    text = json.dumps([event] if name == "qwen" else event)
    assert read(name, [text]).cause is Cause.KEY_REFUSED


def test_qwens_complaint_is_a_message_of_no_tokens() -> None:
    said = "[API Error: 401 Incorrect API key provided.]"
    last = {"type": "result", "is_error": False, "subtype": "success", "result": said}
    for tokens, cause in ((0, Cause.KEY_REFUSED), (20, None)):
        message = {"type": "assistant", "message": {"usage": {"output_tokens": tokens}}}
        assert read("qwen", [json.dumps([message, last])]).cause is cause


LIMITED = "litellm.RateLimitError: RateLimitError: please try again in 7s."
NO_KEY = "No LLM model was specified and no API keys were provided."
SPENT = "Tokens: 1.2k sent, 20 received. Cost: $0.01 message, $0.01 session."


@pytest.mark.parametrize(
    ("lines", "ended"),
    [
        (
            [LIMITED, "Retrying in 0.2 seconds...", "Set X.", SPENT],
            TurnResult("Set X.", 1220, 0.01),
        ),
        (["Why.", "a.py", "```", LIMITED, "X = 1", "```", SPENT], TurnResult("Why.", 1220, 0.01)),
        (
            ["I set X.", "<code>", "```", "X = 1", "</code>", SPENT],
            TurnResult("I set X.", 1220, 0.01),
        ),
        (["Set X.", "Because.", SPENT, "Applied edit to a.py"], TurnResult("Because.", 1220, 0.01)),
        (["Set X.", SPENT, "a.py", "```", "X", "```", SPENT], TurnResult("Set X.", 2440, 0.02)),
        (
            ["One.", "Tokens: 12k sent, 2k cache hit, 1k received.", "Cost: $0.5 message, $1"],
            TurnResult("One.", 13_000, 0.5),
        ),
        (
            ["Set X.", SPENT, LIMITED],
            TurnResult(tokens=1220, usd=0.01, cause=Cause.RATE_LIMITED, message=LIMITED),
        ),
        ([NO_KEY, "Waiting up to 5 minutes"], TurnResult(cause=Cause.KEY_REFUSED, message=NO_KEY)),
    ],
)
def test_what_aider_says(lines: list[str], ended: TurnResult) -> None:
    before = ["Aider v0.86.2", "Repo-map: disabled", "Added a.py to the chat."]
    assert read("aider", [*before, *lines]) == ended


def test_the_last_message_of_a_trajectory_may_be_a_models() -> None:
    messages = [{"role": "assistant", "content": WORDS_OF_A_MODEL}]
    found = {"info": {"exit_status": "LimitsExceeded"}, "messages": messages}
    assert read("mini", [json.dumps(found)]).cause is Cause.FAILED


@pytest.mark.parametrize(
    ("message", "seconds"),
    [
        ("Please try again in 7s.", 7.0),
        ("try again in 1m30.5s", 90.5),
        ("Please retry after 20 seconds", 20.0),
        ("Retry-After: 30", 30.0),
        ('"retryDelay": "34.2s"', 34.2),
        ("Please retry in 250ms", 0.25),
        ("limit resets in 2 hours", 7200.0),
        ("too many requests", None),
    ],
)
def test_how_long_to_wait(message: str, seconds: float | None) -> None:
    assert retry_after_s(message) == seconds


def test_a_description_is_one_line_without_markup() -> None:
    assert first_line("\n**Set   X to 0.5**\nbecause") == "Set X to 0.5"
    assert first_line("## Done\n") == "Done"
    assert first_line("> **use** x; key <MY_PROVIDER_KEY>") == "use** x; key <MY_PROVIDER_KEY>"
    assert len(first_line("x" * 1000)) == 200
    assert first_line(" \n") == ""
