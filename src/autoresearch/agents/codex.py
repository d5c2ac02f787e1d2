"""OpenAI's Codex CLI. `--agent codex`, `--agent codex:MODEL`.

Its own sandbox is off on Linux: the harness has one, and Codex's needs rights that a container
rarely has.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from autoresearch.agents.support.events import TurnResult, at, events, sum_tokens
from autoresearch.agents.support.headless import Ask, Spec


def argv(ask: Ask) -> Sequence[str]:
    sandbox = ("--dangerously-bypass-approvals-and-sandbox",)
    if sys.platform == "darwin":
        sandbox = ("--sandbox", "workspace-write")
    once = ("--skip-git-repo-check", "--ephemeral")
    return ("codex", "exec", "--json", *once, *sandbox, *ask.model_option("-m"), "-")


def read_events(lines: Sequence[str]) -> TurnResult:
    """`turn.completed` or `turn.failed` ends the stream; an `error` before it may be a retry."""
    text, complaint, tokens, ending = "", "", None, None
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
                tokens = sum_tokens(at(usage, "input_tokens"), at(usage, "output_tokens"))
    if ending == "turn.completed":
        return TurnResult(text, tokens=tokens)
    return TurnResult.failure(complaint, tokens=tokens) if complaint else TurnResult.unknown(lines)


create = Spec(
    program="codex",
    install="npm install -g @openai/codex",
    argv=argv,
    read_events=read_events,
    login="Log in with `codex login`, or set CODEX_API_KEY",
    keys=("CODEX_API_KEY", "OPENAI_API_KEY", "CODEX_HOME"),
    own=("${CODEX_HOME:-~/.codex}/",),
    logins=("$CODEX_HOME/auth.json", "~/.codex/auth.json"),
)
