"""What earlier sessions of the same task learned: kept, nearly kept, crashed, noted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from autoresearch.briefing.digest import Digest, read_into
from autoresearch.briefing.fitting import Section, shorten
from autoresearch.core.history import SegmentAlignment, noise
from autoresearch.formatting import Numbers, counted
from autoresearch.store import queries
from autoresearch.store.imported import IMPORTED, ImportedNight, read_nights
from autoresearch.store.ledger import Ledger
from autoresearch.store.rows import SessionRecord

SESSIONS, NIGHTS = 3, 2  # the latest, of ours and of those that were imported
KEEPS, MISSES, CRASHES, NOTES = 8, 4, 3, 4  # of each: the biggest, or most frequent, or latest
SHOWN, NOTE = 140, 300  # characters of a description, and of a note


@dataclass(frozen=True, slots=True)
class Earlier:
    """What one earlier session learned."""

    name: str
    numbers: Numbers
    digest: Digest
    notes: Sequence[str] = ()


def read_earlier(ledger: Ledger, record: SessionRecord, root: Path) -> list[Earlier]:
    """The latest imported nights of this metric, and the latest sessions that began before this
    one, have its metric and judged a change; the oldest first."""
    nights = [night for night in read_nights(root) if night.metric == record.metric]
    alike = [one for one in ledger.sessions() if one.id < record.id and one.metric == record.metric]
    judged = (one for one in reversed(alike) if ledger.last_order(one) > 0)
    sessions = [_read(ledger, one) for one in islice(judged, SESSIONS)][::-1]
    return [*map(_read_night, nights[-NIGHTS:]), *sessions]


def _read(ledger: Ledger, record: SessionRecord) -> Earlier:
    digest = Digest(record.metric)
    read_into(digest, ledger, record, SegmentAlignment(ledger, record))
    notes = [one.notes for one in queries.list_with_notes(ledger, record, NOTES, among=300)]
    notes += [note.text for note in queries.list_notes(ledger, record, NOTES)]
    sd, df = noise(ledger, record)
    numbers = Numbers(record.metric, sd if df else None)
    return Earlier(record.tag, numbers, digest, notes[-NOTES:])


def _read_night(night: ImportedNight) -> Earlier:
    digest, attempts = Digest(night.metric), night.list_attempts()
    digest.add(len(attempts) - 1, attempts, [attempt.description for attempt in attempts])
    return Earlier(f"{night.tag} ({IMPORTED})", Numbers(night.metric), digest)


def list_earlier(sessions: Iterable[Earlier]) -> Section:
    return Section(
        "Earlier sessions of this task",
        [f"- {one.name}: {line}" for one in sessions for line in _describe(one)],
        share=0.08,
        rank=7,
        intro=[
            "Measured before this session began, perhaps on another program or machine: hints, not "
            "results. What was kept may be in the source already."
        ],
    )


def _describe(earlier: Earlier) -> Iterator[str]:
    digest, numbers = earlier.digest, earlier.numbers
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
