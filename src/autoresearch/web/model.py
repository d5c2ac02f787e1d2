"""A session in memory, for a page that follows it.

A whole summary of 10,000 experiments takes half a second, so it is read seldom. In between, the
summary that `status` shows is read whenever the ledger has changed, and what is new in it is added.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from autoresearch.errors import AutoresearchError, LedgerError
from autoresearch.records import Status
from autoresearch.report.collect import summarise
from autoresearch.report.summary import Finished, Summary
from autoresearch.store.ledger import Ledger
from autoresearch.store.lock import find_owner
from autoresearch.store.paths import SessionPaths
from autoresearch.store.requests import Requests
from autoresearch.store.rows import SessionRecord
from autoresearch.web.places import Place

LOOK_S = 0.3  # between two looks at the ledger, however many pages are open
WHOLE_SHARE = 0.05  # of the time, at most, goes into reading whole summaries
MODELS = 8  # sessions kept in memory
FLAGGED = "flagged"  # beside the statuses, in the filter of the table


class SessionModel:
    """Follows one session. Threads may share it."""

    def __init__(self, place: Place, tag: str) -> None:
        """Raises `LedgerError` if there is no such session."""
        self.place, self.tag = place, tag
        self.paths = SessionPaths(place.root, tag)
        self.version = 0  # one more with every change
        self.is_running = False
        self._lock = threading.RLock()
        self._ledger: Ledger | None = None
        self._file: tuple[int, int] | None = None  # the ledger's device and inode
        self._looked = self._read_whole = self._whole_cost = 0.0
        self._state: object = None
        self._summary: Summary | None = None
        self.summary  # noqa: B018 - raises what is wrong, at once

    @property
    def ledger(self) -> Ledger:
        """The ledger, opened again if another file has taken its place. Raises `LedgerError`."""
        with self._lock:
            try:
                status = self.paths.ledger.stat()
            except OSError:
                self._close()
                raise LedgerError(
                    f"{self.paths.ledger} is not there any more: was {self.place.root} moved or "
                    "deleted?"
                ) from None
            if self._ledger is None or self._file != (status.st_dev, status.st_ino):
                self._close()
                self._ledger = Ledger(self.paths.ledger, readonly=True)
                self._file = (status.st_dev, status.st_ino)
            return self._ledger

    @property
    def record(self) -> SessionRecord:
        return self.ledger.session(self.tag)

    @property
    def summary(self) -> Summary:
        """The session as it is now, with all experiments and keeps."""
        self.look()
        with self._lock:
            assert self._summary is not None
            return self._summary

    def look(self) -> int:
        """Read what has changed. Returns the version. Raises `LedgerError`, and again at the next
        look."""
        with self._lock:
            if self._summary is None or time.monotonic() - self._looked >= LOOK_S:
                ledger = self.ledger
                self.is_running = self._is_owned()
                data = ledger.select_number("PRAGMA data_version")
                state = (data, self._file, self.is_running, str(Requests(self.paths)))
                if state != self._state or self._summary is None:
                    self._read(ledger)
                    self._state = state
                    self.version += 1
                self._looked = time.monotonic()
            return self.version

    def _is_owned(self) -> bool:
        try:
            return find_owner(self.paths) is not None
        except AutoresearchError:  # owned by a process that nobody can name
            return True

    def _read(self, ledger: Ledger) -> None:
        known = self._summary
        pause_s = self._whole_cost / WHOLE_SHARE
        if known is not None and time.monotonic() - self._read_whole < pause_s:
            with suppress(_Gap):
                self._summary = _extend(known, summarise(ledger, self.tag, time.time()))
                return
        started = time.monotonic()
        self._summary = summarise(ledger, self.tag, time.time(), whole=True)
        self._read_whole = time.monotonic()
        self._whole_cost = self._read_whole - started

    def _close(self) -> None:
        if self._ledger is not None:
            self._ledger.close()
        self._ledger, self._summary = None, None

    def close(self) -> None:
        with self._lock:
            self._close()


class _Gap(Exception):
    """More experiments have finished than a summary that is not whole shows."""


def _extend(known: Summary, new: Summary) -> Summary:
    """Add what is new to a whole summary. Raises `_Gap`."""
    fresh = new.finished + 1 - len(known.recent) if new.baseline else 0
    if not 0 <= fresh <= len(new.recent):
        raise _Gap
    count = len(new.recent)
    recent = (*known.recent[: new.finished + 1 - count], *new.recent)
    keeps = {keep.number: keep for keep in (*known.keeps, *new.keeps)}
    return replace(new, recent=recent, keeps=tuple(keeps.values()), machine=known.machine)


class Models:
    """The sessions that pages look at. The one that was looked at longest ago leaves first; whoever
    still uses it keeps it, and its ledger, until then."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._models: OrderedDict[tuple[str, str], SessionModel] = OrderedDict()

    def get(self, place: Place, tag: str) -> SessionModel:
        """Raises `LedgerError` if there is no such session."""
        key = (place.name, tag)
        with self._lock:
            model = self._models.pop(key, None) or SessionModel(place, tag)
            self._models[key] = model
            if len(self._models) > MODELS:
                self._models.popitem(last=False)
            return model


@dataclass(frozen=True, slots=True)
class Selection:
    """What the table shows: filters, an order, and a page."""

    status: str = ""
    agent: str = ""
    text: str = ""
    sort: str = "number"
    is_ascending: bool = False
    page: int = 1


PAGE_ROWS = 50
SORTS: dict[str, Callable[[Finished], float | str | None]] = {
    "number": lambda row: row.number,
    "metric": lambda row: row.metric,
    "gain": lambda row: row.gain,
    "status": lambda row: row.status,
    "reason": lambda row: row.reason or "",
    "agent": lambda row: row.agent,
    "change": lambda row: row.description.casefold(),
}


@dataclass(frozen=True, slots=True)
class Page:
    rows: Sequence[Finished]
    matching: int  # rows on all pages
    number: int  # of this page, from 1
    pages: int


def select(rows: Sequence[Finished], wanted: Selection) -> Page:
    """Filter and sort experiments. Rows without the value that they are sorted by come last."""
    chosen = [row for row in rows if _matches(row, wanted)]
    key = SORTS.get(wanted.sort, SORTS["number"])
    known = [row for row in chosen if key(row) is not None]
    known.sort(key=lambda row: key(row) or 0, reverse=not wanted.is_ascending)
    ordered = known + [row for row in chosen if key(row) is None]
    pages = max(1, -(-len(ordered) // PAGE_ROWS))
    number = min(max(1, wanted.page), pages)
    shown = ordered[(number - 1) * PAGE_ROWS : number * PAGE_ROWS]
    return Page(shown, len(ordered), number, pages)


def _matches(row: Finished, wanted: Selection) -> bool:
    if wanted.status == FLAGGED:
        if row.flag is None:
            return False
    elif wanted.status and row.status != wanted.status:
        return False
    if wanted.agent and row.agent != wanted.agent:
        return False
    text = wanted.text.strip().casefold()
    if not text:
        return True
    if text.removeprefix("#").isdigit() and row.number == int(text.removeprefix("#")):
        return True
    return text in row.description.casefold() or text in (row.reason or "").casefold()


def list_statuses() -> tuple[str, ...]:
    return (*map(str, Status), FLAGGED)
