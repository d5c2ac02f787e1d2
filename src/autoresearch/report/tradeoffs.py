"""The metric beside a second number that the user named: which experiments no other beats in both.

Only the metric decides what is kept. This is for people: a change that was discarded may be what
they want, as it costs little of the metric and gains much of the other number.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

from autoresearch.core.history import SegmentAlignment
from autoresearch.records import Metric, Status
from autoresearch.store.ledger import Ledger
from autoresearch.store.rows import SessionRecord

GUARD_FAILED = "guard failed"  # begins the reason of a discard


@dataclass(frozen=True, slots=True)
class Point:
    """An experiment by both numbers, each a mean over its runs."""

    number: int
    commit: str
    description: str
    status: str
    metric: float  # as it would have been at the session's beginning
    second: float
    runs: int


@dataclass(frozen=True, slots=True)
class Tradeoff:
    metric: Metric
    second: Metric
    points: Sequence[Point]  # that no other beats in both, the best by the metric first
    measured: int  # experiments that have both numbers and kept to the guards


def find_tradeoff(ledger: Ledger, record: SessionRecord, second: Metric) -> Tradeoff:
    """Compare all experiments that kept to the guards and did not crash, the baseline included."""
    points = list(_list_points(ledger, record, second))
    return Tradeoff(record.metric, second, find_front(points, record.metric, second), len(points))


def _list_points(ledger: Ledger, record: SessionRecord, second: Metric) -> Iterator[Point]:
    scale = SegmentAlignment(ledger, record)
    for experiment in map(scale.align, ledger.all_experiments(record)):
        has_failed = (experiment.reason or "").startswith(GUARD_FAILED)
        if experiment.metric is None or experiment.status in (None, Status.CRASH) or has_failed:
            continue
        runs = ledger.runs(record, experiment.number)
        own = [run.numbers for run in runs if run.commit == experiment.commit]
        seconds = [numbers[second.name] for numbers in own if second.name in numbers]
        if seconds:
            yield Point(
                experiment.number,
                experiment.commit,
                experiment.description,
                str(experiment.status),
                experiment.metric,
                fmean(seconds),
                len(seconds),
            )


def find_front(points: Sequence[Point], metric: Metric, second: Metric) -> list[Point]:
    """Return the Pareto front: going from the best metric on, each has a better second number than
    all before it. Of equal ones the earliest counts."""

    def rank(point: Point) -> tuple[float, float, int]:
        return (-metric.gain(point.metric, 0), -second.gain(point.second, 0), point.number)

    front: list[Point] = []
    for point in sorted(points, key=rank):
        if not front or second.better(point.second, front[-1].second):
            front.append(point)
    return front
