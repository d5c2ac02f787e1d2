"""aider, a pair programmer. `--agent aider`, `--agent aider:MODEL`. It prints text, not events."""

from __future__ import annotations

import re
from collections.abc import Sequence

from autoresearch.agents.support.events import Ended, dollars, failed, total, unknown
from autoresearch.agents.support.headless import Ask, Creator, Spec
from autoresearch.sandbox.agent_policy import Needs

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
    model = ("--model", ask.model) if ask.model else ()
    return ("aider", *QUIET, *model, "--message-file", str(ask.prompt_file), *ask.editable)


def read_events(lines: Sequence[str]) -> Ended:
    """A line of tokens ends every answer. The text is the last line of the last answer that is no
    part of an edit; a complaint before an answer was mended by trying again."""
    tokens, usd, text, complaint, fence = None, None, "", "", ""
    prose: list[str] = []  # of the answer under way
    for line in lines:
        if found := SPENT.match(line):
            tokens = total(tokens, _number(found[1], found[2]), _number(found[3], found[4]))
            text = prose[-1] if prose else text
            complaint, fence, prose = "", "", []
        elif fence:
            fence = "" if line.startswith(fence) else fence
        elif begin := FENCE.match(line):
            fence = begin[0].replace("<", "</")
            if prose and " " not in prose[-1]:  # the name of the file
                prose.pop()
        elif COMPLAINT.match(line):
            complaint = complaint or line
        elif BEFORE.match(line):
            prose.clear()
        else:
            prose.append(line)
        if cost := COST.match(line):
            usd = dollars(usd, _number(cost[1]))
    if complaint:
        return Ended(tokens=tokens, usd=usd, **failed(complaint))
    return unknown(lines[-1:]) if tokens is None else Ended(text=text, tokens=tokens, usd=usd)


def _number(digits: str, unit: str | None = None) -> float:
    return float(digits.replace(",", "")) * UNITS[unit or ""]


create = Creator(
    Spec(
        name="aider",
        program="aider",
        install="pip install aider-chat",
        argv=argv,
        read_events=read_events,
        env={"COLUMNS": "10000", "BROWSER": "true"},  # lines stay whole; links in errors unopened
        login="Set the provider's key and name it in [agent.aider] env",
        keys=(
            *("OPENAI_API_KEY", "OPENAI_API_BASE", "ANTHROPIC_API_KEY", "GEMINI_API_KEY"),
            *("OPENROUTER_API_KEY", "DEEPSEEK_API_KEY", "AIDER_MODEL"),
            "LITELLM_LOCAL_MODEL_COST_MAP",
        ),
        needs=Needs(own=("~/.aider/", "~/.aider*")),
    )
)
