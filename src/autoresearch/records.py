"""The records: metric, run, experiment, verdict.

All are frozen values. A missing number is `None`, never a sentinel. Names say the unit: durations
are in seconds, sizes in bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum


class Goal(StrEnum):
    MINIMIZE = "minimize"
    MAXIMIZE = "maximize"


@dataclass(frozen=True, slots=True)
class Metric:
    """A number with a direction. Scores are compared by its methods, never by `<`."""

    name: str
    goal: Goal = Goal.MINIMIZE

    @property
    def crash(self) -> float:
        """What a crash is worth in a comparison: every number is better."""
        return math.inf if self.goal is Goal.MINIMIZE else -math.inf

    def gain(self, new: float, old: float) -> float:
        """How much better `new` is than `old`, in metric units; negative when it is worse."""
        return old - new if self.goal is Goal.MINIMIZE else new - old

    def better(self, new: float, old: float) -> bool:
        return self.gain(new, old) > 0

    def worsened(self, value: float, amount: float) -> float:
        """`value` if it were worse by `amount`, in metric units."""
        return value + amount if self.goal is Goal.MINIMIZE else value - amount

    def best(self, values: Sequence[float]) -> float:
        return min(values) if self.goal is Goal.MINIMIZE else max(values)

    def worst(self, values: Sequence[float]) -> float:
        return max(values) if self.goal is Goal.MINIMIZE else min(values)


class Status(StrEnum):
    """The original's three words. The reason is a field of its own."""

    KEEP = "keep"
    DISCARD = "discard"
    CRASH = "crash"


class Role(StrEnum):
    """The purpose of a run. It decides whether the run counts for its commit's score: see
    `UNSELECTED`."""

    BASELINE = "baseline"  # the unchanged program, at the start
    SCREEN = "screen"  # a candidate, at first
    CANDIDATE = "candidate"  # a candidate, in a confirmation
    CONTROL = "control"  # the incumbent, in a confirmation: it may have kept its place by luck
    REMEASURE = "remeasure"  # a new incumbent, after it was kept
    TOPUP = "topup"  # the incumbent, every few experiments
    SEGMENT = "segment"  # the incumbent, at the beginning of a new segment
    VERIFY = "verify"  # the best commit, at the end
    VERIFY_BASELINE = "verify baseline"  # the first commit, at the end, interleaved with VERIFY
    ABLATION = "ablation"  # the best commit, and it without one of its changes
    REDUCED = "reduced"  # the best commit, it without some of its changes, and the first commit
    SCRATCH = "scratch"  # what an agent's folder held; nothing depends on it


UNSELECTED = (Role.BASELINE, Role.REMEASURE, Role.TOPUP, Role.SEGMENT)
"""Runs made on schedule, on which no choice depends: only these make an incumbent's score. With the
controls of its confirmations the score ends 0.1 sd too good (`benchmarks/truth.py`)."""

HELD_OUT = (Role.BASELINE, Role.REMEASURE, Role.SEGMENT, Role.VERIFY, Role.VERIFY_BASELINE)
"""Runs that are scored on the sealed holdout: of keeps, of both commits that are compared at the
end, and `HELD_OUT_BASELINE_RUNS` of the baseline. No choice depends on them."""

HELD_OUT_BASELINE_RUNS = 2  # they show that the scorer works, and suffice for an interval


@dataclass(frozen=True, slots=True)
class Run:
    """One execution of the task's command with one seed.

    (experiment, attempt, role, segment, index, retry) identifies a run: a resumed session gets the
    finished run of that name instead of executing it again.
    """

    id: int
    experiment: int
    attempt: int  # of the experiment: from 0, one more each time it restarts from the screen
    role: Role
    index: int  # counts the runs of one role; a top-up has the order of the experiment before it
    commit: str
    seed: int
    segment: int = 0  # of the session: within it, runs can be compared
    retry: int = 0  # 1: a second run of a top-up that crashed or gave a surprising metric
    slot: int | None = None
    started_at: float = 0.0  # Unix time, for people: durations come from the monotonic clock
    finished: bool = False
    metric: float | None = None  # None if the run crashed, for this `reason`
    reason: str | None = None
    numbers: Mapping[str, float] = field(default_factory=dict)  # the other numbers that it printed
    exit_code: int | None = None  # negative: killed by that signal
    wall_s: float | None = None
    cpu_s: float | None = None  # of all its processes
    peak_memory_bytes: int | None = None
    score_cpu_s: float | None = None  # of the scorer's processes; None without [score]
    score_wall_s: float | None = None
    holdout_cpu_s: float | None = None
    holdout_wall_s: float | None = None
    holdout_reason: str | None = None  # why the run lacks a `holdout` that it should have
    holdout: float | None = None  # the metric on the sealed holdout

    @property
    def is_held_out(self) -> bool:
        """Whether it is scored on the sealed holdout, if the task has one."""
        return self.role in HELD_OUT and (
            self.role is not Role.BASELINE or self.index < HELD_OUT_BASELINE_RUNS
        )

    @property
    def took_s(self) -> float:
        """Wall time, the scorers' included."""
        return sum(filter(None, (self.wall_s, self.score_wall_s, self.holdout_wall_s)))

    @property
    def peak_bytes(self) -> int:
        """The GPU's memory if the run prints it, as in the original's `memory_gb`."""
        if "peak_vram_mb" in self.numbers:
            return int(min(max(0.0, self.numbers["peak_vram_mb"]) * 2**20, 2**62))
        return self.peak_memory_bytes or 0

    @property
    def name(self) -> str:
        """The run's folder below `runs/`, and its name in `show`."""
        return f"{self.experiment:04d}/{self.id:05d}"


@dataclass(frozen=True, slots=True)
class HoldoutScore:
    """A run's score on the sealed holdout."""

    metric: float | None
    reason: str | None  # None when there is a metric
    cpu_s: float | None
    wall_s: float


@dataclass(frozen=True, slots=True)
class Verdict:
    status: Status
    reason: str | None  # None only for a keep
    metric: float | None
    detail: str = ""  # one sentence for people: by how much, on which runs
    flag: str | None = None  # why a person should check this keep


@dataclass(frozen=True, slots=True)
class Experiment:
    """One measured change. Experiment 0 is the baseline."""

    number: int
    base: int  # the experiment it is built on; 0 for the baseline
    commit: str
    agent: str
    description: str
    attempt: int = 0
    status: Status | None = None  # None: in flight
    reason: str | None = None
    metric: float | None = None
    detail: str = ""
    order: int | None = None  # in which experiments finished, from 1; 0 for the baseline
    started_at: float = 0.0
    ended_at: float | None = None
    peak_memory_bytes: int | None = None
    removed_lines: int = 0
    added_lines: int = 0
    hypothesis: str = ""
    notes: str = ""
    tokens: int | None = None
    usd: float | None = None
    flag: str | None = None  # why a person should check this keep


SERVICE_REASONS = ("rate limited", "service down")
"""Reasons of a `Failure` for which the service is to blame. The agent spent nothing, so the harness
waits and does not count such a turn towards the limit on experiments."""
