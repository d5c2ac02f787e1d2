"""A scratch run measures what the agent's folder holds, once, as a run is measured. Nothing depends
on its number: no verdict, no score, no noise. It is no experiment, and has a budget of its own.

It shows the agent one more score by the same scorer, so `[limits] scratch` also bounds how often an
agent looks at hidden data beside its tries. The sealed holdout does not score it.
"""

from __future__ import annotations

from autoresearch.core.control import Stopped
from autoresearch.core.history import reference
from autoresearch.core.loop import Loop
from autoresearch.core.session import Session
from autoresearch.errors import Refused, TaskError
from autoresearch.formatting import counted
from autoresearch.git.messages import write_message
from autoresearch.interactive.folder import WorkFolder
from autoresearch.interactive.trial import (
    add_usage,
    explain_unconfined,
    read_output,
    save_report,
)
from autoresearch.interactive.verdict import TrialReport
from autoresearch.measure.output import last_lines
from autoresearch.protocols import Proposal
from autoresearch.records import Role, Run
from autoresearch.store import queries
from autoresearch.store.answers import make_recordable


def run_scratch(session: Session, proposal: Proposal) -> TrialReport:
    """Measure the folder's files once, and report the number. Raises `TaskError` while a try that
    was cut off is unfinished."""
    if warning := explain_unconfined(session.task):
        session.warn(warning)
    proposal = make_recordable(proposal)
    session.paths.latest_try.unlink(missing_ok=True)
    loop, number = Loop(session), None
    try:
        loop.begin()
        if session.ledger.in_flight(session.record):
            raise TaskError("a try was cut off: `autoresearch wait` finishes it; then try again")
        if limit := session.limit():
            session.update(stopped=limit)
            return save_report(session, TrialReport("limit", proposal.description, limit=limit))
        session.executor.commands.check_disk()
        try:
            number = _take_number(session)
            commit = _commit(session, proposal, number)
        except Refused as refusal:
            return save_report(session, _describe_refusal(session, proposal, refusal))
        TrialReport("running", proposal.description, scratch=number).save(session.paths)
        run = _make_run(session, number, commit)
    except Stopped:
        return report_cut_off(session, number)
    loop.publisher.release_artifacts(session.ledger.experiment(session.record, run.experiment))
    return report_run(session, run)


def resume_scratch(session: Session, number: int) -> TrialReport:
    """Settle the scratch run of that number, which was cut off."""
    try:
        Loop(session).begin()
    except Stopped:
        return TrialReport("interrupted")
    return report_cut_off(session, number)


def report_cut_off(session: Session, number: int | None) -> TrialReport:
    """The report on a scratch run that was cut off: its metric if it had ended all the same.
    `number` is None if it was not begun."""
    for run in queries.list_scratch_runs(session.ledger, session.record):
        if run.index == number:
            return report_run(session, run)
    if number is not None:
        refs = session.repository.refs
        refs.drop(refs.name_scratch(session.record.tag, number))
    return save_report(session, TrialReport("lost"))


def _take_number(session: Session) -> int:
    """The number of the next scratch run, from 1. Raises `Refused` if the budget is spent."""
    number = queries.count_scratch_runs(session.ledger, session.record) + 1
    budget = session.task.limits.scratch
    if number > budget:
        spent = f"the session's {counted(budget, 'scratch run')} are spent"
        raise Refused(
            "scratch budget",
            f"{spent if budget else '[limits] scratch = 0 allows no scratch runs'}: "
            "`autoresearch try` measures and judges a change. The user can allow more: "
            "`autoresearch start --scratch N`",
        )
    return number


def _commit(session: Session, proposal: Proposal, number: int) -> str:
    """Make a commit of what the folder holds. Raises `Refused` for what the harness does not
    run."""
    folder = WorkFolder(session)
    folder.update()
    base, changes = folder.read_edit()
    agent = session.scheduler.members[0].name
    message = write_message(proposal, session.record.tag, agent)
    message += f"Autoresearch-Scratch: {number}\n"
    commit = session.repository.commit(base, changes, message)
    session.repository.refs.keep_scratch(session.record.tag, number, commit)
    return commit


def _make_run(session: Session, number: int, commit: str) -> Run:
    """Make the run, again if the environment changes meanwhile. Raises `Stopped`."""
    owner = session.ledger.incumbent(session.record)
    runs: list[Run] = []

    def make() -> None:
        segment = session.segments.refresh()
        name = (owner.number, owner.attempt, Role.SCRATCH, number)
        runs.append(session.make(*name, commit, segment))

    while not runs:
        session.in_slots([make])
        if not runs and session.stopping is not None:
            raise Stopped
    return runs[0]


def _describe_refusal(session: Session, proposal: Proposal, refusal: Refused) -> TrialReport:
    return TrialReport(
        "refused",
        proposal.description,
        reason=refusal.reason,
        detail=str(refusal),
        left=_count_left(session),
    )


def report_run(session: Session, run: Run) -> TrialReport:
    """Report a finished scratch run."""
    ledger, record = session.ledger, session.record
    bar = reference(ledger, record, ledger.incumbent(record))
    own = last_lines(session.paths.runs / run.name / "log")
    report = TrialReport(
        "crash" if run.metric is None else "scratch",
        session.repository.get_subject(run.commit),
        scratch=run.index,
        reason=run.reason,
        metric=run.metric,
        gain=None if run.metric is None else record.metric.gain(run.metric, bar.score),
        sd=bar.sd if bar.df and bar.sd else None,
        output=read_output(session, run) if run.metric is None else own,
        left=_count_left(session),
    )
    return save_report(session, add_usage(session, report, run))


def _count_left(session: Session) -> int:
    count = queries.count_scratch_runs(session.ledger, session.record)
    return max(0, session.task.limits.scratch - count)
