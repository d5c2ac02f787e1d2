"""The limits of a run: samples of its time, memory, processes and log, and the kernel's own limits
on files and forks."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path

import psutil

from autoresearch.measure.doom import DOOMED, DoomWatch
from autoresearch.protocols import RunSpec
from autoresearch.runners.warden.cpu_clock import CpuClock
from autoresearch.runners.warden.processes import (
    LINUX,
    Family,
    children_cpu_s,
    find_family,
    list_descendants,
)

SEARCH_EVERY = 100  # times as long as a search takes: it reads all of /proc
LOAD = Path("/proc/loadavg")
NO_CORE = 1
"""Bytes of a core dump: a crash leaves none. Linux gives none to the system's own handler either,
which would keep it outside the run's tree; 0 bytes would not prevent that."""
THREADS = 8  # allowed for each process, where the kernel counts a user's threads


class Watch:
    """Samples a run's processes and compares what they use with its limits."""

    def __init__(
        self, spec: RunSpec, mark: str | None, began: float, used_s: float, clock: CpuClock
    ) -> None:
        """`used_s` are the CPU seconds of earlier runs, from `children_cpu_s`. `clock` also counts
        children that nobody waits for."""
        self._clock = clock
        self._counted_s = clock.used_s()
        self.peak_bytes = 0
        self.cpu_s = 0.0  # of the latest sample, outside Linux: orphans are not our children there
        self.family: Family = {}
        self._spec = spec
        self._doom = DoomWatch(spec.log, spec.doom) if spec.doom else None
        self.doomed: str | None = None  # what in its log dooms the run
        self._mark = mark
        self._began = began
        self._used_s = used_s
        self._search_at = began
        self._threads = _count_threads()  # at the latest count of the run's processes
        self._processes = 0

    def left_s(self) -> float:
        return self._began + self._spec.timeout_s - time.monotonic()

    def check(self) -> str | None:
        """Take a sample. Return the exceeded limit as a value of `RunResult.stopped`."""
        wall_s = time.monotonic() - self._began
        if wall_s >= self._spec.timeout_s:
            return "timeout"
        if self._has_too_many_processes():
            return "too many processes"
        memory_bytes, cpu_s = self._sample()
        self.peak_bytes = max(self.peak_bytes, memory_bytes)
        self.cpu_s = 0.0 if LINUX else max(self.cpu_s, cpu_s)
        if self._spec.memory_bytes is not None and memory_bytes > self._spec.memory_bytes:
            return "memory"
        return self.check_log() or self.check_budget(wall_s, cpu_s) or self._check_doom()

    def check_log(self) -> str | None:
        limit = self._spec.log_bytes
        size = self._spec.log.stat().st_size
        return "log too large" if limit is not None and size > limit else None

    def check_budget(self, wall_s: float, cpu_s: float) -> str | None:
        limit = self._spec.limit_s
        spent = cpu_s if self._spec.limit_clock == "cpu" else wall_s
        return "over budget" if limit is not None and spent > limit else None

    def _check_doom(self) -> str | None:
        if self._doom is not None and self.doomed is None:
            self.doomed = self._doom.look()
        return f"{DOOMED}: {self.doomed}" if self.doomed and not self._spec.is_audited else None

    def _sample(self) -> tuple[int, float]:
        """(resident bytes, CPU seconds) of all processes, those that were reaped included."""
        memory, cpu_s = 0, children_cpu_s() - self._used_s
        if (now := time.monotonic()) >= self._search_at:
            self.family |= find_family(self._mark)
            self._search_at = now + SEARCH_EVERY * (time.monotonic() - now)
        for process in list(self.family.values()):
            try:
                with process.oneshot():
                    times = process.cpu_times()
                    memory += process.memory_info().rss
            except psutil.Error:
                del self.family[process.pid]  # it has ended
                continue
            cpu_s += times.user + times.system + times.children_user + times.children_system
        return memory, max(cpu_s, self._clock.used_s() - self._counted_s)

    def _has_too_many_processes(self) -> bool:
        """Count the run's processes if the machine has so many more threads than at the latest
        count that the run may have started too many. Every search counts them, too."""
        limit = self._spec.processes
        if limit is None:
            return False
        if LINUX and _count_threads() - self._threads > limit - self._processes:
            self._threads, self._processes = _count_threads(), len(list_descendants(os.getpid()))
        return max(self._processes, len(self.family)) > limit


def _count_threads() -> int:
    """The number of threads on this machine; 0 where the system does not report it."""
    try:
        return int(LOAD.read_text().split()[3].partition("/")[2])
    except (OSError, ValueError, IndexError):
        return 0


def max_threads(processes: int | None) -> int | None:
    """RLIMIT_NPROC for a run that may have so many processes; None for no limit.

    It stops forks that are too fast for samples. The kernel counts all threads of the user on
    Linux, and all processes elsewhere. Root is exempt: `Watch` must stop its runs.
    """
    if processes is None or os.geteuid() == 0:
        return None
    if not LINUX:
        return _cap(resource.RLIMIT_NPROC, len(psutil.pids()) + processes)
    threads = _count_threads()
    return _cap(resource.RLIMIT_NPROC, threads + THREADS * processes) if threads else None


def list_limits(file_bytes: int | None, threads: int | None) -> list[tuple[int, int]]:
    """The kernel's limits on the size of every file and core dump and on the number of threads, of
    a process and all it starts: (kind, limit). Root could raise the limits again, unless it is
    confined (CAP_SYS_RESOURCE)."""
    files, forks = (resource.RLIMIT_FSIZE, file_bytes), (resource.RLIMIT_NPROC, threads)
    kinds = (files, forks, (resource.RLIMIT_CORE, NO_CORE))
    return [(kind, _cap(kind, limit)) for kind, limit in kinds if limit is not None]


def _cap(kind: int, limit: int) -> int:
    """The limit, or the hard limit if that is lower."""
    _, hard = resource.getrlimit(kind)
    return limit if hard == resource.RLIM_INFINITY else min(limit, hard)
