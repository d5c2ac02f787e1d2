"""The best commit and the baseline compared by fresh runs, made side by side at a session's end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from autoresearch.core.statistics import difference_interval
from autoresearch.records import Experiment, Metric, Role, Run
from autoresearch.report.summary import derive
from autoresearch.store.ledger import Ledger
from autoresearch.store.rows import SessionRecord


@dataclass(frozen=True, slots=True)
class Comparison:
    """Runs of the best commit against runs of the baseline. A positive gain is better."""

    old_mean: float
    new_mean: float
    old_runs: int
    new_runs: int
    gain: float
    low: float  # of the 95 % interval
    high: float


@dataclass(frozen=True, slots=True)
class Verification(Comparison):
    """The comparison on fresh seeds. A positive drift is better."""

    number: int  # of the best experiment
    crashed: int
    new_sd: float | None
    old_sd: float | None
    drift: float | None  # of the baseline: its mean at the end against its mean at the start
    drift_low: float | None
    drift_high: float | None


def read_verification(
    ledger: Ledger, session: SessionRecord, best: Experiment
) -> Verification | None:
    """Compare the best experiment with the baseline by the runs that verified it. None if a side
    has too few of them."""
    new_runs = ledger.runs_of(session, best.commit, (Role.VERIFY,))
    segment = max((run.segment for run in new_runs), default=0)
    new_runs = [run for run in new_runs if run.segment == segment]
    # The baseline may have been compared with an earlier best too, on another day's machine.
    old_runs = [
        run
        for run in ledger.runs_of(session, session.base_commit, (Role.VERIFY_BASELINE,))
        if run.experiment == best.number and run.segment == segment
    ]
    start_runs = ledger.runs_of(session, session.base_commit, (Role.BASELINE,))
    start = metrics_of([run for run in start_runs if run.segment == segment])
    new, old = metrics_of(new_runs), metrics_of(old_runs)
    enough = least_runs(session)
    if min(len(new), len(old)) < enough:
        return None
    drift = compare(session.metric, old, start) if len(start) >= enough else None
    return derive(
        Verification,
        compare(session.metric, new, old),
        number=best.number,
        crashed=len(new_runs) + len(old_runs) - len(new) - len(old),
        new_sd=stdev(new) if len(new) > 1 else None,
        old_sd=stdev(old) if len(old) > 1 else None,
        drift=drift.gain if drift else None,
        drift_low=drift.low if drift else None,
        drift_high=drift.high if drift else None,
    )


def least_runs(session: SessionRecord) -> int:
    """How many runs of each side a comparison needs."""
    return 1 if session.deterministic else 2


def compare(metric: Metric, new: Sequence[float], old: Sequence[float]) -> Comparison:
    """Compare `new` with `old`. The interval has no width if a side has a single run, which is all
    that a deterministic task makes."""
    gain = metric.gain(fmean(new), fmean(old))
    interval = (gain, gain, gain)
    if min(len(new), len(old)) > 1:
        interval = difference_interval(metric, new, old)
    return Comparison(fmean(old), fmean(new), len(old), len(new), *interval)


def metrics_of(runs: Sequence[Run]) -> list[float]:
    return [run.metric for run in runs if run.metric is not None]
