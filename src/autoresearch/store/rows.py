"""The ledger's rows as values."""

from __future__ import annotations

import json
import sqlite3
from bisect import bisect_left
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

from autoresearch.records import Goal, Metric, Role, Status

T = TypeVar("T")
NOT_ENFORCED = "not enforced"
"""In a session's fingerprint: what nothing enforced on its runs, in clauses joined by `CLAUSES`."""
CLAUSES = "; "
READERS: Mapping[str, Callable[[Any], object]] = {
    "role": Role,
    "status": Status,
    "finished": bool,
    "deterministic": bool,
    "numbers": json.loads,
    "limits": json.loads,
    "fingerprint": json.loads,
    "warnings": lambda text: tuple(json.loads(text)),
}
"""Makes a field from the cell in the column of that name. Other cells are as the field has them."""


class PastAttempt(NamedTuple):
    """The columns of a finished experiment that a briefing reads of the whole session."""

    order: int
    number: int
    base: int
    status: str
    reason: str | None
    metric: float | None
    description: str


@dataclass(frozen=True, slots=True)
class Note:
    """A text that an agent wrote for its later self, without an experiment."""

    at: float  # Unix time
    agent: str
    text: str


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """A session's own facts. `limits` are those of its latest start. `stopped` is the reason of its
    latest end; None while it runs, and after a kill."""

    id: int
    tag: str
    base_commit: str
    metric: Metric
    level: str
    budget_s: float | None
    budget_clock: str
    limits: Mapping[str, Any]
    fingerprint: Mapping[str, str]
    secret: int
    created_at: float
    elapsed_s: float
    deterministic: bool | None
    allowance_s: float | None
    score_allowance_s: float | None
    stopped: str | None
    warnings: tuple[str, ...]

    @property
    def has_holdout(self) -> bool:
        return self.fingerprint.get("[holdout]", "None") != "None"

    @property
    def has_relative_noise(self) -> bool:
        """Whether a run's noise is a share of its metric, as that of a time is: a program that is
        five times as fast has a fifth of it."""
        return self.fingerprint.get("[metric] measure", "None") != "None"

    @property
    def not_enforced(self) -> tuple[str, ...]:
        """What nothing enforced on the session's runs, a clause each."""
        return tuple(filter(None, self.fingerprint.get(NOT_ENFORCED, "").split(CLAUSES)))


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of a session within which runs can be compared."""

    number: int
    at: float  # Unix time
    after_order: int  # the order of the last experiment that finished before it; -1: none
    reason: str  # the change that began it
    fingerprint: Mapping[str, str]  # of the environment


@dataclass(frozen=True, slots=True)
class Share:
    """One agent's part of a session. Costs are None if the agent reported none."""

    agent: str
    experiments: int  # begun
    keeps: int
    other_turns: int  # without an experiment
    tokens: int | None
    usd: float | None


class RunTimes(NamedTuple):
    """Wall seconds of the finished runs of one role."""

    role: Role
    runs: int
    trained_s: float  # of the runs that print `training_seconds`
    told_s: float  # whole time of these runs
    wall_s: float  # of all runs, without scores
    score_s: float


def segment_of(starts: Sequence[int], order: int) -> int:
    """The segment in which the experiment of that order finished. `starts` are the `after_order` of
    all segments, in their order."""
    return max(0, bisect_left(starts, order) - 1)


def columns(record: type) -> str:
    """The columns of a table that are named like the fields of its record, for SELECT. Brackets
    quote them: `index`, `order` and `commit` are words of SQL."""
    return ", ".join(f"[{field.name}]" for field in fields(record))


def make_record(record: type[T], row: sqlite3.Row) -> T:
    """A record from its `columns`."""
    return record(*_read_cells(record, row))


def make_session(row: sqlite3.Row) -> SessionRecord:
    """A session from its `columns`; its metric's goal has a column of its own."""
    names = (field.name for field in fields(SessionRecord))
    cells = dict(zip(names, _read_cells(SessionRecord, row), strict=False))
    cells["metric"] = Metric(cells["metric"], Goal(row["goal"]))
    return SessionRecord(**cells)


def _read_cells(record: type, row: sqlite3.Row) -> list[Any]:
    cells = list(row)
    for place, read in _list_readers(record):
        if cells[place] is not None:
            cells[place] = read(cells[place])
    return cells


@lru_cache
def _list_readers(record: type) -> list[tuple[int, Callable[[Any], object]]]:
    """The readers of a record's columns, by the column's place."""
    names = [field.name for field in fields(record)]
    return [(place, READERS[name]) for place, name in enumerate(names) if name in READERS]


def to_cell(value: object) -> object:
    """A value as SQLite stores it."""
    if isinstance(value, Mapping):
        return json.dumps(dict(value))
    return json.dumps(value) if isinstance(value, (list, tuple)) else value


def marks(values: Collection[object]) -> str:
    """Question marks for `values` in an SQL statement."""
    return ", ".join("?" * len(values))
