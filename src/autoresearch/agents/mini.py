"""mini-swe-agent. `--agent mini`, `--agent mini:PROVIDER/MODEL`."""

from __future__ import annotations

from collections.abc import Sequence

from autoresearch.agents.support.events import (
    TurnResult,
    as_list,
    at,
    last_document,
    sum_dollars,
    sum_tokens,
)
from autoresearch.agents.support.headless import Ask, Spec

TRAJECTORY = "trajectory.json"


def argv(ask: Ask) -> Sequence[str]:
    report = ("-o", str(ask.folder / TRAJECTORY))
    return ("mini", "-y", "--exit-immediately", *report, *ask.model_option("-m"), "-t", ask.prompt)


def read_events(lines: Sequence[str]) -> TurnResult:
    """A trajectory: `info` has the result, each message its tokens."""
    trajectory = last_document(lines)
    info = at(trajectory, "info")
    status = at(info, "exit_status")
    if status is None:
        return TurnResult.unknown(lines)
    messages = as_list(at(trajectory, "messages")) or [None]
    usages = [at(message, "extra", "response", "usage") for message in messages]
    tokens = sum_tokens(*(at(usage, "total_tokens") for usage in usages))
    usd = sum_dollars(at(info, "model_stats", "instance_cost")) or None  # 0.0 means unknown
    if status != "Submitted":
        error = at(messages[-1], "extra", "exception_str")  # None: the content may be a model's
        complaint = f"{status}: {error or at(messages[-1], 'content') or ''}"
        return TurnResult.failure(complaint, is_error=error is not None, tokens=tokens, usd=usd)
    return TurnResult(str(at(info, "submission") or ""), tokens=tokens, usd=usd)


create = Spec(
    program="mini",
    install="pip install mini-swe-agent mcp",
    argv=argv,
    read_events=read_events,
    login="Set the provider's key with `mini-extra config`",
    keys=(
        *("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "GEMINI_API_KEY", "OPENROUTER_API_KEY"),
        *("OPENAI_API_BASE", "MSWEA_MODEL_NAME", "MSWEA_GLOBAL_CONFIG_DIR"),
        "LITELLM_LOCAL_MODEL_COST_MAP",
    ),
    logins=("$MSWEA_GLOBAL_CONFIG_DIR/.env", "~/.config/mini-swe-agent/.env"),
    env={
        "MSWEA_CONFIGURED": "true",
        "MSWEA_COST_TRACKING": "ignore_errors",
        "MSWEA_MODEL_RETRY_STOP_AFTER_ATTEMPT": "3",  # not 10: the harness waits
    },
    report=TRAJECTORY,
    own=(
        "${XDG_CONFIG_HOME:-~/.config}/mini-swe-agent/",
        "${MSWEA_GLOBAL_CONFIG_DIR:-~/.config/mini-swe-agent}/",
    ),
)
