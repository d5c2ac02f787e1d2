"""The warden of one slot: starts a run, watches it, and makes sure that nothing of it is left.

It is a process of its own so that a killed harness leaves nothing behind and loses nothing: when
its standard input closes, the harness is gone, and the run's whole tree of processes dies; when a
run ends, its outcome is in a file before anybody is told. Being small and single-threaded it also
forks fast and safely.

    python -m autoresearch.runners.warden.main CORES     # "0,1" to pin, "" not to
    stdin:  one JSON object a line (RunSpec and the slot); an empty line interrupts the run
    stdout: one JSON object a line (Outcome)

On Linux it is a child subreaper: a descendant that leaves its session or loses its parent becomes
the warden's child, and is found. Elsewhere it is found by a mark in its environment, where the
system lets that be read, or because it was seen before it lost its parent.

A `confinement` holds for the run and its descendants, never for the warden. A run that cannot be
confined as asked does not start.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import secrets
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, BinaryIO

import psutil

from autoresearch.protocols import Confinement
from autoresearch.sandbox.landlock import Ruleset

LINUX = sys.platform == "linux"
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
PIDFD = hasattr(os, "pidfd_open")
MARK = "AUTORESEARCH_MARK"  # in the environment of a run's processes, not on Linux
SAMPLE_S = 0.25 if PIDFD else 0.05  # between two looks at a run
DYING_S = 5.0  # what was killed is gone by then, unless it forks faster than we look
SEARCH_EVERY = 100  # times what it takes: finding descendants means reading all of /proc
LOAD = Path("/proc/loadavg")
THREADS = 8  # for each process that is allowed, where the kernel counts a user's threads
LIBC = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    cores = [int(core) for core in sys.argv[1].split(",") if core]
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    if LINUX:
        LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    requests = Requests(sys.stdin.fileno())
    while (line := requests.next()) is not None:
        if not line:
            continue  # an interrupt that came after its run had ended
        spec = json.loads(line)
        outcome = supervise(spec, requests)
        if requests.closed and outcome["stopped"] == "interrupted":
            return  # the harness is gone: the run did not finish, and will be made again
        save(Path(spec["outcome"]), outcome)
        try:
            print(json.dumps(outcome), flush=True)
        except BrokenPipeError:
            return


class Requests:
    """Lines from the harness, without ever blocking behind Python's buffers."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.closed = False
        self._buffer = b""

    def next(self) -> str | None:
        """The next line, waiting for it; None when the harness is gone."""
        while b"\n" not in self._buffer:
            if self.closed:
                return None
            self._read()
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode()

    def interrupted(self) -> bool:
        """After `fd` became readable during a run: an empty line, or the end."""
        self._read()
        return self.pending()

    def pending(self) -> bool:
        """An interrupt was read already, perhaps together with the request it is about."""
        interrupt = self.closed or b"\n" in self._buffer
        self._buffer = self._buffer.lstrip(b"\n")
        return interrupt

    def _read(self) -> None:
        data = os.read(self.fd, 1 << 16)
        self.closed = not data
        self._buffer += data


def supervise(spec: dict[str, Any], requests: Requests) -> dict[str, Any]:
    """Execute one run until its whole tree of processes is dead, and say how it ended."""
    used = _children_cpu_s()
    began = time.monotonic()
    if not LINUX:
        spec["env"][MARK] = secrets.token_hex(16)
    with Path(spec["log"]).open("wb") as log:
        try:
            child = _start(spec, log)
        except NotConfined as error:
            log.write(f"autoresearch: not started, as it cannot be confined: {error}\n".encode())
            return outcome(spec, None, "not confined", 0.0, 0.0, None, str(error))
        except (OSError, ValueError) as error:
            log.write(f"autoresearch: cannot start {spec['argv'][0]}: {error}\n".encode())
            return outcome(spec, None, "command not found", 0.0, 0.0, None, str(error))
    watch = Watch(spec, child.pid, began, used)
    try:
        stopped = watch.until_end(requests)
    finally:
        status, usage = _kill_all(child.pid, spec, watch.seen)
    wall_s = time.monotonic() - began
    cpu_s = max(_children_cpu_s() - used, watch.cpu_s)
    if stopped == "interrupted" and not _was_killed(status):
        stopped = None  # it had ended by itself, just in time: a finished run is never lost
    if stopped is None:
        stopped = watch.over_limit(wall_s, cpu_s) or watch.log_too_large()
    if stopped == "log too large":
        os.truncate(spec["log"], spec["log_bytes"])  # a look is late by up to a gigabyte
    peak = max(watch.peak_bytes, usage.ru_maxrss * (1024 if LINUX else 1))
    return outcome(spec, os.waitstatus_to_exitcode(status), stopped, wall_s, cpu_s, peak)


class NotConfined(Exception):
    """The run was to be confined and could not be; nothing of it has been executed."""


def _start(spec: dict[str, Any], log: BinaryIO) -> subprocess.Popen[bytes]:
    """The run's first process, confined if that is asked for."""
    most = _most_threads(spec.get("processes"))
    with _ruleset(spec) as ruleset:

        def prepare() -> None:  # in the child, between fork and exec
            if LINUX:
                LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            _limit_files(spec.get("file_bytes"))
            if most is not None:
                resource.setrlimit(resource.RLIMIT_NPROC, (most, most))
            if ruleset is not None:
                ruleset.apply()

        try:
            return subprocess.Popen(
                spec["argv"],
                cwd=spec["tree"],
                env=spec["env"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=prepare,
            )
        except subprocess.SubprocessError as error:  # of `prepare`: the child has ended
            raise NotConfined("the kernel refused it (Landlock)") from error


def _limit_files(limit: int | None) -> None:
    """Every file's size, for the child and all it starts. Root could raise it again, but not when
    it is confined (CAP_SYS_RESOURCE)."""
    if limit is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


def _most_threads(limit: int | None) -> int | None:
    """A stop for forks too fast to be seen, counted by the kernel over all that the user runs: in
    threads on Linux, elsewhere in processes. It does not hold for root: see `Watch._overrun`."""
    if limit is None or os.geteuid() == 0:
        return None
    if LINUX and not _tasks():
        return None  # nobody says how many there are
    most = _tasks() + THREADS * limit if LINUX else len(psutil.pids()) + limit
    _, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    return most if hard == resource.RLIM_INFINITY else min(most, hard)


def _ruleset(spec: dict[str, Any]) -> AbstractContextManager[Ruleset | None]:
    if spec["confinement"] is None:
        return nullcontext()
    try:
        return Ruleset(Confinement.from_json(spec["confinement"]))
    except OSError as error:
        raise NotConfined(str(error)) from error


class Watch:
    """Samples a running tree of processes against its limits."""

    def __init__(self, spec: dict[str, Any], pid: int, began: float, used: float) -> None:
        self.spec = spec
        self.pid = pid
        self.began = began
        self.used = used
        self.peak_bytes = 0
        self.cpu_s = 0.0  # as last seen: what lost its parent is no child of ours outside Linux
        self.seen: dict[int, psutil.Process] = {}
        self._search_at = began
        self._tasks, self._counted = _tasks(), 0  # threads on the machine, processes of the run

    def until_end(self, requests: Requests) -> str | None:
        """Wait for the run to end: None when it did by itself, else why it has to be stopped."""
        with _waiter(self.pid, requests.fd) as wait:
            if requests.pending():
                return "interrupted"
            while True:
                left = self.began + self.spec["timeout_s"] - time.monotonic()
                ended, readable = wait(max(0.0, min(SAMPLE_S, left)))
                if ended:
                    return None
                if readable and requests.interrupted():
                    return "interrupted"
                if reason := self.look():
                    return reason

    def look(self) -> str | None:
        wall_s = time.monotonic() - self.began
        if wall_s >= self.spec["timeout_s"]:
            return "timeout"
        if self._overrun():
            return "too many processes"
        memory, cpu_s = self._sample()
        self.peak_bytes = max(self.peak_bytes, memory)
        self.cpu_s = 0.0 if LINUX else max(self.cpu_s, cpu_s)
        limit = self.spec["memory_bytes"]
        if limit is not None and memory > limit:
            return "memory"
        return self.log_too_large() or self.over_limit(wall_s, cpu_s)

    def log_too_large(self) -> str | None:
        limit = self.spec["log_bytes"]
        size = Path(self.spec["log"]).stat().st_size
        return "log too large" if limit is not None and size > limit else None

    def over_limit(self, wall_s: float, cpu_s: float) -> str | None:
        limit = self.spec["limit_s"]
        spent = cpu_s if self.spec["limit_clock"] == "cpu" else wall_s
        return "over budget" if limit is not None and spent > limit else None

    def _sample(self) -> tuple[int, float]:
        """(resident bytes, CPU seconds) of the tree: the living and those already reaped."""
        memory, cpu_s = 0, _children_cpu_s() - self.used
        if (now := time.monotonic()) >= self._search_at:
            self.seen |= _family(self.spec)
            self._search_at = now + SEARCH_EVERY * (time.monotonic() - now)
        for process in list(self.seen.values()):
            try:
                with process.oneshot():
                    times = process.cpu_times()
                    memory += process.memory_info().rss
            except psutil.Error:
                del self.seen[process.pid]  # it has ended
                continue
            cpu_s += times.user + times.system + times.children_user + times.children_system
        return memory, cpu_s

    def _overrun(self) -> bool:
        """Whether there are too many processes. They are counted when so many more threads are on
        this machine than at the latest count that they could be ours, and at every search."""
        limit = self.spec.get("processes")
        if limit is None:
            return False
        if LINUX and _tasks() - self._tasks > limit - self._counted:
            self._tasks, self._counted = _tasks(), len(_below(os.getpid()))
        return bool(max(self._counted, len(self.seen)) > limit)


def _tasks() -> int:
    """How many threads there are on this machine; 0 where nobody says."""
    try:
        return int(LOAD.read_text().split()[3].partition("/")[2])
    except (OSError, ValueError, IndexError):
        return 0


@contextmanager
def _waiter(pid: int, fd: int) -> Iterator[Callable[[float], tuple[bool, bool]]]:
    """A function that waits at most so long: (the process ended, the harness said something)."""
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


def _family(spec: dict[str, Any]) -> dict[int, psutil.Process]:
    """The processes of a run."""
    found = {process.pid: process for process in _descendants()}
    if not LINUX:
        found |= {process.pid: process for process in _marked(spec["env"][MARK])}
    return found


def _marked(mark: str) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark:
                yield process
        except psutil.Error:
            continue  # it has ended, or its environment is nobody's to read


def _descendants() -> list[psutil.Process]:
    try:
        return psutil.Process().children(recursive=True)
    except psutil.Error:
        return []


def _kill_all(
    pid: int, spec: dict[str, Any], seen: dict[int, psutil.Process]
) -> tuple[int, resource.struct_rusage]:
    """Kill the group and every descendant, reap them all, and return the first one's status."""
    family = seen if LINUX else seen | _family(spec)
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass  # the whole group has ended; on macOS a group of zombies answers "not permitted"
    _, status, usage = os.wait4(pid, 0)
    family.pop(pid, None)
    for process in family.values():
        _kill(process)
    if not LINUX:
        _kill_others(spec, family)
    elif _reap():
        with _first_in_line():
            while _kill_descendants() and _reap():
                time.sleep(0.001)
    return status, usage


def _kill_others(spec: dict[str, Any], family: dict[int, psutil.Process]) -> None:
    """What has lost its parent is not our child: wait for it to die, and look again."""
    deadline = time.monotonic() + DYING_S
    while family and time.monotonic() < deadline:
        psutil.wait_procs(list(family.values()), timeout=deadline - time.monotonic())
        family = _family(spec)
        for process in family.values():
            _kill(process)


def _kill_descendants() -> int:
    """Kill what is left of the run; how many there were. Zombies are counted, too."""
    below = _below(os.getpid())
    for pid, began in below.items():
        _kill_one(pid, began)
    return len(below)


def _below(ancestor: int) -> dict[int, bytes]:
    """Its descendants, and when each began (which tells it from a later one of the same number).
    Bare of all comfort: a bomb forks while we look."""
    children: dict[int, list[int]] = {}
    began: dict[int, bytes] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208 - of names alone
        if name.isdigit() and (found := _parent_and_start(int(name))):
            parent, began[int(name)] = found
            children.setdefault(parent, []).append(int(name))
    below, todo = {}, [ancestor]
    while todo:
        for pid in children.pop(todo.pop(), ()):
            below[pid] = began[pid]
            todo.append(pid)
    return below


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


def _kill_one(pid: int, began: bytes) -> None:
    try:
        if not PIDFD:
            os.kill(pid, signal.SIGKILL)
            return
        fd = os.pidfd_open(pid)
    except OSError:
        return
    try:
        found = _parent_and_start(pid)
        if found is not None and found[1] == began:
            signal.pidfd_send_signal(fd, signal.SIGKILL)
    except OSError:
        pass  # it ended by itself
    finally:
        os.close(fd)


@contextmanager
def _first_in_line() -> Iterator[None]:
    """Ahead of every ordinary process, where we may: thousands of them that fork on would leave us
    no time to catch up with them."""
    if LINUX:
        with suppress(OSError):
            first = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
            os.sched_setscheduler(0, first, os.sched_param(1))
    try:
        yield
    finally:
        if LINUX:
            with suppress(OSError):
                os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def _was_killed(status: int) -> bool:
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()  # psutil compares start times: a reused pid is not hit
    except psutil.Error:
        pass  # it ended by itself


def _reap() -> bool:
    """Collect the dead; False when there is no child left, dead or alive."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def _children_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def outcome(
    spec: dict[str, Any],
    exit_code: int | None,
    stopped: str | None,
    wall_s: float,
    cpu_s: float,
    peak: int | None,
    detail: str = "",
) -> dict[str, Any]:
    return {
        "exit_code": exit_code,
        "stopped": stopped,
        "wall_s": wall_s,
        "cpu_s": cpu_s,
        "peak_memory_bytes": peak,
        "slot": spec["slot"],
        "detail": detail,
    }


def save(path: Path, outcome: dict[str, Any]) -> None:
    """Write the outcome so that it is there whole or not at all."""
    draft = path.with_suffix(".tmp")
    draft.write_text(json.dumps(outcome))
    draft.replace(path)


if __name__ == "__main__":
    main()
