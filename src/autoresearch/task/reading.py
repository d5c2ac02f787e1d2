"""Read a task file, or change single settings of a task.

`load` finds a task, `parse` reads one, `override` changes settings of one. All three apply the same
checks and raise one `TaskError` with everything that is wrong: file, line, key, what was found,
what is accepted.
"""

from __future__ import annotations

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
from autoresearch.task.tables import Key, Refusal, did_you_mean, keys_of, read_fields
from autoresearch.task.values import Kind, show

MAX_PROBLEMS = 20  # shown at a time

TABLES: Mapping[str, type] = {
    "run": model.RunSettings,
    "metric": model.MetricSettings,
    "score": model.ScoreSettings,
    "holdout": model.HoldoutSettings,
    "judge": model.JudgeSettings,
    "limits": model.Limits,
    "agent": model.AgentSettings,
    "runner": model.RunnerSettings,
}
OPTIONAL = ("score", "holdout")  # None if the table is absent
PLUGGED = ("agent", "runner")  # sub-tables are options that the plug-in of that name checks
KEYS: Mapping[str, Mapping[str, Key]] = {
    name: keys_of(settings) for name, settings in {"": Task, **TABLES}.items()
}


def find_task_file(path: Path) -> Path:
    """The task file that `path` names, or would have as a folder. Raises `TaskError` if `path` does
    not exist; the file may not."""
    if not exists(path):
        raise TaskError(f"{path}: no such folder or task file, or no permission to see it")
    path = path.absolute()
    source = path / TASK_FILE if path.is_dir() else path
    return source.parent.resolve() / source.name


def load(path: Path) -> Task:
    """The task of a folder, or of a task file. Raises `TaskError` if there is none."""
    from autoresearch.task import layouts

    source = find_task_file(path)
    if exists(source):
        return parse(read_text(source), source.parent, source)
    if draft := layouts.recognise(source.parent):
        return parse_draft(draft, source.parent)
    raise TaskError(
        f"{path.absolute()}: no task here. Looked for {TASK_FILE} and for {layouts.LOOKED_FOR}. "
        "`autoresearch init` writes a task file."
    )


def parse_draft(draft: TaskDraft, root: Path) -> Task:
    """The task of a folder that has no task file but a layout that is recognised."""
    try:
        return parse(draft.to_toml(), root, layout=draft.layout)
    except TaskError as error:
        raise TaskError(f"{root}, read as the layout {draft.layout}:\n{error}") from None


def parse(text: str, root: Path, source: Path | None = None, *, layout: str = TASK_FILE) -> Task:
    """The task that `text` (TOML) describes for the folder `root`."""
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise TaskError(f"{source or 'task'}: not valid TOML: {reason}") from None
    problems = Problems(text, source)
    above = {key: value for key, value in document.items() if key not in (*TABLES, "guards")}
    settings = problems.read_table("", above)
    tables = {
        name: problems.read_table(name, document.get(name, {}))
        for name in TABLES
        if name in document or name not in OPTIONAL
    }
    settings["guards"] = problems.read_guards(document.get("guards", {}))
    problems.raise_any()
    if "timeout_s" not in tables["run"]:
        tables["run"]["timeout_s"] = default_timeout(tables["run"].get("budget_s"))
    settings |= {name: TABLES[name](**given) for name, given in tables.items()}
    settings["metric"] = Metric(**tables["metric"])
    task = Task(root=root, objective_text="", layout=layout, source=source, **settings)
    return _checked(task, problems)


def override(task: Task, **settings: object) -> Task:
    """`task` with settings such as `**{"limits.experiments": 5}` changed, under the same rules.

    `None` leaves a setting as it is. A plug-in's option is `"agent.NAME.KEY"`.
    """
    problems = Problems("", None)
    for dotted, value in settings.items():
        table, _, key = dotted.rpartition(".")
        section, _, plugin = table.partition(".")
        if value is None:
            continue
        if plugin and section in PLUGGED:
            options = dict(getattr(task, section).options)
            options[plugin] = {**options.get(plugin, {}), key: value}
            task = _with(task, section, {"options": options})
        elif table not in KEYS or key not in KEYS[table]:
            problems.add_unknown(table, key)
        elif table and getattr(task, table) is None:
            problems.add(table, key, f"the task has no [{table}]")
        else:
            name, kind, _ = KEYS[table][key]
            for read in problems.read_value(table, key, kind, value):
                task = _with(task, table, {name: read})
    problems.raise_any()
    return _checked(task, problems)


def _with(task: Task, table: str, changes: dict[str, Any]) -> Task:
    if not table:
        return replace(task, **changes)
    if "budget_s" in changes and task.run.timeout_s == default_timeout(task.run.budget_s):
        changes["timeout_s"] = default_timeout(changes["budget_s"])
    return replace(task, **{table: replace(getattr(task, table), **changes)})


def _checked(task: Task, problems: Problems) -> Task:
    """`task` with its objective read. Raises `TaskError` if it contradicts itself or the disk."""
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
    """Everything that is wrong with one task file, to be told at once."""

    def __init__(self, text: str, source: Path | None) -> None:
        self.lines = text.split("\n")
        self.source = source
        self.problems: list[tuple[str, str, str]] = []  # (table, key, sentence)

    def add(self, table: str, key: str, sentence: str) -> None:
        self.problems.append((table, key, sentence))

    def add_unknown(self, table: str, key: str) -> None:
        known = tuple(KEYS.get(table, ())) if table else (*KEYS[""], *TABLES, "guards")
        homes = [name for name, keys in KEYS.items() if key in keys]
        hint = f"accepted: {', '.join(known)}" if known else "no such table"
        if homes:
            hint = f"it belongs in [{homes[0]}]" if homes[0] else "it belongs above all tables"
        self.add(table, key, f"unknown key; {did_you_mean(key, known, hint)}")

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

    def read_table(self, name: str, given: object) -> dict[str, Any]:
        """Field -> value of a table; nothing if one of them is wrong."""
        if not isinstance(given, dict):
            self.add("", name, f"found {show(given)}; accepted: a table [{name}]")
            return {}
        options = {}
        if name in PLUGGED:
            options = {
                key: table
                for key, table in given.items()
                if isinstance(table, dict) and key not in KEYS[name]
            }
        try:
            plain = {key: value for key, value in given.items() if key not in options}
            read = read_fields(TABLES.get(name, Task), plain)
        except Refusal as refused:
            for key, sentence in refused.problems:
                if sentence is None:
                    self.add_unknown(name, key)
                else:
                    self.add(name, key, sentence)
            return {}
        return read | {"options": options} if name in PLUGGED else read

    def read_value(self, table: str, key: str, kind: Kind, value: object) -> list[Any]:
        """The value in a list, which is empty if it is wrong."""
        try:
            return [kind.read(value)]
        except ValueError as error:
            self.add(table, key, str(error))
            return []

    def read_guards(self, given: object) -> Guards:
        commands = given.get("commands", {}) if isinstance(given, dict) else {}
        if not isinstance(given, dict) or not isinstance(commands, dict):
            accepted = "tables [guards], [guards.commands]"
            self.add("", "guards", f"found something else; accepted: {accepted}")
            return Guards()
        bounds: list[Bound] = []
        for name in (name for name in given if name != "commands"):
            self.read_value("guards", name, values.WORD, name)
            for read in self.read_value("guards", name, values.BOUNDS, given[name]):
                bounds += [Bound(name, op, limit) for op, limit in read]
        for name, command in commands.items():
            self.read_value("guards.commands", name, values.COMMAND, command)
        return Guards(tuple(bounds), tuple(commands.items()))


def _line_of(lines: list[str], table: str, key: str) -> int:
    """The line of `key =` in its table, else of the table, else 0; tomllib does not tell."""
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
