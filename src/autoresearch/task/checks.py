"""Checks of a task that need several keys, or the disk."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePath, PurePosixPath

from autoresearch.records import Goal
from autoresearch.task.files import exists
from autoresearch.task.globs import matches_only_below
from autoresearch.task.model import Task
from autoresearch.task.values import GLOBS, show

Problem = tuple[str, str, str]  # table, key, what is wrong


def find_problems(task: Task) -> Iterator[Problem]:
    yield from _check_contradictions(task)
    yield from _check_metric_source(task)
    yield from _check_measure(task)
    yield from _check_frozen_files(task)
    yield from _check_caches(task)
    yield from _check_grants(task)


def private_paths(task: Task) -> tuple[Path, ...]:
    """The real paths that no agent may see: the record, and the scorers' hidden files."""
    return tuple(_real(task.root / name) for name in (".autoresearch", *task.hidden))


def _check_contradictions(task: Task) -> Iterator[Problem]:
    run = task.run
    if run.budget_s and run.timeout_s < run.budget_s:
        yield "run", "timeout", f"{run.timeout_s:g} s is less than the budget, {run.budget_s:g} s"
    if all(glob.startswith("!") for glob in task.editable):
        yield "", "editable", f"names no file; accepted: {GLOBS.accepts}"
    for glob in task.editable:
        if not re.search(r"[!*?]", glob) and not task.may_edit(glob):
            yield "", "editable", f"{show(glob)} is never editable"
    if task.holdout and not task.score:
        yield "holdout", "command", "needs a table [score]: it reads what that `reads`"
    if task.second and task.second.name == task.metric.name:
        yield "second", "name", f"{show(task.second.name)} is the metric; name another number"
    for table, settings in (("score", task.score), ("holdout", task.holdout)):
        for word in re.findall(r"[^\s|&;<>()$`'\"]+", settings.command if settings else ""):
            if task.may_edit(str(PurePosixPath(word))):
                yield table, "command", f"{show(word)} is editable; the scorer must be frozen"


def _check_metric_source(task: Task) -> Iterator[Problem]:
    source, file = task.metric_source, task.metric_source.file
    if source.pattern and (source.json or file):
        yield "metric", "pattern", "reads a log, `json` and `file` read JSON; keep one of them"
    if file is None:
        return
    if not source.json:
        yield "metric", "json", f"missing; needed: the path of the number in {show(file)}"
    if task.may_edit(file) or any(matches_only_below(glob, file) for glob in task.editable):
        yield "metric", "file", f"{show(file)} is editable; a run must write it"
    given = [("[run] inputs", name) for name in task.run.inputs]
    given += [("[score] reads", name) for name in (task.score.reads if task.score else ())]
    given += [("hidden", name) for name in task.hidden]
    for place, name in given:
        if _overlap(PurePosixPath(file), PurePosixPath(name)):
            writer = "the scorer" if task.score else "the run"
            yield "metric", "file", f"{show(file)} is in {place} too; {writer} must write it"


def _check_measure(task: Task) -> Iterator[Problem]:
    """Refuse what makes no sense, or could be forged, where the harness measures the metric."""
    given, measure = task.document.get("metric", {}), task.measure
    if measure is None:
        for key in ("repeats", "relative"):
            if key in given:
                yield "metric", key, 'needs `measure`, such as measure = "cpu_time"'
        return
    for key in ("pattern", "json", "file"):
        if key in given:
            yield "metric", key, "reads a number, but `measure` measures it; keep one of them"
    if task.metric.goal is not Goal.MINIMIZE:
        yield "metric", "goal", f'found "maximize"; a {measure.what} can only be minimized'
    if task.run.budget_s is not None:
        yield "run", "budget", "a run that keeps to a budget takes as long as that; use `timeout`"
    if task.run.caches:
        yield (
            *("run", "caches"),
            "with `measure`, a program could find there what an earlier repetition has computed",
        )
    if task.judge.deterministic and measure.is_time:
        yield "judge", "deterministic", f"a {measure.what} is never the same twice"
    if task.holdout is not None:
        yield "holdout", "command", "with `measure` there is no score that a holdout could have"


def _check_frozen_files(task: Task) -> Iterator[Problem]:
    """Refuse inputs and hidden files that do not exist, may be edited, or are visible elsewhere."""
    inputs, score = task.run.inputs, task.score
    scored, read = (score.hidden, score.reads) if score else ((), ())
    files = [("run", "inputs", path) for path in inputs]
    files += [("score", "hidden", path) for path in scored]
    files += [("holdout", "hidden", path) for path in task.sealed]
    for table, key, path in files:
        place = task.root / path
        if not exists(place):
            yield table, key, f"{show(path)} is not in {task.root}; prepare it first"
        if task.may_edit(path) or any(matches_only_below(glob, path) for glob in task.editable):
            yield table, key, f"{show(path)} is editable too; it must be frozen"
        if key == "inputs" and (problem := _forbidden(task, place, "read")):
            yield table, key, f"{show(path)} {problem}"
        if key == "hidden" and any(
            _overlap(PurePosixPath(path), PurePosixPath(other)) for other in (*inputs, *read)
        ):
            yield table, key, f"{show(path)} is among `inputs` or `reads` too"
        if table == "holdout" and any(
            _overlap(_real(place), _real(task.root / other)) for other in scored
        ):  # the ordinary score decides what is kept
            yield table, key, f"{show(path)} is seen by [score], as its `hidden` says"


def _check_caches(task: Task) -> Iterator[Problem]:
    """Refuse caches through which a run could write its own score or the record."""
    for cache in task.run.caches:
        place = Path(cache).expanduser()
        if any(place == own or place in own.parents for own in (task.root, Path.home())):
            yield "run", "caches", f"{show(cache)} holds the task or the home folder"
        elif problem := _forbidden(task, place, "write"):
            yield "run", "caches", f"{show(cache)} {problem}"


def _check_grants(task: Task) -> Iterator[Problem]:
    """Refuse paths that agents may not read or write."""
    tables = {"agent": {"read": task.agent.read, "write": task.agent.write}}
    tables |= {f"agent.{name}": dict(options) for name, options in task.agent.options.items()}
    for table, options in tables.items():
        for key in ("read", "write"):
            names = options.get(key)
            for name in names if isinstance(names, list | tuple) else ():
                is_path = isinstance(name, str) and not re.search("[\0\ud800-\udfff]", name)
                if not is_path or not name.startswith(("/", "~/")):
                    continue  # the agent refuses it
                place = Path(name).expanduser()
                missing = None if exists(_real(place)) else "does not exist; make it first"
                if problem := missing or _forbidden(task, place, key):
                    yield table, key, f"{show(name)} {problem}"


def _forbidden(task: Task, path: Path, access: str) -> str | None:
    """The reason why neither agent nor run may read or write `path`, if there is one."""
    place = _real(path)
    if access == "write" and Path.home().resolve().is_relative_to(place):
        return "holds the home folder; name what is needed in it"
    for private in private_paths(task):
        if private.is_relative_to(place):
            return f"holds {private}, which no agent may see; name what is needed beside it"
        if place.is_relative_to(private):
            return f"is in {private}, which no agent may see"
    return None


def _overlap(path: PurePath, other: PurePath) -> bool:
    return path.is_relative_to(other) or other.is_relative_to(path)


def _real(path: Path) -> Path:
    """Resolve links. Unlike `Path.resolve`, this accepts links that form a circle."""
    return Path(os.path.realpath(path))
