"""What is known of a result: the best commit and the baseline compared by fresh runs, made side by
side at a session's end, and three properties.

It repeats, it holds on the sealed holdout, and nothing suspicious was seen. A cheat repeats as well
as an honest gain, so no view may say one for another: all of them print the words of `Checks`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from autoresearch.formatting import counted, percent
from autoresearch.records import Experiment, Metric, Role, Run
from autoresearch.report.summary import Flagged, derive
from autoresearch.statistics import difference_interval
from autoresearch.store.ledger import Ledger
from autoresearch.store.rows import SessionRecord

if TYPE_CHECKING:  # holdout.py compares with the functions of this module
    from autoresearch.report.holdout import Holdout

FLAGGED = 8  # flagged keeps named, the latest
UNCOUNTED = 0.2  # more of a run's time without CPU time than of any of the baseline's is suspicious


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
class Uncounted:
    """The shares of the runs' time in which no CPU time was counted: of the best's run with the
    least, and of the baseline's with the most."""

    best: float
    baseline: float

    @property
    def is_suspicious(self) -> bool:
        return self.best > self.baseline + UNCOUNTED


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
    uncounted: Uncounted | None  # None where no budget is in CPU time


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
        uncounted=_find_uncounted(session, new_runs, old_runs),
    )


def _find_uncounted(
    session: SessionRecord, best: Sequence[Run], baseline: Sequence[Run]
) -> Uncounted | None:
    """Work whose CPU time is in nobody's account takes time all the same. A busy machine makes
    every run wait, and these were interleaved: the shares of one side are above all of the other's
    only if the programs differ."""
    shares = [[_get_uncounted_share(run) for run in runs] for runs in (best, baseline)]
    known = [[share for share in side if share is not None] for side in shares]
    if session.budget_clock != "cpu" or min(map(len, known)) < 2:
        return None
    return Uncounted(min(known[0]), max(known[1]))


def _get_uncounted_share(run: Run) -> float | None:
    """The share of the time of a run and its score that exceeds their CPU time."""
    if run.metric is None or not run.wall_s or run.cpu_s is None:
        return None
    wall_s = run.wall_s + (run.score_wall_s or 0.0)
    return max(0.0, 1 - (run.cpu_s + (run.score_cpu_s or 0.0)) / wall_s)


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


@dataclass(frozen=True, slots=True)
class Checks:
    """What is known of a result. Each of the three properties may be there without the others."""

    repeats: bool | None  # on fresh seeds; None: not run again
    holds: bool | None  # on the sealed holdout; None: there is none, or it is sealed or not scored
    nothing_suspicious: bool  # and everything enforced without which a cheat may go unseen
    words: tuple[str, str, str]  # the same, for people
    suspicions: tuple[str, ...]  # to be shown before the gain
    not_enforced: tuple[str, ...]  # on the session's runs

    @property
    def is_good(self) -> bool:
        """Whether nothing speaks against a gain that repeats."""
        return self.repeats is True and self.holds is not False and self.nothing_suspicious

    def __str__(self) -> str:
        return "; ".join(self.words)


def check_result(
    session: SessionRecord,
    gain: float | None,
    verification: Verification | None,
    flagged: Sequence[Flagged],
    holdout: Holdout | None,
    *,
    is_sealed: bool,
) -> Checks:
    """Check the incumbent, whose gain over the baseline is `gain`."""
    repeats, again = _check_repeats(session, gain, verification)
    holds, held = _check_holdout(session, holdout, is_sealed)
    suspicions = tuple(_list_suspicions(verification, flagged, holdout))
    seen = counted(len(suspicions), "suspicion") if suspicions else "nothing suspicious seen"
    if session.not_enforced:
        seen += f", but {' and '.join(session.not_enforced)}"
    return Checks(
        repeats,
        holds,
        not suspicions and not session.not_enforced,
        (again, held, seen),
        suspicions,
        session.not_enforced,
    )


def _check_repeats(
    session: SessionRecord, gain: float | None, result: Verification | None
) -> tuple[bool | None, str]:
    if session.deterministic:
        is_better = gain is not None and gain > 0
        return is_better, "repeats exactly" if is_better else "no gain"
    if result is None:
        return None, "not repeated yet"
    if result.low > 0:
        return True, "repeats on fresh seeds"
    return False, f"{'not shown to' if result.high > 0 else 'does not'} repeat on fresh seeds"


def _check_holdout(
    session: SessionRecord, holdout: Holdout | None, is_sealed: bool
) -> tuple[bool | None, str]:
    if not session.has_holdout:
        return None, "no holdout"
    if is_sealed:
        return None, "holdout sealed until the report"
    if holdout is None or holdout.held_out is None:
        return None, "not compared on the holdout"
    result = holdout.held_out
    if result.low > 0:
        part = " in part" if holdout.gap is not None and holdout.gap.has_grown else ""
        return True, f"holds{part} on the sealed holdout"
    doubt = "not shown to" if result.high > 0 else "does not"
    return False, f"{doubt} hold on the sealed holdout"


def _list_suspicions(
    verification: Verification | None, flagged: Sequence[Flagged], holdout: Holdout | None
) -> Iterator[str]:
    """Sentences without a full stop. None tells a score on the holdout: `status` prints them."""
    if flagged:
        latest = flagged[-FLAGGED:]
        more = ", ..." if len(latest) < len(flagged) else ""
        shown = ", ".join(f"#{keep.number}" for keep in reversed(latest)) + more
        yield (
            f"{counted(len(flagged), 'keep')} too good to be believed unseen: {shown} "
            f"(autoresearch show {latest[-1].number})"
        )
    if holdout is not None and holdout.gap is not None and holdout.gap.has_grown:
        yield "the gain does not all carry over to the sealed holdout"
    uncounted = verification and verification.uncounted
    if uncounted and uncounted.is_suspicious:
        yield (
            f"no CPU time was counted in {percent(uncounted.best)} or more of the time of the "
            f"best's runs, in {percent(uncounted.baseline)} or less of the baseline's"
        )
