"""File systems of a process's own: everything read-only except the folders it may write.

Landlock has no right for extended attributes, times, modes and owners of files, and none for the
kernel's message queues. So a confined process gets a mount namespace (a user namespace first, if
it is not root) in which every mount is read-only, with the granted folders mounted over themselves
writable, an empty `/dev/shm` and `/tmp`, and pseudo-terminals of its own; and an IPC namespace.
Nothing in there can be mounted again: Landlock refuses mounts, and holds from the next step on.
https://man7.org/linux/man-pages/man7/mount_namespaces.7.html
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
import subprocess
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWIPC = 0x20000, 0x10000000, 0x08000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 8, 4096, 16384, 1 << 18
OPEN_TREE, MOVE_MOUNT, MOUNT_SETATTR = 428, 429, 442  # system calls, on every architecture
OPEN_TREE_CLONE, AT_RECURSIVE, AT_EMPTY_PATH, AT_FDCWD = 1, 0x8000, 0x1000, -100
MOVE_MOUNT_FROM_EMPTY_PATH = 4
MOUNT_ATTR_RDONLY = 1

SHARED_MEMORY = "/dev/shm"
TEMPORARY = "/tmp"
TERMINALS, NEW_TERMINAL = "/dev/pts", "/dev/ptmx"
SIZES = {SHARED_MEMORY: b"50%", TEMPORARY: b"10%"}  # of the machine's memory, which holds them

LIBC = ctypes.CDLL(None, use_errno=True)


class Unavailable(OSError):
    """This process may not make namespaces. Nothing has changed for it."""


def isolate(read: Sequence[str], write: Sequence[str], closed: Sequence[str] = ()) -> None:
    """Give this process file systems of its own, in the child between fork and exec.

    `write` stays writable, except for what is `closed` in it. `/dev/shm` and `/tmp` are new, and so
    is `/dev/pts` in `write`; of the old `/tmp`, `read` and `write` stay at their paths. Raises
    `Unavailable` where the system does not allow it, `OSError` when it fails later: the child must
    then not go on.
    """
    _unshare()
    if "/" in write:
        return
    folder = Path.cwd()
    keeps_temporary = {"/", TEMPORARY}.intersection((*read, *write))
    shared = [SHARED_MEMORY, *([] if keeps_temporary else [TEMPORARY])]
    kept = [path for path in read if _is_below(path, shared) and not _is_below(path, write)]
    mounts = _clone_mounts(path for path in write if path not in (*shared, TERMINALS))
    mounts |= _clone_mounts([*closed, *kept], read_only=True)
    _set_read_only(AT_FDCWD, b"/", AT_RECURSIVE)
    for path in shared:
        if Path(path).is_dir():
            options = b"mode=1777,size=" + SIZES[path]
            _check(
                LIBC.mount(b"tmpfs", path.encode(), b"tmpfs", MS_NOSUID | MS_NODEV, options), path
            )
    for path in sorted(mounts):  # a folder before what lies in it
        if _is_below(path, shared):
            _make_place(path, is_folder=stat.S_ISDIR(os.fstat(mounts[path]).st_mode))
        _attach(mounts[path], path)
    if TERMINALS in write and Path(TERMINALS).is_dir():
        _mount_terminals()
    with suppress(FileNotFoundError):  # a folder that was not granted
        os.chdir(folder)  # or it would stay on the mount that is covered now


@lru_cache(maxsize=1)
def is_available() -> bool:
    """Whether this system allows a child to be isolated. Starts a process to find out."""
    if sys.platform != "linux":
        return False
    command = [sys.executable, "-I", "-S", __file__]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def _unshare() -> None:
    """Raises `Unavailable`."""
    user, group = os.geteuid(), os.getegid()
    if LIBC.unshare(CLONE_NEWNS | CLONE_NEWIPC) != 0:
        if LIBC.unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWIPC) != 0:
            raise Unavailable(ctypes.get_errno(), "no namespaces")
        try:
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
            Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
        except OSError as error:
            raise Unavailable(error.errno, "no user namespaces") from error
    if LIBC.mount(None, b"/", None, MS_REC | MS_PRIVATE, None) != 0:
        raise Unavailable(ctypes.get_errno(), "no mounts")  # Ubuntu's AppArmor allows the namespace


def _clone_mounts(paths: Iterable[str], *, read_only: bool = False) -> dict[str, int]:
    """Detached mounts of the files and folders that exist, by path; none within another. Device
    files need none: they are writable on a read-only mount."""
    clones: dict[str, int] = {}
    for path in sorted(paths):
        if _is_below(path, clones) or not _is_mountable(path):
            continue
        flags = OPEN_TREE_CLONE | AT_RECURSIVE | os.O_CLOEXEC
        fd = _check(LIBC.syscall(OPEN_TREE, AT_FDCWD, os.fsencode(path), flags), path)
        if read_only:
            _set_read_only(fd, b"", AT_RECURSIVE | AT_EMPTY_PATH)
        clones[path] = fd
    return clones


def _is_mountable(path: str) -> bool:
    try:
        mode = Path(path).stat().st_mode
    except OSError:
        return False  # not there, or out of reach
    return stat.S_ISDIR(mode) or stat.S_ISREG(mode)


def _is_below(path: str, folders: Iterable[str]) -> bool:
    return any(path == folder or path.startswith(folder.rstrip("/") + "/") for folder in folders)


def _set_read_only(fd: int, path: bytes, flags: int) -> None:
    attr = ctypes.create_string_buffer(struct.pack("=QQQQ", MOUNT_ATTR_RDONLY, 0, 0, 0))
    size = ctypes.c_size_t(32)
    _check(LIBC.syscall(MOUNT_SETATTR, fd, path, flags, attr, size), path.decode() or None)


def _attach(fd: int, path: str) -> None:
    target, flags = os.fsencode(path), MOVE_MOUNT_FROM_EMPTY_PATH
    _check(LIBC.syscall(MOVE_MOUNT, fd, b"", AT_FDCWD, target, flags), path)
    os.close(fd)


def _mount_terminals() -> None:
    """Mount pseudo-terminals that nobody else has. Those of the user's windows stay outside."""
    flags, options = MS_NOSUID | MS_NOEXEC, b"newinstance,ptmxmode=0666,mode=620"
    target, maker = TERMINALS.encode(), NEW_TERMINAL.encode()
    _check(LIBC.mount(b"devpts", target, b"devpts", flags, options), TERMINALS)
    _check(LIBC.mount(target + b"/ptmx", maker, None, MS_BIND, None), NEW_TERMINAL)


def _make_place(path: str, *, is_folder: bool) -> None:
    """Make a folder or file to mount over, unless it is there."""
    place = Path(path)
    if place.exists():
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    if is_folder:
        place.mkdir()
    else:
        place.touch()


def _check(result: int, path: str | None) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"mount namespace: {os.strerror(number)}", path)
    return result


if __name__ == "__main__":  # see `is_available`
    isolate((), ())
