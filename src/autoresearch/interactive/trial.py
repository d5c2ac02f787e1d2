"""An agent that already sits in a terminal calls the harness, instead of the other way round.

    start  ->  a folder with the incumbent's files  ->  the agent edits them  ->  try
           ->  the same loop, judge and record      ->  the folder holds the incumbent again

Each call is a separate process. The ledger has every experiment, so the next call finishes what a
killed one left unfinished. Two files beside it help: `work.json` records what the folder was made
from (`folder.py`), `try.json` the report on the latest try, for an agent that did not wait for it.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

from autoresearch.core import verification
from autoresearch.core.control import Stopped
from autoresearch.core.events import Warned
from autoresearch.core.history import reference
from autoresearch.core.loop import Loop
from autoresearch.core.session import Session
from autoresearch.core.turns import TurnTaker
from autoresearch.errors import Refused
from autoresearch.files import replace_file
from autoresearch.formatting import tell_apart
from autoresearch.interactive.folder import WorkFolder
from autoresearch.measure.output import last_lines
from autoresearch.protocols import Failure, Proposal, Turn
from autoresearch.records import Experiment, Status
from autoresearch.sandbox.run_policy import why_unconfined
from autoresearch.store import values
from autoresearch.store.answers import make_recordable
from autoresearch.store.paths import SessionPaths
from autoresearch.store.rows import SessionRecord
from autoresearch.task.model import Task

CONFINED_VARIABLE = "AUTORESEARCH_IS_CONFINED"  # set for the commands of a confined agent
UNCONFINED = (
    "nothing confines an agent that calls the harness from a terminal: it reads and writes what "
    "you can. "
)


def explain_unconfined(task: Task) -> str | None:
    """What to tell the user about an agent that nothing confines, and what can be done. None if
    `autoresearch confine` has started the agent that calls."""
    if CONFINED_VARIABLE in os.environ:
        return None
    if reason := why_unconfined(task, "agent"):
        return f"{UNCONFINED}`autoresearch confine` cannot either: {reason}"
    return f"{UNCONFINED}`autoresearch confine -- COMMAND` starts it under a headless agent's rules"


class Terminal:
    """The agent of a session that is used from a terminal. It calls the harness, which never asks
    it for a proposal."""

    wants_briefing = False

    def __init__(self, name: str) -> None:
        self.name = name

    def propose(self, turn: Turn) -> Proposal | Failure | None:
        return None


@dataclass(frozen=True, slots=True)
class TrialReport:
    """The report on a try. `status` is an experiment's, or "refused" (it was no experiment; the
    folder is as it was), "running", "interrupted" or "limit" (it was not begun)."""

    status: str
    description: str = ""
    experiment: int | None = None
    reason: str | None = None
    detail: str = ""
    metric: float | None = None
    flag: str | None = None  # why a person should look at this keep
    incumbent: int | None = None  # the experiment whose files the folder holds now
    score: float | None = None  # the incumbent's
    output: tuple[str, ...] = ()  # the last lines that a crashed run printed
    limit: str | None = None  # that is reached now: there is nothing more to try
    edited: bool = False  # the folder was edited meanwhile, and was left as it is
    pid: int | None = None  # of the process that wrote this report

    def save(self, paths: SessionPaths) -> None:
        facts = asdict(replace(self, pid=os.getpid()))
        replace_file(paths.latest_try, json.dumps(facts).encode())


def read_latest(paths: SessionPaths) -> TrialReport | None:
    """The report on the latest try. None if there was no try, or its report is damaged."""
    return values.read(paths.latest_try, TrialReport)


def begin(session: Session) -> None:
    """Measure the unchanged program, unless that is done, and make the folder."""
    if warning := explain_unconfined(session.task):
        session.emit(Warned(warning))
    loop = Loop(session)
    loop.begin()
    _finish_open(loop)
    WorkFolder(session).update()


def try_change(session: Session, proposal: Proposal) -> TrialReport:
    """Measure the folder's files, judge and record them, and bring the folder to the incumbent.

    Once the report "running" is saved, the files have been copied out of the folder: from then on
    the try survives the death of this process.
    """
    if warning := explain_unconfined(session.task):
        session.warn(warning)
    loop, folder = Loop(session), WorkFolder(session)
    proposal = make_recordable(proposal)
    session.paths.latest_try.unlink(missing_ok=True)
    try:
        loop.begin()
        number = _finish_open(loop)
        if number is not None and folder.state.taken == folder.hash():
            return _report_verdict(session, number)  # this is the same try again
        if limit := session.limit():
            return _end_session(session, TrialReport("limit", proposal.description, limit=limit))
        session.executor.commands.check_disk()
        folder.update()
        try:
            experiment = _start_experiment(session, folder, proposal)
        except Refused as refusal:
            return _save_report(session, _record_refusal(session, proposal, refusal))
        TrialReport("running", experiment.description, experiment.number).save(session.paths)
        _finish_experiment(loop, experiment)
    except Stopped:
        return _save_report(session, TrialReport("interrupted", proposal.description))
    return _report_verdict(session, experiment.number)


def resume_try(session: Session) -> TrialReport | None:
    """Finish a try that was cut off; None if there is none."""
    loop = Loop(session)
    try:
        loop.begin()
        number = _finish_open(loop)
    except Stopped:
        return TrialReport("interrupted")
    report = read_latest(session.paths)
    if number is None and report and report.status == "running":
        number = report.experiment  # it has a verdict, which no report names
    return None if number is None else _report_verdict(session, number)


def _finish_open(loop: Loop) -> int | None:
    """Finish the open experiments. Returns the number of the last one."""
    number = None
    for experiment in loop.session.ledger.in_flight(loop.session.record):
        number = experiment.number
        _finish_experiment(loop, experiment)
    return number


def _finish_experiment(loop: Loop, experiment: Experiment) -> None:
    """Carry an experiment out. Raises `Stopped` if it was interrupted before its verdict."""
    session = loop.session
    session.in_slots([lambda: loop.carry_out(experiment)])
    if session.ledger.experiment(session.record, experiment.number).status is None:
        raise Stopped


def _start_experiment(session: Session, folder: WorkFolder, proposal: Proposal) -> Experiment:
    """Record the folder's files as an experiment. Raises `Refused`."""
    before, base = folder.state, folder.begin_try()
    try:
        experiment = TurnTaker(session).take(session.paths.work, base, proposal)
    except Refused:
        folder.refuse_try(before)
        raise
    folder.save(replace(folder.state, commit=experiment.commit))
    return experiment


def _record_refusal(session: Session, proposal: Proposal, refusal: Refused) -> TrialReport:
    failure = Failure(refusal.reason, str(refusal), 0, proposal.tokens, proposal.usd)
    failure = make_recordable(failure)
    agent = session.scheduler.members[0].name
    session.ledger.add_turn(session.record, agent, failure, time.time())
    return TrialReport(
        "refused", proposal.description, reason=failure.reason, detail=failure.message
    )


def _report_verdict(session: Session, number: int) -> TrialReport:
    """Bring the folder to the incumbent, unless it was edited since, and report the verdict."""
    experiment = session.ledger.experiment(session.record, number)
    output: tuple[str, ...] = ()
    if experiment.status is Status.CRASH:
        runs = session.ledger.runs(session.record, number)
        # The scorer's log may quote hidden files. Then this is what the run itself printed.
        is_score = (experiment.reason or "").startswith("score: ") and not session.task.hidden
        log = "score.log" if is_score else "log"
        output = last_lines(session.paths.runs / runs[-1].name / log) if runs else ()
    report = TrialReport(
        status=str(experiment.status),
        description=experiment.description,
        experiment=number,
        reason=experiment.reason,
        detail=experiment.detail,
        metric=experiment.metric,
        flag=experiment.flag,
        output=output,
        edited=WorkFolder(session).end_try(experiment.commit),
    )
    if limit := session.limit():
        return _end_session(session, replace(report, limit=limit))
    return _save_report(session, report)


def _end_session(session: Session, report: TrialReport) -> TrialReport:
    """A limit is reached: measure the result again, once."""
    with suppress(Stopped):
        verification.verify(session)
        session.update(stopped=report.limit)
    return _save_report(session, report)


def _save_report(session: Session, report: TrialReport) -> TrialReport:
    """Add the incumbent to the report, and save it."""
    best = session.ledger.incumbent(session.record)
    score = reference(session.ledger, session.record, best).score
    report = replace(report, incumbent=best.number, score=score)
    report.save(session.paths)
    session.tick()
    return report


def text(report: TrialReport, record: SessionRecord) -> str:
    """Describe the report for people and for agents."""
    name = record.metric.name
    number = "" if report.experiment is None else f" experiment {report.experiment}"
    numbers = tell_apart(report.metric or 0.0, report.score or 0.0)
    metric = "" if report.metric is None else f", {name} {numbers[0]}"
    reason = f" ({report.reason})" if report.reason else ""
    lines = [f"{report.status}{number}{reason}{metric}: {report.description}"]
    if report.detail:
        lines.append(report.detail)
    if report.flag:
        lines.append(f"flagged: {report.flag}")
    if report.output:
        lines += ["the end of its output:", *(f"    | {line}" for line in report.output)]
    if report.score is not None:
        incumbent = f"experiment {report.incumbent}, {name} {numbers[1]}"
        if report.edited:
            lines.append(
                f"the incumbent is {incumbent}; the folder was edited meanwhile and left as it "
                "is: your next try is what was edited since"
            )
        elif report.status not in ("refused", "interrupted"):
            lines.append(f"the folder holds the incumbent, {incumbent}")
    if report.reason == "conflict":
        lines.append(
            "way out: `git checkout .` in the folder and edit again, or save your edit, remove the "
            "folder, and let `autoresearch start` make it again with the incumbent's files"
        )
    if report.status == "refused":
        lines.append(
            "that was no experiment, but ten such turns count as one; the folder is as you left "
            "it: mend it and try again"
        )
    if report.limit:
        lines.append(f"{report.limit}: stop here. `autoresearch report` shows the result")
    return "\n".join(lines)


def to_json(report: TrialReport) -> dict[str, Any]:
    """The facts of a report, without those that are absent."""
    return {
        key: value
        for key, value in asdict(report).items()
        if key != "pid" and value is not None and value is not False and value not in ("", ())
    }
