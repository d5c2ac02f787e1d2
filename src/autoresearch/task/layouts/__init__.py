"""Folders of other tools that are tasks already.

A layout is recognised by writing the task file it amounts to and parsing that, so a folder without
a task file runs exactly as with the one that `autoresearch init` would write.
"""

from __future__ import annotations

from pathlib import Path

from autoresearch.task.draft import TaskDraft
from autoresearch.task.layouts import original, pi

LOOKED_FOR = (
    "the original's train.py with prepare.py, and pi-autoresearch's autoresearch.md with "
    "autoresearch.sh or .auto/prompt.md with .auto/measure.sh"
)


def recognise(root: Path) -> TaskDraft | None:
    """The task of a folder that has no task file. Raises `TaskError` if one is incomplete."""
    return original.recognise(root) or pi.recognise(root)
