"""Git, and only here: commits by plumbing, refs, and pristine trees. The user's checkout is read,
never written: no reset, no clean, no add, no checkout, no push.

Refs of a session `tag`, all derived from the ledger:

    refs/autoresearch/<tag>/<number>   every experiment's commit, so that no row points at nothing
    refs/autoresearch/<tag>/<number>.moving   its next commit, while it is moved onto an incumbent
    refs/autoresearch/<tag>/best       the incumbent: the truth
    refs/heads/autoresearch/<tag>      follows it, as long as it is checked out nowhere
"""

from __future__ import annotations

import difflib
import os
import re
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeVar

import pygit2
from pygit2.enums import FileMode, FileStatus, Option

from autoresearch.errors import (
    DirtyError,
    NotOursError,
    Refused,
    StorageError,
    TaskError,
    WorkspaceError,
)
from autoresearch.files import files_below, remove_tree

AUTHOR = ("autoresearch", "autoresearch@localhost")
EDIT_LIMIT_BYTES = 2_000_000  # an editable file beyond this is not source any more
LITTER = {"__pycache__", ".DS_Store"}  # what programs leave in a folder that they only looked at
EDIT_LIMIT_LINES = 5_000  # that an edit may add: more is no idea that anybody could read
FULL_BYTES = 1_000_000  # with less than this free, a failure of git's is the disk's
GC_TRIES = 5  # of what the user's `git gc` comes in the way of
SPARE_FILES = 5_000  # in a tree that is kept for the next commit instead of being removed
SPARES = 4  # at most, beside those in use
TICK_NS = 50_000_000  # the clock of a file system is coarser than this nowhere
STALE_LOCK_S = 60  # git itself gives up on a lock after one second
OPEN_PACKS = 8  # at a time: every pack read would stay open until the end
PACK_EVERY = 64  # experiments, at least; loose objects and refs cost 4 kB of disk each until then
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
REF_TRIES = 20  # a tenth of a second apart
MOVING = ".moving"  # ends the name of a second ref of an experiment that is being moved
GLOB = re.compile(r"[!*?]")
WRITABLE = (FileMode.BLOB, FileMode.BLOB_EXECUTABLE)

T = TypeVar("T")
Files = dict[str, bytes | None]
"""Path in the repository -> new content, None when it was deleted."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of a commit: its blob, its mode, and what `stat` said when it was written out."""

    blob: pygit2.Oid
    mode: int
    size: int = 0
    mtime_ns: int = 0
    ctime_ns: int = 0
    inode: int = 0

    @property
    def is_link(self) -> bool:
        return self.mode == FileMode.LINK

    def is_untouched(self, stat: os.stat_result) -> bool:
        """Nobody has written to the file, linked it or changed its mode since it was written: the
        kernel puts the time of that into `ctime`, and lets no program choose it."""
        now = (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
        return now == (self.size, self.mtime_ns, self.ctime_ns, self.inode)

    def describes(self, file: os.DirEntry[str]) -> bool:
        """The regular file there has this content. Hashed only when `stat` cannot tell."""
        stat = file.stat(follow_symlinks=False)
        if (stat.st_size, stat.st_mtime_ns) == (self.size, self.mtime_ns):
            return True
        return file.is_file(follow_symlinks=False) and _hash(file) == self.blob


Manifest = dict[str, Entry]
COMMENT = (b"#", b"//")  # how a line begins that is one, in most languages


class Repository:
    """The repository that holds the task. Usable from several threads: one at a time gets in."""

    def __init__(
        self, root: Path, editable: Iterable[str], may_edit: Callable[[str], bool]
    ) -> None:
        """`root` is the task's folder, at or below the top of a repository's checkout; `may_edit`
        says of a path relative to it whether it matches the globs `editable`.

        Raises `WorkspaceError` when there is no repository, no commit or no checkout.
        """
        self.root = root.resolve()
        found = pygit2.discover_repository(str(self.root))
        if found is None:
            raise WorkspaceError(
                f"{self.root} is not in a git repository: "
                "run `git init && git add -A && git commit -m start` there first"
            )
        self._lock = threading.RLock()
        with self._mapped():
            # A commit named in the ledger must survive a power cut, as the ledger itself does.
            pygit2.option(Option.ENABLE_FSYNC_GITDIR, True)
            pygit2.option(Option.SET_MWINDOW_FILE_LIMIT, OPEN_PACKS)
            self._repo = pygit2.Repository(found)
        if self._repo.is_bare or self._repo.workdir is None:
            raise WorkspaceError(f"{found} is a bare repository: a checkout is needed")
        if self._repo.head_is_unborn:
            raise WorkspaceError(
                f"the repository at {self._repo.workdir} has no commits: commit the code first"
            )
        above = (self.root, *self.root.parents)  # not by name: libgit2 may spell it in other case
        top = next(folder for folder in above if folder.samefile(self._repo.workdir))
        self.prefix = PurePosixPath(self.root.relative_to(top).as_posix())
        self._named = tuple(editable)
        self._may_edit = may_edit
        self._made: dict[pygit2.Oid, tuple[int, bytes]] = {}  # type, content; since the last pack
        self._packed = self._made  # those of the last pack, which may not have survived either
        self._loose = 0  # experiments since then
        self._named_spares = 0
        self._spares: list[tuple[Path, Manifest]] = []  # large trees, to be made pristine again

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        """The one place where git's errors become ours."""
        try:
            with self._lock:
                yield
        except (pygit2.GitError, KeyError, ValueError, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:  # not one of libgit2's
                raise StorageError(f"cannot write {error.filename}: {error.strerror}") from error
            if "Read-only file system" in str(error):
                raise StorageError(f"cannot write to the repository: {error}") from error
            if shutil.disk_usage(self.root).free < FULL_BYTES:  # libgit2 may just say "no error"
                raise StorageError(f"the disk of {self.root} is full (git: {error})") from error
            raise WorkspaceError(f"git: {error}") from error

    def _in_repo(self, path: str) -> str:
        return path if str(self.prefix) == "." else f"{self.prefix}/{path}"

    # ---- what is there -------------------------------------------------------------------

    def head(self) -> str:
        with self._mapped():
            return str(self._repo.head.peel(pygit2.Commit).id)

    def is_editable(self, path: str) -> bool:
        """Of a path in the repository."""
        top = self._in_repo("")
        return path.startswith(top) and self._may_edit(path[len(top) :])

    def check_editable(self) -> list[str]:
        """The editable files of HEAD. Raises `TaskError` when one that is named is not there, and
        `DirtyError` when one differs from HEAD in the user's checkout."""
        manifest = self.manifest(self.head())
        paths = [path for path in manifest if self.is_editable(path)]
        for name in self._named:
            path = self._in_repo(name)
            if not GLOB.search(name) and not any(
                found == path or found.startswith(path + "/") for found in paths
            ):
                there = (self.root / name).exists()
                problem = "is not committed: commit it first" if there else "does not exist"
                if there and not (self.root / name).resolve().is_relative_to(self.root.resolve()):
                    problem = "is outside the task's folder, by a link: name a file within"
                raise TaskError(f"editable: {name!r} {problem}")
        if not paths:
            raise TaskError(f"editable: no file of the last commit matches {list(self._named)}")
        for path in paths:
            if manifest[path].mode not in WRITABLE:
                raise TaskError(f"editable: {path} is a link, not a regular file")
            with self._mapped():
                state = self._repo.status_file(path)
            if state != FileStatus.CURRENT:
                raise DirtyError(
                    f"{path} has uncommitted changes: commit or stash them first "
                    "(experiments start from the last commit, and would silently leave them out)"
                )
        return paths

    def manifest(self, commit: str) -> Manifest:
        """All files of a commit. Submodules are left out: their content is not in the commit."""
        with self._mapped():

            def walked() -> Manifest:
                found: Manifest = {}
                self._walk(self._tree(commit), "", found)
                return found

            return self._insistently(walked)

    def _walk(self, tree: pygit2.Tree, prefix: str, found: Manifest) -> None:
        for item in tree:
            path, mode = f"{prefix}{item.name}", item.filemode  # which costs a call each time
            if mode == FileMode.TREE:
                assert isinstance(item, pygit2.Tree)
                self._walk(item, path + "/", found)
            elif mode != FileMode.COMMIT:
                found[path] = Entry(item.id, mode)

    def _tree(self, commit: str) -> pygit2.Tree:
        found = self._insistently(lambda: self._repo[commit])
        assert isinstance(found, pygit2.Commit)
        return self._insistently(lambda: found.tree)

    def _content(self, blob: pygit2.Oid) -> bytes:
        return self._insistently(lambda: self._repo[blob].read_raw())

    def tree_id(self, commit: str) -> str:
        with self._mapped():
            return str(self._tree(commit).id)

    def editable_files(self, commit: str) -> dict[str, bytes]:
        with self._mapped():
            return {
                path: self._content(entry.blob)
                for path, entry in self.manifest(commit).items()
                if self.is_editable(path)
            }

    def code_lines(self, commit: str) -> int:
        """Lines of a commit's editable files that are neither blank nor a comment."""
        lines = b"\n".join(self.editable_files(commit).values()).splitlines()
        return sum(bool(line.strip()) and not line.lstrip().startswith(COMMENT) for line in lines)

    def read(self, commit: str, path: str) -> bytes | None:
        """One file of a commit, by its path relative to the task's folder."""
        with self._mapped():
            try:
                return self._content(self._tree(commit)[self._in_repo(path)].id)
            except KeyError:
                return None

    # ---- trees ---------------------------------------------------------------------------

    def materialize(self, commit: str, folder: Path, *, renewed: bool = True) -> Manifest:
        """Write all files of a commit into `folder`, which must not exist yet: no `.git`, no
        filters, no hooks. Returns what was written, for `collect` and `put_aside`. With
        `renewed`, files of a tree that was put aside may stay, where nobody has touched them."""
        with self._mapped():
            manifest = self.manifest(commit)
            if renewed and self._spares:
                return self._renew(*self._spares.pop(), folder, manifest)
            folder.mkdir(parents=True)
            made = {""}
            for path, entry in manifest.items():
                parent = path.rpartition("/")[0]
                if parent not in made:
                    (folder / parent).mkdir(parents=True, exist_ok=True)
                    made.add(parent)
                manifest[path] = self._write(f"{folder}/{path}", entry)
            (folder / self.prefix).mkdir(parents=True, exist_ok=True)
            return manifest

    def _write(self, target: str, entry: Entry) -> Entry:
        """Write a file of a commit where nothing is yet."""
        data = self._content(entry.blob)
        if entry.mode == FileMode.LINK:
            Path(target).symlink_to(os.fsdecode(data))
            return entry
        mode = 0o755 if entry.mode == FileMode.BLOB_EXECUTABLE else 0o644
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()  # or `stat` would not know the time of the write
            stat = os.fstat(file.fileno())
        times = (stat.st_mtime_ns, stat.st_ctime_ns)
        return Entry(entry.blob, entry.mode, len(data), *times, stat.st_ino)

    def put_aside(self, folder: Path, manifest: Manifest) -> None:
        """A materialised tree is not needed any more. A large one is kept, to be made pristine
        again for the next commit: to compare 100,000 files takes a second, to delete and write
        them tens of seconds (ext4 takes its time with names of files that were just deleted)."""
        if len(manifest) < SPARE_FILES or len(self._spares) >= SPARES or not folder.is_dir():
            remove_tree(folder)
            return
        with self._mapped():
            self._named_spares += 1
            spare = folder.with_name(f"spare-{self._named_spares}")
            remove_tree(spare)
            folder.rename(spare)
            self._spares.append((spare, manifest))

    def drop_spares(self) -> None:
        """Call at the end. What a kill leaves of them goes with the folders they are in."""
        with self._mapped():
            while self._spares:
                remove_tree(self._spares.pop()[0])

    def _renew(self, spare: Path, old: Manifest, folder: Path, wanted: Manifest) -> Manifest:
        """Turn a tree in which anything may have happened into the files of another commit.

        Only files that nobody has touched stay. The clock of a file system may tick but a few
        hundred times a second, so what was written last before the tree was handed out is not
        trusted to show a change, and is written again.
        """
        last_ns = max((entry.ctime_ns for entry in old.values()), default=0)
        folders = _folders_of(wanted)
        right: dict[str, Entry] = {}

        def clean(where: str, prefix: str) -> None:
            Path(where).chmod(0o755)
            for found in list(os.scandir(where)):
                path = prefix + found.name
                if found.is_dir(follow_symlinks=False):
                    if path in folders:
                        clean(found.path, f"{path}/")
                    else:
                        remove_tree(Path(found.path))
                    continue
                was, entry = old.get(path), wanted.get(path)
                if (
                    was is not None
                    and entry is not None
                    and (was.blob, was.mode) == (entry.blob, entry.mode)
                    and was.ctime_ns < last_ns - TICK_NS
                    and was.is_untouched(found.stat(follow_symlinks=False))
                ):
                    right[path] = was
                else:
                    Path(found.path).unlink()

        folder.parent.mkdir(parents=True, exist_ok=True)
        spare.rename(folder)
        clean(str(folder), "")
        made = {""}
        for path, entry in wanted.items():
            if path not in right:
                parent = path.rpartition("/")[0]
                if parent not in made:
                    (folder / parent).mkdir(parents=True, exist_ok=True)
                    made.add(parent)
                right[path] = self._write(f"{folder}/{path}", entry)
        (folder / self.prefix).mkdir(parents=True, exist_ok=True)
        return {path: right[path] for path in wanted}

    def restore(self, manifest: Manifest, folder: Path) -> None:
        """Make `folder` hold these files of a commit, in place: whoever stands in it stays there.
        Of what is not in the commit, only regular files that git ignores are left."""
        with self._mapped():
            folder.mkdir(parents=True, exist_ok=True)
            folders = _folders_of(manifest)
            right = set()
            for path, found in files_below(folder):
                if path in manifest and manifest[path].describes(found):
                    right.add(path)
                elif (
                    path in manifest
                    or path in folders
                    or self.is_editable(path)
                    or found.is_symlink()
                    or not self._repo.path_is_ignored(path)
                ):
                    Path(found.path).unlink()
            for path in manifest.keys() - right:
                remove_tree(folder / path)  # a folder in the place of a file
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                self._write(f"{folder}/{path}", manifest[path])
            (folder / self.prefix).mkdir(parents=True, exist_ok=True)

    def make_repository(self, folder: Path, manifest: Manifest | None = None) -> None:
        """Turn a materialised tree into a repository of one commit, which coding agents expect.
        It knows nothing of the user's: no history, no remote, no configuration. With `manifest` the
        commit holds that, whatever somebody has edited in the folder meanwhile."""
        remove_tree(folder / ".git")
        with self._mapped():
            repo = pygit2.init_repository(str(folder), initial_head="main")
            if manifest is None:
                repo.index.add_all()
            for path, entry in (manifest or {}).items():
                blob = repo.create_blob(self._repo[entry.blob].read_raw())
                repo.index.add(pygit2.IndexEntry(path, blob, FileMode(entry.mode)))
            repo.index.write()
            who = pygit2.Signature(*AUTHOR)
            repo.create_commit("HEAD", who, who, "incumbent\n", repo.index.write_tree(), [])

    def collect(self, folder: Path, manifest: Manifest) -> Files:
        """What an agent changed in a materialised tree, editable files only.

        Raises `Refused` for everything the harness will not run: no change, a frozen file, a
        deleted or binary file, a link, a change of nothing but a seed.
        """
        seen: set[str] = set()
        changes: Files = {}
        foreign: list[str] = []
        for path, target in files_below(folder):
            seen.add(path)
            entry = manifest.get(path)
            if entry and entry.mode == FileMode.LINK and target.is_symlink():
                continue
            if self.is_editable(path):
                if not target.is_file(follow_symlinks=False):
                    raise Refused("link", f"{path} is not a regular file any more")
                stat = target.stat(follow_symlinks=False)
                if stat.st_nlink > 1:
                    raise Refused("link", f"{path} is a hard link to another file")
                if stat.st_size > EDIT_LIMIT_BYTES:
                    raise Refused("too large", f"{path} has {stat.st_size} bytes")
                data = Path(target.path).read_bytes()
                if entry is None or pygit2.hash(data) != entry.blob:
                    old = self._content(entry.blob) if entry else b""
                    _refuse_unreadable(path, data, old)
                    changes[path] = data
            elif entry is None:
                if not self._repo.path_is_ignored(path) and LITTER.isdisjoint(path.split("/")):
                    foreign.append(path)
            elif not entry.describes(target):
                foreign.append(path)
        for path in manifest.keys() - seen:
            if not self.is_editable(path):
                foreign.append(path)
            elif path in map(self._in_repo, self._named):
                raise Refused("deleted", f"{path} was deleted")
            else:
                changes[path] = None
        if foreign:
            names = ", ".join(sorted(foreign))
            raise Refused("frozen file", f"changed outside `editable`: {names}")
        if not changes:
            raise Refused("no change", "the editable files are as they were")
        self._refuse_seed_change(changes, manifest)
        return changes

    def _refuse_seed_change(self, changes: Files, manifest: Manifest) -> None:
        """Luck is no idea: refuse a diff all of whose lines name a seed and differ in numbers."""
        touched: list[tuple[str, str]] = []
        for path, data in changes.items():
            if data is None or path not in manifest:
                return
            old = self._content(manifest[path].blob).decode(errors="replace").splitlines()
            new = data.decode(errors="replace").splitlines()
            matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
            for tag, a, b, c, d in matcher.get_opcodes():
                if tag == "equal":
                    continue
                if b - a != d - c:
                    return
                touched += zip(old[a:b], new[c:d], strict=True)
        number = re.compile(r"\d+")
        if touched and all(
            "seed" in one.lower() and number.sub("0", one) == number.sub("0", two)
            for one, two in touched
        ):
            raise Refused("seed only", "the change only sets another seed")

    # ---- commits -------------------------------------------------------------------------

    def commit(self, base: str, changes: Mapping[str, bytes | None], message: str) -> str:
        """A commit on top of `base` with these files changed. Moves no ref."""

        def create() -> str:
            tree = self._with_changes(self._tree(base), changes)
            return self._create_commit(tree, base, message)

        with self._mapped():
            return self._insistently(create)

    def _create_commit(self, tree: pygit2.Oid, parent: str, message: str) -> str:
        who = pygit2.Signature(*AUTHOR, int(time.time()), 0)
        oid = self._repo.create_commit(None, who, who, message, tree, [pygit2.Oid(hex=parent)])
        made = self._repo[oid]
        assert isinstance(made, pygit2.Commit)
        self._made[oid] = (made.type, made.read_raw())
        self._remember(made.tree, self._tree(parent))
        return str(oid)

    def _remember(self, new: pygit2.Tree, old: pygit2.Tree | None) -> None:
        """The objects of a tree that are not those of another."""
        self._made[new.id] = (new.type, new.read_raw())
        for item in new:
            name = str(item.name)
            was = old[name] if old is not None and name in old else None
            if item.filemode == FileMode.COMMIT or (was is not None and was.id == item.id):
                continue
            if isinstance(item, pygit2.Tree):
                self._remember(item, was if isinstance(was, pygit2.Tree) else None)
            else:
                self._made[item.id] = (item.type, item.read_raw())

    def _insistently(self, act: Callable[[], T]) -> T:
        """Again, when a `git gc` of the user's comes in the way. It takes away the empty folder
        that an object was to be put into; and with `--prune=now` all that had no ref when it began,
        whatever ref was made meanwhile. Such objects of ours are written again."""
        for _ in range(GC_TRIES):
            try:
                return act()
            except (pygit2.GitError, OSError, KeyError):
                self._repo.free()  # what it has in memory of packs that are gone
                self._write_again()
        return act()

    def _write_again(self) -> None:
        there = pygit2.Odb(str(self._objects()))  # our own believes what it has read or opened once
        for oid, (kind, data) in (self._packed | self._made).items():
            if oid not in there:
                with suppress(pygit2.GitError, OSError):  # the next try will tell
                    there.write(kind, data)

    def _with_changes(
        self, tree: pygit2.Tree | None, changes: Mapping[str, bytes | None]
    ) -> pygit2.Oid:
        builder = self._repo.TreeBuilder(tree) if tree is not None else self._repo.TreeBuilder()
        nested: dict[str, dict[str, bytes | None]] = {}
        for path, data in changes.items():
            name, _, rest = path.partition("/")
            if rest:
                nested.setdefault(name, {})[rest] = data
            elif data is None:
                builder.remove(name)
            else:
                known = builder.get(name)
                mode = known.filemode if known is not None else FileMode.BLOB
                blob = self._repo.create_blob(data)
                builder.insert(name, blob, mode)
        for name, inner in nested.items():
            known = builder.get(name)
            child = known if isinstance(known, pygit2.Tree) else None
            builder.insert(name, self._with_changes(child, inner), FileMode.TREE)
        return builder.write()

    def rebase(self, base: str, commit: str, onto: str) -> str | None:
        """The change `base..commit` on top of `onto`, as a new commit; None when they conflict."""

        def create() -> str | None:
            index = self._repo.merge_trees(self._tree(base), self._tree(onto), self._tree(commit))
            if index.conflicts is not None:
                return None
            original = self._repo[commit]
            assert isinstance(original, pygit2.Commit)
            return self._create_commit(index.write_tree(self._repo), onto, original.message)

        with self._mapped():
            return self._insistently(create)

    def diff(self, base: str, commit: str) -> str:
        with self._mapped():
            trees = self._tree(base), self._tree(commit)
            return self._insistently(lambda: trees[0].diff_to_tree(trees[1]).patch or "")

    def changed_lines(self, base: str, commit: str) -> tuple[int, int]:
        """(added, removed)"""
        with self._mapped():
            trees = self._tree(base), self._tree(commit)
            stats = self._insistently(lambda: trees[0].diff_to_tree(trees[1]).stats)
            return stats.insertions, stats.deletions

    # ---- refs ----------------------------------------------------------------------------

    def branch_name(self, tag: str) -> str:
        return f"autoresearch/{tag}"

    def check_tag_name(self, tag: str) -> None:
        """Raises `NotOursError` for a tag that cannot be part of a branch's name and a folder's."""
        if not TAG.fullmatch(tag) or not pygit2.reference_is_valid_name(f"refs/heads/{tag}"):
            raise NotOursError(f"{tag!r} cannot be a tag: letters, digits, '.', '_' and '-' can")

    def check_branch(self, tag: str) -> None:
        """Raises `NotOursError` when the branch of a new session is there already."""
        with self._mapped():
            mine = self.branch_name(tag)
            for name in self._repo.branches.local:
                if name in (mine, "autoresearch") or name.startswith(f"{mine}/"):
                    raise NotOursError(
                        f"a branch {name!r} exists and was made by no session recorded here: "
                        "choose another --tag, or rename that branch"
                    )

    def keep_reachable(self, tag: str, number: int, commit: str) -> None:
        self._set_ref(f"refs/autoresearch/{tag}/{number}", commit)

    @contextmanager
    def held(self, tag: str, number: int, commit: str) -> Iterator[None]:
        """While an experiment moves from one commit to another, neither is to be collected as
        garbage: a ref of its own names the second until the first is needed no more."""
        name = f"refs/autoresearch/{tag}/{number}{MOVING}"
        self._set_ref(name, commit)
        yield
        self.drop_ref(name)

    def passing_refs(self, tag: str, experiments: int) -> list[str]:
        """Refs that a kill left there: of an experiment that was being moved, or of the next one,
        which did not reach the ledger."""
        following = f"refs/autoresearch/{tag}/{experiments}"
        return [name for name in self.refs(tag) if name == following or name.endswith(MOVING)]

    def drop_ref(self, name: str) -> None:
        """Remove a ref of ours. One that the user's git keeps locked is left to the next start."""
        with self._mapped():
            for left in reversed(range(REF_TRIES)):
                try:
                    self._repo.references.delete(name)
                    return
                except KeyError:
                    return
                except (pygit2.GitError, OSError):
                    if left:
                        time.sleep(0.1)

    def move(self, tag: str, commit: str, ours: Iterable[str]) -> str | None:
        """Point `best` and the branch at the incumbent. The branch is left alone, and why is
        returned, when somebody stands on it or has moved it to a commit not among `ours`."""
        self._set_ref(f"refs/autoresearch/{tag}/best", commit)
        why = self.why_left_alone(tag, commit, ours)
        if why is None:
            self._set_ref(f"refs/heads/{self.branch_name(tag)}", commit)
        return why

    def why_left_alone(self, tag: str, commit: str, ours: Iterable[str]) -> str | None:
        """Why the branch is not to be moved to `commit`; None when it may be, or is there."""
        branch = self.branch_name(tag)
        with self._mapped():
            found = self._repo.branches.local.get(branch)
            if found is None or str(found.target) == commit:
                return None
            if found.is_checked_out():
                return (
                    f"branch {branch} is checked out, so it was not moved; "
                    f"the best commit is refs/autoresearch/{tag}/best"
                )
            if str(found.target) not in ours:
                return (
                    f"branch {branch} was moved by somebody else, so it was left alone; "
                    f"the best commit is refs/autoresearch/{tag}/best"
                )
        return None

    def is_stood_on(self, tag: str) -> bool:
        """The session's branch is checked out somewhere."""
        with self._mapped():
            found = self._repo.branches.local.get(self.branch_name(tag))
            return found is not None and found.is_checked_out()

    def has_files(self, commit: str) -> bool:
        """The commit is there, with the tree of its files."""
        with self._mapped():
            try:
                return self._tree(commit).id in self._repo
            except (KeyError, ValueError, AssertionError):
                return False

    def refs(self, tag: str) -> dict[str, str]:
        """All refs of a session but its branch: name -> commit."""
        prefix = f"refs/autoresearch/{tag}/"
        with self._mapped():
            names = [n for n in self._repo.references if n.startswith(prefix)]
            return {name: str(self._repo.references[name].target) for name in names}

    def ref(self, name: str) -> str | None:
        with self._mapped():
            found = self._repo.references.get(name)
            return None if found is None else str(found.target)

    def _set_ref(self, name: str, commit: str) -> None:
        with self._mapped():
            found = self._repo.references.get(name)
            if found is not None and str(found.target) == commit:
                return
            for left in reversed(range(REF_TRIES)):
                try:
                    self._repo.references.create(name, pygit2.Oid(hex=commit), force=True)
                    return
                except (pygit2.GitError, OSError):  # the user's git may be packing refs just now
                    if not left:
                        raise
                    time.sleep(0.1)
                    self._repo.free()
                    self._write_again()  # or has just collected the commit

    # ---- housekeeping --------------------------------------------------------------------

    def tidy(self, experiments: int) -> None:
        """Call once an experiment, with how many there are. See that none of the latest was
        collected as garbage. Every so often: put the objects made here into a pack and the refs
        into one file, as `git gc` would, but only what this process made. The file of refs is
        written whole, so it is written less often the longer it is."""
        self._loose += 1
        with self._mapped():
            self._write_again()
        if self._loose >= max(PACK_EVERY, experiments // 8):
            self._loose = 0
            self.pack()

    def pack(self) -> None:
        with self._mapped():
            self._write_again()
            if not self._made:
                return

            def add(builder: pygit2.PackBuilder) -> None:
                for oid in self._made:
                    with suppress(pygit2.GitError, KeyError):  # garbage by now: its ref has moved
                        builder.add(oid)

            self._insistently(lambda: self._repo.pack(pack_delegate=add))
            for oid in self._made:
                (self._objects() / str(oid)[:2] / str(oid)[2:]).unlink(missing_ok=True)
            self._packed, self._made = self._made, {}
            self._write_again()  # git takes an index away whose pack is about to be renamed
            self._compress_references()

    def _compress_references(self) -> None:
        git = self._objects().parent
        lock = git / "packed-refs.lock"
        if lock.exists() and time.time() - lock.stat().st_mtime > STALE_LOCK_S:
            lock.unlink(missing_ok=True)
        try:
            if Path(self._repo.path) == git:
                self._insistently(self._repo.compress_references)
            else:  # from a linked worktree, libgit2 looks in the wrong place
                self._insistently(pygit2.Repository(str(git)).compress_references)
        except (pygit2.GitError, OSError):
            if not lock.exists():  # else somebody is at it: the next time will do
                raise

    def break_locks(self, tag: str) -> None:
        """After a kill: remove the lock files it left on this session's refs. The owner of the
        session is the only one to write them."""
        for lock in self.locks(tag):
            lock.unlink(missing_ok=True)

    def locks(self, tag: str) -> list[Path]:
        """The lock files on this session's refs."""
        refs = self._objects().parent / "refs"
        branch = refs / "heads" / f"{self.branch_name(tag)}.lock"
        found = sorted((refs / "autoresearch" / tag).glob("*.lock"))
        return [*found, branch] if branch.exists() else found

    def _objects(self) -> Path:
        git = Path(self._repo.path)
        common = git / "commondir"  # there in a linked worktree, naming the main repository
        return (git / common.read_text().strip() if common.exists() else git) / "objects"

    def exclude(self, *patterns: str) -> None:
        """Let git overlook files of ours in the task's folder, through `.git/info/exclude`."""
        with self._mapped():
            path = self._objects().parent / "info" / "exclude"
            text = path.read_text() if path.exists() else ""
            lines = [f"/{self._in_repo(pattern)}" for pattern in patterns]
            missing = [line for line in lines if line not in text.splitlines()]
            if missing:
                path.parent.mkdir(exist_ok=True)
                gap = "" if not text or text.endswith("\n") else "\n"
                with path.open("a") as file:  # a kill in a rewrite would cost the user's lines
                    file.write(gap + "".join(f"{line}\n" for line in missing))


def _refuse_unreadable(path: str, new: bytes, old: bytes) -> None:
    """An edit that leaves nothing a person could read as a change of the program."""
    if b"\0" in new and b"\0" not in old:
        raise Refused("binary", f"{path} is no text any more")
    if old.strip() and not new.strip():
        raise Refused("deleted", f"{path} was emptied")
    added = (Counter(new.splitlines()) - Counter(old.splitlines())).total()
    if added > EDIT_LIMIT_LINES:
        raise Refused(
            "too large", f"{added} lines were added to {path}; at most {EDIT_LIMIT_LINES} are taken"
        )


def _folders_of(paths: Iterable[str]) -> set[str]:
    """All folders above these paths."""
    found: set[str] = set()
    for path in paths:
        folder = path.rpartition("/")[0]
        while folder and folder not in found:
            found.add(folder)
            folder = folder.rpartition("/")[0]
    return found


def _hash(file: os.DirEntry[str]) -> pygit2.Oid:
    return pygit2.hash(Path(file.path).read_bytes())
