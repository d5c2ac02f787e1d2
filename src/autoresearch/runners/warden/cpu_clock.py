"""The CPU time of all that a process starts, counted by the kernel as it is used.

What `wait` reports can be evaded: a process that ignores SIGCHLD has its children reaped by the
kernel, and their time is in nobody's account. A performance counter that each descendant inherits
at its birth counts them too. https://man7.org/linux/man-pages/man2/perf_event_open.2.html
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
import time
from functools import lru_cache

PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241}  # system calls
TYPE_SOFTWARE, TASK_CLOCK = 1, 1
INHERIT, EXCLUDE_KERNEL, EXCLUDE_HYPERVISOR = 1 << 1, 1 << 5, 1 << 6
"""Unprivileged counters must exclude the kernel. This one counts its time all the same."""
ATTR_BYTES, CLOSE_ON_EXEC = 128, 8

LIBC = ctypes.CDLL(None, use_errno=True)


class CpuClock:
    """Counts from its creation, for processes started after that."""

    def __init__(self) -> None:
        self._fd = _open()
        self._own_s = time.process_time()

    def used_s(self) -> float:
        """CPU seconds of all descendants so far, dead or alive; 0 without a counter."""
        if self._fd < 0:
            return 0.0
        counted_ns = int.from_bytes(os.read(self._fd, 8), sys.byteorder)
        return max(0.0, counted_ns / 1e9 - (time.process_time() - self._own_s))


@lru_cache(maxsize=1)
def is_available() -> bool:
    """Whether the kernel has such a counter and lets this user have it."""
    if (fd := _open()) < 0:
        return False
    os.close(fd)
    return True


def _open() -> int:
    """A file descriptor, -1 where there is none."""
    if sys.platform != "linux" or (number := PERF_EVENT_OPEN.get(os.uname().machine)) is None:
        return -1
    flags = INHERIT | EXCLUDE_KERNEL | EXCLUDE_HYPERVISOR
    values = struct.pack("=IIQQQQQ", TYPE_SOFTWARE, ATTR_BYTES, TASK_CLOCK, 0, 0, 0, flags)
    attr = ctypes.create_string_buffer(values, ATTR_BYTES)
    own, any_core, no_group = 0, -1, -1
    return int(LIBC.syscall(number, attr, own, any_core, no_group, CLOSE_ON_EXEC))
