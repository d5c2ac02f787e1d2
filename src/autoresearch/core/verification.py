"""Measure commits against each other by fresh, interleaved runs that choose nothing."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial

from autoresearch.core.events import VerificationStarted
from autoresearch.core.session import Session
from autoresearch.records import Experiment, Role


def verify(session: Session, runs: int | None = None) -> None:
    """Measure the first and the best commit again, `runs` times each (by default as often as the
    baseline). These runs chose nothing, so they say how large the improvement is. A deterministic
    task needs none, and makes one of each if `runs` is given."""
    best, is_exact = session.ledger.incumbent(session.record), session.record.deterministic
    if best.number == 0 or (is_exact and runs is None):
        return
    commits = [(Role.VERIFY, best.commit), (Role.VERIFY_BASELINE, session.record.base_commit)]
    compare(session, best, commits, 1 if is_exact else runs or session.task.judge.baseline_runs)


def compare(
    session: Session, owner: Experiment, commits: Sequence[tuple[Role, str]], runs: int
) -> None:
    """Make `runs` runs of each commit within one segment, in random order. The runs belong to the
    experiment `owner`. Runs of a commit in its role that are there already count, and when the
    segment ends meanwhile, the runs are made in the next one. Returns early when the session
    stops."""
    while True:
        segment = session.segments.refresh()
        jobs = [
            partial(session.make, owner.number, owner.attempt, role, index, commit, segment)
            for role, index, commit in session.ledger.list_missing(
                session.record, owner, commits, runs, segment
            )
        ]
        if not jobs:
            return
        session.emit(VerificationStarted(runs, len(commits)))
        random.Random(session.record.secret).shuffle(jobs)
        session.in_slots(jobs)
        if session.stopping is not None or session.segments.current == segment:
            return
