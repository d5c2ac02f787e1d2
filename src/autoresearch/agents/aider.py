"""aider, a pair programmer. `--agent aider`, `--agent aider:MODEL`. It prints text, not events."""

from __future__ import annotations

import re
from collections.abc import Sequence

from autoresearch.agents._events import Ended, dollars, failed, total, unknown
from autoresearch.agents._headless import Ask, Spec, creator
from autoresearch.agents._reach import Needs

QUIET = (
    *("--yes-always", "--no-auto-commits", "--no-check-update", "--no-show-release-notes"),
    *("--no-analytics", "--no-show-model-warnings", "--no-stream", "--no-pretty"),
    *("--no-fancy-input", "--no-gitignore", "--map-tokens", "0", "--no-detect-urls"),
    *("--chat-history-file", "/dev/null", "--input-history-file", "/dev/null"),
)
NUMBER = r"(\d[\d,]*(?:\.\d+)?)"
SPENT = re.compile(rf"^Tokens: {NUMBER}(k|M)? sent,.*?{NUMBER}(k|M)? received")
COST = re.compile(rf"Cost: \${NUMBER} message")
COMPLAINT = re.compile(r"^(?:litellm\.\w+:|litellm\.\S*Error|The API provider|Model .* not found)")
UNITS = {"": 1, "k": 1_000, "M": 1_000_000}
BANNER = re.compile(r"^(Aider v|Main model:|Weak model:|Model:|Git repo:|Repo-map:|Added |─)")


def argv(ask: Ask) -> Sequence[str]:
    model = ("--model", ask.model) if ask.model else ()
    return ("aider", *QUIET, *model, "--message-file", str(ask.prompt_file), *ask.editable)


def read_events(lines: Sequence[str]) -> Ended:
    """A line of tokens after every answer; the text is the answer's first line."""
    tokens, usd, text, complaint = None, None, "", ""
    for line in lines:
        if found := SPENT.match(line):
            sent, received = _number(found[1], found[2]), _number(found[3], found[4])
            tokens = total(tokens, sent, received)
            if cost := COST.search(line):
                usd = dollars(usd, _number(cost[1]))
        elif COMPLAINT.match(line):
            complaint = complaint or line
        elif not text and not BANNER.match(line):
            text = line
    if tokens is None:
        return Ended(**failed(complaint)) if complaint else unknown(lines[-1:])
    return Ended(text=text, tokens=tokens, usd=usd)


def _number(digits: str, unit: str | None = None) -> float:
    return float(digits.replace(",", "")) * UNITS[unit or ""]


create = creator(
    Spec(
        name="aider",
        program="aider",
        install="pip install aider-chat",
        argv=argv,
        read_events=read_events,
        login="Set the provider's key and name it in [agent.aider] env",
        keys=(
            *("OPENAI_API_KEY", "OPENAI_API_BASE", "ANTHROPIC_API_KEY", "GEMINI_API_KEY"),
            *("OPENROUTER_API_KEY", "DEEPSEEK_API_KEY", "AIDER_MODEL"),
            "LITELLM_LOCAL_MODEL_COST_MAP",
        ),
        needs=Needs(own=("~/.aider/", "~/.aider*")),
    )
)
