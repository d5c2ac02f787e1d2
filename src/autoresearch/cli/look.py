"""The commands that look at a session: status, log, show, diff, brief, report, agents, fsck.

People and agents call the first four again and again, so this module imports little, and each
command imports what it alone needs (benchmarks/start_time.py measures them).
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from autoresearch.cli.colour import has_colour, paint
from autoresearch.cli.common import (
    find_root,
    find_session,
    load_task,
    open_ledger,
    print_answer,
    restore_settings,
)
from autoresearch.errors import TaskError
from autoresearch.formatting import printable
from autoresearch.records import Experiment, Metric, Run
from autoresearch.store.imported import find_night, read_nights
from autoresearch.store.ledger import Ledger
from autoresearch.store.lock import find_owner, find_running
from autoresearch.store.paths import SessionPaths

if TYPE_CHECKING:
    from autoresearch.git.repository import Repository
    from autoresearch.measure.scratch import ScratchRun
    from autoresearch.report.summary import Summary
    from autoresearch.store.rows import SessionRecord
    from autoresearch.task.model import Task

OUTPUT_BYTES = 4000  # of a log's end, in `show`
EXIT_DISAGREES = 1  # of fsck


def status(options: argparse.Namespace) -> int:
    from autoresearch.report.summary import to_json
    from autoresearch.report.text import get_styles, list_status, status_text

    with open_ledger(options) as (ledger, _, paths):
        summary = read_summary(ledger, paths)
        is_running = find_owner(paths) is not None
    nights = [f"{night.tag}: {night}" for night in read_nights(paths.root)]
    facts = {"running": is_running, **to_json(summary), "imported": nights}
    if options.json or not has_colour():
        text = status_text(summary, is_running) + "".join(f"imported   {n}\n" for n in nights)
        print_answer(options, facts, text)
        return 0
    styles = get_styles(summary)
    lines = [*list_status(summary, is_running), *(("imported", night) for night in nights)]
    for label, text in lines:
        print(paint([(f"{label:<9}  ", "dim"), (printable(text), styles.get(label, ""))]))
    return 0


def read_summary(ledger: Ledger, paths: SessionPaths, **facts: Any) -> Summary:
    """Summarise the session as it is now, from its ledger. `facts` are as for `summarise`."""
    from autoresearch.report.collect import summarise

    return summarise(ledger, paths.tag, time.time(), **facts)


def log(options: argparse.Namespace) -> int:
    from autoresearch.report.experiments import list_log, log_text

    if options.scratch:
        return _log_scratch(options)
    heading = ""
    if (night := find_night(find_root(options), options.tag)) is not None:
        experiments, metric = night.list_experiments(), night.metric
        heading = f"{night.tag}, from {night.source}: {night}\n"
    else:
        with open_ledger(options) as (ledger, record, _):
            experiments, metric = ledger.all_experiments(record), record.metric
    facts = [_to_json(experiment) for experiment in experiments]
    if options.json or not has_colour():
        print_answer(options, facts, heading + log_text(experiments, metric))
        return 0
    print(paint([(printable(heading), "yellow")]), end="")
    for line, style in list_log(experiments, metric):
        print(paint([(printable(line), style)]))
    return 0


def _log_scratch(options: argparse.Namespace) -> int:
    from autoresearch.measure.scratch import read_scratch
    from autoresearch.report.experiments import scratch_text

    with open_ledger(options) as (ledger, record, paths):
        scratch = read_scratch(ledger, record, _open_repository(paths))
    facts = _describe_scratch(options, scratch)
    print_answer(options, facts, scratch_text(scratch, record.metric))
    return 0


def _describe_scratch(
    options: argparse.Namespace, scratch: Sequence[ScratchRun]
) -> list[dict[str, Any]]:
    runs = _runs_to_json(options, [each.run for each in scratch])
    return [
        {"scratch": each.number, "on": each.base, "description": each.description, **run}
        for each, run in zip(scratch, runs, strict=True)
    ]


def _open_repository(paths: SessionPaths) -> Repository:
    """The task's repository, to read commits."""
    from autoresearch.git.repository import Repository

    return Repository(paths.root, editable=(), may_edit=lambda path: False)


def show(options: argparse.Namespace) -> int:
    from autoresearch.report.experiments import show_text

    with open_ledger(options) as (ledger, record, paths):
        if options.number.startswith("s"):
            return _show_scratch(options, ledger, record, paths)
        experiment = ledger.experiment(record, int(options.number))
        runs = ledger.runs(record, experiment.number)
        base = ledger.experiment(record, experiment.base)
    own = [run for run in runs if run.commit == experiment.commit]  # the others: the incumbent's
    if options.file:
        return _print_file(options, paths, own)
    diff = ""
    if experiment.number:
        diff = _open_repository(paths).diff(base.commit, experiment.commit)
    output = _read_output(options, paths, own[-1]) if own else ""
    facts: dict[str, Any] = {
        "runs": _runs_to_json(options, runs),
        "diff": diff,
        "output": output,
        **_read_traces(options, paths, own, record.metric),
    }
    text = show_text(experiment, runs, diff, output, record.metric)
    print_answer(options, _to_json(experiment) | facts, text)
    return 0


def _show_scratch(
    options: argparse.Namespace, ledger: Ledger, record: SessionRecord, paths: SessionPaths
) -> int:
    from autoresearch.measure.scratch import find_scratch
    from autoresearch.report.experiments import show_scratch_text

    repository = _open_repository(paths)
    scratch = find_scratch(ledger, record, repository, int(options.number[1:]))
    if options.file:
        return _print_file(options, paths, [scratch.run])
    base = ledger.experiment(record, scratch.base)
    diff = repository.diff(base.commit, scratch.run.commit)
    output = _read_output(options, paths, scratch.run)
    facts = {
        **_describe_scratch(options, [scratch])[0],
        "diff": diff,
        "output": output,
        **_read_traces(options, paths, [scratch.run], record.metric),
    }
    print_answer(options, facts, show_scratch_text(scratch, diff, output, record.metric))
    return 0


def _read_traces(
    options: argparse.Namespace, paths: SessionPaths, runs: list[Run], metric: Metric
) -> dict[str, Any]:
    """For programs: the curves that the latest of these runs printed, and the files it left."""
    if not options.json or not runs:
        return {}
    from autoresearch.briefing.logs import find_curves, read_ends
    from autoresearch.measure.artifacts import list_artefacts

    folder = paths.runs / runs[-1].name
    return {
        "curves": [asdict(c) for c in find_curves(read_ends(folder / "log"), metric.name)],
        "files": [{"path": path, "bytes": size} for path, size in list_artefacts(folder)],
    }


def _print_file(options: argparse.Namespace, paths: SessionPaths, runs: list[Run]) -> int:
    """Print a file that the latest of these runs left."""
    from autoresearch.measure.artifacts import read_artefact

    if not runs:
        raise TaskError(f"show {options.number}: it has no run, and so no files")
    text = read_artefact(paths.runs / runs[-1].name, options.file)
    print_answer(options, {"path": options.file, "text": text}, text)
    return 0


def diff(options: argparse.Namespace) -> int:
    with open_ledger(options) as (ledger, record, paths):
        repository = _open_repository(paths)
        first, second = (
            _find_commit(ledger, record, repository, number)
            for number in (options.first, options.second)
        )
    text = repository.diff(first, second)
    facts = {"first": options.first, "second": options.second, "diff": text}
    print_answer(options, facts, text or "the files are the same")
    return 0


def _find_commit(ledger: Ledger, record: SessionRecord, repository: Repository, number: str) -> str:
    if not number.startswith("s"):
        return ledger.experiment(record, int(number)).commit
    from autoresearch.measure.scratch import find_scratch

    return find_scratch(ledger, record, repository, int(number[1:])).run.commit


def _to_json(record: Experiment | Run) -> dict[str, Any]:
    """Convert to JSON, without the sealed holdout's score, which only the report shows."""
    names = (field.name for field in fields(record) if field.name != "holdout")
    return {name: getattr(record, name) for name in names}


def _runs_to_json(options: argparse.Namespace, runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Convert to JSON. If the task has hidden files, an agent is told nothing that a scorer printed
    but the metric."""
    facts = [_to_json(run) for run in runs]
    if not _withholds_scorers(options):
        return facts
    return [
        {name: fact for name, fact in run.items() if not name.startswith(("numbers", "holdout"))}
        for run in facts
    ]


def _withholds_scorers(options: argparse.Namespace) -> bool:
    """Whether the output goes to an agent, and the task has hidden files."""
    from autoresearch.interactive.verdict import AGENT_VARIABLE

    return AGENT_VARIABLE in os.environ and bool(load_task(options).hidden)


def _read_output(options: argparse.Namespace, paths: SessionPaths, run: Run) -> str:
    """Read the end of the log that tells how the run went: the scorer's, if the scorer failed. An
    agent is not told that if the scorer has hidden files."""
    from autoresearch.files import tail

    folder = paths.runs / run.name
    if (run.reason or "").startswith("score: "):
        if _withholds_scorers(options):
            from autoresearch.interactive.verdict import WITHHELD

            return f"{WITHHELD}\n{tail(folder / 'log', OUTPUT_BYTES)}"
        log = folder / "score.log"
        return f"({log})\n{tail(log, OUTPUT_BYTES)}"
    return tail(folder / "log", OUTPUT_BYTES)


def brief(options: argparse.Namespace) -> int:
    with open_ledger(options) as (ledger, _, paths):
        text = make_briefing(ledger, load_task(options), paths)
    print_answer(options, {"tag": paths.tag, "briefing": text}, text)
    return 0


def make_briefing(ledger: Ledger, task: Task, paths: SessionPaths) -> str:
    """Make the briefing of an agent in a terminal. Another process may be writing the ledger."""
    from autoresearch.briefing import Briefer
    from autoresearch.core import limits
    from autoresearch.git.repository import Repository
    from autoresearch.interactive.instructions import your_turn
    from autoresearch.store import queries

    record = ledger.session(paths.tag)
    repository = Repository(task.root, task.editable, task.may_edit)
    task = restore_settings(task, record)
    until_s = record.limits["deadline"] - time.time() if "deadline" in record.limits else None
    spent = limits.read_spent(ledger, record, task.limits, record.elapsed_s)
    left = limits.left(task.limits, spent, record.metric, until_s)
    briefing = Briefer(task, ledger, record, repository, paths).text(left)
    scratch_left = task.limits.scratch - queries.count_scratch_runs(ledger, record)
    return briefing + your_turn(task, paths.work / repository.prefix, max(0, scratch_left))


def report(options: argparse.Namespace) -> int:
    from autoresearch.commands.report import write_report
    from autoresearch.report.summary import to_json
    from autoresearch.store.results import ResultsFile

    record, paths = find_session(options)
    task = load_task(options)
    if options.verify is not None:
        from autoresearch.cli.morning import verify_session

        verify_session(task, record, options.verify)
    with closing(Ledger(paths.ledger)) as ledger:
        if find_running(paths.root) is None:  # a session that works writes it itself
            ResultsFile(paths.results, ledger, record).prepare()
        written = write_report(ledger, paths, task, has_html=options.html)
        summary = read_summary(ledger, paths, open_holdout=True)
    text = "\n".join([f"{get_headline(summary)}\n", *written])
    print_answer(options, to_json(summary), text)
    return 0


def get_headline(summary: Summary) -> str:
    """The report's headline without its Markdown."""
    from autoresearch.report.page import make_plain_headline

    return make_plain_headline(summary)


def agents(options: argparse.Namespace) -> int:
    from autoresearch.agents.support.availability import list_availability
    from autoresearch.report.availability import availability_text

    agents = list_availability()
    print_answer(options, [asdict(agent) for agent in agents], availability_text(agents))
    return 0


def fsck(options: argparse.Namespace) -> int:
    from autoresearch.commands.fsck import audit, findings_text, repair

    task = load_task(options)
    repaired = repair(task, options.tag) if options.repair else []
    left = audit(task, options.tag)
    facts = {
        "findings": [finding.to_json() for finding in left],
        "repaired": [finding.to_json() for finding in repaired],
    }
    print_answer(options, facts, findings_text(left, repaired))
    return EXIT_DISAGREES if left else 0
