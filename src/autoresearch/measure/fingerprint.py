"""What a run's number depends on beside its commit: data, programs, packages, the system.

`Environment.look` is called before and after every run. It compares what costs a few system calls
(names, sizes, times), and reads contents again only where those differ: a mere touch is no
change. Frozen files need no look: a run's tree is made from its commit, and what stays of an
earlier one is held against it (`repository.py`).
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import stat
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from autoresearch.task.model import Task
from autoresearch.task.values import shell_words

HASHED_BYTES = 256_000_000  # of one file; a larger one is told by its size and time
HASHED_BYTES_IN_ALL = 4_000_000_000  # of one input; the files of a larger one are all told so
FILES_TOLD = 50  # of an input, by name; of a larger one only that it changed
CHANGES_TOLD = 5
KEY = "@"  # before the name of what is no fact, but saves reading contents again
DRIVERS = ("/sys/module/nvidia/version", "/sys/module/amdgpu/version")

Facts = dict[str, str]


@dataclass(frozen=True, slots=True)
class Part:
    """One thing that can change. `key` is cheap; while it stays as it was, so do the facts."""

    name: str
    key: Callable[[], Hashable]
    facts: Callable[[], Facts]
    costly: bool = False  # to find the facts: a later process goes by the key alone


class Environment:
    """Of one session's runs. Not to be asked from two threads at once."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = parts
        self._keys: dict[str, Hashable] = {}
        self._facts: dict[str, Facts] = {}
        self._fingerprint: Mapping[str, str] = {}

    def look(self, known: Mapping[str, str]) -> Mapping[str, str]:
        """All facts as they are now; the same object as long as nothing can have changed. `known`
        are those of an earlier look, perhaps of another process."""
        moved = False
        for part in self._parts:
            key = part.key()
            if part.name not in self._keys or self._keys[part.name] != key:
                moved = True
                self._facts[part.name] = _found(part, key, known)
                self._keys[part.name] = key
        if moved:
            self._fingerprint = {
                name: fact for facts in self._facts.values() for name, fact in facts.items()
            }
        return self._fingerprint


def _found(part: Part, key: Hashable, known: Mapping[str, str]) -> Facts:
    if not part.costly:
        return part.facts()
    name = f"{KEY}{part.name}"
    mark = hashlib.sha256(repr(key).encode(errors="surrogateescape")).hexdigest()
    if known.get(name) == mark:
        return {one: known[one] for one in known if _of(part.name, one.removeprefix(KEY))}
    return {name: mark} | part.facts()


def _of(part: str, name: str) -> bool:
    """A fact of that part: of the input itself, or of a file in it."""
    return name == part or name.startswith(f"{part.rstrip('/')}/")


def changes(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """What differs, in words, such as "package numpy 1.26.4 -> 2.0.0", "input data/train.bin"."""
    names = [name for name in {**before, **after} if not name.startswith(KEY)]
    return [
        _change(name, before.get(name), after.get(name))
        for name in sorted(names)
        if before.get(name) != after.get(name)
    ]


def _change(name: str, old: str | None, new: str | None) -> str:
    said = not name.startswith(("input ", "hidden ", "variable "))  # those facts are digests
    if old is None:
        return f"{name} {new} is new" if said else f"{name} is new"
    if new is None:
        return f"{name} {old} is gone" if said else f"{name} is gone"
    if name.startswith("package "):  # in several folders, of which one was changed
        was, now = old.split(", "), new.split(", ")
        old = ", ".join(one for one in was if one not in now) or old
        new = ", ".join(one for one in now if one not in was) or new
    return f"{name} {old} -> {new}" if said else name


def told(changed: Sequence[str]) -> str:
    more = len(changed) - CHANGES_TOLD
    return ", ".join([*changed[:CHANGES_TOLD], *([f"and {more} more"] if more > 0 else [])])


def around(
    task: Task, env: Mapping[str, str], sites: Iterable[Path], tracked: Collection[str]
) -> Environment:
    """Those of a task's runs. `env` is what every run gets, `sites` are the folders of packages
    it sees, `tracked` the files of its commits: what lies there is read from the commit."""
    data = [("input", name, FILES_TOLD) for name in task.run.inputs]
    data += [("hidden", name, 0) for name in task.hidden]
    parts = [
        _data(f"{kind} {name}", task.root / name, most)
        for kind, name, most in data
        if not any(_of(name, path) for path in tracked)
    ]
    parts += [_program(name, path) for name, path in _programs(task, env)]
    parts += [_packages(list(dict.fromkeys(site.resolve() for site in sites)))]
    parts += [_text(f"{Path(name).parent.name} driver", Path(name)) for name in DRIVERS]
    parts += [_fixed(_system() | _variables(task, env))]
    return Environment(parts)


# ---- data --------------------------------------------------------------------------------------


def _data(name: str, path: Path, told_by_name: int) -> Part:
    def facts() -> Facts:
        files = sorted(_files(str(path)))
        large = sum(size for _, size, _ in files) > HASHED_BYTES_IN_ALL
        digests = {
            file: f"{size} bytes of {mtime}" if large else _digest(path / file if file else path)
            for file, size, mtime in files
        }
        if not path.exists():
            return {name: "missing"}
        if len(files) > told_by_name or not files:
            return {name: hashlib.sha256(repr(sorted(digests.items())).encode()).hexdigest()}
        return {f"{name.rstrip('/')}/{file}" if file else name: of for file, of in digests.items()}

    return Part(name, lambda: tuple(_files(str(path))), facts, costly=True)


def _files(top: str) -> Iterator[tuple[str, int, int]]:
    """(name below `top`, size, mtime in ns) of a file, or of all files of a folder, what
    links lead to among them."""
    todo, seen = [""], set[tuple[int, int]]()
    while todo:
        below = todo.pop()
        place = f"{top}/{below}" if below else top
        try:
            found = os.stat(place)  # noqa: PTH116 - a third of the time of Path's
            if not stat.S_ISDIR(found.st_mode):
                yield below, found.st_size, found.st_mtime_ns
            elif (found.st_dev, found.st_ino) not in seen:  # links may go round in a circle
                seen.add((found.st_dev, found.st_ino))
                names = sorted(os.listdir(place))  # noqa: PTH208
                todo += [f"{below}/{name}" if below else name for name in names]
        except OSError:
            yield below, -1, -1  # gone, or closed to us


def _digest(file: Path) -> str:
    try:
        found = file.stat()
        if not stat.S_ISREG(found.st_mode):
            return "no file"
        if found.st_size > HASHED_BYTES:
            return f"{found.st_size} bytes of {found.st_mtime_ns}"
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        return f"unreadable: {error.strerror}"


# ---- programs, packages, the system ------------------------------------------------------------


def _programs(task: Task, env: Mapping[str, str]) -> Iterator[tuple[str, Path]]:
    """The programs that runs and scorers are started by, and the `python` they would call."""
    scorers = [one.command for one in (task.score, task.holdout) if one]
    commands = [task.run.command, *scorers]
    for name in dict.fromkeys([*(shell_words(command)[0] for command in commands), "python"]):
        if path := shutil.which(name, path=env.get("PATH")):
            yield name, Path(path)


def _program(name: str, path: Path) -> Part:
    def facts() -> Facts:
        real = Path(os.path.realpath(path))
        return {f"program {name}": f"{real} ({_digest(real)[:12]})"}

    return Part(f"program {name}", lambda: _stat(path), facts, costly=True)


def _packages(sites: Sequence[Path]) -> Part:
    """By the names of their metadata: what is installed, upgraded or removed renames some."""

    def facts() -> Facts:
        versions: dict[str, list[str]] = {}
        for site in sites:
            for entry in sorted(_entries(site)):
                stem, _, kind = entry.rpartition(".")
                name, _, version = stem.partition("-")
                if kind in ("dist-info", "egg-info") and version:
                    versions.setdefault(name.lower(), []).append(version.partition("-py")[0])
        return {f"package {name}": ", ".join(some) for name, some in versions.items()}

    return Part("packages", lambda: tuple(map(_stat, sites)), facts)


def _entries(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208 - names are enough
    except OSError:
        return []


def _stat(path: Path) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _text(name: str, path: Path) -> Part:
    def read() -> str | None:
        try:
            return path.read_text(errors="replace").strip()
        except OSError:
            return None

    def facts() -> Facts:
        text = read()
        return {} if text is None else {name: text}

    return Part(name, read if path.exists() else lambda: None, facts)


def _fixed(facts: Facts) -> Part:
    """What cannot change while a process lives, but between two."""
    return Part("system", lambda: None, lambda: facts)


def _system() -> Facts:
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "CPU": f"{named[0] if named else model}, {os.cpu_count()} cores",
    }


def _variables(task: Task, env: Mapping[str, str]) -> Facts:
    """Of `[run] env`, as digests: some hold secrets."""
    given = {
        name: env[name].encode(errors="surrogateescape") for name in task.run.env if name in env
    }
    return {f"variable {name}": hashlib.sha256(value).hexdigest() for name, value in given.items()}
