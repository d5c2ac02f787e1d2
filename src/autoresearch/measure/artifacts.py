"""Artefacts: the files that a run made or changed. They stay on disk, within a limit."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from autoresearch.errors import TaskError
from autoresearch.files import files_below, remove_tree
from autoresearch.git.trees import Manifest
from autoresearch.records import Run
from autoresearch.store.paths import SessionPaths

FOLDER = "artefacts"  # in a run's folder
TEXT_BYTES = 100_000  # of an artefact that is shown as text


def keep_artefacts(manifest: Manifest, tree: Path, target: Path) -> None:
    """Move the artefacts out of a run's tree. Links are neither followed nor kept."""
    for path, source in files_below(tree):  # none if they were moved before a kill
        with suppress(PermissionError):  # the run changed the permissions
            is_regular = source.is_file(follow_symlinks=False)
            if is_regular and (path not in manifest or not manifest[path].describes(source)):
                (target / path).parent.mkdir(parents=True, exist_ok=True)
                Path(source.path).replace(target / path)


def list_artefacts(folder: Path) -> list[tuple[str, int]]:
    """(path, bytes) of the artefacts in a run's folder, by path."""
    found = files_below(folder / FOLDER)
    return sorted((path, entry.stat(follow_symlinks=False).st_size) for path, entry in found)


def read_artefact(folder: Path, path: str) -> str:
    """The text of one of a run's artefacts. Raises `TaskError` if there is none of that name, or it
    is no text, or a long one."""
    known = dict(list_artefacts(folder))
    if path not in known:
        there = ", ".join(known) or "nothing, or it was dropped ([runner] keep_outputs)"
        raise TaskError(f"the run left no file {path!r}; it left {there}")
    file = folder / FOLDER / path
    if known[path] > TEXT_BYTES:
        raise TaskError(
            f"{file} has {known[path]:,} bytes, more than can be shown ({TEXT_BYTES:,})"
        )
    try:
        return file.read_bytes().decode()
    except UnicodeDecodeError:
        raise TaskError(f"{file} is no text") from None


class ArtefactLimit:
    """Removes the artefacts of the oldest runs if all together are larger than the limit. Logs
    stay."""

    def __init__(
        self, paths: SessionPaths, limit_bytes: int, is_kept: Callable[[Path], bool]
    ) -> None:
        """`is_kept(folder)`: whether the artefacts in a run's folder must stay."""
        self._paths = paths
        self._limit = limit_bytes
        self._is_kept = is_kept
        folders = sorted(paths.runs.glob(f"*/*/{FOLDER}"))
        self._sizes = {folder: _size(folder) for folder in folders}  # the oldest first

    def add(self, runs: list[Run]) -> None:
        """Count the artefacts of a decided experiment, and remove the oldest above the limit."""
        for run in runs:
            folder = self._paths.runs / run.name / FOLDER
            if folder.exists():
                self._sizes[folder] = _size(folder)
        total = sum(self._sizes.values())
        for folder in list(self._sizes) if total > self._limit else ():
            if total > self._limit and not self._is_kept(folder.parent):
                remove_tree(folder)
                total -= self._sizes.pop(folder)


def _size(folder: Path) -> int:
    """Bytes of all files. Holes in them take no room on the disk and do not count."""
    stats = (entry.stat(follow_symlinks=False) for _, entry in files_below(folder))
    return sum(min(stat.st_size, 512 * stat.st_blocks) for stat in stats)
