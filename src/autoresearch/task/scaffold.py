"""The files that `autoresearch init` writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from autoresearch.task.draft import TaskDraft
from autoresearch.task.files import exists
from autoresearch.task.layouts import original, pi, plain
from autoresearch.task.model import TASK_FILE
from autoresearch.task.reading import parse_draft


def scaffold(
    root: Path,
    editable: Sequence[str] | None = None,
    command: str | None = None,
    metric: str | None = None,
    goal: str | None = None,
) -> dict[str, str]:
    """The files that make `root` a task, path -> text. Looks up there what is not given.

    Raises `TaskError` if something can neither be looked up nor guessed, or if what is given is no
    task. Writes nothing.
    """
    draft = original.recognise(root) or (None if editable or metric else pi.recognise(root))
    draft = draft or plain.draft(root, editable, command, metric)
    draft = replace(
        draft,
        editable=tuple(editable or draft.editable),
        command=command or draft.command,
        metric=metric or draft.metric,
        goal=goal or (plain.likely_goal(metric) if metric else draft.goal),
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
