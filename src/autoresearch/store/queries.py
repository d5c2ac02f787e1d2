"""Reads of the ledger that only views need: briefings, reports, `status`."""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter

from autoresearch.records import UNSELECTED, Experiment, Role, Run, Status
from autoresearch.store.ledger import PROBE, Ledger
from autoresearch.store.rows import (
    Note,
    PastAttempt,
    RunTimes,
    SessionRecord,
    Share,
    make_record,
    marks,
)

MIN_WORDS = 4  # of a note that is a sentence: shorter ones are marks of agents for themselves


def count_verdicts(ledger: Ledger, session: SessionRecord) -> dict[str, int]:
    """The number of finished experiments of each status, without the baseline."""
    rows = ledger.select(
        "SELECT status, count(*) FROM experiment WHERE session = ? AND [order] > 0 GROUP BY status",
        session.id,
    )
    return {str(status): 0 for status in Status} | {row[0]: row[1] for row in rows}


def count_confirmations(ledger: Ledger, session: SessionRecord) -> int:
    """How often a change passed the screen and was compared with the incumbent."""
    return ledger.select_number(
        "SELECT count(*) FROM (SELECT DISTINCT experiment, attempt FROM run"
        " WHERE session = ? AND role = ?)",
        session.id,
        Role.CANDIDATE,
    )


def list_past_attempts(
    ledger: Ledger, session: SessionRecord, after: int, last: int, reasons: Sequence[str]
) -> list[PastAttempt]:
    """Of the experiments with `after` < order <= `last`, in that order: keeps, crashes, and the
    discards for one of these reasons."""
    rows = ledger.select(
        "SELECT [order], number, base, status, reason, metric, description"
        f" FROM experiment WHERE session = ? AND {_order(after)} > ? AND {_order(after)} <= ?"
        f" AND (status != 'discard' OR reason IN ({marks(reasons)}))",
        session.id,
        after,
        last,
        *reasons,
    )
    return sorted(map(PastAttempt._make, rows), key=itemgetter(0))


def list_descriptions(
    ledger: Ledger, session: SessionRecord, after: int, last: int, length: int
) -> list[str]:
    """The beginnings of all descriptions with `after` < order <= `last`, in any order."""
    # As one text: 10,000 of them are read in a third of the time that as many rows take.
    text = ledger.select(
        "SELECT group_concat(replace(substr(description, 1, ?), char(10), ' '), char(10))"
        f" FROM experiment WHERE session = ? AND {_order(after)} > ? AND {_order(after)} <= ?",
        length,
        session.id,
        after,
        last,
    )[0][0]
    return [] if text is None else str(text).split("\n")


def _order(after: int) -> str:
    """The column, for a range of it: by its index, unless all of them are wanted (`after` < 1),
    which takes half the time in the order of the table."""
    return "[order]" if after > 0 else "+[order]"


def list_with_notes(
    ledger: Ledger, session: SessionRecord, last: int, among: int
) -> list[Experiment]:
    """The `last` experiments with notes, oldest first, of the `among` begun last."""
    return ledger.select_experiments(
        "WHERE session = ? AND length(notes) - length(replace(notes, ' ', '')) >= ? - 1"
        " AND number > (SELECT max(number) FROM experiment WHERE session = ?) - ?"
        " ORDER BY number DESC LIMIT ?",
        session.id,
        MIN_WORDS,
        session.id,
        among,
        last,
    )[::-1]


def list_notes(ledger: Ledger, session: SessionRecord, last: int = 10) -> list[Note]:
    """The latest notes, oldest first."""
    rows = ledger.select(
        "SELECT at, agent, text FROM note WHERE session = ? ORDER BY id DESC LIMIT ?",
        session.id,
        last,
    )
    return [make_record(Note, row) for row in reversed(rows)]


def list_failed_turns(
    ledger: Ledger, session: SessionRecord, last: int = 10
) -> list[tuple[float, str, str, str]]:
    """The latest turns without a proposal, oldest first: when, agent, reason, message."""
    rows = ledger.select(
        "SELECT at, agent, reason, message FROM turn WHERE session = ? AND reason != ?"
        " ORDER BY id DESC LIMIT ?",
        session.id,
        PROBE,
        last,
    )
    return [(row[0], row[1], row[2], row[3]) for row in reversed(rows)]


def list_latest_runs(ledger: Ledger, session: SessionRecord, last: int) -> list[Run]:
    """The `last` finished runs of experiments, of whatever role, oldest first."""
    # Backwards from the end: an index on the session would have to be sorted first.
    return ledger.select_runs(
        "NOT INDEXED WHERE session = ? AND finished = 1 AND role != ? ORDER BY id DESC LIMIT ?",
        session.id,
        Role.SCRATCH,
        last,
    )[::-1]


def list_scratch_runs(ledger: Ledger, session: SessionRecord) -> list[Run]:
    """The finished scratch runs, in their order. The `index` is a run's number, from 1. Of those
    of one number, the last: the environment changed during the others."""
    scratch = f"role = '{Role.SCRATCH}'"  # in these words, as the index has it
    where = f"WHERE session = ? AND {scratch} AND finished = 1 ORDER BY id"
    return list({run.index: run for run in ledger.select_runs(where, session.id)}.values())


def count_scratch_runs(ledger: Ledger, session: SessionRecord) -> int:
    """The number of the latest scratch run; 0 if there was none."""
    return max((run.index for run in list_scratch_runs(ledger, session)), default=0)


def list_incumbents_runs(ledger: Ledger, session: SessionRecord) -> list[Run]:
    """The finished runs of incumbents, oldest first, those in confirmations included."""
    roles = (*UNSELECTED, Role.CONTROL)
    return ledger.select_runs(
        f"WHERE session = ? AND role IN ({marks(roles)}) AND finished = 1 ORDER BY id",
        session.id,
        *roles,
    )


def list_doomed(
    ledger: Ledger, session: SessionRecord, mark: str
) -> list[tuple[str | None, float | None, float | None]]:
    """Of the runs whose numbers have a `mark`: reason, metric, metric of the incumbent then."""
    rows = ledger.select(
        "SELECT run.reason, run.metric, base.metric FROM run JOIN experiment ON"
        " experiment.session = run.session AND experiment.number = run.experiment"
        " JOIN experiment AS base ON base.session = run.session AND base.number = experiment.base"
        " WHERE run.session = ? AND run.finished = 1"
        " AND json_extract(run.numbers, '$.' || ?) IS NOT NULL",
        session.id,
        mark,
    )
    return [(row[0], row[1], row[2]) for row in rows]


def list_shares(ledger: Ledger, session: SessionRecord) -> list[Share]:
    """Each agent's experiments and turns, by name, without the baseline."""
    rows = ledger.select(
        "SELECT agent, sum(begun), sum(kept), sum(fruitless), sum(tokens), sum(usd) FROM ("
        " SELECT agent, count(*) AS begun, sum(coalesce(status = 'keep', 0)) AS kept,"
        " 0 AS fruitless, sum(tokens) AS tokens, sum(usd) AS usd"
        " FROM experiment WHERE session = ? AND number > 0 GROUP BY agent"
        " UNION ALL SELECT agent, 0, 0, count(*), sum(tokens), sum(usd) FROM turn"
        " WHERE session = ? GROUP BY agent"
        ") GROUP BY agent ORDER BY agent",
        session.id,
        session.id,
    )
    return [Share(*row) for row in rows]


def sum_times(ledger: Ledger, session: SessionRecord) -> list[RunTimes]:
    """The time of all finished runs, by their role."""
    # The original's programs print how long they trained; a run that does not is not told apart.
    trained = "min(json_extract(numbers, '$.training_seconds'), wall_s)"
    rows = ledger.select(
        f"SELECT role, count(*), coalesce(sum({trained}), 0),"
        f" coalesce(sum(CASE WHEN {trained} IS NULL THEN 0 ELSE wall_s END), 0),"
        " coalesce(sum(wall_s), 0),"
        " coalesce(sum(coalesce(score_wall_s, 0) + coalesce(holdout_wall_s, 0)), 0)"
        " FROM run WHERE session = ? AND finished = 1 GROUP BY role",
        session.id,
    )
    return [RunTimes(Role(row[0]), *row[1:]) for row in rows]


def count_slots(ledger: Ledger, session: SessionRecord) -> int:
    """How many slots runs were made in; at least 1."""
    sql = "SELECT max(slot) FROM run WHERE session = ? AND finished = 1"
    return ledger.select_number(sql, session.id) + 1


def sum_agents_run_times(ledger: Ledger, session: SessionRecord) -> dict[str, float]:
    """Wall seconds of the runs that each agent's experiments took, scores included."""
    rows = ledger.select(
        "SELECT agent, sum(coalesce(wall_s, 0) + coalesce(score_wall_s, 0)"
        " + coalesce(holdout_wall_s, 0)) FROM run JOIN experiment ON"
        " experiment.session = run.session AND experiment.number = run.experiment"
        " WHERE run.session = ? AND finished = 1 AND experiment.number > 0 AND role != ?"
        " GROUP BY agent",
        session.id,
        Role.SCRATCH,
    )
    return {row[0]: row[1] for row in rows}
