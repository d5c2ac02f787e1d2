"""Qwen Code. `--agent qwen`, `--agent qwen:MODEL`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from autoresearch.agents.support.events import Ended, at, document, failed, items, result, unknown
from autoresearch.agents.support.headless import Ask, Creator, Spec
from autoresearch.sandbox.agent_policy import Needs


def argv(ask: Ask) -> Sequence[str]:
    model = ("-m", ask.model) if ask.model else ()
    return ("qwen", "--yolo", "-o", "json", *model)


def read_events(lines: Sequence[str]) -> Ended:
    """An array of messages; the last is `{"type": "result"}`. It ends with success even when its
    service failed: then its last message, of no tokens, is the complaint."""
    found = document(lines)
    *_, message, last = [None, None, *items(found)]
    if at(last, "type") != "result":
        return unknown(lines[-1:])
    ended = result(last)
    silent = at(message, "message", "usage", "output_tokens") == 0
    if silent and ended.text.startswith("[API Error: "):
        return replace(ended, **failed(ended.text))
    return ended


create = Creator(
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
