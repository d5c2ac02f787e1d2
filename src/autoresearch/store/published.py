"""Replaces files of ours that lie among the user's: progress.png, report.md, results.tsv.

A file is ours if we published its content there. Any other file is somebody's work, and is never
overwritten.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from autoresearch.errors import NotOursError, StorageError
from autoresearch.files import replace_file
from autoresearch.store.ledger import Ledger
from autoresearch.store.paths import PUBLIC, SessionPaths


def publish(ledger: Ledger, path: Path, data: bytes) -> None:
    """Make `data` the content of `path`, at once.

    Raises `NotOursError` when a file is there that we did not write, or that was edited since;
    `StorageError` when the disk refuses."""
    key = _key(ledger, path)
    old = read_ours(path)
    # An empty file is nobody's work: a power cut leaves it.
    if old and old != data and not ledger.was_published(key, _sha256(old)):
        raise NotOursError(
            f"{path} is not the file this program wrote (or it was edited since), "
            f"and is left alone: move it away, then run the command again"
        )
    ledger.add_published(key, _sha256(data))
    if old != data:
        replace_file(path, data)


def read_ours(path: Path) -> bytes | None:
    """The content of `path`; None if it does not exist. Raises `NotOursError` for a folder, a link
    and other things that we never write."""
    try:
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise NotOursError(f"{path} is a link or no file, and is left alone: move it away")
        return path.read_bytes() if path.exists() else None
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}") from error


def drafts(paths: SessionPaths) -> list[Path]:
    """Files that a kill in the middle of replacing a file left behind."""
    public = [draft for name in PUBLIC for draft in paths.root.glob(f".{name}.*.tmp")]
    return sorted([*public, *paths.folder.glob("*.tmp"), *paths.folder.glob(".*.tmp")])


def remove_drafts(paths: SessionPaths) -> None:
    for draft in drafts(paths):
        draft.unlink(missing_ok=True)


def _key(ledger: Ledger, path: Path) -> Path:
    """The path below the repository, so that a repository may be moved."""
    repository = ledger.path.absolute().parent.parent
    path = path.absolute()
    return path.relative_to(repository) if path.is_relative_to(repository) else path


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
