"""The session so far, as numbers: what an agent may see, the noise, what a change has to beat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import TYPE_CHECKING

from autoresearch.core import judge
from autoresearch.records import Experiment, Metric
from autoresearch.statistics import pooled_noise
from autoresearch.store.ledger import Ledger
from autoresearch.store.rows import SessionRecord, segment_of

if TYPE_CHECKING:  # `status` reads the noise from here, and takes twice as long with git
    from autoresearch.git.repository import Repository

NOISE_KEEPS = 20  # the noise is estimated from so many of the latest keeps


class SessionHistory:
    """The ledger as an agent may see it (`protocols.History`): all metrics on one scale."""

    def __init__(self, ledger: Ledger, session: SessionRecord, repository: Repository) -> None:
        self._ledger = ledger
        self._session = session
        self._repository = repository

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
        return SegmentAlignment(self._ledger, self._session).align(
            self._ledger.incumbent(self._session)
        )

    def incumbent_score(self) -> float | None:
        score = reference(self._ledger, self._session, self.incumbent()).score
        return SegmentAlignment(self._ledger, self._session).now(score)

    def finished(self, after: int = 0) -> list[Experiment]:
        scale = SegmentAlignment(self._ledger, self._session)
        return [scale.align(done) for done in self._ledger.finished(self._session, after)]

    def in_flight(self) -> list[Experiment]:
        return self._ledger.in_flight(self._session)

    def editable_files(self, commit: str) -> dict[str, bytes]:
        return self._repository.editable_files(commit)


def scores(
    ledger: Ledger, session: SessionRecord, commit: str, before: int | None = None
) -> tuple[float, ...]:
    """Return the metrics of a commit's latest unselected runs, which may say how good it is,
    of the latest segment that has any. `before` leaves out the run of that id and later ones."""
    known = ledger.scores(session, [commit], before)
    latest = max((segment for _, segment in known), default=0)
    return tuple(known.get((commit, latest), [])[-judge.SCORE_RUNS :])


def noise(ledger: Ledger, session: SessionRecord, before: int | None = None) -> tuple[float, int]:
    """Return (sd of one run, degrees of freedom), from the spread within each keep's unselected
    runs of the latest segment that has two of one commit. Reads a fixed number of keeps, so that
    the cost does not grow with the session."""
    keeps = ledger.keeps(session, last=NOISE_KEEPS)
    known = ledger.scores(session, list(dict.fromkeys(keep.commit for keep in keeps)), before)
    for latest in sorted({segment for _, segment in known}, reverse=True):
        groups = [runs[-judge.SCORE_RUNS :] for (_, at), runs in known.items() if at == latest]
        if session.has_relative_noise:  # what it is for the latest commit, which comes last
            groups = [[run * fmean(groups[-1]) / fmean(g) for run in g] for g in groups]
        sd, df = pooled_noise(groups)
        if df:
            return sd, df
    return 0.0, 0


def reference(
    ledger: Ledger, session: SessionRecord, incumbent: Experiment, before: int | None = None
) -> judge.Reference:
    """Return what a change has to beat now, or had to `before` the run of that id."""
    sd, df = noise(ledger, session, before)
    return judge.Reference(
        metric=session.metric,
        scores=scores(ledger, session, incumbent.commit, before),
        sd=sd,
        df=df,
    )


class SegmentAlignment:
    """Aligns metrics of several segments with the first one: subtracts by how much the incumbent's
    own score moved at the beginning of each segment. For agents that learn from the past and for
    sums of gains; the judge compares within one segment and does not need it."""

    def __init__(self, ledger: Ledger, session: SessionRecord) -> None:
        self._starts = ledger.starts(session)
        self._shifts = [0.0]
        if len(self._starts) > 1:
            keeps = ledger.keeps(session)
            known = ledger.scores(session, [keep.commit for keep in keeps])
            for segment in range(1, len(self._starts)):
                earlier = [keep for keep in keeps if (keep.order or 0) <= self._starts[segment]]
                commit = earlier[-1].commit if earlier else ""
                self._shifts.append(self._shift(known, commit, segment))

    def _shift(
        self, known: Mapping[tuple[str, int], Sequence[float]], commit: str, segment: int
    ) -> float:
        now = known.get((commit, segment))
        before = [earlier for earlier in range(segment) if (commit, earlier) in known]
        if not now or not before:
            return self._shifts[-1]
        then = known[commit, before[-1]]
        moved = fmean(now[: judge.FRESH_RUNS]) - fmean(then[-judge.SCORE_RUNS :])
        return self._shifts[before[-1]] + moved

    @property
    def segments(self) -> int:
        return len(self._shifts)

    def now(self, metric: float) -> float:
        """A metric of the latest segment."""
        return metric - self._shifts[-1]

    def then(self, metric: float | None, order: int | None) -> float | None:
        """That of the experiment of that order; None stays None."""
        if metric is None:
            return None
        return metric - self._shifts[segment_of(self._starts, order or 0)]

    def align(self, experiment: Experiment) -> Experiment:
        if len(self._shifts) == 1 or experiment.order is None:
            return experiment
        return replace(experiment, metric=self.then(experiment.metric, experiment.order))


def lost(ledger: Ledger, session: SessionRecord, score: float) -> float:
    """Return by how much `score` is behind the best incumbent so far, in metric units."""
    scale, metric = SegmentAlignment(ledger, session), session.metric
    scaled = (scale.then(keep.metric, keep.order) for keep in ledger.keeps(session))
    known = [value for value in scaled if value is not None]
    return max(0.0, metric.gain(metric.best(known), scale.now(score)))


def effects(ledger: Ledger, session: SessionRecord) -> list[float]:
    """Return each keep's gain over the keep it was built on, as both were measured when they were
    kept. Flagged keeps are left out."""
    scale = SegmentAlignment(ledger, session)
    keeps = {keep.number: scale.align(keep) for keep in ledger.keeps(session)}
    pairs = [(keep, keeps[keep.base]) for keep in keeps.values() if keep.number and not keep.flag]
    return [
        session.metric.gain(keep.metric, base.metric)
        for keep, base in pairs
        if keep.metric is not None and base.metric is not None
    ]
