"""What has happened so far, as numbers: what an agent may see of the ledger, the noise of one run,
and what a change has to beat now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean

from autoresearch.core import judge
from autoresearch.core.statistics import pooled_noise
from autoresearch.git.repository import Repository
from autoresearch.records import Experiment, Metric
from autoresearch.store.ledger import Ledger
from autoresearch.store.rows import SessionRecord, segment_of

KEEPS = 20  # the latest so many tell the noise


class SessionHistory:
    """The ledger as an agent may see it (`records.History`): all metrics on one scale."""

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
        return SegmentAlignment(self._ledger, self._session).of(
            self._ledger.incumbent(self._session)
        )

    def incumbent_score(self) -> float | None:
        score = reference(self._ledger, self._session, self.incumbent()).score
        return SegmentAlignment(self._ledger, self._session).now(score)

    def finished(self, after: int = 0) -> list[Experiment]:
        scale = SegmentAlignment(self._ledger, self._session)
        return [scale.of(one) for one in self._ledger.finished(self._session, after)]

    def in_flight(self) -> list[Experiment]:
        return self._ledger.in_flight(self._session)

    def editable_files(self, commit: str) -> dict[str, bytes]:
        return self._repository.editable_files(commit)


def scores(
    ledger: Ledger, session: SessionRecord, commit: str, before: int | None = None
) -> tuple[float, ...]:
    """The latest unselected runs of a commit: the ones that may say how good it is. Of the latest
    segment that has any: of this one, but for the moment between its beginning and the first run
    in it. `before` leaves out the run of that id and what came later."""
    known = ledger.scores(session, [commit], before)
    latest = max((segment for _, segment in known), default=0)
    return tuple(known.get((commit, latest), [])[-judge.SCORE_RUNS :])


def noise(ledger: Ledger, session: SessionRecord, before: int | None = None) -> tuple[float, int]:
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
        sd, df = pooled_noise([group[-judge.SCORE_RUNS :] for group in groups])
        if df:
            return sd, df
    return 0.0, 0


def reference(
    ledger: Ledger, session: SessionRecord, incumbent: Experiment, before: int | None = None
) -> judge.Reference:
    """What a change has to beat now; or had to, `before` the run of that id."""
    sd, df = noise(ledger, session, before)
    return judge.Reference(
        metric=session.metric,
        scores=scores(ledger, session, incumbent.commit, before),
        sd=sd,
        df=df,
    )


class SegmentAlignment:
    """Metrics of several segments on one scale, that of the first: of each, what the incumbent's
    own score moved at the beginning of a segment is taken off. For who learns from the past or
    adds up gains; the judge compares within a segment and has no need of it."""

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
        before = [one for one in range(segment) if (commit, one) in known]
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

    def of(self, experiment: Experiment) -> Experiment:
        if len(self._shifts) == 1 or experiment.order is None:
            return experiment
        return replace(experiment, metric=self.then(experiment.metric, experiment.order))


def lost(ledger: Ledger, session: SessionRecord, score: float) -> float:
    """By how much the incumbent of `score` is behind the best one so far, in metric units."""
    scale, metric = SegmentAlignment(ledger, session), session.metric
    scaled = (scale.then(keep.metric, keep.order) for keep in ledger.keeps(session))
    known = [one for one in scaled if one is not None]
    return max(0.0, metric.gain(metric.best(known), scale.now(score)))


def effects(ledger: Ledger, session: SessionRecord) -> list[float]:
    """By how much each keep was better than the one it was built on, as both were measured when
    they were kept; flagged ones left out."""
    scale = SegmentAlignment(ledger, session)
    keeps = {one.number: scale.of(one) for one in ledger.keeps(session)}
    pairs = [(one, keeps[one.base]) for one in keeps.values() if one.number and not one.flag]
    return [
        session.metric.gain(one.metric, base.metric)
        for one, base in pairs
        if one.metric is not None and base.metric is not None
    ]
