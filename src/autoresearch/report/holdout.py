"""The sealed holdout, opened for the report: does what was gained carry over to data that nothing
was chosen by?

The gap of a run is how much better its search metric looks than its holdout. Both are of the same
trained artefact, so most of the noise is in both and falls out of the difference: a gap that grows
shows long before the gains themselves differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from autoresearch.core.statistics import difference_interval
from autoresearch.records import HELD_OUT, Experiment, Goal, Metric, Role, Run
from autoresearch.store.ledger import Ledger
from autoresearch.store.rows import SessionRecord

GAP = Metric("gap", Goal.MAXIMIZE)  # so that its "gain" is by how much it has grown


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
    """By how much the gap has grown from the baseline to the best commit, over all their runs that
    were scored on both. In metric units; `growth` is `search_gain` less `holdout_gain`."""

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
    gains: Mapping[int, float]  # of a keep over the one it was built on, by its number


def unsealed(ledger: Ledger, session: SessionRecord, keeps: Sequence[Experiment]) -> Holdout | None:
    """What the holdout says of these keeps, the baseline first and the incumbent last. None where
    nothing was scored on one."""
    scored = {
        one.number: [run for run in _runs(ledger, session, one) if run.holdout is not None]
        for one in keeps
    }
    if not any(scored.values()):
        return None
    metric = session.metric
    gains = {}
    for one in keeps[1:]:
        old, new = _comparable(scored.get(one.base, []), scored[one.number])
        if old and new:
            gains[one.number] = metric.gain(fmean(_holdouts(new)), fmean(_holdouts(old)))
    enough = 1 if session.deterministic else 2
    first, best = keeps[0], keeps[-1]
    if best is first:
        return Holdout(None, None, gains)
    both = _comparable(scored[first.number], scored[best.number])
    old, new = _side_by_side(*both, best, enough == 1)
    held_out = _held_out(metric, old, new) if min(len(old), len(new)) >= enough else None
    gap = _gap(metric, *both) if min(map(len, both)) >= enough else None
    return Holdout(held_out, gap, gains)


def _comparable(old: Sequence[Run], new: Sequence[Run]) -> tuple[list[Run], list[Run]]:
    """Those of the latest segment in which there are some of both; none where there is none."""
    common = {run.segment for run in old} & {run.segment for run in new}
    latest = max(common, default=None)
    kept = [[run for run in runs if run.segment == latest] for runs in (old, new)]
    return kept[0], kept[1]


def interval(
    metric: Metric, new: Sequence[float], old: Sequence[float]
) -> tuple[float, float, float]:
    """`difference_interval`, or the bare gain where one run is all there is to know."""
    if min(len(new), len(old)) > 1:
        return difference_interval(metric, new, old)
    gain = metric.gain(fmean(new), fmean(old))
    return gain, gain, gain


def _runs(ledger: Ledger, session: SessionRecord, one: Experiment) -> list[Run]:
    return ledger.runs_of(session, one.commit, HELD_OUT)


def _holdouts(runs: Sequence[Run]) -> list[float]:
    return [run.holdout for run in runs if run.holdout is not None]


def _metrics(runs: Sequence[Run]) -> list[float]:
    return [run.metric for run in runs if run.metric is not None]


def _side_by_side(
    first: Sequence[Run], best: Sequence[Run], keep: Experiment, deterministic: bool
) -> tuple[list[Run], list[Run]]:
    """The verifying runs of both; a deterministic task has none, as it needs none."""
    if deterministic:
        return list(first), list(best)
    old = [r for r in first if r.role is Role.VERIFY_BASELINE and r.experiment == keep.number]
    return old, [run for run in best if run.role is Role.VERIFY]


def _held_out(metric: Metric, old: Sequence[Run], new: Sequence[Run]) -> HeldOut:
    before, after = _holdouts(old), _holdouts(new)
    bounds = interval(metric, after, before)
    return HeldOut(fmean(before), fmean(after), len(before), len(after), *bounds)


def _gap(metric: Metric, old: Sequence[Run], new: Sequence[Run]) -> Gap:
    growth = interval(GAP, _gaps(metric, new), _gaps(metric, old))
    return Gap(
        metric.gain(fmean(_metrics(new)), fmean(_metrics(old))),
        metric.gain(fmean(_holdouts(new)), fmean(_holdouts(old))),
        *growth,
    )


def _gaps(metric: Metric, runs: Sequence[Run]) -> list[float]:
    return [metric.gain(*pair) for pair in zip(_metrics(runs), _holdouts(runs), strict=True)]
