"""System calls a child may not make: Linux's seccomp, by a filter of a few instructions.

The filter is a program in the kernel's packet filter language (BPF), made in the parent and given
to the kernel in the child, before exec. It holds for the child and for all it ever starts, needs
no privileges (but `PR_SET_NO_NEW_PRIVS`) and no other program, and works in containers.

It refuses, with EACCES, sockets of every family but AF_UNIX when there is to be no network: IP of
any kind (TCP, UDP, raw), netlink, packet and vsock; and io_uring, which could make them unseen. A
process has no other way to a socket: none is inherited. With the network go System V's shared
memory, semaphores and messages and the kernel's keyrings (shmget, semget, msgget, add_key,
request_key, keyctl): what is put there stays when a process has ended, for whoever comes later. In
any case a child may not set the limits (`prlimit`) of other processes, such as ours.
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
ALLOW, REFUSE = 0x7FFF0000, 0x00050000 | errno.EACCES
LOAD, EQUAL, AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06  # BPF instructions
NUMBER, ARCHITECTURE = 0, 4  # where the filter finds them, in bytes
FIRST, THIRD = 16, 32  # arguments, their lower halves; the upper ones are 4 bytes further on
AF_UNIX = 1
X32 = 0x40000000  # from here on, numbers of x86_64's second interface, with the same calls again

LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Calls:
    """An architecture as the filter sees it, and the numbers of its system calls."""

    architecture: int
    socket: int
    socketpair: int
    prlimit: int
    keeps: tuple[int, ...]  # what outlives a process, in the kernel: System V IPC, keyrings
    io_uring_setup: int = 425


CALLS = {
    "x86_64": Calls(
        0xC000003E, socket=41, socketpair=53, prlimit=302, keeps=(29, 64, 68, 248, 249, 250)
    ),
    "aarch64": Calls(
        0xC00000B7, socket=198, socketpair=199, prlimit=261, keeps=(194, 190, 186, 217, 218, 219)
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

    def __init__(self, network: bool) -> None:
        code = _code(CALLS[os.uname().machine], network)
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


def _code(calls: Calls, network: bool) -> bytes:
    """The instructions. Without network, a program of another architecture (of 32 bits, say) is
    refused everything: its calls have other numbers."""
    alien = "allow" if network else "refuse"
    steps: list[Step] = [
        ("", LOAD, ARCHITECTURE, "", ""),
        ("", EQUAL, calls.architecture, "", alien),
        ("", LOAD, NUMBER, "", ""),
        ("", AT_LEAST, X32, alien, ""),
        ("", EQUAL, calls.prlimit, "limits", ""),
    ]
    if not network:
        steps += [
            *(("", EQUAL, number, "refuse", "") for number in (calls.io_uring_setup, *calls.keeps)),
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
        ("allow too", RETURN, ALLOW, "", ""),  # jumps lead forward only
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
