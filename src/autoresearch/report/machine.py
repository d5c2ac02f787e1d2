"""Did the machine stay what it was? Incumbents are run all night long, in confirmations and on
schedule: what their runs gave and took over the hours tells a machine that throttles, or has a
neighbour, from one that stood still."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from autoresearch.core.statistics import pooled_noise, t_quantile
from autoresearch.records import Metric, Run

CONFIDENCE = 0.99  # three trends are looked at
LEAST_RUNS = 12  # of which a trend is told
LEAST_SD, LEAST_SHARE = 0.5, 0.05  # over the session, to be worth a sentence


@dataclass(frozen=True, slots=True)
class Trend:
    """Per hour, with its 99 % interval. `change` is over the whole session."""

    slope: float
    low: float
    high: float
    change: float

    def told(self, least: float) -> bool:
        return not self.low <= 0 <= self.high and abs(self.change) >= least


@dataclass(frozen=True, slots=True)
class Machine:
    """Trends of the incumbents' runs, each run against the mean of its commit in its segment. None
    where too few runs tell of it."""

    runs: int
    hours: float  # from the first to the last
    metric: Trend | None  # in standard deviations of one run; > 0 is better
    wall: Trend | None  # as a share: 0.1 is 10 % longer
    cpu: Trend | None


def machine(runs: Sequence[Run], metric: Metric) -> Machine | None:
    """None when there are too few runs for anything."""
    runs = [run for run in runs if run.metric is not None]
    if len(runs) < LEAST_RUNS:
        return None
    groups: dict[tuple[str, int], list[Run]] = defaultdict(list)
    for run in runs:
        groups[run.commit, run.segment].append(run)
    sd, _ = pooled_noise([[one.metric or 0.0 for one in group] for group in groups.values()])
    times = [run.started_at for run in runs]
    hours = (max(times) - min(times)) / 3600

    def gain(run: Run) -> float | None:
        return metric.gain(run.metric, 0.0) / sd if sd and run.metric is not None else None

    def of(value: Callable[[Run], float | None]) -> Trend | None:
        return _trend(list(groups.values()), value, hours)

    return Machine(
        runs=len(runs),
        hours=hours,
        metric=of(gain),
        wall=of(lambda run: math.log(run.wall_s) if run.wall_s else None),
        cpu=of(lambda run: math.log(run.cpu_s) if run.cpu_s else None),
    )


def _trend(
    groups: Sequence[Sequence[Run]], value: Callable[[Run], float | None], hours: float
) -> Trend | None:
    """The least-squares slope within groups: each has a mean of its own."""
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


def sentences(found: Machine) -> list[str]:
    """What there is to say, or that there is nothing."""
    said = []
    if found.metric and found.metric.told(LEAST_SD):
        way = "better" if found.metric.slope > 0 else "worse"
        said.append(
            f"The same code became {way} by {abs(found.metric.slope):.2g} sd an hour "
            f"({_interval(found.metric, 1, '')})."
        )
    for what, trend in (("wall time", found.wall), ("CPU time", found.cpu)):
        if trend and trend.told(LEAST_SHARE):
            way = "more" if trend.slope > 0 else "less"
            said.append(
                f"The same code took {abs(100 * trend.slope):.2g} % {way} {what} a run with every "
                f"hour ({_interval(trend, 100, ' %')})."
            )
    if not said:
        return [f"It stood still, as far as {found.runs} runs of incumbents tell."]
    slower = [trend.slope for trend in (found.wall, found.cpu) if trend and trend.told(LEAST_SHARE)]
    worse = found.metric is not None and found.metric.told(LEAST_SD) and found.metric.slope < 0
    if worse or any(slope > 0 for slope in slower):
        return [*said, "It throttled, or somebody else was at work on it."]
    return [*said, "What slowed it before has ended."]


def _interval(trend: Trend, scale: float, unit: str) -> str:
    return f"99 % interval {scale * trend.low:+.2g}{unit} to {scale * trend.high:+.2g}{unit}"
