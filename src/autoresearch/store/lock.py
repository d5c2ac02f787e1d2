"""The lock on a session: one process owns it at a time."""

from __future__ import annotations

import fcntl
import os
import re
import time
from pathlib import Path

from autoresearch.errors import BusyError, StorageError
from autoresearch.store.paths import STATE, SessionPaths

PID_BYTES = 32  # of a lock are read
PID_WRITTEN_S = 1.0  # a process that has just taken a lock has written its pid by then


class Lock:
    """Owns a session until it is released.

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
        while not try_lock(self.fd, fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                pid = _read_pid(self.fd)
                os.close(self.fd)
                raise BusyError(
                    f"session {paths.tag!r} is owned by a running process (pid {pid or '?'}): "
                    f"`autoresearch attach --tag {paths.tag}` shows it, "
                    f"`autoresearch wait --tag {paths.tag}` waits for the verdict of a try, "
                    f"`autoresearch stop --tag {paths.tag}` ends it"
                )
            time.sleep(0.05)
        os.ftruncate(self.fd, 0)
        os.pwrite(self.fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        os.close(self.fd)


def check_alone(paths: SessionPaths) -> None:
    """Raises `BusyError` while another session works in this folder: both would write results.tsv.
    To be called with the session's own lock held."""
    other = find_running(paths.root, but=paths.tag)
    if other is not None:
        raise BusyError(
            f"session {other!r} is running in this folder, and there is one at a time: "
            f"`autoresearch stop --tag {other}` ends it, or work in a clone"
        )


def find_running(root: Path, but: str | None = None) -> str | None:
    """The tag of a session that a process owns now, None when there is none."""
    for lock in (root / STATE).glob("*/lock"):
        tag = lock.parent.name
        if tag != but and find_owner(SessionPaths(root, tag)) is not None:
            return tag
    return None


def find_owner(paths: SessionPaths) -> int | None:
    """The pid of the process that owns the session now, None when there is none. Raises `BusyError`
    when the lock is held but does not contain a pid, `StorageError` when it cannot be read."""
    try:
        fd = os.open(paths.lock, os.O_RDWR)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"cannot read {paths.lock}: {error.strerror}") from error
    try:
        deadline = time.monotonic() + PID_WRITTEN_S
        while not try_lock(fd, fcntl.LOCK_SH):  # shared: two readers do not collide
            if (pid := _read_pid(fd)) is not None:
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


def try_lock(fd: int, kind: int) -> bool:
    """Lock an open file (LOCK_EX or LOCK_SH), unless another process holds it: then False."""
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read_pid(fd: int) -> int | None:
    """The pid in the lock file; None for content that is no pid."""
    match = re.fullmatch(rb"([1-9]\d{0,6})\n", os.pread(fd, PID_BYTES, 0))
    return int(match[1]) if match else None
