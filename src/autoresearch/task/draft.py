"""The task file for a folder that has none."""

from __future__ import annotations

import json
import re
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
        """Write the task file. What the draft leaves open is in it as a comment."""
        budget = f'budget = "{_duration(self.budget_s)}"' if self.budget_s else '# budget = "5m"'
        caches = f"caches = {toml(self.caches)}" if self.caches else '# caches = ["~/.cache/x"]'
        checks = f"checks = {toml(self.checks)}" if self.checks else '# tests = "pytest -q"'
        unlimited = "" if self.experiments else "# "
        text = f"""\
objective = {toml(self.objective)}\t# for the agent: a file, or the text itself
editable = {toml(self.editable)}\t# what the agent may edit; all else is frozen

[run]
command = {toml(self.command)}\t# prints the metric
{budget}\t# told to it as AUTORESEARCH_BUDGET, beside AUTORESEARCH_SEED
budget_clock = "wall"\t# or "cpu": of all its processes together
timeout = "{_duration(self.timeout_s)}"\t# killed after this, whatever it does
# inputs = ["data/"]\t# untracked files it reads
{caches}\t# folders outside that it may write

[metric]
name = {toml(self.metric)}\t# as printed: `name: number` or `METRIC name=number`
goal = {toml(self.goal)}\t# {" or ".join(goal.value for goal in Goal)}

# [guards]
# peak_vram_mb = "<= 60000"\t# another number it prints, and its bound

{"" if self.checks else "# "}[guards.commands]
{checks}\t# must succeed before a change is kept

{unlimited}[limits]\t# without them, it runs until Ctrl-C
{unlimited}experiments = {self.experiments or 100}
# until = "07:00"
"""
        return re.sub(r"(?m)^(.*)\t", lambda line: f"{line[1]:<35} ", text)


def toml(value: str | Sequence[str]) -> str:
    """A text or a list of texts as TOML. A tab is escaped."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return f"[{', '.join(toml(item) for item in value)}]"


def _duration(seconds: float) -> str:
    for unit, size in (("h", 3600), ("m", 60)):
        if seconds % size == 0:
            return f"{int(seconds // size)}{unit}"
    return f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"
