"""The confinement of a run, a guard, a scorer or `setup`, as the task's settings ask for it.

- A run and a guard read the system, the installed software and the declared inputs. They write
  their tree, a temporary folder, the declared caches and the devices for computing.
- A scorer also reads the hidden files, except the sealed holdout, which only the holdout's scorer
  reads. It can start untrusted code in a sandbox of its own (`nested.py`).
- `setup` also writes installed packages and uses the network, once, before any change is proposed.

None of them reads the user's checkout, the record, or other runs.

A package installed in editable mode (`pip install -e`) leads Python to the files of the checkout.
Those are closed, and would be the wrong ones: a run must use its own tree's. Therefore the same
folder of the tree goes onto PYTHONPATH. An editable package outside the checkout can be read.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from autoresearch.errors import TaskError
from autoresearch.files import read_text
from autoresearch.protocols import Confinement
from autoresearch.sandbox import home, landlock, namespaces, nested, seccomp
from autoresearch.sandbox.import_folders import find_import_folders, find_shadows
from autoresearch.sandbox.installed import (
    DEVICES,
    ENVIRONMENTS,
    PROGRAM_FOLDERS,
    AccessRules,
    files_named,
)
from autoresearch.store.paths import SessionPaths
from autoresearch.task.checks import private_paths
from autoresearch.task.files import exists
from autoresearch.task.model import Task
from autoresearch.task.values import shell_words

if TYPE_CHECKING:  # `agents` needs no git
    from autoresearch.git.repository import Repository

ACCELERATORS = ("nvidia*", "dri", "kfd", "dxg", "accel*", "vfio", "infiniband")  # below /dev
"""Looked up for every run: some appear when first used."""

PREFIXES = (*ENVIRONMENTS, "CUDA_HOME", "CUDA_PATH", "UV_PROJECT_ENVIRONMENT")  # variables
SITES = ("lib/python3*/*-packages", "python3*/*-packages", "*/lib/python3*/*-packages")
"""Folders of Python packages, from an installation's folder, its `lib`, or a folder of several."""

PACKAGED = ("bin", "include", "share", "etc")  # folders beside `lib` that packages write, too
MAPPING = re.compile(r"^MAPPING\b[^=]*= (\{.*\})$", re.MULTILINE)  # in a finder of setuptools

SETTINGS = (
    *("pyproject.toml", "uv.toml", "setup.cfg", "tox.ini", "pytest.ini", ".python-version"),
    *(".tool-versions", "Cargo.toml", "package.json", ".cargo/config.toml", "go.work"),
    *("rust-toolchain", "rust-toolchain.toml"),
)
"""Tools look for these files from a tree upwards, through the checkout in which it lies, and fail
if they see one but cannot read it. They hold settings, no secrets and no code of a run."""


class Purpose(Enum):
    RUN = "run"  # and a guard
    SCORE = "score"
    HOLDOUT = "holdout"
    SETUP = "setup"


SCORERS = (Purpose.SCORE, Purpose.HOLDOUT)


def readable_hidden_files(task: Task, purpose: Purpose) -> tuple[str, ...]:
    """The hidden files that a command may read, relative to the task's folder."""
    if purpose is Purpose.HOLDOUT:
        return task.hidden
    return task.score.hidden if task.score and purpose is Purpose.SCORE else ()


def why_unconfined(task: Task, section: Literal["runner", "agent"] = "runner") -> str | None:
    """Why nothing confines the task's runs, or its agents' programs. None if they are confined."""
    settings = task.runner if section == "runner" else task.agent
    if not settings.confine:
        return f"[{section}] confine = false"
    return "this system has no Landlock" if landlock.abi() == 0 else None


def list_missing_rules(task: Task) -> list[str]:
    """What nothing enforces on the task's runs on this machine, though a false gain could come from
    it; a clause each."""
    if why_unconfined(task) is not None:
        return ["runs are not confined"]
    missing = []
    if task.runner.network or landlock.describe_network_denial() is None:
        missing.append("runs use the network")
    elif not seccomp.is_available():
        missing.append("runs use the network by other means than TCP")
    if not namespaces.is_available():
        missing.append("runs share /dev/shm and the times at which files are read")
    return missing


def find_checkout(repository: Repository) -> Path:
    """The folder of the user's own files, which stays closed: the top of the repository. If the
    home folder lies in the repository (dotfiles), it is the task's folder."""
    top = (repository.root, *repository.root.parents)[len(repository.prefix.parts)]
    return repository.root if Path.home().resolve().is_relative_to(top) else top


class RunPolicies:
    """The confinements and environments of one session's runs. Shared parts are looked up once."""

    def __init__(
        self, task: Task, paths: SessionPaths, repository: Repository, env: Mapping[str, str]
    ) -> None:
        """`env` is the environment that all runs share."""
        self._task = task
        self._paths = paths
        self._env = env
        self._checkout = find_checkout(repository)
        self._top = (repository.root, *repository.root.parents)[len(repository.prefix.parts)]
        self._rules = AccessRules(self._checkout, private_paths(task))

    def prepare(self) -> None:
        """Look up the parts that all runs share and make the caches, so that no run waits for it.
        Raises `TaskError`."""
        _ = self._caches, self._editable_packages, self._programs, self._inputs, self.home_links

    def confinement(
        self, purpose: Purpose, command: str, tree: Path, temporary: Path
    ) -> Confinement | None:
        """The confinement of `command`, which works in `tree`; None if nothing confines it. Of the
        files that command lines name, it reads those of its own: a scorer may name the answers."""
        if why_unconfined(self._task) is not None:
            return None
        read = [*self._programs, *self._inputs]
        read += [path for name in files_named(command) for path in self._resolve(Path(name))]
        write = [tree, temporary, *self._caches, *list_devices()]
        hidden = readable_hidden_files(self._task, purpose)
        read += [(self._task.root / name).resolve() for name in hidden]
        if purpose in SCORERS:
            read.append(nested.FOLDER)
        if purpose is Purpose.SETUP:
            libraries = [site.parent.parent for site in self.sites]
            write += [*libraries, *(lib.parent / name for lib in libraries for name in PACKAGED)]
        network = self._task.runner.network or purpose is Purpose.SETUP
        return _make_confinement(read, write, network)

    def environment(self, purpose: Purpose, tree: Path, temporary: Path) -> dict[str, str]:
        """The variables of a command in `tree`, beside those that all runs share."""
        env = {"TMPDIR": str(temporary)}
        if python_path := self._python_path(tree):
            env["PYTHONPATH"] = python_path
        _ = self._caches  # an unconfined run needs them too
        if why_unconfined(self._task) is not None:
            return env
        if purpose in SCORERS:
            devices = [device for device in list_devices() if device != Path("/dev/shm")]
            confinement = _make_confinement(self._programs, devices, network=False)
            env[nested.PREFIX_VARIABLE] = nested.make_prefix(confinement)
        if "HOME" not in self._task.run.env:
            env["HOME"] = str(temporary / home.NAME)
            moved = home.XDG.keys() & self._env.keys() - set(self._task.run.env)
            env |= {name: f"{env['HOME']}/{home.XDG[name]}" for name in moved}
        return env

    @cached_property
    def home_links(self) -> dict[str, str]:
        """The links in a run's own home folder."""
        links = home.make_links([*self._programs, *self._inputs, *self._caches], os.environ)
        return {name: path for name, path in links.items() if not self._rules.refusal(Path(path))}

    @cached_property
    def _toolchains(self) -> list[Path]:
        """The toolchains in the user's home folder."""
        found = [path for _, path in home.find_toolchains(os.environ)]
        return [real for path in found for real in self._rules.list_readable(path)]

    def _python_path(self, tree: Path) -> str:
        """The tree's copies of the editable packages in the checkout and of the folders above a
        script from which it imports, then the user's PYTHONPATH if it is passed on."""
        folders = dict.fromkeys((*self._editable_packages, *self._import_folders))
        packages = [folder for folder in folders if folder.is_relative_to(self._checkout)]
        copies = [str(tree / package.relative_to(self._checkout)) for package in packages]
        return os.pathsep.join(filter(None, [*copies, self._env.get("PYTHONPATH")]))

    def find_shadows(self, command: str, files: Iterable[str]) -> list[str]:
        """Those of the `files`, relative to the top of the repository, that Python would import for
        `command` in the place of installed software."""
        scripts = [self._task.root / word for word in shell_words(command) if word.endswith(".py")]
        folders = [self._task.root, *(script.parent for script in scripts)]
        folders += [*self._editable_packages, *self._import_folders]
        real = (folder.resolve() for folder in folders)
        names = {
            folder.relative_to(self._top).as_posix()
            for folder in real
            if folder.is_relative_to(self._top)
        }
        return list(find_shadows(files, names, self.sites))

    @cached_property
    def _inputs(self) -> list[Path]:
        root = self._task.root
        return [path for name in self._task.run.inputs for path in self._follow_links(root / name)]

    def _follow_links(self, path: Path) -> Iterator[Path]:
        """An input, and the targets of the links in it."""
        pending, done = [path], set[Path]()
        while pending:
            for real in self._resolve(pending.pop()):
                if any(real.is_relative_to(path) for path in done):
                    continue
                done.add(real)
                yield real
                for place, folders, files in os.walk(real):
                    names = (f"{place}/{name}" for name in (*folders, *files))
                    pending += [Path(name) for name in names if os.path.islink(name)]  # noqa: PTH114

    def _resolve(self, path: Path) -> list[Path]:
        """A file or folder that the user named; none if it leads to private files."""
        return [] if self._rules.refusal(path.expanduser()) else [path.expanduser().resolve()]

    @cached_property
    def _programs(self) -> list[Path]:
        """The system and the installed software."""
        task = self._task
        read = [*self._rules.list_system(), *self._installed, *self._toolchains]
        for package in self._editable_packages:
            read += self._rules.list_readable(package)
        for folder in (task.root, *task.root.parents):
            settings = (folder / name for name in SETTINGS if exists(folder / name))
            read += [path for file in settings for path in self._resolve(file)]
        return [*read, self._paths.setup] if task.run.setup else read

    @cached_property
    def _installed(self) -> list[Path]:
        own = Path("~/.local/lib").expanduser().glob("python3*")  # pip install --user
        return list(dict.fromkeys([*self._rules.list_installations(self._env, PREFIXES), *own]))

    @cached_property
    def sites(self) -> list[Path]:
        """The folders of Python packages that a run can read. A folder of programs holds none, and
        to look through its thousands of files takes longer than all else."""
        folders = [path for path in self._installed if path.name not in PROGRAM_FOLDERS]
        return [site for folder in folders for glob in SITES for site in folder.glob(glob)]

    @cached_property
    def _editable_packages(self) -> list[Path]:
        """The folders that hold packages installed in editable mode."""
        folders = (folder for site in self.sites for folder in find_editable_packages(site))
        return list(dict.fromkeys(folder.resolve() for folder in folders if folder.is_dir()))

    @cached_property
    def _import_folders(self) -> list[Path]:
        root = self._task.root.resolve()
        words = [*shell_words(self._task.run.command), *self._task.editable]
        scripts = [
            root / word for word in words if word.endswith(".py") and (root / word).is_file()
        ]
        return list(find_import_folders(scripts, self._checkout, self.sites))

    @cached_property
    def _caches(self) -> list[Path]:
        """Raises `TaskError` for a cache that cannot be made."""
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


def _make_confinement(read: Iterable[Path], write: Iterable[Path], network: bool) -> Confinement:
    """CUDA gives its threads names through `/proc/self/task/*/comm`, and without that right it does
    not start (error 304)."""
    has_cuda = Path("/dev/nvidiactl").exists()
    readable, writable = (tuple(dict.fromkeys(map(str, paths))) for paths in (read, write))
    return Confinement(readable, writable, network, has_cuda)


def list_devices() -> list[Path]:
    """The devices for computing, /dev/shm, /dev/null and the like. No terminals and no disks."""
    accelerators = (path for glob in ACCELERATORS for path in sorted(Path("/dev").glob(glob)))
    return [*map(Path, DEVICES), *accelerators]


def find_editable_packages(site: Path) -> Iterator[Path]:
    """The folders of the packages that `site` holds in editable mode: in lines of `.pth` files, and
    in the mappings of setuptools' finders."""
    for file in sorted(site.glob("*.pth")):
        yield from (Path(line) for line in read_text(file).splitlines() if line.startswith("/"))
    for file in sorted(site.glob("__editable__*_finder.py")):
        for match in MAPPING.finditer(read_text(file)):
            try:
                mapping = ast.literal_eval(match[1])
            except (ValueError, SyntaxError):
                continue  # an unknown version of setuptools: a run cannot import this package
            yield from (Path(path).parent for path in mapping.values() if isinstance(path, str))
