"""The segments of a session: the stretches within which runs can be compared.

A segment ends when what a run's number depends on changes (`measure/fingerprint.py`), when the
machine drifted, or when a task taken for deterministic gave two numbers for one commit. In the new
one the incumbent is measured again, and experiments restart: nothing is compared across segments.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from functools import lru_cache

from autoresearch.errors import TaskError
from autoresearch.measure.fingerprint import EnvironmentFingerprint, list_changes, summarize_changes
from autoresearch.records import Run
from autoresearch.store.ledger import Ledger
from autoresearch.store.rows import SessionRecord, segment_of

BEGAN = "the session began"
DRIFTED, NOISY = "the machine drifted", "not deterministic"
MAX_CHECK_SHARE = 0.02  # of the time, for checks of the environment
SLOW_CHECK_S = 0.1  # slower checks are rate-limited to that share
MAX_CHANGES = 5  # of the environment, without a finished experiment between them


class Segments:
    """The segments of one session. Usable from several threads."""

    def __init__(
        self,
        ledger: Ledger,
        record: SessionRecord,
        environment: Callable[[], EnvironmentFingerprint],
        warn: Callable[[str], None],
    ) -> None:
        self._ledger = ledger
        self._record = record
        self._environment = lru_cache(environment)  # made when the first run begins
        self._warn = warn
        self._segments = ledger.segments(record)
        self._latest: Mapping[str, str] | None = None  # the latest fingerprint
        self._next_check = 0.0  # monotonic time
        self._orders: list[int] = []  # of the latest experiment, at each of the latest changes
        self._lock = threading.Lock()

    @property
    def current(self) -> int:
        """The number of the current segment, as of the latest refresh."""
        return self._segments[-1].number if self._segments else 0

    def refresh(self) -> int:
        """Begin a new segment if the environment has changed. Return the current one's number."""
        with self._lock:
            before = self._segments[-1].fingerprint if self._segments else {}
            fingerprint = self._get_fingerprint(before)
            if fingerprint is not self._latest:
                self._compare(before, fingerprint)
                self._latest = fingerprint
            return self.current

    def begin_after_runs(self, segment: int, why: str) -> None:
        """Begin a new segment for a reason that runs in `segment` gave, if that is current."""
        with self._lock:
            if self.current == segment:
                self._begin(why, self._segments[-1].fingerprint)

    def environment_changed_since(self, run: Run) -> bool:
        """Whether the environment has changed since the run was to begin: its number belongs
        neither to the old nor to the new environment then."""
        later = [segment for segment in self._segments if segment.number > run.segment]
        return any(not segment.reason.startswith((DRIFTED, NOISY)) for segment in later)

    def includes(self, order: int) -> bool:
        """Whether the experiment that finished in this order did so in the current segment."""
        starts = [segment.after_order for segment in self._segments]
        return segment_of(starts, order) == self.current

    def _get_fingerprint(self, before: Mapping[str, str]) -> Mapping[str, str]:
        """Return the current fingerprint. If computing it is slow, reuse the latest one, so that
        checks take at most 2 % of the time."""
        began = time.monotonic()
        if self._latest is not None and began < self._next_check:
            return self._latest
        fingerprint = self._environment().refresh(before)
        took_s = time.monotonic() - began
        if fingerprint is self._latest and took_s > SLOW_CHECK_S:  # and no contents were read
            self._next_check = began + took_s / MAX_CHECK_SHARE
        return fingerprint

    def _compare(self, before: Mapping[str, str], fingerprint: Mapping[str, str]) -> None:
        if not self._segments:
            self._begin(BEGAN, fingerprint)
        elif changes := list_changes(before, fingerprint):
            what = summarize_changes(changes)
            self._check_settles(what)
            self._begin(what, fingerprint)
            self._warn(
                f"changed during the session: {what}. Numbers from before cannot be compared with "
                "those from now on: the incumbent is measured again"
            )

    def _check_settles(self, what: str) -> None:
        """Raise `TaskError` if the environment keeps changing, since nothing could ever finish."""
        order = self._ledger.last_order(self._record)
        self._orders = [*(earlier for earlier in self._orders if earlier == order), order]
        if len(self._orders) > MAX_CHANGES:
            raise TaskError(
                f"{what} changed {len(self._orders)} times before anything was finished: what runs "
                "depend on has to be at rest. Does something write there?"
            )

    def _begin(self, reason: str, fingerprint: Mapping[str, str]) -> None:
        begun = self._ledger.begin_segment(
            self._record,
            self.current + 1 if self._segments else 0,
            reason=reason,
            fingerprint=fingerprint,
            now=time.time(),
        )
        self._segments = [*self._segments, begun]
