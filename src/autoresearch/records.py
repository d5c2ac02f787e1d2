"""The nouns: what an experiment is, what a run is, and the two things one can plug in.

Everything here is a frozen value or a protocol; nothing here does anything. Missing numbers are
`None`, never a sentinel. Durations are seconds, sizes are bytes, and say so in their names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from autoresearch.sandbox.landlock import Confinement


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

    (experiment, attempt, role, index) names a run for ever: a resumed session asks for the same
    name and gets the finished run instead of making it again.
    """

    id: int
    experiment: int
    attempt: int  # 0, and one more each time the change began again from the screen
    role: Role
    index: int
    commit: str  # the code that ran
    seed: int
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
    segment: int = 0  # the stretch of its session within which it can be compared
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
    def name(self) -> str:
        """The run's folder below `runs/`, and what `show` calls it."""
        return f"{self.experiment:04d}/{self.id:05d}"


SEGMENT_STRIDE = 1_000_000


def index_in(segment: int, index: int) -> int:
    """The index of the index-th run of its kind in a segment, for roles that come in several."""
    return segment * SEGMENT_STRIDE + index


@dataclass(frozen=True, slots=True)
class Sealed:
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


# --------------------------------------------------------------------------------------------
# Agents


class History(Protocol):
    """What has happened so far, as data. Every call costs the same at the 2,000th experiment."""

    @property
    def metric(self) -> Metric: ...
    @property
    def noise_sd(self) -> float | None:
        """Standard deviation of one run, in metric units; None when it is not known."""
        ...

    def baseline(self) -> Experiment:
        """The unchanged program, experiment 0."""
        ...

    def incumbent(self) -> Experiment: ...
    def incumbent_score(self) -> float | None: ...
    def finished(self, after: int = 0) -> list[Experiment]:
        """Finished experiments with `order` > `after`, in that order (the baseline excluded)."""
        ...

    def in_flight(self) -> list[Experiment]: ...
    def editable_files(self, commit: str) -> dict[str, bytes]:
        """The editable files of a commit: path in the repository -> content."""
        ...


@dataclass(frozen=True, slots=True)
class Grants:
    """What an agent's process may use beside its worktree, its program and its configuration."""

    env: tuple[str, ...] = ()  # names of variables
    read: tuple[str, ...] = ()  # absolute paths, perhaps with ~
    write: tuple[str, ...] = ()
    confine: bool = True
    checkout: Path | None = None  # the user's repository: of it, at most a virtual environment
    private: tuple[Path, ...] = ()  # in no case: the record, the hidden files


@dataclass(frozen=True, slots=True)
class Turn:
    """One attempt of an agent to propose: what it is given."""

    worktree: Path  # the incumbent's files; edit here. The harness copies the editable ones out
    editable: tuple[str, ...]  # paths in the worktree that exist now and may be edited
    history: History
    briefing: str  # the same as text, bounded in size; empty unless the agent `reads`
    timeout_s: float | None = None
    grants: Grants = Grants()
    usd_left: float | None = None  # of the session's limit; None when there is none


@dataclass(frozen=True, slots=True)
class Proposal:
    """What an agent says about its edit. It reports no metric and no status."""

    description: str  # one line
    hypothesis: str = ""
    notes: str = ""  # for its later self
    tokens: int | None = None
    usd: float | None = None


SERVICE_REASONS = ("rate limited", "service down")
"""Reasons of a `Failure` that are the service's: the agent burned nothing, so such a turn is waited
out and never counts towards the limit on experiments."""

KILLED_REASONS = ("timeout", "interrupted", "log too large", "lost")
"""Reasons of a `Failure` whose turn was cut off: it may have cost more than it could say."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A turn that produced nothing: the service is down, the answer is no edit, time ran out.

    The next turn waits longer after each failure, and at least `retry_after_s`; not at all when
    that is 0, unless the reason is the service's."""

    reason: str
    message: str
    retry_after_s: float | None = None
    tokens: int | None = None
    usd: float | None = None


class Agent(Protocol):
    """Proposes a change by editing `turn.worktree`.

    `propose` is called by the loop, one call at a time, from any thread. It returns a `Proposal`
    after editing, a `Failure` when this turn came to nothing, or `None` when it has nothing more
    to propose (it leaves in good order; the session ends when nobody is left). It raises
    `AgentError` only when going on is pointless, such as a refused key; its `tokens` and `usd` are
    counted as an answer's are.

    Three things it may have beside: `probes = True` asks for a first small turn before anything
    is measured, on a worktree with one tiny file; `interrupt()`, called from another thread, ends
    the turn under way as a `Failure`; `close()` is called at the session's end.
    """

    name: str
    reads: bool  # wants `turn.briefing` and a git repository of one commit around the worktree

    def propose(self, turn: Turn) -> Proposal | Failure | None: ...


# --------------------------------------------------------------------------------------------
# Runners


@dataclass(frozen=True, slots=True)
class RunSpec:
    """Everything a runner needs to execute one run."""

    argv: tuple[str, ...]
    tree: Path  # the working directory: a pristine tree nobody else uses
    log: Path  # stdout and stderr, as one file
    outcome: Path  # the runner writes the Outcome here, atomically, before it returns it
    env: Mapping[str, str]  # the whole environment, nothing is added but the slot's own
    timeout_s: float  # wall; the run is killed after this, whatever it does
    limit_s: float | None = None  # of `limit_clock`, over the whole tree of processes
    limit_clock: str = "cpu"  # or "wall"
    memory_bytes: int | None = None  # resident, over the whole tree of processes
    log_bytes: int | None = None
    file_bytes: int | None = None  # no file it writes grows beyond
    processes: int | None = None  # at a time, over the whole tree
    confinement: Confinement | None = None  # asked for and not to be had: the run does not start


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended. `stopped` is None when it ended by itself."""

    exit_code: int | None  # negative: that signal; None: it never started
    stopped: str | None  # "timeout", "over budget", "memory", "not confined", "interrupted", ...
    wall_s: float
    cpu_s: float | None
    peak_memory_bytes: int | None
    slot: int | None = None
    detail: str = ""


class Runner(Protocol):
    """Executes runs. `run` is called from several threads at once and blocks until the whole tree
    of processes is dead; it never raises for what the run did, only `RunnerError` for itself."""

    name: str
    slots: int  # how many runs at a time

    def run(self, spec: RunSpec) -> Outcome: ...
    def interrupt(self) -> None:
        """Kill what is running now; those calls return with `stopped="interrupted"`."""
        ...

    def close(self) -> None:
        """Kill what is running and release everything. May be called twice."""
        ...
