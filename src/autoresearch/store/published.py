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
    """Make `data` the content of `path`, wholly or not at all.

    Raises `NotOursError` when a file is there that we did not write, or that was edited since;
    `StorageError` when the disk refuses."""
    key = _key(ledger, path)
    found = read_ours(path)
    if found == data:
        ledger.add_published(key, _sha256(data))
        return
    # An empty file holds nobody's work: it is what a power cut leaves of ours.
    if found and not ledger.was_published(key, _sha256(found)):
        raise NotOursError(
            f"{path} is not the file this program wrote (or it was edited since), "
            f"and is left alone: move it away, then run the command again"
        )
    ledger.add_published(key, _sha256(data))
    replace_file(path, data)


def read_ours(path: Path) -> bytes | None:
    """The content of `path`; None when nothing is there. Raises `NotOursError` for what we never
    write, such as a folder or a link."""
    try:
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise NotOursError(f"{path} is a link or no file, and is left alone: move it away")
        return path.read_bytes() if path.exists() else None
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}") from error


def drafts(paths: SessionPaths) -> list[Path]:
    """What a kill in the middle of replacing a file leaves behind."""
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
