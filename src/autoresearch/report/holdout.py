"""The sealed holdout, opened for the report: does the gain carry over to data that chose nothing?

The gap of a run is how much better its search metric is than its metric on the holdout. Both are of
the same trained artefact, so most of the noise is in both and cancels out: a growing gap shows long
before the gains themselves differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from autoresearch.records import HELD_OUT, Experiment, Goal, Metric, Role, Run
from autoresearch.report.verification import compare, metrics_of
from autoresearch.store.ledger import Ledger
from autoresearch.store.rows import SessionRecord

GAP = Metric("gap", Goal.MAXIMIZE)  # its "gain" is its growth


@dataclass(frozen=True, slots=True)
class HeldOut:
    """The best commit against the baseline on the holdout, in the runs that verified it."""

    old_mean: float
    new_mean: float
    old_runs: int
    new_runs: int
    gain: float
    low: float  # of the 95 % interval
    high: float


@dataclass(frozen=True, slots=True)
class Gap:
    """The growth of the gap from the baseline to the best commit, over all their runs that were
    scored on both. In metric units; `growth` is `search_gain` less `holdout_gain`."""

    search_gain: float
    holdout_gain: float
    growth: float
    low: float  # of the 95 % interval
    high: float

    @property
    def has_grown(self) -> bool:
        return self.low > 0


@dataclass(frozen=True, slots=True)
class Holdout:
    held_out: HeldOut | None  # None: they were not run side by side on it
    gap: Gap | None  # None below two runs of either
    gains: Mapping[int, float]  # of each keep over the one it was built on, by number


def unseal(ledger: Ledger, session: SessionRecord, keeps: Sequence[Experiment]) -> Holdout | None:
    """Compare keeps on the holdout; the first is the baseline, the last the incumbent. None where
    nothing was scored on one."""
    scored = {
        keep.number: [
            run for run in ledger.runs_of(session, keep.commit, HELD_OUT) if run.holdout is not None
        ]
        for keep in keeps
    }
    if not any(scored.values()):
        return None
    metric = session.metric
    gains = {}
    for keep in keeps[1:]:
        old, new = _latest_in_common(scored.get(keep.base, []), scored[keep.number])
        if old and new:
            gains[keep.number] = metric.gain(fmean(_holdouts_of(new)), fmean(_holdouts_of(old)))
    first, best = keeps[0], keeps[-1]
    if best is first:
        return Holdout(None, None, gains)
    enough = 1 if session.deterministic else 2
    old, new = _latest_in_common(scored[first.number], scored[best.number])
    gap = _measure_gap(metric, old, new) if min(len(old), len(new)) >= enough else None
    if not session.deterministic:  # a deterministic task needs no runs to verify it
        old = [
            run for run in old if run.role is Role.VERIFY_BASELINE and run.experiment == best.number
        ]
        new = [run for run in new if run.role is Role.VERIFY]
    held_out = _hold_out(metric, old, new) if min(len(old), len(new)) >= enough else None
    return Holdout(held_out, gap, gains)


def _latest_in_common(old: Sequence[Run], new: Sequence[Run]) -> tuple[list[Run], list[Run]]:
    """The runs of the latest segment that has some of both."""
    latest = max({run.segment for run in old} & {run.segment for run in new}, default=None)
    return (
        [run for run in old if run.segment == latest],
        [run for run in new if run.segment == latest],
    )


def _hold_out(metric: Metric, old: Sequence[Run], new: Sequence[Run]) -> HeldOut:
    before, after = _holdouts_of(old), _holdouts_of(new)
    interval = compare(metric, after, before)
    return HeldOut(fmean(before), fmean(after), len(before), len(after), *interval)


def _measure_gap(metric: Metric, old: Sequence[Run], new: Sequence[Run]) -> Gap:
    return Gap(
        metric.gain(fmean(metrics_of(new)), fmean(metrics_of(old))),
        metric.gain(fmean(_holdouts_of(new)), fmean(_holdouts_of(old))),
        *compare(GAP, _gaps_of(metric, new), _gaps_of(metric, old)),
    )


def _holdouts_of(runs: Sequence[Run]) -> list[float]:
    return [run.holdout for run in runs if run.holdout is not None]


def _gaps_of(metric: Metric, runs: Sequence[Run]) -> list[float]:
    pairs = zip(metrics_of(runs), _holdouts_of(runs), strict=True)
    return [metric.gain(search, holdout) for search, holdout in pairs]
