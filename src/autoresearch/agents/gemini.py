"""Gemini CLI. `--agent gemini`, `--agent gemini:MODEL`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from autoresearch.agents.support.events import Ended, at, document, failed, total, unknown
from autoresearch.agents.support.headless import Ask, Creator, Spec
from autoresearch.sandbox.agent_policy import Needs


def argv(ask: Ask) -> Sequence[str]:
    model = ("-m", ask.model) if ask.model else ()
    return ("gemini", "--yolo", "--skip-trust", "-o", "json", *model)


def read_events(lines: Sequence[str]) -> Ended:
    """One object: `response` and `stats`, or `error`."""
    found = document(lines)
    models = at(found, "stats", "models")
    told = models.values() if isinstance(models, Mapping) else ()
    tokens = total(*(at(model, "tokens", "total") for model in told))
    if (error := at(found, "error")) is not None:
        return Ended(tokens=tokens, **failed(str(at(error, "message")), at(error, "code")))
    if (response := at(found, "response")) is None:
        return unknown(lines[-1:])
    return Ended(text=str(response), tokens=tokens)


create = Creator(
    Spec(
        name="gemini",
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
        needs=Needs(
            own=("${GEMINI_CLI_HOME:-~}/.gemini/",), read=("${GOOGLE_APPLICATION_CREDENTIALS:-}",)
        ),
        logins=("$GEMINI_CLI_HOME/.gemini/oauth_creds.json", "~/.gemini/oauth_creds.json"),
    )
)
