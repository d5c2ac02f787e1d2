"""The same session on more and more slots of a Ray cluster, beside the runner `local`.

    python benchmarks/cluster.py                    # 1, 2, 4 and 8 slots; 10 minutes
    python benchmarks/cluster.py --slots 1 2 --seconds 3

Needs `pip install 'autoresearch[ray]'`. It starts a cluster of two nodes on this machine, with as
many CPUs as slots: the runs sleep, so they need none. The agent only has bad ideas, so that almost
every experiment is one run. Each session is measured from the moment when every slot has had its
first experiment to the moment when the last one begins, so that all slots have work all the time.

    efficiency  the seconds in which runs slept / (slots * seconds)
    CPU         per experiment, of this process and of its workers: the wardens, and with Ray the
                actors around them. Ray's daemons serve the whole cluster and are given apart

Exits with 1 if the efficiency is below 0.95, or the CPU per experiment with Ray is more than 1.3
times that of `local` on as many slots, or as there are cores: it refuses more.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from autoresearch.commands.start import open_session
from autoresearch.core.loop import Loop
from autoresearch.protocols import Proposal, Runner, RunResult, RunSpec, TreeSource, Turn
from autoresearch.task.reading import load, override

MIN_EFFICIENCY, MAX_CPU_RATIO = 0.95, 1.3
EXPERIMENTS = 6  # for each slot, and the first one
WARDEN, ACTOR = "autoresearch.runners.warden", "ray::RaySlot"
DAEMONS = ("raylet/raylet", "gcs/gcs_server", "ray/dashboard", "ray/_private")
PROGRAM = """\
import os, time
X = 0.0
time.sleep({seconds})
print("loss:", X + int(os.environ["AUTORESEARCH_SEED"]) % 1000 / 1e6)
"""
TASK = """\
objective = "lower the loss"
editable = ["train.py"]
[run]
command = "python -BES train.py"
[metric]
name = "loss"
goal = "minimize"
[judge]
baseline_runs = 3
"""


@dataclass(frozen=True, slots=True)
class Spent:
    """CPU seconds so far."""

    process_s: float
    workers_s: float
    daemons_s: float


@dataclass(frozen=True, slots=True)
class Measured:
    """Means per experiment, but the efficiency."""

    efficiency: float
    process_ms: float
    workers_ms: float
    daemons_ms: float

    @property
    def cpu_ms(self) -> float:
        return self.process_ms + self.workers_ms


def read_spent() -> Spent:
    sums = dict.fromkeys(("workers", "daemons"), 0.0)
    for process in psutil.process_iter():
        try:
            command, times = " ".join(process.cmdline()), process.cpu_times()
        except psutil.Error:
            continue
        own_s = times.user + times.system
        if ACTOR in command or (WARDEN in command and process.pid in _own()):
            sums["workers"] += own_s
        elif any(name in command for name in DAEMONS):
            sums["daemons"] += own_s
    return Spent(time.process_time(), sums["workers"], sums["daemons"])


def _own() -> set[int]:
    """The processes that this one or an actor of its cluster has started."""
    parents = [psutil.Process()]
    for process in psutil.process_iter():
        try:
            if ACTOR in " ".join(process.cmdline()):
                parents.append(process)
        except psutil.Error:
            continue
    return {child.pid for parent in parents for child in parent.children()}


class BadIdeas:
    """Proposes worse programs, and looks at the clocks at both ends of the measured stretch."""

    name, wants_briefing = "bad ideas", False

    def __init__(self, slots: int) -> None:
        self.marks: list[tuple[float, Spent]] = []
        self._ends = (slots, slots * (1 + EXPERIMENTS) - 1)
        self._turns = 0

    def propose(self, turn: Turn) -> Proposal:
        if self._turns in self._ends:
            self.marks.append((time.monotonic(), read_spent()))
        self._turns += 1
        path = turn.worktree / "train.py"
        path.write_text(path.read_text().replace("X = 0.0", f"X = {self._turns}.0"))
        return Proposal(f"X = {self._turns}")


class Watched:
    """A runner whose runs are noted: when they ended, and how long they took."""

    def __init__(self, runner: Runner) -> None:
        self.runs: list[tuple[float, float]] = []
        self._runner = runner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runner, name)

    def run(self, spec: RunSpec, source: TreeSource) -> RunResult:
        result = self._runner.run(spec, source)
        self.runs.append((time.monotonic(), result.wall_s))
        return result


def measure(folder: Path, slots: int, **settings: object) -> Measured:
    """One session."""
    count = slots * (1 + EXPERIMENTS)
    task = override(
        load(folder), **{"runner.slots": slots, "limits.experiments": count}, **settings
    )
    agent = BadIdeas(slots)
    with open_session(task, f"s{time.time_ns()}", lambda event: None) as session:
        [member] = session.scheduler.members
        member.agent = agent
        watched = session.executor.commands.runner = Watched(session.runner)
        Loop(session).run()
    (began, before), (ended, after) = agent.marks
    slept_s = sum(max(0.0, min(at, ended) - max(at - took_s, began)) for at, took_s in watched.runs)
    per = 1000 / (count - 1 - slots)
    return Measured(
        slept_s / (slots * (ended - began)),
        (after.process_s - before.process_s) * per,
        (after.workers_s - before.workers_s) * per,
        (after.daemons_s - before.daemons_s) * per,
    )


@contextmanager
def cluster(slots: int) -> Iterator[str]:
    """A cluster of two nodes with as many CPUs as slots; the address."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    head = {"num_cpus": (slots + 1) // 2, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args=head)
    if slots > 1:
        made.add_node(num_cpus=slots // 2)
    try:
        yield made.address
    finally:
        made.shutdown()


def make_folder(place: Path, seconds: float) -> Path:
    place.mkdir()
    (place / "train.py").write_text(PROGRAM.format(seconds=seconds))
    (place / "autoresearch.toml").write_text(TASK)
    who = ["-c", "user.name=user", "-c", "user.email=user@localhost"]
    for words in (["init", "-q"], ["add", "--all"], [*who, "commit", "-qm", "start"]):
        subprocess.run(["git", *words], cwd=place, check=True)
    return place


def table(rows: Sequence[tuple[int, Measured, Measured]]) -> str:
    lines = [
        "| slots | efficiency, local | efficiency, ray | CPU ms, local | CPU ms, ray | ratio "
        "| of which this process, local and ray | Ray's daemons, CPU ms |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {slots} | {local.efficiency:.3f} | {ray.efficiency:.3f} | {local.cpu_ms:.0f} "
        f"| {ray.cpu_ms:.0f} | {ray.cpu_ms / local.cpu_ms:.2f} "
        f"| {local.process_ms:.0f}, {ray.process_ms:.0f} | {ray.daemons_ms:.0f} |"
        for slots, local, ray in rows
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--slots", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--seconds", type=float, default=6.0, help="that each run sleeps; 6")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(prefix="cluster-") as place:
        folder = make_folder(Path(place, "task"), options.seconds)
        for slots in options.slots:
            local = measure(folder, min(slots, os.cpu_count() or 1))
            with cluster(slots) as address:
                settings = {"runner.name": "ray", "runner.ray.address": address}
                rows.append((slots, local, measure(folder, slots, **settings)))
    busy = os.getloadavg()[0]
    print(
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, load {busy:.1f}; "
        f"runs of {options.seconds:g} s, {EXPERIMENTS} experiments for each slot\n\n{table(rows)}"
    )
    failed = [
        f"{slots} slots"
        for slots, local, ray in rows
        if ray.efficiency < MIN_EFFICIENCY or ray.cpu_ms > MAX_CPU_RATIO * local.cpu_ms
    ]
    if failed:
        sys.exit(f"\nmissed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
