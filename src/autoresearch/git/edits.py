"""The rules for edits: the files that an agent may change, and the changes that are refused."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from pathlib import Path, PurePosixPath

import pygit2
from pygit2.enums import FileMode

from autoresearch.errors import DirtyError, Refused, TaskError
from autoresearch.files import files_below
from autoresearch.git.objects import ObjectStore
from autoresearch.git.opening import ask_git
from autoresearch.git.trees import Entry, Manifest
from autoresearch.protocols import EDIT_LIMIT_BYTES

EDIT_LIMIT_LINES = 5_000  # added to a file: nobody can read more than that as one idea
LITTER = {"__pycache__", ".DS_Store"}  # programs make these in folders that they only read
GLOB = re.compile(r"[!*?]")
NUMBER = re.compile(r"\d+")
SEEDING = re.compile(  # a seed by its name, or the number that a generator starts from
    r"(?i:seed)|\b(?:default_rng|RandomState|Random|PRNGKey|random_state|StdRng|mt19937(?:_64)?\s+\w+)"
    r"\s*[({=]\s*-?\d"
)
GITS_OWN = re.compile(r"\.git[ .]*|git~.*|\.gitmodules|\.gitattributes", re.IGNORECASE)
"""Names in a path that git refuses, or by which its next command does something else."""
WRITABLE = (FileMode.BLOB, FileMode.BLOB_EXECUTABLE)

Files = dict[str, bytes | None]
"""Path in the repository -> new content, None if it was deleted."""


class EditRules:
    def __init__(
        self,
        objects: ObjectStore,
        root: Path,
        prefix: PurePosixPath,
        editable: Iterable[str],
        may_edit: Callable[[str], bool],
    ) -> None:
        """`root` is the task's folder and `prefix` its path in the repository. `may_edit` tells
        whether a path relative to the folder matches the globs `editable`."""
        self._objects = objects
        self._root = root
        self._top = (root, *root.parents)[len(prefix.parts)]
        self._prefix = "" if str(prefix) == "." else f"{prefix}/"
        self._editable = tuple(editable)
        self._may_edit = may_edit

    def is_editable(self, path: str) -> bool:
        """`path` is relative to the top of the repository."""
        return path.startswith(self._prefix) and self._may_edit(path[len(self._prefix) :])

    def check_committed(self, head: Manifest) -> list[str]:
        """The editable files of HEAD. Raises `TaskError` if one that the task names is missing, and
        `DirtyError` if one differs from HEAD in the user's checkout."""
        paths = [path for path in head if self.is_editable(path)]
        for name in self._editable:
            named = self._prefix + name
            if not GLOB.search(name) and not any(
                path == named or path.startswith(named + "/") for path in paths
            ):
                exists = (self._root / name).exists()
                problem = "is not committed: commit it first" if exists else "does not exist"
                if exists and not (self._root / name).resolve().is_relative_to(self._root):
                    problem = "is outside the task's folder, by a link: name a file within"
                raise TaskError(f"editable: {name!r} {problem}")
        if not paths:
            raise TaskError(f"editable: no file of the last commit matches {list(self._editable)}")
        for path in paths:
            if head[path].mode not in WRITABLE:
                raise TaskError(f"editable: {path} is a link, not a regular file")
            if not self._is_committed(path, head[path]):
                raise DirtyError(
                    f"{path} has uncommitted changes: commit or stash them first "
                    "(experiments start from the last commit, and would silently leave them out)"
                )
        return paths

    def _is_committed(self, path: str, entry: Entry) -> bool:
        """Whether the checkout has this content of a file. The user's index is not asked: it may
        call an edited file unchanged (`git update-index --assume-unchanged`), and libgit2 reads
        neither a split nor a sparse one."""
        file = self._top / path
        if not file.is_symlink() and not file.exists():  # it is deleted, or not checked out
            listed = ask_git(self._top, "ls-files", "-t", "--", f":(literal){path}") or ""
            return listed.startswith("S ")
        if file.is_symlink() or not file.is_file():
            return False
        is_executable = entry.mode == FileMode.BLOB_EXECUTABLE
        if self._objects.has_modes and bool(file.stat().st_mode & 0o100) != is_executable:
            return False
        if pygit2.hashfile(str(file)) == entry.blob:
            return True
        # Filters, such as those of line ends and of LFS, may make it the same.
        return ask_git(self._top, "hash-object", "--", path) == str(entry.blob)

    def collect(self, folder: Path, manifest: Manifest, outputs: Collection[str] = ()) -> Files:
        """The changes of an agent in a materialised tree.

        New files named in `outputs`, relative to the task's folder, are no changes: the program
        makes them when an agent runs it there.

        Raises `Refused` for changes that the harness does not run: none, of a frozen file, a
        deleted or binary file, a link, only of a seed.
        """
        present: set[str] = set()
        changes: Files = {}
        frozen: list[str] = []
        for path, file in files_below(folder):
            present.add(path)
            entry = manifest.get(path)
            if entry and entry.is_link and file.is_symlink():
                continue
            if self.is_editable(path):
                if not file.is_file(follow_symlinks=False):
                    raise Refused("link", f"{path} is not a regular file any more")
                stat = file.stat(follow_symlinks=False)
                if stat.st_nlink > 1:
                    raise Refused("link", f"{path} is a hard link to another file")
                if stat.st_size > EDIT_LIMIT_BYTES:
                    raise Refused("too large", f"{path} has {stat.st_size} bytes")
                data = Path(file.path).read_bytes()
                if entry is None:
                    _refuse_name(path)
                if entry is None or pygit2.hash(data) != entry.blob:
                    old = self._objects.content(entry.blob) if entry else b""
                    _refuse_unreadable(path, data, old)
                    changes[path] = data
            elif entry is None:
                is_ignored = self._objects.repo.path_is_ignored(path)
                is_output = path.removeprefix(self._prefix) in outputs
                if not is_ignored and not is_output and LITTER.isdisjoint(path.split("/")):
                    frozen.append(path)
            elif not entry.describes(file):
                frozen.append(path)
        for path in manifest.keys() - present:
            if not self.is_editable(path):
                frozen.append(path)
            elif path in (self._prefix + name for name in self._editable):
                raise Refused("deleted", f"{path} was deleted")
            else:
                changes[path] = None
        if frozen:
            names = ", ".join(sorted(frozen))
            raise Refused("frozen file", f"changed outside `editable`: {names}")
        if not changes:
            raise Refused("no change", "the editable files are as they were")
        self._refuse_seed_change(changes, manifest)
        return changes

    def _refuse_seed_change(self, changes: Files, manifest: Manifest) -> None:
        """Refuse a diff in which every changed line names a seed and differs in numbers only: such
        a change could win by luck."""
        lines: list[tuple[str, str]] = []
        for path, data in changes.items():
            if data is None or path not in manifest:
                return
            content = self._objects.content(manifest[path].blob)
            old = content.decode(errors="replace").splitlines()
            new = data.decode(errors="replace").splitlines()
            matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
            for kind, a, b, c, d in matcher.get_opcodes():
                if kind == "equal":
                    continue
                if b - a != d - c:
                    return
                lines += zip(old[a:b], new[c:d], strict=True)
        if lines and all(
            SEEDING.search(before) and NUMBER.sub("0", before) == NUMBER.sub("0", after)
            for before, after in lines
        ):
            raise Refused("seed only", "the change only sets another seed")


def _refuse_name(path: str) -> None:
    """Refuse a new file whose name git cannot hold, or that changes what git does for the user."""
    own = next((name for name in path.split("/") if GITS_OWN.fullmatch(name)), None)
    if own is not None:
        raise Refused("name", f"{path}: git gives {own} a meaning of its own")
    if not path.isprintable() or "\\" in path:
        raise Refused("name", f"{path!a} has characters that cannot be printed, or backslashes")


def _refuse_unreadable(path: str, new: bytes, old: bytes) -> None:
    """Refuse an edit that nobody could read as a change of the program."""
    if b"\0" in new and b"\0" not in old:
        raise Refused("binary", f"{path} is no text any more")
    if old.strip() and not new.strip():
        raise Refused("deleted", f"{path} was emptied")
    added = (Counter(new.splitlines()) - Counter(old.splitlines())).total()
    if added > EDIT_LIMIT_LINES:
        raise Refused(
            "too large", f"{added} lines were added to {path}; at most {EDIT_LIMIT_LINES} are taken"
        )
