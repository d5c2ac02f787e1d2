"""The layout of karpathy/autoresearch: an editable train.py and a frozen prepare.py."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from autoresearch.errors import TaskError
from autoresearch.task.draft import TaskDraft
from autoresearch.task.files import exists, read_text
from autoresearch.task.layouts.folder import Folder
from autoresearch.task.layouts.python import find_interpreter
from autoresearch.task.values import DURATION

OBJECTIVE = """\
Lower val_bpb, the validation bits per byte, of the model that train.py trains within a fixed time.
Anything in train.py may change: architecture, optimizer, hyperparameters, batch size, model size.
prepare.py holds the data, the tokenizer and the evaluation, and is frozen. Simpler is better: an
improvement that adds ugly complexity is worth less than one that removes code.
"""
REASONS = {
    "editable": "the layout of karpathy/autoresearch: prepare.py is frozen",
    "metric": "printed by train.py",
    "goal": "fewer bits per byte are better",
}


def recognise(folder: Folder) -> TaskDraft | None:
    """Return the task, or None for another folder. Raises `TaskError` for an impossible budget."""
    root = folder.root
    if not (exists(root / "train.py") and exists(root / "prepare.py")):
        return None
    train, prepare = read_text(root / "train.py"), read_text(root / "prepare.py")
    if "val_bpb" not in train:
        return None
    has_uv = exists(root / "uv.lock") and shutil.which("uv") is not None
    budget = re.search(r"^TIME_BUDGET\s*=\s*([\d.]+)", prepare, re.MULTILINE | re.ASCII)
    budget_s = _seconds(root / "prepare.py", budget[1]) if budget else 300.0
    python = find_interpreter(folder)
    caches = ["~/.cache/autoresearch"]  # prepare.py puts data and tokenizer there
    caches += ["~/.cache/uv"] if has_uv else []
    caches += ["~/.cache/huggingface"] if re.search(r"^from kernels ", train, re.MULTILINE) else []
    return TaskDraft(
        layout="original",
        objective="program.md" if exists(root / "program.md") else OBJECTIVE,
        editable=("train.py",),
        command="uv run train.py" if has_uv else f"{python.command} train.py",
        metric="val_bpb",
        goal="minimize",
        budget_s=budget_s,
        timeout_s=2 * budget_s,  # the original's program.md: 5 minutes, killed after 10
        inputs=() if has_uv else python.inputs,
        caches=tuple(caches),
        reasons=REASONS,
    )


def _seconds(file: Path, number: str) -> float:
    try:
        return float(DURATION.read(float(number)))
    except ValueError as error:
        raise TaskError(f"{file}: TIME_BUDGET: {error}") from None
