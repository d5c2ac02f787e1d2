"""Measure commits against each other by fresh, interleaved runs that choose nothing."""

from __future__ import annotations

import random
from collections.abc import Mapping
from functools import partial

from autoresearch.core.events import VerificationStarted
from autoresearch.core.session import Session
from autoresearch.records import Experiment, Role


def verify(session: Session, runs: int | None = None) -> None:
    """Measure the first and the best commit again, `runs` times each (by default as often as the
    baseline). These runs chose nothing, so they say how large the improvement is."""
    best = session.ledger.incumbent(session.record)
    if best.number == 0 or session.record.deterministic:
        return
    commits = {Role.VERIFY: best.commit, Role.VERIFY_BASELINE: session.record.base_commit}
    compare(session, best, commits, runs or session.task.judge.baseline_runs)


def compare(session: Session, owner: Experiment, commits: Mapping[Role, str], runs: int) -> None:
    """Make `runs` runs of each commit within one segment, in random order. The runs belong to the
    experiment `owner`, each commit's in a role of its own. Runs that are there already count, and
    when the segment ends meanwhile, the runs are made in the next one. Returns early when the
    session stops."""
    while True:
        segment = session.segments.refresh()
        finished = {
            (run.role, run.index)
            for run in session.ledger.runs(session.record, owner.number)
            if run.finished and run.attempt == owner.attempt and run.segment == segment
        }
        jobs = [
            partial(session.make, owner.number, owner.attempt, role, index, commit, segment)
            for index in range(runs)
            for role, commit in commits.items()
            if (role, index) not in finished
        ]
        if not jobs:
            return
        session.emit(VerificationStarted(runs))
        random.Random(session.record.secret).shuffle(jobs)
        session.in_slots(jobs)
        if session.stopping is not None or session.segments.current == segment:
            return
