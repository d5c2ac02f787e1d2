"""What the judge's parameters buy: gain against false keeps, in simulated sessions.

    python benchmarks/frontier.py                       # ten minutes on one core
    python benchmarks/frontier.py --picture docs/frontier.png

Each row is a rule: k runs of each side in a separation, the thresholds of the screen, the level of
its t test, and how many near misses are tried together (0: none). Its columns are

- the gain, in sd of one run, that a session of 600 runs reaches in four worlds: `mixed` is the one
  of `truth.py`; in `small` 15 % of the changes help, by 0.2 to 1 sd; in `large` 1 % help, by 3 to
  10 sd; in `harm` 2 % help and 90 % harm, by up to 6 sd; and in `mixed` with heavy-tailed noise;
- the false keeps of the mixed session, and of 1,000 experiments in which nothing helps;
- the runs per experiment there, and the bias of the incumbent's score on a machine that drifts.

`before` is the rule that this project began with. `relative` is the mean over the worlds of the
gain divided by that of `before`. The last rows try an idea that was not taken: separation by
pairs that share a seed, for several correlations between the two runs of a pair. With `signs n` a
change is kept if it wins n pairs of n; one that does nothing does so in 1 of 2^n cases.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).parent))
import truth
from truth import MIXED, Machine, Plan, Tally, World, judged

from autoresearch.core import judge
from autoresearch.core.judge import Draw, Level, TestResult
from autoresearch.records import Metric

RUNS, EXPERIMENTS = 600, 1000
WORLDS = {
    "mixed": Plan("gauss", EXPERIMENTS, RUNS, MIXED),
    "small": Plan("gauss", EXPERIMENTS, RUNS, World(0.15, (0.2, 1.0), 0.45, 2)),
    "large": Plan("gauss", EXPERIMENTS, RUNS, World(0.01, (3, 10), 0.4, 6)),
    "harm": Plan("gauss", EXPERIMENTS, RUNS, World(0.02, (0.5, 3), 0.08, 6)),
    "heavy": Plan("heavy", EXPERIMENTS, RUNS, MIXED),
}
SCREENS = ((0.8, 0.5, 0.5), (1.2, 0.8, 0.7), (1.5, 1.0, 0.8), (1.8, 1.2, 1.0), (1.5,))
LEVELS = (0.2 / 3, 0.03, 0.02, 0.01)


@dataclass(frozen=True, slots=True)
class Rule:
    name: str
    k: int
    drop_below: tuple[float, ...] = judge.DROP_BELOW
    pass_level: float = judge.PASS_LEVEL
    combined: int = truth.COMBINED
    fresh_runs: int = judge.FRESH_RUNS
    topup_every: int = judge.TOPUP_EVERY
    separate: Callable[..., TestResult] = judge.separate

    @contextmanager
    def in_force(self) -> Iterator[None]:
        """The judge's own code, with these constants."""
        constants = {
            "DROP_BELOW": self.drop_below,
            "PASS_LEVEL": self.pass_level,
            "FRESH_RUNS": self.fresh_runs,
            "TOPUP_EVERY": self.topup_every,
        }
        with patch.multiple(judge, **constants), patch.object(truth, "separate", self.separate):
            yield

    def play(self, plan: Plan, sessions: int) -> list[Tally]:
        level = Level(self.name, self.k)
        with self.in_force():
            return [judged(plan, level, seed, combined=self.combined) for seed in range(sessions)]


BEFORE = Rule("before", 3, (0.8, 0.5, 0.5), 0.2 / 3, 0, 4, 10)


@dataclass(frozen=True, slots=True)
class Row:
    rule: Rule
    gains: dict[str, float]
    errors: dict[str, float]
    false_keeps: float
    null_false_keeps: float
    runs_per_experiment: float
    bias: float

    @classmethod
    def of(cls, rule: Rule, sessions: int) -> Row:
        played = {name: rule.play(plan, sessions) for name, plan in WORLDS.items()}
        null = rule.play(Plan("gauss", EXPERIMENTS), sessions)
        ramp = rule.play(Plan("ramp", EXPERIMENTS), sessions)
        gains = {name: [tally.gain for tally in tallies] for name, tallies in played.items()}
        return cls(
            rule,
            {name: fmean(values) for name, values in gains.items()},
            {name: stdev(values) / math.sqrt(sessions) for name, values in gains.items()},
            fmean(tally.false_keeps for tally in played["mixed"]),
            fmean(tally.false_keeps for tally in null),
            fmean(tally.runs / tally.experiments for tally in null),
            fmean(tally.bias for tally in ramp),
        )

    def relative(self, before: Row) -> float:
        return fmean(self.gains[name] / before.gains[name] for name in WORLDS)


# ---- pairs that share a seed ---------------------------------------------------------------------


class PairedMachine(Machine):
    """A machine on which a share of a run's noise comes from its seed."""

    correlation = 0.0
    seed_noise: float | None = None  # of the pair under way

    def run(self, mean: float) -> float:
        value = super().run(mean)
        if self.seed_noise is None:
            return value
        own = value - mean - self.drift
        shared, rest = math.sqrt(self.correlation), math.sqrt(1 - self.correlation)
        return mean + self.drift + shared * self.seed_noise + rest * own


def separate_by_signs(
    metric: Metric, k: int, rng: random.Random, candidate: Draw, control: Draw
) -> TestResult:
    """k pairs, each on a seed of its own; stops at the first that the change does not win."""
    values, controls = [], []
    for index in range(k):
        PairedMachine.seed_noise = rng.gauss(0, 1)
        values.append(candidate(index))
        controls.append(control(index))
        PairedMachine.seed_noise = None
        if not metric.better(values[-1], controls[-1]):
            return TestResult(False, tuple(values), tuple(controls))
    return TestResult(True, tuple(values), tuple(controls))


# ---- the table and the picture -------------------------------------------------------------------


def list_rules() -> list[Rule]:
    rules = [BEFORE, replace(BEFORE, name="before, combined", combined=truth.COMBINED)]
    for k in (2, 3, 4):
        for screen in SCREENS:
            rules += [Rule("", k, screen, level) for level in LEVELS]
    rules += [Rule("", 3, combined=combined) for combined in (0, 2, 3, 6, 8)]
    rules += [Rule(f"{fresh} fresh runs", 3, fresh_runs=fresh) for fresh in (2, 4)]
    rules += [Rule(f"top-ups every {every}", 3, topup_every=every) for every in (15, 20)]
    return rules


def list_paired_rules() -> list[Rule]:
    return [Rule(f"signs {k}", k, separate=separate_by_signs) for k in (4, 5)]


GAINS = " ".join(["{:>10}"] * len(WORLDS))
COLUMNS = "{:18} {:>2} {:13} {:>5} {:>8} " + GAINS + " {:>5} {:>5} {:>4} {:>5} {:>8}"


def heading() -> str:
    names = ("rule", "k", "screen", "level", "combined", *WORLDS, "false", "null", "runs", "bias")
    return COLUMNS.format(*names, "relative")


def line(row: Row, before: Row) -> str:
    rule = row.rule
    screen = " ".join(f"{sds:g}" for sds in rule.drop_below)
    gains = [f"{row.gains[name]:.1f} ± {row.errors[name]:.1f}" for name in WORLDS]
    numbers = (f"{row.false_keeps:.2f}", f"{row.null_false_keeps:.2f}")
    rest = (f"{row.runs_per_experiment:.2f}", f"{row.bias:+.2f}", f"{row.relative(before):.2f}")
    level = f"{rule.pass_level:.3f}"
    return COLUMNS.format(
        rule.name, rule.k, screen, level, rule.combined, *gains, *numbers, *rest
    ).rstrip()


def draw(rows: list[Row], before: Row, path: Path) -> None:
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    for k, colour in ((2, "tab:orange"), (3, "tab:blue"), (4, "tab:green")):
        family = [row for row in rows if row.rule.k == k and not row.rule.name]
        points = [(row.null_false_keeps, row.relative(before)) for row in family]
        axes.scatter(*zip(*points, strict=True), s=14, color=colour, alpha=0.5, label=f"k = {k}")
    chosen = {level.k: name for name, level in judge.LEVELS.items()}
    default = Rule("", 3)
    for row in rows:
        is_chosen = row.rule == replace(default, k=row.rule.k)
        name = chosen.get(row.rule.k, "") if is_chosen else row.rule.name
        if is_chosen or row.rule.name.startswith("before"):
            place = (row.null_false_keeps, row.relative(before))
            axes.scatter(*place, s=60, facecolors="none", edgecolors="black")
            axes.annotate(name, place, xytext=(8, -4), textcoords="offset points")
    axes.set_xscale("log")
    axes.set_xlabel("false keeps in 1,000 experiments in which nothing helps")
    axes.set_ylabel("gain of 600 runs, relative to the rule before")
    axes.grid(alpha=0.2)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sessions", type=int, default=100, help="per cell (%(default)s)")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw the frontier")
    options = parser.parse_args()
    if options.sessions < 2:
        parser.error("accepted: at least 2 sessions")
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; ",
        end="",
    )
    print(f"{options.sessions} sessions a cell, mean ± standard error\n\n{heading()}")
    rows: list[Row] = []
    for rule in list_rules():
        rows.append(Row.of(rule, options.sessions))
        print(line(rows[-1], rows[0]), flush=True)
    with patch.object(truth, "Machine", PairedMachine):
        for correlation in (0.0, 0.45, 0.7):
            PairedMachine.correlation = correlation
            print(f"\nruns that share a seed correlate by {correlation}")
            for rule in list_paired_rules():
                print(line(Row.of(rule, options.sessions), rows[0]), flush=True)
    if options.picture:
        draw(rows, rows[0], options.picture)


if __name__ == "__main__":
    main()
