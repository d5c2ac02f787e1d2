"""Read the result of an agent's turn from the output of its program."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Cause(StrEnum):
    """Why a turn failed; the word in the ledger."""

    RATE_LIMITED = "rate limited"
    SERVICE_DOWN = "service down"
    KEY_REFUSED = "key refused"  # or not logged in
    NO_CREDIT = "no credit"  # the account is used up: waiting does not fill it
    UNKNOWN_MODEL = "unknown model"
    UNKNOWN_EVENTS = "unknown events"
    FAILED = "agent failed"


@dataclass(frozen=True, slots=True)
class TurnResult:
    """The result of a turn. `cause` is None when the agent reports success."""

    text: str = ""  # the agent's last text
    tokens: int | None = None  # input, output and cached ones
    usd: float | None = None
    cause: Cause | None = None
    message: str = ""  # of the failure
    resets_at: float | None = None  # Unix time at which a limit ends, if the message has one
    hypothesis: str = ""
    notes: str = ""

    @classmethod
    def failure(
        cls, message: str, status: object = None, is_error: bool = True, **fields: Any
    ) -> TurnResult:
        """Return a failed result. Its message tells the cause only if `is_error`: else it may be a
        model's."""
        cause = cause_of(message, status) if is_error else None
        message = message or "no reason was given"
        return cls(cause=cause or Cause.FAILED, message=message, **fields)

    @classmethod
    def unknown(cls, lines: Sequence[str], **fields: Any) -> TurnResult:
        """Return a failure that quotes the last line, when no known event ends the output."""
        message = f"its events are not known here: {lines[-1] if lines else '(nothing)'}"
        return cls(cause=Cause.UNKNOWN_EVENTS, message=message, **fields)


STATUS = r"(?:\bHTTP(?:/[\d.]+)?|status(?:[ _]?code)?|\b(?:API )?error(?: code)?|\bcode)\W{0,4}"
"""The words right before an HTTP status. A number by itself is a line, a size, a loss."""

# Every pattern takes time linear in its text, which may be megabytes of a hostile program's words:
# a repetition begins at one place only, or has a bound.
MODEL_NAME = r"[^\W\d]{0,80}[\d/:.-][\w/:.-]{0,200}"  # has a digit or a sign: no plain word
QUOTED = r"[`'\"(][^`'\"()\n]{1,80}[`'\")]"
LACKS = r"(?:does(?: not|n't) exist|(?:is |was )?not (?:found|supported|available))"

# The first match counts: "429 ... insufficient_quota, check your API key" is no refused key. An
# "exceeded" quota is a rate limit: Gemini's ends after half a minute.
CAUSES: tuple[tuple[Cause, re.Pattern[str]], ...] = tuple(
    (cause, re.compile(pattern, re.IGNORECASE))
    for cause, pattern in (
        (
            Cause.NO_CREDIT,
            rf"(?:\A|{STATUS})402\b|payment required|insufficient.(?:quota|credit|balance|funds)"
            r"|credit balance is|requires more credits|quota exceeded\. check your plan"
            r"|billing.(?:hard.limit|not.active)",
        ),
        (
            Cause.RATE_LIMITED,
            rf"(?:\A|{STATUS})429\b|\b429 too many requests|rate.?limit|too many requests"
            r"|exceed\w{0,9} .{0,30}quota|quota.{0,30}(?:exceeded|reached)"
            r"|resource.?exhausted|usage limit|hit your .{0,20}limit",
        ),
        (
            Cause.UNKNOWN_MODEL,
            r"model_not_found|model.?not.?found.?error|llm provider not provided"
            r"|(?:unknown|invalid|no such) model(?: name\b| id\b|\W{0,2}[:`'\"(])"
            rf"|\bmodels?[ /](?:{QUOTED}|{MODEL_NAME}),? {LACKS}"
            rf"|(?:{QUOTED}|(?<![\w/:.-]){MODEL_NAME}) model {LACKS}"
            r"|issue with the selected model",
        ),
        (
            Cause.KEY_REFUSED,
            rf"{STATUS}40[13]\b|\b40[13] (?:unauthori[sz]ed|forbidden|status code)"
            r"|(?-i:\bUNAUTHENTICATED\b)|authentication[ _]?(?:error|failed|required)"
            r"|\b(?:invalid|incorrect|missing|no)[ _-](?:\w+ )?(?:api.?key|credentials"
            r"|auth (?:method|type))"
            r"|api.?key (?:is |was |has )?(?:not (?:valid|found|set|provided)|invalid|missing"
            r"|expired|required|must be)|\bnot logged in\b|\brun /login|please log ?in\b"
            r"|you (?:must|need to) (?:first )?(?:be logged in|log ?in)\b|set an auth method",
        ),
        (
            Cause.SERVICE_DOWN,
            rf"(?:\A|{STATUS})5(?:00|02|03|04|29)\b|overloaded"
            r"|(?:server|connection|network|api).?error|server had an error"
            r"|service unavailable|bad gateway|connection (?:refused|reset|closed)|ECONN\w+"
            r"|ENOTFOUND|ETIMEDOUT|EAI_AGAIN|fetch failed|stream disconnected|high demand"
            r"|(?:request|connection|gateway|connect|read) timed? ?out",
        ),
    )
)
"""Patterns of errors of a program or a service. A model's text is never searched for them."""

BY_STATUS = {
    401: Cause.KEY_REFUSED,
    402: Cause.NO_CREDIT,
    403: Cause.KEY_REFUSED,
    404: Cause.UNKNOWN_MODEL,
    429: Cause.RATE_LIMITED,
}
FINAL = re.compile(
    r"\W{0,2}(?:API Error|Invalid API key|Not logged in|Please run /login|Failed to authenticate"
    r"|OAuth |Credit balance|Your credit balance|(?:Claude \w+ |5-hour )?(?:usage )?limit reached"
    r"|You've (?:hit|reached) your|There's an issue with the selected model|Connection error"
    r"|Request timed out)",
    re.IGNORECASE,
)
"""The beginning of an error. Claude Code and Qwen Code put errors and a model's final text in the
same field."""

DECODER = json.JSONDecoder()
MESSAGE_LENGTH = 600
NOISE = re.compile(r"\s*(?:at\s|File \"|[\"']?\w+[\"']?:\s*\d+,?\s*$)")  # of traces and dumps
MAX_AMOUNT = 2**63  # SQLite can store no more
LONGEST_WAIT_S = 7 * 86_400.0  # a longer wait that a service asks for is cut to this
MAX_STARTS = 1_000  # lines that may begin the document at the end of an output, the last ones
UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
RETRY = re.compile(
    r"(?:try again|retry|retry.?after|retry.?delay|resets?)\W+(?:in\W+|after\W+)?"
    r"((?:\d+(?:\.\d+)?\s*(?:ms|[smh])?[a-z]*\s*)+)",
    re.IGNORECASE,
)


def cause_of(message: str, status: object = None) -> Cause | None:
    """Return the cause of an error, by its HTTP status if there is one. The words of a 429 tell
    whether waiting helps."""
    cause = next((cause for cause, pattern in CAUSES if pattern.search(message)), None)
    if not isinstance(status, int) or (status == 429 and cause is Cause.NO_CREDIT):
        return cause
    return BY_STATUS.get(status, Cause.SERVICE_DOWN if status >= 500 else cause)


def find_complaint(stderr: str) -> str:
    """Return the last line of a program's stderr that names a cause, or the end of stderr."""
    lines = [line.strip() for line in stderr.splitlines() if not NOISE.match(line)]
    last = next((line for line in reversed(lines) if cause_of(line)), None)
    return "\n".join(lines)[-MESSAGE_LENGTH:] if last is None else last[:MESSAGE_LENGTH]


def retry_after_s(message: str) -> float | None:
    """Return the seconds that a service asks to wait, as in "try again in 1m30.5s". At most a
    week."""
    if (match := RETRY.search(message)) is None:
        return None
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*(ms|[smh])?", match[1].lower())
    wait_s = sum(float(number) * UNITS_S[unit or "s"] for number, unit in parts)
    return min(wait_s, LONGEST_WAIT_S)


def events(lines: Iterable[str]) -> list[dict[str, Any]]:
    """Return the JSON objects among the lines. Other lines are no events."""
    objects = []
    for line in lines:
        if line.lstrip().startswith("{"):
            with suppress(ValueError, RecursionError):  # cut off by a kill, or no event at all
                objects.append(json.loads(line))
    return objects


def last_document(lines: Iterable[str]) -> Any:
    """Return the JSON object or array of any number of lines that ends the output, or None."""
    text = "\n".join(lines).rstrip()
    for start in deque(re.finditer(r"^[\[{]", text, re.MULTILINE), maxlen=MAX_STARTS):
        with suppress(ValueError, RecursionError):
            value, end = DECODER.raw_decode(text, start.start())
            if end == len(text):
                return value
    return None


def at(value: object, *path: str) -> Any:
    """Return the value at a path of keys, or None."""
    for name in path:
        if not isinstance(value, Mapping):
            return None
        value = value.get(name)
    return value


def as_list(value: object) -> list[Any]:
    """Return a list as it is, and an empty one for any other value."""
    return value if isinstance(value, list) else []


def sum_amounts(values: Iterable[object]) -> float | None:
    """Sum the numbers from 0 to MAX_AMOUNT; others, such as nan, do not count. None if none is."""
    numbers = [
        value
        for value in values
        if isinstance(value, int | float)
        and not isinstance(value, bool)
        and 0 <= value < MAX_AMOUNT
    ]
    return sum(numbers) if numbers and sum(numbers) < MAX_AMOUNT else None


def sum_tokens(*values: object) -> int | None:
    """Sum the values that can be numbers of tokens. None if none is."""
    tokens = sum_amounts(values)
    return None if tokens is None else round(tokens)


def sum_dollars(*values: object) -> float | None:
    """Sum the values that can be amounts of dollars. None if none is."""
    usd = sum_amounts(values)
    return None if usd is None or float(usd) >= MAX_AMOUNT else float(usd)  # float() may round up


def usage_tokens(usage: object) -> int | None:
    """Return the tokens of Anthropic's `usage`, cached ones included."""
    kinds = ("input", "cache_creation_input", "cache_read_input", "output")
    return sum_tokens(*(at(usage, f"{kind}_tokens") for kind in kinds))


def read_result(event: Mapping[str, Any]) -> TurnResult:
    """Read the object `{"type": "result"}` that ends the output of Claude Code and Qwen Code."""
    result = event.get("result")
    text = str(result or at(event, "error", "message") or "")
    spent: dict[str, Any] = {
        "tokens": usage_tokens(event.get("usage")),
        "usd": sum_dollars(event.get("total_cost_usd")),
    }
    if not event.get("is_error") and event.get("subtype") == "success":
        return TurnResult(text, **spent)
    is_error = not result or FINAL.match(text) is not None
    resets = re.search(r"limit reached\|(\d{10})\b", text) if is_error else None
    spent["resets_at"] = float(resets[1]) if resets else None
    return TurnResult.failure(text or str(event.get("subtype")), is_error=is_error, **spent)
