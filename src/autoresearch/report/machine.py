"""Did the machine stay the same? Incumbents run again and again, in confirmations and on schedule.
The trends of their metric and their times show a machine that throttles, or a busy neighbour."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from autoresearch.records import Metric, Run
from autoresearch.statistics import pooled_noise, t_quantile

CONFIDENCE = 0.99  # there are three trends
LEAST_RUNS = 12  # behind a trend
LEAST_HOURS = 1.0  # a slope per hour of a shorter time would be an extrapolation


@dataclass(frozen=True, slots=True)
class Trend:
    """A slope per hour, with its 99 % interval. `change` is over the whole session."""

    slope: float
    low: float
    high: float
    change: float

    def is_clear(self, least: float) -> bool:
        """Whether it is surely not zero, and changed by at least `least`."""
        return not self.low <= 0 <= self.high and abs(self.change) >= least


@dataclass(frozen=True, slots=True)
class Machine:
    """Trends of the incumbents' runs, each run against the mean of its commit in its segment. None
    for too few runs."""

    runs: int
    metric: Trend | None  # in standard deviations of one run; > 0 is better
    wall: Trend | None  # as a share: 0.1 is 10 % longer
    cpu: Trend | None


def find_trends(runs: Sequence[Run], metric: Metric) -> Machine | None:
    """Find the trends. None if the runs are fewer than 12, or began within less than an hour."""
    runs = [run for run in runs if run.metric is not None]
    starts = [run.started_at for run in runs]
    if len(runs) < LEAST_RUNS or (hours := (max(starts) - min(starts)) / 3600) < LEAST_HOURS:
        return None
    groups: dict[tuple[str, int], list[Run]] = defaultdict(list)
    for run in runs:
        groups[run.commit, run.segment].append(run)
    sd, _ = pooled_noise([[run.metric or 0.0 for run in group] for group in groups.values()])

    def gain(run: Run) -> float | None:
        return metric.gain(run.metric, 0.0) / sd if sd and run.metric is not None else None

    def fit(value: Callable[[Run], float | None]) -> Trend | None:
        return _fit_trend(list(groups.values()), value, hours)

    return Machine(
        runs=len(runs),
        metric=fit(gain),
        wall=fit(lambda run: math.log(run.wall_s) if run.wall_s else None),
        cpu=fit(lambda run: math.log(run.cpu_s) if run.cpu_s else None),
    )


def _fit_trend(
    groups: Sequence[Sequence[Run]], value: Callable[[Run], float | None], hours: float
) -> Trend | None:
    """Fit a least-squares slope within groups: each group has its own mean."""
    points: list[tuple[float, float]] = []
    df = -1
    for group in groups:
        known = [(run.started_at / 3600, y) for run in group if (y := value(run)) is not None]
        if len(known) > 1:
            middle, mean = (fmean(side) for side in zip(*known, strict=True))
            points += [(x - middle, y - mean) for x, y in known]
            df += len(known) - 1
    spread = sum(x * x for x, _ in points)
    if df < LEAST_RUNS // 2 or spread == 0:
        return None
    slope = sum(x * y for x, y in points) / spread
    rest = sum((y - slope * x) ** 2 for x, y in points)
    half = t_quantile((1 + CONFIDENCE) / 2, df) * math.sqrt(rest / df / spread)
    return Trend(slope, slope - half, slope + half, slope * hours)
