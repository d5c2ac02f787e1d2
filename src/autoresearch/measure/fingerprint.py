"""The environment fingerprint: everything a run's number depends on, except its commit.

That is data, programs, packages and the system. The harness compares the fingerprint before and
after every run. To be fast it compares names, sizes and times, and reads contents again only where
those differ: a mere touch is no change. Frozen files are not in it, as a run's tree is made from
its commit (`git/trees.py`).
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import stat
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from autoresearch.files import read_text
from autoresearch.task.model import Task
from autoresearch.task.values import shell_words

HASHED_BYTES = 256_000_000  # a larger file is identified by its size and time
HASHED_BYTES_IN_ALL = 4_000_000_000  # and so are all files of a larger input
NAMED_FILES = 50  # an input with more files is one fact
SHOWN_CHANGES = 5
KEY = "@"  # before the name of a key that is stored with the facts, and is not a fact
DIGESTS = ("input ", "hidden ", "variable ")  # facts that mean nothing to people
INTERPRETER = re.compile(r"python[\d.]*")
DRIVERS = ("/sys/module/nvidia/version", "/sys/module/amdgpu/version")

Facts = dict[str, str]


@dataclass(frozen=True, slots=True)
class Part:
    """One thing that can change. `key` is cheap: the facts stay the same as long as it does."""

    name: str
    key: Callable[[], Hashable]
    facts: Callable[[], Facts]
    is_slow: bool = False  # another process with the same key reuses the stored facts


class EnvironmentFingerprint:
    """The fingerprint of one session's environment. Not to be used by two threads at once."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = parts
        self._keys: dict[str, Hashable] = {}
        self._facts: dict[str, Facts] = {}
        self._latest: Mapping[str, str] = {}

    def refresh(self, stored: Mapping[str, str]) -> Mapping[str, str]:
        """Return all facts as they are now; the same object as long as nothing can have changed.
        `stored` is an earlier result, perhaps of another process."""
        has_changed = False
        for part in self._parts:
            key = part.key()
            if part.name not in self._keys or self._keys[part.name] != key:
                has_changed = True
                self._facts[part.name] = _get_facts(part, key, stored)
                self._keys[part.name] = key
        if has_changed:
            self._latest = {n: fact for facts in self._facts.values() for n, fact in facts.items()}
        return self._latest


def _get_facts(part: Part, key: Hashable, stored: Mapping[str, str]) -> Facts:
    if not part.is_slow:
        return part.facts()
    name, digest = f"{KEY}{part.name}", _hash(repr(key))
    if stored.get(name) == digest:
        return {n: stored[n] for n in stored if _is_in(part.name, n.removeprefix(KEY))}
    return {name: digest} | part.facts()


def _is_in(folder: str, name: str) -> bool:
    """Whether a name is that of the file or folder, or of a file in it."""
    return name == folder or name.startswith(f"{folder.rstrip('/')}/")


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


def list_changes(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """The differences in words, such as "package numpy 1.26.4 -> 2.0.0", "input data/train.bin"."""
    names = [name for name in {**before, **after} if not name.startswith(KEY)]
    return [
        _describe_change(name, before.get(name), after.get(name))
        for name in sorted(names)
        if before.get(name) != after.get(name)
    ]


def _describe_change(name: str, old: str | None, new: str | None) -> str:
    is_digest = name.startswith(DIGESTS)
    if old is None:
        return f"{name} is new" if is_digest else f"{name} {new} is new"
    if new is None:
        return f"{name} is gone" if is_digest else f"{name} {old} is gone"
    if name.startswith("package "):  # installed in several folders, and changed in one of them
        before, after = old.split(", "), new.split(", ")
        old = ", ".join(version for version in before if version not in after) or old
        new = ", ".join(version for version in after if version not in before) or new
    return name if is_digest else f"{name} {old} -> {new}"


def summarize_changes(changes: Sequence[str]) -> str:
    """The first few changes and the number of the others."""
    more = len(changes) - SHOWN_CHANGES
    return ", ".join([*changes[:SHOWN_CHANGES], *([f"and {more} more"] if more > 0 else [])])


def make_fingerprint(
    task: Task,
    env: Mapping[str, str],
    sites: Iterable[Path],
    tracked: Collection[str],
    runner: Mapping[str, str] | None = None,
) -> EnvironmentFingerprint:
    """Make the fingerprint for a task's runs. `env` is the environment that all runs share, `sites`
    are the folders of packages that they see, `runner` has the facts of the runner's machines. Data
    that is `tracked` in the commit is left out."""
    data = [("input", name, NAMED_FILES) for name in task.run.inputs]
    data += [("hidden", name, 0) for name in task.hidden]
    parts = [
        _data_part(f"{kind} {name}", task.root / name, named_files)
        for kind, name, named_files in data
        if not any(_is_in(name, path) for path in tracked)
    ]
    parts += [_program_part(name, path) for name, path in _find_programs(task, env)]
    used = _select_sites([site.resolve() for site in sites], task, env)
    parts.append(_package_part(list(dict.fromkeys(used))))
    parts += [_driver_part(Path(name)) for name in DRIVERS]
    fixed = (
        _system() | _variables(task, env) | dict(runner or {})
    )  # cannot change while this process lives
    parts.append(Part("system", lambda: None, lambda: fixed))
    return EnvironmentFingerprint(parts)


# ---- data --------------------------------------------------------------------------------------


def _data_part(name: str, path: Path, named_files: int) -> Part:
    def facts() -> Facts:
        files = sorted(list_files(str(path)))
        is_large = sum(size for _, size, _ in files) > HASHED_BYTES_IN_ALL
        digests = {
            file: f"{size} bytes of {mtime}" if is_large else _hash_file(path / file)
            for file, size, mtime in files
        }
        if not path.exists():
            return {name: "missing"}
        if len(files) > named_files or not files:
            return {name: _hash(repr(sorted(digests.items())))}
        folder = name.rstrip("/")
        return {f"{folder}/{file}" if file else name: digest for file, digest in digests.items()}

    return Part(name, lambda: tuple(list_files(str(path))), facts, is_slow=True)


def list_files(top: str) -> Iterator[tuple[str, int, int]]:
    """(name below `top`, size, mtime in ns) of a file, or of all files of a folder. Follows links.
    The size is -1 for an entry that is gone or cannot be read."""
    pending, visited = [""], set[tuple[int, int]]()
    while pending:
        name = pending.pop()
        path = f"{top}/{name}" if name else top
        try:
            status = os.stat(path)  # noqa: PTH116 - a third of the time of Path's
            if not stat.S_ISDIR(status.st_mode):
                yield name, status.st_size, status.st_mtime_ns
            elif (status.st_dev, status.st_ino) not in visited:  # links may form a circle
                visited.add((status.st_dev, status.st_ino))
                entries = sorted(os.listdir(path))  # noqa: PTH208
                pending += [f"{name}/{entry}" if name else entry for entry in entries]
        except OSError:
            yield name, -1, -1


def _hash_file(file: Path) -> str:
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):
            return "no file"
        if status.st_size > HASHED_BYTES:
            return f"{status.st_size} bytes of {status.st_mtime_ns}"
        with file.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as error:
        return f"unreadable: {error.strerror}"


# ---- programs, packages, the system ------------------------------------------------------------


def _list_commands(task: Task) -> list[str]:
    """The words that start runs and scorers."""
    scorers = [scorer.command for scorer in (task.score, task.holdout) if scorer]
    return [shell_words(command)[0] for command in (task.run.command, *scorers)]


def _find_programs(task: Task, env: Mapping[str, str]) -> Iterator[tuple[str, Path]]:
    """The programs that start runs and scorers, and `python`, which those may call."""
    for name in dict.fromkeys([*_list_commands(task), "python"]):
        if path := shutil.which(name, path=env.get("PATH")):
            yield name, Path(path)


def _select_sites(sites: Sequence[Path], task: Task, env: Mapping[str, str]) -> Sequence[Path]:
    """The folders of packages of the interpreters that execute runs and scorers, so that another
    `PATH` with the same interpreter is no change. All folders if a command starts something else:
    a script or a build tool may call any interpreter."""
    programs = dict(_find_programs(task, env))
    started = [name for name in _list_commands(task) if name in programs]
    if started != _list_commands(task) or not all(map(_is_interpreter, started)):
        return sites
    folders = [Path.home() / ".local"]  # of `pip install --user`
    for path in programs.values():
        folders += [Path(os.path.realpath(path.parent)).parent, path.resolve().parent.parent]
    return [site for site in sites if any(site.is_relative_to(folder) for folder in folders)]


def _is_interpreter(name: str) -> bool:
    return INTERPRETER.fullmatch(Path(name).name) is not None


def _program_part(name: str, path: Path) -> Part:
    def facts() -> Facts:
        real = Path(os.path.realpath(path))
        return {f"program {name}": f"{real} ({_hash_file(real)[:12]})"}

    return Part(f"program {name}", lambda: _stat(path), facts, is_slow=True)


def _package_part(sites: Sequence[Path]) -> Part:
    """The versions of all packages, from the names of their metadata folders."""

    def facts() -> Facts:
        versions: dict[str, list[str]] = {}
        for site in sites:
            for entry in sorted(site.glob("*.*-info")):
                stem, _, kind = entry.name.rpartition(".")
                name, _, version = stem.partition("-")
                if kind in ("dist-info", "egg-info") and version:
                    versions.setdefault(name.lower(), []).append(version.partition("-py")[0])
        return {f"package {name}": ", ".join(sorted({*some})) for name, some in versions.items()}

    return Part("packages", lambda: tuple(map(_stat, sites)), facts)


def _stat(path: Path) -> tuple[int, int, int] | None:
    try:
        status = os.stat(path)  # noqa: PTH116
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _driver_part(path: Path) -> Part:
    name = f"{path.parent.name} driver"

    def read() -> str:
        return read_text(path).strip()

    return Part(name, read, lambda: {name: version} if (version := read()) else {})


def find_cpu_model() -> str:
    lines = read_text(Path("/proc/cpuinfo")).splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def _system() -> Facts:
    return {
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "CPU": f"{find_cpu_model()}, {os.cpu_count()} cores",
    }


def _variables(task: Task, env: Mapping[str, str]) -> Facts:
    """The variables of `[run] env` as digests, because some hold secrets."""
    return {f"variable {name}": _hash(env[name]) for name in task.run.env if name in env}
