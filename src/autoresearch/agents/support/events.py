"""Read how an agent's turn ended from what its program printed. Pure functions, tested on
recordings."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterable, Mapping
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
class Ended:
    """How a turn ended. `cause` is None when the agent believes that it did its work."""

    text: str = ""  # the last thing it said
    tokens: int | None = None  # read and written, cached ones included
    usd: float | None = None
    cause: Cause | None = None
    message: str = ""  # of the failure
    resets_at: float | None = None  # Unix time at which a limit ends, where the message has one
    hypothesis: str = ""
    notes: str = ""


STATUS = r"(?:\bHTTP(?:/[\d.]+)?|status(?:[ _]?code)?|\b(?:API )?error(?: code)?|\bcode)\W{0,4}"
"""What comes right before an HTTP status. A number by itself is a line, a size, a loss."""

# Every pattern takes time linear in its text, which may be megabytes of a hostile program's words:
# a repetition begins at one place only, or has a bound.
MODEL_NAME = r"[^\W\d]{0,80}[\d/:.-][\w/:.-]{0,200}"  # has a digit or a sign: no plain word
QUOTED = r"[`'\"(][^`'\"()\n]{1,80}[`'\")]"
LACKS = r"(?:does(?: not|n't) exist|(?:is |was )?not (?:found|supported|available))"

# In this order: "429 ... insufficient_quota, check your API key" is no refused key. A quota that is
# "exceeded" is a rate limit: Gemini says so of one that ends in half a minute.
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
"""What a program's own errors say. Words of a model are not searched for it."""

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
"""How a final text begins that is no model's: Claude Code and Qwen Code put both in one field."""

DECODER = json.JSONDecoder()
MESSAGE_LENGTH = 600
NOISE = re.compile(r"\s*(?:at\s|File \"|[\"']?\w+[\"']?:\s*\d+,?\s*$)")  # of traces and dumps
MOST = 2**63  # what SQLite can store
LONGEST_WAIT_S = 7 * 86_400.0  # a service that asks for more is not believed
BEGINNINGS = 1_000  # lines that may begin the document at the end of an output, the last ones
UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
AGAIN = re.compile(
    r"(?:try again|retry|retry.?after|retry.?delay|resets?)\W+(?:in\W+|after\W+)?"
    r"((?:\d+(?:\.\d+)?\s*(?:ms|[smh])?[a-z]*\s*)+)",
    re.IGNORECASE,
)


def cause_of(message: str, status: object = None) -> Cause | None:
    """What a service's complaint means, by its HTTP status where there is one; of a 429 the words
    tell whether waiting helps."""
    said = next((cause for cause, pattern in CAUSES if pattern.search(message)), None)
    if isinstance(status, int) and (status in BY_STATUS or status >= 500):
        broke = status == 429 and said is Cause.NO_CREDIT
        return said if broke else BY_STATUS.get(status, Cause.SERVICE_DOWN)
    return said


def complaint(text: str) -> str:
    """What matters in a program's stderr: its last line that names a cause, else its end."""
    lines = [line.strip() for line in text.splitlines() if not NOISE.match(line)]
    telling = [line for line in lines if cause_of(line)]
    return telling[-1][:MESSAGE_LENGTH] if telling else "\n".join(lines)[-MESSAGE_LENGTH:]


def failed(message: str, status: object = None, own: bool = True) -> dict[str, Any]:
    """The fields of an `Ended` that failed. `own`: the message is the program's or its service's,
    not a model's."""
    cause = (cause_of(message, status) if own else None) or Cause.FAILED
    return {"cause": cause, "message": message or "no reason was given"}


def unknown(lines: Iterable[str]) -> Ended:
    """Nothing that this agent is known to say."""
    raw = next(iter(lines), "(nothing)")
    return Ended(cause=Cause.UNKNOWN_EVENTS, message=f"its events are not known here: {raw}")


def retry_after_s(message: str) -> float | None:
    """Seconds until the service wants to be asked again: "try again in 1m30.5s". At most a week."""
    if (found := AGAIN.search(message)) is None:
        return None
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*(ms|[smh])?", found[1].lower())
    wait_s = sum(float(number) * UNITS_S[unit or "s"] for number, unit in parts)
    return min(wait_s, LONGEST_WAIT_S)


def events(lines: Iterable[str]) -> list[dict[str, Any]]:
    """The JSON objects among the lines; what else an agent prints is no event."""
    found = []
    for line in lines:
        if line.lstrip().startswith("{"):
            try:
                found.append(json.loads(line))
            except (ValueError, RecursionError):
                continue  # cut off by a kill, or no event at all
    return found


def document(lines: Iterable[str]) -> Any:
    """The JSON object or array at the end of the output, over however many lines it goes."""
    text = "\n".join(lines)
    begins = deque(re.finditer(r"^[\[{]", text, re.MULTILINE), maxlen=BEGINNINGS)
    for begin in begins:
        try:
            found, end = DECODER.raw_decode(text, begin.start())
        except (ValueError, RecursionError):
            continue
        if not text[end:].strip():
            return found
    return None


def at(value: object, *path: str) -> Any:
    """What lies at a path of keys; None where it does not."""
    for name in path:
        if not isinstance(value, Mapping):
            return None
        value = value.get(name)
    return value


def amount(value: object) -> float | None:
    """What can be a number of tokens or dollars; None for all else, such as nan."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < MOST:
        return None
    return value


def _sum(values: Iterable[object]) -> float | None:
    found = [number for number in map(amount, values) if number is not None]
    return amount(sum(found)) if found else None


def total(*tokens: object) -> int | None:
    """The sum of those that are amounts; None when none is."""
    found = _sum(tokens)
    return None if found is None else round(found)


def dollars(*amounts: object) -> float | None:
    """The sum of those that are amounts; None when none is."""
    found = _sum(amounts)
    return None if found is None else amount(float(found))  # rounded, it can be too much


def items(value: object) -> list[Any]:
    """The elements of a list; none of what is no list."""
    return value if isinstance(value, list) else []


def usage_tokens(usage: object) -> int | None:
    """What Anthropic's `usage` counts, cached ones included."""
    read = [at(usage, f"{kind}input_tokens") for kind in ("", "cache_creation_", "cache_read_")]
    return total(*read, at(usage, "output_tokens"))


def result(event: Mapping[str, Any]) -> Ended:
    """The object `{"type": "result"}` with which Claude Code, and Qwen Code after it, end."""
    said, complaint = event.get("result"), at(event, "error", "message")
    text = str(said or complaint or "")
    spent: dict[str, Any] = {
        "tokens": usage_tokens(event.get("usage")),
        "usd": dollars(event.get("total_cost_usd")),
    }
    if not event.get("is_error") and event.get("subtype") == "success":
        return Ended(text=text, **spent)
    resets = re.search(r"limit reached\|(\d{10})\b", text) if FINAL.match(text) else None
    spent["resets_at"] = float(resets[1]) if resets else None
    own = not said or FINAL.match(text) is not None
    return Ended(**spent, **failed(text or str(event.get("subtype")), own=own))
