"""Explains to a person why a log has no metric: the nearest line, and what would read it."""

from __future__ import annotations

from pathlib import Path

from autoresearch.measure.final_value import find_nearest_line, propose_pattern
from autoresearch.measure.json_value import find_json_value
from autoresearch.task.json_path import quote
from autoresearch.task.model import Task


def explain_missing(task: Task, log: Path) -> str:
    """A hint for a person whose program printed no value that could be read. A refusal of JSON has
    its explanation with it."""
    name, source = task.metric.name, task.metric_source
    if source.json:
        return ""
    if source.pattern:
        return (
            f"\n[metric] pattern = '{source.pattern}' has to match a line.{_show_near(log, name)}"
        )
    hint = (
        f"\nThe program has to print `{name}: NUMBER` or `METRIC {name}=NUMBER`, alone on a line."
    )
    return hint + _show_near(log, name)


def _show_near(log: Path, name: str) -> str:
    line = find_nearest_line(log, name)
    if not line:
        return f"\nNo line names {name!r}, in upper or lower case."
    return f"\nThe nearest line is {line!r}{_say_what_is_wrong(log, name, line)}."


def _say_what_is_wrong(log: Path, name: str, line: str) -> str:
    if name not in line:
        return f": its upper and lower case differ from {name!r}"
    if find_json_value(log, path := quote(name)).value is not None:
        return f"; [metric] json = '{path}' would read it"
    if pattern := propose_pattern(line, name):
        return f"; [metric] pattern = '{pattern}' would read it"
    return f": no number stands after {name!r}"
