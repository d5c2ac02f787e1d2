"""The ledger: a session's whole history in one SQLite file, from which it resumes.

A transaction here is the commit point of the whole program. Branches, refs and `results.tsv`
follow from it and can be made again from it. A row is inserted before the work that it describes
begins, and completed when that has ended, so that a resumed session knows what was under way.

One writer (the process that owns the session), any number of readers. Reads that only views need
are in queries.py. Errors of SQLite become `LedgerError` or `StorageError`.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoresearch.errors import LedgerError, StorageError
from autoresearch.records import (
    SERVICE_REASONS,
    UNSELECTED,
    Experiment,
    HoldoutScore,
    Metric,
    Role,
    Run,
    Verdict,
)
from autoresearch.store.rows import (
    Segment,
    SessionRecord,
    columns,
    make_record,
    make_session,
    marks,
    to_cell,
)
from autoresearch.store.schema import APPLICATION_ID, SCHEMA, VERSION

if TYPE_CHECKING:  # 40 ms that `status` and `log` do not need
    from autoresearch.protocols import Failure, Proposal, RunResult

SESSION, EXPERIMENT = columns(SessionRecord), columns(Experiment)
RUN, SEGMENT = columns(Run), columns(Segment)
PROBE = "probe"  # reason of the turn that tries an agent before anything is measured
UNMEASURED = ("conflict", "duplicate", "incumbent crashed")  # discards without a metric
MEASURED = (  # a condition: the experiment's program was measured, or is being measured
    f"(reason IS NULL OR (reason NOT IN {UNMEASURED}"
    " AND reason NOT LIKE 'lost %' AND reason NOT LIKE 'unexpected error%'))"
)
SEED_LIMIT = 2**31 - 1  # seeds fit a signed 32-bit integer, which every framework takes


class Ledger:
    """One connection, usable from several threads: a lock lets them in one at a time."""

    def __init__(self, path: Path, *, readonly: bool = False) -> None:
        """Open `path`, creating it unless `readonly`. Raises `LedgerError` for a file that is
        damaged, is something else, or is of another version; such a file is never changed."""
        self.path = path
        self._lock = threading.RLock()
        is_new = not path.exists()
        if readonly and is_new:
            raise LedgerError(f"no ledger at {path}: no session was started here yet")
        with self._mapped():
            self._db = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode={'ro' if readonly else 'rwc'}",
                uri=True,
                isolation_level=None,
                check_same_thread=False,
                timeout=10,
            )
            self._db.row_factory = sqlite3.Row
            try:
                self._check(readonly, is_new)
                if not readonly:
                    self._prepare()
            except BaseException:
                self._db.close()
                raise

    def _check(self, readonly: bool, is_new: bool) -> None:
        """Raise `LedgerError` for a file that is no ledger of this version."""
        version = self.select_number("PRAGMA user_version")
        if not self.select_number("SELECT count(*) FROM sqlite_master"):
            if not is_new and any(self.path.parent.glob("*/runs/*")):
                raise LedgerError(
                    f"the ledger {self.path} is empty, but there are runs beside it: it was cut "
                    "short. It was left as it is. Put a copy of it back, or move it away to start "
                    "afresh"
                )
            if readonly:
                raise LedgerError(f"no session was started here yet: {self.path} is empty")
        elif self.select_number("PRAGMA application_id") != APPLICATION_ID:
            raise LedgerError(f"{self.path} is a database of another program")
        elif version != VERSION:
            age, remedy = (
                ("a newer", "update autoresearch")
                if version > VERSION
                else ("an older", "move it away to start afresh, or read it with that autoresearch")
            )
            raise LedgerError(
                f"{self.path} was written by {age} autoresearch (ledger version {version}, "
                f"this program reads version {VERSION}): {remedy}"
            )

    def _prepare(self) -> None:
        """Make the file ready to be written, and create the tables of a new one."""
        # FULL: a finished run survives even a power cut; one fsync per run costs little beside it.
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("PRAGMA fullfsync = 1")  # macOS flushes the drive's cache only on request
        self._db.execute("PRAGMA checkpoint_fullfsync = 1")
        self._check_pages("quick_check")
        with self.transaction():
            if self.select_number("PRAGMA user_version") == VERSION:
                return  # perhaps another process has just created the tables
            for statement in SCHEMA.split(";\n"):
                self._db.execute(statement)
            self._db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            self._db.execute(f"PRAGMA user_version = {VERSION}")

    def close(self) -> None:
        with self._lock:
            self._db.close()

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            with self._lock:
                yield
        except sqlite3.OperationalError as error:
            text = str(error)
            is_closed = "unable to open" in text and not os.access(self.path.parent, os.W_OK)
            if is_closed or "full" in text or "readonly" in text or "disk I/O" in text:
                raise StorageError(f"cannot write the ledger {self.path}: {text}") from error
            if "locked" in text:
                raise LedgerError(
                    f"{self.path} is locked by another program for more than 10 s"
                ) from error
            raise LedgerError(f"cannot use the ledger {self.path}: {text}") from error
        except sqlite3.DatabaseError as error:
            raise LedgerError(_describe_damage(self.path, str(error))) from error

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All writes inside are made, or none. May be nested: the outermost commits."""
        with self._mapped():
            if self._db.in_transaction:
                yield
                return
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")  # may fail, and leave the transaction open
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """All reads inside are of one moment, whatever others write meanwhile."""
        with self._mapped():
            self._db.execute("BEGIN")
            try:
                yield
            finally:
                self._db.execute("ROLLBACK")

    def check_integrity(self) -> None:
        """Read the whole file: pages, indexes, uniqueness. Raises `LedgerError` for damage."""
        self._check_pages("integrity_check")

    def _check_pages(self, check: str) -> None:
        damage = self.select(f"PRAGMA {check}(1)")[0][0]
        if damage != "ok":
            raise LedgerError(_describe_damage(self.path, damage))

    def select(self, sql: str, *values: object) -> list[sqlite3.Row]:
        with self._mapped():
            return self._db.execute(sql, values).fetchall()

    def select_number(self, sql: str, *values: object) -> int:
        """The first cell of the first row; NULL counts as zero."""
        return int(self.select(sql, *values)[0][0] or 0)

    def select_experiments(self, conditions: str, *values: object) -> list[Experiment]:
        rows = self.select(f"SELECT {EXPERIMENT} FROM experiment {conditions}", *values)
        return [make_record(Experiment, row) for row in rows]

    def select_runs(self, conditions: str, *values: object) -> list[Run]:
        rows = self.select(f"SELECT {RUN} FROM run {conditions}", *values)
        return [make_record(Run, row) for row in rows]

    def _insert(self, table: str, **values: object) -> int | None:
        """Insert a row. Returns its id."""
        with self.transaction():
            names = ", ".join(f"[{name}]" for name in values)
            sql = f"INSERT INTO {table} ({names}) VALUES ({marks(values)})"
            return self._db.execute(sql, tuple(map(to_cell, values.values()))).lastrowid

    def _update(self, table: str, conditions: str, *keys: object, **values: object) -> None:
        """Set `values` in the rows that `conditions` on `keys` select."""
        with self.transaction():
            assignments = ", ".join(f"[{name}] = ?" for name in values)
            sql = f"UPDATE {table} SET {assignments} WHERE {conditions}"
            self._db.execute(sql, (*map(to_cell, values.values()), *keys))

    # ---- sessions ------------------------------------------------------------------------

    def sessions(self) -> list[SessionRecord]:
        rows = self.select(f"SELECT {SESSION}, goal FROM session ORDER BY id")
        return [make_session(row) for row in rows]

    def find_session(self, tag: str) -> SessionRecord | None:
        return next((record for record in self.sessions() if record.tag == tag), None)

    def session(self, tag: str) -> SessionRecord:
        record = self.find_session(tag)
        if record is None:
            known = ", ".join(record.tag for record in self.sessions()) or "none"
            raise LedgerError(f"no session {tag!r} in {self.path}; sessions there: {known}")
        return record

    def create_session(
        self,
        tag: str,
        *,
        base_commit: str,
        metric: Metric,
        level: str,
        budget_s: float | None,
        budget_clock: str,
        limits: Mapping[str, Any],
        fingerprint: Mapping[str, str],
        now: float,
    ) -> SessionRecord:
        self._insert(
            "session",
            tag=tag,
            base_commit=base_commit,
            metric=metric.name,
            goal=metric.goal,
            level=level,
            budget_s=budget_s,
            budget_clock=budget_clock,
            limits=limits,
            fingerprint=fingerprint,
            secret=secrets.randbits(62),
            created_at=now,
        )
        return self.session(tag)

    def update_session(self, session: SessionRecord, **facts: object) -> SessionRecord:
        """Set facts of a session: level, limits, deterministic, allowance_s, ..."""
        self._update("session", "id = ?", session.id, **facts)
        return self.session(session.tag)

    def add_elapsed(self, session: SessionRecord, seconds: float) -> None:
        with self.transaction():
            self._db.execute(
                "UPDATE session SET elapsed_s = elapsed_s + ? WHERE id = ?", (seconds, session.id)
            )

    # ---- experiments ---------------------------------------------------------------------

    def begin(
        self,
        session: SessionRecord,
        *,
        base: int,
        commit: str,
        tree: str,
        agent: str,
        proposal: Proposal,
        lines: tuple[int, int] = (0, 0),
        now: float,
    ) -> Experiment:
        """Open the next experiment. `lines` are those added and removed against its base."""
        with self.transaction():
            number = self.select_number(
                "SELECT coalesce(max(number) + 1, 0) FROM experiment WHERE session = ?", session.id
            )
            self._insert(
                "experiment",
                session=session.id,
                number=number,
                base=base,
                commit=commit,
                tree=tree,
                agent=agent,
                started_at=now,
                added_lines=lines[0],
                removed_lines=lines[1],
                description=proposal.description,
                hypothesis=proposal.hypothesis,
                notes=proposal.notes,
                tokens=proposal.tokens,
                usd=proposal.usd,
            )
        return self.experiment(session, number)

    def move_base(
        self, session: SessionRecord, number: int, *, base: int, commit: str, tree: str
    ) -> Experiment:
        """Begin the next attempt of an experiment whose change was moved onto a new incumbent."""
        with self.transaction():
            self._db.execute(
                "UPDATE experiment SET base = ?, [commit] = ?, tree = ?, attempt = attempt + 1"
                " WHERE session = ? AND number = ?",
                (base, commit, tree, session.id, number),
            )
        return self.experiment(session, number)

    def finish(
        self,
        session: SessionRecord,
        number: int,
        verdict: Verdict,
        *,
        peak_memory_bytes: int | None,
        now: float,
    ) -> Experiment:
        """Record the verdict, unless there is one, and the place in the order of finishing."""
        with self.transaction():
            self._update(
                "experiment",
                "session = ? AND number = ? AND status IS NULL",
                session.id,
                number,
                **asdict(verdict),
                order=self._find_last_order(session) + 1,
                ended_at=now,
                peak_memory_bytes=peak_memory_bytes,
            )
        return self.experiment(session, number)

    def experiment(self, session: SessionRecord, number: int) -> Experiment:
        where = "WHERE session = ? AND number = ?"
        if experiments := self.select_experiments(where, session.id, number):
            return experiments[0]
        there = f"it has 0 to {self.started(session)}"
        raise LedgerError(f"session {session.tag!r} has no experiment {number}; {there}")

    def finished(
        self, session: SessionRecord, after: int = -1, last: int | None = None
    ) -> list[Experiment]:
        """Finished experiments with order > `after`, in that order; with `last`, that many."""
        where = "WHERE session = ? AND [order] > ? ORDER BY [order] DESC LIMIT ?"
        limit = -1 if last is None else last
        return self.select_experiments(where, session.id, after, limit)[::-1]

    def in_flight(self, session: SessionRecord) -> list[Experiment]:
        return self.select_experiments(
            "INDEXED BY experiment_open WHERE session = ? AND status IS NULL ORDER BY number",
            session.id,
        )

    def keeps(self, session: SessionRecord, last: int | None = None) -> list[Experiment]:
        """The baseline and every keep, or the `last` ones, in the order in which they became the
        incumbent."""
        where = "WHERE session = ? AND status = 'keep' ORDER BY [order]"
        limit = -1 if last is None else last
        keeps = self.select_experiments(f"{where} DESC LIMIT ?", session.id, limit)[::-1]
        if keeps and keeps[0].order:
            keeps = self.select_experiments(f"{where} LIMIT 1", session.id) + keeps
        return keeps

    def incumbent(self, session: SessionRecord) -> Experiment:
        where = "WHERE session = ? AND status = 'keep' ORDER BY [order] DESC LIMIT 1"
        if keeps := self.select_experiments(where, session.id):
            return keeps[0]
        raise LedgerError(f"session {session.tag!r} has no baseline yet")

    def with_tree(self, session: SessionRecord, tree: str) -> Experiment | None:
        """An experiment that measured, or is measuring, exactly these files."""
        where = (
            f"INDEXED BY experiment_tree WHERE session = ? AND tree = ? AND {MEASURED}"
            " ORDER BY number LIMIT 1"
        )
        return next(iter(self.select_experiments(where, session.id, tree)), None)

    def on_base(self, session: SessionRecord, base: int, last: int) -> list[Experiment]:
        """The latest `last` experiments that are built on experiment `base`, latest first."""
        where = (
            f"WHERE session = ? AND base = ? AND number > 0 AND {MEASURED}"
            " ORDER BY number DESC LIMIT ?"
        )
        return self.select_experiments(where, session.id, base, last)

    def recorded_tree(self, session: SessionRecord, number: int) -> str:
        """The git tree that an experiment measured, or measures."""
        sql = "SELECT tree FROM experiment WHERE session = ? AND number = ?"
        return str(self.select(sql, session.id, number)[0][0])

    def recorded_trees(self, session: SessionRecord) -> dict[int, str]:
        """The same of all experiments, by number."""
        sql = "SELECT number, tree FROM experiment WHERE session = ?"
        return {row[0]: row[1] for row in self.select(sql, session.id)}

    def started(self, session: SessionRecord) -> int:
        """Experiments begun, the baseline excluded."""
        sql = "SELECT max(number) FROM experiment WHERE session = ?"
        return self.select_number(sql, session.id)

    def all_experiments(self, session: SessionRecord) -> list[Experiment]:
        return self.select_experiments("WHERE session = ? ORDER BY number", session.id)

    def has_experiments(self, session: SessionRecord) -> bool:
        return bool(self.select("SELECT 1 FROM experiment WHERE session = ? LIMIT 1", session.id))

    def has_baseline(self, session: SessionRecord) -> bool:
        sql = "SELECT 1 FROM experiment WHERE session = ? AND number = 0 AND status = 'keep'"
        return bool(self.select(sql, session.id))

    def last_order(self, session: SessionRecord) -> int:
        """How many experiments are finished, the baseline excluded."""
        return max(0, self._find_last_order(session))

    def _find_last_order(self, session: SessionRecord) -> int:
        """The order of the experiment that finished last; -1 if none has."""
        return self.select_number(
            "SELECT coalesce(max([order]), -1) FROM experiment"
            " WHERE session = ? AND [order] IS NOT NULL",
            session.id,
        )

    def since_keep(self, session: SessionRecord) -> int:
        """Experiments finished since the incumbent became it."""
        return self.select_number(
            "SELECT (SELECT max([order]) FROM experiment"
            " WHERE session = ? AND [order] IS NOT NULL) -"
            " (SELECT max([order]) FROM experiment WHERE session = ? AND status = 'keep')",
            session.id,
            session.id,
        )

    # ---- runs ----------------------------------------------------------------------------

    def open_run(
        self,
        session: SessionRecord,
        *,
        experiment: int,
        attempt: int,
        role: Role,
        index: int,
        commit: str,
        now: float,
        segment: int = 0,
        retry: int = 0,
    ) -> Run:
        """The run of that name: the existing one, finished or not, or a new one with a seed that no
        other run has, in that segment."""
        name = {
            "session": session.id,
            "experiment": experiment,
            "attempt": attempt,
            "role": role,
            "segment": segment,
            "index": index,
            "retry": retry,
        }
        with self.transaction():
            conditions = " AND ".join(f"[{column}] = ?" for column in name)
            if runs := self.select_runs(f"WHERE {conditions}", *name.values()):
                return runs[0]
            seed = self._draw_seed(session)
            return self._run(self._insert("run", **name, commit=commit, seed=seed, started_at=now))

    def _draw_seed(self, session: SessionRecord) -> int:
        # From the system's random source, not from a counter: an agent must not guess the next.
        while True:
            seed = secrets.randbelow(SEED_LIMIT)
            sql = "SELECT 1 FROM run WHERE session = ? AND seed = ?"
            if not self.select(sql, session.id, seed):
                return seed

    def _run(self, run_id: int | None) -> Run:
        return self.select_runs("WHERE id = ?", run_id)[0]

    def finish_run(
        self,
        run: Run,
        *,
        metric: float | None,
        reason: str | None,
        numbers: Mapping[str, float],
        slot: int | None,
        exit_code: int | None,
        wall_s: float,
        cpu_s: float | None,
        peak_memory_bytes: int | None,
        score: RunResult | None = None,
        sealed: HoldoutScore | None = None,
    ) -> Run:
        self._update(
            "run",
            "id = ?",
            run.id,
            finished=True,
            metric=metric,
            reason=reason,
            numbers=numbers,
            slot=slot,
            exit_code=exit_code,
            wall_s=wall_s,
            cpu_s=cpu_s,
            peak_memory_bytes=peak_memory_bytes,
            score_cpu_s=score and score.cpu_s,
            score_wall_s=score and score.wall_s,
            holdout=sealed and sealed.metric,
            holdout_reason=sealed and sealed.reason,
            holdout_cpu_s=sealed and sealed.cpu_s,
            holdout_wall_s=sealed and sealed.wall_s,
        )
        return self._run(run.id)

    def open_runs(self, session: SessionRecord) -> list[Run]:
        """Runs begun and not finished: under way now, or when the session was killed."""
        return self.select_runs("WHERE session = ? AND finished = 0 ORDER BY id", session.id)

    def was_topped_up(self, session: SessionRecord, order: int) -> bool:
        """Whether the top-up after the experiment of that order is done: with success, or twice."""
        sql = (
            "SELECT 1 FROM run WHERE session = ? AND role = ? AND finished = 1"
            " AND [index] = ? AND (metric IS NOT NULL OR retry > 0)"
        )
        return bool(self.select(sql, session.id, Role.TOPUP, order))

    def restart_run(self, run: Run, now: float) -> None:
        self._update("run", "id = ?", run.id, started_at=now)

    def forget_run(self, run: Run) -> None:
        """Delete a run that was cut off. It is made again, on another seed, when it is needed."""
        with self.transaction():
            self._db.execute("DELETE FROM run WHERE id = ? AND finished = 0", (run.id,))

    def runs(self, session: SessionRecord, experiment: int) -> list[Run]:
        where = "WHERE session = ? AND experiment = ? ORDER BY id"
        return self.select_runs(where, session.id, experiment)

    def all_runs(self, session: SessionRecord) -> list[Run]:
        return self.select_runs("WHERE session = ? ORDER BY id", session.id)

    def list_missing(
        self,
        session: SessionRecord,
        owner: Experiment,
        commits: Sequence[tuple[Role, str]],
        runs: int,
        segment: int,
    ) -> list[tuple[Role, int, str]]:
        """The runs of `owner` that lack until each commit has `runs` finished ones in its role and
        that segment, as (role, index, commit). A new run has the next index of its role."""
        made = [
            run
            for run in self.runs(session, owner.number)
            if run.attempt == owner.attempt and run.segment == segment
        ]
        following = dict.fromkeys((role for role, _ in commits), 0)
        for run in made:
            following[run.role] = max(following.get(run.role, 0), run.index + 1)
        missing: list[tuple[Role, int, str]] = []
        for role, commit in commits:
            own = [run for run in made if (run.role, run.commit) == (role, commit)]
            missing += [(role, run.index, commit) for run in own if not run.finished]
            for _ in range(runs - len(own)):
                missing.append((role, following[role], commit))
                following[role] += 1
        return missing

    def runs_of(
        self,
        session: SessionRecord,
        commit: str,
        roles: Sequence[Role] = UNSELECTED,
        last: int | None = None,
    ) -> list[Run]:
        """Finished runs of a commit in these roles, oldest first; with `last`, the last ones."""
        return self.select_runs(
            f"WHERE session = ? AND [commit] = ? AND role IN ({marks(roles)})"
            " AND finished = 1 ORDER BY id DESC LIMIT ?",
            session.id,
            commit,
            *roles,
            -1 if last is None else last,
        )[::-1]

    def scores(
        self, session: SessionRecord, commits: Sequence[str], before: int | None = None
    ) -> dict[tuple[str, int], list[float]]:
        """The metrics of these commits' unselected runs, by (commit, segment), oldest first.
        Crashed runs are left out, and with `before` the run of that id and later ones."""
        groups: dict[tuple[str, int], list[float]] = {}
        for commit, segment, metric in self.select(
            f"SELECT [commit], segment, metric FROM run WHERE session = ? AND [commit] IN"
            f" ({marks(commits)}) AND role IN ({marks(UNSELECTED)})"
            " AND finished = 1 AND metric IS NOT NULL AND id < ? ORDER BY id",
            session.id,
            *commits,
            *UNSELECTED,
            sys.maxsize if before is None else before,
        ):
            groups.setdefault((commit, segment), []).append(metric)
        return groups

    # ---- costs -----------------------------------------------------------------------------

    def spent(self, session: SessionRecord) -> dict[str, float]:
        """Wall and CPU seconds of all finished runs and their scorers, and the number of runs."""
        scored = " + coalesce(score_{0}_s, 0) + coalesce(holdout_{0}_s, 0)"
        sums = (f"coalesce(sum({c}_s{scored.format(c)}), 0)" for c in ("wall", "cpu"))
        sql = f"SELECT {', '.join(sums)}, count(*) FROM run WHERE session = ? AND finished = 1"
        return dict(zip(("wall_s", "cpu_s", "runs"), self.select(sql, session.id)[0], strict=True))

    def costs(self, session: SessionRecord) -> tuple[int, float]:
        """(tokens, dollars) of all turns, failed ones too; an unknown cost counts as nothing."""
        return self._aggregate_costs(session, "sum")

    def largest_turn(self, session: SessionRecord) -> tuple[int, float]:
        """(tokens, dollars) of the most expensive turns so far."""
        return self._aggregate_costs(session, "max")

    def _aggregate_costs(self, session: SessionRecord, function: str) -> tuple[int, float]:
        tokens, usd = self.select(
            f"SELECT coalesce({function}(tokens), 0), coalesce({function}(usd), 0) FROM"
            " (SELECT tokens, usd FROM experiment WHERE session = ?"
            " UNION ALL SELECT tokens, usd FROM turn WHERE session = ?)",
            session.id,
            session.id,
        )[0]
        return int(tokens), float(usd)

    # ---- segments --------------------------------------------------------------------------

    def begin_segment(
        self,
        session: SessionRecord,
        number: int,
        *,
        reason: str,
        fingerprint: Mapping[str, str],
        now: float,
    ) -> Segment:
        """Begin a segment: experiments that finish from now on belong to it."""
        with self.transaction():
            self._insert(
                "segment",
                session=session.id,
                number=number,
                at=now,
                after_order=self._find_last_order(session),
                reason=reason,
                fingerprint=fingerprint,
            )
        return self.segments(session)[-1]

    def segments(self, session: SessionRecord) -> list[Segment]:
        """In their order; none before the first run."""
        sql = f"SELECT {SEGMENT} FROM segment WHERE session = ? ORDER BY number"
        return [make_record(Segment, row) for row in self.select(sql, session.id)]

    def starts(self, session: SessionRecord) -> list[int]:
        """The `after_order` of all segments, in their order: see `segment_of`."""
        sql = "SELECT after_order FROM segment WHERE session = ? ORDER BY number"
        return [row[0] for row in self.select(sql, session.id)]

    def segment(self, session: SessionRecord) -> int:
        """The number of the latest segment."""
        sql = "SELECT max(number) FROM segment WHERE session = ?"
        return self.select_number(sql, session.id)

    # ---- failed turns, notes, and published files -----------------------------------------

    def add_turn(self, session: SessionRecord, agent: str, failure: Failure, now: float) -> None:
        self._insert(
            "turn",
            session=session.id,
            at=now,
            agent=agent,
            reason=failure.reason,
            message=failure.message,
            tokens=failure.tokens,
            usd=failure.usd,
        )

    def fruitless_turns(self, session: SessionRecord) -> int:
        """Failed turns that cost something: without those that met a service that was down, and
        without probes."""
        free = (PROBE, *SERVICE_REASONS)
        sql = f"SELECT count(*) FROM turn WHERE session = ? AND reason NOT IN ({marks(free)})"
        return self.select_number(sql, session.id, *free)

    def add_note(self, session: SessionRecord, agent: str, text: str, now: float) -> None:
        self._insert("note", session=session.id, at=now, agent=agent, text=text)

    def add_published(self, path: Path, sha256: str) -> None:
        """Call before replacing the file: after a crash in between, both versions are known."""
        with self.transaction():
            self._db.execute("INSERT OR IGNORE INTO published VALUES (?, ?)", (str(path), sha256))

    def was_published(self, path: Path, sha256: str) -> bool:
        sql = "SELECT 1 FROM published WHERE path = ? AND sha256 = ?"
        return bool(self.select(sql, str(path), sha256))


def _describe_damage(path: Path, detail: str) -> str:
    return (
        f"the ledger {path} is damaged ({detail}); it was left as it is. "
        f"Try `sqlite3 {path} .recover` into a new file, or move it away to start afresh"
    )
