"""Folders without a task file: those of other tools are tasks already, `init` makes one of any.

Each layout has a function `recognise(folder)` that returns a draft of the task, or None for another
folder. A layout is recognised by writing its task file and parsing that. So a folder without a task
file runs exactly as with the one that `autoresearch init` writes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from autoresearch.errors import TaskError
from autoresearch.task.directions import find_direction
from autoresearch.task.draft import TaskDraft
from autoresearch.task.files import exists
from autoresearch.task.layouts import evaluators, original, pi, python, tools
from autoresearch.task.layouts.folder import Folder
from autoresearch.task.layouts.printed import find_printed
from autoresearch.task.model import TASK_FILE
from autoresearch.task.reading import parse_draft

Recognise = Callable[[Folder], TaskDraft | None]

RUNNABLE: tuple[Recognise, ...] = (original.recognise, pi.recognise)  # without a task file
OTHERS: tuple[Recognise, ...] = (evaluators.recognise, python.recognise, tools.recognise)
LOOKED_FOR = (
    "the original's train.py with prepare.py, and pi-autoresearch's autoresearch.md with "
    "autoresearch.sh or .auto/prompt.md with .auto/measure.sh"
)


MOST_CHOICES = 8  # programs between which a user can choose
VALUES = {
    "--editable": "FILE",
    "--command": "CMD",
    "--metric": "NAME",
    "--goal": "{minimize,maximize}",
}


class Question(NamedTuple):
    """A fact that the user has to say."""

    field: str
    text: str
    flag: str
    choices: tuple[str, ...] = ()

    def __str__(self) -> str:
        hint = f" ({', '.join(self.choices)}?)" if self.choices else ""
        return f"{self.text}{hint}"


def recognise(root: Path) -> TaskDraft | None:
    """Return the task of a folder without a task file. Raises `TaskError` if it is incomplete."""
    folder = Folder(root)
    drafts = (recognise(folder) for recognise in RUNNABLE)
    draft = next(filter(None, drafts), None)
    if draft is None or draft.layout == "pi-autoresearch":
        return draft
    has_program = exists(root / "program.md")
    return draft if has_program else replace(draft, objective=original.OBJECTIVE)


def propose(root: Path, given: Mapping[str, Any]) -> TaskDraft:
    """Draft the task of a folder from what is in it. `given` are fields of the draft that the user
    has set; an empty one counts as not given. Raises `TaskError` for a layout that is broken."""
    wanted = {name: value for name, value in given.items() if value}
    folder = Folder(root, wanted)
    runnable = RUNNABLE if not {"editable", "metric"} & set(wanted) else RUNNABLE[:1]
    drafts = [recognise(folder) for recognise in runnable]
    if not any(drafts):
        drafts = [_draft_named(folder, wanted), *(recognise(folder) for recognise in OTHERS)]
    found = [_complete(folder, draft, wanted) for draft in drafts if draft is not None]
    if not found:
        found = [_complete(folder, TaskDraft(layout="no known layout"), wanted)]
    best = min(found, key=lambda draft: len(find_questions(draft)))  # the first of those
    choices = best.choices.get("editable", ())
    if best.editable or not choices:
        return best
    answers = [propose(root, {**given, "editable": (choice,)}) for choice in choices[:MOST_CHOICES]]
    names = ("command", "metric", "goal")
    follows = {name for name in names if all(getattr(answer, name) for answer in answers)}
    metrics = {answer.metric for answer in answers}
    return replace(
        best,
        metric=metrics.pop() if len(metrics) == 1 else best.metric,
        goal="" if "goal" not in wanted else best.goal,
        follows=frozenset(follows),
    )


def _draft_named(folder: Folder, wanted: Mapping[str, Any]) -> TaskDraft | None:
    """The task of the Python program that the user named as editable or in the command."""
    words = [*wanted.get("editable", ()), *re.findall(r"[\w./-]+\.py\b", wanted.get("command", ""))]
    programs = [word for word in words if word.endswith(".py") and folder.has(word)]
    return python.draft(folder, programs[0]) if programs else None


def _complete(folder: Folder, draft: TaskDraft, wanted: Mapping[str, Any]) -> TaskDraft:
    """Put what the user has said into a draft, and what follows from it."""
    fields = ("command", "build", "goal", "json", "file", "caches")
    reasons = dict.fromkeys(fields, f"usual for the layout: {draft.layout}")
    reasons |= {**draft.reasons, **dict.fromkeys(wanted, "as you say")}
    draft = replace(draft, **wanted, reasons=reasons)
    if "command" in wanted:
        draft = replace(draft, build=None, json=None, file=None)
    if {"editable", "command"} & set(wanted) and not draft.metric:
        paths = [*folder.find(*draft.editable), *re.findall(r"[\w./-]+\.\w+", draft.command)]
        numbers = find_printed(folder, paths)
        draft = replace(draft, choices={"metric": [number.name for number in numbers]})
        if numbers and python.is_certain(numbers):
            reasons["metric"] = f"printed by {numbers[0].where}"
            draft = replace(draft, metric=numbers[0].name)
    is_named_anew = "metric" in wanted and "goal" not in wanted and not draft.json
    if not draft.goal or is_named_anew:
        direction = find_direction(draft.metric)
        if direction is not None:
            reasons["goal"] = str(direction)
        draft = replace(draft, goal=direction.goal.value if direction else "")
    return draft


def find_questions(draft: TaskDraft) -> list[Question]:
    """What the user has to say, all of it."""
    choices = draft.choices
    metric = draft.metric or "number"
    questions = (
        Question(
            "editable",
            "Which file may be edited?",
            "--editable",
            tuple(choices.get("editable", ())),
        ),
        Question("command", "Which command runs it once?", "--command"),
        Question(
            "metric",
            "Which of the numbers that it prints is to improve?",
            "--metric",
            tuple(choices.get("metric", ()))[:8],
        ),
        Question("goal", f"Is a lower or a higher {metric} better?", "--goal"),
    )
    return [
        question
        for question in questions
        if not getattr(draft, question.field) and question.field not in draft.follows
    ]


def write_files(root: Path, draft: TaskDraft) -> dict[str, str]:
    """Return the files that make `root` a task, path -> text. Writes nothing. Raises `TaskError`
    that names all facts that are missing, or if the result is no task."""
    if questions := find_questions(draft):
        flags = " ".join(f"{question.flag} {VALUES[question.flag]}" for question in questions)
        count = "one fact is" if len(questions) == 1 else f"{len(questions)} facts are"
        lines = [f"    {question.flag:<11} {question}" for question in questions]
        raise TaskError(
            "\n".join([f"{root}: {count} missing:", *lines, f"Say: autoresearch init {flags}"])
        )
    files = {}
    if draft.layout != "pi-autoresearch":
        if not exists(root / "program.md"):
            files["program.md"] = _objective(draft)
        draft = replace(draft, objective="program.md")
    has_objective = exists(root / draft.objective)
    parse_draft(draft if has_objective else replace(draft, objective="yours"), root)
    return {TASK_FILE: draft.to_toml(), **files}


def scaffold(root: Path, **given: Any) -> dict[str, str]:
    """The files that make `root` a task, from what is in it and what is given."""
    return write_files(root, propose(root, given))


def _objective(draft: TaskDraft) -> str:
    if draft.layout == "original":
        return original.OBJECTIVE
    better = "Lower" if draft.goal == "minimize" else "Raise"
    prints = f"prints `{draft.metric}`" if not draft.file else f"writes `{draft.file}`"
    return f"""\
# Objective

{better} `{draft.metric}` of `{draft.command}`.

## What may change

{", ".join(draft.editable)}: anything, as long as the command still {prints}.

## What matters besides the number

Simpler is better. Of two changes that gain the same, the one that removes code wins.

## Ideas to start from

- (yours: what you would try first, what you know does not work)
"""
