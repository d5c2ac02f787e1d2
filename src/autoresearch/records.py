"""The nouns: what a metric, a run, an experiment and a verdict are.

Everything here is a frozen value. Missing numbers are
`None`, never a sentinel. Durations are seconds, sizes are bytes, and say so in their names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum


class Goal(StrEnum):
    MINIMIZE = "minimize"
    MAXIMIZE = "maximize"


@dataclass(frozen=True, slots=True)
class Metric:
    """A number with a direction. Nobody writes `<` on a raw score: they ask the metric."""

    name: str
    goal: Goal = Goal.MINIMIZE

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
    """The original's three words. Why is a separate `reason`."""

    KEEP = "keep"
    DISCARD = "discard"
    CRASH = "crash"


class Role(StrEnum):
    """What a run was for. Decides whether it may say how good its commit is: see `UNSELECTED`."""

    BASELINE = "baseline"  # the unchanged program, at the start
    SCREEN = "screen"  # a candidate, first look
    CANDIDATE = "candidate"  # a candidate, in a confirmation
    CONTROL = "control"  # the incumbent, in a confirmation: its luck may have saved its place
    REMEASURE = "remeasure"  # a new incumbent, after it was kept
    TOPUP = "topup"  # the incumbent, every few experiments
    SEGMENT = "segment"  # the incumbent, at the beginning of a new segment
    VERIFY = "verify"  # the best commit, at the end
    VERIFY_BASELINE = "verify baseline"  # the first commit, at the end, interleaved with VERIFY


UNSELECTED = (Role.BASELINE, Role.REMEASURE, Role.TOPUP, Role.SEGMENT)
"""Runs made on schedule, which chose nothing: only these make an incumbent's score. With the
controls of its confirmations the score ends 0.2 sd too good (`benchmarks/truth.py`)."""

HELD_OUT = (
    *(Role.BASELINE, Role.REMEASURE, Role.SEGMENT),
    *(Role.VERIFY, Role.VERIFY_BASELINE),
)
"""Runs that the sealed holdout is scored for: of the baseline and of keeps, none of which chose
anything."""


@dataclass(frozen=True, slots=True)
class Run:
    """One execution of the task's command with one seed.

    (experiment, attempt, role, segment, index, retry) identifies a run for good: a resumed session
    asks for the same run and gets the finished one instead of executing it again.
    """

    id: int
    experiment: int
    attempt: int  # 0, and one more each time the change began again from the screen
    role: Role
    index: int  # counts the runs of one role; a top-up has the order of the experiment before it
    commit: str  # the code that ran
    seed: int
    segment: int = 0  # the stretch of its session within which it can be compared
    retry: int = 0  # 1: a second run of a top-up that crashed or gave a surprising metric
    slot: int | None = None
    started_at: float = 0.0  # Unix time, for people; never used for a duration
    finished: bool = False
    metric: float | None = None  # None: the run crashed, and `reason` says how
    reason: str | None = None
    numbers: Mapping[str, float] = field(default_factory=dict)  # everything else it printed
    exit_code: int | None = None  # negative: killed by that signal
    wall_s: float | None = None
    cpu_s: float | None = None  # of the whole tree of processes
    peak_memory_bytes: int | None = None
    score_cpu_s: float | None = None  # of the scorer and all it started; None without [score]
    score_wall_s: float | None = None
    holdout_cpu_s: float | None = None
    holdout_wall_s: float | None = None
    holdout_reason: str | None = None  # why there is no `holdout`, though there should be
    holdout: float | None = None  # the metric on the sealed holdout, where that was scored

    @property
    def took_s(self) -> float:
        """Wall seconds, with the scorers'."""
        return sum(filter(None, (self.wall_s, self.score_wall_s, self.holdout_wall_s)))

    @property
    def peak_bytes(self) -> int:
        """What the original's `memory_gb` tells: the GPU's memory where the run prints it."""
        if "peak_vram_mb" in self.numbers:
            return int(self.numbers["peak_vram_mb"] * 2**20)
        return self.peak_memory_bytes or 0

    @property
    def name(self) -> str:
        """The run's folder below `runs/`, and what `show` calls it."""
        return f"{self.experiment:04d}/{self.id:05d}"


@dataclass(frozen=True, slots=True)
class HoldoutScore:
    """What the sealed holdout says of a run."""

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
    flag: str | None = None  # why a keep is to be looked at before it is believed


@dataclass(frozen=True, slots=True)
class Experiment:
    """One measured change. Number 0 is the baseline."""

    number: int
    base: int  # the experiment it was built on; its own number for the baseline
    commit: str
    agent: str
    description: str
    attempt: int = 0
    status: Status | None = None  # None: in flight
    reason: str | None = None
    metric: float | None = None
    detail: str = ""
    order: int | None = None  # its place among the finished ones, from 1; the baseline is 0
    started_at: float = 0.0
    ended_at: float | None = None
    peak_memory_bytes: int | None = None
    removed_lines: int = 0
    added_lines: int = 0
    hypothesis: str = ""
    notes: str = ""
    tokens: int | None = None
    usd: float | None = None
    flag: str | None = None  # of a keep: why it is to be looked at before it is believed
