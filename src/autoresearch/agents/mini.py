"""mini-swe-agent. `--agent mini`, `--agent mini:PROVIDER/MODEL`."""

from __future__ import annotations

from collections.abc import Sequence

from autoresearch.agents.support.events import (
    Ended,
    at,
    document,
    dollars,
    failed,
    items,
    total,
    unknown,
)
from autoresearch.agents.support.headless import Ask, Creator, Spec
from autoresearch.sandbox.agent_policy import Needs

TRAJECTORY = "trajectory.json"


def argv(ask: Ask) -> Sequence[str]:
    model = ("-m", ask.model) if ask.model else ()
    report = ("-o", str(ask.folder / TRAJECTORY))
    return ("mini", "-y", "--exit-immediately", *report, *model, "-t", ask.prompt)


def read_events(lines: Sequence[str]) -> Ended:
    """Its trajectory: `info` says how it ended, each message what it cost."""
    found = document(lines)
    info = at(found, "info")
    status = at(info, "exit_status")
    if status is None:
        return unknown(lines[-1:])
    messages = items(at(found, "messages")) or [None]
    usages = [at(message, "extra", "response", "usage") for message in messages]
    tokens = total(*(at(usage, "total_tokens") for usage in usages))
    usd = dollars(at(info, "model_stats", "instance_cost")) or None  # 0.0 where it does not know
    if status != "Submitted":
        error = at(messages[-1], "extra", "exception_str")  # None: the content may be a model's
        complaint = f"{status}: {error or at(messages[-1], 'content') or ''}"
        return Ended(tokens=tokens, usd=usd, **failed(complaint, own=error is not None))
    return Ended(text=str(at(info, "submission") or ""), tokens=tokens, usd=usd)


create = Creator(
    Spec(
        name="mini",
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
            "MSWEA_MODEL_RETRY_STOP_AFTER_ATTEMPT": "3",  # of 10: waiting is the harness's part
        },
        report=TRAJECTORY,
        needs=Needs(
            own=(
                "${XDG_CONFIG_HOME:-~/.config}/mini-swe-agent/",
                "${MSWEA_GLOBAL_CONFIG_DIR:-~/.config/mini-swe-agent}/",
            )
        ),
    )
)
