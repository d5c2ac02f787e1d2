"""A task: its metric, its editable files, its runs and limits.

Each class is a table of the task file. A field whose type comes from `values` is a key of it: the
field's name without the unit, or the `key` of its metadata. An absent setting is `None` and means
unlimited or unknown; 0 never does.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta
from pathlib import Path
from typing import Any

from autoresearch.records import Metric
from autoresearch.task import values
from autoresearch.task.globs import matches

TASK_FILE = "autoresearch.toml"
OWN_FOLDERS = {".git", ".autoresearch", ".auto"}  # never editable, like OWN_FILES
OWN_FILES = {TASK_FILE, "autoresearch.md", "autoresearch.sh", "autoresearch.checks.sh"}

TIME_REPEATS = 5  # of a program whose time is the metric, in each run

OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    "<": operator.lt,
    ">=": operator.ge,
    ">": operator.gt,
    "==": operator.eq,
}


@dataclass(frozen=True, slots=True)
class RunSettings:
    command: values.Command
    budget_s: values.Duration | None = None
    budget_clock: values.BudgetClock = "wall"
    timeout_s: values.Duration = 600.0  # without a budget, see `default_timeout`
    inputs: values.Paths = ()  # below the root; a run may read them
    caches: values.Places = ()  # as written, perhaps with ~; a run may write them
    env: values.Variables = ()
    setup: values.Command | None = None
    build: values.Command | None = None  # before the clock of a run; see measure/builds.py
    build_timeout_s: values.Duration = 600.0
    allowance_s: values.Duration | None = None  # None: measured
    preload: values.Modules = ()  # imported once, before all runs
    stop_doomed: values.Flag = True  # runs that print NaN or diverge; see measure/doom.py
    exit_codes: values.ExitCodes = (0,)  # with which a run counts


@dataclass(frozen=True, slots=True)
class MetricSettings:
    name: values.MetricName
    goal: values.GoalWord
    pattern: values.Pattern | None = None
    json: values.JsonPath | None = None
    file: values.OnePath | None = None
    measure: values.MeasureWord | None = None
    repeats: values.Count | None = None
    relative: values.Flag | None = None


@dataclass(frozen=True, slots=True)
class Measure:
    """The metric is what a run costs, which the harness measures: see `measure/timing.py`."""

    what: str  # "cpu_time", "wall_time" or "instructions"
    repeats: int  # of the program in each run
    relative: bool  # to the unchanged program, which then runs in turns with it

    def __str__(self) -> str:
        settings = {"measure": self.what, "repeats": self.repeats, "relative": self.relative}
        return ", ".join(f"{key} = {values.show(it)}" for key, it in settings.items())

    @property
    def is_time(self) -> bool:
        return self.what != "instructions"


@dataclass(frozen=True, slots=True)
class MetricSource:
    """Where the metric is read. Without any: `name: NUMBER` or `METRIC name=NUMBER` in the log."""

    pattern: str | None = None  # a regular expression whose group is the metric, in the log
    json: str | None = None  # its path in the log's last JSON document, or in `file`
    file: str | None = None  # a JSON file that the run, or the scorer, writes

    def __str__(self) -> str:
        settings = {"pattern": self.pattern, "json": self.json, "file": self.file}
        return ", ".join(f"{key} = {values.show(it)}" for key, it in settings.items() if it)


@dataclass(frozen=True, slots=True)
class ScoreSettings:
    command: values.Command
    reads: values.Paths = ()
    hidden: values.Paths = ()
    preload: values.Modules = ()  # the same for scorers, that of [holdout] too


@dataclass(frozen=True, slots=True)
class HoldoutSettings:
    """A second score of the baseline and of keeps. Only the report shows it. Its command gets the
    `reads` of [score]."""

    command: values.Command
    hidden: values.SomePaths


@dataclass(frozen=True, slots=True)
class Bound:
    """A number that every run must print, and the side of the limit it must be on."""

    name: str
    op: str
    limit: float

    def holds(self, value: float) -> bool:
        return OPERATORS[self.op](value, self.limit)

    def __str__(self) -> str:
        return f"{self.name} {self.op} {self.limit:.12g}"


@dataclass(frozen=True, slots=True)
class Guards:
    bounds: tuple[Bound, ...] = ()
    commands: tuple[tuple[str, str], ...] = ()  # (name, command)
    timeouts: Mapping[str, float] = field(default_factory=dict, repr=False)
    """Wall seconds after which the command of that name is killed; without, [run] timeout. Not part
    of what a session must keep."""


@dataclass(frozen=True, slots=True)
class SecondSettings:
    """A second number that runs print. It decides nothing: see `report/tradeoffs.py`."""

    name: values.MetricName
    goal: values.GoalWord


@dataclass(frozen=True, slots=True)
class JudgeSettings:
    level: values.JudgeLevel = "default"
    deterministic: values.Flag | None = None  # None: undeclared
    baseline_runs: values.Several = 6
    least: values.LeastGain | None = None  # metric units; None: `judge.LEAST_SHARE` or any
    simplify: values.Amount | None = None  # metric units that a simpler program may lose
    quarantine: values.Multiple = 5.0  # times the session's usual gain: see `too_good`
    combine: values.Flag = True  # try near misses together


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a session; the first that is reached ends it, except for `scratch`. `None` is
    unlimited."""

    experiments: values.Limit | None = None
    hours: values.Amount | None = None
    until: values.ClockTime | None = None  # local time
    patience: values.Limit | None = None  # experiments without a keep
    target: values.Number | None = None  # of the metric
    usd: values.Amount | None = None
    tokens: values.Limit | None = None
    gpu_hours: values.Amount | None = None
    scratch: values.Budget = 50  # runs of an agent in a terminal that decide nothing


@dataclass(frozen=True, slots=True)
class NotifySettings:
    """How the user hears of the session, and of what."""

    command: values.Command | None = None  # gets the news as JSON on stdin
    webhook: values.Url | None = None  # the news are posted there as JSON
    desktop: values.Flag = False
    on: values.Occasions = values.OCCASIONS


@dataclass(frozen=True, slots=True)
class ExportSettings:
    """How a session is exported while it works."""

    formats: values.Formats = ()


@dataclass(frozen=True, slots=True)
class AgentSettings:
    portfolio: values.Portfolio = field(  # (name, weight) of every agent
        default=(("tuner", 1.0),), metadata={"key": "name"}
    )
    timeout_s: values.Duration = 900.0
    env: values.Variables = ()  # `env`, `read` and `write` add to those of [agent.NAME]
    read: values.Places = ()  # as written, perhaps with ~
    write: values.Places = ()
    confine: values.Flag = True
    fallback: values.AgentName | None = None  # takes over when the others cannot go on
    probe: values.Flag = True  # agents that need a service take a small turn first
    ahead: values.Flag | None = None  # propose while runs go on; None: see `Session.ahead`
    at_once: values.Count = 1  # turns of each agent that reads briefings
    briefing: values.BriefingTokens = 8000  # the most, without the source
    memory: values.Flag = True  # briefings tell what earlier sessions learned
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # [agent.NAME]


@dataclass(frozen=True, slots=True)
class RunnerSettings:
    name: values.RunnerName = "local"
    slots: values.Count = 1
    cores: values.Count | None = None  # of each slot, which nothing else of ours uses
    memory_bytes: values.Size | None = None
    network: values.Flag = False
    confine: values.Flag = True
    keep_outputs_bytes: values.Size = 2_000_000_000
    log_bytes: values.Size = field(default=16_000_000, metadata={"key": "log_limit"})
    # of each file
    file_bytes: values.Size = field(default=50_000_000_000, metadata={"key": "file_limit"})
    processes: values.Count = 1024  # of one run, at a time
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # [runner.NAME]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    root: Path  # the folder of the task file; commands run in copies of it
    objective: values.Text = "program.md"  # a path relative to the root, or the text
    objective_text: str = ""
    editable: values.Globs  # relative to the root; ask `may_edit`
    run: RunSettings
    metric: Metric
    metric_source: MetricSource = MetricSource()
    measure: Measure | None = None  # None: the program, or the scorer, prints the metric
    score: ScoreSettings | None = None
    second: Metric | None = None
    holdout: HoldoutSettings | None = None
    guards: Guards = Guards()
    judge: JudgeSettings = JudgeSettings()
    limits: Limits = Limits()
    notify: NotifySettings = NotifySettings()
    export: ExportSettings = ExportSettings()
    agent: AgentSettings = field(default_factory=AgentSettings)
    runner: RunnerSettings = field(default_factory=RunnerSettings)
    layout: str = TASK_FILE  # or "original", "pi-autoresearch"
    source: Path | None = None  # the task file; None for a recognised layout
    document: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)  # as TOML

    @property
    def hidden(self) -> tuple[str, ...]:
        """The files that neither an agent nor a run sees, relative to the root."""
        return (*(self.score.hidden if self.score else ()), *self.sealed)

    @property
    def sealed(self) -> tuple[str, ...]:
        """The holdout's files, which the scorer does not see either."""
        return self.holdout.hidden if self.holdout else ()

    @property
    def outputs(self) -> tuple[str, ...]:
        """The files that a run leaves for the scorer, or with its metric in them."""
        file = self.metric_source.file
        return (*(self.score.reads if self.score else ()), *((file,) if file else ()))

    def may_edit(self, path: str) -> bool:
        """Whether `path` (relative to the root, with `/`) is editable.

        A glob with `!` excludes. Never editable: git's files, the record, the task's own files, the
        objective.
        """
        own = OWN_FILES | {self.objective, self.source.name if self.source else TASK_FILE}
        if path in own or OWN_FOLDERS & set(path.lower().split("/")):
            return False
        if any(matches(glob[1:], path) for glob in self.editable if glob[0] == "!"):
            return False
        return any(matches(glob, path) for glob in self.editable if glob[0] != "!")


def make_measure(what: str | None, repeats: int | None, relative: bool | None) -> Measure | None:
    """The measure that the keys of [metric] ask for, with the defaults that `benchmarks/timing.py`
    has found. Neighbours of the program change its time, but not the number of instructions."""
    if what is None:
        return None
    is_time = what != "instructions"
    return Measure(
        what, repeats or (TIME_REPEATS if is_time else 1), is_time if relative is None else relative
    )


def default_timeout(budget_s: float | None) -> float:
    """Wall seconds after which a run is killed, if the task file sets no timeout."""
    return 600.0 if budget_s is None else 10 * budget_s + 60


def seconds_until(until: time, now: datetime) -> float:
    """Seconds from `now` (local time, naive) to the next time the clock shows `until`."""
    target = now.replace(hour=until.hour, minute=until.minute, second=0, microsecond=0)
    if target <= now:
        target += timedelta(days=1)
    return target.timestamp() - now.timestamp()  # a night with a change of the clocks is longer
