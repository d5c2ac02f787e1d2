"""Imports the log of an earlier night: results.tsv, the original's or ours; pi-autoresearch's
autoresearch.jsonl or .auto/log.jsonl; or the log of the pi session in which that worked.

A row that is not understood is refused, with its line. Nothing is guessed.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from autoresearch.errors import TaskError
from autoresearch.formatting import counted, one_line
from autoresearch.git.repository import Repository
from autoresearch.records import Goal, Metric, Status
from autoresearch.store.imported import (
    ImportedExperiment,
    ImportedNight,
    add_nights,
    read_nights,
)
from autoresearch.store.ledger import Ledger
from autoresearch.store.paths import OURS, STATE, ledger_path
from autoresearch.store.results import ORIGINAL
from autoresearch.task.model import Task
from autoresearch.task.values import show

MOST_PROBLEMS = 10  # shown at a time
NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?", re.IGNORECASE | re.ASCII)
NO_METRIC = "0.000000"  # in a table, of a crash, and of a discard that has no metric
COMMIT = re.compile(r"[0-9a-f]{4,40}|-?", re.IGNORECASE)
CHECKS_FAILED = "checks_failed"  # a status of pi-autoresearch alone
STATUSES = tuple(map(str, Status))
DIRECTIONS = {"lower": Goal.MINIMIZE, "higher": Goal.MAXIMIZE}

Line = tuple[str, Mapping[str, Any]]  # where it is, and the experiment


def import_log(task: Task, file: Path, tag: str | None) -> list[ImportedNight]:
    """Import a log as one night, or as one for each configuration that it has. Raises `TaskError`
    if something in it is not understood, or its metric is not the task's."""
    try:
        data = file.read_bytes()
        lines = [line.removesuffix("\r") for line in data.decode("utf-8-sig").split("\n")]
    except (OSError, UnicodeDecodeError) as error:
        raise TaskError(f"{file} cannot be read: {error}") from error
    sha256 = hashlib.sha256(data).hexdigest()
    for night in read_nights(task.root):
        if night.sha256 == sha256:
            raise TaskError(f"{file} was imported already, as {night.tag}")
    groups = _read_log(file, lines, task.metric)
    repository = Repository(task.root, task.editable, task.may_edit)
    tags = _choose_tags(task, repository, tag, len(groups))
    nights = [
        ImportedNight(name, file.name, sha256, time.time(), task.metric, tuple(rows))
        for name, rows in zip(tags, groups, strict=True)
    ]
    (task.root / STATE).mkdir(exist_ok=True)
    repository.exclude(*OURS)
    add_nights(task.root, nights)
    return nights


def _read_log(file: Path, lines: Sequence[str], metric: Metric) -> list[list[ImportedExperiment]]:
    problems: list[str] = []
    is_json = bool(lines) and lines[0].lstrip().startswith("{")
    read = _read_pi(lines, metric, problems) if is_json else _read_table(lines, metric, problems)
    groups = [
        [row for place, line in enumerate(group) if (row := _read_row(place, line, problems))]
        for group in read
    ]
    if problems:
        more = len(problems) - MOST_PROBLEMS
        shown = problems[:MOST_PROBLEMS] + [f"and {more} more"] * (more > 0)
        raise TaskError("\n".join(f"{file}: {problem}" for problem in shown))
    if groups := [group for group in groups if group]:
        return groups
    raise TaskError(f"{file}: no experiment in it")


def _choose_tags(task: Task, repository: Repository, tag: str | None, count: int) -> list[str]:
    """The given tag, or imported, imported-2, ...; of several nights the given one with numbers."""
    taken = {night.tag for night in read_nights(task.root)}
    if (path := ledger_path(task.root)).exists():
        with closing(Ledger(path, readonly=True)) as ledger:
            taken |= {record.tag for record in ledger.sessions()}
    if tag is not None:
        repository.refs.check_tag(tag)
        if tag in taken:
            raise TaskError(f"{tag!r} is a session or an imported night already: choose another")
    names = (f"{tag or 'imported'}{f'-{n}' if n > 1 else ''}" for n in range(1, 10_000))
    free = (name for name in names if name not in taken)
    return [next(free) for _ in range(count)]


# --------------------------------------------------------------------------------------------
# results.tsv


def _read_table(lines: Sequence[str], metric: Metric, problems: list[str]) -> list[list[Line]]:
    header = lines[0].split("\t") if lines else []
    expected = [ORIGINAL[0], metric.name, *ORIGINAL[2:]]
    if header[: len(expected)] != expected:
        found = show("\t".join(header)[:100])
        accepted = ", ".join(expected)
        problems.append(f"line 1: found {found}; accepted: {accepted}, separated by tabs")
        return []
    rows: list[Line] = []
    for number, line in enumerate(lines[1:], 2):
        cells = line.split("\t")
        if len(cells) == len(header):
            row = dict(zip(header, cells, strict=True))
            rows.append((f"line {number}", row | {"metric": _read_metric(row, metric.name)}))
        elif line.strip():
            found = f"{counted(len(cells), 'cell')} in {show(line[:80])}"
            problems.append(f"line {number}: found {found}; accepted: {len(header)}, as in line 1")
    return [rows]


def _read_metric(row: Mapping[str, str], name: str) -> float | str | None:
    """The number in the metric's cell; None for a discard that has none; the cell itself if it is
    no finite number."""
    cell = row[name]
    if row["status"] == Status.DISCARD and cell == NO_METRIC:
        return None
    return float(cell) if NUMBER.fullmatch(cell) and math.isfinite(float(cell)) else cell


# --------------------------------------------------------------------------------------------
# pi-autoresearch


def _read_pi(lines: Sequence[str], metric: Metric, problems: list[str]) -> list[list[Line]]:
    """The experiments after each configuration."""
    groups: list[list[Line]] = [[]]
    for place, entry in _list_entries(lines, problems):
        kind = entry.get("type")
        if kind == "config":
            groups.append([])
            if problem := _check_metric(entry, metric):
                problems.append(f"{place}: {problem}")
        elif kind is None:
            if len(groups) == 1 and not groups[0]:
                problems.append(f"{place}: an experiment before the configuration")
            groups[-1].append((place, entry))
        elif kind != "hook":
            found = f"an entry of type {show(kind)}"
            problems.append(f"{place}: found {found}; accepted: config, hook, or an experiment")
    return groups


def _list_entries(lines: Sequence[str], problems: list[str]) -> Iterator[Line]:
    """The entries of a log of pi-autoresearch, also if they are in the log of a pi session."""
    entries: list[Line] = []
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line) if line.strip() else None
        except (ValueError, RecursionError) as error:
            problems.append(f"line {number}: found no JSON ({error}); accepted: an object")
            continue
        if isinstance(entry, dict):
            entries.append((f"line {number}", entry))
        elif entry is not None:
            problems.append(f"line {number}: found {show(line[:80])}; accepted: an object")
    if not entries or entries[0][1].get("type") != "session":
        return iter(entries)
    return _list_session_entries(entries, problems)


def _list_session_entries(entries: Sequence[Line], problems: list[str]) -> Iterator[Line]:
    """In a pi session each result of the tool `log_experiment` holds all experiments so far."""
    for place, entry in reversed(entries):
        message = entry.get("message")
        if isinstance(message, dict) and message.get("toolName") == "log_experiment":
            details = message.get("details")
            state = details.get("state") if isinstance(details, dict) else None
            if isinstance(state, dict) and isinstance(state.get("results"), list):
                segment = None
                for count, result in enumerate(state["results"], 1):
                    if not isinstance(result, dict):
                        problems.append(f"{place}, result {count}: accepted: an object")
                        continue
                    if result.get("segment") != segment or count == 1:
                        segment = result.get("segment")
                        yield place, {**state, "type": "config"}
                    yield f"{place}, result {count}", result
                return
    problems.append("a pi session without a result of the tool log_experiment")


def _check_metric(config: Mapping[str, Any], metric: Metric) -> str:
    """What is wrong with the metric of a configuration; empty if it is the task's."""
    name, word = config.get("metricName"), config.get("bestDirection", "lower")
    if name != metric.name:
        return f"found the metric {show(name)}; accepted: {show(metric.name)}, as in the task"
    if DIRECTIONS.get(str(word)) is not metric.goal:
        accepted = next(key for key, goal in DIRECTIONS.items() if goal is metric.goal)
        return f"found bestDirection {show(word)}; accepted: {show(accepted)}, as in the task"
    return ""


# --------------------------------------------------------------------------------------------
# A row, from whichever file


def _read_row(place: int, line: Line, problems: list[str]) -> ImportedExperiment | None:
    where, row = line
    status, commit, metric = row.get("status"), row.get("commit"), row.get("metric")
    description = row.get("description")
    wrong = []
    if status not in (*STATUSES, CHECKS_FAILED):
        wrong.append(f"status: found {show(status)}; accepted: {', '.join(STATUSES)}")
    if not isinstance(commit, str) or not COMMIT.fullmatch(commit):
        wrong.append(f"commit: found {show(commit)}; accepted: 4 to 40 hexadecimal digits, or none")
    if not isinstance(description, str):
        wrong.append(f"description: found {show(description)}; accepted: text")
    if status != Status.CRASH and not _is_metric(metric, may_lack=status == Status.DISCARD):
        wrong.append(f"metric: found {show(metric)}; accepted: a finite number")
    if wrong:
        problems += [f"{where}: {problem}" for problem in wrong]
        return None
    is_refused = status == CHECKS_FAILED
    return ImportedExperiment(
        number=place,
        commit=str(commit),
        status=Status.DISCARD if is_refused else Status(str(status)),
        reason="checks failed" if is_refused else one_line(str(row.get("reason", ""))),
        metric=None if status == Status.CRASH or metric is None else float(metric),
        description=one_line(str(description)),
    )


def _is_metric(value: object, *, may_lack: bool) -> bool:
    if value is None:
        return may_lack
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and abs(value) <= sys.float_info.max  # type: ignore[arg-type]  # a number
