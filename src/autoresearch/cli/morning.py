"""The commands of the morning after: verify, finish, export, import."""

from __future__ import annotations

import argparse
import math
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from autoresearch import exports
from autoresearch.cli.common import INTERRUPTED, find_session, load_task, print_answer
from autoresearch.cli.look import get_headline, read_summary
from autoresearch.cli.terminal import resume_session
from autoresearch.commands.ablate import ablate, ablation_text, read_ablation, read_reduced_gain
from autoresearch.commands.export import export_session
from autoresearch.commands.finish import branch_text, list_chain, make_branch
from autoresearch.commands.importing import import_log
from autoresearch.core.control import Stopped
from autoresearch.core.loop import Loop
from autoresearch.core.verification import compare
from autoresearch.core.verification import verify as measure_again
from autoresearch.errors import TaskError
from autoresearch.formatting import counted
from autoresearch.git.repository import Repository
from autoresearch.records import Role
from autoresearch.report.reaches import reached_text, read_reached
from autoresearch.store.ledger import Ledger
from autoresearch.store.lock import find_owner
from autoresearch.store.paths import SessionPaths
from autoresearch.store.rows import SessionRecord
from autoresearch.task.model import Task


def verify(options: argparse.Namespace) -> int:
    record, paths = find_session(options)
    if not options.ablate and (options.hours is not None or options.least is not None):
        raise TaskError("--hours and --least belong to --ablate")
    if options.hours is not None and not options.hours > 0:
        raise TaskError(f"--hours {options.hours:g}: more than 0 is accepted")
    if options.least is not None and not options.least > 0:
        raise TaskError(f"--least {options.least:g}: more than 0 is accepted")
    if options.reaches is not None:
        return _verify_reach(options, record, paths)
    budget = Budget(options.hours, options.least) if options.ablate else None
    is_whole = verify_session(load_task(options), record, options.runs, budget)
    with closing(Ledger(paths.ledger)) as ledger:
        summary = read_summary(ledger, paths)
        lines = [get_headline(summary)]
        facts: dict[str, Any] = {"verification": None, "ablation": None}
        if summary.verification is not None:
            facts["verification"] = asdict(summary.verification)
        if summary.deterministic:
            lines.append(
                "The task is deterministic: one run of each is all that there is to repeat"
            )
        if options.ablate:
            ablation = read_ablation(ledger, record, _open(paths), options.least)
            facts["ablation"] = asdict(ablation)
            lines.append(ablation_text(ablation, record, summary.typical_run_s))
    if not is_whole:
        lines.append("It was interrupted: the same command goes on")
    print_answer(options, facts, "\n".join(lines))
    return 0 if is_whole else INTERRUPTED


def _verify_reach(options: argparse.Namespace, record: SessionRecord, paths: SessionPaths) -> int:
    """Make the runs that verify the result, and count those that reach a score."""
    if options.ablate:
        raise TaskError("--reaches and --ablate: one at a time")
    if not math.isfinite(options.reaches):
        raise TaskError(f"--reaches {options.reaches}: accepted is a finite number")
    is_whole = verify_session(load_task(options), record, options.runs, needs_keep=False)
    with closing(Ledger(paths.ledger)) as ledger:
        record = ledger.session(record.tag)  # it may not be deterministic any more
        reached = read_reached(ledger, record, options.reaches)
    lines = [reached_text(reached, record, options.reaches)]
    if record.deterministic:
        lines.append("The task is deterministic: every seed gives the same number")
    if not is_whole:
        lines.append("It was interrupted: the same command goes on")
    facts = {"score": options.reaches, "reached": [asdict(side) for side in reached]}
    print_answer(options, facts, "\n".join(lines))
    return 0 if is_whole else INTERRUPTED


@dataclass(frozen=True, slots=True)
class Budget:
    """Of an ablation."""

    hours: float | None
    least: float | None  # gain worth keeping, in metric units


def verify_session(
    task: Task,
    record: SessionRecord,
    runs: int | None,
    ablation: Budget | None = None,
    *,
    needs_keep: bool = True,
) -> bool:
    """Measure a session's result again: `runs` runs of the baseline and of the best in all. If
    nothing was kept, it is an error, or else the baseline alone is run. Returns whether it was not
    interrupted."""
    if runs is not None and runs < 2:
        raise TaskError(f"{runs} runs: at least 2 of each version are needed")
    with closing(Ledger(SessionPaths(task.root, record.tag).ledger)) as ledger:
        if needs_keep:
            list_chain(ledger, record)  # or there is nothing to verify
    with resume_session(task, record, "terminal") as session:
        stopped = session.record.stopped
        wanted = runs or task.judge.baseline_runs
        try:
            Loop(session).begin()
            measure_again(session, wanted)
            if (best := session.ledger.incumbent(session.record)).number == 0:
                commits = [(Role.VERIFY_BASELINE, best.commit)]
                compare(session, best, commits, 1 if session.record.deterministic else wanted)
            if ablation is not None and session.stopping is None:
                rounds = 1 if session.record.deterministic else wanted
                ablate(session, rounds, ablation.hours, ablation.least)
        except Stopped:
            pass
        session.update(stopped=stopped)
        return session.stopping is None


def _open(paths: SessionPaths) -> Repository:
    return Repository(paths.root, editable=(), may_edit=lambda path: False)


def finish(options: argparse.Namespace) -> int:
    record, paths = find_session(options)
    is_running = find_owner(paths) is not None
    repository = _open(paths)
    with closing(Ledger(paths.ledger)) as ledger:
        without = options.without or ()
        made = make_branch(
            ledger,
            record,
            repository,
            name=options.branch,
            squash=options.squash,
            without=without,
        )
        summary = read_summary(ledger, paths)
        measured = read_reduced_gain(ledger, record, repository, without) if without else None
    facts = {**asdict(made), "running": is_running, "pushed": False}
    text = branch_text(made, summary, is_running=is_running, reduced=measured)
    print_answer(options, facts, text)
    return 0


def export(options: argparse.Namespace) -> int:
    _, paths = find_session(options)
    module = exports.load(options.format)
    folder = (
        Path(options.to).expanduser().absolute() if options.to else paths.exports / options.format
    )
    count = export_session(paths, options.format, folder)
    lines = [f"written: {counted(count, 'experiment')} to {folder}"]
    if look := getattr(module, "LOOK", ""):
        lines.append(f"look: {look.format(folder=folder)}")
    facts = {
        "tag": paths.tag,
        "format": options.format,
        "folder": str(folder),
        "experiments": count,
    }
    print_answer(options, facts, "\n".join(lines))
    return 0


def import_nights(options: argparse.Namespace) -> int:
    nights = import_log(load_task(options), Path(options.file), options.tag)
    facts = [{"tag": night.tag, "experiments": len(night.experiments)} for night in nights]
    print_answer(options, facts, "\n".join(f"{night.tag}: {night}" for night in nights))
    return 0
