"""Folders without a task file: those of other tools are tasks already, `init` makes one of any.

A layout is recognised by writing its task file and parsing that. So a folder without a task file
runs exactly as with the one that `autoresearch init` writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from autoresearch.task.directions import get_goal
from autoresearch.task.draft import TaskDraft
from autoresearch.task.files import exists
from autoresearch.task.layouts import original, pi, plain
from autoresearch.task.model import TASK_FILE
from autoresearch.task.reading import parse_draft

LOOKED_FOR = (
    "the original's train.py with prepare.py, and pi-autoresearch's autoresearch.md with "
    "autoresearch.sh or .auto/prompt.md with .auto/measure.sh"
)


def recognise(root: Path) -> TaskDraft | None:
    """Return the task of a folder without a task file. Raises `TaskError` if it is incomplete."""
    return original.recognise(root) or pi.recognise(root)


def scaffold(
    root: Path,
    editable: Sequence[str] | None = None,
    command: str | None = None,
    metric: str | None = None,
    goal: str | None = None,
) -> dict[str, str]:
    """Return the files that make `root` a task, path -> text. Writes nothing.

    Takes from the folder what is not given. Raises `UnknownDirection` if the goal is not given and
    the metric's name does not tell it, `TaskError` if something else is missing, or if the result
    is no task.
    """
    draft = original.recognise(root) or (None if editable or metric else pi.recognise(root))
    draft = draft or plain.draft(root, editable, command, metric, goal)
    draft = replace(
        draft,
        editable=tuple(editable or draft.editable),
        command=command or draft.command,
        metric=metric or draft.metric,
        goal=goal or (get_goal(metric) if metric else draft.goal),
    )
    files = {}
    if draft.layout != "pi-autoresearch":
        if not exists(root / "program.md"):
            files["program.md"] = _objective(draft)
        draft = replace(draft, objective="program.md")
    has_objective = exists(root / draft.objective)
    parse_draft(draft if has_objective else replace(draft, objective="yours"), root)
    return {TASK_FILE: draft.to_toml(), **files}


def _objective(draft: TaskDraft) -> str:
    if draft.layout == "original":
        return original.OBJECTIVE
    better = "Lower" if draft.goal == "minimize" else "Raise"
    return f"""\
# Objective

{better} `{draft.metric}` of `{draft.command}`.

## What may change

{", ".join(draft.editable)}: anything, as long as it still prints `{draft.metric}`.

## What matters besides the number

Simpler is better. Of two changes that gain the same, the one that removes code wins.

## Ideas to start from

- (yours: what you would try first, what you know does not work)
"""
