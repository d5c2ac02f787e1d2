"""Writes the briefings of a session. Their cost does not grow with the session's length: each
finished experiment, each log and each commit is read once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import TypeVar

from autoresearch.briefing import history_sections, task_sections
from autoresearch.briefing.digest import DESCRIPTION, GAINING, Digest
from autoresearch.briefing.facts import Crash, Facts, Training
from autoresearch.briefing.fitting import Section, fit
from autoresearch.briefing.logs import Curve, find_curves, get_last_words, mask_numbers, read_ends
from autoresearch.briefing.plateau import suggest_direction
from autoresearch.briefing.source_code import Names, find_names, join_names, show_source
from autoresearch.core import history
from autoresearch.git.repository import Repository
from autoresearch.records import Experiment
from autoresearch.store import queries
from autoresearch.store.ledger import Ledger
from autoresearch.store.paths import SessionPaths
from autoresearch.store.rows import SessionRecord
from autoresearch.task.model import Task

T = TypeVar("T")

LATEST = 30  # failed experiments listed one by one
CURVES = 3  # latest runs whose curves are shown, beside the incumbent's
CRASHES = 2  # different crashes whose last output is shown
NOTES, AMONG = 10, 300  # the latest notes, among so many experiments
TURNS = 8
CACHED = 64  # logs and commits whose contents are kept
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
        self._digest = Digest(record.metric)
        self._cache: dict[Hashable, object] = {}

    def text(self, limits_left: Sequence[str] = ()) -> str:
        """The briefing, at most `[agent] briefing` tokens, and the source after it. `limits_left`
        are lines that say what is left of the session's limits. Raises `LedgerError` while there
        is no baseline."""
        record = self._ledger.session(self._tag)
        incumbent = self._ledger.incumbent(record)
        self._update_digest(record)
        facts = self._look_up(record, incumbent, limits_left)
        limit = self._task.agent.briefing
        briefing = fit(_make_sections(facts, limit), limit, IMPORTANCE)
        return briefing + self._once("source", incumbent.commit, self._show_source)

    def _update_digest(self, record: SessionRecord) -> None:
        """Add what finished since the last briefing."""
        after, last = self._digest.order, self._ledger.last_order(record)
        if last > after:
            scale = history.SegmentAlignment(self._ledger, record)
            tried = queries.list_past_attempts(self._ledger, record, after, last, GAINING)
            self._digest.add(
                last,
                [row._replace(metric=scale.then(row.metric, row.order)) for row in tried],
                queries.list_descriptions(self._ledger, record, max(0, after), last, DESCRIPTION),
            )

    def _look_up(
        self, record: SessionRecord, incumbent: Experiment, limits_left: Sequence[str]
    ) -> Facts:
        ledger, scale = self._ledger, history.SegmentAlignment(self._ledger, record)
        commits = (incumbent.commit, record.base_commit)
        return Facts(
            task=self._task,
            record=record,
            reference=history.reference(ledger, record, incumbent),
            incumbent=incumbent,
            digest=self._digest,
            names=join_names([self._once("names", commit, self._find_names) for commit in commits]),
            latest=[scale.align(row) for row in ledger.finished(record, after=0, last=LATEST + 5)],
            scale=scale,
            in_flight=ledger.in_flight(record),
            trainings=list(self._read_curves(record, incumbent.commit)),
            crashes=self._choose_crashes(record),
            with_notes=queries.list_with_notes(ledger, record, last=NOTES, among=AMONG),
            notes=queries.list_notes(ledger, record, last=NOTES),
            turns=queries.list_failed_turns(ledger, record, last=TURNS),
            limits_left=limits_left,
        )

    # ---- what does not change, read once -----------------------------------------------------

    def _once(self, kind: str, key: Hashable, read: Callable[..., T], *more: object) -> T:
        """Return `read(key, *more)`. Its value is kept while the cache has room."""
        if (kind, key) not in self._cache:
            if len(self._cache) >= CACHED:
                del self._cache[next(iter(self._cache))]
            self._cache[kind, key] = read(key, *more)
        else:
            self._cache[kind, key] = self._cache.pop((kind, key))  # used last, dropped last
        return self._cache[kind, key]  # type: ignore[return-value]

    def _find_names(self, commit: str) -> Names:
        return find_names(self._repository.editable_files(commit))

    def _show_source(self, commit: str) -> str:
        return show_source(self._repository.editable_files(commit))

    def _read_curves(self, record: SessionRecord, incumbent: str) -> Iterator[Training]:
        """Read the curves of the incumbent's latest scheduled run, and of the latest other
        experiments."""
        own = self._ledger.runs_of(record, incumbent, last=1)
        latest = {
            run.experiment: run
            for run in queries.list_latest_runs(self._ledger, record, 4 * CURVES)
            if run.commit != incumbent
        }
        for run in (*own, *[latest[number] for number in sorted(latest)][-CURVES:]):
            if curves := self._once("curves", run.name, self._find_curves, record.metric.name):
                yield Training(run.experiment, curves)

    def _find_curves(self, run: str, metric: str) -> list[Curve]:
        return find_curves(read_ends(self._paths.runs / run / "log"), metric)

    def _choose_crashes(self, record: SessionRecord) -> list[Crash]:
        """The latest crashes that ended differently."""
        chosen: dict[str, Crash] = {}
        for row in reversed(self._digest.crashed):
            reason = row.reason or "unknown"
            crash = self._once("crash", row.number, self._read_crash, record, reason)
            if crash.output:
                chosen.setdefault(mask_numbers(crash.output[-1]), crash)
            if len(chosen) == CRASHES:
                break
        return list(chosen.values())

    def _read_crash(self, number: int, record: SessionRecord, reason: str) -> Crash:
        crashed = [
            run for run in self._ledger.runs(record, number) if run.finished and run.metric is None
        ]
        # What a scorer said may hold what is hidden from the agent.
        if not crashed or reason.startswith("score: "):
            return Crash(number, reason, ())
        log = self._paths.runs / crashed[-1].name / "log"
        return Crash(number, reason, get_last_words(read_ends(log)))


def _make_sections(facts: Facts, limit_tokens: int) -> Sequence[Section]:
    return (
        task_sections.describe_objective(facts, limit_tokens),
        task_sections.describe_rules(facts),
        task_sections.describe_judge(facts),
        task_sections.describe_standing(facts),
        history_sections.list_keeps(facts),
        history_sections.list_near_misses(facts),
        history_sections.list_words(facts),
        history_sections.list_failures(facts, LATEST),
        history_sections.list_crashes(facts),
        history_sections.list_curves(facts),
        history_sections.list_notes(facts),
        history_sections.list_fruitless_turns(facts),
        history_sections.list_in_flight(facts),
        suggest_direction(facts),
        task_sections.describe_limits(facts),
    )
