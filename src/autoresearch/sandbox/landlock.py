"""Enforces a `Confinement` on a child process with Linux's Landlock and seccomp.

The parent makes a `Ruleset` before the fork; the child calls `Ruleset.apply` before exec. It then
holds for the child and all its descendants, root's included, and cannot be undone. It needs no
privileges and no other program.

Newer versions of the interface (ABI) know more rights, so an older kernel enforces less: see
`describe`. Without Landlock, making a `Ruleset` is an error: no child starts unconfined. A filter
of system calls (`seccomp.py`) covers the network, of which Landlock knows TCP alone.
https://docs.kernel.org/userspace-api/landlock.html
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import sys
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from autoresearch.sandbox import namespaces, seccomp
from autoresearch.sandbox.seccomp import LIBC

if TYPE_CHECKING:  # `nested.py` loads this file where nothing else of the package can be read
    from autoresearch.protocols import Confinement

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # system calls, on every architecture
CREATE_RULESET_VERSION = 1
RULE_PATH_BENEATH = 1
PR_CAPBSET_READ, PR_CAPBSET_DROP = 23, 24
CAPABILITY_VERSION = 0x20080522  # 3: 64 capabilities
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

KEPT = (0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 14, 18, 29, 31)
"""The capabilities that a run of root's keeps: those of a root in a docker container without MKNOD
(CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP, NET_BIND_SERVICE, NET_RAW,
SYS_CHROOT, AUDIT_WRITE, SETFCAP), and IPC_LOCK. Each other one leads around Landlock, as by reading
the kernel's memory (/proc/kcore), around a limit, or to what outlives the run, such as the settings
of a network interface."""
DROPPED = tuple(set(range(64)) - set(KEPT))  # the kernel's interface has room for 64

PROC = "/proc"


class Description(NamedTuple):
    """The parts of a confinement that this machine enforces, and the rest; a clause each."""

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
    """The version of this kernel's Landlock interface; 0 without Landlock."""
    if sys.platform != "linux":
        return 0
    arguments = (ctypes.c_void_p(None), ctypes.c_size_t(0), CREATE_RULESET_VERSION)
    return max(0, int(LIBC.syscall(CREATE_RULESET, *arguments)))


class Ruleset:
    """The kernel's object for a confinement, made before the fork; a context manager.

    Raises `OSError` if it cannot be made: no Landlock, or too many open files.
    """

    def __init__(self, confinement: Confinement) -> None:
        version = abi()
        if version == 0:
            raise OSError(errno.ENOSYS, "this kernel has no Landlock, or has it switched off")
        self._settings = list_writable_settings() if confinement.proc else []
        self._confinement = confinement
        self._filters: dict[bool, seccomp.Filter] = {}  # by whether it has its own file systems
        network = confinement.network is not False
        if seccomp.is_available():
            cores = not confinement.pinned
            self._filters = {own: seccomp.Filter(network, own, cores) for own in (True, False)}
        self._rights = (1 << FILE_RIGHTS[min(version, max(FILE_RIGHTS))]) - 1
        attr = _RulesetAttr(handled_access_fs=self._rights)
        if version >= SCOPE_ABI:
            attr.scoped = SCOPE_SIGNALS
        if not network and version >= NET_ABI:
            attr.handled_access_net = TCP
            attr.scoped |= SCOPE_ABSTRACT_SOCKETS if version >= SCOPE_ABI else 0
        size = ctypes.c_size_t(ctypes.sizeof(attr))
        self._fd = _check(LIBC.syscall(CREATE_RULESET, ctypes.byref(attr), size, 0))
        try:
            for path in confinement.read:
                self._allow(path, READ)
            for path in confinement.write:
                self._allow(path, WRITE)
            if confinement.proc:
                self._allow(PROC, READ | WRITE_FILE | TRUNCATE)
        except BaseException:
            self.close()
            raise

    def apply(self) -> None:
        """Confine this process and all it starts. Called in the child, between fork and exec. If
        it raises `OSError`, the child must not go on."""
        _check(LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        is_isolated = self._isolate()
        for capability in DROPPED:  # users other than root have none, and the call fails
            LIBC.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
        _check(LIBC.syscall(RESTRICT_SELF, self._fd, 0))
        if self._filters:
            self._filters[is_isolated].apply()

    def _isolate(self) -> bool:
        """Give the child file systems of its own. False where the system does not allow it."""
        granted = self._confinement
        write = (*granted.write, PROC) if granted.proc else granted.write
        try:
            namespaces.isolate(granted.read, write, self._settings)
        except namespaces.Unavailable:
            if self._settings:
                raise  # a run of root's could change the kernel's settings
            return False
        self._allow(namespaces.TEMPORARY, WRITE)  # another folder now, and its own
        for path in (namespaces.SHARED_MEMORY, namespaces.TERMINALS, namespaces.NEW_TERMINAL):
            if path in granted.write:
                self._allow(path, WRITE)
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
            return  # it does not exist, or the child cannot reach it anyway
        try:
            if not stat.S_ISDIR(os.fstat(fd).st_mode):
                rights &= OF_A_FILE
            rule = _PathBeneathAttr(rights & self._rights, fd)
            result = LIBC.syscall(ADD_RULE, self._fd, RULE_PATH_BENEATH, ctypes.byref(rule), 0)
            _check(result, path)
        finally:
            os.close(fd)


class _CapabilityHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Capabilities(ctypes.Structure):
    """Of 32 capabilities each; the kernel takes two of these."""

    _fields_ = tuple((name, ctypes.c_uint32) for name in ("effective", "permitted", "inheritable"))


def drop_capabilities() -> None:
    """Give up the privileges that executing a program takes from a confined process: those that
    `Ruleset.apply` has dropped, and for users other than root all that came with a namespace. Only
    for a process that goes on without exec. Raises `OSError`."""
    header = _CapabilityHeader(CAPABILITY_VERSION, 0)
    halves = (_Capabilities * 2)()
    _check(LIBC.capget(ctypes.byref(header), halves))
    for half, capabilities in enumerate(halves):
        kept = sum(
            1 << bit
            for bit in range(32)
            if os.geteuid() == 0 and LIBC.prctl(PR_CAPBSET_READ, 32 * half + bit, 0, 0, 0) == 1
        )
        capabilities.permitted &= kept
        capabilities.effective = capabilities.permitted
        capabilities.inheritable &= kept
    _check(LIBC.capset(ctypes.byref(header), halves))


def list_writable_settings() -> list[str]:
    """The kernel's settings in `/proc`, beside the folders of processes, that root may write even
    without capabilities; none where a container has made them read-only."""
    if os.geteuid() != 0:
        return []
    entries = [entry for entry in os.scandir(PROC) if not entry.name.isdigit()]
    return [
        entry.path
        for entry in entries
        if not entry.is_symlink()
        and (entry.is_dir() or entry.stat().st_mode & stat.S_IWUSR)
        and not os.statvfs(entry.path).f_flag & os.ST_RDONLY
    ]


def _check(result: int, path: str | None = None) -> int:
    """Return the result of a system call. Raises its error as `OSError`."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"Landlock: {os.strerror(number)}", path)
    return result


def describe_network_denial() -> str | None:
    """What `Confinement.network=False` denies a process on this machine; None for nothing."""
    if abi() == 0:
        return None
    if seccomp.is_available():
        return "no network of any kind (TCP, UDP, raw, netlink), not even this machine's own"
    return "no TCP" if abi() >= NET_ABI else None


def describe() -> Description:
    """What a confinement means on this machine, apart from the network: for that, see
    `describe_network_denial`."""
    version = abi()
    if version == 0:
        return Description((), ("this system has no Landlock: nothing confines it",))
    rights = [
        (1, "files outside its folders can be neither read, written nor executed"),
        (3, "files outside them cannot be truncated"),
        (5, "devices outside them take no commands (ioctl)"),
        (SCOPE_ABI, "it can send no signal to a process outside"),
    ]
    holds = tuple(words for since, words in rights if version >= since)
    lacks = [f"not on this kernel: {words}" for since, words in rights if version < since]
    if version == 1:
        lacks.append("a confined process cannot move files from one folder to another")
    if namespaces.is_available():
        holds += (
            "it changes no attributes of files outside them (modes, owners, times, extended ones)",
            "/tmp, /dev/shm and message queues are its own",
        )
    else:
        lacks.append(
            "this system gives it no namespaces (a container needs CAP_SYS_ADMIN, Ubuntu "
            "kernel.apparmor_restrict_unprivileged_userns=0): it shares /dev/shm with other runs, "
            "and can change attributes (chmod, times) of no file, not even its own"
        )
    lacks.append("it can connect to sockets that have a path (docker's, D-Bus's) if you can")
    return Description(holds, tuple(lacks))
