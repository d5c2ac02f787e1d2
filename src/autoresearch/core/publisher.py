"""What follows from the ledger: the branch, `results.tsv`, and which artefacts stay on the disk."""

from __future__ import annotations

import threading
from pathlib import Path

from autoresearch.core.session import Session
from autoresearch.measure.artifacts import ArtefactLimit
from autoresearch.records import UNSELECTED, Experiment, Status
from autoresearch.store.results import ResultsFile


class Publisher:
    """Publishes finished experiments. Hold `lock` from the ledger's transaction to the end of
    `publish`, so that lines and branches appear in the order of the verdicts."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.lock = threading.Lock()
        self.results = ResultsFile(session.paths.results, session.ledger, session.record)
        keep_bytes = session.task.runner.keep_outputs_bytes
        self._artefacts = ArtefactLimit(session.paths, keep_bytes, self._must_stay)

    def publish(self, done: Experiment) -> None:
        """Let the branch, the results and the disk follow a finished experiment."""
        self.move_branch(done)
        self.results.append(done)
        self.release_artifacts(done)
        self._session.repository.tidy(done.order or 0)

    def move_branch(self, done: Experiment) -> None:
        """Point the session's branch at a new incumbent."""
        if done.status is not Status.KEEP:
            return
        session, record = self._session, self._session.record
        ours = {record.base_commit, *(keep.commit for keep in session.ledger.keeps(record))}
        best = session.ledger.incumbent(record)
        if warning := session.repository.refs.move_best(record.tag, best.commit, ours):
            session.warn(warning)

    def release_artifacts(self, done: Experiment) -> None:
        """Count the artefacts of a decided experiment's runs, and drop what is over the limit."""
        self._artefacts.add(self._session.ledger.runs(self._session.record, done.number))

    def _must_stay(self, folder: Path) -> bool:
        """Whether a run's artefacts stay whatever the limit: those of a keep's first fresh run."""
        ledger, record = self._session.ledger, self._session.record
        number = int(folder.parent.name)
        if ledger.experiment(record, number).status is not Status.KEEP:
            return False
        runs = ledger.runs(record, number)
        fresh = [run.name for run in runs if run.role in UNSELECTED and run.metric is not None]
        return fresh[:1] == [f"{folder.parent.name}/{folder.name}"]
