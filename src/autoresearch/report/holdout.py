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
from autoresearch.report.verification import Comparison, compare, least_runs, metrics_of
from autoresearch.store.ledger import Ledger
from autoresearch.store.rows import SessionRecord

GAP = Metric("gap", Goal.MAXIMIZE)  # its "gain" is its growth


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
    held_out: Comparison | None  # by the runs that verified; None: not run side by side on it
    gap: Gap | None  # None if either has too few runs
    gains: Mapping[int, float]  # of each keep over the one it was built on, by number


def unseal(ledger: Ledger, session: SessionRecord, keeps: Sequence[Experiment]) -> Holdout | None:
    """Compare keeps on the holdout; the first is the baseline, the last the incumbent. None if no
    run was scored on a holdout."""
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
            gains[keep.number] = metric.gain(fmean(_scores_of(new)), fmean(_scores_of(old)))
    first, best = keeps[0], keeps[-1]
    if best is first:
        return Holdout(None, None, gains)
    enough = least_runs(session)
    old, new = _latest_in_common(scored[first.number], scored[best.number])
    gap = _measure_gap(metric, old, new) if min(len(old), len(new)) >= enough else None
    if not session.deterministic:  # a deterministic task needs no runs to verify it
        old = [
            run for run in old if run.role is Role.VERIFY_BASELINE and run.experiment == best.number
        ]
        new = [run for run in new if run.role is Role.VERIFY]
    if min(len(old), len(new)) < enough:
        return Holdout(None, gap, gains)
    return Holdout(compare(metric, _scores_of(new), _scores_of(old)), gap, gains)


def _latest_in_common(old: Sequence[Run], new: Sequence[Run]) -> tuple[list[Run], list[Run]]:
    """The runs of the latest segment that has some of both."""
    latest = max({run.segment for run in old} & {run.segment for run in new}, default=None)
    return (
        [run for run in old if run.segment == latest],
        [run for run in new if run.segment == latest],
    )


def _measure_gap(metric: Metric, old: Sequence[Run], new: Sequence[Run]) -> Gap:
    growth = compare(GAP, _gaps_of(metric, new), _gaps_of(metric, old))
    return Gap(
        metric.gain(fmean(metrics_of(new)), fmean(metrics_of(old))),
        metric.gain(fmean(_scores_of(new)), fmean(_scores_of(old))),
        growth.gain,
        growth.low,
        growth.high,
    )


def _scores_of(runs: Sequence[Run]) -> list[float]:
    return [run.holdout for run in runs if run.holdout is not None]


def _gaps_of(metric: Metric, runs: Sequence[Run]) -> list[float]:
    pairs = zip(metrics_of(runs), _scores_of(runs), strict=True)
    return [metric.gain(search, holdout) for search, holdout in pairs]
