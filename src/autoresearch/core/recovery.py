"""What a session does first: mend what a kill left behind, from the ledger alone."""

from __future__ import annotations

from contextlib import suppress

from autoresearch.core.publisher import Publisher
from autoresearch.core.session import Session
from autoresearch.files import clear_path
from autoresearch.measure.execution import Interrupted
from autoresearch.records import Status
from autoresearch.store.published import remove_drafts


def recover(session: Session, publisher: Publisher) -> None:
    """Record runs that ended unseen, forget runs that were cut off, remove leftovers, and make
    refs, branch and `results.tsv` agree with the ledger."""
    session.executor.end_leftovers()
    session.repository.refs.break_locks(session.record.tag)
    remove_drafts(session.paths)
    _settle_open_runs(session)
    for folder in (session.paths.trees, session.paths.turns, session.paths.temporary):
        clear_path(folder)
    _restore_refs(session, publisher)
    publisher.results.prepare()
    session.update(stopped=None)


def _settle_open_runs(session: Session) -> None:
    ledger, record = session.ledger, session.record
    for run in ledger.open_runs(record):
        if session.executor.ended_unseen(run):
            with suppress(Interrupted):  # while it was scored: the next request makes the rest
                session.executor.measure(run, session.is_disturbed)
        else:
            clear_path(session.paths.runs / run.name)  # first: its number is given out again
            ledger.forget_run(run)
    session.executor.remove_recorded(ledger.open_runs(record))


def _restore_refs(session: Session, publisher: Publisher) -> None:
    repository, record = session.repository, session.record
    experiments = session.ledger.all_experiments(record)
    for experiment in experiments:
        repository.refs.keep(record.tag, experiment.number, experiment.commit)
        if experiment.number == 0 and experiment.status is Status.KEEP:
            publisher.move_branch(experiment)
    for ref in repository.refs.leftovers(record.tag, len(experiments)):
        repository.refs.drop(ref)
