"""OpenAI's Codex CLI. `--agent codex`, `--agent codex:MODEL`.

Its own sandbox is off on Linux, where the harness has one, and where it needs rights that a
container rarely has.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from autoresearch.agents.support.events import Ended, at, events, failed, total, unknown
from autoresearch.agents.support.headless import Ask, Creator, Spec
from autoresearch.sandbox.agent_policy import Needs


def argv(ask: Ask) -> Sequence[str]:
    model = ("-m", ask.model) if ask.model else ()
    alone = ("--skip-git-repo-check", "--ephemeral")
    free = ("--dangerously-bypass-approvals-and-sandbox",)
    rules = ("--sandbox", "workspace-write") if sys.platform == "darwin" else free
    return ("codex", "exec", "--json", *alone, *rules, *model, "-")


def read_events(lines: Sequence[str]) -> Ended:
    """`turn.completed` or `turn.failed` ends the stream; an `error` before it may be a retry."""
    text, complaint, spent, ending = "", "", None, None
    for event in events(lines):
        match event.get("type"):
            case "item.completed" if at(event, "item", "type") == "agent_message":
                text = str(at(event, "item", "text") or "")
            case "error":
                complaint = str(event.get("message") or complaint)
            case "turn.completed" | "turn.failed" as kind:
                ending = kind
                complaint = str(at(event, "error", "message") or complaint)
                usage = event.get("usage")
                spent = total(at(usage, "input_tokens"), at(usage, "output_tokens"))
    if ending == "turn.completed":
        return Ended(text=text, tokens=spent)
    if complaint:
        return Ended(tokens=spent, **failed(complaint))
    return unknown(lines[-1:])


create = Creator(
    Spec(
        name="codex",
        program="codex",
        install="npm install -g @openai/codex",
        argv=argv,
        read_events=read_events,
        login="Log in with `codex login`, or set CODEX_API_KEY",
        keys=("CODEX_API_KEY", "OPENAI_API_KEY", "CODEX_HOME"),
        needs=Needs(own=("${CODEX_HOME:-~/.codex}/",)),
        logins=("$CODEX_HOME/auth.json", "~/.codex/auth.json"),
    )
)
