"""The verification at a session's end: the best commit and the baseline run again, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from autoresearch.core.statistics import difference_interval, pooled_noise
from autoresearch.records import Metric, Role, Run
from autoresearch.store.ledger import Ledger
from autoresearch.store.rows import SessionRecord


@dataclass(frozen=True, slots=True)
class Verification:
    """The best commit and the baseline on fresh seeds. A positive gain or drift is better."""

    number: int  # of the best experiment
    new_runs: int
    old_runs: int
    crashed: int
    new_mean: float
    old_mean: float
    new_sd: float | None
    old_sd: float | None
    gain: float
    low: float  # of the 95 % interval
    high: float
    drift: float | None  # of the baseline: its mean at the end against its mean at the start
    drift_low: float | None
    drift_high: float | None


def read_verification(
    ledger: Ledger, session: SessionRecord, number: int, commit: str
) -> Verification | None:
    """Compare experiment `number` with the baseline by the runs that verified it.

    None unless both sides have enough runs to compare: two, or one on a deterministic task.
    """
    enough = 1 if session.deterministic else 2
    new_runs = ledger.runs_of(session, commit, (Role.VERIFY,))
    segment = max((run.segment for run in new_runs), default=0)
    new_runs = [run for run in new_runs if run.segment == segment]
    # The baseline may have been held against an earlier best as well, on another day's machine.
    old_runs = [
        run
        for run in ledger.runs_of(session, session.base_commit, (Role.VERIFY_BASELINE,))
        if run.experiment == number and run.segment == segment
    ]
    baseline = ledger.runs_of(session, session.base_commit, (Role.BASELINE,))
    first = metrics_of([run for run in baseline if run.segment == segment])
    new, old = metrics_of(new_runs), metrics_of(old_runs)
    if min(len(new), len(old)) < enough:
        return None
    gain, low, high = compare(session.metric, new, old)
    drift = compare(session.metric, old, first) if len(first) >= enough else (None, None, None)
    return Verification(
        number=number,
        new_runs=len(new),
        old_runs=len(old),
        crashed=len(new_runs) + len(old_runs) - len(new) - len(old),
        new_mean=fmean(new),
        old_mean=fmean(old),
        new_sd=pooled_noise([new])[0] if len(new) > 1 else None,
        old_sd=pooled_noise([old])[0] if len(old) > 1 else None,
        gain=gain,
        low=low,
        high=high,
        drift=drift[0],
        drift_low=drift[1],
        drift_high=drift[2],
    )


def compare(
    metric: Metric, new: Sequence[float], old: Sequence[float]
) -> tuple[float, float, float]:
    """(gain, low, high) of `new` over `old`, with its 95 % interval; the bare gain three times
    when a side has a single run, which is all of a deterministic task."""
    if min(len(new), len(old)) > 1:
        return difference_interval(metric, new, old)
    gain = metric.gain(fmean(new), fmean(old))
    return gain, gain, gain


def metrics_of(runs: Sequence[Run]) -> list[float]:
    return [run.metric for run in runs if run.metric is not None]
