"""What a child process may touch: Linux's Landlock, by its own system calls, and seccomp.

A `Confinement` says it as paths. `Ruleset` makes the kernel's object of it in the parent, before
the fork; `Ruleset.apply` is the little that is left to do in the child, before exec. From then on
it holds for the child and for all it ever starts, root's processes included, and nobody can take
it back. It needs no privileges and no other program.

The rights a kernel knows grew with the versions of its interface (the ABI). An older kernel
enforces less; `describe` says in words what holds here. Where there is no Landlock at all, a
`Ruleset` cannot be made: who asked for one gets an error, never an unconfined child. What Landlock
does not know, the network beside TCP above all, a filter of system calls covers (`seccomp.py`).
https://docs.kernel.org/userspace-api/landlock.html
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from autoresearch.sandbox import namespaces, seccomp

if TYPE_CHECKING:  # `nested.py` loads this file where nothing else of the package can be read
    from autoresearch.protocols import Confinement

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # system calls, on every architecture
CREATE_RULESET_VERSION = 1
RULE_PATH_BENEATH = 1
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, REMOVE_DIR, REMOVE_FILE = (1 << n for n in range(6))
MAKE_CHAR, MAKE_DIR, MAKE_REG, MAKE_SOCK, MAKE_FIFO, MAKE_BLOCK = (1 << n for n in range(6, 12))
MAKE_SYM, REFER, TRUNCATE, IOCTL_DEV = (1 << n for n in range(12, 16))
READ = EXECUTE | READ_FILE | READ_DIR
MAKE = MAKE_DIR | MAKE_REG | MAKE_SOCK | MAKE_FIFO | MAKE_SYM
WRITE = READ | WRITE_FILE | REMOVE_DIR | REMOVE_FILE | MAKE | REFER | TRUNCATE | IOCTL_DEV
"""Not MAKE_CHAR nor MAKE_BLOCK: with a device node of its own, root could read the whole disk."""
OF_A_FILE = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV

FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}  # ABI: how many of the bits above it knows
TCP = 3  # bind and connect, since ABI 4
SCOPE_ABSTRACT_SOCKETS, SCOPE_SIGNALS = 1, 2  # since ABI 6
NET_ABI, SCOPE_ABI = 4, 6

# What makes root more than a user who owns every file: CAP_DAC_READ_SEARCH, LINUX_IMMUTABLE,
# SYS_MODULE, SYS_RAWIO, SYS_PTRACE, SYS_ADMIN, SYS_BOOT, SYS_NICE, SYS_RESOURCE, SYS_TIME, MKNOD,
# SYSLOG, PERFMON, BPF. Each would lead around Landlock, as by reading the kernel's memory
# (/proc/kcore), or around a limit, or leave files that nobody can remove.
ROOT_ONLY = (2, 9, 16, 17, 19, 21, 22, 23, 24, 25, 27, 34, 38, 39)

PROC = "/proc"

LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Description:
    """What this machine enforces of a confinement, and what it does not; a clause each."""

    holds: tuple[str, ...]
    lacks: tuple[str, ...]


class _RulesetAttr(ctypes.Structure):
    _fields_ = (
        ("handled_access_fs", ctypes.c_uint64),
        ("handled_access_net", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    )


class _PathBeneathAttr(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


@lru_cache(maxsize=1)
def abi() -> int:
    """The version of Landlock's interface here; 0 where there is none."""
    if sys.platform != "linux":
        return 0
    nothing = ctypes.c_void_p(None)
    version = LIBC.syscall(CREATE_RULESET, nothing, ctypes.c_size_t(0), CREATE_RULESET_VERSION)
    return max(0, int(version))


class Ruleset:
    """A confinement as the kernel has it, made before the fork; a context manager.

    Raises `OSError` when it cannot be made: no Landlock here, or too many open files.
    """

    def __init__(self, confinement: Confinement) -> None:
        version = abi()
        if version == 0:
            raise OSError(errno.ENOSYS, "this kernel has no Landlock, or has it switched off")
        self._closing: list[str] = []
        self._confinement = confinement
        self._filters: dict[bool, seccomp.Filter] = {}  # by whether it has its own file systems
        if seccomp.available():
            network = confinement.network is not False
            self._filters = {own: seccomp.Filter(network, attributes=own) for own in (True, False)}
        self._rights = (1 << FILE_RIGHTS[min(version, max(FILE_RIGHTS))]) - 1
        attr = _RulesetAttr(handled_access_fs=self._rights)
        if version >= SCOPE_ABI:
            attr.scoped = SCOPE_SIGNALS
        if confinement.network is False and version >= NET_ABI:
            attr.handled_access_net = TCP
            attr.scoped |= SCOPE_ABSTRACT_SOCKETS if version >= SCOPE_ABI else 0
        size = ctypes.c_size_t(ctypes.sizeof(attr))
        self._fd = _called(LIBC.syscall(CREATE_RULESET, ctypes.byref(attr), size, 0))
        try:
            for path in confinement.read:
                self._allow(path, READ)
            for path in confinement.write:
                self._allow(path, WRITE)
            if confinement.proc:
                self._allow(PROC, READ | WRITE_FILE | TRUNCATE)
                self._closing = settings()
        except BaseException:
            self.close()
            raise

    def apply(self) -> None:
        """In the child, between fork and exec: from here on, it and all it starts are confined.
        Raises `OSError` when it is not; the child must then not go on."""
        _called(LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        is_isolated = self._isolate()
        for capability in ROOT_ONLY:  # refused to who is not root, and has none
            LIBC.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
        _called(LIBC.syscall(RESTRICT_SELF, self._fd, 0))
        if self._filters:
            self._filters[is_isolated].apply()

    def _isolate(self) -> bool:
        """Give the child file systems of its own. False where the system does not allow it."""
        given = self._confinement
        write = (*given.write, PROC) if given.proc else given.write
        try:
            namespaces.isolate(given.read, write, given.temporary, self._closing)
        except namespaces.Unavailable:
            if self._closing:
                raise  # a run of root's could change the kernel's settings
            return False
        if namespaces.SHARED_MEMORY in given.write:
            self._allow(namespaces.SHARED_MEMORY, WRITE)  # another folder now
        return True

    def close(self) -> None:
        os.close(self._fd)

    def __enter__(self) -> Ruleset:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _allow(self, path: str, rights: int) -> None:
        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return  # not there, or out of the child's reach anyway
        try:
            if not stat.S_ISDIR(os.fstat(fd).st_mode):
                rights &= OF_A_FILE
            rule = _PathBeneathAttr(rights & self._rights, fd)
            done = LIBC.syscall(ADD_RULE, self._fd, RULE_PATH_BENEATH, ctypes.byref(rule), 0)
            _called(done, path)
        finally:
            os.close(fd)


def settings() -> list[str]:
    """The kernel's, in `/proc`, as far as root may write them, with or without capabilities; none
    where a container has made them read-only. They lie beside the folders of processes."""
    if os.geteuid() != 0:
        return []
    beside = [one for one in os.scandir(PROC) if not one.name.isdigit() and not one.is_symlink()]
    writable = [one.path for one in beside if one.is_dir() or one.stat().st_mode & stat.S_IWUSR]
    return [path for path in writable if not os.statvfs(path).f_flag & os.ST_RDONLY]


def _called(result: int, path: str | None = None) -> int:
    """`result` of a system call, or its error as an exception."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"Landlock: {os.strerror(number)}", path)
    return result


def without(folder: Path, private: tuple[Path, ...]) -> list[Path]:
    """`folder` as a list of what may be granted of it, so that nothing `private` is: itself, or
    what lies in it beside the private. All paths are real ones (`Path.resolve`)."""
    if any(folder.is_relative_to(path) for path in private):
        return []
    if not any(path.is_relative_to(folder) for path in private):
        return [folder]
    try:
        inside = sorted(folder.iterdir())
    except OSError:
        return []
    return [path for one in inside if not one.is_symlink() for path in without(one, private)]


def denied_network() -> str | None:
    """What `network=False` keeps a process from here; None: nothing."""
    if abi() == 0:
        return None
    if seccomp.available():
        return "no network of any kind (TCP, UDP, raw, netlink), not even this machine's own"
    return "no TCP" if abi() >= NET_ABI else None


def describe() -> Description:
    """What a confinement of a process means on this machine, in words. Of the network, see
    `denied_network`."""
    version = abi()
    if version == 0:
        return Description((), ("this system has no Landlock: nothing confines it",))
    rights = [
        (1, "files outside its folders can be neither read, written nor executed"),
        (3, "files outside them cannot be truncated"),
        (5, "devices outside them take no commands (ioctl)"),
        (SCOPE_ABI, "it can send no signal to a process outside"),
    ]
    never = ("it can connect to sockets that have a path (docker's, D-Bus's) if you can",)
    older = [f"not on this kernel: {words}" for since, words in rights if version < since]
    if version == 1:
        older.append("a confined process cannot move files from one folder to another")
    return Description(
        tuple(words for since, words in rights if version >= since), (*older, *never)
    )
