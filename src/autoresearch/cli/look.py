"""The commands that look at a session: status, log, show, brief, report, agents, fsck.

People and agents call the first four again and again, so this module imports little, and each
command imports what it alone needs (benchmarks/start_time.py measures them).
"""

from __future__ import annotations

import argparse
import json
import time
from contextlib import closing
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from autoresearch.cli.common import (
    find_session,
    load_task,
    open_ledger,
    print_answer,
    restore_settings,
)
from autoresearch.records import Experiment, Run
from autoresearch.store.ledger import Ledger
from autoresearch.store.paths import SessionPaths, owner, running

if TYPE_CHECKING:
    from autoresearch.report.summary import Summary
    from autoresearch.task.model import Task

OUTPUT_BYTES = 4000  # of a log's end, in `show`
DISAGREES = 1  # exit code of fsck


def status(options: argparse.Namespace) -> int:
    from autoresearch.report.summary import to_json
    from autoresearch.report.text import status_text

    with open_ledger(options) as (ledger, paths):
        summary = read_summary(ledger, paths)
        is_running = owner(paths) is not None
    facts = {"running": is_running, **to_json(summary)}
    print_answer(options, facts, status_text(summary, is_running))
    return 0


def read_summary(ledger: Ledger, paths: SessionPaths, *, open_holdout: bool = False) -> Summary:
    """The session as it is now, from its ledger alone."""
    from autoresearch.report.collect import summarise

    name = paths.root.name
    return summarise(ledger, paths.tag, time.time(), task=name, open_holdout=open_holdout)


def log(options: argparse.Namespace) -> int:
    with open_ledger(options) as (ledger, paths):
        record = ledger.session(paths.tag)
        experiments = ledger.all_experiments(record)
    if options.json:
        print(json.dumps([_record_to_json(experiment) for experiment in experiments]))
    else:
        from autoresearch.report.text import log_text

        print(log_text(experiments, record.metric), end="")
    return 0


def show(options: argparse.Namespace) -> int:
    from autoresearch.git.repository import Repository

    with open_ledger(options) as (ledger, paths):
        record = ledger.session(paths.tag)
        experiment = ledger.experiment(record, options.number)
        runs = ledger.runs(record, experiment.number)
        base = ledger.experiment(record, experiment.base)
    diff = ""
    if experiment.number:
        repository = Repository(paths.root, editable=(), may_edit=lambda path: False)
        diff = repository.diff(base.commit, experiment.commit)
    # The others are runs of the incumbent, for comparison.
    own = [run for run in runs if run.commit == experiment.commit]
    output = _read_output(paths, own[-1]) if own else ""
    if options.json:
        shown = [_run_to_json(run) for run in runs]
        facts = {**_record_to_json(experiment), "runs": shown, "diff": diff, "output": output}
        print(json.dumps(facts))
    else:
        from autoresearch.report.text import show_text

        print(show_text(experiment, runs, diff, output, record.metric), end="")
    return 0


def _record_to_json(record: Experiment | Run) -> dict[str, Any]:
    return {field.name: getattr(record, field.name) for field in fields(record)}


def _run_to_json(run: Run) -> dict[str, Any]:
    """Without the sealed holdout's score, which only the report shows."""
    facts = _record_to_json(run) | {"numbers": dict(run.numbers)}
    del facts["holdout"]
    return facts


def _read_output(paths: SessionPaths, run: Run) -> str:
    """The end of the log that tells how the run went: the scorer's, where that failed."""
    from autoresearch.files import tail

    is_scorers = (run.reason or "").startswith("score: ")
    log = paths.runs / run.name / ("score.log" if is_scorers else "log")
    return (f"({log})\n" if is_scorers else "") + tail(log, OUTPUT_BYTES)


def brief(options: argparse.Namespace) -> int:
    with open_ledger(options) as (ledger, paths):
        text = make_briefing(ledger, load_task(options), paths)
    print_answer(options, {"tag": paths.tag, "briefing": text}, text)
    return 0


def make_briefing(ledger: Ledger, task: Task, paths: SessionPaths) -> str:
    """What an agent in a terminal reads. Another process may be writing the ledger."""
    from autoresearch.briefing import Briefer
    from autoresearch.core import limits
    from autoresearch.git.repository import Repository
    from autoresearch.interactive.instructions import your_turn

    record = ledger.session(paths.tag)
    repository = Repository(task.root, task.editable, task.may_edit)
    wanted = restore_settings(task, record).limits
    until_s = record.limits["deadline"] - time.time() if "deadline" in record.limits else None
    done = limits.read_spent(ledger, record, wanted, record.elapsed_s)
    left = limits.left(wanted, done, record.metric, until_s)
    briefing = Briefer(task, ledger, record, repository, paths).text(left)
    return briefing + your_turn(task, paths.work / repository.prefix)


def report(options: argparse.Namespace) -> int:
    from autoresearch.cli.terminal import verify
    from autoresearch.commands.report import write_report
    from autoresearch.report.summary import to_json
    from autoresearch.store.results import ResultsFile

    paths = find_session(options)
    task = load_task(options)
    if options.verify is not None:
        verify(task, paths, options.verify)
    with closing(Ledger(paths.ledger)) as ledger:
        if running(paths.root) is None:  # a session that works writes it itself
            ResultsFile(paths.results, ledger, ledger.session(paths.tag)).prepare()
        written = write_report(ledger, paths, task)
        summary = read_summary(ledger, paths, open_holdout=True)
    text = "\n".join([f"{plain_headline(summary)}\n", *written])
    print_answer(options, to_json(summary), text)
    return 0


def plain_headline(summary: Summary) -> str:
    """The report's headline without its Markdown."""
    from autoresearch.report.page import headline

    return headline(summary).replace("**", "").replace("`", "")


def agents(options: argparse.Namespace) -> int:
    from autoresearch.agents.support.availability import list_availability
    from autoresearch.report.availability import availability_text

    found = list_availability()
    print_answer(options, [asdict(agent) for agent in found], availability_text(found))
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
    return DISAGREES if left else 0
