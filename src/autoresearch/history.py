"""What has happened so far, as numbers: what an agent may see of the ledger, the noise of one run,
and what a change has to beat now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from autoresearch import judge
from autoresearch.ledger import Ledger, SessionRow, segment_of
from autoresearch.records import Experiment, Metric
from autoresearch.workspace import Workspace

KEEPS = 20  # the latest so many tell the noise


class SessionHistory:
    """The ledger as an agent may see it (`records.History`)."""

    def __init__(self, ledger: Ledger, session: SessionRow, workspace: Workspace) -> None:
        self._ledger = ledger
        self._session = session
        self._workspace = workspace

    @property
    def metric(self) -> Metric:
        return self._session.metric

    @property
    def noise_sd(self) -> float | None:
        sd, df = noise(self._ledger, self._session)
        return sd if df else None

    def baseline(self) -> Experiment:
        return self._ledger.experiment(self._session, 0)

    def incumbent(self) -> Experiment:
        return self._ledger.incumbent(self._session)

    def incumbent_score(self) -> float | None:
        return reference(self._ledger, self._session, self.incumbent()).score

    def finished(self, after: int = 0) -> list[Experiment]:
        return self._ledger.finished(self._session, after)

    def in_flight(self) -> list[Experiment]:
        return self._ledger.in_flight(self._session)

    def editable_files(self, commit: str) -> dict[str, bytes]:
        return self._workspace.editable_files(commit)


def scores(
    ledger: Ledger, session: SessionRow, commit: str, before: int | None = None
) -> tuple[float, ...]:
    """The latest unselected runs of a commit: the ones that may say how good it is. Of the latest
    segment that has any: of this one, but for the moment between its beginning and the first run
    in it. `before` leaves out the run of that id and what came later."""
    known = ledger.scores(session, [commit], before)
    latest = max((segment for _, segment in known), default=0)
    return tuple(known.get((commit, latest), [])[-judge.SCORE_RUNS :])


def noise(ledger: Ledger, session: SessionRow, before: int | None = None) -> tuple[float, int]:
    """(sd of one run, degrees of freedom): the spread within each keep's unselected runs of the
    latest segment that tells one. The latest keeps are enough, and keep the cost the same on the
    longest night."""
    keeps = ledger.keeps(session, last=KEEPS)
    known = ledger.scores(session, list(dict.fromkeys(keep.commit for keep in keeps)), before)
    return latest_noise(known)


def latest_noise(known: Mapping[tuple[str, int], Sequence[float]]) -> tuple[float, int]:
    """The same, of runs by (commit, segment)."""
    for latest in sorted({segment for _, segment in known}, reverse=True):
        groups = [runs for (_, segment), runs in known.items() if segment == latest]
        sd, df = judge.pooled_noise([group[-judge.SCORE_RUNS :] for group in groups])
        if df:
            return sd, df
    return 0.0, 0


def reference(
    ledger: Ledger, session: SessionRow, incumbent: Experiment, before: int | None = None
) -> judge.Reference:
    """What a change has to beat now; or had to, `before` the run of that id."""
    sd, df = noise(ledger, session, before)
    return judge.Reference(
        metric=session.metric,
        scores=scores(ledger, session, incumbent.commit, before),
        sd=sd,
        df=df,
    )


def lost(ledger: Ledger, session: SessionRow, score: float) -> float:
    """By how much incumbents fell behind the best one before them, in metric units: from the best
    of each segment to the last of it, which now has `score`."""
    keeps, metric = ledger.keeps(session), session.metric
    starts = [one.after_order for one in ledger.segments(session)]
    known = ledger.scores(session, [keep.commit for keep in keeps])
    total = 0.0
    for segment in range(max(1, len(starts))):
        values = []
        for keep in keeps:
            here, runs = segment_of(starts, keep.order or 0), known.get((keep.commit, segment))
            if here == segment and keep.metric is not None:
                values.append(keep.metric)
            elif here < segment and runs:  # measured again at the beginning
                values.append(fmean(runs[-judge.SCORE_RUNS :]))
        if segment >= len(starts) - 1:
            values.append(score)
        if values:
            total += max(0.0, metric.gain(metric.best(values), values[-1]))
    return total
