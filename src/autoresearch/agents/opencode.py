"""OpenCode. `--agent opencode`, `--agent opencode:PROVIDER/MODEL`."""

from __future__ import annotations

from collections.abc import Sequence

from autoresearch.agents.support.events import Ended, at, dollars, events, failed, total, unknown
from autoresearch.agents.support.headless import Ask, Creator, Spec
from autoresearch.sandbox.agent_policy import Needs


def argv(ask: Ask) -> Sequence[str]:
    model = ("-m", ask.model) if ask.model else ()
    return ("opencode", "run", "--format", "json", "--auto", "--title", "autoresearch", *model)


def read_events(lines: Sequence[str]) -> Ended:
    """Steps, each with its tokens and cost; the last one's reason is "stop"."""
    text, tokens, usd, reason, error = "", None, None, None, None
    for event in events(lines):
        part = event.get("part")
        match event.get("type"):
            case "text":
                text = str(at(part, "text") or "")
            case "step_finish":
                reason = at(part, "reason")
                spent = at(part, "tokens")
                cached = (at(spent, "cache", "read"), at(spent, "cache", "write"))
                kinds = (at(spent, kind) for kind in ("input", "output", "reasoning"))
                tokens = total(tokens, *kinds, *cached)
                usd = dollars(usd, at(part, "cost"))
            case "error":
                error = event.get("error") or {}
    if error is not None:
        message = str(at(error, "data", "message") or at(error, "name") or "")
        status = at(error, "data", "statusCode")
        return Ended(tokens=tokens, usd=usd, **failed(message, status))
    if reason is None:
        return unknown(lines[-1:])
    if reason == "tool-calls":
        return Ended(tokens=tokens, usd=usd, **failed("it ended in the middle of its work"))
    return Ended(text=text, tokens=tokens, usd=usd)


create = Creator(
    Spec(
        name="opencode",
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
        needs=Needs(
            own=(
                "${XDG_CONFIG_HOME:-~/.config}/opencode/",
                "${XDG_DATA_HOME:-~/.local/share}/opencode/",
                "~/.local/state/opencode/",
                "${XDG_CACHE_HOME:-~/.cache}/opencode/",
            ),
            read=("${OPENCODE_CONFIG:-}",),
        ),
    )
)
