"""Denies a child process some system calls, with a filter for Linux's seccomp.

The filter is a program in the kernel's packet filter language (BPF). The parent makes it; the child
gives it to the kernel before exec. It holds for the child and all its descendants, needs no
privileges (but `PR_SET_NO_NEW_PRIVS`) and no other program, and works in containers.

Always denied, with EACCES: setting the limits (`prlimit`) of other processes, such as the harness.
Denied without network:
- sockets of every family but AF_UNIX: IP of any kind (TCP, UDP, raw), netlink, packet and vsock.
  No process inherits a socket
- io_uring, which could make sockets that the filter does not see
- System V's shared memory, semaphores and messages, and the kernel's keyrings (shmget, semget,
  msgget, add_key, request_key, keyctl): their content outlives the process
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
ALLOW, REFUSE = 0x7FFF0000, 0x00050000 | errno.EACCES
LOAD, EQUAL, AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06  # BPF instructions
NUMBER, ARCHITECTURE = 0, 4  # their offsets in the filter's input, in bytes
FIRST, THIRD = 16, 32  # offsets of the lower halves of two arguments; the upper ones are at + 4
AF_UNIX = 1
X32 = 0x40000000  # higher numbers are the same calls again, in x86_64's second interface

LIBC = ctypes.CDLL(None, use_errno=True)


class Calls(NamedTuple):
    """The number of an architecture in the filter's input, and those of its system calls."""

    architecture: int
    socket: int
    socketpair: int
    prlimit: int
    persistent: tuple[int, ...]  # calls whose effects outlive a process: System V IPC, keyrings
    io_uring_setup: int = 425


CALLS = {
    "x86_64": Calls(
        0xC000003E, socket=41, socketpair=53, prlimit=302, persistent=(29, 64, 68, 248, 249, 250)
    ),
    "aarch64": Calls(
        0xC00000B7,
        socket=198,
        socketpair=199,
        prlimit=261,
        persistent=(194, 190, 186, 217, 218, 219),
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

    def __init__(self, network: bool) -> None:
        code = _code(CALLS[os.uname().machine], network)
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


def _code(calls: Calls, network: bool) -> bytes:
    """The instructions. Without network, a program of another architecture (of 32 bits, say) is
    refused every call, because its calls have other numbers."""
    foreign = "allow" if network else "refuse"
    steps: list[Step] = [
        ("", LOAD, ARCHITECTURE, "", ""),
        ("", EQUAL, calls.architecture, "", foreign),
        ("", LOAD, NUMBER, "", ""),
        ("", AT_LEAST, X32, foreign, ""),
        ("", EQUAL, calls.prlimit, "limits", ""),
    ]
    if not network:
        steps += [
            *(
                ("", EQUAL, number, "refuse", "")
                for number in (calls.io_uring_setup, *calls.persistent)
            ),
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
        ("", LOAD, THIRD, "", ""),  # the new limits; 0 if it only reads them
        ("", EQUAL, 0, "", "refuse too"),
        ("", LOAD, THIRD + 4, "", ""),
        ("", EQUAL, 0, "allow too", "refuse too"),
        ("allow too", RETURN, ALLOW, "", ""),  # again, because jumps lead forward only
        ("refuse too", RETURN, REFUSE, "", ""),
    ]
    return _assemble(steps)


def _assemble(steps: list[Step]) -> bytes:
    places = {label: at for at, (label, *_) in enumerate(steps) if label}
    code = b""
    for at, (_, instruction, operand, true, false) in enumerate(steps):
        jumps = (places[label] - at - 1 if label else 0 for label in (true, false))
        code += struct.pack("=HBBI", instruction, *jumps, operand)
    return code
