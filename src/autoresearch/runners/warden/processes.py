"""Find and kill all processes of a run.

On Linux the warden is a child subreaper: a descendant that leaves its session or loses its parent
becomes the warden's child. Elsewhere such a descendant is found by a mark in its environment, if
that can be read, or because an earlier search found it while it had its parent.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

from autoresearch.sandbox.seccomp import LIBC

LINUX = sys.platform == "linux"
PR_SET_CHILD_SUBREAPER = 36
PIDFD = hasattr(os, "pidfd_open")
MARK = "AUTORESEARCH_MARK"  # in the environment of a run's processes, not on Linux
DYING_S = 5.0  # killed processes are gone by then, unless they fork faster than we search

Family = dict[int, psutil.Process]

spared: set[int] = set()
"""Children of the warden that belong to no run: its zygotes."""

_spared_cpu_s = 0.0  # of those that `_reap` has waited for


def adopt_orphans() -> None:
    """Make this process the parent of every descendant that loses its own parent. Linux only."""
    if LINUX:
        LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def find_family(mark: str | None) -> Family:
    """The processes of the current run, by pid."""
    family: Family = {}
    with suppress(psutil.Error):
        children = psutil.Process().children(recursive=True)
        family = {process.pid: process for process in children if process.pid not in spared}
    for process in psutil.process_iter() if mark else ():
        with suppress(psutil.Error):  # it has ended, or its environment cannot be read
            if process.environ().get(MARK) == mark:
                family[process.pid] = process
    return family


def kill_all(pid: int, mark: str | None, family: Family) -> tuple[int, resource.struct_rusage]:
    """Kill and reap the group of a run's first process and all descendants. Return the status and
    usage of the first process. `family` are the processes of earlier searches."""
    if mark:
        family = family | find_family(mark)
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass  # the whole group has ended; on macOS the error for zombies is "not permitted"
    _, status, usage = os.wait4(pid, 0)
    family.pop(pid, None)
    _kill(family)
    if mark:
        _kill_until_gone(mark, family)
    elif _reap():
        with _real_time_priority():
            while _kill_descendants() and _reap():
                time.sleep(0.001)
    return status, usage


def _kill(family: Family) -> None:
    for process in family.values():
        with suppress(psutil.Error):  # it ended by itself
            process.kill()  # psutil compares start times: a reused pid is not hit


def _kill_until_gone(mark: str, family: Family) -> None:
    """Wait for the killed processes to die and search again. Orphans are not our children."""
    deadline = time.monotonic() + DYING_S
    while family and time.monotonic() < deadline:
        psutil.wait_procs(list(family.values()), timeout=deadline - time.monotonic())
        family = find_family(mark)
        _kill(family)


def _reap() -> bool:
    """Collect all dead children. False if no child is left, dead or alive."""
    global _spared_cpu_s
    try:
        while True:
            pid, _, usage = os.wait4(-1, os.WNOHANG)
            if pid == 0:
                return True
            if pid in spared:
                spared.discard(pid)
                _spared_cpu_s += usage.ru_utime + usage.ru_stime
    except ChildProcessError:
        return False


def _kill_descendants() -> int:
    """Kill the rest of the run. Return the number of its processes, zombies included."""
    descendants = list_descendants(os.getpid())
    for pid, start in descendants.items():
        _kill_if_same(pid, start)
    return len(descendants)


def list_descendants(ancestor: int) -> dict[int, bytes]:
    """The pids of all descendants but `spared`, with their start times: a later process may get the
    same pid. Reads /proc directly instead of using psutil: a fork bomb outruns anything slower."""
    children: dict[int, list[int]] = {}
    starts: dict[int, bytes] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208 - names are enough
        if name.isdigit() and (stat := _parent_and_start(int(name))):
            parent, starts[int(name)] = stat
            children.setdefault(parent, []).append(int(name))
    descendants, todo = {}, [ancestor]
    while todo:
        for pid in children.pop(todo.pop(), ()):
            if pid in spared:
                continue
            descendants[pid] = starts[pid]
            todo.append(pid)
    return descendants


def _parent_and_start(pid: int) -> tuple[int, bytes] | None:
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY)
    except OSError:
        return None
    try:
        stat = os.read(fd, 4096)
    except OSError:
        return None
    finally:
        os.close(fd)
    fields = stat[stat.rindex(b")") + 2 :].split()
    return int(fields[1]), fields[19]


def _kill_if_same(pid: int, start: bytes) -> None:
    """Kill the process with this pid if it has this start time."""
    try:
        if not PIDFD:
            os.kill(pid, signal.SIGKILL)
            return
        fd = os.pidfd_open(pid)
    except OSError:
        return
    try:
        stat = _parent_and_start(pid)
        if stat is not None and stat[1] == start:
            signal.pidfd_send_signal(fd, signal.SIGKILL)
    except OSError:
        pass  # it ended by itself
    finally:
        os.close(fd)


@contextmanager
def _real_time_priority() -> Iterator[None]:
    """Run before every ordinary process, if permitted: thousands of forking processes would leave
    us no time to kill them. Linux only."""
    with suppress(OSError):
        policy = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
        os.sched_setscheduler(0, policy, os.sched_param(1))
    try:
        yield
    finally:
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def was_killed(status: int) -> bool:
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def children_cpu_s() -> float:
    """CPU seconds of all reaped children and their reaped descendants, without `spared`."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime - _spared_cpu_s
