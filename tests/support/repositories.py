"""The repository of tests/git, as the harness opens it."""

from __future__ import annotations

from pathlib import Path

from autoresearch.git.repository import Repository

EDITABLE = {"prog.py", "model.py", "src/a.py", "src/b.py"}


def open_repository(root: Path, named: tuple[str, ...] = ("prog.py",)) -> Repository:
    return Repository(root, named, lambda path: path in EDITABLE)
