"""`autoresearch check`: does the unchanged program work, how noisy is it, what costs a night?"""

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
from autoresearch.core.limits import seconds_until
from autoresearch.core.scheduler import AgentScheduler
from autoresearch.core.session import Session
from autoresearch.core.statistics import pooled_noise
from autoresearch.errors import BaselineError
from autoresearch.files import remove_tree
from autoresearch.git.repository import Repository
from autoresearch.sandbox import landlock, run_policy, seccomp
from autoresearch.store.ledger import Ledger
from autoresearch.store.paths import OURS, SessionPaths
from autoresearch.task.model import Task
from autoresearch.task.reading import override
from autoresearch.task.seeds import seed_patch

RUNS_PER_EXPERIMENT = 1.7  # at the default level, all runs counted (benchmarks/truth.py)
TAG = ".check"  # no session can be called so


@dataclass(frozen=True, slots=True)
class Checked:
    """What `check` found. Times in seconds, `sd` in metric units."""

    metric: str
    values: tuple[float, ...]
    mean: float
    sd: float
    wall_s: float  # of one run and its score, on average
    cpu_s: float | None  # the same
    peak_memory_bytes: int | None
    python: str | None  # what `python` is for a run
    deterministic: bool
    holdout: bool  # there is a sealed one, and it can be scored
    seconds_per_experiment: float
    experiments: int | None  # that the limits allow
    duration_s: float | None
    ends_at: str | None
    enforced: tuple[str, ...]
    not_enforced: tuple[str, ...]
    seed_patch: str | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def check(task: Task, runs: int, listener: Listener) -> Checked:
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
        baseline.check_holdout(session, made)
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
    experiments, duration_s = _night(task, per_experiment)
    ends = None
    if duration_s is not None:
        ends = (datetime.datetime.now() + datetime.timedelta(seconds=duration_s)).isoformat(
            timespec="minutes"
        )
    patches = [seed_patch(Path(task.root, path)) for path in editable] if same else []
    return Checked(
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
    """What holds on this machine, a clause each."""
    said = [*ENFORCED, _limits(task)]
    if run_policy.unconfined(task) is None:
        said += [f"a run reads {READ}; it writes {WRITTEN}"]
        said += [f"a run: {words}" for words in landlock.describe().holds[1:]]
        if not task.runner.network and (network := landlock.denied_network()):
            said.append(f"a run: {network}")
    if task.agent.confine:
        said += [f"an agent's program: {words}" for words in landlock.describe().holds]
    return tuple(said)


def not_enforced(task: Task) -> tuple[str, ...]:
    """What does not hold on this machine."""
    said = list(_free_runs(task))
    lacks = landlock.describe().lacks if task.agent.confine else ("reads and writes what you can",)
    said += [f"an agent's program: {words}" for words in lacks]
    return (*said, "an agent's program: it uses the network")


def _free_runs(task: Task) -> Iterator[str]:
    if why := run_policy.unconfined(task):
        yield f"runs read and write what you can, and use the network: {why}"
        return
    yield from (f"a run: {words}" for words in landlock.describe().lacks)
    if task.runner.network:
        yield "a run: it uses the network, as [runner] network says"
    elif landlock.denied_network() is None:
        yield "a run: it uses the network, which this kernel does not deny it"
    elif not seccomp.available():
        yield "a run: it uses the network by other means than TCP"


def _limits(task: Task) -> str:
    runner = task.runner
    memory = f"{runner.memory_bytes / 1e9:g} GB of memory, " if runner.memory_bytes else ""
    return (
        f"a run has at most {memory}{runner.processes} processes, files of "
        f"{runner.file_bytes / 1e9:g} GB, a log of {runner.log_bytes / 1e6:g} MB"
    )


def _night(task: Task, per_experiment: float) -> tuple[int | None, float | None]:
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
