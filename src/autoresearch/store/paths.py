"""Where everything lies: all paths of a session in one place, and the lock on it.

.autoresearch/                  beside the task file, kept out of git by .git/info/exclude
  ledger.sqlite                 all sessions
  <tag>/lock                    held while a process owns the session; its pid is in it
  <tag>/session.log             what a detached session prints
  <tag>/runs/<experiment>/<run> a run's log, outcome and artefacts
  <tag>/trees/                  pristine trees of the runs under way
  <tag>/setup/                  the tree in which the task's `setup` worked, which stays
  <tag>/turns/                  worktrees of the agent's turns under way
  <tag>/work/                   the folder of an agent that calls the harness itself
  <tag>/try.json                what became of its latest try

Beside it, only in the system's folder for temporary files, one for the runs under way: the names of
sockets, which programs put there, may have no more than 107 characters (103 on macOS).
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from autoresearch.errors import BusyError, StorageError

PID_BYTES = 32  # of a lock are read
PID_WRITTEN_S = 1.0  # a process that has just taken a lock has written its pid by then
STATE = ".autoresearch"
PUBLIC = ("results.tsv", "progress.png", "report.md")
OURS = (f"{STATE}/", *PUBLIC)
"""What we put into the task's folder, as patterns for git's exclude file."""


@dataclass(frozen=True, slots=True)
class SessionPaths:
    root: Path  # the task's folder
    tag: str

    @property
    def ledger(self) -> Path:
        return ledger_path(self.root)

    @property
    def folder(self) -> Path:
        return self.root / STATE / self.tag

    @property
    def lock(self) -> Path:
        return self.folder / "lock"

    @property
    def log(self) -> Path:
        return self.folder / "session.log"

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    @property
    def trees(self) -> Path:
        return self.folder / "trees"

    @property
    def setup(self) -> Path:
        return self.folder / "setup"

    @property
    def temporary(self) -> Path:
        """Temporary folders of the runs under way. Programs make sockets there, whose paths may
        have 103 bytes on macOS, where 49 are in the name of the user's own temporary folder."""
        name = hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:12]
        folder = tempfile.gettempdir()
        if sys.platform == "darwin" and folder.startswith("/var/folders/"):
            folder = "/tmp"
        return Path(folder, f"autoresearch-{name}")

    @property
    def turns(self) -> Path:
        return self.folder / "turns"

    @property
    def work(self) -> Path:
        return self.folder / "work"

    @property
    def latest_try(self) -> Path:
        return self.folder / "try.json"

    @property
    def results(self) -> Path:
        return self.root / "results.tsv"

    @property
    def picture(self) -> Path:
        return self.root / "progress.png"

    @property
    def report(self) -> Path:
        return self.root / "report.md"


def module(name: str, *arguments: str) -> list[str]:
    """How to start a module of ours as a process: whatever lies in the folder it is started in is
    none of its imports."""
    return [sys.executable, "-P", "-m", name, *arguments]


def enclosing(path: Path) -> SessionPaths | None:
    """The session in whose working folder `path` lies; None when it lies in none."""
    for folder in (path, *path.parents):
        if folder.name == "work" and folder.parent.parent.name == STATE:
            return SessionPaths(folder.parent.parent.parent, folder.parent.name)
    return None


def ledger_path(root: Path) -> Path:
    return root / STATE / "ledger.sqlite"


class Lock:
    """One process owns a session at a time.

    An advisory lock on an open file, which the kernel releases when the last process that holds
    the file is gone: there is no stale lock. The wardens hold it too, so that a killed session is
    free only when its runs are dead.
    """

    def __init__(self, paths: SessionPaths, patience_s: float = 5.0) -> None:
        """Raises `BusyError` when another process keeps it for `patience_s`."""
        try:
            paths.folder.mkdir(parents=True, exist_ok=True)
            self.fd = os.open(paths.lock, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise StorageError(f"cannot write {paths.folder}: {error.strerror}") from error
        deadline = time.monotonic() + patience_s
        while True:
            try:
                fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    pid = _pid(self.fd)
                    os.close(self.fd)
                    raise BusyError(
                        f"session {paths.tag!r} is owned by a running process (pid {pid or '?'}): "
                        f"`autoresearch attach --tag {paths.tag}` shows it, "
                        f"`autoresearch stop --tag {paths.tag}` ends it"
                    ) from None
                time.sleep(0.05)
        os.ftruncate(self.fd, 0)
        os.pwrite(self.fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        os.close(self.fd)


def check_alone(paths: SessionPaths) -> None:
    """Raises `BusyError` while another session works in this folder: both would write results.tsv.
    To be called with the session's own lock held."""
    other = running(paths.root, but=paths.tag)
    if other is not None:
        raise BusyError(
            f"session {other!r} is running in this folder, and there is one at a time: "
            f"`autoresearch stop --tag {other}` ends it, or work in a clone"
        )


def running(root: Path, but: str | None = None) -> str | None:
    """The tag of a session that a process owns now, None when there is none."""
    tags = (lock.parent.name for lock in (root / STATE).glob("*/lock"))
    return next(
        (tag for tag in tags if tag != but and owner(SessionPaths(root, tag)) is not None), None
    )


def owner(paths: SessionPaths) -> int | None:
    """The pid of the process that owns the session now, None when nobody does. Raises `BusyError`
    when somebody does whose pid is not in the lock, `StorageError` when it cannot be read."""
    try:
        fd = os.open(paths.lock, os.O_RDWR)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"cannot read {paths.lock}: {error.strerror}") from error
    try:
        deadline = time.monotonic() + PID_WRITTEN_S
        while _is_locked(fd):
            if (pid := _pid(fd)) is not None:
                return pid
            if time.monotonic() > deadline:
                raise BusyError(
                    f"session {paths.tag!r} is owned by a running process, but {paths.lock} does "
                    "not hold its pid: end that process"
                )
            time.sleep(0.01)
        return None
    finally:
        os.close(fd)


def _is_locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two who look do not collide
    except BlockingIOError:
        return True
    return False


def _pid(fd: int) -> int | None:
    """What the lock says; None where that is no process one could name."""
    text = os.pread(fd, PID_BYTES, 0)
    found = re.fullmatch(rb"([1-9]\d{0,6})\n", text)
    return int(found[1]) if found else None
