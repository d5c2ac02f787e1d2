"""What a layout sees of a folder: its files, their texts, and the tools of this machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from autoresearch.errors import TaskError
from autoresearch.task.files import exists, read_text
from autoresearch.task.globs import matches

MOST_FILES = 20_000  # a larger folder is looked at in part
SKIPPED = {".git", ".autoresearch", ".venv", "venv", "node_modules", "target", "__pycache__"}
SKIPPED |= {"build", "dist", ".tox", ".mypy_cache", "site-packages"}

NEVER_EDITABLE = re.compile(
    r"(?:^|/)(?:(?:evaluat|score|grader|judge|verify|prepare|conftest|noxfile|versioneer)[^/]*"
    r"|setup\.py|build\.rs|(?:test|bench)[^/]*|[^/]*(?:_test|_tests|\.test|_spec|_bench)\.\w+)$"
    r"|(?:^|/)(?:tests?|bench(?:es|marks?)?|docs|examples)/",
    re.IGNORECASE,
)
"""Files that judge a program, test it, prepare its data, or install it."""


class Folder:
    """A folder that is to become a task. Nothing in it is executed or changed."""

    def __init__(self, root: Path, wanted: Mapping[str, Any] | None = None) -> None:
        """`wanted` are fields of the draft that the user has set."""
        self.root = root
        self.wanted = wanted or {}

    def has(self, name: str) -> bool:
        return exists(self.root / name)

    def read(self, name: str) -> str:
        """The text of a file; empty if it is missing, too large, or no text."""
        try:
            return read_text(self.root / name)
        except TaskError:
            return ""

    @cached_property
    def files(self) -> list[str]:
        """The files that git knows, or all files where there is no git: relative, sorted."""
        files = self._walk() if self._known is None else self._known
        return sorted(files, key=lambda path: (path.count("/"), path))

    @cached_property
    def committed(self) -> frozenset[str] | None:
        """The files in git's index; None without a repository."""
        return None if self._known is None else frozenset(self._known)

    def find(self, *globs: str) -> list[str]:
        """The files that match a glob, the nearest to the top first."""
        return [path for path in self.files if any(matches(glob, path) for glob in globs)]

    def find_editable(self, *globs: str) -> list[str]:
        """The files that match a glob and neither judge, test nor install the program."""
        return [path for path in self.find(*globs) if not NEVER_EDITABLE.search(path)]

    def lacks_commit(self, path: str) -> bool:
        """Whether the path exists, but neither it nor anything below it is in git."""
        if self.committed is None or not self.has(path):
            return False
        name = path.rstrip("/")
        return not any(known == name or known.startswith(f"{name}/") for known in self.committed)

    @cached_property
    def _known(self) -> list[str] | None:
        command = ["git", "ls-files", "-z", "--cached"]
        try:
            done = subprocess.run(command, cwd=self.root, capture_output=True, check=False)
        except OSError:
            return None
        if done.returncode != 0:
            return None
        names = [os.fsdecode(name) for name in done.stdout.split(b"\0") if name]
        names = [name for name in names if self.has(name)]
        return names or None  # nothing is committed yet: look at what is there

    def _walk(self) -> list[str]:
        paths: list[str] = []
        for place, folders, files in os.walk(self.root):
            folders[:] = sorted(folder for folder in folders if folder not in SKIPPED)
            below = PurePosixPath(Path(place).relative_to(self.root).as_posix())
            paths += [str(below / name) for name in sorted(files)]
            if len(paths) > MOST_FILES:
                break
        return paths


def has_tool(name: str) -> bool:
    return shutil.which(name) is not None
