"""The task folders that a page shows, and the sessions in their ledgers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from autoresearch.store.imported import ImportedNight, read_nights
from autoresearch.store.ledger import Ledger
from autoresearch.store.paths import STATE, ledger_path
from autoresearch.store.rows import SessionRecord

SEARCH_DEPTH = 3  # levels of folders below the given one that are searched for ledgers
NOT_SEARCHED = {"node_modules", "__pycache__", "venv", "site-packages"}


@dataclass(frozen=True, slots=True)
class Place:
    """A task's folder. `name` is its part of the page's addresses."""

    name: str
    root: Path

    def list_sessions(self) -> list[SessionRecord]:
        """The sessions, oldest first; none if none was started yet. Raises `LedgerError`."""
        path = ledger_path(self.root)
        if not path.exists():
            return []
        with closing(Ledger(path, readonly=True)) as ledger:
            return ledger.sessions()

    def list_nights(self) -> list[ImportedNight]:
        """The imported nights, the latest import last. Raises `LedgerError`."""
        return read_nights(self.root)


def find_places(folders: Sequence[Path]) -> list[Place]:
    """Name the task folders at `folders`: each itself and those below it that have a ledger."""
    roots = dict.fromkeys(root for folder in folders for root in _find_roots(folder.resolve()))
    return list(_name_places(roots))


def _find_roots(folder: Path) -> Iterator[Path]:
    """The folders with a ledger at or below this one; this one if there are none."""
    found = [root for root in _walk(folder, SEARCH_DEPTH) if (root / STATE).is_dir()]
    yield from found or [folder]


def _walk(folder: Path, depth: int) -> Iterator[Path]:
    yield folder
    if depth:
        try:
            below = sorted(entry for entry in folder.iterdir() if entry.is_dir())
        except OSError:
            return
        for entry in below:
            if entry.name[0] != "." and entry.name not in NOT_SEARCHED and not entry.is_symlink():
                yield from _walk(entry, depth - 1)


def _name_places(roots: Iterable[Path]) -> Iterator[Place]:
    taken: set[str] = set()
    for root in roots:
        name = base = re.sub(r"[^\w.-]+", "-", root.name).strip(".-") or "task"
        number = 1
        while name in taken:
            number += 1
            name = f"{base}-{number}"
        taken.add(name)
        yield Place(name, root)
