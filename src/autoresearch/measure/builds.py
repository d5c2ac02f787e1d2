"""`[run] build`: what a commit's files are made into, before the clock of its runs starts.

A build works in a tree of its own, confined like a run. What it made is kept in a folder, and each
run gets a copy. The key of that folder is the content of the commit, the command, and the segment
of the environment, so the runs of one program share one build, and two programs never do.

A run cannot write that folder, so no run can change what another one is made of. If a file in it is
not as the build left it, the build is made again. Size, inode and times tell: no program chooses
the `ctime` of a file.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from autoresearch.files import files_below, remove_tree, replace_file
from autoresearch.git.trees import Entry, Manifest
from autoresearch.measure.execution import CommandExecutor, check_settled
from autoresearch.protocols import RunResult, TreeFile
from autoresearch.store import values

BUILD = "build: "  # begins the reason of a crash for which a build is to blame
SPARE_BUILDS = 8  # kept beside those of the runs under way
LINK = 0o120000


class BuildFailed(Exception):
    """The build command failed on a commit's files. The log has its output."""

    def __init__(self, result: RunResult, log: Path) -> None:
        super().__init__(result.stopped or f"exit code {result.exit_code}")
        self.result, self.log = result, log


@dataclass(frozen=True, slots=True)
class Stamp:
    """The state of a build's files when it had ended."""

    digest: str
    size: int  # bytes


@dataclass(frozen=True, slots=True)
class Build:
    """The files that a build made, in a folder. Their paths are those in a run's tree."""

    folder: Path
    kept: frozenset[str]  # paths that count as the run's own files: a scorer reads them

    def list_files(self) -> Iterator[tuple[str, Path]]:
        """Regular files and links."""
        for path, entry in files_below(self.folder):
            if entry.is_symlink() or entry.is_file(follow_symlinks=False):
                yield path, Path(entry.path)

    def copy_into(self, tree: Path) -> Manifest:
        """Copy the files into a tree in which nothing runs yet. Return them as files that the run
        did not make. No link in the tree is followed: it may lead to the user's files.

        They are newer than the commit's and in the order in which the build made them: else `make`
        would make them again.
        """
        now_ns, files, copied = time.time_ns(), list(self.list_files()), Manifest()
        times_ns = [file.lstat().st_mtime_ns for _, file in files]
        ranks = {time_ns: rank for rank, time_ns in enumerate(sorted(set(times_ns)))}
        for (path, file), time_ns in zip(files, times_ns, strict=True):
            target = tree / path
            _make_parents(tree, target)
            remove_tree(target)
            shutil.copy(file, target, follow_symlinks=False)
            copied_ns = now_ns + 1000 * ranks[time_ns]
            os.utime(target, ns=(copied_ns, copied_ns), follow_symlinks=False)
            if path not in self.kept:
                copied[path] = Entry.of(target.lstat())
        return copied

    def manifest(self) -> dict[str, TreeFile]:
        return {path: TreeFile.of(_read(file), _mode(file)) for path, file in self.list_files()}

    def contents(self) -> dict[str, bytes]:
        """The content of each file by its blob."""
        contents = (_read(file) for _, file in self.list_files())
        return {TreeFile.of(content).blob: content for content in contents}


class BuildCache:
    """The builds of one session's commits. Usable from several threads."""

    def __init__(self, commands: CommandExecutor) -> None:
        self._commands = commands
        self._folder = commands.paths.builds
        self._guard = threading.Lock()
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._segment = 0

    def get(self, commit: str, segment: int | None = None) -> Build | None:
        """The build of a commit, made now if need be; None if the task has no build command.
        Without a segment, it is that of the latest run.

        Raises `BuildFailed`, and `Interrupted` if it was abandoned or lost.
        """
        if self._commands.task.run.build is None:
            return None
        self._segment = self._segment if segment is None else segment
        key = self._make_key(commit, self._segment)
        with self._lock(key):
            build = self._find(key) or self._make(key, commit)
        self._drop_oldest()
        return build

    def _make_key(self, commit: str, segment: int) -> str:
        command, tree = self._commands.task.run.build, self._commands.repository.tree_id(commit)
        return hashlib.sha256(f"{command}\0{tree}\0{segment}".encode()).hexdigest()[:16]

    @contextmanager
    def _lock(self, key: str) -> Iterator[None]:
        """Let one thread at a time look for a build and make it."""
        with self._guard:
            lock = self._locks[key]
        with lock:
            yield

    def _build_in(self, folder: Path) -> Build:
        score, prefix = self._commands.task.score, self._commands.repository.prefix
        names = score.reads if score else ()
        return Build(folder, frozenset((prefix / name).as_posix() for name in names))

    def _find(self, key: str) -> Build | None:
        """A build that is as it was left; None if there is none."""
        folder, record = self._folder / key, self._folder / f"{key}.json"
        stamp = values.read(record, Stamp)
        if stamp is None or not folder.is_dir() or _make_stamp(folder) != stamp:
            return None
        os.utime(record)  # used just now
        return self._build_in(folder)

    def _make(self, key: str, commit: str) -> Build:
        commands, settings = self._commands, self._commands.task.run
        folder, log, outcome = (self._folder / f"{key}{end}" for end in ("", ".log", ".end"))
        assert settings.build is not None
        (self._folder / f"{key}.json").unlink(missing_ok=True)
        self._folder.mkdir(parents=True, exist_ok=True)
        content = commands.tree(commit, may_reuse=False)
        spec = commands.spec(settings.build, folder, log, outcome, seed=0)
        result = commands.execute(replace(spec, timeout_s=settings.build_timeout_s), content)
        outcome.unlink(missing_ok=True)
        check_settled(result)
        if result.stopped is not None or result.exit_code != 0:
            remove_tree(folder)
            raise BuildFailed(result, log)
        _remove_sources(folder, content.written or commands.repository.trees.manifest(commit))
        for name in content.links:
            if (folder / name).is_symlink():
                (folder / name).unlink()
        stamp = json.dumps(asdict(_make_stamp(folder)))
        replace_file(self._folder / f"{key}.json", stamp.encode(), is_durable=False)
        return self._build_in(folder)

    def _drop_oldest(self) -> None:
        """Remove the builds that were not used for longest, above a number and a size."""
        runner = self._commands.task.runner
        with self._guard:
            records = sorted(self._folder.glob("*.json"), key=lambda file: file.stat().st_mtime)
            sizes = {file: stamp.size for file in records if (stamp := values.read(file, Stamp))}
            while len(sizes) > runner.slots + 1 and (
                len(sizes) > 2 * runner.slots + SPARE_BUILDS
                or sum(sizes.values()) > runner.keep_outputs_bytes
            ):
                oldest = next(iter(sizes))
                del sizes[oldest]
                oldest.unlink()
                remove_tree(oldest.with_suffix(""))
                oldest.with_suffix(".log").unlink(missing_ok=True)


def _remove_sources(folder: Path, manifest: Manifest) -> None:
    """Remove the commit's files that the build has left as they were."""
    for path, file in files_below(folder):
        entry = manifest.get(path)
        if entry is not None and (file.is_symlink() if entry.is_link else entry.describes(file)):
            Path(file.path).unlink()


def _make_stamp(folder: Path) -> Stamp:
    digest, size = hashlib.sha256(), 0
    for path, file in sorted(files_below(folder), key=lambda item: item[0]):
        status = file.stat(follow_symlinks=False)
        times = (status.st_mtime_ns, status.st_ctime_ns)
        facts = (path, status.st_mode, status.st_size, status.st_ino, *times)
        digest.update(repr(facts).encode())
        size += status.st_size
    return Stamp(digest.hexdigest(), size)


def _make_parents(tree: Path, target: Path) -> None:
    """Make the folders above `target`. A link or a file in the place of one is replaced."""
    for folder in reversed(target.relative_to(tree).parents[:-1]):
        place = tree / folder
        if place.is_symlink() or not place.is_dir():
            remove_tree(place)
            place.mkdir()


def _read(file: Path) -> bytes:
    return os.fsencode(file.readlink()) if file.is_symlink() else file.read_bytes()


def _mode(file: Path) -> int:
    if file.is_symlink():
        return LINK
    return 0o100755 if os.access(file, os.X_OK) else 0o100644
