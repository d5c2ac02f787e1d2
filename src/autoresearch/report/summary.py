"""The summary of a session at one moment: a value that every view draws and `--json` prints."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from autoresearch.formatting import Numbers, counted
from autoresearch.records import Metric, Role, Status

if TYPE_CHECKING:  # each costs the start of `status` a millisecond
    from _typeshed import DataclassInstance

    from autoresearch.report.holdout import Holdout
    from autoresearch.report.machine import Machine
    from autoresearch.report.verification import Checks, Verification


T = TypeVar("T", bound="DataclassInstance")


@dataclass(frozen=True, slots=True)
class Kept:
    """The baseline, or an experiment that became the incumbent."""

    number: int
    base: int  # the one it was built on; 0 for the baseline
    commit: str
    agent: str
    description: str
    score: float | None  # mean of its last SCORE_RUNS unselected runs, of its latest segment
    runs: int  # behind `score`
    sd: float | None  # of all its unselected runs; None below two
    gain: float | None  # over the one it was built on, in metric units; None for the baseline
    low: float | None  # of the gain's 95 % interval; None where a side has fewer than two runs
    high: float | None
    segment: int  # in which it was kept, and in which `gain` is measured
    scores: Mapping[int, float]  # by segment

    @property
    def score_when_kept(self) -> float | None:
        """Its score in the segment in which it was kept."""
        return self.scores.get(self.segment, self.score)

    def score_in(self, segment: int) -> float | None:
        """Its score in a segment; None if it was not measured there."""
        if not self.scores and self.segment == segment:
            return self.score
        return self.scores.get(segment)


@dataclass(frozen=True, slots=True)
class SegmentView:
    """A stretch of the session within which runs can be compared."""

    number: int
    at: float  # Unix time
    after_order: int
    reason: str
    incumbent: int | None  # at its beginning; None before the baseline
    score: float | None  # the incumbent's, in this segment


@dataclass(frozen=True, slots=True)
class Flagged:
    """A keep that is too good for the session's history."""

    number: int
    commit: str
    description: str
    flag: str  # why, for people


@dataclass(frozen=True, slots=True)
class Finished:
    """A finished experiment, compared with the incumbent of its time."""

    number: int
    commit: str
    agent: str
    description: str
    status: Status
    reason: str | None
    detail: str
    metric: float | None
    gain: float | None  # over the incumbent of its time, in metric units
    gain_sd: float | None  # the same in standard deviations of one run
    flag: str | None  # why a person should look at a keep first


@dataclass(frozen=True, slots=True)
class OpenRun:
    experiment: int
    role: Role
    index: int
    age_s: float


@dataclass(frozen=True, slots=True)
class Doomed:
    """The runs that were stopped because of what they printed, and the audit of that rule."""

    stopped: int
    audited: int  # finished all the same
    wrong: int  # of these, better than their incumbent

    def __str__(self) -> str:
        rate = f", a rate of false stops of {self.wrong / self.audited:.0%}" if self.audited else ""
        return (
            f"{counted(self.stopped, 'doomed run')} ended early: the loss was not finite, or far "
            f"beyond the baseline's. As an audit {counted(self.audited, 'other')} went on to the "
            f"end: {self.wrong} gave a better metric than the incumbent's{rate}."
        )


@dataclass(frozen=True, slots=True)
class OpenExperiment:
    number: int
    base: int
    commit: str
    agent: str
    description: str
    attempt: int
    age_s: float
    runs_done: int  # of this attempt
    confirming: int  # of these, the runs of its confirmation


@dataclass(frozen=True, slots=True)
class AgentShare:
    """What one agent did, earned and cost."""

    name: str
    experiments: int  # begun
    keeps: int
    other_turns: int  # turns that became no experiment
    gain: float  # sum of its keeps' gains, each over the one it was built on, in metric units
    gain_per_experiment: float | None
    tokens: int | None  # None: it never reported any
    usd: float | None
    gain_per_usd: float | None


@dataclass(frozen=True, slots=True)
class Summary:
    """All that views show of a session. `collect.summarise` makes it.

    A whole summary, for pages, has all keeps, all finished experiments and the machine's trends."""

    task: str
    agent: str
    tag: str
    now: float
    metric: Metric
    level: str
    base_commit: str
    created_at: float
    elapsed_s: float
    deterministic: bool | None
    budget_s: float | None
    budget_clock: str
    stopped: str | None
    warnings: tuple[str, ...]
    limits: Mapping[str, Any]
    request: str  # what the user asks of it, such as a pause, if it runs; empty: nothing

    started: int
    finished: int
    keep: int
    discard: int
    crash: int
    fruitless: int
    since_keep: int
    experiments_left: int | None
    time_left_s: float | None  # until a limit on time is reached
    pace_s: float | None  # of one experiment so far
    end_in_s: float | None  # when the first of all limits is reached, at this pace

    baseline: Kept | None
    incumbent: Kept | None  # the baseline while nothing was kept
    keeps: tuple[Kept, ...]  # the baseline, then the latest or (whole) all, oldest first
    flagged: tuple[Flagged, ...]  # of all keeps, oldest first
    gain: float | None  # of the incumbent over the baseline; None while nothing was kept
    gain_share: float | None  # of the baseline's score
    gain_sd: float | None
    noise_sd: float | None  # of one run; None while it is not known
    noise_df: int

    segments: tuple[SegmentView, ...]
    machine: Machine | None  # None also in a summary that is not whole
    doomed: Doomed | None  # the same

    confirmations: int
    false_keep: float  # P(keep) of a change that does nothing, per confirmation
    false_keeps_expected: float

    runs: int
    wall_s: float
    cpu_s: float
    tokens: int
    usd: float
    tokens_per_experiment: float | None  # of those begun; None while no costs are known
    usd_per_experiment: float | None
    tokens_per_keep: float | None
    usd_per_keep: float | None
    agents: tuple[AgentShare, ...]  # empty for a single agent without known costs
    typical_run_s: float | None

    open_experiments: tuple[OpenExperiment, ...]
    open_runs: tuple[OpenRun, ...]
    recent: tuple[Finished, ...]  # the latest finished or (whole) all, oldest first
    fruitless_latest: str | None
    verification: Verification | None
    holdout: Holdout | None  # None while it is sealed, so None outside the report
    checks: Checks | None  # of the incumbent; None while nothing was kept

    @property
    def suspicions(self) -> tuple[str, ...]:
        return () if self.checks is None else self.checks.suspicions

    @property
    def numbers(self) -> Numbers:
        return Numbers(self.metric, self.noise_sd)


def derive(kind: type[T], source: Any, **more: object) -> T:
    """A `kind` made of `more` and of the fields of `source` that have the same names."""
    names = {field.name for field in dataclasses.fields(kind)} - more.keys()
    return kind(**{name: getattr(source, name) for name in names}, **more)


def to_json(summary: Summary) -> dict[str, Any]:
    """Plain dictionaries, lists, strings and finite numbers, ready for `json.dumps`."""
    return {name: _simplify(value) for name, value in dataclasses.asdict(summary).items()}


def _simplify(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _simplify(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_simplify(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
