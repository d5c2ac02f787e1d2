"""Reads a run's metric: scorers, the sealed holdout, and the bounds on metrics."""

from __future__ import annotations

import os
from pathlib import Path

from autoresearch.files import clear_path
from autoresearch.measure.artifacts import FOLDER
from autoresearch.measure.execution import UNSETTLED, CommandExecutor, check_settled
from autoresearch.measure.final_value import FinalValue, find_final_value
from autoresearch.measure.output import read_log, whole_lines
from autoresearch.protocols import RunResult
from autoresearch.records import HoldoutScore, Run
from autoresearch.sandbox.run_policy import Purpose, readable_hidden_files
from autoresearch.store import values
from autoresearch.task.model import Task

MAX_NUMBERS = 1_000  # recorded of a run, beside its metric: the last ones


def score(
    commands: CommandExecutor,
    run: Run,
    folder: Path,
    command: str,
    purpose: Purpose,
    limit_s: float | None = None,
) -> RunResult:
    """Execute a scorer on the artefacts in a run's `folder`.

    It works in its own pristine tree, with the hidden files that it may read and with the regular
    files in `[score] reads` from the run. Raises `Interrupted` if it was abandoned or lost.
    """
    task, prefix = commands.task, commands.repository.prefix
    assert task.score is not None
    outcome = folder / f"{purpose.value}.json"
    log = folder / f"{purpose.value}.log"
    if (earlier := load_result(outcome)) is not None:
        commands.mask_secrets(log)
        return earlier
    copies = {name: folder / FOLDER / prefix / name for name in task.score.reads}
    for name, source in copies.items():
        is_regular = source.is_file() and not source.is_symlink()
        if not is_regular or not os.access(source, os.R_OK):
            return RunResult(1, f"the run left no file {name}", 0.0, 0.0, None)
    hidden = readable_hidden_files(task, purpose)
    content = commands.tree(run.commit, hidden, copies, may_reuse=False)
    tree = commands.paths.trees / f"{run.id:05d}-{purpose.value}"
    spec = commands.spec(
        command,
        tree,
        log,
        outcome,
        run.seed,
        limit_s=limit_s,
        purpose=purpose,
        preload=task.score.preload,
    )
    result = commands.execute(spec, content)
    clear_path(tree)
    check_settled(result)
    return result


def score_holdout(commands: CommandExecutor, run: Run, folder: Path) -> HoldoutScore | None:
    """Score a run on the sealed holdout; None if the task has none. There is no time limit: the
    holdout decides nothing, so a program gains nothing if it trains during this scoring."""
    holdout = commands.task.holdout
    if holdout is None:
        return None
    result = score(commands, run, folder, holdout.command, Purpose.HOLDOUT)
    metric, reason = _metric_or_reason(commands.task, result, folder / "holdout.log")
    return HoldoutScore(metric, reason, result.cpu_s, result.wall_s)


def read_metric(
    task: Task, result: RunResult, log: Path, run_log: Path
) -> tuple[float | None, str | None, dict[str, float]]:
    """Return (metric, reason, other numbers) of a run that ended. `log` is the scorer's, or the
    run's own. `reason` is why there is no metric, or the bound that the run broke."""
    metric, reason = _metric_or_reason(task, result, log)
    numbers = dict(read_log(whole_lines(log)).numbers)
    if log != run_log:
        numbers = read_log(whole_lines(run_log)).numbers | numbers
    numbers.pop(task.metric.name, None)
    numbers = dict(list(numbers.items())[-MAX_NUMBERS:])
    if metric is None:
        return None, reason, numbers
    for bound in task.guards.bounds:
        # With a scorer, its numbers alone: the run could print any.
        is_metric = bound.name == task.metric.name
        value = metric if is_metric else _find(task, log, bound.name).value
        if value is None:
            who = " by the scorer" if task.score else ""
            return metric, f"guard failed: {bound.name} was not printed{who}", numbers
        if not bound.holds(value):
            return metric, f"guard failed: {bound.name} = {value:g}, not {bound}", numbers
    return metric, None, numbers


def _metric_or_reason(task: Task, result: RunResult, log: Path) -> tuple[float | None, str | None]:
    """The metric that a command printed to `log`, or the reason why there is none."""
    if result.stopped is not None:
        return None, result.stopped
    if result.exit_code != 0:
        return None, _exit_reason(result.exit_code)
    final = _find(task, log, task.metric.name, task.pattern)
    return final.value, final.reason


def _find(task: Task, log: Path, name: str, pattern: str | None = None) -> FinalValue:
    return find_final_value(log, name, pattern, may_quote=task.score is not None)


def _exit_reason(code: int | None) -> str:
    if code == 127:
        return "command not found"
    if code is not None and code < 0:
        return f"killed by signal {-code}"
    return f"exit code {code}"


def load_result(path: Path) -> RunResult | None:
    """Read the result that a runner wrote. None if the command must be executed (again): the file
    is missing or damaged, or the command was interrupted."""
    result = values.read(path, RunResult)
    return None if result is None or result.stopped in UNSETTLED else result
