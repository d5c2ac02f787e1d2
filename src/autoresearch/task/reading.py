"""Read a task file, or change single settings of a task.

`load` finds a task, `parse` reads its text, `override` changes settings. All three apply the same
checks and raise one `TaskError` with everything that is wrong: file, line, key, the value and the
accepted values.
"""

from __future__ import annotations

import copy
import re
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from autoresearch.errors import TaskError
from autoresearch.records import Metric
from autoresearch.task import model, values
from autoresearch.task.checks import find_problems
from autoresearch.task.draft import TaskDraft
from autoresearch.task.files import exists, read_text
from autoresearch.task.model import TASK_FILE, Bound, Guards, Task, default_timeout
from autoresearch.task.tables import Key, did_you_mean, keys_of, read_table
from autoresearch.task.values import Kind, show

MAX_PROBLEMS = 20  # shown at a time

TABLES: Mapping[str, type] = {
    "run": model.RunSettings,
    "metric": model.MetricSettings,
    "score": model.ScoreSettings,
    "second": model.SecondSettings,
    "holdout": model.HoldoutSettings,
    "judge": model.JudgeSettings,
    "limits": model.Limits,
    "notify": model.NotifySettings,
    "export": model.ExportSettings,
    "agent": model.AgentSettings,
    "runner": model.RunnerSettings,
}
MEASURE_KEYS = ("measure", "repeats", "relative")  # of [metric]
OPTIONAL = ("score", "second", "holdout")  # None if the table is absent
PLUGGED = ("agent", "runner")  # sub-tables are options that the plug-in of that name checks
KEYS: Mapping[str, Mapping[str, Key]] = {
    name: keys_of(settings) for name, settings in {"": Task, **TABLES}.items()
}


def load(path: Path) -> Task:
    """Read the task of a folder, or of a task file. Raises `TaskError` if there is none."""
    from autoresearch.task import layouts

    if not exists(path):
        raise TaskError(f"{path}: no such folder or task file, or no permission to see it")
    path = path.absolute()
    source = path / TASK_FILE if path.is_dir() else path
    root = source.parent.resolve()
    source = root / source.name
    if exists(source):
        return parse(read_text(source), root, source)
    if draft := layouts.recognise(root):
        return parse_draft(draft, root)
    raise TaskError(
        f"{path}: no task here. Looked for {TASK_FILE} and for {layouts.LOOKED_FOR}. "
        "`autoresearch init` writes a task file."
    )


def parse_draft(draft: TaskDraft, root: Path) -> Task:
    """Read the task of a folder that has no task file but a layout that is recognised."""
    try:
        return parse(draft.to_toml(), root, layout=draft.layout)
    except TaskError as error:
        raise TaskError(f"{root}, read as the layout {draft.layout}:\n{error}") from None


def parse(text: str, root: Path, source: Path | None = None, *, layout: str = TASK_FILE) -> Task:
    """Read the task that `text` (TOML) describes for the folder `root`."""
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise TaskError(f"{source or 'task'}: not valid TOML: {reason}") from None
    return _read(document, root, source, layout, Problems(text, source))


def override(task: Task, **settings: object) -> Task:
    """Return `task` with settings such as `**{"limits.experiments": 5}` changed.

    They are checked like those of a file. `None` leaves a setting as it is. `limits={}` empties a
    table. A plug-in's option is `"agent.NAME.KEY"`.
    """
    document = copy.deepcopy(task.document)
    for dotted, value in settings.items():
        if value is not None:
            path, _, key = dotted.rpartition(".")
            table = document
            for name in path.split(".", 1) if path else ():
                table = table.setdefault(name, {})
            table[key] = value
    return _read(document, task.root, task.source, task.layout, Problems("", None))


def _read(
    document: dict[str, Any], root: Path, source: Path | None, layout: str, problems: Problems
) -> Task:
    """Raises `TaskError` if the document is wrong, or contradicts itself or the disk."""
    top = {key: value for key, value in document.items() if key not in (*TABLES, "guards")}
    settings = problems.read_table("", top)
    tables = {
        name: problems.read_table(name, document.get(name, {}))
        for name in TABLES
        if name in document or name not in OPTIONAL
    }
    settings["guards"] = problems.read_guards(document.get("guards", {}))
    problems.raise_any()
    tables["run"].setdefault("timeout_s", default_timeout(tables["run"].get("budget_s")))
    if "measure" in tables["metric"]:
        tables["runner"].setdefault("cores", 1)
    settings |= {name: TABLES[name](**table) for name, table in tables.items()}
    where = {key: tables["metric"].pop(key, None) for key in ("pattern", "json", "file")}
    settings["metric_source"] = model.MetricSource(**where)
    keys = [tables["metric"].pop(key, None) for key in MEASURE_KEYS]
    settings["measure"] = model.make_measure(*keys)
    settings["metric"] = Metric(**tables["metric"])
    if "second" in tables:
        settings["second"] = Metric(**tables["second"])
    task = Task(root=root, source=source, layout=layout, document=document, **settings)
    try:
        task = replace(task, objective_text=_read_objective(task))
    except TaskError as error:
        problems.add("", "objective", str(error))
    for problem in find_problems(task):
        problems.add(*problem)
    problems.raise_any()
    return task


def _read_objective(task: Task) -> str:
    file = task.root / task.objective
    if exists(file) and task.root.resolve() in file.resolve().parents:
        return read_text(file)
    if re.fullmatch(r"\S+\.(md|txt)", task.objective):
        raise TaskError(f"{show(task.objective)} does not exist below {task.root}")
    return task.objective


class Problems:
    """Collects everything that is wrong with one task file, to raise it at once."""

    def __init__(self, text: str, source: Path | None) -> None:
        self.lines = text.split("\n")
        self.source = source
        self.problems: list[tuple[str, str, str]] = []  # (table, key, sentence)

    def add(self, table: str, key: str, sentence: str) -> None:
        self.problems.append((table, key, sentence))

    def raise_any(self) -> None:
        """Raise `TaskError` if there are problems, in the order of the file."""
        if not self.problems:
            return
        first = self.problems[:MAX_PROBLEMS]
        placed = sorted((_line_of(self.lines, *problem[:2]), *problem) for problem in first)
        sentences = [self._sentence(*problem) for problem in placed]
        if more := len(self.problems) - len(first):
            sentences.append(f"and {more} more")
        raise TaskError("\n".join(sentences))

    def _sentence(self, line: int, table: str, key: str, sentence: str) -> str:
        place = f"{self.source}{f':{line}' if line else ''}: " if self.source else ""
        return f"{place}{f'[{table}] ' if table else ''}{key}: {sentence}"

    def read_table(self, name: str, given: object, every: Kind | None = None) -> dict[str, Any]:
        """Read field -> value of a table; nothing if one of them is wrong.

        The table has the keys of `KEYS`, or any keys whose values are all of the kind `every`.
        """
        if not isinstance(given, dict):
            table, _, key = name.rpartition(".")
            self.add(table, key, f"found {show(given)}; accepted: a table [{name}]")
            return {}
        keys = {key: Key(key, every) for key in given} if every else KEYS[name]
        options = {
            key: table
            for key, table in given.items()
            if name in PLUGGED and isinstance(table, dict) and key not in keys
        }
        read, problems = read_table(keys, {k: v for k, v in given.items() if k not in options})
        for key, sentence in problems.items():
            self.add(name, key, sentence or f"unknown key; {_hint(name, key)}")
        return read | {"options": options} if name in PLUGGED else read

    def read_guards(self, given: object) -> Guards:
        commands: object = {}
        if isinstance(given, dict):
            commands = given.get("commands", {})
            given = {name: bounds for name, bounds in given.items() if name != "commands"}
            self.read_table("guards", {name: name for name in given}, values.METRIC_NAME)
        guards = self.read_table("guards", given, values.BOUNDS)
        bounds = [Bound(name, *bound) for name, listed in guards.items() for bound in listed]
        commands = self.read_table("guards.commands", commands, values.GUARD_COMMAND)
        return Guards(
            tuple(bounds),
            tuple((name, command) for name, (command, _) in commands.items()),
            {name: timeout_s for name, (_, timeout_s) in commands.items() if timeout_s},
        )


def _hint(table: str, key: str) -> str:
    """A hint for an unknown key."""
    known = (*KEYS[table], *(() if table else (*TABLES, "guards")))
    hint = f"accepted: {', '.join(known)}"
    homes = [name for name, keys in KEYS.items() if key in keys]
    if homes:
        hint = f"it belongs in [{homes[0]}]" if homes[0] else "it belongs above all tables"
    return did_you_mean(key, known, hint)


def _line_of(lines: list[str], table: str, key: str) -> int:
    """The line of `key =` in its table, else of the table's header, else 0. tomllib tells none."""
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
