"""What the harness itself costs per experiment: CPU, memory, open files, disk.

    python benchmarks/overhead.py                       # 2,050 experiments by the tuner
    python benchmarks/overhead.py --agent cheap --slots 2 --json overhead.json

One session of the instant task in a temporary folder, with real commits, ledger writes and runs.
In windows around the 50th, 500th, 1,000th and 2,000th experiment it measures, per experiment:

    harness    CPU of this process, without the agent's thinking, and of the wardens, without their
               runs. What a fork charges to a run is the difference between the runs and bare ones.
    thinking   CPU inside `agent.propose`
    runs       how many, and their own CPU (the ledger's `cpu_s`)
    memory     resident, of this process
    disk       at the end, in blocks, not bytes: what lies in `.autoresearch` beyond the runs' logs
               and artefacts, and what was added to `.git`

`cheap` is an agent that draws one constant at random, so that the harness's own share stands alone.
Counted in CPU seconds, so other work on the machine matters less. About half of it is the kernel's
for small files: `TMPDIR=/dev/shm` leaves the file system out (on ext4, creating a file takes longer
the more were deleted within the last seconds, so a session of instant runs reaches its steady state
only after the first window). Exits with 1 when the harness
costs more than 30 ms of CPU or 15 kB of disk per experiment in any window, or its memory or open
files grow.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from autoresearch.commands.start import open_session
from autoresearch.core.loop import Loop
from autoresearch.core.session import Session
from autoresearch.protocols import Agent, Failure, Proposal, Turn
from autoresearch.task.reading import load, override

WINDOWS = ((25, 75), (475, 525), (975, 1025), (1950, 2050))
MAX_CPU_MS, MAX_DISK_KB, MAX_GROWTH_MB, MAX_NEW_FILES = 30.0, 15.0, 12.0, 10
BARE_RUNS = 40


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Where the session stands; all but `memory_mb` and `files` are totals since its start."""

    experiments: int
    harness_s: float  # this process, without thinking and without the measuring
    wardens_s: float
    thinking_s: float
    runs: int
    runs_s: float
    memory_mb: float
    files: int  # open

    def since(self, earlier: Snapshot) -> Window:
        per = 1 / (self.experiments - earlier.experiments)
        wardens_ms = (self.wardens_s - earlier.wardens_s) * 1000 * per
        harness_ms = (self.harness_s - earlier.harness_s) * 1000 * per
        runs = self.runs - earlier.runs
        return Window(
            first=earlier.experiments,
            last=self.experiments,
            cpu_ms=harness_ms + wardens_ms,
            harness_ms=harness_ms,
            wardens_ms=wardens_ms,
            thinking_ms=(self.thinking_s - earlier.thinking_s) * 1000 * per,
            runs=runs * per,
            run_ms=(self.runs_s - earlier.runs_s) * 1000 / runs,
            memory_mb=self.memory_mb,
            files=self.files,
        )


@dataclass(frozen=True, slots=True)
class Window:
    """Means per experiment, between two snapshots."""

    first: int
    last: int
    cpu_ms: float
    harness_ms: float
    wardens_ms: float
    thinking_ms: float
    runs: float
    run_ms: float  # per run
    memory_mb: float
    files: int


class Cheap:
    """Draws one constant of the instant task anew."""

    name = "cheap"
    wants_briefing = False

    def __init__(self) -> None:
        self._rng = random.Random(1)

    def propose(self, turn: Turn) -> Proposal:
        path = turn.worktree / "train.py"
        name, value = self._rng.choice("XY"), f"{self._rng.random():.6f}"
        path.write_text(re.sub(rf"(?m)^{name} = \S+", f"{name} = {value}", path.read_text()))
        return Proposal(f"{name} -> {value}")


class Meter:
    """An agent around the agent: times its thinking and takes the snapshots between experiments."""

    def __init__(self, session: Session, agent: Agent, marks: set[int]) -> None:
        self.name, self.wants_briefing = agent.name, agent.wants_briefing
        self.snapshots: dict[int, Snapshot] = {}
        self._session, self._agent, self._marks = session, agent, marks
        self._thinking_s = self._measuring_s = 0.0

    def propose(self, turn: Turn) -> Proposal | Failure | None:
        began = time.thread_time()
        done = self._session.ledger.started(self._session.record)
        if done in self._marks and done not in self.snapshots:
            self.take(done)
        ready = time.thread_time()
        self._measuring_s += ready - began
        try:
            return self._agent.propose(turn)
        finally:
            self._thinking_s += time.thread_time() - ready

    def take(self, experiments: int) -> None:
        session, process = self._session, psutil.Process()
        spent = session.ledger.spent(session.record)
        self.snapshots[experiments] = Snapshot(
            experiments=experiments,
            harness_s=time.process_time() - self._thinking_s - self._measuring_s,
            wardens_s=sum(own_cpu_s(child) for child in process.children()),
            thinking_s=self._thinking_s,
            runs=int(spent["runs"]),
            runs_s=spent["cpu_s"],
            memory_mb=process.memory_info().rss / 2**20,
            files=process.num_fds(),
        )


def own_cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def disk_kb(folder: Path, without: tuple[str, ...] = ()) -> float:
    """Blocks used by a folder, the folders themselves included."""

    def used(path: Path) -> Iterator[int]:
        yield path.lstat().st_blocks
        if path.is_dir() and not path.is_symlink():
            for entry in path.iterdir():
                if entry.name not in without:
                    yield from used(entry)

    return sum(used(folder)) * 512 / 1000


def measure(
    folder: Path, agent: str, experiments: int, slots: int
) -> tuple[list[Window], dict[str, float]]:
    """The windows, and the disk used per experiment by what lies in which folder."""
    new = [sys.executable, "-m", "autoresearch", "new", "instant", str(folder)]
    subprocess.run(new, check=True, stdout=subprocess.DEVNULL)
    settings = {"limits.experiments": experiments, "runner.slots": slots}
    task = override(load(folder), **settings)
    before_kb = disk_kb(folder / ".git")
    windows = [window for window in WINDOWS if window[1] <= experiments]
    marks = {mark for window in windows for mark in window} - {experiments}
    with open_session(task, "overhead", lambda line: None) as session:
        [member] = session.scheduler.members
        meter = Meter(session, Cheap() if agent == "cheap" else member.agent, marks)
        member.agent = meter
        loop = Loop(session)
        loop.run()
        meter.take(experiments)
    disk = {
        ".autoresearch": disk_kb(folder / ".autoresearch", without=("log", "artefacts")),
        ".git": disk_kb(folder / ".git") - before_kb,
    }
    found = [meter.snapshots[last].since(meter.snapshots[first]) for first, last in windows]
    return found, {name: used_kb / experiments for name, used_kb in disk.items()}


def bare_run_ms(folder: Path) -> float:
    """Median CPU of the program started by nothing but `posix_spawn`."""
    costs = []
    for seed in range(BARE_RUNS):
        before = os.times()
        with (folder / "bare.log").open("wb") as log:
            subprocess.run(
                ["python", "-BES", "train.py"],
                cwd=folder,
                env={"PATH": os.environ["PATH"], "AUTORESEARCH_SEED": str(seed)},
                stdout=log,
                check=True,
                close_fds=False,
            )
        after = os.times()
        spent = after.children_user + after.children_system
        costs.append(spent - before.children_user - before.children_system)
    return sum(costs) / len(costs) * 1000


def table(windows: list[Window], bare_ms: float) -> str:
    rows = [
        ("**harness, CPU ms**", "cpu_ms", ".1f"),
        ("- the process", "harness_ms", ".1f"),
        ("- its wardens", "wardens_ms", ".1f"),
        ("agent's thinking, CPU ms", "thinking_ms", ".1f"),
        ("runs", "runs", ".2f"),
        (f"CPU ms of a run (bare: {bare_ms:.1f})", "run_ms", ".1f"),
        ("memory, MB", "memory_mb", ".0f"),
        ("open files", "files", "d"),
    ]
    heads = [f"{window.first}-{window.last}" for window in windows]
    lines = ["| per experiment | " + " | ".join(heads) + " |"]
    lines.append("|---|" + "---:|" * len(windows))
    for label, name, form in rows:
        cells = (format(getattr(window, name), form) for window in windows)
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def failures(windows: list[Window], disk: dict[str, float]) -> list[str]:
    found = []
    for window in windows:
        where = f"experiments {window.first}-{window.last}"
        if window.cpu_ms > MAX_CPU_MS:
            found.append(f"{window.cpu_ms:.1f} ms CPU, above {MAX_CPU_MS:g}: {where}")
    last = windows[-1]
    if (used_kb := sum(disk.values())) > MAX_DISK_KB:
        found.append(f"{used_kb:.1f} kB of disk, above {MAX_DISK_KB:g}")
    if (grown_mb := last.memory_mb - windows[0].memory_mb) > MAX_GROWTH_MB:
        found.append(f"memory grew by {grown_mb:.0f} MB")
    if (opened_files := last.files - windows[0].files) > MAX_NEW_FILES:
        found.append(f"{opened_files} more files stayed open")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--experiments", type=int, default=2050, help="2050; at least 75")
    parser.add_argument("--agent", choices=("tuner", "cheap"), default="tuner")
    parser.add_argument("--slots", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    # The tuner's thinking stays in the thread that is timed; numpy is not imported yet.
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory(prefix="autoresearch-overhead-") as folder:
        root = Path(folder) / "instant"
        began = time.monotonic()
        windows, disk = measure(root, options.agent, options.experiments, options.slots)
        wall_s = time.monotonic() - began
        bare_ms = bare_run_ms(root)
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    how = f"{options.experiments} experiments by `{options.agent}`, slots {options.slots}"
    print(f"{how}, {wall_s:.0f} s; {machine}, Python {platform.python_version()}\n")
    print(table(windows, bare_ms))
    used = ", ".join(f"{kb:.1f} kB in {name}" for name, kb in disk.items())
    print(f"\nOn disk after the session, per experiment: {used}")
    if options.json:
        found = {"machine": machine, "bare_run_ms": bare_ms, "wall_s": wall_s}
        found |= {"agent": options.agent, "slots": options.slots, "disk_kb": disk}
        found["windows"] = [asdict(window) for window in windows]
        options.json.write_text(json.dumps(found, indent=1))
    if problems := failures(windows, disk):
        sys.exit("\n".join(["", *problems]))


if __name__ == "__main__":
    main()
