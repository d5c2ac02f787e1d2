"""Any model behind an API: one call a turn, edits by search and replace. `--agent llm:MODEL`.

    llm:gpt-5-mini             OpenAI, or the server that OPENAI_BASE_URL names
    llm:ollama/qwen3:8b        a provider of PROVIDERS: its address, and the variable of its key
    [agent.llm] base_url       any other OpenAI-compatible server; it gets the name unchanged

The model sees the briefing and the editable files, and answers once. An answer that cannot be
applied exactly costs the turn, and the next briefing tells why.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlsplit

from autoresearch.agents.support import edits
from autoresearch.agents.support.chat import INSTALL, LIBRARY, Caller, Reply, Service, library
from autoresearch.agents.support.events import MESSAGE_LENGTH, Cause
from autoresearch.agents.support.headless import FATAL, About, first_line
from autoresearch.errors import AgentError, ServiceRefusal
from autoresearch.formatting import printable
from autoresearch.protocols import Failure, Proposal, Turn
from autoresearch.sandbox.secrets import find_leak, mask
from autoresearch.task import values
from autoresearch.task.tables import read_options
from autoresearch.task.values import Kind

SHOWN_LENGTH = 400_000  # characters of the editable files that are not in the briefing
SMALL_LENGTH = 500  # a shorter file is always shown: the briefing may contain its text by chance
NOTE_LENGTH = 1_000
HINTS: Mapping[str, str] = {
    Cause.KEY_REFUSED: "check the key and its variable ([agent.llm] key_env)",
    Cause.UNKNOWN_MODEL: "check the model's name and [agent.llm] base_url",
    Cause.NO_CREDIT: "waiting does not help: add credit to the account, or set [agent] fallback",
}


@dataclass(frozen=True, slots=True)
class Provider:
    """An OpenAI-compatible endpoint from the provider's documentation."""

    base_url: str
    key_env: str | None  # the variable that holds the key; None if there is no key


PROVIDERS = {
    "anthropic": Provider("https://api.anthropic.com/v1/", "ANTHROPIC_API_KEY"),
    "gemini": Provider(
        "https://generativelanguage.googleapis.com/v1beta/openai/", "GEMINI_API_KEY"
    ),
    "ollama": Provider("http://localhost:11434/v1/", None),
    "openai": Provider("https://api.openai.com/v1/", "OPENAI_API_KEY"),
    "openrouter": Provider("https://openrouter.ai/api/v1/", "OPENROUTER_API_KEY"),
}

ABOUT = About(
    library=LIBRARY,
    install=INSTALL,
    login="Set the variable of the provider's key, or run a local server",
    keys=tuple(provider.key_env for provider in PROVIDERS.values() if provider.key_env),
)


# --------------------------------------------------------------------------------------------
# Settings


def _address(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
        raise ValueError("no such address")
    return value


ModelName = Annotated[
    str, Kind('the model\'s name, such as "gpt-5-mini"', values.matching(r"[!-~]+"))
]
Address = Annotated[
    str,
    Kind('an address such as "http://localhost:8000/v1"', values.after(_address, values.TEXT)),
]
VariableName = Annotated[
    str, Kind("the name of the variable that holds the key", values.matching(values.VARIABLE))
]
Temperature = Annotated[float, Kind("a number from 0 to 2", values.number(ge=0, le=2))]
Price = Annotated[float, Kind("a number of dollars, 0 or more", values.number(ge=0))]


@dataclass(frozen=True, slots=True)
class Settings:
    """`[agent.llm]`."""

    model: ModelName | None = None
    base_url: Address | None = None
    key_env: VariableName | None = None
    temperature: Temperature | None = None
    max_tokens: values.Count | None = None
    usd_per_million_in: Price | None = None
    usd_per_million_out: Price | None = None
    timeout_s: values.Duration | None = None


def create(argument: str | None, options: Mapping[str, object], seed: int) -> Llm:
    if argument:
        options = {**options, "model": argument}
    settings = read_options(Settings, "llm", options)
    if (settings.usd_per_million_in is None) != (settings.usd_per_million_out is None):
        raise AgentError("llm: give both usd_per_million_in and usd_per_million_out, or neither")
    if settings.model is None:
        raise AgentError("llm: which model? Expected llm:MODEL, or [agent.llm] model")
    library()  # a missing library is an error before the session begins
    return Llm(settings.model, _service(settings, settings.model), settings)


def _service(settings: Settings, model: str) -> Service:
    """Return the model's address and key."""
    prefix, slash, rest = model.partition("/")
    base_url, key_env = settings.base_url, settings.key_env
    needs_key = True
    if base_url is None and slash and prefix in PROVIDERS:
        model, provider = rest, PROVIDERS[prefix]
    elif base_url or "OPENAI_BASE_URL" in os.environ:
        address = {"base_url": base_url or os.environ["OPENAI_BASE_URL"]}
        base_url = read_options(Settings, "llm", address).base_url
        provider, needs_key = PROVIDERS["openai"], key_env is not None
    elif slash:
        raise AgentError(
            f"llm: no provider {prefix!r}; there are: {', '.join(PROVIDERS)}. For a server of your "
            "own set [agent.llm] base_url"
        )
    else:
        provider = PROVIDERS["openai"]
    if not model:
        raise AgentError(f"llm: which model of {prefix}? Expected llm:{prefix}/MODEL")
    base_url, key_env = base_url or provider.base_url, key_env or provider.key_env
    # OpenAI's own newer models refuse `max_tokens`, other servers do not know its successor.
    is_openai = urlsplit(base_url).hostname == "api.openai.com"
    limit = "max_completion_tokens" if is_openai else "max_tokens"
    parameters: dict[str, float] = {}
    if settings.temperature is not None:
        parameters["temperature"] = settings.temperature
    if settings.max_tokens is not None:
        parameters[limit] = settings.max_tokens
    return Service(model, base_url, _key(key_env, needs_key), parameters, key_env or "key")


def _key(name: str | None, is_required: bool) -> str | None:
    key = os.environ.get(name, "").strip() if name else ""
    if name and is_required and not key:
        raise AgentError(f"llm: the variable {name} is not set; it should hold the key")
    if not re.fullmatch(r"[!-~]*", key):
        raise AgentError(f"llm: the variable {name} holds a character that no key can have")
    return key or None


# --------------------------------------------------------------------------------------------
# The agent


class Llm:
    wants_briefing = True
    probes = True  # a turn before the baseline finds a wrong key or name early

    def __init__(self, name: str, service: Service, settings: Settings) -> None:
        self.name = f"llm:{name}"
        self._service = service
        self._settings = settings
        self._caller = Caller()

    def propose(self, turn: Turn) -> Proposal | Failure | None:
        files = _editable_files(turn)
        limits = [s for s in (turn.timeout_s, self._settings.timeout_s) if s is not None]
        reply = self._caller.call(self._service, prompt(turn, files), min(limits, default=None))
        if reply.cause is not None:
            return self._failure(reply)
        secrets = self._service.secrets
        try:
            answer = edits.parse(reply.text)
            edited = edits.apply(files, answer.blocks)
        except edits.BadEdit as error:
            return self._reject("bad edit", str(error), reply)
        if not edited:
            return self._reject("no change", f"its blocks change nothing: {reply.text}", reply)
        if name := find_leak(secrets, files.values(), edited.values()):
            return self._reject("secret", f"the edit holds the value of {name}", reply)
        for path, data in edited.items():
            (turn.worktree / path).write_bytes(data)
        texts = (answer.description, answer.hypothesis, answer.notes)
        description, hypothesis, notes = (printable(mask(text, secrets)) for text in texts)
        return Proposal(
            description=first_line(description) or f"edit of {', '.join(edited)}",
            hypothesis=hypothesis[:NOTE_LENGTH],
            notes=notes[:NOTE_LENGTH],
            tokens=reply.tokens,
            usd=self._usd(reply),
        )

    def interrupt(self) -> None:
        """End the present call, from another thread; its turn ends as a `Failure`."""
        self._caller.interrupt()

    def _reject(self, reason: str, message: str, reply: Reply) -> Failure:
        """Return the failure for an answer without a usable edit. Waiting does not help."""
        message = printable(mask(message, self._service.secrets))[:MESSAGE_LENGTH]
        return Failure(reason, message, 0.0, reply.tokens, self._usd(reply))

    def _failure(self, reply: Reply) -> Failure:
        if reply.cause in FATAL:
            raise ServiceRefusal(
                f"{self.name} at {self._service.place}: {reply.cause}: {reply.message}; "
                f"{HINTS[reply.cause]}",
                tokens=reply.tokens,
                usd=self._usd(reply),
            )
        # Waiting does not help against an interrupt or a bad edit.
        wait_s = 0.0 if reply.cause in ("interrupted", "bad edit") else reply.retry_after_s
        return Failure(str(reply.cause), reply.message, wait_s, reply.tokens, self._usd(reply))

    def _usd(self, reply: Reply) -> float | None:
        """Return the cost by the prices of the task file, or else by the service."""
        per_in, per_out = self._settings.usd_per_million_in, self._settings.usd_per_million_out
        if per_in is None or per_out is None:
            return reply.usd
        if reply.tokens is None:
            return None
        return ((reply.tokens_in or 0) * per_in + (reply.tokens_out or 0) * per_out) / 1e6


def _editable_files(turn: Turn) -> dict[str, bytes]:
    """Read the editable files. A link is left out: it could lead out of the worktree."""
    paths = {name: turn.worktree / name for name in turn.editable}
    return {
        name: path.read_bytes()
        for name, path in paths.items()
        if path.is_file() and not path.is_symlink()
    }


def prompt(turn: Turn, files: Mapping[str, bytes]) -> str:
    """Join the briefing, the files that it does not contain, and the format of the answer."""
    sources, room = [], SHOWN_LENGTH
    for name, data in files.items():
        text = data.decode(errors="replace").replace("\r\n", "\n")
        if len(text) > SMALL_LENGTH and text.strip() in turn.briefing:
            continue
        if len(text) > room:
            sources.append(f"{name}: too large to show\n")
        else:
            sources.append(_show_file(name, text))
            room -= len(text)
    head = "\n## The files you may edit, as they are now\n\n" if sources else ""
    editable = ", ".join(files) or "nothing"
    form = edits.FORMAT.format(example=next(iter(files), "train.py"), editable=editable)
    return f"{turn.briefing}\n{head}{chr(10).join(sources)}{form}"


def _show_file(name: str, text: str) -> str:
    """Put a file between fences that are longer than any fence in it."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{name}\n{fence}\n{text.removesuffix(chr(10))}\n{fence}\n"
