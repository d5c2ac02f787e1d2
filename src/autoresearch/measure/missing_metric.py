"""Explains to a person why the unchanged program gave no metric: the end of its log, the nearest
line, and what would read it."""

from __future__ import annotations

from pathlib import Path

from autoresearch.measure.diagnosis import explain_failure
from autoresearch.measure.execution import CommandExecutor
from autoresearch.measure.final_value import (
    SHOWN,
    find_final_value,
    find_nearest_line,
    propose_pattern,
)
from autoresearch.measure.json_value import find_json_value
from autoresearch.measure.output import describe_end
from autoresearch.records import Run
from autoresearch.task.json_path import quote
from autoresearch.task.model import Task


def explain_run(commands: CommandExecutor, run: Run) -> str:
    """A failed run of the baseline: the reason, the end of its log, and hints."""
    folder = commands.paths.runs / run.name
    log = folder / ("score.log" if (folder / "score.log").exists() else "log")
    hint = explain_reason(commands.task, log, run)
    if "metric" not in (run.reason or ""):  # else a mere warning would look like the cause
        hint += explain_failure(commands, log, run.reason)
    return (
        f"the unchanged program does not work (run {run.index + 1} of the baseline): {run.reason}\n"
        f"{describe_end(log)}{hint}"
    )


def explain_reason(task: Task, log: Path, run: Run) -> str:
    """A hint for a person whose program gave no metric; empty for other reasons."""
    reason = (run.reason or "").removeprefix("score: ")
    if reason.startswith(("no metric", "metric unclear")):
        return _explain_missing(task, log)
    is_exit = reason.startswith(("exit code", "killed by signal"))
    if is_exit and reason == run.reason and run.exit_code is not None:
        final = find_final_value(log, task.metric.name, task.metric_source.pattern)
        if final.value is not None:
            codes = sorted({*task.run.exit_codes, run.exit_code})
            return (
                f"\nIt printed {final.line.strip()[:SHOWN]!r} before. If it fails only when it "
                f"exits, let that count: [run] exit_codes = {codes}"
            )
    return ""


def _explain_missing(task: Task, log: Path) -> str:
    """A refusal of JSON has its explanation with it."""
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
