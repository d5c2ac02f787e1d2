"""Gathers what an agent is told, at a cost that does not grow with the night: what finished since
the last briefing is read once, a log once, a commit's names once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import TypeVar

from autoresearch.briefing import ground, record
from autoresearch.briefing.logs import Curve, curves, edges, kind_of, last_words
from autoresearch.briefing.memory import DESCRIPTION, GAINING, Memory
from autoresearch.briefing.scene import Crash, Scene, Training
from autoresearch.briefing.sections import Section, fit
from autoresearch.briefing.source import Names, joined, names, source
from autoresearch.core import history
from autoresearch.git.repository import Repository
from autoresearch.records import Experiment, Run
from autoresearch.store.ledger import Ledger
from autoresearch.store.paths import SessionPaths
from autoresearch.store.rows import SessionRecord
from autoresearch.task.model import Task

T = TypeVar("T")

LATEST = 30  # experiments that failed, told one by one
CURVES = 3  # latest runs whose curves are shown, beside the incumbent's
CRASHES = 2  # different ones whose last words are shown
NOTES, AMONG = 10, 300  # the latest so many, of so many experiments
TURNS = 8
REMEMBERED = 64  # logs and commits that were read
IMPORTANCE = (
    "Objective",
    "Tried last, and not kept",
    "Kept",
    "Near misses, worth combining",
    "What the whole session tried, by name",
    "Turns that came to nothing",
    "Crashes",
    "Notes of agents to themselves",
)


class Briefer:
    """Writes the briefings of one session. Only reads; `ledger` may be open for reading only."""

    def __init__(
        self,
        task: Task,
        ledger: Ledger,
        record: SessionRecord,
        repository: Repository,
        paths: SessionPaths,
    ) -> None:
        self._task = task
        self._ledger = ledger
        self._tag = record.tag
        self._repository = repository
        self._paths = paths
        self._memory = Memory(record.metric)
        self._read: dict[Hashable, object] = {}

    def text(self, left: Sequence[str] = ()) -> str:
        """The briefing, at most `[agent] briefing` tokens, and the source after it. `left` are
        lines that say what is left of the session's limits. Raises `LedgerError` while there is no
        baseline."""
        record = self._ledger.session(self._tag)
        incumbent = self._ledger.incumbent(record)
        self._learn(record)
        scene = self._scene(record, incumbent, left)
        limit = self._task.agent.briefing
        briefing = fit(_sections(scene, limit), limit, IMPORTANCE)
        return briefing + self._once(("source", scene.incumbent.commit), self._source, scene)

    def _learn(self, record: SessionRecord) -> None:
        """What finished since the last time."""
        after, last = self._memory.order, self._ledger.last_order(record)
        if last > after:
            scale = history.SegmentAlignment(self._ledger, record)
            tried = self._ledger.tried(record, after, last, GAINING)
            self._memory.learn(
                last,
                [one._replace(metric=scale.then(one.metric, one.order)) for one in tried],
                self._ledger.descriptions(record, max(0, after), last, DESCRIPTION),
            )

    def _scene(self, record: SessionRecord, incumbent: Experiment, left: Sequence[str]) -> Scene:
        ledger, scale = self._ledger, history.SegmentAlignment(self._ledger, record)
        return Scene(
            task=self._task,
            record=record,
            reference=history.reference(ledger, record, incumbent),
            incumbent=incumbent,
            memory=self._memory,
            names=joined([self._names(incumbent.commit), self._names(record.base_commit)]),
            latest=[scale.of(one) for one in ledger.finished(record, after=0, last=LATEST + 5)],
            scale=scale,
            in_flight=ledger.in_flight(record),
            trainings=list(self._trainings(record, incumbent.commit)),
            crashes=self._crashes(record),
            noted=ledger.noted(record, last=NOTES, among=AMONG),
            notes=ledger.notes(record, last=NOTES),
            turns=ledger.turns(record, last=TURNS),
            left=left,
        )

    # ---- what does not change, read once -----------------------------------------------------

    def _once(self, key: Hashable, read: Callable[..., T], *given: object) -> T:
        if key not in self._read:
            if len(self._read) >= REMEMBERED:
                del self._read[next(iter(self._read))]
            self._read[key] = read(*given)
        else:
            self._read[key] = self._read.pop(key)  # used last, forgotten last
        return self._read[key]  # type: ignore[return-value]

    def _names(self, commit: str) -> Names:
        return self._once(("names", commit), lambda: names(self._repository.editable_files(commit)))

    def _source(self, scene: Scene) -> str:
        return source(self._repository.editable_files(scene.incumbent.commit))

    def _trainings(self, record: SessionRecord, incumbent: str) -> Iterator[Training]:
        """Of the incumbent's latest scheduled run, and of the latest other experiments."""
        own = self._ledger.runs_of(record, incumbent, last=1)
        latest = {
            run.experiment: run
            for run in self._ledger.latest_runs(record, 4 * CURVES)
            if run.commit != incumbent
        }
        for run in (*own, *[latest[number] for number in sorted(latest)][-CURVES:]):
            if found := self._once(("curves", run.id), self._curves, run, record.metric.name):
                yield Training(run.experiment, found)

    def _curves(self, run: Run, metric: str) -> list[Curve]:
        return curves(edges(self._paths.runs / run.name / "log"), metric)

    def _crashes(self, record: SessionRecord) -> list[Crash]:
        """The latest two that ended differently."""
        found: dict[str, Crash] = {}
        for one in reversed(self._memory.crashed):
            crash = self._once(
                ("crash", one.number), self._crash, record, one.number, one.reason or "unknown"
            )
            if crash.words:
                found.setdefault(kind_of(crash.words), crash)
            if len(found) == CRASHES:
                break
        return list(found.values())

    def _crash(self, record: SessionRecord, number: int, reason: str) -> Crash:
        ended = [run for run in self._ledger.runs(record, number) if run.finished]
        broken = [run for run in ended if run.metric is None]
        # What a scorer said may hold what is hidden from the agent.
        if not broken or reason.startswith("score: "):
            return Crash(number, reason, ())
        log = self._paths.runs / broken[-1].name / "log"
        return Crash(number, reason, last_words(edges(log)))


def _sections(scene: Scene, limit_tokens: int) -> Sequence[Section]:
    return ground.present(
        ground.objective(scene, limit_tokens),
        ground.rules(scene),
        ground.better(scene),
        ground.standing(scene),
        record.kept(scene),
        record.near_misses(scene),
        record.by_name(scene),
        record.failed(scene, LATEST),
        record.crashes(scene),
        record.trainings(scene),
        record.notes(scene),
        record.fruitless(scene),
        record.in_flight(scene),
        ground.plateau(scene),
        ground.left(scene),
    )
