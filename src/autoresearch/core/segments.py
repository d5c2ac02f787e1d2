"""The stretches of a session within which runs can be compared.

A segment ends when something a run's number depends on changes (`environment.py`), or when the
incumbent's own runs say that the machine drifted. In the new one the incumbent is measured again,
and what was under way begins again: nothing is compared across.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from functools import lru_cache

from autoresearch.errors import TaskError
from autoresearch.measure.fingerprint import Environment, changes, told
from autoresearch.records import Run
from autoresearch.store.ledger import Ledger
from autoresearch.store.rows import SessionRecord, segment_of

BEGAN = "the session began"
DRIFTED = "the machine drifted"
UNSEEN = "an earlier version of autoresearch did not look at what runs depend on"
LOOKING, COSTLY_S = 0.02, 0.1  # a look that takes longer than that may take this share of the time
RESTLESS = 5  # changes without a finished experiment that are put up with


class NewSegment(Exception):
    """The segment is over in which the work under way began: it is to begin again."""


class Segments:
    """Those of one session. Usable from several threads."""

    def __init__(
        self,
        ledger: Ledger,
        record: SessionRecord,
        environment: Callable[[], Environment],
        warn: Callable[[str], None],
    ) -> None:
        self._ledger = ledger
        self._row = record
        self._environment = lru_cache(environment)  # of what is there when the first run begins
        self._warn = warn
        self._begun = ledger.segments(record)
        self._seen: Mapping[str, str] | None = None
        self._rest_until = 0.0
        self._orders: list[int] = []  # of the latest experiment, at each of the latest changes
        self._lock = threading.Lock()

    @property
    def number(self) -> int:
        """The segment that is now."""
        return self._begun[-1].number if self._begun else 0

    def look(self) -> int:
        """The segment that is now: a new one if something changed since the last look."""
        with self._lock:
            latest = self._begun[-1].fingerprint if self._begun else {}
            found = self._found(latest)
            if found is not self._seen:
                self._compare(latest, found)
                self._seen = found
            return self.number

    def _found(self, latest: Mapping[str, str]) -> Mapping[str, str]:
        """What there is. Looking at a million files takes its time: then it is done less often."""
        began = time.monotonic()
        if self._seen is not None and began < self._rest_until:
            return self._seen
        found = self._environment().look(latest)
        took_s = time.monotonic() - began
        if found is self._seen and took_s > COSTLY_S:  # and no contents were read
            self._rest_until = began + took_s / LOOKING
        return found

    def _compare(self, latest: Mapping[str, str], found: Mapping[str, str]) -> None:
        if not self._begun:
            self._begin(BEGAN, found)
            if self._ledger.has_baseline(self._row):  # by a version that did not look
                self._begin(UNSEEN, found)
                self._warn(f"{UNSEEN}: the incumbent is measured again")
        elif changed := changes(latest, found):
            what = told(changed)
            self._see_it_rest(what)
            self._begin(what, found)
            self._warn(
                f"changed during the session: {what}. Numbers from before cannot be compared with "
                "those from now on: the incumbent is measured again"
            )

    def _see_it_rest(self, what: str) -> None:
        """What changes with every run would keep the session from ever finishing anything."""
        order = self._ledger.last_order(self._row)
        self._orders = [*(one for one in self._orders if one == order), order]
        if len(self._orders) > RESTLESS:
            raise TaskError(
                f"{what} changed {len(self._orders)} times before anything was finished: what runs "
                "depend on has to be at rest. Does something write there?"
            )

    def drifted(self, segment: int, how: str) -> None:
        """Begin a new segment because of the incumbent's runs in that one, if it is still now."""
        with self._lock:
            if self.number == segment:
                self._begin(f"{DRIFTED}: {how}", self._begun[-1].fingerprint)

    def spoiled(self, run: Run) -> bool:
        """Something changed since the run was to begin: what it measured is neither the old nor
        the new."""
        self.look()
        later = [one for one in self._begun if one.number > run.segment]
        return any(not one.reason.startswith(DRIFTED) for one in later)

    def holds(self, order: int) -> bool:
        """The experiment that finished as the one of that order did so in the segment of now."""
        return segment_of([one.after_order for one in self._begun], order) == self.number

    def _begin(self, reason: str, fingerprint: Mapping[str, str]) -> None:
        number = self._begun[-1].number + 1 if self._begun else 0
        begun = self._ledger.begin_segment(
            self._row, number, reason=reason, fingerprint=fingerprint, now=time.time()
        )
        self._begun = [*self._begun, begun]
