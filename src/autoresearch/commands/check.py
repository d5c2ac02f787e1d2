"""`autoresearch check`: measure the unchanged program, its noise, and the cost of a session."""

from __future__ import annotations

import datetime
import os
import shutil
import statistics
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from autoresearch.briefing import Briefer
from autoresearch.commands.readiness import NIGHT_S, final_error_sd, recognised_gain_sd
from autoresearch.commands.slots import choose, measure_slots
from autoresearch.commands.start import create_record, list_agent_problems, make_runner
from autoresearch.core import baseline
from autoresearch.core.control import Restart
from autoresearch.core.events import Listener
from autoresearch.core.scheduler import AgentScheduler
from autoresearch.core.session import Session
from autoresearch.errors import BaselineError
from autoresearch.files import remove_tree
from autoresearch.formatting import counted
from autoresearch.git.repository import Repository
from autoresearch.measure.absent import list_absent_files
from autoresearch.measure.diagnosis import explain_failure
from autoresearch.measure.output import describe_end
from autoresearch.protocols import RunResult
from autoresearch.records import Run
from autoresearch.runners.warden import cpu_clock
from autoresearch.sandbox import landlock, run_policy, seccomp
from autoresearch.statistics import pooled_noise
from autoresearch.store.ledger import Ledger
from autoresearch.store.paths import OURS, SessionPaths
from autoresearch.task.model import Task, seconds_until
from autoresearch.task.reading import override
from autoresearch.task.seeds import seed_patch
from autoresearch.task.values import shell_words

RUNS_PER_EXPERIMENT = 1.5  # at the default level, all runs counted (benchmarks/truth.py)
SHOWN_NUMBERS = 20  # by name, in a message
TAG = ".check"  # no session can have this name


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What `check` measured. Times in seconds, `sd` in metric units."""

    metric: str
    metric_source: str  # `pattern`, `json` and `file` of [metric], or `measure`; empty without
    measured: bool  # whether the harness measures the metric
    values: tuple[float, ...]
    mean: float
    sd: float
    wall_s: float  # mean of a run and its score
    cpu_s: float  # mean of a run and its score
    peak_memory_bytes: int | None
    python: str | None  # the interpreter that a run finds on PATH
    deterministic: bool
    declared_deterministic: bool
    scored: bool  # whether a [score] command gives the metric
    holdout: bool  # whether the task has a sealed holdout; if so, it could be scored
    recognised_gain: float  # that is kept in 4 of 5 cases, in metric units
    final_error: float  # half the 95 % interval of a session's whole gain, in metric units
    seconds_per_experiment: float
    experiments: int | None  # as many as the limits allow
    experiments_in_a_night: int  # the same, or in 8 hours without a limit
    duration_s: float | None
    ends_at: str | None
    starts: tuple[str, ...]  # how each command starts, if the task preloads modules
    enforced: tuple[str, ...]
    not_enforced: tuple[str, ...]
    seed_patch: str | None
    agent_problems: tuple[str, ...]  # why the task's agents could propose nothing
    load: str | None  # of the machine before, if it was busy
    absent_files: tuple[str, ...]  # what the checkout has and a run has not, in words
    slots: tuple[str, ...] = ()  # what runs take in so many slots; empty if only one was tried
    best_slots: int | None = None  # that pay


def check_task(task: Task, runs: int, listener: Listener, most_slots: int = 1) -> CheckResult:
    """Run the unchanged program `runs` times, and then in up to `most_slots` slots at a time.
    Records nothing; raises like a session's start."""
    repository = Repository(task.root, task.editable, task.may_edit)
    editable = repository.check_editable()
    repository.exclude(*OURS)
    agent_problems = list_agent_problems(task, repository)
    load = describe_load()
    declared, baseline_runs = task.judge.deterministic, task.judge.baseline_runs
    task = override(task, **{"judge.baseline_runs": runs, "judge.deterministic": False})
    paths = SessionPaths(task.root, TAG)
    remove_tree(paths.folder)
    paths.folder.mkdir(parents=True)
    with ExitStack() as stack:
        stack.callback(remove_tree, paths.temporary)
        ledger = Ledger(paths.folder / "ledger.sqlite")
        stack.callback(ledger.close)
        runner = make_runner(task)
        stack.callback(runner.close)
        record = create_record(task, TAG, repository, ledger, limits={})
        briefer = Briefer(task, ledger, record, repository, paths)
        agents = AgentScheduler(())
        parts = (task, paths, repository, ledger, runner, agents, record, briefer, listener)
        session = Session(*parts)
        try:
            baseline.set_up(session)
            measured = baseline.make_runs(session, 0)
            baseline.check_guards(session)
        except Restart:
            change = session.record.warnings[-1]
            raise BaselineError(f"{change}. Check again when all is at rest") from None
        _check_holdout(session, measured)
        _check_second(session, measured)
        tried = measure_slots(session, most_slots) if most_slots > 1 else []
    remove_tree(paths.folder)  # only now: an error names the log of the failed run
    values = tuple(run.metric for run in measured if run.metric is not None)
    is_deterministic = len(set(values)) == 1
    sd = pooled_noise([values])[0]
    wall_s = statistics.fmean(run.took_s - (run.holdout_wall_s or 0.0) for run in measured)
    per_experiment_s = RUNS_PER_EXPERIMENT * wall_s / task.runner.slots
    duration_s = _estimate_duration(task, per_experiment_s)
    ends_at = None
    if duration_s is not None:
        end = datetime.datetime.now() + datetime.timedelta(seconds=duration_s)
        ends_at = end.isoformat(timespec="minutes")
    experiments = None if duration_s is None else int(duration_s / per_experiment_s + 0.5)
    patches = [seed_patch(Path(task.root, path)) for path in editable if is_deterministic]
    return CheckResult(
        metric=task.metric.name,
        metric_source=str(task.measure or task.metric_source),
        measured=task.measure is not None,
        values=values,
        mean=statistics.fmean(values),
        sd=sd,
        wall_s=wall_s,
        cpu_s=statistics.fmean(sum(filter(None, (run.cpu_s, run.score_cpu_s))) for run in measured),
        peak_memory_bytes=max(run.peak_memory_bytes or 0 for run in measured) or None,
        python=shutil.which("python"),
        deterministic=is_deterministic,
        declared_deterministic=declared is True,
        scored=task.score is not None,
        holdout=task.holdout is not None,
        recognised_gain=sd * recognised_gain_sd(task.judge.level, baseline_runs),
        final_error=sd * final_error_sd(baseline_runs),
        seconds_per_experiment=per_experiment_s,
        experiments=experiments,
        experiments_in_a_night=int(NIGHT_S / per_experiment_s)
        if experiments is None
        else experiments,
        duration_s=duration_s,
        ends_at=ends_at,
        starts=tuple(_describe_starts(task, session.executor.commands.results)),
        enforced=enforced(task),
        not_enforced=not_enforced(task),
        seed_patch=next(filter(None, patches), None),
        agent_problems=tuple(agent_problems),
        load=load,
        absent_files=tuple(list_absent_files(task, repository)),
        slots=tuple(map(str, tried)),
        best_slots=choose(tried, task.metric) if tried else None,
    )


ENFORCED = (
    "time and budget limits, measured over the whole tree of processes",
    "the whole tree of processes dies with its run"
    if sys.platform == "linux"
    else "processes die with their run, unless they leave its session and hide their environment",
    "runs and agents work in trees of their own, never in your checkout",
)
READ = "its tree, the system and what is installed, [run] inputs"
WRITTEN = "its tree, a temporary folder of its own, [run] caches, /tmp, /dev/shm and GPUs"


def enforced(task: Task) -> tuple[str, ...]:
    """List what is enforced on this machine, a clause each."""
    runner = task.runner
    memory = f"{runner.memory_bytes / 1e9:g} GB of memory, " if runner.memory_bytes else ""
    clauses = [
        *ENFORCED,
        f"a run has at most {memory}{runner.processes} processes, files of "
        f"{runner.file_bytes / 1e9:g} GB, a log of {runner.log_bytes / 1e6:g} MB",
    ]
    if run_policy.why_unconfined(task) is None:
        clauses += [f"a run reads {READ}; it writes {WRITTEN}"]
        clauses += [f"a run: {clause}" for clause in landlock.describe().holds[1:]]
        if not runner.network and (network := landlock.describe_network_denial()):
            clauses.append(f"a run: {network}")
    if cpu_clock.is_available():
        clauses.append("CPU time counts for children too that nobody waits for")
    if task.agent.confine:
        clauses += [f"an agent's program: {clause}" for clause in landlock.describe().holds]
    return tuple(clauses)


def not_enforced(task: Task) -> tuple[str, ...]:
    """List what is not enforced on this machine, a clause each."""
    lacks = landlock.describe().lacks if task.agent.confine else ("reads and writes what you can",)
    agents = [f"an agent's program: {clause}" for clause in (*lacks, "it uses the network")]
    if reason := run_policy.why_unconfined(task):
        return (f"runs read and write what you can, and use the network: {reason}", *agents)
    runs = list(landlock.describe().lacks)
    if not cpu_clock.is_available():
        runs.append(
            "CPU time of children that nobody waits for is not counted (no performance counter, "
            "as with kernel.perf_event_paranoid above 2 and for root, and no control group); its "
            "wall time is limited to twice the baseline's for each second of the budget"
        )
    if task.runner.network:
        runs.append("it uses the network, as [runner] network says")
    elif landlock.describe_network_denial() is None:
        runs.append("it uses the network, which this kernel does not deny it")
    elif not seccomp.is_available():
        runs.append("it uses the network by other means than TCP")
    return (*(f"a run: {clause}" for clause in runs), *agents)


def _describe_starts(task: Task, results: Mapping[tuple[str, ...], RunResult]) -> Iterator[str]:
    """For each command, whether it starts warm, the CPU time that this saves, and else why not."""
    preloads = [(task.run.command, task.run.preload)]
    scorers = [scorer for scorer in (task.score, task.holdout) if scorer]
    preloads += [(scorer.command, task.score.preload) for scorer in scorers if task.score]
    if not any(preload for _, preload in preloads):
        return
    preloads += [(command, ()) for _, command in task.guards.commands]
    for command, preload in preloads:
        result = results.get(shell_words(command))
        if result is not None and result.spared_s is not None:
            yield f"warm: {command} (saves {result.spared_s:.1f} s of CPU time in each run)"
        elif not preload:
            yield f"cold: {command} (no `preload`)"
        else:
            why = result.detail.removeprefix("started cold: ") if result else ""
            yield f"cold: {command} ({why or f'the runner {task.runner.name} starts all cold'})"


def describe_load() -> str | None:
    """The machine's load, if more processes want to run than it has cores."""
    cores = os.cpu_count() or 1
    load = os.getloadavg()[0]
    return f"load {load:.1f} on {counted(cores, 'core')}" if load > cores else None


def _estimate_duration(task: Task, per_experiment_s: float) -> float | None:
    """Seconds until the first of the task's limits is reached."""
    limits = task.limits
    ends = [limits.hours * 3600] if limits.hours else []
    if limits.experiments:
        ends.append(limits.experiments * per_experiment_s)
    if limits.until:
        ends.append(seconds_until(limits.until, datetime.datetime.now()))
    return min(ends, default=None)


def _check_second(session: Session, runs: list[Run]) -> None:
    """Raise `BaselineError` if a run of the unchanged program did not print the second number."""
    second = session.task.second
    for run in runs:
        if second is not None and second.name not in run.numbers:
            printed = ", ".join(list(run.numbers)[:SHOWN_NUMBERS]) or "none"
            raise BaselineError(
                f"[second] name: no run prints {second.name!r}; accepted: a number that every run, "
                f"or the scorer, prints as `NAME: NUMBER`. Printed were: {printed}"
            )


def _check_holdout(session: Session, runs: list[Run]) -> None:
    """Raise `BaselineError` if the sealed holdout cannot be scored for the unchanged program."""
    holdout = session.task.holdout
    for run in runs:
        if holdout is not None and run.is_held_out and run.holdout is None:
            log = session.paths.runs / run.name / "holdout.log"
            raise BaselineError(
                f"[holdout] command gave no {session.record.metric.name} for the unchanged "
                f"program: {holdout.command}\n"
                f"{describe_end(log)}{explain_failure(session.executor.commands, log)}"
            )
