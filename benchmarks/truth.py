"""Is what the judge says true? Simulated sessions, decided by `autoresearch.core.judge` itself.

    python benchmarks/truth.py                  # two minutes on one core
    python benchmarks/truth.py --sessions 50 --json truth.json

**Null sessions**: nothing helps, score = 1 sd of noise. Of every keep one knows that it is false,
and of every score how much too good it looks. The noise is Gaussian, heavy-tailed (Student's t with
3 degrees of freedom, the same sd), or Gaussian on a machine that drifts by 2 sd over the session:
a ramp towards worse scores (which flatters the incumbent) or a random walk; or that is 3 sd worse
at once, in the middle of it. Where the incumbent's top-ups say that the machine drifted, a new
segment begins, as in a session: `seg.` is how often.

**Mixed sessions**: 4 % of the changes are real, 0.5-4 sd; 45 % do nothing; the others harm, by 0-4
sd. They end after a number of runs, so that rules compare at equal cost.

`greedy` is the original's rule, in the same simulation: one run, kept if it is the best so far.

Exits with 1 if a level keeps more than it announces (by two standard errors) or if
the score of an incumbent at the end of a null session is 0.15 sd or more from the truth, or if on a
machine that stands still more than 0.3 segments a session begin for nothing.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev

from autoresearch.agents.support.near_misses import COMBINED, LEAST_SD
from autoresearch.core import judge
from autoresearch.core.judge import LEVELS, Level, Reference, drifted, screen, separate
from autoresearch.records import Metric
from autoresearch.statistics import pooled_noise
from autoresearch.task.model import JudgeSettings

METRIC = Metric("loss")
BASELINE_RUNS = JudgeSettings().baseline_runs
DRIFT_SD = 2.0  # over a session
MAX_BIAS_SD = 0.15
MAX_FALSE_SEGMENTS = 0.3
STILL = ("gauss", "heavy")
STEP_SD = 3.0  # worse, at once, in the middle of a session
NOISES = ("gauss", "heavy", "ramp", "walk", "step")


class Machine:
    """Makes runs: a true mean, plus noise of sd 1, plus the drift so far."""

    def __init__(self, noise: str, experiments: int, rng: random.Random) -> None:
        self.noise = noise
        self.experiments = experiments
        self.rng = rng
        self.drift = 0.0
        self.ticks = 0
        self.runs = 0

    def run(self, mean: float) -> float:
        self.runs += 1
        value = self.rng.gauss(0, 1)
        if self.noise == "heavy":  # t with 3 df has sd sqrt(3): t / sqrt(3) = z / sqrt(chi squared)
            value /= math.sqrt(self.rng.gammavariate(1.5, 2))
        return mean + self.drift + value

    def tick(self) -> None:
        """One experiment later."""
        if self.noise == "ramp":
            self.drift += DRIFT_SD / self.experiments
        elif self.noise == "walk":
            self.drift += self.rng.gauss(0, DRIFT_SD / math.sqrt(self.experiments))
        elif self.noise == "step":
            self.ticks += 1
            self.drift = STEP_SD if self.ticks > self.experiments // 2 else 0.0


class Scorebook:
    """What is known of the commits kept so far: their *scheduled* runs, and nothing else.

    A scheduled run is one that was due whatever the scores were: the baseline's, the three fresh
    runs after a keep, the one every ten experiments. A confirmation's runs are not: they happen
    more often while the incumbent looks bad and stop when it gets lucky: with them its score ends
    0.1 sd too good where nothing helps (`--count-controls` shows it).
    """

    def __init__(self, baseline: Sequence[float]) -> None:
        self._kept = [list(baseline)]
        self.reference = self._refer()

    def keep(self, fresh: Sequence[float]) -> None:
        self._kept.append(list(fresh))
        self.reference = self._refer()

    def begin_segment(self, fresh: Sequence[float]) -> None:
        """Of what was measured before, nothing counts any more."""
        self._kept = [list(fresh)]
        self.reference = self._refer()

    def top_up(self, score: float) -> None:
        self._kept[-1].append(score)
        self.reference = self._refer()

    def _refer(self) -> Reference:
        """The latest few runs of the incumbent; the noise within those of each kept commit. Only
        the latest, for both: what a drifting machine gave long ago says nothing about now."""
        latest = [scores[-judge.SCORE_RUNS :] for scores in self._kept]
        sd, df = pooled_noise(latest)
        return Reference(METRIC, tuple(latest[-1]), sd, df)


@dataclass(frozen=True, slots=True)
class Tally:
    """One session. Gains and biases in sd of one run; a negative bias looks too good."""

    experiments: int
    runs: int
    confirmations: int
    keeps: int
    false_keeps: int
    gain: float
    bias: float
    segments: int = 0  # begun because of a drift


@dataclass(frozen=True, slots=True)
class World:
    """What an agent's changes do, in sd of one run: a share of them helps, a share does nothing,
    and the others harm, by amounts that are equally likely between the bounds."""

    real: float
    gains: tuple[float, float]
    idle: float
    most_harm: float

    def change(self, rng: random.Random) -> float:
        kind = rng.random()
        if kind < self.real:
            return -rng.uniform(*self.gains)
        return 0.0 if kind < self.real + self.idle else rng.uniform(0, self.most_harm)


NULL = World(0, (0, 0), 1, 0)
MIXED = World(0.04, (0.5, 4), 0.45, 4)


@dataclass(frozen=True, slots=True)
class Plan:
    """How long a session is, and what its changes do to the true mean (minimised)."""

    noise: str
    experiments: int
    max_runs: int | None = None
    world: World = NULL

    def over(self, experiments: int, runs: int) -> bool:
        return experiments >= self.experiments if self.max_runs is None else runs >= self.max_runs


def judged(
    plan: Plan, level: Level, seed: int, count_controls: bool = False, combined: int = COMBINED
) -> Tally:
    """A session of the loop, without its processes, files and commits. With `combined` near misses
    the next experiment is all of them together; 0: they are forgotten."""
    rng = random.Random(seed)
    machine = Machine(plan.noise, plan.experiments, rng)
    mean = 0.0
    book = Scorebook([machine.run(mean) for _ in range(BASELINE_RUNS)])
    experiments = confirmations = keeps = false_keeps = segments = 0
    near_misses: list[float] = []

    while not plan.over(experiments, machine.runs):
        experiments += 1
        machine.tick()
        if experiments % judge.TOPUP_EVERY == 0:
            segments += watched(machine, book, mean)

        is_combination = 0 < combined <= len(near_misses)
        change = sum(near_misses) if is_combination else plan.world.change(rng)
        if is_combination:
            near_misses.clear()

        def candidate(_: int, value: float = mean + change) -> float:
            return machine.run(value)

        def control(_: int, value: float = mean) -> float:
            return machine.run(value)

        screened = screen(book.reference, candidate)
        if not screened.passed:
            if not is_combination and book.reference.gain_in_sd(screened.values) >= LEAST_SD:
                near_misses.append(change)
            continue
        confirmations += 1
        outcome = separate(METRIC, level.k, rng, candidate, control)
        if count_controls:
            for score in outcome.controls:
                book.top_up(score)
        if outcome.passed:
            keeps += 1
            false_keeps += change >= 0
            mean += change
            book.keep([machine.run(mean) for _ in range(judge.FRESH_RUNS)])
        elif not is_combination:
            near_misses.append(change)

    bias = book.reference.score - (mean + machine.drift)
    return Tally(
        experiments, machine.runs, confirmations, keeps, false_keeps, -mean, bias, segments
    )


def watched(machine: Machine, book: Scorebook, mean: float) -> bool:
    """A scheduled run of the incumbent; and whether it says that the machine drifted, upon which a
    new segment begins with fresh runs of the incumbent."""
    before, first = book.reference, machine.run(mean)
    book.top_up(first)

    def again(_: int) -> float:
        second = machine.run(mean)
        book.top_up(second)
        return second

    alarm = drifted(before, first, again)
    if alarm:
        book.begin_segment([machine.run(mean) for _ in range(judge.FRESH_RUNS)])
    return alarm


def greedy(plan: Plan, seed: int) -> Tally:
    """The original's rule: one run of everything, keep what is the best so far."""
    rng = random.Random(seed)
    machine = Machine(plan.noise, plan.experiments, rng)
    mean = 0.0
    best = machine.run(mean)
    experiments = keeps = false_keeps = 0
    while not plan.over(experiments, machine.runs):
        experiments += 1
        machine.tick()
        change = plan.world.change(rng)
        score = machine.run(mean + change)
        if METRIC.better(score, best):
            keeps += 1
            false_keeps += change >= 0
            best, mean = score, mean + change
    bias = best - (mean + machine.drift)
    return Tally(experiments, machine.runs, 0, keeps, false_keeps, -mean, bias)


# --------------------------------------------------------------------------------------------
# Many sessions, one table


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over sessions and its standard error."""

    mean: float
    error: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Estimate:
        return cls(fmean(values), stdev(values) / math.sqrt(len(values)))

    def __str__(self) -> str:
        return f"{self.mean:.2f} ± {self.error:.2f}"


@dataclass(frozen=True, slots=True)
class Row:
    changes: str  # "null" or "mixed"
    noise: str
    rule: str
    confirmations: float
    announced: float | None  # false keeps, confirmations / C(2k, k); None: the rule announces none
    false_keeps: Estimate
    excess: Estimate | None  # false keeps minus announced, session by session
    keeps: float
    runs_per_experiment: float
    gain: Estimate
    bias: Estimate
    segments: Estimate

    @property
    def broken(self) -> str:
        """Which promise the row breaks, if any."""
        if self.changes != "null" or self.announced is None:
            return ""
        faults = []
        if self.excess and self.excess.mean > 2 * self.excess.error:
            faults.append("false keeps")
        if abs(self.bias.mean) >= MAX_BIAS_SD:
            faults.append("bias")
        limit = MAX_FALSE_SEGMENTS + 2 * self.segments.error
        if self.noise in STILL and self.segments.mean > limit:
            faults.append("segments")
        return ", ".join(faults)


def measure(plan: Plan, rule: str, sessions: int, seed: int, count_controls: bool = False) -> Row:
    level = LEVELS.get(rule)
    play: Callable[[int], Tally] = (
        (lambda s: judged(plan, level, s, count_controls)) if level else (lambda s: greedy(plan, s))
    )
    tallies = [play(seed + number) for number in range(sessions)]
    share = level.false_keep if level else 0.0
    announced = share * fmean(t.confirmations for t in tallies)
    return Row(
        changes="null" if plan.world == NULL else "mixed",
        noise=plan.noise,
        rule=rule,
        confirmations=fmean(t.confirmations for t in tallies),
        announced=announced if level else None,
        false_keeps=Estimate.of([t.false_keeps for t in tallies]),
        excess=Estimate.of([t.false_keeps - share * t.confirmations for t in tallies])
        if level
        else None,
        keeps=fmean(t.keeps for t in tallies),
        runs_per_experiment=fmean(t.runs / t.experiments for t in tallies),
        gain=Estimate.of([t.gain for t in tallies]),
        bias=Estimate.of([t.bias for t in tallies]),
        segments=Estimate.of([t.segments for t in tallies]),
    )


COLUMNS = "{:6} {:6} {:8} {:>6} {:>9} {:>13} {:>9} {:>13} {:>14} {:>5}  {}"


def heading() -> str:
    names = ("", "noise", "rule", "conf.", "announced", "false keeps", "runs/exp.", "gain (sd)")
    return COLUMNS.format(*names, "bias (sd)", "seg.", "").rstrip()


def line(row: Row) -> str:
    return COLUMNS.format(
        row.changes,
        row.noise,
        row.rule,
        f"{row.confirmations:.1f}" if row.announced is not None else "-",
        f"{row.announced:.2f}" if row.announced is not None else "-",
        str(row.false_keeps),
        f"{row.runs_per_experiment:.2f}",
        str(row.gain) if row.changes == "mixed" else "-",
        f"{row.bias.mean:+.2f} ± {row.bias.error:.2f}",
        f"{row.segments.mean:.2f}" if row.announced is not None else "-",
        f"BROKEN: {row.broken}" if row.broken else "",
    ).rstrip()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sessions", type=int, default=400, help="per row (%(default)s)")
    parser.add_argument("--experiments", type=int, default=1000, help="of a null session")
    parser.add_argument("--runs", type=int, default=600, help="of a mixed session")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--count-controls",
        action="store_true",
        help="let the incumbent's runs in confirmations join its score, to see why they must not",
    )
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    options = parser.parse_args()
    if options.sessions < 2 or options.experiments < 1 or options.runs < 1:
        parser.error("accepted: at least 2 sessions, 1 experiment, 1 run")

    plans = [Plan(noise, options.experiments) for noise in NOISES]
    plans += [
        Plan(noise, options.experiments, max_runs=options.runs, world=MIXED)
        for noise in ("gauss", "heavy")
    ]
    rows = []
    print(heading())
    for plan in plans:
        for rule in (*LEVELS, "greedy"):
            rows.append(measure(plan, rule, options.sessions, options.seed, options.count_controls))
            print(line(rows[-1]), flush=True)

    broken = [row for row in rows if row.broken]
    cpu_s = time.process_time()
    print(f"\n{options.sessions} sessions a row, mean ± standard error; {cpu_s:.0f} CPU seconds")
    print("every promise kept" if not broken else f"{len(broken)} rows break a promise")
    if options.json:
        facts = {
            "sessions": options.sessions,
            "experiments": options.experiments,
            "runs_of_a_mixed_session": options.runs,
            "seed": options.seed,
            "count_controls": options.count_controls,
            "cpu_s": round(cpu_s, 1),
            "python": platform.python_version(),
            "machine": platform.platform(),
            "rows": [asdict(row) | {"broken": row.broken} for row in rows],
        }
        options.json.write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
