"""What the ledger's rows are: values, made from rows and from nothing else."""

from __future__ import annotations

import json
import sqlite3
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from autoresearch.records import Experiment, Goal, Metric, Role, Run, Status


class PastAttempt(NamedTuple):
    """A finished experiment, as far as the memory of the whole session needs it."""

    order: int
    number: int
    base: int
    status: str
    reason: str | None
    metric: float | None
    description: str


@dataclass(frozen=True, slots=True)
class Note:
    """What an agent wrote down for its later self, without an experiment."""

    at: float  # Unix time
    agent: str
    text: str


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """A session's own facts. `limits` are those of its latest start; `stopped` says why it ended
    last, None while it runs (or after a kill)."""

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


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of a session within which runs can be compared."""

    number: int
    at: float  # Unix time
    after_order: int  # experiments that finished up to this one were decided before; -1: none
    reason: str  # why it began: what changed
    fingerprint: Mapping[str, str]  # of all that a run depends on beside its commit


@dataclass(frozen=True, slots=True)
class Share:
    """One agent's part of a session. Costs are None where it never said any."""

    agent: str
    experiments: int  # begun
    keeps: int
    other_turns: int  # turns that became no experiment
    tokens: int | None
    usd: float | None


def segment_of(starts: Sequence[int], order: int) -> int:
    """The segment in which the experiment of that order finished. `starts` are the `after_order` of
    all segments, in their order."""
    return max(0, bisect_left(starts, order) - 1)


def session_of(row: sqlite3.Row) -> SessionRecord:
    deterministic = row["deterministic"]
    return SessionRecord(
        id=row["id"],
        tag=row["tag"],
        base_commit=row["base_commit"],
        metric=Metric(row["metric"], Goal(row["goal"])),
        level=row["level"],
        budget_s=row["budget_s"],
        budget_clock=row["budget_clock"],
        limits=json.loads(row["limits"]),
        fingerprint=json.loads(row["fingerprint"]),
        secret=row["secret"],
        created_at=row["created_at"],
        elapsed_s=row["elapsed_s"],
        deterministic=None if deterministic is None else bool(deterministic),
        allowance_s=row["allowance_s"],
        score_allowance_s=row["score_allowance_s"],
        stopped=row["stopped"],
        warnings=tuple(json.loads(row["warnings"])),
    )


def experiment_of(row: sqlite3.Row) -> Experiment:
    return Experiment(
        number=row["number"],
        base=row["base"],
        commit=row["commit_id"],
        agent=row["agent"],
        description=row["description"],
        attempt=row["attempt"],
        status=None if row["status"] is None else Status(row["status"]),
        reason=row["reason"],
        metric=row["metric"],
        detail=row["detail"],
        order=row["finish_order"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
        peak_memory_bytes=row["peak_memory_bytes"],
        removed_lines=row["removed_lines"],
        added_lines=row["added_lines"],
        hypothesis=row["hypothesis"],
        notes=row["notes"],
        tokens=row["tokens"],
        usd=row["usd"],
        flag=row["flag"],
    )


def run_of(row: sqlite3.Row) -> Run:
    return Run(
        id=row["id"],
        experiment=row["experiment"],
        attempt=row["attempt"],
        role=Role(row["role"]),
        index=row["idx"],
        retry=row["retry"],
        commit=row["commit_id"],
        seed=row["seed"],
        slot=row["slot"],
        started_at=row["started_at"],
        finished=bool(row["finished"]),
        metric=row["metric"],
        reason=row["reason"],
        numbers=json.loads(row["numbers"]),
        exit_code=row["exit_code"],
        wall_s=row["wall_s"],
        cpu_s=row["cpu_s"],
        peak_memory_bytes=row["peak_memory_bytes"],
        segment=row["segment"],
        score_cpu_s=row["score_cpu_s"],
        score_wall_s=row["score_wall_s"],
        holdout=row["holdout"],
        holdout_reason=row["holdout_reason"],
        holdout_cpu_s=row["holdout_cpu_s"],
        holdout_wall_s=row["holdout_wall_s"],
    )
