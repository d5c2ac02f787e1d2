"""An agent that already sits in a terminal calls the harness, instead of the other way round.

    start  ->  a folder with the incumbent's files  ->  the agent edits them  ->  try
           ->  the same loop, judge and record      ->  the folder holds the incumbent again

Each call is a separate process. The ledger has every experiment, so the next call finishes what a
killed one left unfinished. Two files beside it help: `work.json` records what the folder was made
from (`folder.py`), `try.json` the report on the latest try, for an agent that did not wait for it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from autoresearch.briefing.plateau import PLATEAU
from autoresearch.core import verification
from autoresearch.core.control import Stopped
from autoresearch.core.events import Warned
from autoresearch.core.history import reference
from autoresearch.core.loop import Loop
from autoresearch.core.session import Session
from autoresearch.core.turns import TurnTaker
from autoresearch.errors import Refused, TaskError
from autoresearch.interactive.folder import WorkFolder
from autoresearch.interactive.verdict import WITHHELD, TrialReport, read_latest
from autoresearch.measure.artifacts import list_artefacts
from autoresearch.measure.output import last_lines
from autoresearch.protocols import Failure, Proposal, Turn
from autoresearch.records import Experiment, Run, Status
from autoresearch.sandbox.run_policy import why_unconfined
from autoresearch.store.answers import make_recordable
from autoresearch.task.model import Task

KEEPS_SHOWN = 10  # the latest, in a message
FILES_SHOWN = 10  # of those that a run left
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


def begin(session: Session, origin: int | None = None) -> None:
    """Measure the unchanged program, unless that is done, and make the folder: with the incumbent's
    files, or with those of the keep `origin`. An edit in the folder stays. Raises `TaskError`."""
    if warning := explain_unconfined(session.task):
        session.emit(Warned(warning))
    loop = Loop(session)
    loop.begin()
    _finish_open(loop)
    folder = WorkFolder(session)
    if origin is None:
        folder.leave_origin()
        folder.update()
        return
    try:
        folder.branch(find_keep(session, origin))
    except Refused as refusal:
        raise TaskError(f"start --from {origin}: {refusal}") from None


def find_keep(session: Session, number: int) -> Experiment:
    """The kept experiment of that number, or the baseline. Raises `TaskError` if it was not
    kept."""
    keeps = {keep.number: keep for keep in session.ledger.keeps(session.record)}
    if number not in keeps:
        latest = ", ".join(map(str, sorted(keeps)[-KEEPS_SHOWN:]))
        raise TaskError(f"--from {number}: accepted is an experiment that was kept: {latest}")
    return keeps[number]


def try_change(session: Session, proposal: Proposal, origin: int | None = None) -> TrialReport:
    """Measure the folder's files, judge and record them, and bring the folder to the incumbent.
    With `origin`, they are first moved onto that keep.

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
        if number is not None:
            if folder.state.taken == folder.hash():
                return _report_verdict(session, number)  # this is the same try again
            folder.end_try(session.ledger.experiment(session.record, number).commit)
        if limit := session.limit():
            return _end_session(session, TrialReport("limit", proposal.description, limit=limit))
        session.executor.commands.check_disk()
        folder.update()
        keep = None if origin is None else find_keep(session, origin)
        undo: Callable[[], None] | None = None
        try:
            if keep is not None:
                undo = folder.branch(keep)
            experiment = _start_experiment(session, folder, proposal)
        except Refused as refusal:
            if undo is not None:
                undo()
            return save_report(session, _record_refusal(session, proposal, refusal))
        TrialReport("running", experiment.description, experiment.number).save(session.paths)
        _finish_experiment(loop, experiment)
    except Stopped:
        return save_report(session, TrialReport("interrupted", proposal.description))
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
    if before.origin is not None:
        description = f"from #{before.origin}: {proposal.description}"
        proposal = replace(proposal, description=description)
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
    runs = session.ledger.runs(session.record, number)
    own = [run for run in runs if run.commit == experiment.commit and run.finished]
    output = read_output(session, runs[-1]) if runs and experiment.status is Status.CRASH else ()
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
        gain=_measure_gain(session, experiment),
        base=experiment.base,
        advice=_advise(session),
    )
    if own:
        report = add_usage(session, report, own[-1])
    if limit := session.limit():
        return _end_session(session, replace(report, limit=limit))
    return save_report(session, report)


def _measure_gain(session: Session, experiment: Experiment) -> float | None:
    """The gain over the score of the experiment that it is built on, in metric units."""
    base = session.ledger.experiment(session.record, experiment.base)
    bar = reference(session.ledger, session.record, base)
    if experiment.metric is None or not bar.scores:
        return None
    return session.record.metric.gain(experiment.metric, bar.score)


def _advise(session: Session) -> str:
    """What to do when there was no keep for long. Empty in between."""
    length = session.ledger.since_keep(session.record)
    if not length or length % PLATEAU:
        return ""
    return (
        f"no keep for {length} experiments: more of the same is unlikely to help. `autoresearch "
        "brief` proposes another direction, and `autoresearch start --from N` goes back to a keep"
    )


def add_usage(session: Session, report: TrialReport, run: Run) -> TrialReport:
    """Add what a run took, and the names and sizes of the files that it left."""
    files = list_artefacts(session.paths.runs / run.name)
    names = [f"{path} ({count:,} bytes)" for path, count in files[:FILES_SHOWN]]
    if len(files) > FILES_SHOWN:
        names.append(f"and {len(files) - FILES_SHOWN} more")
    return replace(report, wall_s=run.wall_s, cpu_s=run.cpu_s, files=tuple(names))


def read_output(session: Session, run: Run) -> tuple[str, ...]:
    """The end of what a run printed, or of what its scorer printed if that failed. A scorer may
    quote hidden files: then the run's own output is all that an agent is told."""
    folder = session.paths.runs / run.name
    if not (run.reason or "").startswith("score: "):
        return last_lines(folder / "log")
    if session.task.hidden:
        return (WITHHELD, *last_lines(folder / "log"))
    return last_lines(folder / "score.log")


def _end_session(session: Session, report: TrialReport) -> TrialReport:
    """A limit is reached: measure the result again, once."""
    with suppress(Stopped):
        verification.verify(session)
        session.update(stopped=report.limit)
    return save_report(session, report)


def save_report(session: Session, report: TrialReport) -> TrialReport:
    """Add the incumbent to the report, and save it."""
    best = session.ledger.incumbent(session.record)
    score = reference(session.ledger, session.record, best).score
    report = replace(report, incumbent=best.number, score=score)
    report.save(session.paths)
    session.tick()
    return report
