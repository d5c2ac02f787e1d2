"""The CPU time of all that a process starts, counted by the kernel as it is used.

What `wait` reports can be evaded: a process that ignores SIGCHLD has its children reaped by the
kernel, and their time is in nobody's account. Two things count them too: a performance counter
that each descendant inherits at its birth, and a control group that the process is in.

The kernel takes the counter from a process that executes a program which it may not read, or with
two user IDs (`begin_new_exec` in Linux's fs/exec.c). A confined user can make no such program
(`sandbox/seccomp.py`), but root can change its user ID. So root's runs are counted by a control
group.
https://man7.org/linux/man-pages/man2/perf_event_open.2.html
https://docs.kernel.org/admin-guide/cgroup-v2.html
"""

from __future__ import annotations

import ctypes
import os
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241}  # system calls
SOFTWARE, TASK_CLOCK = 1, 1
READ_TIMES = 3  # the time enabled, and the time running
INHERIT, EXCLUDE_KERNEL, EXCLUDE_HYPERVISOR = 1 << 1, 1 << 5, 1 << 6
"""Unprivileged counters must exclude the kernel. This one counts its time all the same."""
ATTR_BYTES, CLOSE_ON_EXEC = 128, 8
GROUP = "autoresearch-"  # and the pid of the process that made it
GROUPS = {"": ("", "unified"), "cpuacct": ("cpuacct", "cpu,cpuacct")}  # by controller: folders

LIBC = ctypes.CDLL(None, use_errno=True)


class CpuClock:
    """Counts from its creation, for processes started after that."""

    def __init__(self) -> None:
        self._fd = -1 if _is_root() else open_counter(SOFTWARE, TASK_CLOCK)
        self._group = _join_group() if self._fd < 0 else None
        if _is_root() and self._group is None:
            self._fd = open_counter(SOFTWARE, TASK_CLOCK)  # better than nothing
        self._own_s = time.process_time()

    def used_s(self) -> float:
        """CPU seconds of all descendants so far, dead or alive; 0 if nothing counts them."""
        if self._group is not None:
            counted_s = _read_group_s(self._group)
        elif self._fd >= 0:
            counted_s = int.from_bytes(os.read(self._fd, 8), sys.byteorder) / 1e9
        else:
            return 0.0
        return max(0.0, counted_s - (time.process_time() - self._own_s))


@lru_cache(maxsize=1)
def is_available() -> bool:
    """Whether the kernel counts the time of all descendants, and lets this user have it."""
    if not _is_root() and (fd := open_counter(SOFTWARE, TASK_CLOCK)) >= 0:
        os.close(fd)
        return True
    if sys.platform != "linux":
        return False
    command = [sys.executable, "-I", "-S", __file__]  # a process that joins a group
    is_grouped = subprocess.run(command, check=False, capture_output=True).returncode == 0
    remove_groups()
    return is_grouped


def _is_root() -> bool:
    return os.geteuid() == 0


def remove_groups() -> None:
    """Remove the control groups of processes that have ended."""
    for parent in _list_groups():
        for group in parent.glob(f"{GROUP}*"):
            with suppress(OSError):  # a process is in it
                group.rmdir()


def open_counter(kind: int, event: int, *, inherit: bool = True, times: bool = False) -> int:
    """A file descriptor of a counter of this process, and with `inherit` of all that it starts; -1
    where there is none. With `times`, a read also gives for how long it was wanted, and ran."""
    if sys.platform != "linux" or (number := PERF_EVENT_OPEN.get(os.uname().machine)) is None:
        return -1
    flags = EXCLUDE_KERNEL | EXCLUDE_HYPERVISOR | (INHERIT if inherit else 0)
    fields = (kind, ATTR_BYTES, event, 0, 0, READ_TIMES if times else 0, flags)
    values = struct.pack("=IIQQQQQ", *fields)
    attr = ctypes.create_string_buffer(values, ATTR_BYTES)
    own, any_core, no_group = 0, -1, -1
    return int(LIBC.syscall(number, attr, own, any_core, no_group, CLOSE_ON_EXEC))


def _list_groups() -> Iterator[Path]:
    """The groups that this process is in and that count CPU time."""
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            for controller in controllers.split(","):
                for name in GROUPS.get(controller, ()):
                    if (folder := Path("/sys/fs/cgroup", name, path.lstrip("/"))).is_dir():
                        yield folder


def _join_group() -> Path | None:
    """Put this process into a new control group. None where it may make none."""
    remove_groups()
    for parent in _list_groups():
        group = parent / f"{GROUP}{os.getpid()}"
        with suppress(OSError, ValueError):
            group.mkdir(exist_ok=True)
            _read_group_s(group)
            (group / "cgroup.procs").write_text(str(os.getpid()))
            return group
    remove_groups()
    return None


def _read_group_s(group: Path) -> float:
    """CPU seconds of all processes that are or were in the group."""
    if (file := group / "cpuacct.usage").exists():  # version 1
        return int(file.read_text()) / 1e9
    return int((group / "cpu.stat").read_text().split()[1]) / 1e6  # begins with `usage_usec`


if __name__ == "__main__":  # see `is_available`
    sys.exit(_join_group() is None)
