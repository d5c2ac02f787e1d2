"""The scratch runs of a session, as views read them. They decided nothing."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from autoresearch.errors import LedgerError, WorkspaceError
from autoresearch.git.repository import Repository
from autoresearch.records import Metric, Run
from autoresearch.store import queries
from autoresearch.store.ledger import Ledger
from autoresearch.store.rows import SessionRecord


@dataclass(frozen=True, slots=True)
class ScratchRun:
    """A scratch run, and its agent's line on what ran."""

    run: Run
    description: str

    @property
    def number(self) -> int:
        return self.run.index

    @property
    def base(self) -> int:
        """The experiment that was the incumbent then."""
        return self.run.experiment


def read_scratch(ledger: Ledger, record: SessionRecord, repository: Repository) -> list[ScratchRun]:
    """The finished scratch runs, in their order."""
    scratch = []
    for run in queries.list_scratch_runs(ledger, record):
        description = ""
        with suppress(WorkspaceError):  # a commit that is gone: `fsck` tells of it
            description = repository.get_subject(run.commit)
        scratch.append(ScratchRun(run, description))
    return scratch


def find_scratch(
    ledger: Ledger, record: SessionRecord, repository: Repository, number: int
) -> ScratchRun:
    """The finished scratch run of that number. Raises `LedgerError` if there is none."""
    scratch = read_scratch(ledger, record, repository)
    for each in scratch:
        if each.number == number:
            return each
    there = f"it has 1 to {scratch[-1].number}" if scratch else "it has none"
    raise LedgerError(f"session {record.tag!r} has no scratch run {number}; {there}")


def choose_best(scratch: Sequence[ScratchRun], metric: Metric, most: int) -> list[ScratchRun]:
    """At most so many of those with a metric, the best first."""
    known = [(one.run.metric, one) for one in scratch if one.run.metric is not None]
    order = sorted(known, key=lambda pair: metric.gain(pair[0], 0.0), reverse=True)
    return [one for _, one in order[:most]]
