"""System calls a child may not make: Linux's seccomp, by a filter of a few instructions.

The filter is a program in the kernel's packet filter language (BPF), made in the parent and given
to the kernel in the child, before exec. It holds for the child and for all it ever starts, needs
no privileges (but `PR_SET_NO_NEW_PRIVS`) and no other program, and works in containers.

Without network it refuses, with EACCES, sockets of every family but AF_UNIX: IP of any kind (TCP,
UDP, raw), netlink, packet and vsock; and io_uring, which could make them unseen. A process has no
other way to a socket: none is inherited. With the network go System V's shared memory, semaphores
and messages (shmget, semget, msgget): they stay when a process has ended.

In any case it refuses the kernel's keyrings, which stay too, and setting the limits (`prlimit`),
cores, priority or scheduler of other processes, such as ours. Where a process has no file systems
of its own (`namespaces.py`), it may change no attributes of files: modes, owners, times, extended
attributes and flags. Landlock has no right for those.
https://docs.kernel.org/userspace-api/seccomp_filter.html
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys
from dataclasses import dataclass
from functools import lru_cache

PR_SET_SECCOMP = 22
MODE_FILTER = 2
ALLOW, REFUSE, FORBID = 0x7FFF0000, 0x00050000 | errno.EACCES, 0x00050000 | errno.EPERM
LOAD, EQUAL, AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06  # BPF instructions
NUMBER, ARCHITECTURE = 0, 4  # where the filter finds them, in bytes
FIRST, SECOND, THIRD = (
    16,
    24,
    32,
)  # arguments, their lower halves; the upper ones are 4 bytes further on
AF_UNIX = 1
PRIO_USER, IOPRIO_WHO_USER = 2, 3  # all processes of a user
SET_FLAGS = (0x40086602, 0x40046602, 0x401C5820, 0x40087602)  # ioctl: what chattr and lsattr -v do
X32 = 0x40000000  # from here on, numbers of x86_64's second interface, with the same calls again

LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Calls:
    """An architecture as the filter sees it, and the numbers of its system calls."""

    architecture: int
    socket: int
    socketpair: int
    prlimit: int
    ipc: tuple[int, ...]  # shmget, semget, msgget: what they make outlives a process
    keyrings: tuple[int, ...]  # add_key, request_key, keyctl: the same
    schedules: tuple[int, ...]  # sched_setparam, _setscheduler, _setaffinity, _setattr: pid first
    setpriority: int
    ioprio_set: int
    ioctl: int
    attributes: tuple[int, ...]  # chmod, chown, utime and setxattr in all their forms; mq_open
    new_attributes: tuple[int, ...] = (452, 463, 466, 469)  # the same on every architecture
    io_uring_setup: int = 425


CALLS = {
    "x86_64": Calls(
        0xC000003E,
        socket=41,
        socketpair=53,
        prlimit=302,
        ipc=(29, 64, 68),
        keyrings=(248, 249, 250),
        schedules=(142, 144, 203, 314),
        setpriority=141,
        ioprio_set=251,
        ioctl=16,
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
        setpriority=140,
        ioprio_set=30,
        ioctl=29,
        attributes=(52, 53, 54, 55, 88, 5, 6, 7, 14, 15, 16, 180),
    ),
}


@lru_cache(maxsize=1)
def available() -> bool:
    """Whether this kernel takes filters, and we know its system calls."""
    if sys.platform != "linux" or os.uname().machine not in CALLS:
        return False
    LIBC.prctl(PR_SET_SECCOMP, MODE_FILTER, None, 0, 0)  # no filter at all: nothing happens
    return ctypes.get_errno() == errno.EFAULT


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


class Filter:
    """Made before the fork, where `available`."""

    def __init__(self, network: bool, attributes: bool) -> None:
        """`network` and `attributes` say whether the child may use sockets, and change attributes
        of files."""
        code = _code(CALLS[os.uname().machine], network, attributes)
        self._code = ctypes.create_string_buffer(code, len(code))
        self._program = _Program(len(code) // 8, ctypes.addressof(self._code))

    def apply(self) -> None:
        """In the child, which can gain no privileges any more. Raises `OSError` where it fails;
        the child must then not go on."""
        if LIBC.prctl(PR_SET_SECCOMP, MODE_FILTER, ctypes.byref(self._program), 0, 0) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"seccomp: {os.strerror(number)}")


Step = tuple[str, int, int, str, str]  # label, instruction, operand, where to when true, when false
"""An empty label leads to the next step."""


def _code(calls: Calls, network: bool, attributes: bool) -> bytes:
    """The instructions. Without network or attributes, a program of another architecture (of 32
    bits, say) is refused everything: its calls have other numbers."""
    alien = "allow" if network and attributes else "refuse"
    refused = calls.keyrings if network else (*calls.ipc, *calls.keyrings)
    if not (network and attributes):
        refused += (calls.io_uring_setup,)  # it makes calls that no filter sees
    forbidden = () if attributes else (*calls.attributes, *calls.new_attributes)
    steps: list[Step] = [
        ("", LOAD, ARCHITECTURE, "", ""),
        ("", EQUAL, calls.architecture, "", alien),
        ("", LOAD, NUMBER, "", ""),
        ("", AT_LEAST, X32, alien, ""),
        ("", EQUAL, calls.prlimit, "limits", ""),
        ("", EQUAL, calls.setpriority, "priority", ""),
        ("", EQUAL, calls.ioprio_set, "io priority", ""),
        *(("", EQUAL, number, "scheduler", "") for number in calls.schedules),
        *(("", EQUAL, number, "refuse", "") for number in refused),
        *(("", EQUAL, number, "forbid", "") for number in forbidden),
    ]
    if not attributes:
        steps += [("", EQUAL, calls.ioctl, "ioctl", "")]
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
        ("limits", LOAD, FIRST, "", ""),  # 0 is the caller
        ("", EQUAL, 0, "allow too", ""),
        ("", LOAD, THIRD, "", ""),  # the new limits; none when it only asks
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
        *(("", EQUAL, number, "forbid", "") for number in SET_FLAGS),
        ("allow too", RETURN, ALLOW, "", ""),  # jumps lead forward only
        ("forbid", RETURN, FORBID, "", ""),
        ("refuse too", RETURN, REFUSE, "", ""),
    ]
    return _assembled(steps)


def _assembled(steps: list[Step]) -> bytes:
    places = {label: at for at, (label, *_) in enumerate(steps) if label}
    code = b""
    for at, (_, instruction, operand, true, false) in enumerate(steps):
        jumps = (places[label] - at - 1 if label else 0 for label in (true, false))
        code += struct.pack("=HBBI", instruction, *jumps, operand)
    return code
