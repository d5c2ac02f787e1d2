"""Look into a finished session: what fsck finds, and changes of its ledger by SQL."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from autoresearch.commands.fsck import audit
from autoresearch.store.paths import SessionPaths
from support.sessions import (
    task_of,
)


def findings(root: Path) -> list[tuple[str, bool]]:
    return [(one.what, one.repairable) for one in audit(task_of(root))]


def sql(root: Path, statement: str, *values: object) -> None:
    db = sqlite3.connect(SessionPaths(root, "t").ledger)
    with db:
        assert db.execute(statement, values).rowcount == 1
    db.close()
