"""Writes the briefings of a session. Their cost does not grow with the session's length: each
finished experiment, each log and each commit is read once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from autoresearch.briefing import history_sections, task_sections
from autoresearch.briefing.digest import Digest, read_into
from autoresearch.briefing.earlier import Earlier, list_earlier, read_earlier
from autoresearch.briefing.facts import Crash, Facts
from autoresearch.briefing.fitting import Section, fit
from autoresearch.briefing.logs import (
    Curve,
    find_curves,
    get_last_words,
    mask_numbers,
    read_ends,
)
from autoresearch.briefing.plateau import suggest_direction
from autoresearch.briefing.source_code import Names, find_names, show_source
from autoresearch.core import history
from autoresearch.git.repository import Repository
from autoresearch.measure.builds import BUILD
from autoresearch.measure.diagnosis import find_first_error
from autoresearch.measure.scratch import read_scratch
from autoresearch.records import Experiment
from autoresearch.store import queries
from autoresearch.store.ledger import Ledger
from autoresearch.store.paths import SessionPaths
from autoresearch.store.rows import SessionRecord
from autoresearch.task.model import Task

CURVES = 3  # latest runs whose curves are shown, beside the incumbent's
CRASHES = 2  # different crashes whose last output is shown
NOTES, AMONG = 10, 300  # the latest notes, among so many experiments
TURNS = 8
CACHED = 64  # of each kind: logs and commits whose contents are kept


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
        self._record = record
        self._repository = repository
        self._paths = paths
        self._digest = Digest(record.metric)
        self._earlier: list[Earlier] | None = None
        # These never change, so each is read once.
        self._find_names = lru_cache(CACHED)(self._find_names_of)
        self._show_source = lru_cache(CACHED)(self._show_source_of)
        self._find_curves = lru_cache(CACHED)(self._find_curves_of)
        self._read_crash = lru_cache(CACHED)(self._read_crash_of)

    def text(self, limits_left: Sequence[str] = ()) -> str:
        """Return the briefing, at most `[agent] briefing` tokens, and the source after it.
        `limits_left` are lines that describe what is left of the session's limits. Raises
        `LedgerError` while there is no baseline."""
        self._record = record = self._ledger.session(self._record.tag)
        incumbent = self._ledger.incumbent(record)
        scale = history.SegmentAlignment(self._ledger, record)
        read_into(self._digest, self._ledger, record, scale)
        facts = self._look_up(incumbent, scale, limits_left)
        limit = self._task.agent.briefing
        return fit(_make_sections(facts, limit), limit) + self._show_source(incumbent.commit)

    def _look_up(
        self, incumbent: Experiment, scale: history.SegmentAlignment, limits_left: Sequence[str]
    ) -> Facts:
        record, ledger = self._record, self._ledger
        names = self._find_names(incumbent.commit)
        first_names = self._find_names(record.base_commit)
        latest = ledger.finished(record, after=0, last=history_sections.FAILURES + 5)
        return Facts(
            task=self._task,
            record=record,
            reference=history.reference(ledger, record, incumbent),
            incumbent=incumbent,
            digest=self._digest,
            earlier=self._read_earlier(),
            names=Names(names.constants, names.all | first_names.all),
            latest=[scale.align(experiment) for experiment in latest],
            scale=scale,
            in_flight=ledger.in_flight(record),
            curves=self._choose_curves(incumbent.commit),
            crashes=self._choose_crashes(),
            with_notes=queries.list_with_notes(ledger, record, last=NOTES, among=AMONG),
            notes=queries.list_notes(ledger, record, last=NOTES),
            scratch=read_scratch(ledger, record, self._repository),
            turns=queries.list_failed_turns(ledger, record, last=TURNS),
            limits_left=limits_left,
        )

    def _read_earlier(self) -> list[Earlier]:
        if self._earlier is None:
            remembers = self._task.agent.memory
            facts = (self._ledger, self._record, self._paths.root)
            self._earlier = read_earlier(*facts) if remembers else []
        return self._earlier

    def _find_names_of(self, commit: str) -> Names:
        return find_names(self._repository.editable_files(commit))

    def _show_source_of(self, commit: str) -> str:
        return show_source(self._repository.editable_files(commit))

    def _choose_curves(self, incumbent: str) -> Sequence[tuple[int, Sequence[Curve]]]:
        """Return (experiment, curves) of the incumbent's latest scheduled run, and of the latest
        other experiments."""
        latest = {
            run.experiment: run
            for run in queries.list_latest_runs(self._ledger, self._record, 4 * CURVES)
            if run.commit != incumbent
        }
        runs = self._ledger.runs_of(self._record, incumbent, last=1)
        runs += [latest[number] for number in sorted(latest)][-CURVES:]
        return [(run.experiment, self._find_curves(run.name)) for run in runs]

    def _find_curves_of(self, run: str) -> Sequence[Curve]:
        return find_curves(read_ends(self._paths.runs / run / "log"), self._record.metric.name)

    def _choose_crashes(self) -> Sequence[Crash]:
        """Return the latest crashes that ended differently."""
        chosen: dict[str, Crash] = {}
        for row in reversed(self._digest.crashed):
            crash = self._read_crash(row.number, row.reason or "unknown")
            if crash.output:
                chosen.setdefault(mask_numbers(crash.output[-1]), crash)
            if len(chosen) == CRASHES:
                break
        return list(chosen.values())

    def _read_crash_of(self, number: int, reason: str) -> Crash:
        crashed = [
            run
            for run in self._ledger.runs(self._record, number)
            if run.finished and run.metric is None
        ]
        is_score = reason.startswith("score: ")
        if not crashed or (is_score and self._task.hidden):  # its output may hold what is hidden
            return Crash(number, reason, ())
        log = "score.log" if is_score else "log"
        lines = read_ends(self._paths.runs / crashed[-1].name / log)
        first = find_first_error(lines) if reason.startswith(BUILD) else []
        return Crash(number, reason, first or get_last_words(lines))


def _make_sections(facts: Facts, limit_tokens: int) -> Sequence[Section]:
    return (
        task_sections.describe_objective(facts, limit_tokens),
        task_sections.describe_rules(facts),
        task_sections.describe_judge(facts),
        task_sections.describe_standing(facts),
        history_sections.list_keeps(facts),
        history_sections.list_near_misses(facts),
        history_sections.list_words(facts),
        history_sections.list_failures(facts),
        history_sections.list_crashes(facts),
        history_sections.list_curves(facts),
        history_sections.list_scratch(facts),
        history_sections.list_notes(facts),
        list_earlier(facts.earlier),
        history_sections.list_fruitless_turns(facts),
        history_sections.list_in_flight(facts),
        suggest_direction(facts),
        task_sections.describe_limits(facts),
    )
