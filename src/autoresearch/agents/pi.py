"""pi, a small coding agent. `--agent pi`, `--agent pi:PROVIDER/MODEL`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from autoresearch.agents.support.events import (
    Ended,
    at,
    dollars,
    events,
    failed,
    items,
    total,
    unknown,
)
from autoresearch.agents.support.headless import Ask, Creator, Spec
from autoresearch.sandbox.agent_policy import Needs


def argv(ask: Ask) -> Sequence[str]:
    provider, slash, model = (ask.model or "").rpartition("/")
    chosen = (*(("--provider", provider) if slash else ()), *(("--model", model) if model else ()))
    return ("pi", "-p", "--mode", "json", "--no-session", "--offline", *chosen)


def read_events(lines: Sequence[str]) -> Ended:
    """Every answer is a `message_end`, and `agent_end` the last of them; after it another try may
    begin. It exits with 0 whatever the last one's `stopReason`."""
    text, tokens, usd, last, ended = "", None, None, None, False
    for event in events(lines):
        message, kind = event.get("message"), event.get("type")
        ended = kind == "agent_end" or (ended and kind != "agent_start")
        if kind != "message_end" or at(message, "role") != "assistant":
            continue
        last = message
        tokens = total(tokens, at(message, "usage", "totalTokens"))
        usd = dollars(usd, at(message, "usage", "cost", "total"))
        parts = [at(part, "text") for part in items(at(message, "content"))]
        text = "\n".join(str(part) for part in parts if part) or text
    if last is None or not ended:
        return replace(unknown(lines[-1:]), tokens=tokens, usd=usd)
    if at(last, "stopReason") in ("error", "aborted"):
        return Ended(tokens=tokens, usd=usd, **failed(str(at(last, "errorMessage") or "")))
    return Ended(text=text, tokens=tokens, usd=usd)


create = Creator(
    Spec(
        name="pi",
        program="pi",
        install="npm install -g @mariozechner/pi-coding-agent",
        argv=argv,
        read_events=read_events,
        login="Log in with `/login` in `pi`, or set the provider's key and name it in "
        "[agent.pi] env",
        keys=(
            *("PI_CODING_AGENT_DIR", "ANTHROPIC_API_KEY", "OPENAI_API_KEY", "GEMINI_API_KEY"),
            *("OPENROUTER_API_KEY",),
        ),
        logins=("$PI_CODING_AGENT_DIR/auth.json", "~/.pi/agent/auth.json"),
        skip='{"type":"message_update"',  # all it has said so far, again, at every word
        needs=Needs(own=("~/.pi/", "${PI_CODING_AGENT_DIR:-~/.pi/agent}/")),
    )
)
