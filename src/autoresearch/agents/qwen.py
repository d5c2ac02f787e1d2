"""Qwen Code. `--agent qwen`, `--agent qwen:MODEL`."""

from __future__ import annotations

from collections.abc import Sequence

from autoresearch.agents._events import Ended, document, result, unknown
from autoresearch.agents._headless import Ask, Spec, creator
from autoresearch.agents._reach import Needs


def argv(ask: Ask) -> Sequence[str]:
    model = ("-m", ask.model) if ask.model else ()
    return ("qwen", "--yolo", "-o", "json", *model)


def read_events(lines: Sequence[str]) -> Ended:
    """An array of messages; the last is `{"type": "result"}`."""
    found = document(lines)
    last = found[-1] if isinstance(found, list) and found else None
    if isinstance(last, dict) and last.get("type") == "result":
        return result(last)
    return unknown(lines[-1:])


create = creator(
    Spec(
        name="qwen",
        program="qwen",
        install="npm install -g @qwen-code/qwen-code",
        argv=argv,
        read_events=read_events,
        login="Log in with `qwen`, or set OPENAI_API_KEY, OPENAI_BASE_URL and OPENAI_MODEL",
        keys=("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_MODEL", "DASHSCOPE_API_KEY"),
        needs=Needs(own=("~/.qwen/",)),
        logins=("~/.qwen/oauth_creds.json",),
    )
)
