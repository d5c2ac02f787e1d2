"""The lineage of keeps: each change that became the incumbent, and what it was built on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from autoresearch.report.summary import Kept, Summary
from autoresearch.store.ledger import Ledger
from autoresearch.store.rows import SessionRecord


@dataclass(frozen=True, slots=True)
class Ancestor:
    keep: Kept
    base: int
    follows: bool  # it is built on the keep listed before it
    flag: str | None
    share: float  # of the largest gain, from 0 to 1, for a bar


def list_lineage(ledger: Ledger, session: SessionRecord, summary: Summary) -> Sequence[Ancestor]:
    """The keeps, oldest first; the baseline is the first."""
    recorded = {keep.number: keep for keep in ledger.keeps(session)}
    keeps = [keep for keep in summary.keeps if keep.number in recorded]
    largest = max((abs(keep.gain or 0.0) for keep in keeps), default=0.0) or 1.0
    before = {new.number: old.number for old, new in pairwise(keeps)}
    return [
        Ancestor(
            keep,
            recorded[keep.number].base,
            before.get(keep.number, recorded[keep.number].base) == recorded[keep.number].base,
            recorded[keep.number].flag,
            max(0.0, keep.gain or 0.0) / largest,
        )
        for keep in keeps
    ]
