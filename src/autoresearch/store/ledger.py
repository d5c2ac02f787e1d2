"""The ledger: all that happened, in one SQLite file. The only state; to resume is to read it.

A transaction here is the commit point of the whole program. Branches, refs and `results.tsv`
follow from it and can be made again from it. Rows are inserted before the work they describe
begins and completed when it ended, so that a resumed session knows what was under way.

One writer (the process that owns the session), any number of readers. Errors of SQLite become
`LedgerError` or `StorageError` here and nowhere else.
"""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple
from operator import itemgetter
from pathlib import Path
from typing import Any

from autoresearch.errors import LedgerError, StorageError
from autoresearch.protocols import SERVICE_REASONS, Failure, Proposal, RunResult
from autoresearch.records import (
    UNSELECTED,
    Experiment,
    HoldoutScore,
    Metric,
    Role,
    Run,
    Status,
    Verdict,
)
from autoresearch.store.rows import (
    Note,
    PastAttempt,
    Segment,
    SessionRecord,
    Share,
    experiment_of,
    run_of,
    session_of,
)
from autoresearch.store.schema import APPLICATION_ID, SCHEMA, VERSION

PROBE = "probe"  # reason of the turn that tries an agent before anything is measured
SEED_LIMIT = 2**31 - 1  # seeds fit a signed 32-bit integer, which every framework takes
SENTENCE = 4  # words; a note of fewer is a mark


class Ledger:
    """One connection, usable from several threads: a lock lets them in one at a time."""

    def __init__(self, path: Path, *, readonly: bool = False) -> None:
        """Open `path`, creating it unless `readonly`. Raises `LedgerError` for a file that is
        damaged, is something else, or was written by a newer version; it is never overwritten."""
        self.path = path
        self._lock = threading.RLock()
        if readonly and not path.exists():
            raise LedgerError(f"no ledger at {path}: no session was started here yet")
        mode = "ro" if readonly else "rwc"
        was_there = path.exists()
        with self._mapped():
            self._db = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode={mode}",
                uri=True,
                isolation_level=None,
                check_same_thread=False,
                timeout=10,
            )
            self._db.row_factory = sqlite3.Row
            try:
                self._check_or_upgrade(readonly, was_there)
            except BaseException:
                self._db.close()
                raise

    def _check_or_upgrade(self, readonly: bool, was_there: bool) -> None:
        application_id = self._db.execute("PRAGMA application_id").fetchone()[0]
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        tables = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if tables and application_id != APPLICATION_ID:
            raise LedgerError(f"{self.path} is a database of another program")
        if not tables and was_there and any(self.path.parent.glob("*/runs/*")):
            raise LedgerError(
                f"the ledger {self.path} is empty, but there are runs beside it: it was cut short. "
                "It was left as it is. Put a copy of it back, or move it away to start afresh"
            )
        if not tables and readonly:
            raise LedgerError(f"no session was started here yet: {self.path} is empty")
        if tables and version != VERSION:
            age, remedy = (
                ("a newer", "update autoresearch")
                if version > VERSION
                else ("an older", "move it away to start afresh, or read it with that autoresearch")
            )
            raise LedgerError(
                f"{self.path} was written by {age} autoresearch (ledger version {version}, "
                f"this program reads version {VERSION}): {remedy}"
            )
        if readonly:
            return
        # FULL: a finished run survives even a power cut; one fsync per run is nothing beside it.
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("PRAGMA fullfsync = 1")  # macOS asks the drive only when told to
        self._db.execute("PRAGMA checkpoint_fullfsync = 1")
        damage = self._db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if damage != "ok":
            raise LedgerError(_damaged(self.path, damage))
        with self.transaction():
            if self._number("PRAGMA user_version") == VERSION:
                return  # another process may have created the tables since we looked
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
            closed = "unable to open" in text and not os.access(self.path.parent, os.W_OK)
            if closed or "full" in text or "readonly" in text or "disk I/O" in text:
                raise StorageError(f"cannot write the ledger {self.path}: {text}") from error
            if "locked" in text:
                raise LedgerError(
                    f"{self.path} is locked by another program for more than 10 s"
                ) from error
            raise LedgerError(f"cannot use the ledger {self.path}: {text}") from error
        except sqlite3.DatabaseError as error:
            raise LedgerError(_damaged(self.path, str(error))) from error

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything inside happens, or nothing does. May be nested: the outermost commits."""
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
        """Everything read inside is of one moment, whatever others write meanwhile."""
        with self._mapped():
            self._db.execute("BEGIN")
            try:
                yield
            finally:
                self._db.execute("ROLLBACK")

    def check_integrity(self) -> None:
        """Read the whole file: pages, indexes, uniqueness. Raises `LedgerError` for damage."""
        with self._mapped():
            damage = self._db.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if damage != "ok":
            raise LedgerError(_damaged(self.path, damage))

    def _all(self, sql: str, *values: object) -> list[sqlite3.Row]:
        with self._mapped():
            return self._db.execute(sql, values).fetchall()

    def _one(self, sql: str, *values: object) -> sqlite3.Row | None:
        rows = self._all(sql, *values)
        return rows[0] if rows else None

    def _number(self, sql: str, *values: object) -> int:
        """The first cell of the first row, NULL read as none of something: zero."""
        return int(self._all(sql, *values)[0][0] or 0)

    # ---- sessions ------------------------------------------------------------------------

    def sessions(self) -> list[SessionRecord]:
        return [session_of(row) for row in self._all("SELECT * FROM session ORDER BY id")]

    def find_session(self, tag: str) -> SessionRecord | None:
        row = self._one("SELECT * FROM session WHERE tag = ?", tag)
        return session_of(row) if row else None

    def session(self, tag: str) -> SessionRecord:
        found = self.find_session(tag)
        if found is None:
            known = ", ".join(s.tag for s in self.sessions()) or "none"
            raise LedgerError(f"no session {tag!r} in {self.path}; sessions there: {known}")
        return found

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
        with self.transaction():
            self._db.execute(
                "INSERT INTO session (tag, base_commit, metric, goal, level, budget_s,"
                " budget_clock, limits, fingerprint, secret, created_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    tag,
                    base_commit,
                    metric.name,
                    metric.goal,
                    level,
                    budget_s,
                    budget_clock,
                    json.dumps(limits),
                    json.dumps(fingerprint),
                    secrets.randbits(62),
                    now,
                ),
            )
        return self.session(tag)

    def update_session(self, session: SessionRecord, **facts: object) -> SessionRecord:
        """Set facts that a session learns: level, limits, deterministic, allowance_s, ..."""
        values = {
            key: json.dumps(value) if isinstance(value, (dict, list, tuple)) else value
            for key, value in facts.items()
        }
        assignments = ", ".join(f"{key} = ?" for key in values)
        with self.transaction():
            self._db.execute(
                f"UPDATE session SET {assignments} WHERE id = ?", (*values.values(), session.id)
            )
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
            number = self._number(
                "SELECT coalesce(max(number) + 1, 0) FROM experiment WHERE session = ?", session.id
            )
            self._db.execute(
                "INSERT INTO experiment (session, number, base, commit_id, tree_id, agent,"
                " description, started_at, added_lines, removed_lines, hypothesis, notes, tokens,"
                " usd) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    session.id,
                    number,
                    base,
                    commit,
                    tree,
                    agent,
                    proposal.description,
                    now,
                    *lines,
                    proposal.hypothesis,
                    proposal.notes,
                    proposal.tokens,
                    proposal.usd,
                ),
            )
        return self.experiment(session, number)

    def move_base(
        self, session: SessionRecord, number: int, *, base: int, commit: str, tree: str
    ) -> Experiment:
        """The change was moved onto a new incumbent: its next attempt begins."""
        with self.transaction():
            self._db.execute(
                "UPDATE experiment SET base = ?, commit_id = ?, tree_id = ?, attempt = attempt + 1"
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
        """Record the verdict and give the experiment its place in the order of finishing."""
        with self.transaction():
            order = self._number(
                "SELECT coalesce(max(finish_order) + 1, 0) FROM experiment"
                " WHERE session = ? AND finish_order IS NOT NULL",
                session.id,
            )
            self._db.execute(
                "UPDATE experiment SET status = ?, reason = ?, metric = ?, detail = ?,"
                " finish_order = ?, ended_at = ?, peak_memory_bytes = ?, flag = ?"
                " WHERE session = ? AND number = ? AND status IS NULL",
                (
                    verdict.status,
                    verdict.reason,
                    verdict.metric,
                    verdict.detail,
                    order,
                    now,
                    peak_memory_bytes,
                    verdict.flag,
                    session.id,
                    number,
                ),
            )
        return self.experiment(session, number)

    def experiment(self, session: SessionRecord, number: int) -> Experiment:
        row = self._one(
            "SELECT * FROM experiment WHERE session = ? AND number = ?", session.id, number
        )
        if row is None:
            there = f"it has 0 to {self.started(session)}"
            raise LedgerError(f"session {session.tag!r} has no experiment {number}; {there}")
        return experiment_of(row)

    def finished(
        self, session: SessionRecord, after: int = -1, last: int | None = None
    ) -> list[Experiment]:
        """Finished experiments with order > `after`, in that order; the `last` ones if said."""
        rows = self._all(
            "SELECT * FROM experiment WHERE session = ? AND finish_order > ?"
            " ORDER BY finish_order DESC LIMIT ?",
            session.id,
            after,
            -1 if last is None else last,
        )
        return [experiment_of(row) for row in reversed(rows)]

    def tried(
        self, session: SessionRecord, after: int, last: int, reasons: Sequence[str]
    ) -> list[PastAttempt]:
        """Of the experiments with `after` < order <= `last`, in that order: keeps, crashes, and the
        discards for one of these reasons."""
        rows = self._all(
            "SELECT finish_order, number, base, status, reason, metric, description"
            f" FROM experiment WHERE session = ? AND {_order(after)} > ? AND {_order(after)} <= ?"
            f" AND (status != 'discard' OR reason IN ({', '.join('?' * len(reasons))}))",
            session.id,
            after,
            last,
            *reasons,
        )
        return sorted(map(PastAttempt._make, rows), key=itemgetter(0))

    def descriptions(self, session: SessionRecord, after: int, last: int, length: int) -> list[str]:
        """The beginnings of all descriptions with `after` < order <= `last`, in any order."""
        # As one text: 10,000 of them are read in a third of the time that as many rows take.
        text = self._all(
            "SELECT group_concat(replace(substr(description, 1, ?), char(10), ' '), char(10))"
            f" FROM experiment WHERE session = ? AND {_order(after)} > ? AND {_order(after)} <= ?",
            length,
            session.id,
            after,
            last,
        )[0][0]
        return [] if text is None else str(text).split("\n")

    def noted(self, session: SessionRecord, last: int, among: int) -> list[Experiment]:
        """The `last` experiments with notes, oldest first, of the `among` begun last. What agents
        note for themselves alone, such as where to go on, is shorter than a sentence."""
        rows = self._all(
            "SELECT * FROM experiment WHERE session = ?"
            " AND length(notes) - length(replace(notes, ' ', '')) >= ? - 1 AND number >"
            " (SELECT max(number) FROM experiment WHERE session = ?) - ?"
            " ORDER BY number DESC LIMIT ?",
            session.id,
            SENTENCE,
            session.id,
            among,
            last,
        )
        return [experiment_of(row) for row in reversed(rows)]

    def in_flight(self, session: SessionRecord) -> list[Experiment]:
        rows = self._all(
            "SELECT * FROM experiment INDEXED BY experiment_open"
            " WHERE session = ? AND status IS NULL ORDER BY number",
            session.id,
        )
        return [experiment_of(row) for row in rows]

    def keeps(self, session: SessionRecord, last: int | None = None) -> list[Experiment]:
        """The baseline and every keep, or the `last` ones, in the order in which they became the
        incumbent."""
        sql = "SELECT * FROM experiment WHERE session = ? AND status = 'keep' ORDER BY finish_order"
        rows = self._all(f"{sql} DESC LIMIT ?", session.id, -1 if last is None else last)
        if rows and rows[-1]["finish_order"] > 0:
            rows += self._all(f"{sql} LIMIT 1", session.id)
        return [experiment_of(row) for row in reversed(rows)]

    def incumbent(self, session: SessionRecord) -> Experiment:
        row = self._one(
            "SELECT * FROM experiment WHERE session = ? AND status = 'keep'"
            " ORDER BY finish_order DESC LIMIT 1",
            session.id,
        )
        if row is None:
            raise LedgerError(f"session {session.tag!r} has no baseline yet")
        return experiment_of(row)

    def with_tree(self, session: SessionRecord, tree: str) -> Experiment | None:
        """An experiment that measured, or is measuring, exactly these files."""
        row = self._one(
            "SELECT * FROM experiment INDEXED BY experiment_tree"
            " WHERE session = ? AND tree_id = ? LIMIT 1",
            session.id,
            tree,
        )
        return experiment_of(row) if row else None

    def recorded_tree(self, session: SessionRecord, number: int) -> str:
        """The git tree that an experiment measured, or measures."""
        sql = "SELECT tree_id FROM experiment WHERE session = ? AND number = ?"
        return str(self._all(sql, session.id, number)[0][0])

    def counts(self, session: SessionRecord) -> dict[str, int]:
        """How many finished experiments of each status; the baseline is none of them."""
        rows = self._all(
            "SELECT status, count(*) FROM experiment"
            " WHERE session = ? AND finish_order > 0 GROUP BY status",
            session.id,
        )
        return {str(status): 0 for status in Status} | {row[0]: row[1] for row in rows}

    def started(self, session: SessionRecord) -> int:
        """Experiments begun, the baseline excluded."""
        return self._number("SELECT max(number) FROM experiment WHERE session = ?", session.id)

    def all_experiments(self, session: SessionRecord) -> list[Experiment]:
        rows = self._all("SELECT * FROM experiment WHERE session = ? ORDER BY number", session.id)
        return [experiment_of(row) for row in rows]

    def has_experiments(self, session: SessionRecord) -> bool:
        sql = "SELECT 1 FROM experiment WHERE session = ? LIMIT 1"
        return self._one(sql, session.id) is not None

    def has_baseline(self, session: SessionRecord) -> bool:
        sql = "SELECT 1 FROM experiment WHERE session = ? AND number = 0 AND status = 'keep'"
        return self._one(sql, session.id) is not None

    def last_order(self, session: SessionRecord) -> int:
        """How many experiments are finished, the baseline excluded."""
        return self._number(
            "SELECT max(finish_order) FROM experiment"
            " WHERE session = ? AND finish_order IS NOT NULL",
            session.id,
        )

    def since_keep(self, session: SessionRecord) -> int:
        """Experiments finished since the incumbent became it."""
        return self._number(
            "SELECT (SELECT max(finish_order) FROM experiment"
            " WHERE session = ? AND finish_order IS NOT NULL) -"
            " (SELECT max(finish_order) FROM experiment WHERE session = ? AND status = 'keep')",
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
        """The run of that name: the one already there, finished or not, or a new one on a seed
        that nobody has used, in that segment."""
        with self.transaction():
            row = self._one(
                "SELECT * FROM run WHERE session = ? AND experiment = ? AND attempt = ?"
                " AND role = ? AND segment = ? AND idx = ? AND retry = ?",
                session.id,
                experiment,
                attempt,
                role,
                segment,
                index,
                retry,
            )
            if row is not None:
                return run_of(row)
            cursor = self._db.execute(
                "INSERT INTO run (session, experiment, attempt, role, segment, idx, retry,"
                " commit_id, seed, started_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    session.id,
                    experiment,
                    attempt,
                    role,
                    segment,
                    index,
                    retry,
                    commit,
                    self._fresh_seed(session),
                    now,
                ),
            )
            return run_of(self._all("SELECT * FROM run WHERE id = ?", cursor.lastrowid)[0])

    def _fresh_seed(self, session: SessionRecord) -> int:
        # From the system's random source, not from a counter: an agent must not guess the next.
        while True:
            seed = secrets.randbelow(SEED_LIMIT)
            if not self._one("SELECT 1 FROM run WHERE session = ? AND seed = ?", session.id, seed):
                return seed

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
        with self.transaction():
            self._db.execute(
                "UPDATE run SET finished = 1, metric = ?, reason = ?, numbers = ?, slot = ?,"
                " exit_code = ?, wall_s = ?, cpu_s = ?, peak_memory_bytes = ?, score_cpu_s = ?,"
                " score_wall_s = ?, holdout = ?, holdout_reason = ?, holdout_cpu_s = ?,"
                " holdout_wall_s = ? WHERE id = ?",
                (
                    metric,
                    reason,
                    json.dumps(numbers),
                    slot,
                    exit_code,
                    wall_s,
                    cpu_s,
                    peak_memory_bytes,
                    *((score.cpu_s, score.wall_s) if score else (None, None)),
                    *(astuple(sealed) if sealed else (None,) * 4),
                    run.id,
                ),
            )
            return run_of(self._all("SELECT * FROM run WHERE id = ?", run.id)[0])

    def open_runs(self, session: SessionRecord) -> list[Run]:
        """Begun and not finished: what is under way now, or was when the session died."""
        rows = self._all(
            "SELECT * FROM run WHERE session = ? AND finished = 0 ORDER BY id", session.id
        )
        return [run_of(row) for row in rows]

    def was_topped_up(self, session: SessionRecord, order: int) -> bool:
        """The top-up after the experiment of that order was made: with success, or twice."""
        sql = (
            "SELECT 1 FROM run WHERE session = ? AND role = ? AND finished = 1"
            " AND idx = ? AND (metric IS NOT NULL OR retry > 0)"
        )
        return self._one(sql, session.id, Role.TOPUP, order) is not None

    def restart_run(self, run: Run, now: float) -> None:
        with self.transaction():
            self._db.execute("UPDATE run SET started_at = ? WHERE id = ?", (now, run.id))

    def forget_run(self, run: Run) -> None:
        """A run that was cut off: it says nothing, and is made again when it is asked for."""
        with self.transaction():
            self._db.execute("DELETE FROM run WHERE id = ? AND finished = 0", (run.id,))

    def runs(self, session: SessionRecord, experiment: int) -> list[Run]:
        rows = self._all(
            "SELECT * FROM run WHERE session = ? AND experiment = ? ORDER BY id",
            session.id,
            experiment,
        )
        return [run_of(row) for row in rows]

    def runs_of(
        self,
        session: SessionRecord,
        commit: str,
        roles: Sequence[Role] = UNSELECTED,
        last: int | None = None,
    ) -> list[Run]:
        """Finished runs of a commit in these roles, oldest first; only the `last` ones if said."""
        marks = ", ".join("?" * len(roles))
        rows = self._all(
            f"SELECT * FROM run WHERE session = ? AND commit_id = ? AND role IN ({marks})"
            " AND finished = 1 ORDER BY id DESC LIMIT ?",
            session.id,
            commit,
            *roles,
            -1 if last is None else last,
        )
        return [run_of(row) for row in reversed(rows)]

    def scores(
        self, session: SessionRecord, commits: Sequence[str], before: int | None = None
    ) -> dict[tuple[str, int], list[float]]:
        """The metrics of these commits' unselected runs, by (commit, segment), oldest first;
        crashed ones left out, and only of those made before the run of id `before`, if said."""
        groups: dict[tuple[str, int], list[float]] = {}
        these, roles = (", ".join("?" * len(some)) for some in (commits, UNSELECTED))
        for commit, segment, metric in self._all(
            f"SELECT commit_id, segment, metric FROM run WHERE session = ? AND commit_id IN"
            f" ({these}) AND role IN ({roles}) AND finished = 1 AND metric IS NOT NULL"
            " AND id < ? ORDER BY id",
            session.id,
            *commits,
            *UNSELECTED,
            sys.maxsize if before is None else before,
        ):
            groups.setdefault((commit, segment), []).append(metric)
        return groups

    def incumbents_runs(self, session: SessionRecord) -> list[Run]:
        """The finished runs of incumbents, of those in confirmations too, oldest first."""
        roles = (*UNSELECTED, Role.CONTROL)
        rows = self._all(
            f"SELECT * FROM run WHERE session = ? AND role IN ({', '.join('?' * len(roles))})"
            " AND finished = 1 ORDER BY id",
            session.id,
            *roles,
        )
        return [run_of(row) for row in rows]

    def latest_runs(self, session: SessionRecord, last: int) -> list[Run]:
        """The `last` finished runs of whatever role, oldest first."""
        rows = self._all(
            # Backwards from the end: an index on the session would have to be sorted first.
            "SELECT * FROM run NOT INDEXED WHERE session = ? AND finished = 1"
            " ORDER BY id DESC LIMIT ?",
            session.id,
            last,
        )
        return [run_of(row) for row in reversed(rows)]

    def spent(self, session: SessionRecord) -> dict[str, float]:
        """Wall and CPU seconds of all finished runs and their scores, and how many they were."""
        scored = " + coalesce(score_{0}_s, 0) + coalesce(holdout_{0}_s, 0)"
        sums = (f"coalesce(sum({c}_s{scored.format(c)}), 0)" for c in ("wall", "cpu"))
        rows = self._all(
            f"SELECT {', '.join(sums)}, count(*) FROM run WHERE session = ? AND finished = 1",
            session.id,
        )
        wall_s, cpu_s, runs = rows[0]
        return {"wall_s": wall_s, "cpu_s": cpu_s, "runs": runs}

    def costs(self, session: SessionRecord) -> tuple[int, float]:
        """(tokens, dollars) of all turns, failed ones too; an unknown cost counts as nothing."""
        return self._aggregate_costs(session, "sum")

    def largest_turn(self, session: SessionRecord) -> tuple[int, float]:
        """(tokens, dollars) of the most expensive turns so far."""
        return self._aggregate_costs(session, "max")

    def _aggregate_costs(self, session: SessionRecord, function: str) -> tuple[int, float]:
        tokens, usd = self._all(
            f"SELECT coalesce({function}(tokens), 0), coalesce({function}(usd), 0) FROM"
            " (SELECT tokens, usd FROM experiment WHERE session = ?"
            " UNION ALL SELECT tokens, usd FROM turn WHERE session = ?)",
            session.id,
            session.id,
        )[0]
        return int(tokens), float(usd)

    def shares(self, session: SessionRecord) -> list[Share]:
        """What became of each agent's turns, by name; the baseline is nobody's."""
        rows = self._all(
            "SELECT agent, sum(begun), sum(kept), sum(fruitless), sum(tokens), sum(usd) FROM ("
            " SELECT agent, 1 AS begun, coalesce(status = 'keep', 0) AS kept, 0 AS fruitless,"
            " tokens, usd FROM experiment WHERE session = ? AND number > 0"
            " UNION ALL SELECT agent, 0, 0, 1, tokens, usd FROM turn WHERE session = ?"
            ") GROUP BY agent ORDER BY agent",
            session.id,
            session.id,
        )
        return [Share(*row) for row in rows]

    def confirmations(self, session: SessionRecord) -> int:
        """How often a change got past the screen and was held against the incumbent."""
        return self._number(
            "SELECT count(*) FROM (SELECT DISTINCT experiment, attempt FROM run"
            " WHERE session = ? AND role = ?)",
            session.id,
            Role.CANDIDATE,
        )

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
        """What finishes from now on is of this segment."""
        with self.transaction():
            self._db.execute(
                "INSERT INTO segment (session, number, at, after_order, reason, fingerprint)"
                " SELECT ?, ?, ?, coalesce(max(finish_order), -1), ?, ? FROM experiment"
                " WHERE session = ? AND finish_order IS NOT NULL",
                (session.id, number, now, reason, json.dumps(dict(fingerprint)), session.id),
            )
        return self.segments(session)[-1]

    def segments(self, session: SessionRecord) -> list[Segment]:
        """In their order; none before the first run."""
        rows = self._all("SELECT * FROM segment WHERE session = ? ORDER BY number", session.id)
        return [
            Segment(
                row["number"],
                row["at"],
                row["after_order"],
                row["reason"],
                json.loads(row["fingerprint"]),
            )
            for row in rows
        ]

    def starts(self, session: SessionRecord) -> list[int]:
        """The `after_order` of all segments, in their order: see `segment_of`."""
        sql = "SELECT after_order FROM segment WHERE session = ? ORDER BY number"
        return [row[0] for row in self._all(sql, session.id)]

    def segment(self, session: SessionRecord) -> int:
        """The number of the latest one."""
        return self._number("SELECT max(number) FROM segment WHERE session = ?", session.id)

    # ---- turns that came to nothing, notes, and files written outside ----------------------

    def add_turn(self, session: SessionRecord, agent: str, failure: Failure, now: float) -> None:
        with self.transaction():
            self._db.execute(
                "INSERT INTO turn (session, at, agent, reason, message, tokens, usd)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    session.id,
                    now,
                    agent,
                    failure.reason,
                    failure.message,
                    failure.tokens,
                    failure.usd,
                ),
            )

    def fruitless_turns(self, session: SessionRecord) -> int:
        """Turns that burned something: not those that met a service that was down, nor probes."""
        free = (PROBE, *SERVICE_REASONS)
        return self._number(
            "SELECT count(*) FROM turn WHERE session = ?"
            f" AND reason NOT IN ({', '.join('?' * len(free))})",
            session.id,
            *free,
        )

    def turns(self, session: SessionRecord, last: int = 10) -> list[tuple[float, str, str, str]]:
        """The latest turns that came to nothing: when, agent, reason, message; oldest first."""
        rows = self._all(
            "SELECT at, agent, reason, message FROM turn WHERE session = ? AND reason != ?"
            " ORDER BY id DESC LIMIT ?",
            session.id,
            PROBE,
            last,
        )
        return [(row[0], row[1], row[2], row[3]) for row in reversed(rows)]

    def add_note(self, session: SessionRecord, agent: str, text: str, now: float) -> None:
        with self.transaction():
            self._db.execute(
                "INSERT INTO note (session, at, agent, text) VALUES (?, ?, ?, ?)",
                (session.id, now, agent, text),
            )

    def notes(self, session: SessionRecord, last: int = 10) -> list[Note]:
        """The latest notes, oldest first."""
        rows = self._all(
            "SELECT at, agent, text FROM note WHERE session = ? ORDER BY id DESC LIMIT ?",
            session.id,
            last,
        )
        return [Note(row["at"], row["agent"], row["text"]) for row in reversed(rows)]

    def add_published(self, path: Path, sha256: str) -> None:
        """Call before replacing the file: after a crash in between, both versions are known."""
        with self.transaction():
            self._db.execute("INSERT OR IGNORE INTO published VALUES (?, ?)", (str(path), sha256))

    def was_published(self, path: Path, sha256: str) -> bool:
        sql = "SELECT 1 FROM published WHERE path = ? AND sha256 = ?"
        return self._one(sql, str(path), sha256) is not None


def _order(after: int) -> str:
    """The column, for a range of it: by its index, unless all of them are asked for (`after` < 1),
    which takes half the time in the order of the table."""
    return "finish_order" if after > 0 else "+finish_order"


def _damaged(path: Path, detail: str) -> str:
    return (
        f"the ledger {path} is damaged ({detail}); it was left as it is. "
        f"Try `sqlite3 {path} .recover` into a new file, or move it away to start afresh"
    )
