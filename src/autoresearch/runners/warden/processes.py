"""Finding and killing all processes of a run.

On Linux the warden is a child subreaper: a descendant that leaves its session or loses its parent
becomes the warden's child, and is found. Elsewhere it is found by a mark in its environment, if the
system lets that be read, or because it was seen before it lost its parent.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

LINUX = sys.platform == "linux"
LIBC = ctypes.CDLL(None, use_errno=True)
PR_SET_CHILD_SUBREAPER = 36
PIDFD = hasattr(os, "pidfd_open")
MARK = "AUTORESEARCH_MARK"  # in the environment of a run's processes, not on Linux
DYING_S = 5.0  # killed processes are gone by then, unless they fork faster than we search

Family = dict[int, psutil.Process]


def adopt_orphans() -> None:
    """Make this process the parent of every descendant that loses its own, where Linux can."""
    if LINUX:
        LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def find_family(mark: str | None) -> Family:
    """The processes of the run that is going on, by pid."""
    family = {process.pid: process for process in _descendants()}
    if mark:
        family |= {process.pid: process for process in _marked(mark)}
    return family


def _descendants() -> list[psutil.Process]:
    try:
        return psutil.Process().children(recursive=True)
    except psutil.Error:
        return []


def _marked(mark: str) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark:
                yield process
        except psutil.Error:
            continue  # it has ended, or its environment cannot be read


def kill_all(pid: int, mark: str | None, family: Family) -> tuple[int, resource.struct_rusage]:
    """Kill the group of a run's first process and every descendant, reap them all, and return the
    first one's status and usage. `family` are the processes seen so far."""
    if mark:
        family = family | find_family(mark)
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass  # the whole group has ended; on macOS a group of zombies answers "not permitted"
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
    """A process that has lost its parent is not our child: wait for it to die, search again."""
    deadline = time.monotonic() + DYING_S
    while family and time.monotonic() < deadline:
        psutil.wait_procs(list(family.values()), timeout=deadline - time.monotonic())
        family = find_family(mark)
        _kill(family)


def _reap() -> bool:
    """Collect the dead; False when there is no child left, dead or alive."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def _kill_descendants() -> int:
    """Kill what is left of the run. Returns how many processes there were, zombies included."""
    descendants = descendants_of(os.getpid())
    for pid, start in descendants.items():
        _kill_if_same(pid, start)
    return len(descendants)


def descendants_of(ancestor: int) -> dict[int, bytes]:
    """The pids of its descendants, and when each started, which tells a process from a later one
    with the same pid. Reads /proc directly instead of using psutil: a fork bomb outruns anything
    slower."""
    children: dict[int, list[int]] = {}
    starts: dict[int, bytes] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208 - of names alone
        if name.isdigit() and (stat := _parent_and_start(int(name))):
            parent, starts[int(name)] = stat
            children.setdefault(parent, []).append(int(name))
    descendants, todo = {}, [ancestor]
    while todo:
        for pid in children.pop(todo.pop(), ()):
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
    """Kill the process with this pid, if it is still the one that started then."""
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
    """Run ahead of every ordinary process, if we may: thousands of them that fork on would leave
    us no time to catch up with them. Linux only."""
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
    """CPU seconds of all children that were reaped, and of theirs."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
