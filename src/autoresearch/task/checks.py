"""Checks of a task that need more than one key, or the disk."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePath, PurePosixPath

from autoresearch.task.files import exists
from autoresearch.task.globs import matches_only_below
from autoresearch.task.model import Task
from autoresearch.task.values import GLOBS, show

Problem = tuple[str, str, str]  # table, key, what is wrong


def find_problems(task: Task) -> Iterator[Problem]:
    yield from _contradictions(task)
    yield from _inputs_and_hidden(task)
    yield from _caches(task)
    yield from _scorers(task)
    yield from _grants(task)


def private_paths(task: Task) -> tuple[Path, ...]:
    """What an agent never sees, as real paths: the record, and the scorers' hidden files."""
    return tuple(_real(task.root / name) for name in (".autoresearch", *task.hidden))


def _contradictions(task: Task) -> Iterator[Problem]:
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


def _inputs_and_hidden(task: Task) -> Iterator[Problem]:
    """Frozen files that do not exist, that an agent may edit, or that others see."""
    hidden = [("score", path) for path in (task.score.hidden if task.score else ())]
    hidden += [("holdout", path) for path in task.sealed]
    inputs = [("run", path) for path in task.run.inputs]
    for table, path in (*inputs, *hidden):
        key = "inputs" if table == "run" else "hidden"
        if not exists(task.root / path):
            yield table, key, f"{show(path)} is not in {task.root}; prepare it first"
        if task.may_edit(path) or any(matches_only_below(glob, path) for glob in task.editable):
            yield table, key, f"{show(path)} is editable too; it must be frozen"
    for _, path in inputs:
        if problem := _forbidden(task, task.root / path, "read"):
            yield "run", "inputs", f"{show(path)} {problem}"
    visible = (*task.run.inputs, *(task.score.reads if task.score else ()))
    for table, path in hidden:
        if any(_overlap(PurePosixPath(path), PurePosixPath(other)) for other in visible):
            yield table, "hidden", f"{show(path)} is among `inputs` or `reads` too"
    scored = [_real(task.root / path) for table, path in hidden if table == "score"]
    for path in task.sealed:  # the ordinary score decides what is kept
        if any(_overlap(_real(task.root / path), other) for other in scored):
            yield "holdout", "hidden", f"{show(path)} is seen by [score], as its `hidden` says"


def _caches(task: Task) -> Iterator[Problem]:
    """Caches through which a run could write its own score or the record."""
    for cache in task.run.caches:
        place = Path(cache).expanduser()
        if any(place == own or place in own.parents for own in (task.root, Path.home())):
            yield "run", "caches", f"{show(cache)} holds the task or the home folder"
        elif problem := _forbidden(task, place, "write"):
            yield "run", "caches", f"{show(cache)} {problem}"


def _scorers(task: Task) -> Iterator[Problem]:
    for table, settings in (("score", task.score), ("holdout", task.holdout)):
        for word in re.findall(r"[^\s|&;<>()$`'\"]+", settings.command if settings else ""):
            if task.may_edit(str(PurePosixPath(word))):
                yield table, "command", f"{show(word)} is editable; the scorer must be frozen"


def _grants(task: Task) -> Iterator[Problem]:
    """What is wrong with the paths that agents may read and write."""
    tables = {"agent": {"read": task.agent.read, "write": task.agent.write}}
    tables |= {f"agent.{name}": dict(given) for name, given in task.agent.options.items()}
    for table, given in tables.items():
        for key in ("read", "write"):
            listed = given.get(key)
            for name in listed if isinstance(listed, list | tuple) else ():
                is_path = isinstance(name, str) and not re.search("[\0\ud800-\udfff]", name)
                if not is_path or not name.startswith(("/", "~/")):
                    continue  # the agent refuses it
                place = Path(name).expanduser()
                missing = None if exists(_real(place)) else "does not exist; make it first"
                if problem := missing or _forbidden(task, place, key):
                    yield table, key, f"{show(name)} {problem}"


def _forbidden(task: Task, path: Path, key: str) -> str | None:
    """Why nobody may read or write `path`, if so."""
    place = _real(path)
    if key == "write" and Path.home().resolve().is_relative_to(place):
        return "holds the home folder; name what is needed in it"
    for private in private_paths(task):
        if private.is_relative_to(place):
            return f"holds {private}, which no agent may see; name what is needed beside it"
        if place.is_relative_to(private):
            return f"is in {private}, which no agent may see"
    return None


def _overlap(one: PurePath, other: PurePath) -> bool:
    return one.is_relative_to(other) or other.is_relative_to(one)


def _real(path: Path) -> Path:
    """Without links. Unlike `Path.resolve`, it takes links that go round in a circle."""
    return Path(os.path.realpath(path))
