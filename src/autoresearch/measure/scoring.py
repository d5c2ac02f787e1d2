"""Reads a run's metric: scorers, the sealed holdout, and the bounds on metrics."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from autoresearch.files import clear_path
from autoresearch.measure.artifacts import FOLDER
from autoresearch.measure.execution import UNSETTLED, CommandExecutor, check_settled
from autoresearch.measure.final_value import FinalValue, find_final_value
from autoresearch.measure.json_value import find_file_value, find_json_value
from autoresearch.measure.output import read_log, whole_lines
from autoresearch.measure.timing import Costs
from autoresearch.protocols import RunResult
from autoresearch.records import HoldoutScore, Run
from autoresearch.sandbox.run_policy import Purpose, readable_hidden_files
from autoresearch.store import values
from autoresearch.task.model import Task

RETRY_FACTOR = 1.5  # up to this multiple of its limit, a score is made again
METRIC_FILE = "-metric.json"  # follows the name of the scoring that wrote it
MAX_NUMBERS = 1_000  # recorded of a run, beside its metric: the last ones


def score_within(
    commands: CommandExecutor, run: Run, folder: Path, command: str, limit_s: float | None
) -> RunResult:
    """Score a run, with a limit of time by the budget's clock.

    A busy machine makes a score dearer, and the limit was learned when it was quieter. So a score
    just above its limit is made once more, and the limit is raised by what the baseline's score
    takes now. Raises `Interrupted` if it was abandoned or lost.
    """
    if limit_s is None:
        return score(commands, run, folder, command)
    first = score(commands, run, folder, command, limit_s=RETRY_FACTOR * limit_s)
    if first.stopped is not None or _used_s(commands, first) <= limit_s:
        return first
    again = score(commands, run, folder, command, limit_s=RETRY_FACTOR * limit_s, name="again")
    best = min(first, again, key=lambda result: _used_s(commands, result))
    if _used_s(commands, best) > limit_s * _measure_load(commands, folder, command):
        return replace(first, stopped="over budget")
    return replace(first, cpu_s=best.cpu_s, wall_s=best.wall_s)


def _measure_load(commands: CommandExecutor, folder: Path, command: str) -> float:
    """How much longer a score of the baseline takes now than its slowest one did, at least 1."""
    runs = [run for run in commands.honest if run.metric is not None]
    known = [run.score_cpu_s if _is_cpu(commands) else run.score_wall_s for run in runs]
    if not any(known):
        return 1.0
    run, kept = runs[-1], commands.paths.runs / runs[-1].name
    now = score(commands, run, folder, command, name="load", kept=kept)
    if now.exit_code != 0:
        return 1.0
    return max(1.0, _used_s(commands, now) / max(filter(None, known)))


def _used_s(commands: CommandExecutor, result: RunResult) -> float:
    return (result.cpu_s if _is_cpu(commands) else result.wall_s) or 0.0


def _is_cpu(commands: CommandExecutor) -> bool:
    return commands.task.run.budget_clock == "cpu"


def score(
    commands: CommandExecutor,
    run: Run,
    folder: Path,
    command: str,
    purpose: Purpose = Purpose.SCORE,
    *,
    limit_s: float | None = None,
    name: str | None = None,
    kept: Path | None = None,
) -> RunResult:
    """Execute a scorer on the artefacts in a run's folder: `kept`, or else `folder`, where its log
    and result are written under `name`, or else that of the purpose.

    It works in its own pristine tree, with the hidden files that it may read and with the regular
    files in `[score] reads` from the run, but without new files that it would import in the place
    of installed modules, such as `json.py`. Raises `Interrupted` if it was abandoned or lost.
    """
    task, prefix = commands.task, commands.repository.prefix
    assert task.score is not None
    name = name or purpose.value
    outcome = folder / f"{name}.json"
    log = folder / f"{name}.log"
    written = folder / f"{name}{METRIC_FILE}"
    tree = commands.paths.trees / f"{run.id:05d}-{name}"
    if (earlier := load_result(outcome)) is not None:
        commands.mask_secrets(log)
        _keep_metric_file(commands, tree, written)
        return earlier
    copies = {path: (kept or folder) / FOLDER / prefix / path for path in task.score.reads}
    for path, source in copies.items():
        is_regular = source.is_file() and not source.is_symlink()
        if not is_regular or not os.access(source, os.R_OK):
            return RunResult(1, f"the run left no file {path}", 0.0, 0.0, None)
    hidden = readable_hidden_files(task, purpose)
    shadows = _find_shadows(commands, run, command)
    content = commands.tree(run.commit, hidden, copies, may_reuse=False, without=shadows)
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
    written.unlink(missing_ok=True)
    result = commands.execute(spec, content)
    _keep_metric_file(commands, tree, written)
    clear_path(tree)
    check_settled(result)
    return result


def _find_shadows(commands: CommandExecutor, run: Run, command: str) -> list[str]:
    base = next((honest.commit for honest in commands.honest), run.commit)
    added = commands.repository.added_files(base, run.commit) if base != run.commit else []
    return commands.policies.find_shadows(command, added) if added else []


def score_holdout(commands: CommandExecutor, run: Run, folder: Path) -> HoldoutScore | None:
    """Score a run on the sealed holdout; None if the task has none. There is no time limit: the
    holdout decides nothing, so a program gains nothing if it trains during this scoring."""
    holdout = commands.task.holdout
    if holdout is None:
        return None
    result = score(commands, run, folder, holdout.command, Purpose.HOLDOUT)
    metric, reason = _metric_or_reason(commands, result, folder, Purpose.HOLDOUT)
    return HoldoutScore(metric, reason, result.cpu_s, result.wall_s)


def read_metric(
    commands: CommandExecutor, result: RunResult, folder: Path, purpose: Purpose
) -> tuple[float | None, str | None, dict[str, float]]:
    """Return (metric, reason, other numbers) of a run that ended. With `Purpose.SCORE` the scorer's
    output decides, otherwise the run's own. `reason` is why there is no metric, or the bound that
    the run broke."""
    task, log = commands.task, _log(folder, purpose)
    metric, reason = _metric_or_reason(commands, result, folder, purpose)
    numbers = dict(read_log(whole_lines(log)).numbers)
    if purpose is Purpose.SCORE:
        numbers = read_log(whole_lines(_log(folder, Purpose.RUN))).numbers | numbers
    numbers.pop(task.metric.name, None)
    numbers = dict(list(numbers.items())[-MAX_NUMBERS:])
    if task.measure is not None and reason is None:
        numbers |= Costs.read(folder).numbers(task.measure)
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


def _metric_or_reason(
    commands: CommandExecutor, result: RunResult, folder: Path, purpose: Purpose
) -> tuple[float | None, str | None]:
    """The metric that a command printed or wrote, or the reason why there is none."""
    if result.stopped is not None:
        return None, result.stopped
    if result.exit_code not in _good_codes(commands.task, purpose):
        return None, _exit_reason(result.exit_code)
    task, log = commands.task, _log(folder, purpose)
    if task.measure is not None:
        return Costs.read(folder).metric, None
    name, source = task.metric.name, task.metric_source
    if source.json and source.file:
        file = _metric_file(commands, folder, purpose)
        final = find_file_value(file, source.file, source.json)
    elif source.json:
        final = find_json_value(log, source.json)
    else:
        final = _find(task, log, name, source.pattern)
    return final.value, final.reason and commands.mask_text(final.reason)


def _good_codes(task: Task, purpose: Purpose) -> tuple[int, ...]:
    return task.run.exit_codes if purpose is Purpose.RUN else (0,)


def _log(folder: Path, purpose: Purpose) -> Path:
    return folder / ("log" if purpose is Purpose.RUN else f"{purpose.value}.log")


def _metric_file(commands: CommandExecutor, folder: Path, purpose: Purpose) -> Path:
    """Where the file with the metric lies after its run, or its scorer, has ended."""
    if purpose is Purpose.RUN:
        return folder / FOLDER / commands.repository.prefix / str(commands.task.metric_source.file)
    return folder / f"{purpose.value}{METRIC_FILE}"


def _keep_metric_file(commands: CommandExecutor, tree: Path, target: Path) -> None:
    """Move the file with the metric out of a scorer's tree. Links are not followed."""
    if (name := commands.task.metric_source.file) is None:
        return
    file = Path(os.path.realpath(tree)) / commands.repository.prefix / name
    if file.is_file() and Path(os.path.realpath(file)) == file:
        file.replace(target)


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
