"""Git's objects: read, create and pack them while the user works in the same repository.

The user may run `git gc --prune=now` at any time. It deletes every object that no ref reached when
it began, even a commit that the harness has just made. The store therefore keeps the content of its
latest objects in memory, writes them again when they are gone, and repeats what failed.
"""

from __future__ import annotations

import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import pygit2
from pygit2.enums import FileMode, Option

from autoresearch.errors import StorageError, WorkspaceError
from autoresearch.git.opening import explain_missing_object, open_repository

AUTHOR = ("autoresearch", "autoresearch@localhost")
FULL_BYTES = 1_000_000  # with less than this free, a failed write means that the disk is full
GC_TRIES = 5
STALE_LOCK_S = 60  # git itself gives up on a lock after one second
OPEN_PACKS = 8  # at a time; without a limit every pack read stays open
PACK_EVERY = 64  # experiments, at least; loose objects and refs cost 4 kB of disk each until then

OBJECT = re.compile("[0-9a-f]{40}")

T = TypeVar("T")


class ObjectStore:
    """The objects of one repository. Threads may share it: a lock admits one at a time."""

    def __init__(self, root: Path) -> None:
        """Open the repository that holds the folder `root`. Raises `WorkspaceError`."""
        self._root = root
        self._lock = threading.RLock()
        with self.guard():
            # A commit named in the ledger must survive a power cut, as the ledger itself does.
            pygit2.option(Option.ENABLE_FSYNC_GITDIR, True)
            pygit2.option(Option.SET_MWINDOW_FILE_LIMIT, OPEN_PACKS)
            self.repo = open_repository(root)
        self.git_folder = Path(self.repo.path)
        common = self.git_folder / "commondir"  # in a linked worktree: names the main repository
        if common.exists():
            self.git_folder /= common.read_text().strip()
        self._new: dict[pygit2.Oid, tuple[int, bytes]] = {}  # type and content, since the last pack
        self._packed = self._new  # of the last pack: a `git gc` may have deleted them
        self._experiments_since_pack = 0

    @property
    def has_modes(self) -> bool:
        """Whether the checkout's file system tells which files are executable."""
        config = self.repo.config
        return "core.filemode" not in config or config.get_bool("core.filemode")

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Exclude other threads, and raise git's errors as `WorkspaceError` or `StorageError`."""
        try:
            with self._lock:
                yield
        except (pygit2.GitError, KeyError, ValueError, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:  # not one of libgit2's
                raise StorageError(f"cannot write {error.filename}: {error.strerror}") from error
            if "Read-only file system" in str(error):
                raise StorageError(f"cannot write to the repository: {error}") from error
            if shutil.disk_usage(self._root).free < FULL_BYTES:  # libgit2 may just say "no error"
                raise StorageError(f"the disk of {self._root} is full (git: {error})") from error
            if isinstance(error, KeyError) and OBJECT.fullmatch(str(error.args[0])):
                raise WorkspaceError(explain_missing_object(self.repo, error.args[0])) from error
            raise WorkspaceError(f"git: {error}") from error

    def retry(self, act: Callable[[], T]) -> T:
        """Repeat `act` if a `git gc` of the user interferes: it deletes our objects, or the empty
        folder in which an object was about to be created."""
        for _ in range(GC_TRIES):
            try:
                return act()
            except (pygit2.GitError, OSError, KeyError):
                self.repo.free()  # close packs that are gone
                self.write_again()
        return act()

    def run(self, act: Callable[[], T]) -> T:
        """Do `act`, guarded and retried."""
        with self.guard():
            return self.retry(act)

    def tree(self, commit: str) -> pygit2.Tree:
        return self.retry(lambda: self.repo[commit].peel(pygit2.Tree))

    def content(self, blob: pygit2.Oid) -> bytes:
        return self.retry(lambda: self.repo[blob].read_raw())

    def create_commit(
        self,
        tree: pygit2.Oid,
        parent: str,
        message: str,
        author: pygit2.Signature | None = None,
    ) -> str:
        """Create a commit that no ref names yet, by default in the name of the harness, now."""
        author = author or pygit2.Signature(*AUTHOR, int(time.time()), 0)
        parents = [pygit2.Oid(hex=parent)]
        oid = self.repo.create_commit(None, author, author, message, tree, parents)
        commit = self.repo[oid]
        assert isinstance(commit, pygit2.Commit)
        self._new[oid] = (commit.type, commit.read_raw())
        self._remember(commit.tree, self.tree(parent))
        return str(oid)

    def _remember(self, new: pygit2.Tree, old: pygit2.Tree | None) -> None:
        """Keep the content of all objects of the tree `new` that are not in `old`."""
        self._new[new.id] = (new.type, new.read_raw())
        for item in new:
            name = str(item.name)
            before = old[name] if old is not None and name in old else None
            if item.filemode == FileMode.COMMIT or (before is not None and before.id == item.id):
                continue
            if isinstance(item, pygit2.Tree):
                self._remember(item, before if isinstance(before, pygit2.Tree) else None)
            else:
                self._new[item.id] = (item.type, item.read_raw())

    def write_again(self) -> None:
        """Write those of our latest objects that were deleted."""
        # Open a fresh object database: the repository's own caches objects that are gone.
        database = pygit2.Odb(str(self.git_folder / "objects"))
        for oid, (kind, data) in (self._packed | self._new).items():
            if oid not in database:
                with suppress(pygit2.GitError, OSError):  # the next try fails if it is missing
                    database.write(kind, data)

    def tidy(self, experiments: int) -> None:
        """Write the latest objects again if they are gone, and pack now and then. To be called once
        an experiment, with the number of experiments. Packing rewrites the file of all refs, so it
        is done less often the more experiments there are."""
        self._experiments_since_pack += 1
        with self.guard():
            self.write_again()
        if self._experiments_since_pack >= max(PACK_EVERY, experiments // 8):
            self._experiments_since_pack = 0
            self.pack()

    def pack(self) -> None:
        """Put the objects made since the last pack into a pack and the refs into one file, as
        `git gc` would, but touch no object that this process did not make."""
        with self.guard():
            self.write_again()
            if not self._new:
                return

            def add(builder: pygit2.PackBuilder) -> None:
                for oid in self._new:
                    with suppress(pygit2.GitError, KeyError):  # it is garbage: its ref has moved
                        builder.add(oid)

            self.retry(lambda: self.repo.pack(pack_delegate=add))
            for oid in self._new:
                loose = self.git_folder / "objects" / str(oid)[:2] / str(oid)[2:]
                loose.unlink(missing_ok=True)
            self._packed, self._new = self._new, {}
            self.write_again()  # `git gc` may have deleted the index before its pack had its name
            self._pack_refs()

    def _pack_refs(self) -> None:
        lock = self.git_folder / "packed-refs.lock"
        if lock.exists() and time.time() - lock.stat().st_mtime > STALE_LOCK_S:
            lock.unlink(missing_ok=True)
        # From a linked worktree, libgit2 looks for the refs in the wrong folder.
        is_main = Path(self.repo.path) == self.git_folder
        repo = self.repo if is_main else pygit2.Repository(str(self.git_folder))
        try:
            self.retry(repo.compress_references)
        except (pygit2.GitError, OSError):
            if not lock.exists():  # another process packs refs now: the next pack includes ours
                raise
