"""Call a model behind an OpenAI-compatible API once. Return the answer or the error as a value.

The client's own retries are off, because the harness waits between turns. The library is imported
only when an agent needs it: the import takes 0.75 s.
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

from autoresearch.agents.support.events import (
    MESSAGE_LENGTH,
    Cause,
    as_list,
    at,
    cause_of,
    retry_after_s,
    sum_dollars,
    sum_tokens,
)
from autoresearch.errors import AgentError
from autoresearch.formatting import printable
from autoresearch.records import SERVICE_REASONS
from autoresearch.sandbox.secrets import Secret, mask, secrets_in

LIBRARY = "openai"
INSTALL = "pip install 'autoresearch[llm]'"
NO_KEY = "none"  # for a local server: the client insists on a key
CONNECT_S = 30.0
LONGEST_WAIT_S = 86_400.0  # a longer wait that a service asks for is cut to this


@dataclass(frozen=True, slots=True)
class Service:
    """A model and its address."""

    model: str
    base_url: str
    key: str | None = field(default=None, repr=False)
    parameters: Mapping[str, float] = field(default_factory=dict)  # such as temperature
    key_env: str = "key"  # the variable that holds it

    @property
    def secrets(self) -> list[Secret]:
        """The key, and a password in the address. They must not get into the record."""
        env = {self.key_env: self.key or "", "base_url": self.base_url}
        return secrets_in(env, (self.key_env,))

    @property
    def place(self) -> str:
        """The address for people: without a password or a key."""
        parts = urlsplit(self.base_url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, or an error with its `cause`."""

    text: str = ""
    tokens_in: int | None = None
    tokens_out: int | None = None
    usd: float | None = None  # by the service
    cause: str | None = None
    message: str = ""
    retry_after_s: float | None = None

    @property
    def tokens(self) -> int | None:
        return sum_tokens(self.tokens_in, self.tokens_out)


def library() -> ModuleType:
    """Import the client library. Raises `AgentError` if it is missing."""
    try:
        import openai
    except ImportError as error:
        raise AgentError(f"llm: needs the library {LIBRARY!r}: {INSTALL} ({error})") from None
    return openai


class Caller:
    """Makes one call at a time."""

    def __init__(self) -> None:
        self._running: tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]] | None = None
        self._interrupted = False

    def call(self, service: Service, prompt: str, timeout_s: float | None) -> Reply:
        """Send the prompt and return the reply. Errors of the service are replies, too.

        `timeout_s` is for the whole call, also when the answer arrives byte by byte."""
        self._interrupted = False
        reply = asyncio.run(self._call(service, prompt, timeout_s))
        message = " ".join(printable(mask(reply.message, service.secrets)).split())
        return replace(reply, message=message[:MESSAGE_LENGTH])

    def interrupt(self) -> None:
        """End the present call, from another thread or a signal handler."""
        self._interrupted = True
        if (running := self._running) is not None:
            loop, task = running
            with suppress(RuntimeError):  # it has just ended by itself
                loop.call_soon_threadsafe(task.cancel)

    async def _call(self, service: Service, prompt: str, timeout_s: float | None) -> Reply:
        task = asyncio.current_task()
        assert task is not None
        self._running = (asyncio.get_running_loop(), task)
        try:
            async with asyncio.timeout(timeout_s):
                return await _send(service, prompt, timeout_s)
        except TimeoutError:
            return Reply(cause="timeout", message=f"no answer within {timeout_s:g} s")
        except asyncio.CancelledError:
            if not self._interrupted:
                raise
            return Reply(cause="interrupted", message="was stopped: interrupted")
        finally:
            self._running = None


async def _send(service: Service, prompt: str, timeout_s: float | None) -> Reply:
    """Send the prompt. Read the reply from its text, because many services do not send what the
    client's types declare."""
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
        return _read_error(error.status_code, str(message), error.response.headers, error.body)
    except openai.APITimeoutError as error:
        return Reply(cause="timeout", message=f"{error.message} {error.__cause__ or ''}")
    except openai.APIConnectionError as error:
        return Reply(cause=Cause.SERVICE_DOWN, message=f"{error.message} {error.__cause__ or ''}")
    except openai.OpenAIError as error:
        return Reply(cause=cause_of(str(error)) or Cause.FAILED, message=str(error))


def _read_error(
    status: int, message: str, headers: Mapping[str, str], error: object = None
) -> Reply:
    """Return the reply for an error. Its code and type count: "insufficient_quota" may be in them
    and not in the message."""
    words = [word for word in (at(error, "code"), at(error, "type")) if isinstance(word, str)]
    cause = cause_of(" ".join((message, *words)), status) or Cause.FAILED
    wait_s = read_wait_s(headers, message) if cause in SERVICE_REASONS else None
    return Reply(cause=cause, message=message, retry_after_s=wait_s)


def read_wait_s(headers: Mapping[str, str], message: str) -> float | None:
    """Return the seconds to wait: Retry-After is a number of them or a date (RFC 9110, 10.2.3);
    else the message may have them. At least one, because 0 means that waiting does not help."""
    header = headers.get("retry-after", "")
    wait_s: float | None
    try:
        wait_s = float(header)
    except ValueError:
        try:
            wait_s = parsedate_to_datetime(header).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            wait_s = retry_after_s(message)
    if wait_s is None or math.isnan(wait_s):
        return None
    return min(max(wait_s, 1.0), LONGEST_WAIT_S)


def read_reply(text: str) -> Reply:
    """Read a chat completion. Any other text is a failure of the service."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        return _reject("no JSON", text)
    if (error := at(body, "error")) is not None:  # OpenRouter sends it with status 200
        message = str(at(error, "message") or error or "no reason was given")
        code = at(error, "code")
        return _read_error(code if isinstance(code, int) else 200, message, {}, error)
    choice = next(iter(as_list(at(body, "choices"))), None)
    if not isinstance(at(choice, "message"), Mapping):
        return _reject("no chat completion", text)
    content = at(choice, "message", "content")  # a text, or a list of parts
    parts = [at(part, "text") for part in content] if isinstance(content, list) else [content]
    reply = Reply(
        text="".join(part for part in parts if isinstance(part, str)),
        tokens_in=sum_tokens(at(body, "usage", "prompt_tokens")),
        tokens_out=sum_tokens(at(body, "usage", "completion_tokens")),
        usd=sum_dollars(at(body, "usage", "cost")),
    )
    reason = _incomplete(at(choice, "finish_reason"), at(choice, "message", "refusal"))
    return replace(reply, cause="bad edit", message=reason) if reason else reply


def _incomplete(finish_reason: object, refusal: object) -> str:
    """Return why an answer is incomplete; an empty text if it is complete."""
    if finish_reason == "length":
        return (
            "the answer was cut off by the limit of tokens: think and write less, or raise "
            "[agent.llm] max_tokens"
        )
    if finish_reason == "content_filter":
        return "the service's content filter cut the answer off"
    return f"the model refused: {refusal}" if isinstance(refusal, str) and refusal else ""


def _reject(what: str, text: str) -> Reply:
    return Reply(cause=Cause.SERVICE_DOWN, message=f"the reply is {what}: {text[:200]!r}")
