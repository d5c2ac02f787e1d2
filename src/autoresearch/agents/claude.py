"""Claude Code. `--agent claude`, `--agent claude:MODEL`.

It may read and edit files; it gets no shell. Tested on the event stream in its documentation only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from autoresearch.agents.support.events import (
    TurnResult,
    at,
    events,
    read_result,
    sum_tokens,
    usage_tokens,
)
from autoresearch.agents.support.headless import Ask, Spec

TOOLS = "Read,Edit,Write,Glob,Grep"


def argv(ask: Ask) -> Sequence[str]:
    output = ("--output-format", "stream-json", "--verbose", "--no-session-persistence")
    rights = ("--permission-mode", "acceptEdits", "--allowedTools", TOOLS)
    budget: tuple[str, ...] = ()
    if ask.usd_left is not None:  # in whole cents, at least one: 0 means no limit
        budget = ("--max-budget-usd", f"{max(1, math.floor(100 * ask.usd_left)) / 100:.2f}")
    return ("claude", "-p", *output, *rights, *budget, *ask.model_option("--model"))


def read_events(lines: Sequence[str]) -> TurnResult:
    """`{"type": "result"}` ends the stream. A stream that was cut off still has the messages'
    usage: the last event of each message counts."""
    usages = {}
    result = None
    for event in events(lines):
        if event.get("type") == "result":
            result = event
        elif event.get("type") == "assistant":
            usages[str(at(event, "message", "id"))] = at(event, "message", "usage")
    if result is not None:
        return read_result(result)
    return TurnResult.unknown(lines, tokens=sum_tokens(*map(usage_tokens, usages.values())))


create = Spec(
    program="claude",
    install="npm install -g @anthropic-ai/claude-code",
    argv=argv,
    read_events=read_events,
    login="Log in with `claude /login`, or set ANTHROPIC_API_KEY",
    keys=(
        *("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN"),
        *("ANTHROPIC_BASE_URL", "ANTHROPIC_MODEL", "CLAUDE_CONFIG_DIR"),
    ),
    logins=("$CLAUDE_CONFIG_DIR/.credentials.json", "~/.claude/.credentials.json"),
    env={"DISABLE_AUTOUPDATER": "1", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1"},
    temporary=("CLAUDE_CODE_TMPDIR",),
    own=("${CLAUDE_CONFIG_DIR:-~/.claude}/", "~/.claude.json"),
)
