"""How often does a program reach a score? For seeded searches, whose runs succeed or fail: the mean
of their metric says little.

The runs are those that verify the result: on fresh seeds, of the best and of the baseline by turns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import exp, lgamma, log, log1p

from autoresearch.formatting import counted, one_line, plain
from autoresearch.records import Metric, Role, Run
from autoresearch.store.ledger import Ledger
from autoresearch.store.rows import SessionRecord

CONFIDENCE = 0.95
STEPS = 60  # of a bisection: to 1e-18


@dataclass(frozen=True, slots=True)
class Reached:
    """How many runs of one program reached a score. The bounds are of the 95 % interval of the
    share of all seeds."""

    number: int  # of the experiment; 0 is the baseline
    hits: int
    runs: int
    crashed: int  # of the runs; they reach nothing
    low: float
    high: float


def read_reached(ledger: Ledger, record: SessionRecord, score: float) -> list[Reached]:
    """For the best and the baseline, or the baseline alone if nothing was kept: the runs of the
    latest segment that verified them."""
    best = ledger.incumbent(record)
    runs = [
        run
        for run in ledger.runs(record, best.number)
        if run.role in (Role.VERIFY, Role.VERIFY_BASELINE)
        and run.finished
        and run.attempt == best.attempt
    ]
    latest = max((run.segment for run in runs), default=0)
    sides = {Role.VERIFY: best.number, Role.VERIFY_BASELINE: 0}
    return [
        _count(record.metric, number, own, score)
        for role, number in sides.items()
        if (own := [run for run in runs if run.role is role and run.segment == latest])
    ]


def _count(metric: Metric, number: int, runs: Sequence[Run], score: float) -> Reached:
    known = [run.metric for run in runs if run.metric is not None]
    hits = sum(metric.gain(value, score) >= 0 for value in known)
    crashed = len(runs) - len(known)
    return Reached(number, hits, len(runs), crashed, *binomial_interval(hits, len(runs)))


def binomial_interval(hits: int, runs: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The exact interval of a share: it covers the true one at least as often as `confidence` says
    (Clopper and Pearson, Biometrika 26, 1934)."""
    tail = (1 - confidence) / 2

    def is_likely_at_most(share: float) -> bool:
        return _at_most(hits, runs, share) > tail

    def is_unlikely_at_least(share: float) -> bool:
        return 1 - _at_most(hits - 1, runs, share) < tail

    low = 0.0 if hits == 0 else _bisect(is_unlikely_at_least)
    high = 1.0 if hits == runs else _bisect(is_likely_at_most)
    return low, high


def _at_most(hits: int, runs: int, share: float) -> float:
    """The probability of at most so many hits."""
    logs = (
        lgamma(runs + 1)
        - lgamma(k + 1)
        - lgamma(runs - k + 1)  # of the binomial coefficient
        + k * log(share)
        + (runs - k) * log1p(-share)
        for k in range(hits + 1)
    )
    return sum(map(exp, logs))


def _bisect(holds: Callable[[float], bool]) -> float:
    """The share up to which a condition holds."""
    low, high = 0.0, 1.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def reached_text(reached: Sequence[Reached], record: SessionRecord, score: float) -> str:
    """A line for each program."""
    better = "at least" if record.metric.better(1.0, 0.0) else "at most"
    lines = [f"{one_line(record.metric.name)} {better} {plain(score)}, on fresh seeds:"]
    for side in reached:
        name = f"experiment {side.number}" if side.number else "the baseline"
        line = f"  {name}: {side.hits} of {counted(side.runs, 'run')}"
        if not record.deterministic:
            line += f" (95 % interval {100 * side.low:.0f} % to {100 * side.high:.0f} %)"
        lines.append(line + (f", {side.crashed} crashed" if side.crashed else ""))
    return "\n".join(lines)
