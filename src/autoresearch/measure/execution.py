"""Executing one command of a task: its tree, environment, limits and confinement."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from autoresearch.errors import StorageError, TaskError
from autoresearch.files import clear_path, remove_tree, replace_file
from autoresearch.measure.trees import CommitTree
from autoresearch.protocols import Runner, RunResult, RunSpec
from autoresearch.records import Run
from autoresearch.sandbox.run_policy import Purpose, RunPolicies
from autoresearch.sandbox.secrets import mask, secrets_in
from autoresearch.store.paths import SessionPaths
from autoresearch.task.model import Task
from autoresearch.task.values import shell_words

if TYPE_CHECKING:  # `agents` needs no git
    from autoresearch.git.repository import Repository
    from autoresearch.git.trees import Manifest

STANDARD_ENV = (
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "TZ", "LANG", "LC_ALL", "LC_CTYPE"),
    *("VIRTUAL_ENV", "CONDA_PREFIX", "CONDA_DEFAULT_ENV", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"),
    *("LD_LIBRARY_PATH", "CUDA_HOME", "CUDA_PATH", "CUDA_VISIBLE_DEVICES"),
    *("NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES", "ROCR_VISIBLE_DEVICES"),
)
"""Variables that are passed on to a run. Others are passed on if `[run] env` names them."""

HASH_SEED = "1"  # PYTHONHASHSEED of all runs of a task that preloads modules
SESSION = "AUTORESEARCH_SESSION"  # in a run's environment: the folder of its session
MIN_FREE_BYTES = 100_000_000  # with less, nothing starts: its result could not be recorded
WALL_LIMIT_FACTOR = 2.0  # a busy machine makes any run wait
UNSETTLED = ("interrupted", "lost")  # ends for which the program is not to blame


class Interrupted(Exception):
    """The harness abandoned or lost the run, which must be executed again."""


def check_settled(result: RunResult) -> None:
    """Raise `Interrupted` if a command was abandoned or lost."""
    if result.stopped in UNSETTLED:
        raise Interrupted(result.detail or result.stopped)


@contextmanager
def storage_errors() -> Iterator[None]:
    """Convert the operating system's errors to `StorageError`, with the file's name."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"cannot write {error.filename}: {error.strerror}") from error


class CommandExecutor:
    """Executes the commands of one session's task. Usable from several threads."""

    def __init__(
        self, task: Task, paths: SessionPaths, repository: Repository, runner: Runner
    ) -> None:
        self.task = task
        self.paths = paths
        self.repository = repository
        self.runner = runner
        self.env = _shared_environment(task, paths)  # of every command of the session
        self.policies = RunPolicies(task, paths, repository, self.env)
        self.results: dict[tuple[str, ...], RunResult] = {}  # the latest of each command
        self.honest: Sequence[Run] = ()  # runs of the unchanged program
        self._wall_limit_ratio: float | None = None  # to a limit of CPU time; None: no such limit

    def limit_wall_time(self, honest: Collection[Run]) -> None:
        """Where a program can use CPU time that nothing counts, limit its wall time too: to twice
        as much for each CPU second of the limit as the slowest of these runs took."""
        self.honest = tuple(honest)
        if self.task.run.budget_clock != "cpu" or not getattr(
            self.runner, "misses_cpu_time", False
        ):
            return
        times = [(run.wall_s, run.cpu_s) for run in honest]
        times += [(run.score_wall_s, run.score_cpu_s) for run in honest]
        ratios = [wall_s / cpu_s for wall_s, cpu_s in times if wall_s and cpu_s]
        self._wall_limit_ratio = WALL_LIMIT_FACTOR * max(ratios) if ratios else None

    def tree(
        self,
        commit: str,
        visible: Collection[str] = (),
        copies: Mapping[str, Path] | None = None,
        may_reuse: bool = True,
        without: Collection[str] = (),
    ) -> CommitTree:
        """A commit's files without the hidden files, apart from the `visible` ones, and with links
        to the declared inputs. All names are relative to the task's folder. The file that a run has
        to write for its metric is left out, so that the commit's copy is never read. So are the
        files `without`, relative to the top of the repository."""
        task, prefix = self.task, self.repository.prefix
        links = {}
        for name in (*task.run.inputs, *visible):
            source = task.root / name
            if not source.exists():
                raise TaskError(f"[run] inputs: {source} does not exist any more")
            links[(prefix / name).as_posix()] = source.resolve()
        return CommitTree(
            self.repository,
            commit,
            hidden=[
                *((prefix / name).as_posix() for name in set(task.hidden) - set(visible)),
                *filter(None, [self.metric_file]),
                *without,
            ],
            links=links,
            copies={(prefix / name).as_posix(): path for name, path in (copies or {}).items()},
            may_reuse=may_reuse,
        )

    @property
    def metric_file(self) -> str | None:
        """The path in the repository of the file that a run writes for its metric, if any."""
        name = self.task.metric_source.file
        return None if name is None else (self.repository.prefix / name).as_posix()

    def hide(self, manifest: Manifest, folder: Path) -> None:
        """Remove the task's hidden files from a copy of a commit's files and from its manifest. A
        folder that an agent has replaced by a link is not followed: it may lead to the user's."""
        top = os.path.realpath(folder)
        for name in self.task.hidden:
            hidden = str(self.repository.prefix / name.rstrip("/"))
            if Path(os.path.realpath((folder / hidden).parent)).is_relative_to(top):
                remove_tree(folder / hidden)
            for path in [p for p in manifest if p == hidden or p.startswith(hidden + "/")]:
                del manifest[path]

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
        preload: tuple[str, ...] = (),
    ) -> RunSpec:
        """The spec for `command` in `tree`: its environment, limits and files."""
        settings, runner = self.task.run, self.task.runner
        timeout_s = settings.timeout_s
        if limit_s is not None and self._wall_limit_ratio is not None:
            timeout_s = min(timeout_s, limit_s * self._wall_limit_ratio)
        temporary = self.paths.temporary / tree.name
        own = self.policies.environment(purpose, tree, temporary)
        env = self.env | own
        env["AUTORESEARCH_SEED"] = str(seed)
        # So that the seed also decides the order of sets. Warm runs share it, so cold ones must.
        env["PYTHONHASHSEED"] = HASH_SEED if preload else str(seed)
        return RunSpec(
            argv=shell_words(command),
            tree=tree,
            log=log,
            outcome=outcome,
            env=env,
            timeout_s=timeout_s,
            limit_s=limit_s,
            limit_clock=settings.budget_clock,
            memory_bytes=runner.memory_bytes,
            log_bytes=runner.log_bytes,
            file_bytes=runner.file_bytes,
            processes=runner.processes,
            confinement=self.policies.confinement(purpose, command, tree, temporary),
            directory=self.repository.prefix.as_posix(),
            preload=preload,
            home=self.policies.home_links if "HOME" in own else None,
        )

    @storage_errors()
    def execute(self, spec: RunSpec, tree: CommitTree) -> RunResult:
        """Execute a spec in a new tree, with a temporary folder for the time of the run."""
        temporary = Path(spec.env["TMPDIR"])
        make_private_folder(temporary.parent)
        clear_path(temporary)
        temporary.mkdir(mode=0o700)
        try:
            self.results[spec.argv] = result = self.runner.run(spec, tree)
            is_shortened = spec.limit_s is not None and spec.timeout_s < self.task.run.timeout_s
            if result.stopped == "timeout" and is_shortened:
                return replace(result, stopped="over budget")  # the limit of `limit_wall_time`
            return result
        finally:
            self.mask_secrets(spec.log)
            clear_path(temporary)

    def mask_secrets(self, log: Path) -> None:
        """Replace the values of secrets from `[run] env` in a log by the variables' names: parts of
        logs are shown, and sent to agents' services."""
        secrets = secrets_in(self.env, self.task.run.env)
        if not secrets or not log.exists():
            return
        text = log.read_bytes().decode(errors="surrogateescape")
        if (masked := mask(text, secrets)) != text:
            replace_file(log, masked.encode(errors="surrogateescape"), is_durable=False)

    def mask_text(self, text: str) -> str:
        """Replace the values of secrets from `[run] env` by the variables' names."""
        return mask(text, secrets_in(self.env, self.task.run.env))

    def check_disk(self) -> None:
        """Raise `StorageError` if the disk has too little room to record a run."""
        free = shutil.disk_usage(self.task.root).free
        if free < MIN_FREE_BYTES:
            raise StorageError(
                f"only {free / 1e6:.0f} MB are free on the disk of {self.task.root}: no run was "
                f"started. Make room (at least {MIN_FREE_BYTES / 1e6:.0f} MB) and resume"
            )


def _shared_environment(task: Task, paths: SessionPaths) -> dict[str, str]:
    names = (*STANDARD_ENV, *task.run.env)
    env = {name: os.environ[name] for name in names if name in os.environ}
    env[SESSION] = str(paths.folder)
    # A `git` called in the tree must not walk up to the user's repository.
    env["GIT_CEILING_DIRECTORIES"] = str(paths.folder)
    env["PYTHONDONTWRITEBYTECODE"] = "1"  # the tree is removed after the run
    if (environment := task.root / ".venv").is_dir():
        # Otherwise `uv run` builds an environment in every tree.
        env |= {"UV_PROJECT_ENVIRONMENT": str(environment), "UV_NO_SYNC": "1"}
        if (task.root / "uv.lock").exists() and (environment / "bin").is_dir():
            # A uv project has its own environment, for `python` too.
            path = filter(None, [str(environment / "bin"), env.get("PATH")])
            env |= {"VIRTUAL_ENV": str(environment), "PATH": os.pathsep.join(path)}
    if task.run.budget_s is not None:
        env["AUTORESEARCH_BUDGET"] = f"{task.run.budget_s:g}"
        env["AUTORESEARCH_BUDGET_CLOCK"] = task.run.budget_clock
        if task.run.budget_clock == "cpu":
            # More threads use up the budget sooner, and sum in another order: other digits.
            env.setdefault("OMP_NUM_THREADS", "1")
    return env


def make_private_folder(folder: Path) -> None:
    """Make a folder of this user's, in a folder that everybody may write."""
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise StorageError(
            f"{folder} belongs to another user: remove it, or set TMPDIR to another folder"
        )
