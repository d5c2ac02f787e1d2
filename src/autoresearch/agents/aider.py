"""aider, a pair programmer. `--agent aider`, `--agent aider:MODEL`. It prints text, not events."""

from __future__ import annotations

import re
from collections.abc import Sequence

from autoresearch.agents.support.events import TurnResult, sum_dollars, sum_tokens
from autoresearch.agents.support.headless import Ask, Spec

QUIET = (
    *("--yes-always", "--no-auto-commits", "--no-dirty-commits", "--no-suggest-shell-commands"),
    *("--no-check-update", "--no-show-release-notes", "--no-analytics", "--no-show-model-warnings"),
    *("--no-stream", "--no-pretty", "--no-fancy-input", "--no-gitignore", "--no-detect-urls"),
    *("--map-tokens", "0", "--chat-history-file", "/dev/null", "--input-history-file", "/dev/null"),
)
NUMBER = r"(\d[\d,]*(?:\.\d+)?)"
SPENT = re.compile(rf"^Tokens: {NUMBER}(k|M)? sent,.*?(?<![\d,.]){NUMBER}(k|M)? received")
COST = re.compile(rf"^(?:Tokens: .* )?Cost: \${NUMBER} message")
UNITS = {"": 1, "k": 1_000, "M": 1_000_000}
COMPLAINT = re.compile(
    r"^(?:litellm\.\w+: |The API provider|Model .* has hit a token limit|No LLM model was spec)"
)
BEFORE = re.compile(r"^(?:Repo-map: |Added .* to the chat\.?$|Retrying in [\d.]+ seconds)")
FENCE = re.compile(r"^(?:`{3,}|<(?:source|code|pre|codeblock|sourcecode)>)")


def argv(ask: Ask) -> Sequence[str]:
    return (
        "aider",
        *QUIET,
        *ask.model_option("--model"),
        "--message-file",
        str(ask.prompt_file),
        *ask.editable,
    )


def read_events(lines: Sequence[str]) -> TurnResult:
    """A line of tokens ends every answer. The text is the last line outside the edits of the last
    answer. A complaint before an answer does not count: another try succeeded."""
    tokens, usd, text, complaint, fence = None, None, "", "", ""
    prose: list[str] = []  # of the present answer
    for line in lines:
        if spent := SPENT.match(line):
            tokens = sum_tokens(tokens, _number(*spent.group(1, 2)), _number(*spent.group(3, 4)))
            text = prose[-1] if prose else text
            complaint, fence, prose = "", "", []
        elif fence:
            fence = "" if line.startswith(fence) else fence
        elif start := FENCE.match(line):
            fence = start[0].replace("<", "</")
            if prose and " " not in prose[-1]:  # the file's name
                prose.pop()
        elif COMPLAINT.match(line):
            complaint = complaint or line
        elif BEFORE.match(line):
            prose.clear()
        else:
            prose.append(line)
        if cost := COST.match(line):
            usd = sum_dollars(usd, _number(cost[1]))
    if complaint:
        return TurnResult.failure(complaint, tokens=tokens, usd=usd)
    return TurnResult.unknown(lines) if tokens is None else TurnResult(text, tokens=tokens, usd=usd)


def _number(digits: str, unit: str | None = None) -> float:
    return float(digits.replace(",", "")) * UNITS[unit or ""]


create = Spec(
    program="aider",
    install="pip install aider-chat",
    argv=argv,
    read_events=read_events,
    env={"COLUMNS": "10000", "BROWSER": "true"},  # lines stay whole; no browser opens a link
    login="Set the provider's key and name it in [agent.aider] env",
    keys=(
        *("OPENAI_API_KEY", "OPENAI_API_BASE", "ANTHROPIC_API_KEY", "GEMINI_API_KEY"),
        *("OPENROUTER_API_KEY", "DEEPSEEK_API_KEY", "AIDER_MODEL"),
        "LITELLM_LOCAL_MODEL_COST_MAP",
    ),
    own=("~/.aider/", "~/.aider*"),
)
