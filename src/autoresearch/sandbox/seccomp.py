"""Denies a child process some system calls, with a filter for Linux's seccomp.

The filter is a program in the kernel's packet filter language (BPF). The parent makes it; the child
gives it to the kernel before exec. It holds for the child and all its descendants, needs no
privileges (but `PR_SET_NO_NEW_PRIVS`) and no other program, and works in containers.

Always denied:
- setting the limits (`prlimit`, with EACCES), the cores, priority or scheduler (with EPERM) of
  other processes, such as the harness; where it is pinned to cores, its own cores too
- io_uring, which could make calls that the filter does not see (with EACCES)
- the kernel's keyrings, whose content outlives the process
- file systems that are mounted nowhere (fsopen, fsmount, fspick, open_tree, with EPERM): with one,
  root could change modes and attributes in the kernel's own, for which Landlock has no right
- putting characters into a terminal's input (TIOCSTI and TIOCLINUX, with EPERM): the user's shell
  would read them afterwards
- leases on files (F_SETLEASE, with EPERM): the warden would wait for 45 s to open a leased log
- making a program that its owner can execute and not read, or a set-user-ID program (with EPERM):
  the kernel takes the counter of CPU time (`cpu_clock.py`) from a process that executes the first.
  Setting extended attributes too (with EOPNOTSUPP), by which both could be had. A umask that would
  make the first of a usual program is not set, and the call returns 0: umask cannot fail, and
  libraries set 0o666 for a moment to learn the present one. They then believe that it was 0
- the kernel's log (syslog, with EPERM): where everybody may read it, a crash leaves a message there
- clone3 and openat2 (with ENOSYS; programs then use clone and openat): no filter sees their
  arguments, such as another control group to be born in
- every call of a program of another architecture, of 32 bits for instance (with EACCES): its calls
  have other numbers
Denied without network, with EACCES:
- sockets of every family but AF_UNIX: IP of any kind (TCP, UDP, raw), netlink, packet and vsock.
  No process inherits a socket
- System V's shared memory, semaphores and messages (shmget, semget, msgget): their content outlives
  the process
Denied where the process has no file systems of its own (`namespaces.py`), with EPERM: changing the
attributes of files (modes, owners, times, extended attributes, flags). Landlock has no right for
those. And message queues.
https://docs.kernel.org/userspace-api/seccomp_filter.html
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys
from functools import lru_cache
from typing import NamedTuple

PR_SET_SECCOMP = 22
MODE_FILTER = 2
ALLOW, REFUSE, FORBID = 0x7FFF0000, 0x00050000 | errno.EACCES, 0x00050000 | errno.EPERM
LACK, UNSUPPORTED = 0x00050000 | errno.ENOSYS, 0x00050000 | errno.EOPNOTSUPP
PRETEND = 0x00050000 | 0  # the call returns 0 and does nothing
LOAD, EQUAL, AT_LEAST, HAS_ANY, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # BPF instructions
NUMBER, ARCHITECTURE = 0, 4  # their offsets in the filter's input, in bytes
# Offsets of arguments' lower halves; the upper ones are at + 4.
FIRST, SECOND, THIRD, FOURTH = 16, 24, 32, 40
AF_UNIX = 1
PRIO_USER, IOPRIO_WHO_USER = 2, 3  # all processes of a user
TYPE = (0x5412, 0x541C)  # ioctl: TIOCSTI and TIOCLINUX
SET_FLAGS = (0x40086602, 0x40046602, 0x401C5820, 0x40087602)  # ioctl: what chattr does
SET_LEASE = 1024  # fcntl
CREATES = 0x400040  # open: O_CREAT, or what O_TMPFILE has of its own
SET_USER_ID, READS, EXECUTES = 0o4000, 0o400, 0o100  # bits of a file's mode
X32 = 0x40000000  # higher numbers are the same calls again, in x86_64's second interface

LIBC = ctypes.CDLL(None, use_errno=True)


class Calls(NamedTuple):
    """The number of an architecture in the filter's input, and those of its system calls."""

    architecture: int
    socket: int
    socketpair: int
    prlimit: int
    ipc: tuple[int, ...]  # shmget, semget, msgget: what they make outlives a process
    keyrings: tuple[int, ...]  # add_key, request_key, keyctl: the same
    schedules: tuple[int, ...]  # sched_setparam, _setscheduler, _setaffinity, _setattr: pid first
    setaffinity: int
    setpriority: int
    ioprio_set: int
    ioctl: int
    fcntl: int
    syslog: int
    umask: int
    openat: int
    opens: tuple[int, ...]  # open
    second_is_mode: tuple[int, ...]  # chmod, fchmod, creat, mknod
    third_is_mode: tuple[int, ...]  # fchmodat, mknodat, fchmodat2
    setxattr: tuple[int, ...]  # setxattr, lsetxattr, fsetxattr, setxattrat
    attributes: tuple[int, ...]  # chmod, chown, utime and setxattr in all their forms; mq_open
    new_attributes: tuple[int, ...] = (452, 463, 466, 469)  # the same on every architecture
    io_uring_setup: int = 425
    clone3: int = 435
    openat2: int = 437
    mounts: tuple[int, ...] = (428, 430, 432, 433, 467)  # open_tree, fsopen, fsmount, fspick


CALLS = {
    "x86_64": Calls(
        0xC000003E,
        socket=41,
        socketpair=53,
        prlimit=302,
        ipc=(29, 64, 68),
        keyrings=(248, 249, 250),
        schedules=(142, 144, 203, 314),
        setaffinity=203,
        setpriority=141,
        ioprio_set=251,
        ioctl=16,
        fcntl=72,
        syslog=103,
        umask=95,
        openat=257,
        opens=(2,),
        second_is_mode=(90, 91, 85, 133),
        third_is_mode=(268, 259, 452),
        setxattr=(188, 189, 190, 463),
        attributes=(
            *(90, 91, 268, 92, 93, 94, 260, 132, 235, 261, 280),
            *(188, 189, 190, 197, 198, 199, 240),
        ),
    ),
    "aarch64": Calls(
        0xC00000B7,
        socket=198,
        socketpair=199,
        prlimit=261,
        ipc=(194, 190, 186),
        keyrings=(217, 218, 219),
        schedules=(118, 119, 122, 274),
        setaffinity=122,
        setpriority=140,
        ioprio_set=30,
        ioctl=29,
        fcntl=25,
        syslog=116,
        umask=166,
        openat=56,
        opens=(),
        second_is_mode=(52,),
        third_is_mode=(53, 33, 452),
        setxattr=(5, 6, 7, 463),
        attributes=(52, 53, 54, 55, 88, 5, 6, 7, 14, 15, 16, 180),
    ),
}


@lru_cache(maxsize=1)
def is_available() -> bool:
    """Whether this kernel takes filters and `CALLS` has its architecture."""
    if sys.platform != "linux" or os.uname().machine not in CALLS:
        return False
    LIBC.prctl(PR_SET_SECCOMP, MODE_FILTER, None, 0, 0)  # without a filter, so it has no effect
    return ctypes.get_errno() == errno.EFAULT


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


class Filter:
    """A filter, made before the fork. Needs `is_available`."""

    def __init__(self, network: bool, attributes: bool, cores: bool = True) -> None:
        """Whether the child may use sockets, change attributes of files, and choose its cores."""
        code = _code(CALLS[os.uname().machine], network, attributes, cores)
        self._code = ctypes.create_string_buffer(code, len(code))
        self._program = _Program(len(code) // 8, ctypes.addressof(self._code))

    def apply(self) -> None:
        """Filter the calls of this process and all it starts. Called in the child, after
        PR_SET_NO_NEW_PRIVS. If it raises `OSError`, the child must not go on."""
        if LIBC.prctl(PR_SET_SECCOMP, MODE_FILTER, ctypes.byref(self._program), 0, 0) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"seccomp: {os.strerror(number)}")


Step = tuple[str, int, int, str, str]
"""Label, instruction, operand, label to jump to if true, and if false; "" is the next step."""


@lru_cache
def _code(calls: Calls, network: bool, attributes: bool, cores: bool) -> bytes:
    """The instructions."""
    refused = (calls.io_uring_setup, *calls.keyrings, *(() if network else calls.ipc))
    forbidden = (calls.syslog, *calls.mounts, *(() if cores else (calls.setaffinity,)))
    forbidden += () if attributes else (*calls.attributes, *calls.new_attributes)
    commands = TYPE if attributes else (*TYPE, *SET_FLAGS)
    steps: list[Step] = [
        ("", LOAD, ARCHITECTURE, "", ""),
        ("", EQUAL, calls.architecture, "", "refuse"),
        ("", LOAD, NUMBER, "", ""),
        ("", AT_LEAST, X32, "refuse", ""),
        *(("", EQUAL, number, "refuse", "") for number in refused),
        *(("", EQUAL, number, "forbid", "") for number in forbidden),
        ("", EQUAL, calls.prlimit, "limits", ""),
        ("", EQUAL, calls.setpriority, "priority", ""),
        ("", EQUAL, calls.ioprio_set, "io priority", ""),
        *(("", EQUAL, number, "scheduler", "") for number in calls.schedules),
        ("", EQUAL, calls.ioctl, "ioctl", ""),
        ("", EQUAL, calls.fcntl, "fcntl", ""),
        ("", EQUAL, calls.clone3, "lack", ""),
        ("", EQUAL, calls.openat2, "lack", ""),
        ("", EQUAL, calls.openat, "openat", ""),
        ("", EQUAL, calls.umask, "umask", ""),
        *(("", EQUAL, number, "open", "") for number in calls.opens),
        *(("", EQUAL, number, "second is mode", "") for number in calls.second_is_mode),
        *(("", EQUAL, number, "third is mode", "") for number in calls.third_is_mode),
        *(("", EQUAL, number, "unsupported", "") for number in calls.setxattr),
    ]
    if not network:
        steps += [
            ("", EQUAL, calls.socket, "family", ""),
            ("", EQUAL, calls.socketpair, "family", "allow"),
            ("family", LOAD, FIRST, "", ""),
            ("", EQUAL, AF_UNIX, "allow", "refuse"),
        ]
    steps += [
        ("allow", RETURN, ALLOW, "", ""),
        ("refuse", RETURN, REFUSE, "", ""),
        ("lack", RETURN, LACK, "", ""),
        ("unsupported", RETURN, UNSUPPORTED, "", ""),
        ("limits", LOAD, FIRST, "", ""),  # 0 is the caller
        ("", EQUAL, 0, "allow too", ""),
        ("", LOAD, THIRD, "", ""),  # the new limits; 0 if it only reads them
        ("", EQUAL, 0, "", "refuse too"),
        ("", LOAD, THIRD + 4, "", ""),
        ("", EQUAL, 0, "allow too", "refuse too"),
        ("priority", LOAD, FIRST, "", ""),
        ("", EQUAL, PRIO_USER, "forbid", "whose"),
        ("io priority", LOAD, FIRST, "", ""),
        ("", EQUAL, IOPRIO_WHO_USER, "forbid", ""),
        ("whose", LOAD, SECOND, "", ""),
        ("", EQUAL, 0, "allow too", "forbid"),
        ("scheduler", LOAD, FIRST, "", ""),
        ("", EQUAL, 0, "allow too", "forbid"),
        ("ioctl", LOAD, SECOND, "", ""),
        *(("", EQUAL, number, "forbid", "") for number in commands),
        ("", AT_LEAST, 0, "allow too", "allow too"),  # always
        ("fcntl", LOAD, SECOND, "", ""),
        ("", EQUAL, SET_LEASE, "forbid", "allow too"),
        ("umask", LOAD, FIRST, "", ""),
        ("", HAS_ANY, READS, "", "allow too"),
        ("", HAS_ANY, EXECUTES, "allow too", "pretend"),
        ("open", LOAD, SECOND, "", ""),
        ("", HAS_ANY, CREATES, "third is mode", "allow too"),
        ("openat", LOAD, THIRD, "", ""),
        ("", HAS_ANY, CREATES, "fourth is mode", "allow too"),
        ("second is mode", LOAD, SECOND, "", ""),
        ("", AT_LEAST, 0, "mode", "mode"),
        ("third is mode", LOAD, THIRD, "", ""),
        ("", AT_LEAST, 0, "mode", "mode"),
        ("fourth is mode", LOAD, FOURTH, "", ""),
        ("mode", HAS_ANY, SET_USER_ID, "forbid", ""),
        ("", HAS_ANY, READS, "allow too", ""),
        ("", HAS_ANY, EXECUTES, "forbid", "allow too"),
        ("allow too", RETURN, ALLOW, "", ""),  # again, because jumps lead forward only
        ("forbid", RETURN, FORBID, "", ""),
        ("refuse too", RETURN, REFUSE, "", ""),
        ("pretend", RETURN, PRETEND, "", ""),
    ]
    return _assemble(steps)


def _assemble(steps: list[Step]) -> bytes:
    places = {label: at for at, (label, *_) in enumerate(steps) if label}
    code = b""
    for at, (_, instruction, operand, true, false) in enumerate(steps):
        jumps = (places[label] - at - 1 if label else 0 for label in (true, false))
        code += struct.pack("=HBBI", instruction, *jumps, operand)
    return code
