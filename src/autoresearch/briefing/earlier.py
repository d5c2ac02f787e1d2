"""What earlier sessions of the same task learned: kept, nearly kept, crashed, noted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from autoresearch.briefing.digest import Digest, read_into
from autoresearch.briefing.fitting import Section, shorten
from autoresearch.core.history import SegmentAlignment, noise
from autoresearch.formatting import Numbers, counted
from autoresearch.store import queries
from autoresearch.store.ledger import Ledger
from autoresearch.store.rows import SessionRecord

SESSIONS = 3  # the latest
KEEPS, MISSES, CRASHES, NOTES = 8, 4, 3, 4  # of each: the biggest, or most frequent, or latest
SHOWN, NOTE = 140, 300  # characters of a description, and of a note


@dataclass(frozen=True, slots=True)
class Earlier:
    """What one earlier session learned."""

    record: SessionRecord
    sd: float | None  # of one run
    digest: Digest
    notes: Sequence[str]


def read_earlier(ledger: Ledger, record: SessionRecord) -> list[Earlier]:
    """The latest sessions that began before this one, have its metric and judged a change; the
    oldest first."""
    alike = [one for one in ledger.sessions() if one.id < record.id and one.metric == record.metric]
    judged = (one for one in reversed(alike) if ledger.last_order(one) > 0)
    return [_read(ledger, one) for one in islice(judged, SESSIONS)][::-1]


def _read(ledger: Ledger, record: SessionRecord) -> Earlier:
    digest = Digest(record.metric)
    read_into(digest, ledger, record, SegmentAlignment(ledger, record))
    notes = [one.notes for one in queries.list_with_notes(ledger, record, NOTES, among=300)]
    notes += [note.text for note in queries.list_notes(ledger, record, NOTES)]
    sd, df = noise(ledger, record)
    return Earlier(record, sd if df else None, digest, notes[-NOTES:])


def list_earlier(sessions: Iterable[Earlier]) -> Section:
    return Section(
        "Earlier sessions of this task",
        [f"- {one.record.tag}: {line}" for one in sessions for line in _describe(one)],
        share=0.08,
        rank=7,
        intro=[
            "Measured before this session began, perhaps on another program or machine: hints, not "
            "results. What was kept may be in the source already."
        ],
    )


def _describe(earlier: Earlier) -> Iterator[str]:
    digest, numbers = earlier.digest, Numbers(earlier.record.metric, earlier.sd)
    keeps = digest.keeps[1:]
    yield f"{counted(digest.order, 'experiment')}, {counted(len(keeps), 'keep')}"
    gains = {keep.number: digest.gain(keep.base, keep.metric) or 0.0 for keep in keeps}
    for keep in sorted(keeps, key=lambda keep: gains[keep.number], reverse=True)[:KEEPS]:
        gain = numbers.signed(gains[keep.number])
        yield f"kept, {gain}: {shorten(keep.description, SHOWN)}"
    for miss in digest.near_misses[:MISSES]:
        yield f"not kept, {numbers.signed(miss.gain)}: {shorten(miss.description, SHOWN)}"
    for reason, many in digest.crashes.most_common(CRASHES):
        yield f"crashed {counted(many, 'time')}: {shorten(reason, 80)}"
    for note in earlier.notes:
        yield f"an agent's note: {shorten(note, NOTE)}"
