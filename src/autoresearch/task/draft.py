"""Write the task file that a folder without one amounts to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from autoresearch.records import Goal


@dataclass(frozen=True, slots=True)
class TaskDraft:
    """The settings of a task file that a folder or a user fills in."""

    layout: str
    objective: str  # a path, or the text itself
    editable: tuple[str, ...]
    command: str
    metric: str
    goal: str
    budget_s: float | None = None
    timeout_s: float = 600.0  # wall; ten minutes both in the original and in pi-autoresearch
    caches: tuple[str, ...] = ()
    checks: str | None = None
    experiments: int | None = None

    def to_toml(self) -> str:
        """The text of the task file."""
        budget = f'"{_duration(self.budget_s)}"' if self.budget_s else ""
        limit = "" if self.experiments else "# "
        lines = {
            f"objective = {toml(self.objective)}": "for the agent: a file, or the text itself",
            f"editable = {toml(self.editable)}": "what the agent may edit; all else is frozen",
            "\n[run]": "",
            f"command = {toml(self.command)}": "prints the metric",
            (f"budget = {budget}" if budget else '# budget = "5m"'): (
                "told to it as AUTORESEARCH_BUDGET, beside AUTORESEARCH_SEED"
            ),
            'budget_clock = "wall"': 'or "cpu": of all its processes together',
            f'timeout = "{_duration(self.timeout_s)}"': "killed after this, whatever it does",
            '# inputs = ["data/"]': "untracked files it reads",
            (f"caches = {toml(self.caches)}" if self.caches else '# caches = ["~/.cache/x"]'): (
                "folders outside that it may write"
            ),
            "\n[metric]": "",
            f"name = {toml(self.metric)}": "as printed: `name: number` or `METRIC name=number`",
            f"goal = {toml(self.goal)}": " or ".join(goal.value for goal in Goal),
            "\n# [guards]": "",
            '# peak_vram_mb = "<= 60000"': "another number it prints, and its bound",
            f"\n{'' if self.checks else '# '}[guards.commands]": "",
            (f"checks = {toml(self.checks)}" if self.checks else '# tests = "pytest -q"'): (
                "must succeed before a change is kept"
            ),
            f"\n{limit}[limits]": "without them, it runs until Ctrl-C",
            f"{limit}experiments = {self.experiments or 100}": "",
            '# until = "07:00"': "",
        }
        return "".join(
            f"{line:<35} {note and f'# {note}'}".rstrip() + "\n" for line, note in lines.items()
        )


def toml(value: str | Sequence[str]) -> str:
    """A text or a list of texts as TOML."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return f"[{', '.join(toml(item) for item in value)}]"


def _duration(seconds: float) -> str:
    for unit, size in (("h", 3600), ("m", 60)):
        if seconds % size == 0:
            return f"{int(seconds // size)}{unit}"
    return f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"
