"""Executes and records a run: pristine tree, command, score, metric."""

from __future__ import annotations

import errno
import shutil
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import psutil

from autoresearch.errors import AutoresearchError, StorageError
from autoresearch.files import clear_path
from autoresearch.git.repository import Repository
from autoresearch.git.trees import Manifest
from autoresearch.measure.artifacts import FOLDER, keep_artefacts
from autoresearch.measure.builds import BUILD, BuildCache, BuildFailed
from autoresearch.measure.doom import AUDITED, DOOMED, learn_bounds
from autoresearch.measure.execution import (
    SESSION,
    UNSETTLED,
    CommandExecutor,
    Interrupted,
    check_settled,
    storage_errors,
)
from autoresearch.measure.fingerprint import EnvironmentFingerprint, make_fingerprint
from autoresearch.measure.scoring import load_result, read_metric, score_holdout, score_within
from autoresearch.measure.timing import Repetitions
from autoresearch.measure.trees import CommitTree
from autoresearch.protocols import Runner, RunResult, RunSpec
from autoresearch.records import HoldoutScore, Role, Run
from autoresearch.sandbox.run_policy import Purpose
from autoresearch.store.ledger import Ledger
from autoresearch.store.paths import SessionPaths
from autoresearch.task.model import Task

DISK_FAULTS = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ENOMEM),
    *(errno.EMFILE, errno.ENFILE, errno.ESTALE, errno.ENODEV),
)
"""Errors of the machine, which end the session. Any other is the fault of the run's files."""

SCORES = ("score", "again", "load", "holdout")
REPETITION = "repetition.json"  # the result of the latest one, if the program is repeated
OUTCOMES = ("outcome.json", REPETITION, *(f"{name}.json" for name in SCORES))
"""Results in a run's folder, until it is recorded."""
KEPT_LIMIT_FACTOR = 1.5  # on a limit, for runs of a change that was kept
UNEXPECTED = "unexpected error: "  # begins the reason of a crash of the harness's own code
SPOILED = "changed meanwhile"  # the reason of a run whose environment changed meanwhile


class RunExecutor:
    """Executes and records the runs of one session. Usable from several threads."""

    def __init__(
        self,
        task: Task,
        paths: SessionPaths,
        repository: Repository,
        runner: Runner,
        ledger: Ledger,
        first_commit: str,
    ) -> None:
        """`first_commit` has the unchanged program."""
        self.task = task
        self.paths = paths
        self.repository = repository
        self.ledger = ledger
        self.first_commit = first_commit
        self.commands = CommandExecutor(task, paths, repository, runner)
        self.builds = BuildCache(self.commands)
        self._bounds: dict[str, float] | None = None  # see `learn_bounds`; None: not learned yet
        self.limit_s: float | None = None  # by the budget's clock; set after the baseline
        self.score_limit_s: float | None = None  # the same for a scorer

    def environment(self, commit: str) -> EnvironmentFingerprint:
        """The fingerprint of the environment of runs of this commit and of its changes."""
        prefix = self.repository.prefix
        paths = [Path(path) for path in self.repository.trees.manifest(commit)]
        tracked = {str(path.relative_to(prefix)) for path in paths if path.is_relative_to(prefix)}
        runner = getattr(self.commands.runner, "facts", {})
        sites = self.commands.policies.sites
        return make_fingerprint(self.task, self.commands.env, sites, tracked, runner)

    def end_leftovers(self, seed: int | None = None) -> None:
        """Kill the processes of all runs, or of the run with this seed, if a killed warden left
        them behind."""
        for process in leftovers(self.paths, seed):
            with suppress(psutil.Error):  # the process has just ended
                process.kill()

    def ended_unseen(self, run: Run) -> bool:
        """Whether the run ended after the harness was killed: its result is not recorded."""
        return load_result(self.paths.runs / run.name / "outcome.json") is not None

    @storage_errors()
    def measure(self, run: Run, is_spoiled: Callable[[Run], bool]) -> Run:
        """Execute and record a run, unless it is recorded already. Return the recorded run.

        A run is recorded without a metric if `is_spoiled(run)`: its environment has changed
        meanwhile. Raises `Interrupted` if it was abandoned or lost."""
        if run.finished:
            return run
        folder = self.paths.runs / run.name
        tree = self.paths.trees / f"{run.id:05d}"
        result = load_result(folder / "outcome.json")
        if result is None:
            try:
                result, manifest = self._execute(run, folder, tree)
            except BuildFailed as failure:
                shutil.copyfile(failure.log, folder / "log")
                reason = SPOILED if is_spoiled(run) else f"{BUILD}{failure}"
                return self._finish(run, failure.result, None, reason, {})
        else:  # it ended after the harness was killed
            self.commands.mask_secrets(folder / "log")
            manifest = self.repository.trees.manifest(run.commit)
        if result.stopped in UNSETTLED:
            self.end_leftovers(run.seed)
        check_settled(result)
        manifest.pop(self.commands.metric_file or "", None)  # was not in the run's tree
        try:
            finished = self._evaluate(run, folder, tree, result, manifest, is_spoiled)
        except Exception as error:
            if not _is_fault_of_run(error):
                raise
            finished = self._record_fault(run, folder, result, error)
        self.repository.trees.put_aside(tree, manifest)
        for name in OUTCOMES:  # in the ledger now
            (folder / name).unlink(missing_ok=True)
        return finished

    def _evaluate(
        self,
        run: Run,
        folder: Path,
        tree: Path,
        result: RunResult,
        manifest: Manifest,
        is_spoiled: Callable[[Run], bool],
    ) -> Run:
        """Score and record a run that ended. Everything here reads what the program left."""
        keep_artefacts(manifest, tree, folder / FOLDER)
        ended, scored, purpose = result, None, Purpose.RUN
        if self._has_ended(result) and self.task.score is not None:
            limit_s = _limit_of(run, self.score_limit_s)
            scored = score_within(self.commands, run, folder, self.task.score.command, limit_s)
            purpose = Purpose.SCORE
            if scored.stopped or scored.exit_code != 0:
                ended = scored
        metric, reason, numbers = read_metric(self.commands, ended, folder, purpose)
        if ended is not result:
            reason = f"score: {reason}"
        numbers.pop(DOOMED, None)
        if result.doomed is not None:
            numbers[DOOMED] = 1.0
        if is_spoiled(run):
            metric, reason = None, SPOILED
        held_out = reason is None and run.is_held_out
        sealed = score_holdout(self.commands, run, folder) if held_out else None
        return self._finish(run, result, metric, reason, numbers, score=scored, sealed=sealed)

    def _record_fault(self, run: Run, folder: Path, result: RunResult, error: Exception) -> Run:
        """Record an unexpected error as this run's crash: it came from what the program left, and
        must not end the session."""
        return self._finish(run, result, None, _keep_traceback(folder, error), {})

    def keep_traceback(self, experiment: int, error: Exception) -> str:
        """Keep the traceback of an unexpected error. Return the reason of the experiment's
        crash."""
        return _keep_traceback(self.paths.runs / f"{experiment:04d}", error)

    def _finish(
        self,
        run: Run,
        result: RunResult,
        metric: float | None,
        reason: str | None,
        numbers: dict[str, float],
        *,
        score: RunResult | None = None,
        sealed: HoldoutScore | None = None,
    ) -> Run:
        return self.ledger.finish_run(
            run,
            metric=metric,
            reason=reason,
            numbers=numbers,
            slot=result.slot,
            exit_code=result.exit_code,
            wall_s=result.wall_s,
            cpu_s=result.cpu_s,
            peak_memory_bytes=result.peak_memory_bytes,
            score=score,
            sealed=sealed,
        )

    def _execute(self, run: Run, folder: Path, tree: Path) -> tuple[RunResult, Manifest]:
        self.commands.check_disk()
        if folder.exists():  # an earlier attempt was interrupted
            clear_path(folder)
            self.ledger.restart_run(run, time.time())
        folder.mkdir(parents=True)
        if self.task.measure is None:
            return self._execute_once(run, run.commit, folder, tree, "outcome.json")
        own, reference = (
            partial(self._execute_once, run, commit, folder, tree, REPETITION)
            for commit in (run.commit, self.first_commit)
        )
        places = (self.repository.trees, folder, tree)
        repetitions = Repetitions(self.task.measure, *places, self._has_ended)
        return repetitions.make(own, reference, run.seed, run.commit == self.first_commit)

    def _execute_once(
        self, run: Run, commit: str, folder: Path, tree: Path, outcome: str
    ) -> tuple[RunResult, Manifest]:
        """Execute the program of a commit for this run. The result's file has the name `outcome`
        in the run's folder."""
        content = self._make_content(commit, run.segment)
        spec = self.commands.spec(
            self.task.run.command,
            tree,
            folder / "log",
            folder / outcome,
            run.seed,
            limit_s=_limit_of(run, self.limit_s),
            preload=self.task.run.preload,
        )
        spec = self._let_stop_doomed(run, _let_read_build(spec, content))
        result = self.commands.execute(spec, content)
        return result, content.written or self.repository.trees.manifest(commit)

    def _let_stop_doomed(self, run: Run, spec: RunSpec) -> RunSpec:
        """Let a run that decides about its change end as soon as it is doomed."""
        task = self.task
        if not _decides(run) or task.measure is not None or not task.run.stop_doomed:
            return spec
        if self._bounds is None:
            logs = [self.paths.runs / honest.name / "log" for honest in self.commands.honest]
            self._bounds = learn_bounds(logs, task.metric.name)
        return replace(spec, doom=self._bounds, is_audited=run.seed % AUDITED == 0)

    def _has_ended(self, result: RunResult) -> bool:
        """Whether a run ended by itself, and as it should."""
        return result.stopped is None and result.exit_code in self.task.run.exit_codes

    def _make_content(self, commit: str, segment: int | None = None) -> CommitTree:
        """A commit's files, and what `[run] build` makes of them. Raises `BuildFailed`."""
        content = self.commands.tree(commit)
        content.built = self.builds.get(commit, segment)
        return content

    def give_up(self, run: Run, reason: str) -> Run:
        """Record a run that was lost too often as a crash."""
        unknown = {"slot": None, "exit_code": None, "cpu_s": None, "peak_memory_bytes": None}
        return self.ledger.finish_run(
            run, metric=None, reason=reason, numbers={}, wall_s=0.0, **unknown
        )

    @storage_errors()
    def run_guard(self, name: str, command: str, number: int, commit: str) -> RunResult:
        """Execute a guard command in a pristine tree of a commit, for experiment `number`. Raises
        `Interrupted` if it was abandoned or lost."""
        folder = self.paths.runs / f"{number:04d}"
        tree = self.paths.trees / f"guard-{folder.name}-{name}"
        folder.mkdir(parents=True, exist_ok=True)
        log, outcome = folder / f"guard-{name}.log", folder / f"guard-{name}.json"
        try:
            content = self._make_content(commit)
        except BuildFailed as failure:
            return failure.result
        spec = _let_read_build(self.commands.spec(command, tree, log, outcome, 0), content)
        timeout_s = self.task.guards.timeouts.get(name, spec.timeout_s)
        spec = replace(spec, timeout_s=timeout_s)
        result = self.commands.execute(spec, content)
        clear_path(tree)
        outcome.unlink(missing_ok=True)
        check_settled(result)
        return result

    def remove_recorded(self, open_runs: list[Run]) -> None:
        """Remove the result files that a kill left behind, apart from those of `open_runs`."""
        pending = {self.paths.runs / run.name for run in open_runs}
        for name in OUTCOMES:
            for file in self.paths.runs.glob(f"*/*/{name}"):
                if file.parent not in pending:
                    file.unlink(missing_ok=True)


def _keep_traceback(folder: Path, error: Exception) -> str:
    """Write `error.log` with the traceback of an unexpected error. Return the reason of a crash."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = traceback.format_exception(error)
    (folder / "error.log").write_text("".join(lines), errors="backslashreplace")
    return f"{UNEXPECTED}{type(error).__name__}"


def _is_fault_of_run(error: Exception) -> bool:
    """Whether what a program left is to blame for an error, not the machine or the session."""
    cause = error.__cause__ if isinstance(error, StorageError) else error
    if isinstance(cause, OSError):
        return cause.errno not in DISK_FAULTS
    return not isinstance(error, AutoresearchError | Interrupted)


def _let_read_build(spec: RunSpec, content: CommitTree) -> RunSpec:
    """Let a command read the folder of its build: a program may name libraries by their paths
    there."""
    if content.built is None or spec.confinement is None:
        return spec
    read = (*spec.confinement.read, str(content.built.folder))
    return replace(spec, confinement=replace(spec.confinement, read=read))


def _limit_of(run: Run, limit_s: float | None) -> float | None:
    """The limit of a run of a new change, or a higher limit for runs of what was kept: on a busy
    machine the incumbent would crash at the same limit."""
    is_changed = _decides(run) or run.role is Role.SCRATCH
    return limit_s if limit_s is None or is_changed else KEPT_LIMIT_FACTOR * limit_s


def _decides(run: Run) -> bool:
    return run.role in (Role.SCREEN, Role.CANDIDATE)


def leftovers(paths: SessionPaths, seed: int | None = None) -> list[psutil.Process]:
    """The living processes of a session's runs, or of its run with this seed, without wardens."""
    marks = {SESSION: str(paths.folder)}
    if seed is not None:
        marks["AUTORESEARCH_SEED"] = str(seed)
    processes = []
    for process in psutil.process_iter():
        try:
            if marks.items() <= process.environ().items():
                processes.append(process)
        except psutil.Error:
            continue  # it has ended, or belongs to another user
    return processes
