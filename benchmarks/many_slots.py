"""What many slots cost: proposals that are made on an incumbent that has moved by their end.

    python benchmarks/many_slots.py                    # both parts; four minutes on one core
    python benchmarks/many_slots.py --sessions 20 --slots 1 16

**Simulated** sessions, decided by `autoresearch.core.judge` itself, in `truth.py`'s mixed world. A
run takes one unit of time, and no slot waits. Every session has the same number of runs, so more
slots end sooner and know less when they begin. What becomes of an experiment when another one is
kept while it is measured:

    screened  its screen goes on; if it passes, or had passed, the change is carried over to the new
              incumbent and judged again (what the loop does)
    direct    the same, but the change is confirmed at once, without a second screen
    at once   its run ends, and the change is carried over
    later     it is judged against the incumbent that it began with; if it is confirmed, it is
              carried over
    drop      as `later`, but a confirmed change is thrown away

With fading 0.5, half of the changes do nothing any more once they are carried over.

**Real** sessions: the loop, git, the ledger, the judge and the tuner, on the task `instant`, whose
runs are simulated: they sleep in their slot's thread. `true loss` is that of the last incumbent,
without noise; the best is 1, the first 2.2. `moved` are the experiments that were carried over.
"""

from __future__ import annotations

import argparse
import heapq
import os
import platform
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from unittest.mock import patch

from truth import BASELINE_RUNS, METRIC, MIXED, Estimate, Machine, Scorebook

from autoresearch.commands.start import open_session
from autoresearch.core import judge
from autoresearch.core.judge import LEVELS, screen, separate
from autoresearch.core.loop import Loop
from autoresearch.files import replace_file
from autoresearch.protocols import RunResult, RunSpec, TreeSource
from autoresearch.records import Status
from autoresearch.task.reading import load, override

SLOTS = (1, 4, 16, 64, 256)
POLICIES = ("screened", "direct", "at once", "later", "drop")
LEVEL = LEVELS["default"]
INSTANT = Path(__file__).parents[1] / "src" / "autoresearch" / "tasks" / "instant"


# --------------------------------------------------------------------------------------------
# Simulated


@dataclass(slots=True)
class Trial:
    """An experiment under way: what its change does, and how its attempt will end."""

    effect: float
    base: int  # how many changes were kept when its attempt began
    began: int
    screen_runs: int = 0
    promising: bool = False  # it passes the screen
    runs: int = 0
    passed: bool = False
    broken_off: bool = False  # begins again at its end


@dataclass(slots=True)
class Night:
    """One session with a number of slots under one policy."""

    slots: int
    policy: str
    fading: float
    max_runs: int
    rng: random.Random
    mean: float = 0.0
    kept: int = 0
    false: int = 0  # keeps that do not help
    experiments: int = 0
    runs: int = 0
    wasted: int = 0  # runs of attempts that were begun again or thrown away
    begun: int = 0
    ends: list[tuple[int, int, Trial]] = field(default_factory=list)
    machine: Machine = field(init=False)
    book: Scorebook = field(init=False)

    def play(self) -> Night:
        self.machine = Machine("gauss", self.max_runs, self.rng)
        self.book = Scorebook([self.machine.run(0.0) for _ in range(BASELINE_RUNS)])
        for _ in range(self.slots):
            self.begin(0, MIXED.change(self.rng))
        while self.ends:
            now, _, trial = heapq.heappop(self.ends)
            self.end(now, trial)
        return self

    def begin(self, now: int, effect: float, is_screened: bool = False) -> None:
        """Begin an attempt: its end follows from its own runs alone, so it is known at once."""
        trial = Trial(effect, self.kept, now)
        before = self.machine.runs
        mean = self.mean

        def candidate(_: int) -> float:
            return self.machine.run(mean + effect)

        def control(_: int) -> float:
            return self.machine.run(mean)

        trial.promising = is_screened or screen(self.book.reference, candidate).passed
        trial.screen_runs = self.machine.runs - before
        if trial.promising:
            trial.passed = separate(METRIC, LEVEL.k, self.rng, candidate, control).passed
        trial.runs = self.machine.runs - before
        self._push(now + trial.runs, trial)

    def end(self, now: int, trial: Trial) -> None:
        self.runs += trial.runs
        if trial.broken_off or (trial.passed and trial.base != self.kept):
            self.wasted += trial.runs
            if self.policy != "drop":
                self.carry_over(now, trial)
                return
        elif trial.passed:
            now = self.keep(now, trial)
        self.experiments += 1
        if self.runs < self.max_runs:
            self.begin(now, MIXED.change(self.rng))

    def carry_over(self, now: int, trial: Trial) -> None:
        effect = 0.0 if self.rng.random() < self.fading else trial.effect
        self.begin(now, effect, self.policy == "direct")

    def keep(self, now: int, trial: Trial) -> int:
        """Returns when the new incumbent is measured."""
        self.kept += 1
        self.false += trial.effect >= 0
        self.mean += trial.effect
        self.book.keep([self.machine.run(self.mean) for _ in range(judge.FRESH_RUNS)])
        self.runs += judge.FRESH_RUNS
        if self.policy in ("screened", "direct", "at once"):
            others, self.ends = self.ends, []
            for at, _, other in others:
                self._push(self._break_off(now, at, other), other)
        return now + judge.FRESH_RUNS

    def _break_off(self, now: int, at: int, other: Trial) -> int:
        """When another experiment ends, now that the incumbent has moved."""
        if self.policy == "at once":
            at = now
        elif other.promising:
            at = max(now, other.began + other.screen_runs)
        else:
            return at
        other.broken_off, other.runs = True, at - other.began
        return at

    def _push(self, at: int, trial: Trial) -> None:
        self.begun += 1
        heapq.heappush(self.ends, (at, self.begun, trial))


def simulate(sessions: int, slots: list[int], max_runs: int, fading: float) -> None:
    print(f"{max_runs:,} runs a session, {sessions} sessions a row; fading {fading:g}\n")
    row = "{:>5}  {:8} {:>13} {:>6} {:>5} {:>6} {:>7}"
    print(row.format("slots", "policy", "gain (sd)", "exper.", "kept", "false", "wasted"))
    for count in slots:
        for policy in POLICIES if count > 1 else POLICIES[:1]:
            nights = [
                Night(count, policy, fading, max_runs, random.Random(seed)).play()
                for seed in range(sessions)
            ]
            text = row.format(
                count,
                policy,
                str(Estimate.of([-night.mean for night in nights])),
                f"{fmean(night.experiments for night in nights):.0f}",
                f"{fmean(night.kept for night in nights):.1f}",
                f"{fmean(night.false for night in nights):.2f}",
                f"{sum(n.wasted for n in nights) / sum(n.runs for n in nights):.1%}",
            )
            print(text, flush=True)
    print()


# --------------------------------------------------------------------------------------------
# Real


class Sleeping:
    """A runner without processes: it reads the constants and sleeps."""

    name = "sleeping"

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.run_s = max(0.5, 0.06 * slots)  # longer than it takes to ask for all proposals

    def run(self, spec: RunSpec, source: TreeSource) -> RunResult:
        began = time.monotonic()
        text = source.read(source.manifest().files["train.py"].blob).decode()
        value = true_loss(text)
        if value is not None:
            value += random.Random(spec.env["AUTORESEARCH_SEED"]).gauss(0, 0.01)
        time.sleep(random.uniform(0.8, 1.2) * self.run_s)
        spec.tree.mkdir(parents=True)
        spec.log.write_text("diverged\n" if value is None else f"loss: {value}\n")
        code = 1 if value is None else 0
        result = RunResult(code, None, time.monotonic() - began, 0.0, None, 0)
        replace_file(spec.outcome, b"", is_durable=False)
        return result

    def interrupt(self) -> None: ...
    def close(self) -> None: ...


def true_loss(text: str) -> float | None:
    """The loss of a version of instant's train.py without noise; None if it diverges."""
    names: dict[str, object] = {}
    lines = [line for line in text.splitlines() if re.match(r"[A-Z]+ = ", line)]
    exec("\n".join(lines), names)  # constants that the tuner has set
    with patch.object(problem, "NOISE", 0.0):
        try:
            order = ("X", "Y", "RATE", "MOMENTUM", "DEPTH", "WIDTH", "CENTRED", "SCHEDULE")
            return float(problem.loss(*(names[name] for name in order)))
        except SystemExit:
            return None


def search(folder: Path, slots: int, count: int) -> None:
    """Play one real session and print its row."""
    shutil.copytree(INSTANT, folder, ignore=shutil.ignore_patterns("__pycache__"))
    who = ["-c", "user.name=user", "-c", "user.email=user@localhost"]
    for words in (["init", "-q"], ["add", "--all"], [*who, "commit", "-qm", "start"]):
        subprocess.run(["git", *words], cwd=folder, check=True)
    task = override(load(folder), **{"runner.slots": slots, "limits.experiments": count})
    simulated = patch("autoresearch.runners.load", lambda settings: Sleeping(settings.slots))
    began = time.monotonic()
    with simulated, open_session(task, "s", lambda event: None) as session:
        Loop(session).run()
        record, ledger = session.record, session.ledger
        done, runs = ledger.all_experiments(record), ledger.all_runs(record)
        attempts = {e.number: e.attempt for e in done}
        wasted = sum(run.attempt < attempts[run.experiment] for run in runs)
        best = ledger.incumbent(record).commit
        final = true_loss(session.repository.editable_files(best)["train.py"].decode())
    print(
        "{:>5} {:>7} {:>6} {:>6} {:>6} {:>9} {:>8} {:>10.3f} {:>8.0f}".format(
            slots,
            sum(e.number > 0 for e in done),
            len(runs),
            sum(e.status is Status.KEEP and e.number > 0 for e in done),
            sum(e.attempt > 0 for e in done),
            sum(e.reason == "conflict" for e in done),
            f"{wasted / len(runs):.1%}",
            final,
            time.monotonic() - began,
        ),
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--slots", type=int, nargs="+", default=list(SLOTS))
    parser.add_argument("--sessions", type=int, default=60, help="simulated, a row; 0: none")
    parser.add_argument("--runs", type=int, default=2560, help="of a simulated session")
    parser.add_argument("--experiments", type=int, default=200, help="of a real one; 0: none")
    options = parser.parse_args()
    print(f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores\n")
    if options.sessions:
        for fading in (0.0, 0.5):
            simulate(options.sessions, options.slots, options.runs, fading)
    if options.experiments:
        print("slots  exper.   runs   kept  moved conflicts   wasted  true loss  seconds")
        for slots in options.slots:
            with tempfile.TemporaryDirectory(prefix="slots-") as place:
                search(Path(place, "task"), slots, max(options.experiments, 2 * slots))


sys.path.insert(0, str(INSTANT))
import problem  # noqa: E402

if __name__ == "__main__":
    main()
