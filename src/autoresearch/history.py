"""What has happened so far, as numbers: what an agent may see of the ledger, the noise of one run,
and what a change has to beat now."""

from __future__ import annotations

from autoresearch import judge
from autoresearch.ledger import Ledger, SessionRow
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


def scores(ledger: Ledger, session: SessionRow, commit: str) -> tuple[float, ...]:
    """The latest unselected runs of a commit: the ones that may say how good it is."""
    return tuple(ledger.unselected(session, [commit])[commit][-judge.SCORE_RUNS :])


def noise(ledger: Ledger, session: SessionRow) -> tuple[float, int]:
    """(sd of one run, degrees of freedom): the spread within each keep's unselected runs. The
    latest keeps are enough, and keep the cost the same on the longest night."""
    keeps = ledger.keeps(session, last=KEEPS)
    chosen = list(dict.fromkeys(keep.commit for keep in keeps))
    groups = ledger.unselected(session, chosen)
    return judge.pooled_noise([groups[commit][-judge.SCORE_RUNS :] for commit in chosen])


def reference(ledger: Ledger, session: SessionRow, incumbent: Experiment) -> judge.Reference:
    """What a change has to beat now."""
    sd, df = noise(ledger, session)
    return judge.Reference(
        metric=session.metric,
        scores=scores(ledger, session, incumbent.commit),
        sd=sd,
        df=df,
    )


def effects(ledger: Ledger, session: SessionRow) -> list[float]:
    """By how much each keep was better than the one it was built on, as both were measured when
    they were kept; flagged ones left out."""
    keeps = {one.number: one for one in ledger.keeps(session)}
    pairs = [(one, keeps[one.base]) for one in keeps.values() if one.number and not one.flag]
    return [
        session.metric.gain(one.metric, base.metric)
        for one, base in pairs
        if one.metric is not None and base.metric is not None
    ]
