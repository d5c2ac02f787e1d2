"""The user's git repository, as experiments use it: read commits, make commits, compare them.

The user's checkout is read, never written: no reset, clean, add, checkout or push. The harness
writes objects (objects.py), refs of its own (refs.py), trees elsewhere (trees.py), and one file of
git's, `.git/info/exclude`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath

import pygit2
from pygit2.enums import DeltaStatus, FileMode

from autoresearch.errors import WorkspaceError
from autoresearch.git.branches import UserBranches
from autoresearch.git.edits import EditRules
from autoresearch.git.objects import ObjectStore
from autoresearch.git.refs import SessionRefs
from autoresearch.git.trees import PristineTrees
from autoresearch.merging import merge

EMPTY_TREE = pygit2.Oid(hex="4b825dc642cb6eb9a060e54bf8d69288fbee4904")  # git's, always
COMMENT = (b"#", b"//")  # begins a line that is a comment, in most languages


class Repository:
    """The repository that holds the task. Threads may share it."""

    def __init__(
        self, root: Path, editable: Iterable[str], may_edit: Callable[[str], bool]
    ) -> None:
        """`root` is the task's folder, at or below the top of a repository's checkout. `may_edit`
        says of a path relative to it whether it matches the globs `editable`.

        Raises `WorkspaceError` if there is no repository, no commit or no checkout.
        """
        self.root = root.resolve()
        self._objects = ObjectStore(self.root)
        repo = self._repo = self._objects.repo
        if repo.is_bare or repo.workdir is None:
            raise WorkspaceError(f"{repo.path} is a bare repository: a checkout is needed")
        if repo.head_is_unborn:
            raise WorkspaceError(
                f"the repository at {repo.workdir} has no commits: commit the code first"
            )
        above = (self.root, *self.root.parents)  # not by name: libgit2 may spell it in other case
        top = next(folder for folder in above if folder.samefile(repo.workdir))
        self.prefix = PurePosixPath(self.root.relative_to(top).as_posix())
        self.refs = SessionRefs(self._objects)
        self.branches = UserBranches(self._objects)
        self.edits = EditRules(self._objects, self.root, self.prefix, editable, may_edit)
        self.trees = PristineTrees(self._objects, self.prefix, self.edits.is_editable)
        self.tidy = self._objects.tidy
        self.pack = self._objects.pack

    def head(self) -> str:
        with self._objects.guard():
            return str(self._repo.head.peel(pygit2.Commit).id)

    def check_editable(self) -> list[str]:
        """The editable files of HEAD; see `EditRules.check_committed`."""
        return self.edits.check_committed(self.trees.manifest(self.head()))

    def has_files(self, commit: str) -> bool:
        """Whether the commit exists, with the tree of its files."""
        with self._objects.guard():
            try:
                return self._objects.tree(commit).id in self._repo
            except (KeyError, ValueError):
                return False

    def read_blob(self, blob: str) -> bytes:
        """The content of the blob with this id."""
        with self._objects.guard():
            return self._objects.content(pygit2.Oid(hex=blob))

    def tree_id(self, commit: str) -> str:
        with self._objects.guard():
            return str(self._objects.tree(commit).id)

    def get_subject(self, commit: str) -> str:
        """The first line of a commit's message."""
        with self._objects.guard():
            return str(self._repo[commit].peel(pygit2.Commit).message).partition("\n")[0]

    def editable_files(self, commit: str) -> dict[str, bytes]:
        """Path in the repository -> content."""
        with self._objects.guard():
            return {
                path: self._objects.content(entry.blob)
                for path, entry in self.trees.manifest(commit).items()
                if self.edits.is_editable(path)
            }

    def code_lines(self, commit: str) -> int:
        """Lines of a commit's editable files that are neither blank nor a comment."""
        lines = b"\n".join(self.editable_files(commit).values()).splitlines()
        return sum(bool(line.strip()) and not line.lstrip().startswith(COMMENT) for line in lines)

    def commit(self, base: str, changes: Mapping[str, bytes | None], message: str) -> str:
        """Make a commit on top of `base` with these files changed. Moves no ref."""

        def create() -> str:
            tree = self._write_tree(self._objects.tree(base), changes)
            return self._objects.create_commit(tree, base, message)

        return self._objects.run(create)

    def _write_tree(
        self, base: pygit2.Tree | None, changes: Mapping[str, bytes | None]
    ) -> pygit2.Oid:
        builder = self._repo.TreeBuilder(base) if base is not None else self._repo.TreeBuilder()
        below: dict[str, dict[str, bytes | None]] = {}
        for path, data in changes.items():
            name, _, rest = path.partition("/")
            if rest:
                below.setdefault(name, {})[rest] = data
            elif data is None:
                if builder.get(name) is not None:
                    builder.remove(name)
            else:
                old = builder.get(name)
                mode = old.filemode if isinstance(old, pygit2.Blob) else FileMode.BLOB
                builder.insert(name, self._repo.create_blob(data), mode)
        for name, inner in below.items():
            old = builder.get(name)
            if old is not None and not isinstance(old, pygit2.Tree):
                continue  # a file has taken the place of the folder, whose files are gone
            tree = self._write_tree(old, inner)
            if tree != EMPTY_TREE:
                builder.insert(name, tree, FileMode.TREE)
            elif old is not None:
                builder.remove(name)
        return builder.write()

    def rebase(self, base: str, commit: str, onto: str) -> str | None:
        """The change `base..commit` on top of `onto`, as a new commit; None if they conflict, as in
        `merge_tree`."""

        def create() -> str | None:
            merged = self._merge(base, commit, onto)
            original = self._repo[commit]
            assert isinstance(original, pygit2.Commit)
            return merged and self._objects.create_commit(merged, onto, original.message)

        return self._objects.run(create)

    def merge_tree(self, base: str, commit: str, onto: str) -> str | None:
        """The tree of `onto` with the change `base..commit`; None if they conflict. Each may be a
        commit or a tree. Changes of lines beside each other do not conflict here, as they do for
        git: constants are written so."""
        merged = self._objects.run(lambda: self._merge(base, commit, onto))
        return None if merged is None else str(merged)

    def _merge(self, base: str, commit: str, onto: str) -> pygit2.Oid | None:
        tree = self._objects.tree
        index = self._repo.merge_trees(tree(base), tree(onto), tree(commit))
        if index.conflicts is not None:
            for sides in list(index.conflicts):
                entries = [side for side in sides if side is not None]
                if len(entries) < len(sides):
                    return None  # one side deleted or created the file
                old, ours, theirs = (self._objects.content(entry.id) for entry in entries)
                merged = merge(old, ours, theirs)
                if merged is None:
                    return None
                del index.conflicts[entries[1].path]
                blob = self._repo.create_blob(merged)
                index.add(pygit2.IndexEntry(entries[1].path, blob, entries[1].mode))
        return None if index.conflicts is not None else index.write_tree(self._repo)

    def diff(self, base: str, commit: str) -> str:
        """The change as a patch."""
        return self._objects.run(lambda: self._diff(base, commit).patch or "")

    def changed_files(self, base: str, commit: str) -> list[str]:
        """The paths of the files that differ between two commits."""
        deltas = self._objects.run(lambda: list(self._diff(base, commit).deltas))
        return sorted({delta.new_file.path for delta in deltas})

    def added_files(self, base: str, commit: str) -> list[str]:
        """The paths of the files that are in `commit` alone."""
        deltas = self._objects.run(lambda: list(self._diff(base, commit).deltas))
        return [d.new_file.path for d in deltas if d.status == DeltaStatus.ADDED]

    def changed_lines(self, base: str, commit: str) -> tuple[int, int]:
        """(added, removed)"""
        stats = self._objects.run(lambda: self._diff(base, commit).stats)
        return stats.insertions, stats.deletions

    def _diff(self, base: str, commit: str) -> pygit2.Diff:
        return self._objects.tree(base).diff_to_tree(self._objects.tree(commit))

    def exclude(self, *patterns: str) -> None:
        """Make git ignore files in the task's folder, through `.git/info/exclude`."""
        with self._objects.guard():
            path = self._objects.git_folder / "info" / "exclude"
            text = path.read_text() if path.exists() else ""
            prefix = "/" if str(self.prefix) == "." else f"/{self.prefix}/"
            lines = [prefix + pattern for pattern in patterns]
            missing = [line for line in lines if line not in text.splitlines()]
            if missing:
                path.parent.mkdir(exist_ok=True)
                gap = "" if not text or text.endswith("\n") else "\n"
                with path.open("a") as file:  # a kill while rewriting would lose the user's lines
                    file.write(gap + "".join(f"{line}\n" for line in missing))
