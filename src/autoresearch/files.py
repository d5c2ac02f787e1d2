"""Walk and remove folders, whatever they hold. Read the end of a file; replace a file at once."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from autoresearch.errors import StorageError

READ_BYTES = 1_000_000  # of a log, from its end: where a program says how it went


def remove_tree(folder: Path) -> None:
    """Delete a folder whatever its permissions, links not followed; missing is fine."""

    def retry(function: object, path: str, _: object) -> None:
        Path(path).parent.chmod(0o700)
        target = Path(path)
        if target.is_dir() and not target.is_symlink():
            target.chmod(0o700)
            shutil.rmtree(target, ignore_errors=True)
        else:
            target.unlink(missing_ok=True)

    if folder.is_symlink() or folder.exists():
        if sys.version_info >= (3, 12):
            shutil.rmtree(folder, onexc=retry)
        else:
            shutil.rmtree(folder, onerror=retry)


def files_below(folder: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """(path relative to `folder`, entry) of every file and link but those in `.git` at the top.
    Skip folders that cannot be read."""

    def walk(where: str, prefix: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
        try:
            entries = list(os.scandir(where))
        except OSError:
            return
        for entry in entries:
            path = prefix + entry.name
            if path == ".git":
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from walk(entry.path, f"{path}/")
            else:
                yield path, entry

    return walk(str(folder), "")


def tail(path: Path, size: int = READ_BYTES) -> str:
    """The end of a file as text; empty when there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - size))
            return file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""


def replace_file(path: Path, data: bytes, *, is_durable: bool = True) -> None:
    """Write beside `path`, then move onto it: a reader sees the old file or the new one. A durable
    file also survives a power cut; waiting for the disk takes milliseconds. Raises
    `StorageError`."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        try:
            with draft.open("wb") as file:
                file.write(data)
                if is_durable:
                    file.flush()
                    os.fsync(file.fileno())
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}") from error


def read_text(path: Path) -> str:
    """The content of a text file; empty if it cannot be read."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
