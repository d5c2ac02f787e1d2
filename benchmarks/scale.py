"""A session of 1,000 slots, and one of 100,000 experiments.

    python benchmarks/scale.py                                # both; 5 minutes
    python benchmarks/scale.py --slots 100 --experiments 0    # one of them, smaller

The slots are simulated: a run sleeps in its slot's thread and then leaves the log and the result
that the change's constant gives. Everything else is the real loop: turns, git, ledger, judge,
`results.tsv`. Most ideas of the agent are bad, so that almost every experiment is one run. It is
measured from the moment when every slot has had its first experiment.

    verdicts per second     of wall time, and as many as the CPU time alone would allow on one core

The long session is made up in a real ledger (`briefing.py`). Measured, CPU ms, medians:

    status      what `autoresearch status` reads and prints, without the start of Python
    briefing    an agent's page, after one more experiment
    append      an experiment with one run: begun, run, finished, in four transactions

Exits with 1 below 100 verdicts per second, or above 100 ms.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from unittest.mock import patch

import briefing

from autoresearch.cli.look import read_summary
from autoresearch.commands.start import open_session
from autoresearch.core.loop import Loop
from autoresearch.files import replace_file
from autoresearch.protocols import Proposal, RunResult, RunSpec, TreeSource, Turn
from autoresearch.report.text import status_text
from autoresearch.store.ledger import Ledger
from autoresearch.task.reading import load, override

MIN_PER_S, MAX_MS = 100.0, 100.0
TIMES = 9  # of each measurement
RUN_S = (8.0, 12.0)
TASK = """\
objective = "lower the loss"
editable = ["train.py"]
[run]
command = "python train.py"
[metric]
name = "loss"
goal = "minimize"
[judge]
combine = false
"""


class Sleeping:
    """A runner without processes."""

    name = "sleeping"

    def __init__(self, slots: int) -> None:
        self.slots = slots

    def run(self, spec: RunSpec, source: TreeSource) -> RunResult:
        began = time.monotonic()
        text = source.read(source.manifest().files["train.py"].blob).decode()
        match = re.search(r"X = (\S+)", text)
        assert match
        value = float(match[1]) + random.Random(spec.env["AUTORESEARCH_SEED"]).gauss(0, 0.01)
        time.sleep(random.uniform(*RUN_S))
        spec.tree.mkdir(parents=True)
        spec.log.write_text(f"loss: {value}\n")
        result = RunResult(0, None, time.monotonic() - began, 0.0, None, 0)
        replace_file(spec.outcome, b"", is_durable=False)
        return result

    def interrupt(self) -> None: ...
    def close(self) -> None: ...


class Ideas:
    """One good idea in five hundred, and two looks at the clocks."""

    name, wants_briefing = "ideas", False

    def __init__(self, begin: int, end: int) -> None:
        self.marks: list[tuple[float, float]] = []
        self._ends = (begin, end)
        self._turns = 0

    def propose(self, turn: Turn) -> Proposal:
        if self._turns in self._ends:
            self.marks.append((time.monotonic(), time.process_time()))
        self._turns += 1
        path = turn.worktree / "train.py"
        better = 0.1 if self._turns % 500 == 0 else -1.0
        text = path.read_text()
        now = float(re.findall(r"X = (\S+)", text)[0]) - better
        path.write_text(f"X = {now!r}\n# {self._turns}\n")
        return Proposal(f"X = {now:.3g}")


def measure_slots(folder: Path, slots: int) -> tuple[float, float]:
    """(verdicts per second, CPU ms per verdict)."""
    folder.mkdir()
    (folder / "train.py").write_text("X = 10.0\n")
    (folder / "autoresearch.toml").write_text(TASK)
    who = ["-c", "user.name=user", "-c", "user.email=user@localhost"]
    for words in (["init", "-q"], ["add", "--all"], [*who, "commit", "-qm", "start"]):
        subprocess.run(["git", *words], cwd=folder, check=True)
    count = 3 * slots
    settings = {"runner.slots": slots, "limits.experiments": count, "judge.baseline_runs": 3}
    agent = Ideas(slots, count - 1)
    task = override(load(folder), **settings)
    simulated = patch("autoresearch.runners.load", lambda settings: Sleeping(settings.slots))
    with simulated, open_session(task, "s", lambda event: None) as session:
        [member] = session.scheduler.members
        member.agent = agent
        Loop(session).run()
    (began, used_s), (ended, used_then_s) = agent.marks
    verdicts = count - 1 - slots
    return verdicts / (ended - began), (used_then_s - used_s) / verdicts * 1000


def measure_ledger(folder: Path, experiments: int) -> dict[str, float]:
    """CPU ms of each."""
    night, ledger, writer = briefing.make(folder, experiments)
    briefer = briefing.make_briefer(night, ledger, writer.record)
    briefer.text(briefing.LEFT)

    def show_status() -> None:
        reader = Ledger(night.paths.ledger, readonly=True)
        status_text(read_summary(reader, night.paths), running=True)
        reader.close()

    times: dict[str, list[float]] = {"status": [], "briefing": [], "append": []}
    for _ in range(TIMES):
        times["append"].append(take_ms(lambda: writer.experiment()))
        times["briefing"].append(take_ms(lambda: briefer.text(briefing.LEFT)))
        times["status"].append(take_ms(show_status))
    ledger.close()
    return {name: median(values) for name, values in times.items()}


def take_ms(action: Callable[[], object]) -> float:
    began = time.process_time()
    action()
    return (time.process_time() - began) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--slots", type=int, default=1000, help="1000; 0: leave it out")
    parser.add_argument("--experiments", type=int, default=100_000, help="100000; 0: leave it out")
    options = parser.parse_args()
    print(f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores\n")
    missed = []
    with tempfile.TemporaryDirectory(prefix="scale-") as place:
        if options.slots:
            per_s, cpu_ms = measure_slots(Path(place, "slots"), options.slots)
            print(
                f"{options.slots:,} slots: {per_s:.0f} verdicts per second; {cpu_ms:.1f} ms of CPU "
                f"for each, which allows {1000 / cpu_ms:.0f} per second on one core"
            )
            missed += ["verdicts per second"] if per_s < MIN_PER_S else []
        if options.experiments:
            for name, ms in measure_ledger(Path(place, "long"), options.experiments).items():
                print(f"{name} after {options.experiments:,} experiments: {ms:.1f} ms of CPU")
                missed += [name] if ms > MAX_MS else []
    if missed:
        sys.exit(f"\nmissed: {', '.join(missed)}")


if __name__ == "__main__":
    main()
