"""OpenCode. `--agent opencode`, `--agent opencode:PROVIDER/MODEL`."""

from __future__ import annotations

from collections.abc import Sequence

from autoresearch.agents.support.events import TurnResult, at, events, sum_dollars, sum_tokens
from autoresearch.agents.support.headless import Ask, Spec


def argv(ask: Ask) -> Sequence[str]:
    return (
        "opencode",
        "run",
        "--format",
        "json",
        "--auto",
        "--title",
        "autoresearch",
        *ask.model_option("-m"),
    )


def read_events(lines: Sequence[str]) -> TurnResult:
    """Steps, each with its tokens and cost. The reason of the last one is "stop"."""
    text, tokens, usd, reason, error = "", None, None, None, None
    for event in events(lines):
        part = event.get("part")
        match event.get("type"):
            case "text":
                text = str(at(part, "text") or "")
            case "step_finish":
                reason = at(part, "reason")
                paths = ("input", "output", "reasoning", "cache read", "cache write")
                usage = [at(part, "tokens", *path.split()) for path in paths]
                tokens = sum_tokens(tokens, *usage)
                usd = sum_dollars(usd, at(part, "cost"))
            case "error":
                error = event.get("error") or {}
    if error is not None:
        message = str(at(error, "data", "message") or at(error, "name") or "")
        return TurnResult.failure(message, at(error, "data", "statusCode"), tokens=tokens, usd=usd)
    if reason is None:
        return TurnResult.unknown(lines)
    if reason == "tool-calls":
        return TurnResult.failure("it ended in the middle of its work", tokens=tokens, usd=usd)
    return TurnResult(text, tokens=tokens, usd=usd)


create = Spec(
    program="opencode",
    install="npm install -g opencode-ai",
    argv=argv,
    read_events=read_events,
    login="Log in with `opencode auth login`",
    keys=(
        *("OPENCODE_CONFIG", "OPENCODE_API_KEY", "XDG_DATA_HOME", "ANTHROPIC_API_KEY"),
        *("OPENAI_API_KEY", "GEMINI_API_KEY", "OPENROUTER_API_KEY"),
    ),
    logins=("$XDG_DATA_HOME/opencode/auth.json", "~/.local/share/opencode/auth.json"),
    env={"OPENCODE_DISABLE_AUTOUPDATE": "1"},
    own=(
        "${XDG_CONFIG_HOME:-~/.config}/opencode/",
        "${XDG_DATA_HOME:-~/.local/share}/opencode/",
        "~/.local/state/opencode/",
        "${XDG_CACHE_HOME:-~/.cache}/opencode/",
    ),
    read=("${OPENCODE_CONFIG:-}",),
)
