"""The warden of one slot: starts a run, watches it, and kills all its processes at the end.

It is a process of its own, so that a killed harness leaves no process and loses no result. If its
standard input closes, the harness is gone, and the warden kills the run's whole tree of processes.
It writes the result of a run to a file before it answers. As it is small and has one thread, it
forks fast and safely.

    python -m autoresearch.runners.warden.main CORES     # "0,1" to pin, "" not to
    stdin:  one JSON object a line (RunSpec and `slot`); an empty line interrupts the run
    stdout: one JSON object a line (RunResult)

`launch.py` starts the run's first process, `limits.py` measures it, `processes.py` finds and kills
its descendants. The warden itself is not confined.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, NamedTuple

import psutil

from autoresearch.files import replace_file
from autoresearch.protocols import NOT_PRELOADED, RunResult, RunSpec
from autoresearch.runners.warden import processes
from autoresearch.runners.warden.cpu_clock import CpuClock
from autoresearch.runners.warden.instructions import InstructionCounter
from autoresearch.runners.warden.launch import (
    ForkLost,
    Launcher,
    NotConfined,
    NotPreloaded,
    Process,
)
from autoresearch.runners.warden.limits import Watch
from autoresearch.runners.warden.processes import LINUX, MARK, PIDFD
from autoresearch.runners.warden.requests import Interrupted, Requests
from autoresearch.runners.warden.zygotes import WarmLauncher
from autoresearch.sandbox.home import make_home

SAMPLE_S = 0.25 if PIDFD else 0.05  # between two samples of a run


def main(launcher: Launcher | None = None) -> None:
    scheduling = Scheduling([int(core) for core in sys.argv[1].split(",") if core])
    clock, counter = CpuClock(), InstructionCounter()
    processes.adopt_orphans()
    launcher = launcher or WarmLauncher()
    requests = Requests(sys.stdin.fileno())
    while (line := requests.next()) is not None:
        if not line:
            continue  # an interrupt that came after the run had ended
        request = json.loads(line)
        slot = request.pop("slot")
        spec = RunSpec.from_json(request)
        scheduling.restore()
        before = counter.used()
        result = supervise(spec, requests, launcher, clock)
        after = counter.used()
        counted = None if before is None or after is None else after - before
        result = replace(result, slot=slot, instructions=counted)
        if requests.closed and result.stopped == "interrupted":
            return  # the harness is gone: the next one executes the run again
        answer = json.dumps(result.to_json())
        if result.stopped != NOT_PRELOADED:  # that is no result of the run's
            replace_file(spec.outcome, answer.encode(), is_durable=False)  # lost: made again
        try:
            print(answer, flush=True)
        except BrokenPipeError:
            return


class Scheduling:
    """The cores and the priority that the warden has, and that its runs inherit. They are set anew
    before each run, in case something has changed them."""

    def __init__(self, cores: Sequence[int]) -> None:
        """`cores` to run on; empty for all that this process may use."""
        self._cores = set(cores) or (os.sched_getaffinity(0) if LINUX else set())
        self._scheduler = os.sched_getscheduler(0) if LINUX else 0
        self._nice = os.getpriority(os.PRIO_PROCESS, 0)

    def restore(self) -> None:
        if LINUX:
            with suppress(OSError):  # a core was switched off
                os.sched_setaffinity(0, self._cores)
            if os.sched_getscheduler(0) != self._scheduler:
                with suppress(OSError):
                    os.sched_setscheduler(0, self._scheduler, os.sched_param(0))
        if os.getpriority(os.PRIO_PROCESS, 0) != self._nice:
            with suppress(OSError):  # only root may take a higher one
                os.setpriority(os.PRIO_PROCESS, 0, self._nice)


def supervise(spec: RunSpec, requests: Requests, launcher: Launcher, clock: CpuClock) -> RunResult:
    """Execute one run until its whole tree of processes is dead, and return its result."""
    mark = None if LINUX else os.urandom(16).hex()
    if mark:
        spec = replace(spec, env={**spec.env, MARK: mark})
    with spec.log.open("wb") as log:
        try:
            if spec.home is not None:
                make_home(Path(spec.env["HOME"]), spec.home)
            launched = _launch(spec, requests, launcher, clock, log)
        except Interrupted:
            return RunResult(None, "interrupted", 0.0, 0.0, None)
        except NotPreloaded as error:
            return RunResult(None, NOT_PRELOADED, 0.0, 0.0, None, detail=str(error))
        except NotConfined as error:
            log.write(f"autoresearch: not started, as it cannot be confined: {error}\n".encode())
            return RunResult(None, "not confined", 0.0, 0.0, None, detail=str(error))
        except (OSError, ValueError) as error:
            log.write(f"autoresearch: cannot start {spec.argv[0]}: {error}\n".encode())
            return RunResult(None, "command not found", 0.0, 0.0, None, detail=str(error))
    child, spec, began, used_s, counted_s = launched
    watch = Watch(spec, mark, began, used_s, clock)
    try:
        stopped = _wait_for_end(child.pid, watch, requests)
    finally:
        status, usage = processes.kill_all(child.pid, mark, watch.family)
    with suppress(OSError):  # the run may have closed its log to us
        spec.log.chmod(0o644)
    wall_s = time.monotonic() - began
    cpu_s = max(processes.children_cpu_s() - used_s, clock.used_s() - counted_s, watch.cpu_s)
    if stopped == "interrupted" and not processes.was_killed(status):
        stopped = None  # it ended by itself just before: keep the result of a finished run
    if stopped is None:
        stopped = watch.check_budget(wall_s, cpu_s) or watch.check_log()
    if stopped == "log too large" and spec.log_bytes is not None:
        os.truncate(spec.log, spec.log_bytes)  # between two samples it grows by up to a gigabyte
    peak_bytes = max(watch.peak_bytes, usage.ru_maxrss * (1024 if LINUX else 1))
    return RunResult(
        os.waitstatus_to_exitcode(status),
        stopped,
        wall_s,
        cpu_s,
        peak_bytes,
        detail=launcher.detail,
        spared_s=launcher.spared_s,
        doomed=watch.doomed,
    )


class Launched(NamedTuple):
    process: Process
    spec: RunSpec
    began: float  # by the monotonic clock
    used_s: float  # CPU seconds of earlier runs: of reaped children, and by the counter
    counted_s: float


def _launch(
    spec: RunSpec, requests: Requests, launcher: Launcher, clock: CpuClock, log: BinaryIO
) -> Launched:
    """Start a run, whose time begins when all is prepared. Raises what `Launcher` raises, but
    `ForkLost`."""
    while True:
        prepared = launcher.prepare(spec, requests)
        used_s, counted_s = processes.children_cpu_s(), clock.used_s()
        began = time.monotonic()
        try:
            process = launcher.start(prepared, log)
        except ForkLost:
            continue  # after a few of them it starts cold
        return Launched(process, prepared, began, used_s, counted_s)


def _wait_for_end(pid: int, watch: Watch, requests: Requests) -> str | None:
    """Wait for a run to end. Return None if it ended by itself, else why it must be stopped."""
    with _waiter(pid, requests.fd) as wait:
        if requests.take_interrupt():
            return "interrupted"
        while True:
            has_ended, is_readable = wait(max(0.0, min(SAMPLE_S, watch.left_s())))
            if has_ended:
                return None
            if is_readable and requests.read_interrupt():
                return "interrupted"
            if reason := watch.check():
                return reason


@contextmanager
def _waiter(pid: int, fd: int) -> Iterator[Callable[[float], tuple[bool, bool]]]:
    """Yield a function that waits at most so many seconds and returns (whether the process has
    ended, whether `fd` is readable)."""
    if PIDFD:
        pidfd = os.pidfd_open(pid)

        def wait(seconds: float) -> tuple[bool, bool]:
            ready, _, _ = select.select([pidfd, fd], [], [], seconds)
            return pidfd in ready, fd in ready

        try:
            yield wait
        finally:
            os.close(pidfd)
        return

    first = psutil.Process(pid)  # Python has no os.waitid on macOS before 3.13

    def poll(seconds: float) -> tuple[bool, bool]:
        ready, _, _ = select.select([fd], [], [], seconds)
        return first.status() == psutil.STATUS_ZOMBIE, bool(ready)

    yield poll


if __name__ == "__main__":
    main()
