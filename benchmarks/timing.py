"""How to time a program on a machine with neighbours: false keeps and power of several rules.

    python benchmarks/timing.py                 # the tables: four minutes on one core
    python benchmarks/timing.py --record 8      # first record this machine for 8 minutes, while a
                                                # neighbour comes and goes

A rule says how the number of one run is made of a program's repetitions: their mean, lower
quartile or minimum, in seconds or as the ratio to the unchanged program, which is then repeated in
turns with it. The judge itself (`autoresearch.core.judge`) decides sessions of half an hour of
machine time, so that rules compare at equal cost. A repetition takes 0.3 s (0.1 s on the record)
and 0.05 s around it, an agent's turn 2 s.

**Machines.** quiet: 0.4 % of noise. cold: the first repetition of a run takes 30 % longer. bursts:
30 % of the repetitions take twice as long. drift: up to 20 % slower and back within 20 minutes.
tenant: another program comes and goes, a minute each on average, and makes all 30 % slower. all:
those three. record: the CPU times that `--record` measured, one after the other, from a random
place on.

**Columns.** exp.: experiments in half an hour. announced and false keeps: of sessions in which
nothing helps. power: of changes that need 3, 10 or 30 % less time (a fifth of all; the
others do nothing or harm), the share that is kept.

Exits with 1 if a rule keeps more than it announces, by three standard errors.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean, median
from typing import Protocol

from truth import Estimate, Scorebook

from autoresearch.core import judge
from autoresearch.core.judge import LEVELS, drifted, screen, separate
from autoresearch.protocols import RunSpec
from autoresearch.records import Metric
from autoresearch.runners.local import LocalRunner
from autoresearch.task.model import JudgeSettings

METRIC = Metric("time")
TRACE = Path(__file__).parent / "results" / "timing_trace.json"
WORK_S, GAP_S, TURN_S, SESSION_S = 0.3, 0.05, 2.0, 1800.0
REAL_SHARE, MOST_HARM = 0.2, 0.2  # of the changes in a session that measures power
EFFECTS = (0.03, 0.1, 0.3)  # of the time, that a real change saves


# --------------------------------------------------------------------------------------------
# Machines


class Machine(Protocol):
    """Its clock goes on while programs run."""

    now_s: float

    def repeat(self, work: float, is_first: bool) -> float:
        """Execute a program once that has so much work, 1 for the unchanged one. Return the
        seconds that it took."""
        ...


class SimulatedMachine:
    def __init__(self, kind: str, rng: random.Random) -> None:
        self.now_s = 0.0
        self._rng = rng
        self._has = {name: kind in (name, "all") for name in ("bursts", "drift", "tenant")}
        self._is_cold = kind == "cold"
        self._phase = rng.random()
        self._is_shared, self._changes_at_s = True, 0.0

    def repeat(self, work: float, is_first: bool) -> float:
        seconds = work * WORK_S * self._slow_down(is_first)
        self.now_s += seconds + GAP_S
        return seconds

    def _slow_down(self, is_first: bool) -> float:
        rng = self._rng
        factor = 1 + 0.004 * abs(rng.gauss(0, 1)) + 0.002 * rng.gauss(0, 1)
        if self._is_cold and is_first:
            factor *= 1.3
        if self._has["bursts"] and rng.random() < 0.3:
            factor *= 2
        if self._has["drift"]:
            factor *= 1.1 + 0.1 * math.sin(math.tau * (self.now_s / 1200 + self._phase))
        if self._has["tenant"] and self._is_shared_now():
            factor *= 1.3 + 0.05 * abs(rng.gauss(0, 1))
        return factor

    def _is_shared_now(self) -> bool:
        while self.now_s >= self._changes_at_s:
            self._is_shared = not self._is_shared
            self._changes_at_s += self._rng.expovariate(1 / 60)
        return self._is_shared


class RecordedMachine:
    """Takes the times of the unchanged program from a record of a real machine, in a circle."""

    def __init__(self, trace: Sequence[float], rng: random.Random) -> None:
        self.now_s = 0.0
        self._trace = trace
        self._at = rng.randrange(len(trace))

    def repeat(self, work: float, is_first: bool) -> float:
        self._at = (self._at + 1) % len(self._trace)
        seconds = work * self._trace[self._at]
        self.now_s += seconds + GAP_S
        return seconds


# --------------------------------------------------------------------------------------------
# Rules


def lower_quartile(values: Sequence[float]) -> float:
    """The second lowest of five, the third lowest of nine."""
    return sorted(values)[(len(values) - 1) // 4]


@dataclass(frozen=True, slots=True)
class Rule:
    name: str
    repeats: int
    combine: Callable[[Sequence[float]], float]
    relative: bool = False  # to the unchanged program, in turns with it

    def run(self, machine: Machine, work: float) -> float:
        own: list[float] = []
        reference: list[float] = []
        for index in range(self.repeats):
            pair = [(own, work), (reference, 1.0)] if self.relative else [(own, work)]
            for times, amount in pair if index % 2 == 0 else reversed(pair):
                times.append(machine.repeat(amount, not times))
        return self.combine(own) / (self.combine(reference) if reference else 1)


RULES = (
    Rule("one repetition", 1, min),
    Rule("mean of 5", 5, fmean),
    Rule("quartile of 5", 5, lower_quartile),
    Rule("minimum of 5", 5, min),
    Rule("minimum of 10", 10, min),
    Rule("mean of 5, relative", 5, fmean, relative=True),
    Rule("quartile of 5, relative", 5, lower_quartile, relative=True),
    Rule("minimum of 3, relative", 3, min, relative=True),
    Rule("minimum of 5, relative", 5, min, relative=True),
    Rule("minimum of 9, relative", 9, min, relative=True),
    Rule("minimum of 25, relative", 25, min, relative=True),
)


# --------------------------------------------------------------------------------------------
# Sessions


@dataclass(slots=True)
class Tally:
    experiments: int = 0
    confirmations: int = 0
    false_keeps: int = 0
    real: int = 0  # changes that help
    found: int = 0  # of those, kept


def play(machine: Machine, rule: Rule, effect: float, seed: int) -> Tally:
    """A session of the judge. With an `effect` some changes save that share of the time; a kept
    change is not built upon, so that all of them have the same effect."""
    rng, tally = random.Random(seed), Tally()
    draw = partial(rule.run, machine)
    book = Scorebook([draw(1.0) for _ in range(JudgeSettings().baseline_runs)])
    while machine.now_s < SESSION_S:
        tally.experiments += 1
        machine.now_s += TURN_S
        if tally.experiments % judge.TOPUP_EVERY == 0:
            top_up(book, draw)
        work = change(effect, rng)
        tally.real += work < 1

        def candidate(_: int, work: float = work) -> float:
            return draw(work)

        if not screen(book.reference, candidate).passed:
            continue
        tally.confirmations += 1
        k = LEVELS["default"].k
        if separate(METRIC, k, rng, candidate, lambda _: draw(1.0)).passed:
            tally.found += work < 1
            tally.false_keeps += work >= 1
    return tally


def change(effect: float, rng: random.Random) -> float:
    """The work of a changed program."""
    if effect == 0:
        return 1.0
    kind = rng.random()
    if kind < REAL_SHARE:
        return 1 - effect
    return 1.0 if kind < (1 + REAL_SHARE) / 2 else 1 + rng.uniform(0, MOST_HARM)


def top_up(book: Scorebook, draw: Callable[[float], float]) -> None:
    """Measure the incumbent once more, and begin a segment if the machine has drifted."""
    before, first = book.reference, draw(1.0)
    book.top_up(first)

    def again(_: int) -> float:
        book.top_up(second := draw(1.0))
        return second

    if drifted(before, first, again):
        book.begin_segment([draw(1.0) for _ in range(judge.FRESH_RUNS)])


def measure(
    make: Callable[[random.Random], Machine], rule: Rule, sessions: int
) -> tuple[str, bool]:
    """A row of the table, and whether the rule keeps what it announces."""

    def play_all(effect: float) -> list[Tally]:
        return [play(make(random.Random(-seed)), rule, effect, seed) for seed in range(sessions)]

    null, share = play_all(0.0), LEVELS["default"].false_keep
    announced = share * fmean(tally.confirmations for tally in null)
    false_keeps = Estimate.of([tally.false_keeps for tally in null])
    excess = Estimate.of([tally.false_keeps - share * tally.confirmations for tally in null])
    powers = []
    for effect in EFFECTS:
        tallies = play_all(effect)
        real = sum(tally.real for tally in tallies)
        powers.append(f"{100 * sum(tally.found for tally in tallies) / real:4.0f} %")
    experiments = fmean(tally.experiments for tally in null)
    holds = excess.mean <= 3 * excess.error
    row = f"{experiments:4.0f} {announced:9.2f} {false_keeps!s:>13} {' '.join(powers):>22}"
    return row + ("" if holds else "  BROKEN"), holds


# --------------------------------------------------------------------------------------------
# A real neighbour

PROGRAM = "x = 0\nfor i in range(1_000_000): x += i\n"  # a tenth of a second
NEIGHBOUR = """
import os, random, time
rng = random.Random(1)
block = bytes(32_000_000)
while True:
    end = time.monotonic() + rng.expovariate(1 / 15)
    while time.monotonic() < end: bytearray(block)
    time.sleep(rng.expovariate(1 / 15))
"""


@contextmanager
def neighbour() -> Iterator[None]:
    """A program on every core that copies memory, for 15 s on average, and pauses for as long."""
    command = [sys.executable, "-c", NEIGHBOUR]
    programs = [subprocess.Popen(command) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for program in programs:
            program.kill()
            program.wait()


def record(minutes: float) -> None:
    """Write the CPU times of a program that a warden measures, on a core of its own."""
    trace = []
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(LocalRunner(1, cores=1)) as runner,
        neighbour(),
    ):
        place = Path(folder)
        spec = RunSpec(
            argv=(sys.executable, "-S", "-E", "-c", PROGRAM),
            tree=place,
            log=place / "log",
            outcome=place / "outcome",
            env={},
            timeout_s=60,
        )
        end = time.monotonic() + 60 * minutes
        while time.monotonic() < end:
            trace.append(round(runner.run(spec).cpu_s or math.nan, 4))
    facts = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "load": round(os.getloadavg()[1], 1),
        "minutes": minutes,
        "cpu_s": trace,
    }
    TRACE.write_text(json.dumps(facts) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sessions", type=int, default=40, help="of each kind (%(default)s)")
    parser.add_argument("--record", type=float, metavar="MINUTES", help="record this machine")
    options = parser.parse_args()
    if options.record:
        record(options.record)
        return 0
    facts = json.loads(TRACE.read_text())
    trace = facts["cpu_s"]
    machines: dict[str, Callable[[random.Random], Machine]] = {
        kind: partial(SimulatedMachine, kind)
        for kind in ("quiet", "cold", "bursts", "drift", "tenant", "all")
    }
    machines["record"] = partial(RecordedMachine, trace)
    print(f"{'machine':8} {'rule':24} exp. announced   false keeps  power 3 %   10 %   30 %")
    broken = 0
    for kind, make in machines.items():
        for rule in RULES:
            row, holds = measure(make, rule, options.sessions)
            broken += not holds
            print(f"{kind:8} {rule.name:24} {row}", flush=True)
        print()
    print(f"{options.sessions} sessions of each kind; {time.process_time():.0f} CPU seconds")
    print(
        f"the record: {facts['machine']}, {len(trace)} repetitions in {facts['minutes']:g} minutes "
        f"of {min(trace):.3f} to {max(trace):.3f} s, median {median(trace):.3f} s; load "
        f"{facts['load']} with the neighbour and others"
    )
    print("every promise kept" if not broken else f"{broken} rules keep more than they announce")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
