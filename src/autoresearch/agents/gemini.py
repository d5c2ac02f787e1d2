"""Gemini CLI. `--agent gemini`, `--agent gemini:MODEL`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from autoresearch.agents.support.events import TurnResult, at, last_document, sum_tokens
from autoresearch.agents.support.headless import Ask, Spec


def argv(ask: Ask) -> Sequence[str]:
    return ("gemini", "--yolo", "--skip-trust", "-o", "json", *ask.model_option("-m"))


def read_events(lines: Sequence[str]) -> TurnResult:
    """One object: `response` and `stats`, or `error`."""
    output = last_document(lines)
    models = at(output, "stats", "models")
    usages = models.values() if isinstance(models, Mapping) else ()
    tokens = sum_tokens(*(at(usage, "tokens", "total") for usage in usages))
    if (error := at(output, "error")) is not None:
        return TurnResult.failure(str(at(error, "message")), at(error, "code"), tokens=tokens)
    if (response := at(output, "response")) is None:
        return TurnResult.unknown(lines)
    return TurnResult(str(response), tokens=tokens)


create = Spec(
    program="gemini",
    install="npm install -g @google/gemini-cli",
    argv=argv,
    read_events=read_events,
    login="Log in with `gemini`, or set GEMINI_API_KEY",
    keys=(
        *("GEMINI_API_KEY", "GOOGLE_API_KEY", "GOOGLE_GEMINI_BASE_URL", "GEMINI_CLI_HOME"),
        *("GOOGLE_GENAI_USE_VERTEXAI", "GOOGLE_CLOUD_PROJECT", "GOOGLE_CLOUD_LOCATION"),
        "GOOGLE_APPLICATION_CREDENTIALS",
    ),
    own=("${GEMINI_CLI_HOME:-~}/.gemini/",),
    read=("${GOOGLE_APPLICATION_CREDENTIALS:-}",),
    logins=("$GEMINI_CLI_HOME/.gemini/oauth_creds.json", "~/.gemini/oauth_creds.json"),
)
