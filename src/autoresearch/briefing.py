"""What the agent is told before it proposes: the history as data, and the same as a text whose
size is bounded however long the night was."""

from __future__ import annotations

from collections.abc import Sequence

from autoresearch import judge
from autoresearch.ledger import Ledger, SessionRow
from autoresearch.records import Experiment, Metric, Status
from autoresearch.task import Task
from autoresearch.workspace import Workspace

KEEPS, NEAR_MISSES, LATEST = 20, 10, 20  # experiments told of each kind


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
    keeps = ledger.keeps(session)
    chosen = list(dict.fromkeys(keep.commit for keep in (*keeps[:1], *keeps[-KEEPS:])))
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


def text(task: Task, ledger: Ledger, session: SessionRow) -> str:
    """The briefing: objective, rules, where we are, what was tried. Bounded in size."""
    incumbent = ledger.incumbent(session)
    held = reference(ledger, session, incumbent)
    metric = session.metric
    finished = ledger.finished(session, after=0, last=200)
    keeps = [e for e in ledger.keeps(session) if e.number][-KEEPS:]
    misses = [e for e in finished if e.reason in ("not confirmed", "not better")][-NEAR_MISSES:]
    latest = finished[-LATEST:]
    budget = f"{task.run.budget_s:g} s ({task.run.budget_clock})" if task.run.budget_s else "none"
    return "\n".join(
        [
            task.objective_text.strip()[:8000],
            "",
            "## Rules",
            f"- Edit only: {', '.join(task.editable)}. Anything else you change is refused.",
            "- One idea at a time. Do not run, measure, commit or log: that is done for you.",
            f"- {metric.name}: {metric.goal} it. Budget of a run: {budget}.",
            "- Answer with one line: what you changed and why it should help.",
            "",
            "## Where we are",
            f"- incumbent: experiment {incumbent.number}, {metric.name} {held.score:.6g} "
            f"(mean of {len(held.scores)} runs; one run varies by sd {held.sd:.3g})",
            f"- a gain below {held.sd * judge.DROP_BELOW[0]:.3g} cannot be told from noise at once",
            "",
            "## Kept",
            *_lines(keeps, metric),
            "",
            "## Near misses (worth combining)",
            *_lines(misses, metric),
            "",
            "## Latest",
            *_lines(latest, metric),
            "",
        ]
    )


def _lines(experiments: Sequence[Experiment], metric: Metric) -> list[str]:
    """One line each; a description is data, so it is cut and kept on its line."""
    return [
        f"- {e.number}: {e.status}{f' ({e.reason[:60]})' if e.reason else ''}"
        f"{f', {metric.name} {e.metric:.6g}' if e.metric is not None else ''}"
        f": {' '.join(e.description.split())[:120]}"
        for e in experiments
        if e.status is not Status.KEEP or e.number
    ] or ["- none yet"]
