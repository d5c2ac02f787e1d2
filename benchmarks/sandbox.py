"""What confining a run costs: a trivial program by a plain subprocess, by the runner, and confined.

    python benchmarks/sandbox.py                  # 300 of each, a minute or two
    python benchmarks/sandbox.py --runs 100

Each round makes one run of each kind, in random order, so that other work on the machine hits all
of them alike; what is printed are medians of the differences within a round. The program is Python
that does nothing. Both ways through the runner are those of a session (`CommandExecutor.spec` and
`execute`): the same limits and temporary folder, once with `[runner] confine` and once without. CPU
is that of this process, of the warden and of the run. Exits with 1 when a confined run takes more
than 15 ms longer than a plain subprocess, in CPU or by the wall clock, or when a confined run could
read what it must not.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

import psutil

from autoresearch.commands.start import open_session
from autoresearch.files import remove_tree
from autoresearch.measure.runs import RunExecutor
from autoresearch.measure.trees import CommitTree
from autoresearch.protocols import RunResult
from autoresearch.sandbox import landlock
from autoresearch.task.reading import load, override

MAX_MS = 15.0
COMMAND = "python -S -E -c pass"
LOOK = "python -S -E -c 'open(\"{}\")'"  # must fail where it is confined
WARM_UP = 5


@dataclass(frozen=True, slots=True)
class Cost:
    wall_ms: float
    cpu_ms: float


class InPlace(CommitTree):
    """A tree that is there already: making one is not what is measured."""

    def __init__(self) -> None:
        pass

    def write(self, folder: Path) -> None:
        pass


class Bench:
    """Makes one run in each of three ways."""

    def __init__(self, root: Path, confined: RunExecutor, free: RunExecutor) -> None:
        self.root = root
        self.ways: dict[str, Callable[[], float]] = {
            "plain": self._plain,
            "runner": lambda: self._by(free),
            "confined": lambda: self._by(confined),
        }

    def cost(self, way: str) -> Cost:
        cpu_s, began = self._cpu_s(), time.perf_counter()
        run_cpu_s = self.ways[way]()
        wall_s = time.perf_counter() - began
        return Cost(wall_s * 1000, (self._cpu_s() - cpu_s + run_cpu_s) * 1000)

    def run(self, executor: RunExecutor, command: str) -> RunResult:
        tree = self.root / ".autoresearch" / "bench" / "target" / "package" / "trees" / "00001"
        tree.mkdir(parents=True, exist_ok=True)
        log, outcome = tree.parent / "log", tree.parent / "outcome.json"
        commands = executor.commands
        spec = commands.spec(command, tree, log, outcome, 1)
        return commands.execute(spec, InPlace())

    def _by(self, executor: RunExecutor) -> float:
        """CPU seconds of the run itself."""
        outcome = self.run(executor, COMMAND)
        if outcome.exit_code != 0 or outcome.cpu_s is None:
            raise SystemExit(f"the program failed: {COMMAND}: {outcome}")
        return outcome.cpu_s

    def _plain(self) -> float:
        env = {"PATH": os.environ["PATH"]}
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        with (self.root / ".autoresearch" / "log").open("wb") as log:
            subprocess.run(COMMAND.split(), cwd=self.root, env=env, stdout=log, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    def _cpu_s(self) -> float:
        """Of this process and of its wardens, without what they started."""
        wardens = (Path(f"/proc/{child.pid}/schedstat") for child in psutil.Process().children())
        return time.process_time() + sum(int(file.read_text().split()[0]) / 1e9 for file in wardens)


def measure(root: Path, runs: int, rng: random.Random) -> list[dict[str, Cost]]:
    new = [sys.executable, "-m", "autoresearch", "new", "instant", str(root)]
    subprocess.run(new, check=True, stdout=subprocess.DEVNULL)
    task = load(root)
    with open_session(task, "bench", lambda line: None) as session:
        free_task = override(task, **{"runner.confine": False})
        parts = (session.paths, session.repository, session.runner, session.ledger)
        free = RunExecutor(free_task, *parts, session.record.base_commit)
        bench = Bench(root, session.executor, free)
        rounds = []
        for number in range(WARM_UP + runs):
            ways = list(bench.ways)
            rng.shuffle(ways)
            costs = {way: bench.cost(way) for way in ways}
            if number >= WARM_UP:
                rounds.append(costs)
        look = LOOK.format(session.paths.ledger)
        codes = [bench.run(one, look).exit_code for one in (free, session.executor)]
        if codes != [0, 1]:
            raise SystemExit("a confined run could read the ledger: nothing was confined")
    remove_tree(root)
    return rounds


def added(rounds: list[dict[str, Cost]], way: str, over: str, field: str) -> list[float]:
    return [getattr(costs[way], field) - getattr(costs[over], field) for costs in rounds]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=300, help="of each kind; 300")
    options = parser.parse_args()
    if landlock.abi() == 0:
        sys.exit("this system has no Landlock: there is nothing to measure")
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with tempfile.TemporaryDirectory(prefix="autoresearch-sandbox-") as folder:
        rounds = measure(Path(folder) / "instant", options.runs, random.Random(1))
    machine = f"{platform.system()} {platform.release().partition('-')[0]} {platform.machine()}"
    print(
        f"{options.runs} runs of each kind, one after another; {machine}, {os.cpu_count()} cores, "
        f"Landlock ABI {landlock.abi()}, load {os.getloadavg()[0]:.1f}, "
        f"Python {platform.python_version()}\n"
    )
    print("| median ms per run | wall | 25 to 75 % | CPU |\n|---|---:|---:|---:|")
    for way in ("plain", "runner", "confined"):
        rules = [costs[way].wall_ms for costs in rounds]
        low, _, high = quantiles(rules, n=4)
        cpu_ms = median(costs[way].cpu_ms for costs in rounds)
        name = {"plain": "a plain subprocess", "runner": "by the runner"}.get(way, "and confined")
        print(f"| {name} | {median(rules):.1f} | {low:.1f} to {high:.1f} | {cpu_ms:.1f} |")
    problems = []
    for over, name in (("runner", "over the runner alone"), ("plain", "over a plain subprocess")):
        wall_ms = median(added(rounds, "confined", over, "wall_ms"))
        cpu_ms = median(added(rounds, "confined", over, "cpu_ms"))
        print(f"\nconfined {name}: {wall_ms:+.1f} ms wall, {cpu_ms:+.1f} ms CPU")
        problems += [f"{name}: {ms:.1f} ms" for ms in (wall_ms, cpu_ms) if ms > MAX_MS]
    if problems:
        sys.exit("\n".join(["", f"above {MAX_MS:g} ms", *problems]))


if __name__ == "__main__":
    main()
