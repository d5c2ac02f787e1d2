"""Pristine trees: folders that hold exactly the files of a commit, without `.git`.

Files are written as git stores them: no filters, no hooks, no line-end conversion.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import pygit2
from pygit2.enums import FileMode

from autoresearch.files import clear_path, files_below, remove_tree
from autoresearch.git.objects import AUTHOR, ObjectStore

SPARE_FILES = 5_000  # in a tree that is kept for the next commit instead of being removed
SPARES = 4  # at most
NO_BLOB = pygit2.Oid(hex="0" * 40)
TICK_NS = 50_000_000  # no file system's clock is coarser


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of a commit: its blob, its mode, and its `stat` when it was written out."""

    blob: pygit2.Oid
    mode: int
    size: int = 0
    mtime_ns: int = 0
    ctime_ns: int = 0
    inode: int = 0
    atime_ns: int = 0

    @classmethod
    def of(cls, status: os.stat_result) -> Entry:
        """A file that is in no commit: only its `stat` tells whether it has changed."""
        times = (status.st_mtime_ns, status.st_ctime_ns)
        return cls(NO_BLOB, FileMode.BLOB, status.st_size, *times, status.st_ino)

    @property
    def is_link(self) -> bool:
        return self.mode == FileMode.LINK

    def is_untouched(self, stat: os.stat_result) -> bool:
        """Whether nobody has written to the file, linked it or changed its mode. The kernel puts
        the time of any of these into `ctime`, and lets no program choose it."""
        now = (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
        return now == (self.size, self.mtime_ns, self.ctime_ns, self.inode)

    def describes(self, file: os.DirEntry[str]) -> bool:
        """Whether the file has this content. It is hashed only if `stat` cannot tell."""
        stat = file.stat(follow_symlinks=False)
        if (stat.st_size, stat.st_mtime_ns) == (self.size, self.mtime_ns):
            return True
        if not file.is_file(follow_symlinks=False) or (self.inode and stat.st_size != self.size):
            return False  # not read: a program may have made it as large as the disk
        return pygit2.hashfile(file.path) == self.blob


Manifest = dict[str, Entry]
"""Path in the repository -> its file."""


class PristineTrees:
    def __init__(
        self, objects: ObjectStore, prefix: PurePosixPath, is_editable: Callable[[str], bool]
    ) -> None:
        """`prefix` is the task's folder in the repository: each tree has it, even empty."""
        self._objects = objects
        self._prefix = prefix
        self._is_editable = is_editable
        self._spares: list[tuple[Path, Manifest]] = []
        self._spares_made = 0

    def manifest(self, commit: str) -> Manifest:
        """All files of a commit, without submodules: their content is not in the commit."""

        def walk(tree: pygit2.Tree, prefix: str, manifest: Manifest) -> Manifest:
            for item in tree:
                path, mode = f"{prefix}{item.name}", item.filemode  # each access costs a call
                if mode == FileMode.TREE:
                    assert isinstance(item, pygit2.Tree)
                    walk(item, path + "/", manifest)
                elif mode != FileMode.COMMIT:
                    manifest[path] = Entry(item.id, mode)
            return manifest

        return self._objects.run(lambda: walk(self._objects.tree(commit), "", {}))

    def materialize(self, commit: str, folder: Path, *, renewed: bool = True) -> Manifest:
        """Write all files of a commit into `folder`, which must not exist yet. Returns what was
        written, for `EditRules.collect` and `put_aside`. With `renewed`, a tree that was put aside
        may be used again: files that nobody has touched stay."""
        with self._objects.guard():
            manifest = self.manifest(commit)
            intact = self._reuse_spare(folder, manifest) if renewed and self._spares else None
            if intact is None:
                folder.mkdir(parents=True)
            return self._fill(folder, manifest, intact or {})

    def _reuse_spare(self, folder: Path, manifest: Manifest) -> Manifest | None:
        """Move the untouched files of a tree that was put aside into `folder`. Returns them; None
        if the tree holds something that cannot be moved or removed."""
        spare, old = self._spares.pop()
        try:
            intact = _move_intact(spare, folder, old, manifest)
            remove_tree(spare)
            return intact
        except OSError:
            clear_path(spare)
            clear_path(folder)
            return None

    def put_aside(self, folder: Path, manifest: Manifest) -> None:
        """Take back a materialised tree. A large one is kept for the next commit: to move 20,000
        untouched files takes 1.4 s of CPU time, to write them 3 to 10 s (ext4 is slow with names of
        files that were just deleted)."""
        if len(manifest) < SPARE_FILES or len(self._spares) >= SPARES or not folder.is_dir():
            clear_path(folder)
            return
        with self._objects.guard():
            self._spares_made += 1
            spare = folder.with_name(f"spare-{self._spares_made}")
            clear_path(spare)
            folder.rename(spare)
            self._spares.append((spare, manifest))

    def drop_spares(self) -> None:
        """Remove the trees put aside. After a kill, they go with the folder they are in."""
        with self._objects.guard():
            while self._spares:
                clear_path(self._spares.pop()[0])

    def restore(self, manifest: Manifest, folder: Path) -> None:
        """Make `folder` hold these files of a commit. The folder itself stays, so that it remains
        the working folder of processes. Of other files, only regular ones that git ignores stay."""
        with self._objects.guard():
            folder.mkdir(parents=True, exist_ok=True)
            folders = _folders_above(manifest)
            intact: Manifest = {}
            for path, file in files_below(folder, unlock=True):
                if path in manifest and manifest[path].describes(file):
                    intact[path] = manifest[path]
                elif (
                    path in manifest
                    or path in folders
                    or self._is_editable(path)
                    or file.is_symlink()
                    or not self._is_ignored(path)
                ):
                    Path(file.path).unlink()
            for path in manifest.keys() - intact.keys():
                remove_tree(folder / path)  # a folder in the place of a file
            self._fill(folder, manifest, intact)

    def _is_ignored(self, path: str) -> bool:
        try:
            return self._objects.repo.path_is_ignored(path)
        except UnicodeError:  # no file of the user's: its name is no text
            return False

    def make_repository(self, folder: Path, manifest: Manifest | None = None) -> None:
        """Turn a materialised tree into a repository of one commit, which coding agents expect.
        It has no history, remote or configuration of the user's. With `manifest` the commit holds
        these files, even if somebody has edited the folder meanwhile."""
        remove_tree(folder / ".git")
        with self._objects.guard():
            repo = pygit2.init_repository(str(folder), initial_head="main")
            if manifest is None:
                repo.index.add_all()
            for path, entry in (manifest or {}).items():
                blob = repo.create_blob(self._objects.content(entry.blob))
                repo.index.add(pygit2.IndexEntry(path, blob, FileMode(entry.mode)))
            repo.index.write()
            author = pygit2.Signature(*AUTHOR)
            repo.create_commit("HEAD", author, author, "incumbent\n", repo.index.write_tree(), [])

    def _fill(self, folder: Path, manifest: Manifest, intact: Manifest) -> Manifest:
        """Write all files that are not `intact`. Returns the manifest with each file's `stat`."""
        written: Manifest = {}
        folders = {""}
        for path, entry in manifest.items():
            if path in intact:
                written[path] = intact[path]
                continue
            parent = path.rpartition("/")[0]
            if parent not in folders:
                (folder / parent).mkdir(parents=True, exist_ok=True)
                folders.add(parent)
            written[path] = self._write(f"{folder}/{path}", entry)
        (folder / self._prefix).mkdir(parents=True, exist_ok=True)
        return written

    def _write(self, target: str, entry: Entry) -> Entry:
        """Write a file of a commit to a path where nothing is."""
        data = self._objects.content(entry.blob)
        if entry.is_link:
            Path(target).symlink_to(os.fsdecode(data))
            return entry
        mode = 0o755 if entry.mode == FileMode.BLOB_EXECUTABLE else 0o644
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()  # before `stat`, which else lacks the time of the write
            stat = os.fstat(file.fileno())
        times = (stat.st_mtime_ns, stat.st_ctime_ns)
        return Entry(entry.blob, entry.mode, len(data), *times, stat.st_ino, stat.st_atime_ns)


def _move_intact(spare: Path, folder: Path, old: Manifest, wanted: Manifest) -> Manifest:
    """Move the files of `wanted` that nobody has touched out of a used tree. Return those.

    The folders are new: a program could have left attributes on the old ones, or have made them
    larger. The times at which files were read are set back.

    A file system's clock may tick only a few hundred times a second, so a change right after the
    last writes of `old` may not show. Therefore the files that were written last stay behind.
    """
    last_ns = max((entry.ctime_ns for entry in old.values()), default=0)
    folder.mkdir(parents=True)
    made = {""}
    intact: Manifest = {}
    for path, file in files_below(spare, unlock=True):
        before, entry = old.get(path), wanted.get(path)
        if (
            before is None
            or entry is None
            or (before.blob, before.mode) != (entry.blob, entry.mode)
        ):
            continue
        stat = file.stat(follow_symlinks=False)
        if before.ctime_ns >= last_ns - TICK_NS or not before.is_untouched(stat):
            continue
        parent, target = path.rpartition("/")[0], f"{folder}/{path}"
        if parent not in made:
            (folder / parent).mkdir(parents=True, exist_ok=True)
            made.add(parent)
        os.rename(file.path, target)  # noqa: PTH104 - of 100,000 files
        if stat.st_atime_ns != before.atime_ns:
            os.utime(target, ns=(before.atime_ns, before.mtime_ns))
        intact[path] = replace(before, ctime_ns=os.lstat(target).st_ctime_ns)
    return intact


def _folders_above(paths: Iterable[str]) -> set[str]:
    folders: set[str] = set()
    for path in paths:
        folder = path.rpartition("/")[0]
        while folder and folder not in folders:
            folders.add(folder)
            folder = folder.rpartition("/")[0]
    return folders
