"""pi, a small coding agent. `--agent pi`, `--agent pi:PROVIDER/MODEL`."""

from __future__ import annotations

from collections.abc import Sequence

from autoresearch.agents.support.events import (
    TurnResult,
    as_list,
    at,
    events,
    sum_dollars,
    sum_tokens,
)
from autoresearch.agents.support.headless import Ask, Spec


def argv(ask: Ask) -> Sequence[str]:
    provider, slash, model = (ask.model or "").rpartition("/")
    choice = (*(("--provider", provider) if slash else ()), *(("--model", model) if model else ()))
    return ("pi", "-p", "--mode", "json", "--no-session", "--offline", *choice)


def read_events(lines: Sequence[str]) -> TurnResult:
    """Each answer is a `message_end`; `agent_end` follows the last one, and another try may follow
    it. The exit code is 0 for every `stopReason`."""
    text, tokens, usd, last, is_complete = "", None, None, None, False
    for event in events(lines):
        message, kind = event.get("message"), event.get("type")
        is_complete = kind == "agent_end" or (is_complete and kind != "agent_start")
        if kind != "message_end" or at(message, "role") != "assistant":
            continue
        last = message
        tokens = sum_tokens(tokens, at(message, "usage", "totalTokens"))
        usd = sum_dollars(usd, at(message, "usage", "cost", "total"))
        parts = [at(part, "text") for part in as_list(at(message, "content"))]
        text = "\n".join(str(part) for part in parts if part) or text
    if last is None or not is_complete:
        return TurnResult.unknown(lines, tokens=tokens, usd=usd)
    if at(last, "stopReason") in ("error", "aborted"):
        return TurnResult.failure(str(at(last, "errorMessage") or ""), tokens=tokens, usd=usd)
    return TurnResult(text, tokens=tokens, usd=usd)


create = Spec(
    program="pi",
    install="npm install -g @mariozechner/pi-coding-agent",
    argv=argv,
    read_events=read_events,
    login="Log in with `/login` in `pi`, or set the provider's key and name it in [agent.pi] env",
    keys=(
        *("PI_CODING_AGENT_DIR", "ANTHROPIC_API_KEY", "OPENAI_API_KEY", "GEMINI_API_KEY"),
        *("OPENROUTER_API_KEY",),
    ),
    logins=("$PI_CODING_AGENT_DIR/auth.json", "~/.pi/agent/auth.json"),
    skip='{"type":"message_update"',  # the whole text so far, at every word
    own=("~/.pi/", "${PI_CODING_AGENT_DIR:-~/.pi/agent}/"),
)
