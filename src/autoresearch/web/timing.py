"""Where the time of a session went, as far as the ledger knows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autoresearch.records import Role
from autoresearch.report.summary import AgentShare, Summary
from autoresearch.store import queries
from autoresearch.store.ledger import Ledger
from autoresearch.store.rows import RunTimes, SessionRecord

PURPOSES = {
    "baseline": (Role.BASELINE,),
    "screening changes": (Role.SCREEN,),
    "confirming them": (Role.CANDIDATE, Role.CONTROL),
    "measuring the best again": (Role.REMEASURE, Role.TOPUP, Role.SEGMENT),
    "verifying the result": (
        Role.VERIFY,
        Role.VERIFY_BASELINE,
        Role.ABLATION,
        Role.REDUCED,
    ),
    "scratch runs": (Role.SCRATCH,),
}


@dataclass(frozen=True, slots=True)
class Part:
    label: str
    seconds: float
    share: float  # of the total


@dataclass(frozen=True, slots=True)
class Timing:
    """Slot time: seconds of work times slots. `parts` add up to it."""

    slots: int
    total_s: float
    parts: Sequence[Part]
    purposes: Sequence[Part]  # of the runs alone


def read_timing(ledger: Ledger, session: SessionRecord) -> Timing | None:
    """Read where the time went. None before the first run has finished."""
    times = queries.sum_times(ledger, session)
    if not times:
        return None
    slots = queries.count_slots(ledger, session)
    trained_s = sum(row.trained_s for row in times)
    told_s = sum(row.told_s for row in times)
    wall_s = sum(row.wall_s for row in times)
    score_s = sum(row.score_s for row in times)
    total_s = max(session.elapsed_s * slots, wall_s + score_s)
    idle = "between runs: thinking, checks, records"
    if slots > 1:
        idle = "slots without a run: thinking, waiting, checks"
    seconds = {
        "training": trained_s,
        "start-up and end of a run": told_s - trained_s,
        "running" if told_s == 0 else "runs that do not say how long they trained": wall_s - told_s,
        "scoring": score_s,
        idle: total_s - wall_s - score_s,
    }
    return Timing(slots, total_s, _share_out(seconds), _list_purposes(times))


def _list_purposes(times: Sequence[RunTimes]) -> list[Part]:
    by_role = {row.role: row.wall_s + row.score_s for row in times}
    return _share_out(
        {label: sum(by_role.get(role, 0.0) for role in roles) for label, roles in PURPOSES.items()}
    )


def _share_out(seconds: dict[str, float]) -> list[Part]:
    total_s = sum(seconds.values()) or 1.0
    parts = [Part(label, value, value / total_s) for label, value in seconds.items()]
    return [part for part in parts if part.seconds > 0.0005 * total_s]


@dataclass(frozen=True, slots=True)
class AgentRow:
    """An agent beside the others, and the wall time of the runs of its experiments."""

    share: AgentShare
    run_s: float
    gain_per_hour: float | None  # of running


def compare_agents(ledger: Ledger, session: SessionRecord, summary: Summary) -> list[AgentRow]:
    run_s = queries.sum_agents_run_times(ledger, session)
    rows = []
    for share in summary.agents:
        spent_s = run_s.get(share.name, 0.0)
        per_hour = share.gain / (spent_s / 3600) if spent_s and share.keeps else None
        rows.append(AgentRow(share, spent_s, per_hour))
    return rows
