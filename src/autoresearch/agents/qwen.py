"""Qwen Code. `--agent qwen`, `--agent qwen:MODEL`."""

from __future__ import annotations

from collections.abc import Sequence

from autoresearch.agents.support.events import TurnResult, as_list, at, last_document, read_result
from autoresearch.agents.support.headless import Ask, Spec


def argv(ask: Ask) -> Sequence[str]:
    return ("qwen", "--yolo", "-o", "json", *ask.model_option("-m"))


def read_events(lines: Sequence[str]) -> TurnResult:
    """An array of messages; the last is `{"type": "result"}`. It reports success even when its
    service failed: then the message before it, of no tokens, is the complaint."""
    *_, message, last = [None, None, *as_list(last_document(lines))]
    if at(last, "type") != "result":
        return TurnResult.unknown(lines)
    result = read_result(last)
    tokens = at(message, "message", "usage", "output_tokens")
    if tokens == 0 and result.text.startswith("[API Error: "):
        return TurnResult.failure(result.text, tokens=result.tokens, usd=result.usd)
    return result


create = Spec(
    program="qwen",
    install="npm install -g @qwen-code/qwen-code",
    argv=argv,
    read_events=read_events,
    login="Log in with `qwen`, or set OPENAI_API_KEY, OPENAI_BASE_URL and OPENAI_MODEL",
    keys=("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_MODEL", "DASHSCOPE_API_KEY"),
    own=("~/.qwen/",),
    logins=("~/.qwen/oauth_creds.json",),
)
