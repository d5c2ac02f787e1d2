"""Any model behind an API: one call a turn, edits by search and replace. `--agent llm:MODEL`.

    llm:gpt-5-mini             OpenAI's, or of the server that OPENAI_BASE_URL names
    llm:ollama/qwen3:8b        a provider of PROVIDERS: its address, and the variable of its key
    [agent.llm] base_url       any other OpenAI-compatible server; the model's name goes as it is

The model sees the briefing and the editable files, and answers once. An answer that cannot be
applied exactly costs the turn, and its reason is told in the next briefing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlsplit

from autoresearch.agents.support import edits
from autoresearch.agents.support.availability import About
from autoresearch.agents.support.chat import INSTALL, LIBRARY, Caller, Said, Service, library
from autoresearch.agents.support.events import MESSAGE_LENGTH, Cause
from autoresearch.agents.support.headless import FATAL, first_line
from autoresearch.agents.support.secrets import leaked, mask
from autoresearch.errors import AgentError, ServiceRefusal
from autoresearch.formatting import printable
from autoresearch.protocols import Failure, Proposal, Turn
from autoresearch.task import values
from autoresearch.task.tables import read_options
from autoresearch.task.values import Kind

SHOWN_LENGTH = 400_000  # characters of the editable files, where the briefing has them not
SMALL_LENGTH = 500  # a file of no more may be in the briefing by chance: it is shown anyway
NOTE_LENGTH = 1_000
HINTS: Mapping[str, str] = {
    Cause.KEY_REFUSED: "check the key and its variable ([agent.llm] key_env)",
    Cause.UNKNOWN_MODEL: "check the model's name and [agent.llm] base_url",
    Cause.NO_CREDIT: "waiting does not help: add credit to the account, or set [agent] fallback",
}


@dataclass(frozen=True, slots=True)
class Provider:
    base_url: str
    key_env: str | None  # the variable that holds the key; None: it wants none


PROVIDERS = {
    "anthropic": Provider("https://api.anthropic.com/v1/", "ANTHROPIC_API_KEY"),
    "gemini": Provider(
        "https://generativelanguage.googleapis.com/v1beta/openai/", "GEMINI_API_KEY"
    ),
    "ollama": Provider("http://localhost:11434/v1/", None),
    "openai": Provider("https://api.openai.com/v1/", "OPENAI_API_KEY"),
    "openrouter": Provider("https://openrouter.ai/api/v1/", "OPENROUTER_API_KEY"),
}
"""The OpenAI-compatible endpoints that each of them documents."""

ABOUT = About(
    library=LIBRARY,
    install=INSTALL,
    login="Set the variable of the provider's key, or run a local server",
    keys=tuple(one.key_env for one in PROVIDERS.values() if one.key_env),
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
    chosen = read_options(Settings, "llm", {**options, "model": argument} if argument else options)
    prices = (chosen.usd_per_million_in, chosen.usd_per_million_out)
    if prices.count(None) == 1:
        raise AgentError("llm: give both usd_per_million_in and usd_per_million_out, or neither")
    if chosen.model is None:
        raise AgentError("llm: which model? Expected llm:MODEL, or [agent.llm] model")
    library()  # refused before there is a session, if it is missing
    return Llm(chosen.model, _service(chosen, chosen.model), prices, chosen.timeout_s)


def _service(chosen: Settings, model: str) -> Service:
    """Where the model is, and the key for it."""
    prefix, slash, rest = model.partition("/")
    named, required = chosen.key_env, True
    key_env: str | None
    if chosen.base_url:
        base_url = chosen.base_url
        key_env, required = named or "OPENAI_API_KEY", named is not None
    elif slash and prefix in PROVIDERS:
        model, base_url = rest, PROVIDERS[prefix].base_url
        key_env = named or PROVIDERS[prefix].key_env
    elif "OPENAI_BASE_URL" in os.environ:
        address = {"base_url": os.environ["OPENAI_BASE_URL"]}
        base_url = read_options(Settings, "llm", address).base_url or ""
        key_env, required = named or "OPENAI_API_KEY", named is not None
    elif slash:
        raise AgentError(
            f"llm: no provider {prefix!r}; there are: {', '.join(PROVIDERS)}. For a server of your "
            "own set [agent.llm] base_url"
        )
    else:
        base_url, key_env = PROVIDERS["openai"].base_url, named or PROVIDERS["openai"].key_env
    if not model:
        raise AgentError(f"llm: which model of {prefix}? Expected llm:{prefix}/MODEL")
    # OpenAI's own newer models refuse `max_tokens`, other servers do not know its successor.
    own = urlsplit(base_url).hostname == "api.openai.com"
    limit = "max_completion_tokens" if own else "max_tokens"
    given: dict[str, float | None] = {"temperature": chosen.temperature, limit: chosen.max_tokens}
    parameters = {name: value for name, value in given.items() if value is not None}
    return Service(model, base_url, _key(key_env, required), parameters, key_env or "key")


def _key(name: str | None, required: bool) -> str | None:
    key = os.environ.get(name, "").strip() if name else ""
    if name and required and not key:
        raise AgentError(f"llm: the variable {name} is not set; it is to hold the key")
    if not re.fullmatch(r"[!-~]*", key):
        raise AgentError(f"llm: the variable {name} holds a character that no key can have")
    return key or None


# --------------------------------------------------------------------------------------------
# The agent


class Llm:
    wants_briefing = True
    probes = True  # a turn before the baseline finds a wrong key or name early

    def __init__(
        self,
        name: str,
        service: Service,
        prices: tuple[float | None, float | None] = (None, None),
        timeout_s: float | None = None,
    ) -> None:
        self.name = f"llm:{name}"
        self._service = service
        self._prices = prices  # dollars for a million tokens, in and out
        self._timeout_s = timeout_s
        self._caller = Caller()

    def propose(self, turn: Turn) -> Proposal | Failure | None:
        files = _editable_files(turn)
        limits = [s for s in (turn.timeout_s, self._timeout_s) if s is not None]
        said = self._caller.call(self._service, prompt(turn, files), min(limits, default=None))
        if said.cause is not None:
            return self._failure(said)
        try:
            answer = edits.parse(said.text)
            edited = edits.apply(files, answer.blocks)
        except edits.BadEdit as why:
            return self._fruitless("bad edit", str(why), said)
        if not edited:
            return self._fruitless("no change", f"its blocks change nothing: {said.text}", said)
        secrets = self._service.secrets
        if name := leaked(secrets, files.values(), edited.values()):
            return self._fruitless("secret", f"the edit holds the value of {name}", said)
        for path, data in edited.items():
            (turn.worktree / path).write_bytes(data)
        return Proposal(
            description=first_line(printable(mask(answer.description, secrets)))
            or f"edit of {', '.join(edited)}",
            hypothesis=printable(mask(answer.hypothesis, secrets))[:NOTE_LENGTH],
            notes=printable(mask(answer.notes, secrets))[:NOTE_LENGTH],
            tokens=said.tokens,
            usd=self._usd(said),
        )

    def interrupt(self) -> None:
        """End the call under way, from another thread; its turn ends as a `Failure`."""
        self._caller.interrupt()

    def _fruitless(self, reason: str, message: str, said: Said) -> Failure:
        """An answer that is no edit; waiting would not mend it."""
        message = printable(mask(message, self._service.secrets))[:MESSAGE_LENGTH]
        return Failure(reason, message, 0.0, said.tokens, self._usd(said))

    def _failure(self, said: Said) -> Failure:
        if said.cause in FATAL:
            raise ServiceRefusal(
                f"{self.name} at {self._service.place}: {said.cause}: {said.message}; "
                f"{HINTS[said.cause]}",
                tokens=said.tokens,
                usd=self._usd(said),
            )
        wait_s = said.retry_after_s
        if said.cause in ("interrupted", "bad edit"):
            wait_s = 0.0  # nothing that waiting would mend
        return Failure(str(said.cause), said.message, wait_s, said.tokens, self._usd(said))

    def _usd(self, said: Said) -> float | None:
        """By the prices of the task file; else as the service says."""
        per_in, per_out = self._prices
        if per_in is None or per_out is None:
            return said.usd
        if said.tokens is None:
            return None
        return ((said.tokens_in or 0) * per_in + (said.tokens_out or 0) * per_out) / 1e6


def _editable_files(turn: Turn) -> dict[str, bytes]:
    """Those that are regular files: a link could lead out of the worktree."""
    paths = {name: turn.worktree / name for name in turn.editable}
    return {
        name: path.read_bytes()
        for name, path in paths.items()
        if path.is_file() and not path.is_symlink()
    }


def prompt(turn: Turn, files: Mapping[str, bytes]) -> str:
    """The briefing, the files as far as it does not show them already, and how to answer."""
    sources, left = [], SHOWN_LENGTH
    for name, data in files.items():
        text = data.decode(errors="replace").replace("\r\n", "\n")
        if len(text) > SMALL_LENGTH and text.strip() in turn.briefing:
            continue
        sources.append(_shown(name, text) if len(text) <= left else f"{name}: too large to show\n")
        left -= len(text) if len(text) <= left else 0
    head = "\n## The files you may edit, as they are now\n\n" if sources else ""
    editable = ", ".join(files) or "nothing"
    how = edits.FORMAT.format(example=next(iter(files), "train.py"), editable=editable)
    return f"{turn.briefing}\n{head}{chr(10).join(sources)}{how}"


def _shown(name: str, text: str) -> str:
    """A file between fences that are longer than any in it."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{name}\n{fence}\n{text.removesuffix(chr(10))}\n{fence}\n"
