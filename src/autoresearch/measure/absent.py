"""Files that the checkout has and a run has not: of submodules, and what Git LFS keeps elsewhere.

A program that misses them need not fail. It may read a pointer of three lines as its data.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from autoresearch.git.repository import Repository
from autoresearch.git.trees import Manifest
from autoresearch.task.model import Task

POINTER = b"version https://git-lfs.github.com/spec/"  # begins a file that Git LFS keeps
SUBMODULE = re.compile(r"^\s*path\s*=\s*(.+?)\s*$", re.MULTILINE)
KEPT_ELSEWHERE = re.compile(r"^\s*(\S+)\s.*\bfilter=lfs\b", re.MULTILINE)  # in .gitattributes


def list_absent_files(task: Task, repository: Repository) -> list[str]:
    """A sentence for each kind, with the line of the task file that helps."""
    manifest = repository.trees.manifest(repository.head())
    modules = _not_given(task, repository, _find_submodules(repository, manifest))
    pointers = _not_given(task, repository, _find_pointers(repository, manifest))
    sentences = []
    if modules:
        sentences.append(
            f"{', '.join(modules)}: a run has no files of submodules. Name them in `[run] inputs` "
            "if it needs them"
        )
    if pointers:
        more = f" and {len(pointers) - 1} more" if len(pointers) > 1 else ""
        sentences.append(
            f"{pointers[0]}{more}: Git LFS keeps the content, and runs get pointers. Keep what "
            "they read in a folder that git ignores, and name that in `[run] inputs`"
        )
    return sentences


def _not_given(task: Task, repository: Repository, paths: Iterator[str]) -> list[str]:
    """Of these paths in the repository, those in the task's folder that are no inputs, as seen from
    there."""
    below = (PurePosixPath(path) for path in paths)
    own = [path.relative_to(repository.prefix) for path in below if _is_in(path, repository.prefix)]
    return [str(path) for path in own if not any(_is_in(path, given) for given in task.run.inputs)]


def _is_in(path: PurePosixPath, folder: str | PurePosixPath) -> bool:
    return path.is_relative_to(str(folder).rstrip("/"))


def _find_submodules(repository: Repository, manifest: Manifest) -> Iterator[str]:
    if entry := manifest.get(".gitmodules"):
        text = repository.read_blob(str(entry.blob)).decode(errors="replace")
        yield from sorted(SUBMODULE.findall(text))


def _find_pointers(repository: Repository, manifest: Manifest) -> Iterator[str]:
    for name, entry in manifest.items():
        folder = PurePosixPath(name).parent
        if PurePosixPath(name).name != ".gitattributes":
            continue
        text = repository.read_blob(str(entry.blob)).decode(errors="replace")
        patterns = [pattern.lstrip("/") for pattern in KEPT_ELSEWHERE.findall(text)]
        for path in manifest:
            one = PurePosixPath(path)
            if not one.is_relative_to(folder):
                continue
            own = one.relative_to(folder)
            is_kept = any(own.match(pattern) or _is_in(own, pattern) for pattern in patterns)
            if is_kept and repository.read_blob(str(manifest[path].blob)).startswith(POINTER):
                yield path
