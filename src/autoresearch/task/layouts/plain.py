"""Any other folder with a program that prints a metric."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from autoresearch.errors import TaskError
from autoresearch.task.directions import get_goal
from autoresearch.task.draft import TaskDraft
from autoresearch.task.files import exists, read_text
from autoresearch.task.model import TASK_FILE

LIKELY_NAMES = (
    r"^(val|test|eval)_|loss|err|"
    r"acc|score|reward|return|f1|auc|bleu|precision|recall|per_s|throughput|speedup"
)


def draft(
    root: Path,
    editable: Sequence[str] | None,
    command: str | None,
    metric: str | None,
    goal: str | None,
) -> TaskDraft:
    """Return the task of `root`. Raises `TaskError` for a missing part that cannot be guessed."""
    files = tuple(editable or _guess_editable(root))
    if not files:
        raise TaskError(
            f"{root}: which file may be edited? Say `autoresearch init --editable FILE`"
        )
    if not command and not files[0].endswith(".py"):
        raise TaskError(f"{root}: how is it run? Say `autoresearch init --command '...'`")
    name = metric or _guess_metric(root / files[0])
    if not name:
        raise TaskError(
            f"{root}: {files[0]} prints no `name: number` that looks like a metric. "
            "Which is it? Say `autoresearch init --metric NAME`"
        )
    return TaskDraft(
        layout=TASK_FILE,
        objective="program.md",
        editable=files,
        command=command or f"python {files[0]}",
        metric=name,
        goal=goal or get_goal(name),
    )


def _guess_editable(root: Path) -> list[str]:
    programs = sorted(path.name for path in root.glob("*.py"))
    return ["train.py"] if "train.py" in programs else programs if len(programs) == 1 else []


def _guess_metric(program: Path) -> str | None:
    """Guess the metric that a program prints: `METRIC name=...`, else the likeliest name."""
    if not exists(program):
        return None
    text = read_text(program)
    if explicit := re.search(r"\bMETRIC ([\w.µ]+)=", text):
        return explicit[1]
    names = re.findall(r"""["']([A-Za-z_][\w.]*):\s*[{%]""", text)
    ranked = sorted(
        filter(re.compile(LIKELY_NAMES).search, names), key=lambda name: name[:4] != "val_"
    )
    return ranked[0] if ranked else None
