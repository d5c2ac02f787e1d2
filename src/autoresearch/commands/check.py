"""`autoresearch check`: whether the unchanged program works, its noise, the cost of a session."""

from __future__ import annotations

import datetime
import shutil
import statistics
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from autoresearch import runners
from autoresearch.briefing import Briefer
from autoresearch.commands.start import fingerprint
from autoresearch.core import baseline
from autoresearch.core.control import Restart
from autoresearch.core.events import Listener
from autoresearch.core.scheduler import AgentScheduler
from autoresearch.core.session import Session
from autoresearch.core.statistics import pooled_noise
from autoresearch.errors import BaselineError
from autoresearch.files import remove_tree, tail
from autoresearch.git.repository import Repository
from autoresearch.measure.output import describe_end
from autoresearch.records import Run
from autoresearch.sandbox import landlock, run_policy, seccomp
from autoresearch.sandbox.run_policy import explain_denial
from autoresearch.store.ledger import Ledger
from autoresearch.store.paths import OURS, SessionPaths
from autoresearch.task.model import Task, seconds_until
from autoresearch.task.reading import override
from autoresearch.task.seeds import seed_patch

RUNS_PER_EXPERIMENT = 1.7  # at the default level, all runs counted (benchmarks/truth.py)
TAG = ".check"  # no session can have this name


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What `check` measured. Times in seconds, `sd` in metric units."""

    metric: str
    values: tuple[float, ...]
    mean: float
    sd: float
    wall_s: float  # mean of a run and its score
    cpu_s: float | None  # mean of a run and its score
    peak_memory_bytes: int | None
    python: str | None  # what `python` is for a run
    deterministic: bool
    holdout: bool  # whether the task has a sealed one; it could be scored
    seconds_per_experiment: float
    experiments: int | None  # as many as the limits allow
    duration_s: float | None
    ends_at: str | None
    enforced: tuple[str, ...]
    not_enforced: tuple[str, ...]
    seed_patch: str | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def check_task(task: Task, runs: int, listener: Listener) -> CheckResult:
    """Run the unchanged program `runs` times. Records nothing; raises like a session's start."""
    repository = Repository(task.root, task.editable, task.may_edit)
    editable = repository.check_editable()
    repository.exclude(*OURS)
    task = override(task, **{"judge.baseline_runs": runs, "judge.deterministic": False})
    paths = SessionPaths(task.root, TAG)
    remove_tree(paths.folder)
    paths.folder.mkdir(parents=True)
    runner = runners.load(task.runner)
    ledger = Ledger(paths.folder / "ledger.sqlite")
    try:
        record = ledger.create_session(
            TAG,
            base_commit=repository.head(),
            metric=task.metric,
            level=task.judge.level,
            budget_s=task.run.budget_s,
            budget_clock=task.run.budget_clock,
            limits={},
            fingerprint=fingerprint(task),
            now=0.0,
        )
        session = Session(
            task,
            paths,
            repository,
            ledger,
            runner,
            AgentScheduler(()),
            record,
            Briefer(task, ledger, record, repository, paths),
            listener,
        )
        baseline.set_up(session)
        made = baseline.make_runs(session, 0)
        baseline.check_guards(session)
        _check_holdout(session, made)
    except Restart:
        changed = session.record.warnings[-1]
        raise BaselineError(f"{changed}. Check again when all is at rest") from None
    finally:
        runner.close()
        ledger.close()
        remove_tree(paths.temporary)
    remove_tree(paths.folder)  # only now: an error names the log of the failed run
    values = tuple(run.metric for run in made if run.metric is not None)
    wall_s = statistics.fmean(run.took_s for run in made)
    same = len(set(values)) == 1
    per_experiment = RUNS_PER_EXPERIMENT * wall_s / task.runner.slots
    experiments, duration_s = _estimate_session(task, per_experiment)
    ends = None
    if duration_s is not None:
        ends = (datetime.datetime.now() + datetime.timedelta(seconds=duration_s)).isoformat(
            timespec="minutes"
        )
    patches = [seed_patch(Path(task.root, path)) for path in editable] if same else []
    return CheckResult(
        metric=task.metric.name,
        values=values,
        mean=statistics.fmean(values),
        sd=pooled_noise([values])[0],
        wall_s=wall_s,
        cpu_s=statistics.fmean(
            sum(filter(None, (run.cpu_s, run.score_cpu_s, run.holdout_cpu_s))) for run in made
        ),
        peak_memory_bytes=max(run.peak_memory_bytes or 0 for run in made) or None,
        python=shutil.which("python"),
        deterministic=same,
        holdout=task.holdout is not None,
        seconds_per_experiment=per_experiment,
        experiments=experiments,
        duration_s=duration_s,
        ends_at=ends,
        enforced=enforced(task),
        not_enforced=not_enforced(task),
        seed_patch=next((patch for patch in patches if patch), None),
    )


def checked_text(result: CheckResult) -> str:
    """What `check` prints for people."""
    memory = f", {result.peak_memory_bytes / 2**20:.0f} MB" if result.peak_memory_bytes else ""
    lines = [
        "",
        f"it works   {result.metric} {result.mean:.6g} in {len(result.values)} runs, each "
        f"{result.wall_s:.1f} s ({result.cpu_s:.1f} s CPU{memory})",
        f"python     {result.python or 'not found on PATH'}",
    ]
    if result.deterministic:
        lines.append(
            "noise      none: every seed gave the same. Either the program ignores "
            "AUTORESEARCH_SEED, or the task is deterministic ([judge] deterministic = true)"
        )
        if result.seed_patch:
            lines.append(f"           this lets it take the seed:\n\n{result.seed_patch}")
    else:
        lines.append(
            f"noise      sd {result.sd:.3g} ({100 * result.sd / abs(result.mean):.2g} %)"
            if result.mean
            else f"noise      sd {result.sd:.3g}"
        )
    if result.holdout:
        lines.append(
            "holdout    sealed: scored for the baseline and keeps, told in the report alone"
        )
    night = f"cost       about {result.seconds_per_experiment:.3g} s an experiment"
    if result.duration_s is not None:
        night += (
            f"; about {result.experiments} experiments in {result.duration_s / 3600:.2g} h, "
            f"until {result.ends_at}"
        )
    else:
        night += "; no limit is set: it would go on until you stop it (--experiments, --hours)"
    lines.append(night)
    lines += [f"enforced   {line}" for line in result.enforced]
    lines += [f"NOT so     {line}" for line in result.not_enforced]
    return "\n".join(lines)


ENFORCED = (
    "time and budget limits, measured over the whole tree of processes",
    "the whole tree of processes dies with its run"
    if sys.platform == "linux"
    else "processes die with their run, unless they leave its session and hide their environment",
    "runs and agents work in trees of their own, never in your checkout",
)
READ = "its tree, the system and what is installed, [run] inputs"
WRITTEN = "its tree, a temporary folder of its own, [run] caches, /dev/shm and GPUs"


def enforced(task: Task) -> tuple[str, ...]:
    """What is enforced on this machine, a clause each."""
    clauses = [*ENFORCED, _describe_limits(task)]
    if run_policy.why_unconfined(task) is None:
        clauses += [f"a run reads {READ}; it writes {WRITTEN}"]
        clauses += [f"a run: {words}" for words in landlock.describe().holds[1:]]
        if not task.runner.network and (network := landlock.describe_network_denial()):
            clauses.append(f"a run: {network}")
    if task.agent.confine:
        clauses += [f"an agent's program: {words}" for words in landlock.describe().holds]
    return tuple(clauses)


def not_enforced(task: Task) -> tuple[str, ...]:
    """What is not enforced on this machine, a clause each."""
    clauses = list(_list_freedoms(task))
    lacks = landlock.describe().lacks if task.agent.confine else ("reads and writes what you can",)
    clauses += [f"an agent's program: {words}" for words in lacks]
    return (*clauses, "an agent's program: it uses the network")


def _list_freedoms(task: Task) -> Iterator[str]:
    if why := run_policy.why_unconfined(task):
        yield f"runs read and write what you can, and use the network: {why}"
        return
    yield from (f"a run: {words}" for words in landlock.describe().lacks)
    if task.runner.network:
        yield "a run: it uses the network, as [runner] network says"
    elif landlock.describe_network_denial() is None:
        yield "a run: it uses the network, which this kernel does not deny it"
    elif not seccomp.is_available():
        yield "a run: it uses the network by other means than TCP"


def _describe_limits(task: Task) -> str:
    runner = task.runner
    memory = f"{runner.memory_bytes / 1e9:g} GB of memory, " if runner.memory_bytes else ""
    return (
        f"a run has at most {memory}{runner.processes} processes, files of "
        f"{runner.file_bytes / 1e9:g} GB, a log of {runner.log_bytes / 1e6:g} MB"
    )


def _estimate_session(task: Task, per_experiment: float) -> tuple[int | None, float | None]:
    """(experiments, seconds) until the first of the task's limits is reached."""
    limits = task.limits
    seconds = [limits.hours * 3600] if limits.hours else []
    if limits.experiments:
        seconds.append(limits.experiments * per_experiment)
    if limits.until:
        seconds.append(seconds_until(limits.until, datetime.datetime.now()))
    if not seconds:
        return None, None
    duration_s = min(seconds)
    return int(duration_s / per_experiment + 0.5), duration_s


def _check_holdout(session: Session, runs: list[Run]) -> None:
    """Raise `BaselineError` if the sealed holdout cannot be scored for the unchanged program."""
    failed = [run for run in runs if run.holdout is None]
    if session.task.holdout is not None and failed:
        log = session.paths.runs / failed[0].name / "holdout.log"
        raise BaselineError(
            f"[holdout] command gave no {session.record.metric.name} for the unchanged program: "
            f"{session.task.holdout.command}\n"
            f"{describe_end(log)}{explain_denial(session.task, tail(log))}"
        )
