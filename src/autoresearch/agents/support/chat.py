"""Call a model behind an OpenAI-compatible API once, and return the answer or the error as a value.

The client's own retries are off, because the harness waits between turns. The library is imported
only when an agent needs it: that takes 0.75 s.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

from autoresearch.agents.support.events import MESSAGE_LENGTH, Cause, at, cause_of, retry_after_s
from autoresearch.agents.support.secrets import Secret, mask, secrets_in
from autoresearch.errors import AgentError
from autoresearch.formatting import printable

LIBRARY = "openai"
INSTALL = "pip install 'autoresearch[llm]'"
NO_KEY = "none"  # the client wants one, a local server does not
CONNECT_S = 30.0
LONGEST_WAIT_S = 86_400.0  # a service that asks for more is not believed


@dataclass(frozen=True, slots=True)
class Service:
    """A model, and where it is."""

    model: str
    base_url: str
    key: str | None = field(default=None, repr=False)
    parameters: Mapping[str, float] = field(default_factory=dict)  # such as temperature
    key_env: str = "key"  # the variable that holds it

    @property
    def secrets(self) -> list[Secret]:
        """Not to be seen in the record: the key, and a password in the address."""
        return secrets_in(
            {self.key_env: self.key or "", "base_url": self.base_url}, (self.key_env,)
        )

    @property
    def place(self) -> str:
        """The address for people: without a password or a key that it may hold."""
        parts = urlsplit(self.base_url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


@dataclass(frozen=True, slots=True)
class Said:
    """What came back. `cause` is None when it is an answer."""

    text: str = ""
    tokens_in: int | None = None
    tokens_out: int | None = None
    usd: float | None = None  # as the service says
    cause: str | None = None
    message: str = ""
    retry_after_s: float | None = None

    @property
    def tokens(self) -> int | None:
        found = [n for n in (self.tokens_in, self.tokens_out) if n is not None]
        return sum(found) if found else None


def library() -> ModuleType:
    """The client library; `AgentError` where it is missing."""
    try:
        import openai
    except ImportError as error:
        raise AgentError(f"llm: needs the library {LIBRARY!r}: {INSTALL} ({error})") from None
    return openai


class Caller:
    """Makes one call at a time."""

    def __init__(self) -> None:
        self._under_way: tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]] | None = None
        self._interrupted = False

    def call(self, service: Service, prompt: str, timeout_s: float | None) -> Said:
        """Raises nothing for what the service did. `timeout_s` is for the whole call, however
        slowly the answer trickles in."""
        self._interrupted = False
        said = asyncio.run(self._bounded(service, prompt, timeout_s))
        message = " ".join(printable(mask(said.message, service.secrets)).split())
        return replace(said, message=message[:MESSAGE_LENGTH])

    def interrupt(self) -> None:
        """End the call under way, from another thread or a signal handler."""
        self._interrupted = True
        if (under_way := self._under_way) is not None:
            loop, task = under_way
            with suppress(RuntimeError):  # it has just ended by itself
                loop.call_soon_threadsafe(task.cancel)

    async def _bounded(self, service: Service, prompt: str, timeout_s: float | None) -> Said:
        task = asyncio.current_task()
        assert task is not None
        self._under_way = (asyncio.get_running_loop(), task)
        try:
            async with asyncio.timeout(timeout_s):
                return await _call(service, prompt, timeout_s)
        except TimeoutError:
            return Said(cause="timeout", message=f"no answer within {timeout_s:g} s")
        except asyncio.CancelledError:
            if not self._interrupted:
                raise
            return Said(cause="interrupted", message="was stopped: interrupted")
        finally:
            self._under_way = None


async def _call(service: Service, prompt: str, timeout_s: float | None) -> Said:
    """The call, and its errors mapped once. The reply is read from its text: a service that sends
    something else than the client's types say is nothing rare."""
    openai = library()
    client = openai.AsyncOpenAI(
        api_key=service.key or NO_KEY,
        base_url=service.base_url,
        max_retries=0,
        timeout=openai.Timeout(timeout_s, connect=CONNECT_S),
    )
    try:
        async with client:
            raw = await client.chat.completions.with_raw_response.create(
                model=service.model,
                messages=[{"role": "user", "content": prompt}],
                **service.parameters,
            )
            return read_reply(raw.http_response.text)
    except openai.APIStatusError as error:
        message = at(error.body, "message") or error.message  # else with the whole body
        return _refusal(error.status_code, str(message), error.response.headers, error.body)
    except openai.APITimeoutError as error:
        return Said(cause="timeout", message=f"{error.message} {error.__cause__ or ''}")
    except openai.APIConnectionError as error:
        return Said(cause=Cause.SERVICE_DOWN, message=f"{error.message} {error.__cause__ or ''}")
    except openai.OpenAIError as error:
        return Said(cause=cause_of(str(error)) or Cause.FAILED, message=str(error))


def _refusal(status: int, message: str, headers: Mapping[str, str], error: object = None) -> Said:
    """`error` may have a code and a type: "insufficient_quota" need not be in the message."""
    named = [word for word in (at(error, "code"), at(error, "type")) if isinstance(word, str)]
    cause = cause_of(" ".join((message, *named)), status) or Cause.FAILED
    waits = cause in (Cause.RATE_LIMITED, Cause.SERVICE_DOWN)  # a 503 can have a Retry-After too
    wait_s = asked_wait_s(headers, message) if waits else None
    return Said(cause=cause, message=message, retry_after_s=wait_s)


def asked_wait_s(headers: Mapping[str, str], message: str) -> float | None:
    """Seconds to wait: Retry-After is a number of them or a date (RFC 9110, 10.2.3); else what the
    message says. At least one, as 0 means that waiting mends nothing."""
    given = headers.get("retry-after", "")
    wait_s: float | None
    try:
        wait_s = float(given)
    except ValueError:
        try:
            wait_s = parsedate_to_datetime(given).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            wait_s = retry_after_s(message)
    if wait_s is None or math.isnan(wait_s):
        return None
    return min(max(wait_s, 1.0), LONGEST_WAIT_S)


def read_reply(text: str) -> Said:
    """A chat completion. Whatever else it is, is a failure of the service."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        return _malformed("no JSON", text)
    if (error := at(body, "error")) is not None:  # OpenRouter sends it with status 200
        message = str(at(error, "message") or error or "no reason was given")
        code = at(error, "code")
        return _refusal(code if isinstance(code, int) else 200, message, {}, error)
    choice = _first(at(body, "choices"))
    if not isinstance(at(choice, "message"), Mapping):
        return _malformed("no chat completion", text)
    said = Said(
        text=_content(at(choice, "message", "content")),
        tokens_in=_count(at(body, "usage", "prompt_tokens")),
        tokens_out=_count(at(body, "usage", "completion_tokens")),
        usd=_amount(at(body, "usage", "cost")),
    )
    why = _cut_off(at(choice, "finish_reason"), at(choice, "message", "refusal"))
    return replace(said, cause="bad edit", message=why) if why else said


def _cut_off(reason: object, refusal: object) -> str:
    """Why an answer is not whole, where it is not."""
    if reason == "length":
        return (
            "the answer was cut off by the limit of tokens: think and write less, or raise "
            "[agent.llm] max_tokens"
        )
    if reason == "content_filter":
        return "the service's content filter cut the answer off"
    return f"the model refused: {refusal}" if isinstance(refusal, str) and refusal else ""


def _malformed(what: str, text: str) -> Said:
    return Said(cause=Cause.SERVICE_DOWN, message=f"the reply is {what}: {text[:200]!r}")


def _first(value: object) -> object:
    return value[0] if isinstance(value, list) and value else None


def _content(value: object) -> str:
    """The text of a message: one, or a list of parts."""
    if isinstance(value, list):
        return "".join(part for part in (at(one, "text") for one in value) if isinstance(part, str))
    return value if isinstance(value, str) else ""


def _count(value: object) -> int | None:
    plausible = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**48
    return int(value) if plausible else None  # type: ignore[call-overload]


def _amount(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value < 1e9 else None
