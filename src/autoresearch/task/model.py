"""The task: what is better, what may be edited, how long a run may take.

`load` finds a task, `parse` reads one, `override` changes single settings of one. All three apply
what the fields below declare and the same cross checks, and raise one `TaskError` with everything
they found wrong: file, line, key, what was found, what is accepted. A setting that is absent is
`None` and means unlimited or unknown; 0 never does.
"""

from __future__ import annotations

import difflib
import operator
import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from datetime import time
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from autoresearch.errors import TaskError
from autoresearch.records import Metric
from autoresearch.task import values
from autoresearch.task.values import Kind, parse_duration, parse_size, shell_words, show

__all__ = [
    "AgentSettings",
    "Bound",
    "Guards",
    "HoldoutSettings",
    "JudgeSettings",
    "Limits",
    "RunSettings",
    "RunnerSettings",
    "ScoreSettings",
    "Task",
    "load",
    "override",
    "parse",
    "parse_duration",
    "parse_size",
    "private_paths",
    "shell_words",
]

TASK_FILE = "autoresearch.toml"
MAX_FILE_BYTES = 1_000_000  # a task file or an objective beyond this is a mistake
MAX_PROBLEMS = 20  # shown at a time

OWN_FOLDERS = {".git", ".autoresearch", ".auto"}  # never editable, and these files neither:
OWN_FILES = {TASK_FILE, "autoresearch.md", "autoresearch.sh", "autoresearch.checks.sh"}

OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    "<": operator.lt,
    ">=": operator.ge,
    ">": operator.gt,
    "==": operator.eq,
}


# --------------------------------------------------------------------------------------------
# The nouns. A field made by `key` is a key of the task file


def key(kind: Kind, default: Any = MISSING, name: str = "") -> Any:
    """`name` where the file's key is not the field's name; no default: the key is needed."""
    return field(default=default, metadata={"kind": kind, "name": name})


@dataclass(frozen=True, slots=True)
class RunSettings:
    command: str = key(values.COMMAND)
    budget_s: float | None = key(values.DURATION, None, "budget")
    budget_clock: str = key(values.one_of("wall", "cpu"), "wall")
    timeout_s: float = key(values.DURATION, 600.0, "timeout")  # absent: see `default_timeout`
    inputs: tuple[str, ...] = key(values.PATHS, ())  # below the root; a run may read them
    caches: tuple[str, ...] = key(values.CACHES, ())  # as written, perhaps with ~; may write
    env: tuple[str, ...] = key(values.VARIABLES, ())
    setup: str | None = key(values.COMMAND, None)
    allowance_s: float | None = key(values.DURATION, None, "allowance")  # None: measured


@dataclass(frozen=True, slots=True)
class ScoreSettings:
    command: str = key(values.COMMAND)
    reads: tuple[str, ...] = key(values.PATHS, ())
    hidden: tuple[str, ...] = key(values.PATHS, ())


@dataclass(frozen=True, slots=True)
class HoldoutSettings:
    """Scored for the baseline and for keeps, from what [score] reads, and told in the report
    alone."""

    command: str = key(values.COMMAND)
    hidden: tuple[str, ...] = key(values.SOME_PATHS)


@dataclass(frozen=True, slots=True)
class Bound:
    """A number that every run must print, and the side of the limit it must be on."""

    name: str
    op: str
    limit: float

    def holds(self, value: float) -> bool:
        return OPERATORS[self.op](value, self.limit)

    def __str__(self) -> str:
        return f"{self.name} {self.op} {self.limit:.12g}"


@dataclass(frozen=True, slots=True)
class Guards:
    bounds: tuple[Bound, ...] = ()
    commands: tuple[tuple[str, str], ...] = ()  # (name, command)


@dataclass(frozen=True, slots=True)
class JudgeSettings:
    level: str = key(values.one_of("fast", "default", "strict"), "default")
    deterministic: bool | None = key(values.FLAG, None)  # None: undeclared
    baseline_runs: int = key(values.SEVERAL, 6)
    simplify: float | None = key(values.AMOUNT, None)  # metric units a simpler program may cost
    quarantine: float = key(values.MULTIPLE, 5.0)  # times the session's usual: see `too_good`


@dataclass(frozen=True, slots=True)
class Limits:
    """When to stop; whichever comes first. `None` is unlimited."""

    experiments: int | None = key(values.LIMIT, None)
    hours: float | None = key(values.AMOUNT, None)
    until: time | None = key(values.TIME, None)  # noqa: RUF009 - `key` is a `field`. Local time
    patience: int | None = key(values.LIMIT, None)  # experiments without a keep
    target: float | None = key(values.NUMBER, None)  # of the metric
    usd: float | None = key(values.AMOUNT, None)
    tokens: int | None = key(values.LIMIT, None)
    gpu_hours: float | None = key(values.AMOUNT, None)


@dataclass(frozen=True, slots=True)
class AgentSettings:
    name: str | tuple[tuple[str, float], ...] = key(values.NAMES, "tuner")  # or (name, weight)s
    timeout_s: float = key(values.DURATION, 900.0, "timeout")
    env: tuple[str, ...] = key(values.VARIABLES, ())  # these three add to those of [agent.NAME]
    read: tuple[str, ...] = key(values.PLACES, ())  # as written, perhaps with ~
    write: tuple[str, ...] = key(values.PLACES, ())
    confine: bool = key(values.FLAG, True)
    fallback: str | None = key(values.AGENT, None)  # takes over when the others cannot go on
    probe: bool = key(values.FLAG, True)  # a first small turn of agents that need a service
    briefing: int = key(values.BRIEFING, 8000)  # tokens at most, beside the source
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # [agent.NAME]

    @property
    def portfolio(self) -> tuple[tuple[str, float], ...]:
        """(name, weight) of every agent, also where there is only one."""
        return ((self.name, 1.0),) if isinstance(self.name, str) else self.name


@dataclass(frozen=True, slots=True)
class RunnerSettings:
    name: str = key(values.NAME, "local")
    slots: int = key(values.COUNT, 1)
    memory_bytes: int | None = key(values.SIZE, None, "memory")
    network: bool = key(values.FLAG, False)
    confine: bool = key(values.FLAG, True)
    keep_outputs_bytes: int = key(values.SIZE, 2_000_000_000, "keep_outputs")
    log_bytes: int = key(values.SIZE, 16_000_000, "log_limit")
    file_bytes: int = key(values.SIZE, 50_000_000_000, "file_limit")  # of every single file
    processes: int = key(values.COUNT, 1024)  # of one run, at a time
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # [runner.NAME]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    root: Path  # the folder of the task file; commands run in copies of it
    objective: str = key(values.TEXT, "program.md")  # a path relative to the root, or the text
    objective_text: str
    editable: tuple[str, ...] = key(values.GLOBS)  # relative to the root; ask `may_edit`
    run: RunSettings
    metric: Metric
    score: ScoreSettings | None = None
    holdout: HoldoutSettings | None = None
    guards: Guards = Guards()
    judge: JudgeSettings = JudgeSettings()
    limits: Limits = Limits()
    agent: AgentSettings = field(default_factory=AgentSettings)
    runner: RunnerSettings = field(default_factory=RunnerSettings)
    layout: str = TASK_FILE  # or "original", "pi-autoresearch"
    source: Path | None = None  # the task file; None for a recognised layout

    @property
    def hidden(self) -> tuple[str, ...]:
        """What neither the agent nor a run sees, relative to the root."""
        return (*(self.score.hidden if self.score else ()), *self.sealed)

    @property
    def sealed(self) -> tuple[str, ...]:
        """What the scorer does not see either: the holdout."""
        return self.holdout.hidden if self.holdout else ()

    def may_edit(self, path: str) -> bool:
        """Whether `path` (relative to the root, with `/`) is editable.

        `*` stays within a folder, `**` does not; a folder's name means all below it; `!` takes
        away again. Never editable: git's files, the record, the task's own files, the objective.
        """
        own = OWN_FILES | {self.objective, self.source.name if self.source else TASK_FILE}
        if path in own or OWN_FOLDERS & set(path.lower().split("/")):
            return False
        if any(_matches(glob[1:], path) for glob in self.editable if glob[0] == "!"):
            return False
        return any(_matches(glob, path) for glob in self.editable if glob[0] != "!")


def _matches(glob: str, path: str) -> bool:
    """Takes time for the length of both. A regular expression tries all ways to share a path out
    among the stars: four took 3 s for a name of 255 letters, and an agent chooses names.

    `ends` are the places in `path` where the part of the glob read so far can end: a bit for each.
    """
    slashes = _begins("/", path)
    others = ((1 << len(path)) - 1) ^ slashes
    ends = 1
    for piece in _pieces(glob):
        first = ends & -ends
        if piece == "*":
            ends |= (others + (ends & others)) ^ others  # the carry runs on to the next slash
        elif piece == "?":
            ends = (ends & others) << 1
        elif piece == "**":
            ends = (2 << len(path)) - first
        elif piece == "**/":
            ends |= (slashes & -first) << 1
        else:
            ends = (ends & _begins(piece, path)) << len(piece)
        if not ends:
            return False
    below = not set("*?") & set(glob.rpartition("/")[2])
    return bool(ends >> len(path)) or (below and bool(ends & slashes))


@lru_cache(maxsize=256)
def _pieces(glob: str) -> Sequence[str]:
    return [piece for piece in re.split(r"(\*\*/|\*\*|\*|\?)", glob) if piece]


def _begins(text: str, path: str) -> int:
    """A bit for each position at which `path` has `text`."""
    found, at = 0, path.find(text)
    while at >= 0:
        found |= 1 << at
        at = path.find(text, at + 1)
    return found


def default_timeout(budget_s: float | None) -> float:
    """Wall seconds before a run is killed, where the task file does not say."""
    return 600.0 if budget_s is None else 10 * budget_s + 60


# --------------------------------------------------------------------------------------------
# The keys of a task file, from the nouns


class Key(NamedTuple):
    field: str
    kind: Kind
    default: Any = MISSING


def _keys(noun: Any) -> dict[str, Key]:
    declared = [f for f in fields(noun) if "kind" in f.metadata]
    return {
        f.metadata["name"] or f.name: Key(f.name, f.metadata["kind"], f.default) for f in declared
    }


TABLES: Mapping[str, Callable[..., Any]] = {
    "run": RunSettings,
    "metric": Metric,
    "score": ScoreSettings,
    "holdout": HoldoutSettings,
    "judge": JudgeSettings,
    "limits": Limits,
    "agent": AgentSettings,
    "runner": RunnerSettings,
}
KEYS: Mapping[str, Mapping[str, Key]] = {
    "": _keys(Task),
    **{name: _keys(noun) for name, noun in TABLES.items()},
    "metric": {"name": Key("name", values.WORD), "goal": Key("goal", values.GOAL)},
}
OPTIONAL = ("score", "holdout")  # None where the table is absent
TOP = (*KEYS[""], *TABLES, "guards")
PLUGGED = ("agent", "runner")  # sub-tables are options that the plug-in of that name checks


# --------------------------------------------------------------------------------------------
# Loading, parsing, overriding


def load(path: Path) -> Task:
    """The task of a folder, or of a task file; `TaskError` where there is none."""
    from autoresearch.task import layouts

    if not exists(path):
        raise TaskError(f"{path}: no such folder or task file, or no permission to see it")
    path = path.absolute()
    source = path / TASK_FILE if path.is_dir() else path
    source = source.parent.resolve() / source.name
    if exists(source):
        return parse(read_text(source), source.parent, source)
    if task := layouts.recognise(source.parent):
        return task
    raise TaskError(
        f"{path}: no task here. Looked for {TASK_FILE} and for {layouts.LOOKED_FOR}. "
        "`autoresearch init` writes a task file."
    )


def parse(text: str, root: Path, source: Path | None = None, *, layout: str = TASK_FILE) -> Task:
    """The task that `text` (TOML) describes for the folder `root`."""
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise TaskError(f"{source or 'task'}: not valid TOML: {reason}") from None
    reader = _Reader(text, source)
    tables = {*TABLES, "guards"}
    top = reader.table("", {k: v for k, v in document.items() if k not in tables})
    read = {
        name: reader.table(name, document.get(name, {}))
        for name in TABLES
        if name in document or name not in OPTIONAL
    }
    guards = reader.guards(document.get("guards", {}))
    reader.raise_any()
    if "timeout" not in document["run"]:
        read["run"]["timeout_s"] = default_timeout(read["run"]["budget_s"])
    nouns = {name: TABLES[name](**settings) for name, settings in read.items()}
    given = {**top, **nouns, "guards": guards, "layout": layout, "source": source}
    return _checked(Task(root=root, objective_text="", **given), reader)


def override(task: Task, **settings: object) -> Task:
    """`task` with settings such as `**{"limits.experiments": 5}` changed, under the same rules.

    `None` leaves a setting as it is. A plug-in's option is `"agent.NAME.KEY"`.
    """
    reader = _Reader("", None)
    for dotted, value in settings.items():
        table, _, name = dotted.rpartition(".")
        section, _, plugin = table.partition(".")
        if value is None:
            continue
        if plugin and section in PLUGGED:
            options = dict(getattr(task, section).options)
            options[plugin] = {**options.get(plugin, {}), name: value}
            task = _with(task, section, {"options": options})
        elif table not in KEYS or name not in KEYS[table]:
            reader.unknown(table, name)
        elif table and getattr(task, table) is None:
            reader.add(table, name, f"the task has no [{table}]")
        else:
            task = _with(task, table, reader.value(table, name, KEYS[table][name], value))
    reader.raise_any()
    return _checked(task, reader)


def _with(task: Task, table: str, changes: dict[str, Any]) -> Task:
    if not table:
        return replace(task, **changes)
    if "budget_s" in changes and task.run.timeout_s == default_timeout(task.run.budget_s):
        changes["timeout_s"] = default_timeout(changes["budget_s"])
    return replace(task, **{table: replace(getattr(task, table), **changes)})


def read_text(path: Path) -> str:
    """A small UTF-8 file; `TaskError` where it is none."""
    try:
        if not path.is_file():
            raise TaskError(f"{path}: not a regular file")
        if (size := path.stat().st_size) > MAX_FILE_BYTES:
            raise TaskError(f"{path}: {size} bytes; at most {MAX_FILE_BYTES} are accepted")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise TaskError(f"{path}: not UTF-8 (byte {error.start})") from None
    except OSError as error:
        raise TaskError(f"{path}: cannot be read: {error.strerror}") from None


def exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a text too long for a file's name, or a folder that is closed
        return False


class _Reader:
    """Reads tables and collects what is wrong with them, so that all of it is said at once."""

    def __init__(self, text: str, source: Path | None) -> None:
        self.lines = text.split("\n")
        self.source = source
        self.problems: list[tuple[str, str, str]] = []  # (table, key, message)

    def add(self, table: str, key: str, message: str) -> None:
        self.problems.append((table, key, message))

    def raise_any(self) -> None:
        if not self.problems:
            return
        shown = [(_line_of(self.lines, t, k), t, k, m) for t, k, m in self.problems[:MAX_PROBLEMS]]
        said = [self._say(*problem) for problem in sorted(shown)]
        if more := len(self.problems) - len(shown):
            said.append(f"and {more} more")
        raise TaskError("\n".join(said))

    def _say(self, line: int, table: str, key: str, message: str) -> str:
        place = f"{self.source}:{line}: " if line else f"{self.source}: "
        return f"{place if self.source else ''}{f'[{table}] ' if table else ''}{key}: {message}"

    def table(self, name: str, given: object) -> dict[str, Any]:
        """Field -> value of the table's noun, without those that are wrong."""
        if not isinstance(given, dict):
            self.add("", name, f"found {show(given)}; accepted: a table [{name}]")
            return {}
        known = KEYS[name]
        read: dict[str, Any] = {}
        if name in PLUGGED:
            read["options"] = {
                k: v for k, v in given.items() if isinstance(v, dict) and k not in known
            }
        for key in given.keys() - known.keys() - read.get("options", {}).keys():
            self.unknown(name, key)
        for key, spec in known.items():
            if key in given:
                read |= self.value(name, key, spec, given[key])
            elif spec.default is MISSING:
                self.add(name, key, f"missing; needed: {spec.kind.accepts}")
            else:
                read[spec.field] = spec.default
        return read

    def value(self, table: str, key: str, spec: Key, value: object) -> dict[str, Any]:
        try:
            return {spec.field: spec.kind.read(value)}
        except ValueError as why:
            self.add(table, key, f"found {show(value)} ({why}); accepted: {spec.kind.accepts}")
            return {}

    def guards(self, given: object) -> Guards:
        commands = given.get("commands", {}) if isinstance(given, dict) else {}
        if not isinstance(given, dict) or not isinstance(commands, dict):
            self.add(
                "", "guards", "found something else; accepted: tables [guards], [guards.commands]"
            )
            return Guards()
        bounds: list[Bound] = []
        for name in (name for name in given if name != "commands"):
            self.value("guards", name, Key(name, values.WORD), name)
            read = self.value("guards", name, Key(name, values.BOUND), given[name])
            bounds += [Bound(name, op, limit) for op, limit in read.get(name, ())]
        for name, command in commands.items():
            self.value("guards.commands", name, Key(name, values.COMMAND), command)
        return Guards(tuple(bounds), tuple(commands.items()))

    def unknown(self, table: str, key: str) -> None:
        known = tuple(KEYS.get(table, ())) if table else TOP
        near = difflib.get_close_matches(key, known, 1, 0.7)
        homes = [name for name, keys in KEYS.items() if key in keys]
        hint = f"accepted: {', '.join(known)}" if known else "no such table"
        if homes:
            hint = f"it belongs in [{homes[0]}]" if homes[0] else "it belongs above all tables"
        if near:
            hint = f'did you mean "{near[0]}"?'
        self.add(table, key, f"unknown key; {hint}")


def _line_of(lines: list[str], table: str, key: str) -> int:
    """The line of `key =` in its table, else of the table, else 0. A search: tomllib tells none."""
    here, header, name = "", 0, rf"""["']?{re.escape(key)}["']?"""
    inline = rf"\s*{re.escape(table)}\s*(\.\s*{name}\s*[=.]|=)"
    for number, line in enumerate(lines, 1):
        if match := re.fullmatch(r"\s*\[\[?([^\[\]]+)\]\]?\s*(?:#.*)?", line):
            here = re.sub(r"""[\s"']""", "", match[1])
            header = header or number * (here == table)
        if (
            (match and here == (f"{table}.{key}" if table else key))
            or (here == table and re.match(rf"\s*{name}\s*[=.]", line))
            or (not here and table and re.match(inline, line))
        ):
            return number
    return header


# --------------------------------------------------------------------------------------------
# Checks that need more than one key, or the disk


def _checked(task: Task, reader: _Reader) -> Task:
    """`task` with its objective read."""
    try:
        task = replace(task, objective_text=_objective_text(task))
    except TaskError as error:
        reader.add("", "objective", str(error))
    for table, key, message in (*_contradictions(task), *_leaks(task)):
        reader.add(table, key, message)
    reader.raise_any()
    return task


def _objective_text(task: Task) -> str:
    file = task.root / task.objective
    if exists(file) and task.root.resolve() in file.resolve().parents:
        return read_text(file)
    if re.fullmatch(r"\S+\.(md|txt)", task.objective):
        raise TaskError(f"{show(task.objective)} does not exist below {task.root}")
    return task.objective


def _contradictions(task: Task) -> Iterator[tuple[str, str, str]]:
    run = task.run
    if run.budget_s and run.timeout_s < run.budget_s:
        yield "run", "timeout", f"{run.timeout_s:g} s is less than the budget, {run.budget_s:g} s"
    if all(glob.startswith("!") for glob in task.editable):
        yield "", "editable", f"names no file; accepted: {values.GLOBS.accepts}"
    for glob in task.editable:
        if not re.search(r"[!*?]", glob) and not task.may_edit(glob):
            yield "", "editable", f"{show(glob)} is never editable"
    if task.holdout and not task.score:
        yield "holdout", "command", "needs a table [score]: it reads what that `reads`"
    for table, key, paths in (("run", "inputs", run.inputs), *_hidden(task)):
        for path in paths:
            if not exists(task.root / path):
                yield table, key, f"{show(path)} is not in {task.root}; prepare it first"
            if task.may_edit(path) or any(_below(glob, path) for glob in task.editable):
                yield table, key, f"{show(path)} is editable too; it must be frozen"


def _leaks(task: Task) -> Iterator[tuple[str, str, str]]:
    """Settings under which a run or an agent could write its own score or the record."""
    for cache in task.run.caches:
        place = Path(cache).expanduser()
        if any(place == own or place in own.parents for own in (task.root, Path.home())):
            yield "run", "caches", f"{show(cache)} holds the task or the home folder"
        elif problem := _misgranted(task, cache, "write", exists_already=False):
            yield "run", "caches", f"{show(cache)} {problem}"
    for name in task.run.inputs:
        if problem := _misgranted(task, str(task.root / name), "read", exists_already=False):
            yield "run", "inputs", f"{show(name)} {problem}"
    shown = (*task.run.inputs, *(task.score.reads if task.score else ()))
    for table, key, paths in _hidden(task):
        for path in paths:
            if any(_below(path, other) or _below(other, path) for other in shown):
                yield table, key, f"{show(path)} is among `inputs` or `reads` too"
    for table, settings in (("score", task.score), ("holdout", task.holdout)):
        for word in re.findall(r"[^\s|&;<>()$`'\"]+", settings.command if settings else ""):
            if task.may_edit(str(PurePosixPath(word))):
                yield table, "command", f"{show(word)} is editable; the scorer must be frozen"
    yield from _unsealed(task)
    yield from _grants(task)


def _hidden(task: Task) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """(table, key, paths) of all that is hidden."""
    yield "score", "hidden", task.score.hidden if task.score else ()
    yield "holdout", "hidden", task.sealed


def _unsealed(task: Task) -> Iterator[tuple[str, str, str]]:
    """Parts of the holdout that the ordinary scorer would see: it decides what is kept."""
    seen = [_real(task.root / path) for path in task.score.hidden] if task.score else []
    for path in task.sealed:
        place = _real(task.root / path)
        if any(place.is_relative_to(one) or one.is_relative_to(place) for one in seen):
            yield "holdout", "hidden", f"{show(path)} is seen by [score], as its `hidden` says"


def _grants(task: Task) -> Iterator[tuple[str, str, str]]:
    """What is wrong with the paths that agents may read and write."""
    tables = {"agent": {"read": task.agent.read, "write": task.agent.write}}
    tables |= {f"agent.{name}": dict(given) for name, given in task.agent.options.items()}
    for table, given in tables.items():
        for key in ("read", "write"):
            listed = given.get(key)
            for name in listed if isinstance(listed, list | tuple) else ():
                plain = isinstance(name, str) and not re.search("[\0\ud800-\udfff]", name)
                absolute = plain and name.startswith(("/", "~/"))  # if not, the agent refuses it
                if absolute and (problem := _misgranted(task, name, key)):
                    yield table, key, f"{show(name)} {problem}"


def _misgranted(task: Task, name: str, key: str, exists_already: bool = True) -> str | None:
    place = _real(Path(name).expanduser())
    if exists_already and not exists(place):
        return "does not exist; make it first"
    if key == "write" and Path.home().resolve().is_relative_to(place):
        return "holds the home folder; name what is needed in it"
    for private in private_paths(task):
        if private.is_relative_to(place):
            return f"holds {private}, which no agent may see; name what is needed beside it"
        if place.is_relative_to(private):
            return f"is in {private}, which no agent may see"
    return None


def private_paths(task: Task) -> tuple[Path, ...]:
    """What an agent never sees, as real paths: the record, and the scorers' hidden files."""
    return tuple(_real(task.root / name) for name in (".autoresearch", *task.hidden))


def _real(path: Path) -> Path:
    """Without links. Unlike `Path.resolve`, it takes links that go round in a circle."""
    return Path(os.path.realpath(path))


def _below(glob: str, path: str) -> bool:
    """Whether all that `glob` can match is certainly `path` or below it."""
    fixed = re.split(r"[^/]*[*?]", glob)[0]
    return PurePosixPath(fixed).is_relative_to(path)
