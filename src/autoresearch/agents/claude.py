"""Claude Code. `--agent claude`, `--agent claude:MODEL`.

It may read and edit files; it gets no shell. Written after its documentation.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from autoresearch.agents.support.events import (
    Ended,
    at,
    events,
    result,
    total,
    unknown,
    usage_tokens,
)
from autoresearch.agents.support.headless import Ask, Creator, Spec
from autoresearch.sandbox.agent_policy import Needs

TOOLS = "Read,Edit,Write,Glob,Grep"


def argv(ask: Ask) -> Sequence[str]:
    model = ("--model", ask.model) if ask.model else ()
    output = ("--output-format", "stream-json", "--verbose", "--no-session-persistence")
    rights = ("--permission-mode", "acceptEdits", "--allowedTools", TOOLS)
    # In whole cents within what is left, and at least one: a limit of 0 would be none.
    cents = max(1, math.floor(100 * ask.usd_left)) if ask.usd_left is not None else 0
    budget = ("--max-budget-usd", f"{cents / 100:.2f}") if cents else ()
    return ("claude", "-p", *output, *rights, *budget, *model)


def read_events(lines: Sequence[str]) -> Ended:
    """`{"type": "result"}` ends the stream, whatever came before; of one that was cut off, what its
    messages say they used."""
    found = events(lines)
    ends = [event for event in found if event.get("type") == "result"]
    return result(ends[-1]) if ends else replace(unknown(lines[-1:]), tokens=_used(found))


def _used(found: Iterable[Mapping[str, Any]]) -> int | None:
    """A message comes in several events, each with its usage so far: the last one counts."""
    usages = {
        str(at(event, "message", "id")): at(event, "message", "usage")
        for event in found
        if event.get("type") == "assistant"
    }
    return total(*(usage_tokens(usage) for usage in usages.values()))


create = Creator(
    Spec(
        name="claude",
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
        needs=Needs(own=("${CLAUDE_CONFIG_DIR:-~/.claude}/", "~/.claude.json")),
    )
)
