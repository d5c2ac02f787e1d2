"""What a run, a guard, a scorer and `setup` may touch: the task's settings as a `Confinement`.

A run reads the system, what is installed, and the declared inputs; it writes its own tree, its own
temporary folder, the declared caches and the devices it computes on. The scorer reads the hidden
files as well, but for the sealed holdout, which is for its own scorer alone, and can put what it
does not trust into a sandbox of its own (`nested.py`). `setup` may besides write installed packages
and use the network, once, before any change was proposed. Nobody sees the user's checkout, the
record, or other runs.

A package that is installed in editable mode (`pip install -e`) leads Python to the files of the
checkout. Those are not granted, and would be the wrong ones: the run is to use its own tree's. So
where such a package lies in the checkout, the same place in the tree goes onto PYTHONPATH; where it
lies elsewhere, it is read as what is installed is.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from functools import cached_property
from pathlib import Path

from autoresearch.errors import TaskError
from autoresearch.git.repository import Repository
from autoresearch.protocols import Confinement
from autoresearch.sandbox import landlock, nested
from autoresearch.sandbox.installed import AccessRules, files_named
from autoresearch.store.paths import SessionPaths
from autoresearch.task.checks import private_paths
from autoresearch.task.files import exists
from autoresearch.task.model import Task

SHARED_MEMORY = Path("/dev/shm")
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", str(SHARED_MEMORY))
ACCELERATORS = ("nvidia*", "dri", "kfd", "dxg", "accel*", "vfio", "infiniband")  # below /dev
"""Looked up for every run: some appear when first used."""

SITES = ("lib/python3*/*-packages", "python3*/*-packages", "*/lib/python3*/*-packages")
"""Folders of Python packages, from an installation's folder, its `lib`, or a folder of several."""

SETTINGS = (
    *("pyproject.toml", "uv.toml", "setup.cfg", "tox.ini", "pytest.ini", ".python-version"),
    *(".tool-versions", "Cargo.toml", "package.json"),
)
"""Files that tools look for from a tree upwards, through the checkout in which it lies, and fail at
when they see but cannot read them. They hold settings, no secrets and no code of a run's."""

USUAL = (
    ("TRITON_CACHE_DIR", "~/.triton"),
    ("NUMBA_CACHE_DIR", "~/.cache/numba"),
    ("UV_CACHE_DIR", "~/.cache/uv"),
)
"""Tools that stop where they cannot write the folder they keep in the home folder. Theirs is in the
run's temporary one, unless a declared cache holds it or the variable is passed on."""

DENIED = re.compile(
    r"Permission denied|Operation not permitted|PermissionError|EACCES|EPERM|"
    r"[Nn]etwork is unreachable|[Nn]ame resolution|[Nn]ame or service not known|"
    r"[Cc]ould not resolve|[Rr]ead-only file system"
)

MAPPING = re.compile(r"^MAPPING\b[^=]*= (\{.*\})$", re.MULTILINE)  # in what setuptools writes
PACKAGED = ("bin", "include", "share", "etc")  # where packages put files beside `SITES`


class Purpose(Enum):
    RUN = "run"  # and a guard
    SCORE = "score"
    HOLDOUT = "holdout"
    SETUP = "setup"


SCORERS = (Purpose.SCORE, Purpose.HOLDOUT)


def seen(task: Task, purpose: Purpose) -> tuple[str, ...]:
    """The hidden files that a command sees, relative to the task's folder."""
    if purpose is Purpose.HOLDOUT:
        return task.hidden
    return task.score.hidden if task.score and purpose is Purpose.SCORE else ()


def agents_unconfined(task: Task) -> str | None:
    """Why nothing confines the programs of this task's agents; None when they are confined."""
    if not task.agent.confine:
        return "[agent] confine = false"
    return "this system has no Landlock" if landlock.abi() == 0 else None


def unconfined(task: Task) -> str | None:
    """Why nothing confines this task's runs; None when they are confined."""
    if not task.runner.confine:
        return "[runner] confine = false"
    return "this system has no Landlock" if landlock.abi() == 0 else None


def denied(task: Task, log: str) -> str:
    """What to tell whose unchanged program failed with this log, when its confinement may be why;
    empty when it is not."""
    if unconfined(task) is not None or not DENIED.search(log):
        return ""
    network = "" if task.runner.network else "; [runner] network = true lets it use the network"
    return (
        "\nSomething was denied, perhaps as runs are confined. What a run may read outside its "
        "tree belongs in [run] inputs (a link in the task's folder will do), what it may write in "
        f"[run] caches{network}; [runner] confine = false confines nothing. "
        "`autoresearch check` says what holds."
    )


def checkout(repository: Repository) -> Path:
    """The folder whose files are the user's own, and not to be seen."""
    top = (repository.root, *repository.root.parents)[len(repository.prefix.parts)]
    if Path.home().resolve().is_relative_to(top):  # a repository of all of it: dotfiles
        return repository.root
    return top


class RunPolicies:
    """The confinements of one session's runs. What they share is looked up once."""

    def __init__(
        self, task: Task, paths: SessionPaths, repository: Repository, env: Mapping[str, str]
    ) -> None:
        """`env` is what every run gets."""
        self._task = task
        self._paths = paths
        self._env = env
        self._checkout = checkout(repository)
        self._walls = AccessRules(self._checkout, private_paths(task))

    def prepare(self) -> None:
        """Look up what all runs share, and make the caches, before there is a run to wait for it.
        Raises `TaskError`."""
        _ = self._caches, self._editable, self._programs, self._inputs

    def confinement(self, purpose: Purpose, tree: Path, temporary: Path) -> Confinement | None:
        """Of a command that works in `tree`; None when nothing confines it."""
        if unconfined(self._task) is not None:
            return None
        read = [*self._programs, *self._inputs]
        write = [tree, temporary, *self._caches, *devices()]
        read += [(self._task.root / name).resolve() for name in seen(self._task, purpose)]
        if purpose in SCORERS:
            read.append(nested.FOLDER)
        if purpose is Purpose.SETUP:
            write += self._packages
        network = self._task.runner.network or purpose is Purpose.SETUP
        return Confinement(_texts(read), _texts(write), network, cuda(), str(temporary))

    def environment(self, purpose: Purpose, tree: Path, temporary: Path) -> dict[str, str]:
        """What a command in `tree` gets beside what all get."""
        env = {"TMPDIR": str(temporary)}
        if purpose in SCORERS and unconfined(self._task) is None:
            computes = [device for device in devices() if device != SHARED_MEMORY]
            env[nested.VARIABLE] = nested.prefix(
                Confinement(_texts(self._programs), _texts(computes), False, cuda())
            )
        if python_path := self._python_path(tree):
            env["PYTHONPATH"] = python_path
        caches = [cache.resolve() for cache in self._caches]
        if unconfined(self._task) is None:
            for name, usual in USUAL:
                place = Path(usual).expanduser().resolve()
                if name not in self._env and not any(map(place.is_relative_to, caches)):
                    env[name] = str(temporary / name.partition("_")[0].lower())
        return env

    def _python_path(self, tree: Path) -> str | None:
        """PYTHONPATH of a command in `tree`, None for none: the tree's copies of packages that are
        installed from the checkout in editable mode, and what the user set and passes on."""
        places = [place for place in self._editable if place.is_relative_to(self._checkout)]
        copies = [str(tree / place.relative_to(self._checkout)) for place in places]
        given = self._env.get("PYTHONPATH")
        return os.pathsep.join([*copies, *([given] if given else [])]) or None

    @cached_property
    def _inputs(self) -> list[Path]:
        rules, task = self._walls, self._task
        return [path for name in task.run.inputs for path in _with_targets(rules, task.root / name)]

    @cached_property
    def _programs(self) -> list[Path]:
        """The system, what is installed, and what the commands name."""
        rules, task = self._walls, self._task
        read = [*rules.system(), *self._installed]
        for command in _commands(task):
            read += [path for name in files_named(command) for path in _seen(rules, Path(name))]
        read += [path for place in self._editable for path in rules.opened(place)]
        for folder in (task.root, *task.root.parents):
            found = (folder / name for name in SETTINGS if exists(folder / name))
            read += [path for file in found for path in _seen(rules, file)]
        return [*read, self._paths.setup] if task.run.setup else read

    @cached_property
    def _installed(self) -> list[Path]:
        names = ("CUDA_HOME", "CUDA_PATH", "UV_PROJECT_ENVIRONMENT")
        named = [Path(self._env[name]) for name in names if self._env.get(name)]
        beside = [path for one in named for path in self._walls.installation(one / "bin")]
        own = Path("~/.local/lib").expanduser().glob("python3*")  # pip install --user
        return list(dict.fromkeys([*self._walls.installations(self._env), *beside, *own]))

    @cached_property
    def sites(self) -> list[Path]:
        """Folders of Python packages that a run sees."""
        return [site for one in self._installed for glob in SITES for site in one.glob(glob)]

    @cached_property
    def _editable(self) -> list[Path]:
        """Folders that hold packages installed in editable mode."""
        found = (place for site in self.sites for place in editable_in(site))
        return list(dict.fromkeys(place.resolve() for place in found if place.is_dir()))

    @cached_property
    def _caches(self) -> list[Path]:
        """Raises `TaskError` for one that cannot be made."""
        caches = [Path(cache).expanduser() for cache in self._task.run.caches]
        for cache in caches:
            try:
                if not cache.is_file():
                    cache.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise TaskError(
                    f"[run] caches: cannot make the folder {cache}: {error.strerror}"
                ) from error
        return caches

    @cached_property
    def _packages(self) -> list[Path]:
        """What installing a package writes."""
        found = [site.parent.parent for site in self.sites]  # lib
        return [*found, *(lib.parent / name for lib in found for name in PACKAGED)]


def devices() -> list[Path]:
    """What a run computes on, beside /dev/null and its like. Not terminals nor disks."""
    folder = Path("/dev")
    found = (device for glob in ACCELERATORS for device in sorted(folder.glob(glob)))
    return [*map(Path, DEVICES), *found]


def cuda() -> bool:
    """Whether runs may compute by CUDA. It gives its threads names, through
    `/proc/self/task/*/comm`, and does not start (error 304) where it may not."""
    return Path("/dev/nvidiactl").exists()


def editable_in(site: Path) -> Iterator[Path]:
    """The folders to which the packages of `site` lead that are installed in editable mode: lines
    of its `.pth` files, and what setuptools' finders map names to."""
    for file in sorted(site.glob("*.pth")):
        yield from (Path(line) for line in _text(file).splitlines() if line.startswith("/"))
    for file in sorted(site.glob("__editable__*_finder.py")):
        for found in MAPPING.finditer(_text(file)):
            try:
                mapping = ast.literal_eval(found[1])
            except (ValueError, SyntaxError):
                continue  # another version's: its package will be missed by name
            yield from (Path(path).parent for path in mapping.values() if isinstance(path, str))


def _text(file: Path) -> str:
    try:
        return file.read_text(errors="replace")
    except OSError:
        return ""


def _commands(task: Task) -> list[str]:
    score = [one.command for one in (task.score, task.holdout) if one]
    setup = [task.run.setup] if task.run.setup else []
    return [task.run.command, *score, *setup, *(command for _, command in task.guards.commands)]


def _seen(rules: AccessRules, path: Path) -> list[Path]:
    """A file or folder that the user named, unless it leads to what is private."""
    return [] if rules.refusal(path.expanduser()) else [path.expanduser().resolve()]


def _with_targets(rules: AccessRules, path: Path) -> Iterator[Path]:
    """An input and what the links in it lead to."""
    todo, done = [path], set[Path]()
    while todo:
        for real in _seen(rules, todo.pop()):
            if not any(real.is_relative_to(one) for one in done):
                done.add(real)
                yield real
                todo += _links(real)


def _links(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            if os.path.islink(path := os.path.join(place, name)):  # noqa: PTH114, PTH118 - fast
                yield Path(path)


def _texts(paths: Sequence[Path]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(map(str, paths)))
