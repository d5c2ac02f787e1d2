"""One run: pristine tree, command, score, metric.

What a program prints is read here and nowhere else. Two formats are understood, the original's
summary block (`name:  value` lines after a line `---`) and `METRIC name=value` lines; of several
values for a name the last counts. A metric that is missing, not finite or no number is a crash,
never a value.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from autoresearch.errors import StorageError, TaskError
from autoresearch.files import files_below, remove_tree
from autoresearch.git.repository import Manifest, Repository
from autoresearch.measure.fingerprint import Environment, around
from autoresearch.protocols import Runner, RunResult, RunSpec
from autoresearch.records import HELD_OUT, HoldoutScore, Role, Run
from autoresearch.sandbox.run_policy import Purpose, RunPolicies, seen
from autoresearch.store import values
from autoresearch.store.ledger import Ledger
from autoresearch.store.paths import SessionPaths
from autoresearch.task.model import HoldoutSettings, ScoreSettings, Task
from autoresearch.task.values import shell_words

STANDARD_ENV = (
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "TZ", "LANG", "LC_ALL", "LC_CTYPE"),
    *("VIRTUAL_ENV", "CONDA_PREFIX", "CONDA_DEFAULT_ENV", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"),
    *("LD_LIBRARY_PATH", "CUDA_HOME", "CUDA_PATH", "CUDA_VISIBLE_DEVICES"),
    *("NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES", "ROCR_VISIBLE_DEVICES"),
)
"""Passed on to a run when set; everything else only when the task names it in `[run] env`."""

SESSION = "AUTORESEARCH_SESSION"  # in a run's environment: whose process it is
READ_BYTES = 1_000_000  # of a log, from its end: where a program says how it went
MIN_FREE_BYTES = 100_000_000  # below this no work is started: it could not be recorded
OUTCOMES = ("outcome.json", "score.json", "holdout.json")  # in a run's folder until it is recorded
EASED = 1.5  # times a limit, for runs of what is kept
UNSETTLED = ("interrupted", "lost")  # how a run ends that says nothing about its program
SPOILED = "changed meanwhile"  # what a run depends on, while it ran: it says nothing
METRIC_LINE = re.compile(r"^METRIC\s+([\w.µ]+)=(\S+)\s*$")
SUMMARY_LINE = re.compile(r"^([\w.µ]+):\s+(\S+)\s*$")


@contextmanager
def _disk_errors() -> Iterator[None]:
    """The one place where the operating system's errors become ours."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"cannot write {error.filename}: {error.strerror}") from error


class Interrupted(Exception):
    """The run was abandoned on our side; it will be made again."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a log says: finite numbers by name, and the texts that were none."""

    numbers: dict[str, float]
    faulty: dict[str, str]


def read_log(text: str) -> Reading:
    """Read METRIC lines anywhere, and summary lines after the last `---` (anywhere when there is
    no `---`)."""
    lines = text.splitlines()
    rules = [at for at, line in enumerate(lines) if line.strip() == "---"]
    summary_from = rules[-1] + 1 if rules else 0
    numbers: dict[str, float] = {}
    faulty: dict[str, str] = {}
    for at, line in enumerate(lines):
        found = METRIC_LINE.match(line)
        if found is None and at >= summary_from:
            found = SUMMARY_LINE.match(line)
        if found is None:
            continue
        name, word = found.groups()
        numbers.pop(name, None)
        faulty.pop(name, None)
        value = _number(word)
        if value is None:
            faulty[name] = word
        else:
            numbers[name] = value
    return Reading(numbers, faulty)


def _number(word: str) -> float | None:
    try:
        value = float(word)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def tail(path: Path, size: int = READ_BYTES) -> str:
    """The end of a file as text; empty when there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - size))
            return file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""


def leftovers(paths: SessionPaths, seed: int | None = None) -> list[psutil.Process]:
    """The living processes of a session's runs, or of its run of that seed, wardens left out."""
    marks = {SESSION: str(paths.folder)}
    if seed is not None:
        marks["AUTORESEARCH_SEED"] = str(seed)
    found = []
    for process in psutil.process_iter():
        try:
            if marks.items() <= process.environ().items():
                found.append(process)
        except psutil.Error:
            continue  # it has ended, or is another user's
    return found


def whole_lines(path: Path, size: int = READ_BYTES) -> str:
    """The end of a file without a line whose beginning is cut off: the rest of it could look like
    a metric."""
    text = tail(path, size + 1)
    cut = path.exists() and path.stat().st_size > size
    return text.partition("\n")[2] if cut else text


class RunExecutor:
    """Makes the runs of one session. Usable from several threads."""

    def __init__(
        self,
        task: Task,
        paths: SessionPaths,
        repository: Repository,
        runner: Runner,
        ledger: Ledger,
    ) -> None:
        self.task = task
        self.paths = paths
        self.repository = repository
        self.runner = runner
        self.ledger = ledger
        self.limit_s: float | None = None  # of the budget's clock, known after the baseline
        self.score_limit_s: float | None = None  # the same, for a scorer and all it starts
        self._env = self._environment()
        self._policies = RunPolicies(task, paths, repository, self._env)

    def prepare(self) -> None:
        """What takes its time and can be refused, before the first run."""
        self._policies.prepare()

    def environment(self, commit: str) -> Environment:
        """What runs of that commit, and of changes of it, depend on beside it."""
        prefix = self.repository.prefix
        paths = [Path(path) for path in self.repository.manifest(commit)]
        tracked = {str(path.relative_to(prefix)) for path in paths if path.is_relative_to(prefix)}
        return around(self.task, self._env, self._policies.sites, tracked)

    def end_leftovers(self, seed: int | None = None) -> None:
        """Kill what runs (or the run of that seed) left behind whose wardens were killed."""
        for process in leftovers(self.paths, seed):
            with suppress(psutil.Error):  # it has just ended
                process.kill()

    def ended_unseen(self, run: Run) -> bool:
        """The run ended, but nobody was there to record it."""
        return _load_outcome(self.paths.runs / run.name / "outcome.json") is not None

    @_disk_errors()
    def measure(self, run: Run, spoiled: Callable[[Run], bool]) -> Run:
        """Make this run and record it, unless it is already there; without a metric when it is
        `spoiled` by what changed meanwhile. Raises `Interrupted` when it was abandoned; whatever
        else happens to it is in the run returned."""
        if run.finished:
            return run
        folder = self.paths.runs / run.name
        tree = self.paths.trees / f"{run.id:05d}"
        outcome = _load_outcome(folder / "outcome.json")
        if outcome is None:
            outcome, manifest = self._execute(run, folder, tree)
        else:  # it ended while nobody was there to record it
            manifest = self.repository.manifest(run.commit)
        if outcome.stopped in UNSETTLED:
            self.end_leftovers(run.seed)
            raise Interrupted(outcome.detail or outcome.stopped)
        self._keep_artefacts(manifest, tree, folder / "artefacts")
        log, ended, scored = folder / "log", outcome, None
        if outcome.stopped is None and outcome.exit_code == 0 and self.task.score is not None:
            scored = self._score(run, folder, self.task.score, Purpose.SCORE)
            log = folder / "score.log"
            if scored.stopped or scored.exit_code != 0:
                ended = scored
        metric, reason, numbers = self._judge_output(ended, log, folder / "log")
        if ended is not outcome:
            reason = f"score: {reason}"
        if spoiled(run):
            metric, reason = None, SPOILED
        finished = self.ledger.finish_run(
            run,
            metric=metric,
            reason=reason,
            numbers=numbers,
            slot=outcome.slot,
            exit_code=outcome.exit_code,
            wall_s=outcome.wall_s,
            cpu_s=outcome.cpu_s,
            peak_memory_bytes=outcome.peak_memory_bytes,
            score=scored,
            sealed=self._sealed(run, folder) if reason is None else None,
        )
        self.repository.put_aside(tree, manifest)
        for name in OUTCOMES:  # in the ledger now
            (folder / name).unlink(missing_ok=True)
        return finished

    def remove_recorded(self, open_runs: list[Run]) -> None:
        """After a kill: remove the outcomes that are in the ledger already."""
        pending = {self.paths.runs / run.name for run in open_runs}
        for name in OUTCOMES:
            for file in self.paths.runs.glob(f"*/*/{name}"):
                if file.parent not in pending:
                    file.unlink(missing_ok=True)

    def _execute(self, run: Run, folder: Path, tree: Path) -> tuple[RunResult, Manifest]:
        self.check_disk()
        if folder.exists():  # an earlier try was cut off
            remove_tree(folder)
            self.ledger.restart_run(run, time.time())
        folder.mkdir(parents=True)
        manifest = self.fresh_tree(run.commit, tree)
        command, log, outcome = self.task.run.command, folder / "log", folder / "outcome.json"
        spec = self.spec(command, tree, log, outcome, run.seed, limit_s=_eased(self.limit_s, run))
        return self.execute(spec), manifest

    @_disk_errors()
    def fresh_tree(self, commit: str, tree: Path) -> Manifest:
        """A commit's files without the hidden ones, with links to the declared inputs."""
        remove_tree(tree)
        manifest = self.repository.materialize(commit, tree)
        top = tree / self.repository.prefix
        for name in self.task.hidden:
            remove_tree(top / name)
        for name in self.task.run.inputs:
            self._link(name, top)
        return manifest

    def _link(self, name: str, top: Path) -> None:
        source = self.task.root / name
        if not source.exists():
            raise TaskError(f"[run] inputs: {source} does not exist any more")
        target = top / name.rstrip("/")
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(source.resolve())

    def spec(
        self,
        command: str,
        tree: Path,
        log: Path,
        outcome: Path,
        seed: int,
        *,
        limit_s: float | None = None,
        purpose: Purpose = Purpose.RUN,
    ) -> RunSpec:
        """How to execute `command` in `tree`: the environment, the limits, the files."""
        settings, runner = self.task.run, self.task.runner
        temporary = self.paths.temporary / tree.name
        env = self._env | self._policies.environment(purpose, tree, temporary)
        env["AUTORESEARCH_SEED"] = str(seed)
        env["PYTHONHASHSEED"] = str(seed)  # the seed alone decides, also over the order of sets
        return RunSpec(
            argv=shell_words(command),
            tree=tree / self.repository.prefix,
            log=log,
            outcome=outcome,
            env=env,
            timeout_s=settings.timeout_s,
            limit_s=limit_s,
            limit_clock=settings.budget_clock,
            memory_bytes=runner.memory_bytes,
            log_bytes=runner.log_bytes,
            file_bytes=runner.file_bytes,
            processes=runner.processes,
            confinement=self._policies.confinement(purpose, tree, temporary),
        )

    def _environment(self) -> dict[str, str]:
        """What every command of the session gets."""
        settings = self.task.run
        names = (*STANDARD_ENV, *settings.env)
        env = {name: os.environ[name] for name in names if name in os.environ}
        env[SESSION] = str(self.paths.folder)
        # A `git` called in the tree must not walk up to the user's repository.
        env["GIT_CEILING_DIRECTORIES"] = str(self.paths.folder)
        env["PYTHONDONTWRITEBYTECODE"] = "1"  # the tree is thrown away
        if (environment := self.task.root / ".venv").is_dir():
            # `uv run` would build one in every tree.
            env |= {"UV_PROJECT_ENVIRONMENT": str(environment), "UV_NO_SYNC": "1"}
        if settings.budget_s is not None:
            env["AUTORESEARCH_BUDGET"] = f"{settings.budget_s:g}"
            env["AUTORESEARCH_BUDGET_CLOCK"] = settings.budget_clock
        return env

    def execute(self, spec: RunSpec) -> RunResult:
        """Execute what `spec` says, with a temporary folder of its own that is there as long."""
        temporary = Path(spec.env["TMPDIR"])
        make_private(temporary.parent)
        remove_tree(temporary)
        temporary.mkdir(mode=0o700)
        try:
            return self.runner.run(spec)
        finally:
            remove_tree(temporary)

    def give_up(self, run: Run, reason: str) -> Run:
        """Record a run that never came back as a crash."""
        nothing = {"slot": None, "exit_code": None, "cpu_s": None, "peak_memory_bytes": None}
        return self.ledger.finish_run(
            run, metric=None, reason=reason, numbers={}, wall_s=0.0, **nothing
        )

    @_disk_errors()
    def run_guard(self, name: str, command: str, number: int, commit: str) -> RunResult:
        """A guard command in a pristine tree of experiment `number`'s change. Raises
        `Interrupted` when it was abandoned."""
        folder = self.paths.runs / f"{number:04d}"
        tree = self.paths.trees / f"guard-{folder.name}-{name}"
        folder.mkdir(parents=True, exist_ok=True)
        self.fresh_tree(commit, tree)
        log, outcome = folder / f"guard-{name}.log", folder / f"guard-{name}.json"
        result = self.execute(self.spec(command, tree, log, outcome, 0))
        remove_tree(tree)
        outcome.unlink(missing_ok=True)
        if result.stopped in UNSETTLED:
            raise Interrupted(result.detail or result.stopped)
        return result

    def _sealed(self, run: Run, folder: Path) -> HoldoutScore | None:
        """What the sealed holdout says, where it is asked."""
        if self.task.holdout is None or run.role not in HELD_OUT:
            return None
        scored = self._score(run, folder, self.task.holdout, Purpose.HOLDOUT)
        metric, reason = self._said(scored, read_log(whole_lines(folder / "holdout.log")))
        return HoldoutScore(metric, reason, scored.cpu_s, scored.wall_s)

    def _score(
        self, run: Run, folder: Path, settings: ScoreSettings | HoldoutSettings, purpose: Purpose
    ) -> RunResult:
        """The trusted half: a pristine tree of its own, the hidden files that are for it in their
        place, and of the run only the regular files it was to leave behind."""
        assert self.task.score is not None
        outcome = folder / f"{purpose.value}.json"
        if (earlier := _load_outcome(outcome)) is not None:
            return earlier
        scoring = self.paths.trees / f"{run.id:05d}-{purpose.value}"
        remove_tree(scoring)
        self.repository.materialize(run.commit, scoring, renewed=False)
        top = scoring / self.repository.prefix
        visible = seen(self.task, purpose)
        for name in set(self.task.hidden) - set(visible):
            remove_tree(top / name)
        for name in (*self.task.run.inputs, *visible):
            self._link(name, top)
        for name in self.task.score.reads:
            source, target = folder / "artefacts" / self.repository.prefix / name, top / name
            if not source.is_file() or source.is_symlink():
                remove_tree(scoring)
                return RunResult(1, f"the run left no file {name}", 0.0, 0.0, None)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
        command, log = settings.command, folder / f"{purpose.value}.log"
        spec = self.spec(
            *(command, scoring, log, outcome, run.seed),
            # The holdout decides nothing: who trains on while it is scored gains nothing.
            limit_s=_eased(self.score_limit_s, run) if purpose is Purpose.SCORE else None,
            purpose=purpose,
        )
        result = self.execute(spec)
        remove_tree(scoring)
        if result.stopped in UNSETTLED:
            raise Interrupted(result.detail or result.stopped)
        return result

    def _judge_output(
        self, outcome: RunResult, log: Path, run_log: Path
    ) -> tuple[float | None, str | None, dict[str, float]]:
        """(metric, reason, numbers) of a run that ended. A metric with a reason broke a guard."""
        reading = read_log(whole_lines(log))
        metric, reason = self._said(outcome, reading)
        numbers = dict(reading.numbers)
        numbers.pop(self.task.metric.name, None)
        if log != run_log:
            printed = read_log(whole_lines(run_log)).numbers
            printed.pop(self.task.metric.name, None)
            numbers = printed | numbers
        if metric is None:
            return None, reason, numbers
        for bound in self.task.guards.bounds:
            value = metric if bound.name == self.task.metric.name else numbers.get(bound.name)
            if value is None:
                return metric, f"guard failed: {bound.name} was not printed", numbers
            if not bound.holds(value):
                return metric, f"guard failed: {bound.name} = {value:g}, not {bound}", numbers
        return metric, None, numbers

    def _said(self, outcome: RunResult, reading: Reading) -> tuple[float | None, str | None]:
        """(metric, reason) of a command that ended, one of them None."""
        if outcome.stopped is not None:
            return None, outcome.stopped
        if outcome.exit_code != 0:
            return None, _exit_reason(outcome)
        word = reading.faulty.get(self.task.metric.name)
        if word is not None:
            return None, f"metric is {word[:40]!r}, not a finite number"
        metric = reading.numbers.get(self.task.metric.name)
        return metric, "no metric" if metric is None else None

    def _keep_artefacts(self, manifest: Manifest, tree: Path, target: Path) -> None:
        """Move what the run made or changed out of its tree; links are not followed nor kept."""
        if not tree.exists():
            return  # done already, before a kill
        for path, source in files_below(tree):
            if not source.is_file(follow_symlinks=False):
                continue
            with suppress(PermissionError):  # the run took it away from itself, and from us
                if path not in manifest or not manifest[path].describes(source):
                    (target / path).parent.mkdir(parents=True, exist_ok=True)
                    Path(source.path).replace(target / path)

    def check_disk(self) -> None:
        """Raises `StorageError` when too little room is left to record what would be done."""
        free = shutil.disk_usage(self.task.root).free
        if free < MIN_FREE_BYTES:
            raise StorageError(
                f"only {free / 1e6:.0f} MB are free on the disk of {self.task.root}: no run was "
                f"started. Make room (at least {MIN_FREE_BYTES / 1e6:.0f} MB) and resume"
            )


def make_private(folder: Path) -> None:
    """A folder that is nobody else's, in one that everybody may write."""
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise StorageError(
            f"{folder} is somebody else's: remove it, or set TMPDIR to another folder"
        )


class Outputs:
    """Keeps the runs' artefacts within a limit: logs always, those of a keep's first fresh run
    always, others as long as there is room, the oldest going first."""

    def __init__(self, paths: SessionPaths, limit_bytes: int, kept: Callable[[Path], bool]) -> None:
        """`kept` says whether the artefacts of a run, in the folder of that name, stay."""
        self._paths = paths
        self._limit = limit_bytes
        self._kept = kept
        self._sizes: dict[Path, int] = {}  # the oldest first
        for folder in sorted(paths.runs.glob("*/*/artefacts")):
            self._sizes[folder] = _size(folder)

    def offer(self, runs: list[Run]) -> None:
        """These runs' experiment is decided: count their artefacts and drop what is too much."""
        for run in runs:
            folder = self._paths.runs / run.name / "artefacts"
            if folder.exists():
                self._sizes[folder] = _size(folder)
        total = sum(self._sizes.values())
        for folder in list(self._sizes) if total > self._limit else ():
            if total > self._limit and not self._kept(folder.parent):
                remove_tree(folder)
                total -= self._sizes.pop(folder)


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*"))


def _eased(limit_s: float | None, run: Run) -> float | None:
    """A change has to keep to the limit in every run that decides about it. Once kept it is not
    held to the last second: a busy machine would make a crash of the incumbent."""
    exacting = run.role in (Role.SCREEN, Role.CANDIDATE)
    return limit_s if limit_s is None or exacting else EASED * limit_s


def _exit_reason(outcome: RunResult) -> str:
    code = outcome.exit_code
    if code == 127:
        return "command not found"
    if code is not None and code < 0:
        return f"killed by signal {-code}"
    return f"exit code {code}"


def _load_outcome(path: Path) -> RunResult | None:
    """What a runner left there; None when that does not settle anything, and is to be made again:
    nothing is there, it was cut off, or a power cut tore the file."""
    outcome = values.read(path, RunResult)
    return None if outcome is None or outcome.stopped in UNSETTLED else outcome
