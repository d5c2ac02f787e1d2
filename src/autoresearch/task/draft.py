"""The task file for a folder that has none."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from autoresearch.records import Goal

COMMENT_COLUMN = 36


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskDraft:
    """The settings of a task file that a folder or a user fills in. An empty `editable`, `command`,
    `metric` or `goal` is not known yet: the user has to say it."""

    layout: str  # the name of the layout that recognised the folder
    objective: str = "program.md"  # a path, or the text itself
    editable: tuple[str, ...] = ()
    command: str = ""
    metric: str = ""
    goal: str = ""
    build: str | None = None
    pattern: str | None = None
    json: str | None = None
    file: str | None = None
    score: str | None = None
    reads: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    caches: tuple[str, ...] = ()
    budget_s: float | None = None
    timeout_s: float = 600.0  # wall; ten minutes both in the original and in pi-autoresearch
    checks: str | None = None
    experiments: int | None = None
    reasons: Mapping[str, str] = field(default_factory=dict)  # field -> why it is proposed
    choices: Mapping[str, Sequence[str]] = field(default_factory=dict)  # for what is not known
    follows: frozenset[str] = frozenset()  # fields that follow from each choice of `editable`

    def to_toml(self) -> str:
        """Write the task file. What the draft leaves open is in it as a comment."""
        return "\n".join(_align(line) for line in self._lines()) + "\n"

    def _lines(self) -> list[str]:
        goals = " or ".join(goal.value for goal in Goal)
        return [
            f"objective = {toml(self.objective)}\t# for the agent: a file, or the text itself",
            f"editable = {toml(self.editable)}\t# what the agent may edit; all else is frozen",
            "",
            "[run]",
            *_setting("build", self.build, "make", "before the clock of a run starts"),
            f"command = {toml(self.command)}\t# prints the metric, or writes its file",
            *_setting(
                "budget",
                _duration(self.budget_s) if self.budget_s else None,
                "5m",
                "told to it as AUTORESEARCH_BUDGET, beside AUTORESEARCH_SEED",
            ),
            'budget_clock = "wall"\t# or "cpu": of all its processes together',
            f'timeout = "{_duration(self.timeout_s)}"\t# killed after this, whatever it does',
            *_setting("inputs", self.inputs, ("data/",), "files that it reads and git lacks"),
            *_setting("caches", self.caches, ("~/.cache/x",), "folders outside that it may write"),
            "",
            "[metric]",
            f"name = {toml(self.metric)}\t# as printed: `name: number` or `METRIC name=number`",
            f"goal = {toml(self.goal)}\t# {goals}",
            *_setting("pattern", self.pattern, "", "a regular expression with one group"),
            *_setting("json", self.json, "", "the path of the number in JSON"),
            *_setting("file", self.file, "", "the JSON file that a run writes"),
            "",
            *self._score_lines(),
            "# [guards]",
            '# peak_vram_mb = "<= 60000"\t# another number it prints, and its bound',
            "",
            f"{'' if self.checks else '# '}[guards.commands]",
            *_setting(
                "checks" if self.checks else "tests",
                self.checks,
                "pytest -q",
                "must succeed before a change is kept",
            ),
            "",
            "# [judge]",
            "# deterministic = true\t# the same code gives exactly the same number",
            "# least = 0.001\t# in units of the metric: what a keep has to gain",
            "# simplify = 0.001\t# in units of the metric: what simpler code may cost",
            "",
            f"{'' if self.experiments else '# '}[limits]\t# without them, it runs until Ctrl-C",
            f"{'' if self.experiments else '# '}experiments = {self.experiments or 100}",
            '# until = "07:00"',
        ]

    def _score_lines(self) -> list[str]:
        mark = "" if self.score else "# "
        return [
            f"{mark}[score]\t# the trusted half: it judges what a run leaves behind, and is frozen",
            *_setting("command", self.score, "python score.py", "its metric counts, not the run's"),
            *_setting("reads", self.reads, ("model.pt",), "files that the run leaves behind"),
            *_setting("hidden", self.hidden, ("holdout/",), "files that no agent and no run sees"),
            "",
        ]


def _setting(
    key: str, value: str | Sequence[str] | None, example: str | Sequence[str], comment: str
) -> list[str]:
    """A line of the task file: the setting, or an example of it as a comment, if there is one."""
    if value:
        return [f"{key} = {toml(value)}\t# {comment}"]
    return [f"# {key} = {toml(example)}\t# {comment}"] if example else []


def _align(line: str) -> str:
    """Put the comment after the last tab into its column. A tab in a value is escaped."""
    setting, tab, comment = line.rpartition("\t")
    return f"{setting:<{COMMENT_COLUMN - 1}} {comment}" if tab else line


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
