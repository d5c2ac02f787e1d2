"""The incumbent's score: measured again in a new segment, topped up, and watched for drift."""

from __future__ import annotations

import threading
from contextlib import suppress

from autoresearch.core import history, judge
from autoresearch.core.control import Restart
from autoresearch.core.segments import DRIFTED
from autoresearch.core.session import Session
from autoresearch.errors import BaselineError
from autoresearch.formatting import tell_apart
from autoresearch.records import Experiment, Role, Run


class IncumbentUpkeep:
    """Keeps the incumbent's score up to date. Hold `succession` while a new incumbent is made."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._ledger = session.ledger
        self.succession = threading.Lock()
        self._measured_segment = 0  # the segment in which the incumbent has been measured

    def refresh(self) -> int:
        """Return the current segment, in which the incumbent has been measured by then. Raises
        `Restart` when the next segment begins meanwhile."""
        segment = self._session.segments.refresh()
        if segment != self._measured_segment:
            with self.succession:
                self._measure_in(segment)
                self._measured_segment = segment
        return segment

    def top_up(self, done: Experiment) -> None:
        """Measure the incumbent once more after every tenth experiment, so that its score follows
        the machine. The slot that finished the experiment does it, and no other."""
        order = done.order or 0
        if order % judge.TOPUP_EVERY == 0 and not self._session.record.deterministic:
            with suppress(Restart):  # in the new segment the incumbent is measured anyway
                self._make_top_up(order, self.refresh())

    def catch_up(self) -> None:
        """Do what a kill, or a change meanwhile, left undone for the incumbent: its runs in a new
        segment, the latest top-up, and the look for drift that follows."""
        record = self._session.record
        last = self._ledger.last_order(record)
        due = last - last % judge.TOPUP_EVERY
        segment = None
        while segment != self._session.segments.current:
            with suppress(Restart):
                segment = self.refresh()
                if due and not self._ledger.was_topped_up(record, due):
                    self.top_up(self._ledger.finished(record, after=due - 1)[0])
                self._look_for_drift()

    def _measure_in(self, segment: int) -> None:
        """Measure the incumbent at the beginning of a segment, unless it was kept in it. Raises
        `BaselineError` when it does not run any more."""
        session, record = self._session, self._session.record
        best = self._ledger.incumbent(record)
        if session.segments.includes(best.order or 0):
            return
        wanted = 1 if record.deterministic else judge.FRESH_RUNS
        known = self._ledger.runs_of(record, best.commit, (Role.SEGMENT,))
        runs = [run for run in known if run.segment == segment]
        good = sum(run.metric is not None for run in runs)
        tries = wanted - good + 1  # one more if a run crashes: it may have been bad luck
        while good < wanted:
            if tries == 0:
                raise self._make_error(best, runs[-1])
            tries -= 1
            name = (best.number, best.attempt, Role.SEGMENT, len(runs))
            run = session.make(*name, best.commit, segment)
            good += run.metric is not None
            runs.append(run)

    def _make_top_up(self, order: int, segment: int) -> None:
        best = self._ledger.incumbent(self._session.record)
        for retry in range(2):  # once more if it crashes: it may have been bad luck
            run = self._run(best, order, segment, retry)
            if run.metric is not None:
                return self._look_for_drift()
        raise self._make_error(best, run)

    def _look_for_drift(self) -> None:
        """Begin a new segment if the incumbent's latest top-up is out of line with its runs before,
        and one more run says the same: the machine is another then."""
        record, segment = self._session.record, self._session.segments.current
        best = self._ledger.incumbent(record)
        known = self._ledger.runs_of(record, best.commit, (Role.TOPUP,))
        runs = [run for run in known if run.segment == segment and not run.retry]
        if record.deterministic or not runs or (metric := (latest := runs[-1]).metric) is None:
            return
        before = history.reference(self._ledger, record, best, latest.id)

        def draw_again(_: int) -> float:
            run = self._run(best, latest.index, segment, retry=1)
            return before.score if run.metric is None else run.metric

        if judge.drifted(before, metric, draw_again):
            now, then = tell_apart(metric, before.score)
            how = f"the incumbent measured {now}, {then} before"
            self._session.segments.begin_after_runs(segment, f"{DRIFTED}: {how}")

    def _run(self, best: Experiment, order: int, segment: int, retry: int) -> Run:
        name = (best.number, best.attempt, Role.TOPUP, order)
        return self._session.make(*name, best.commit, segment, retry=retry)

    def _make_error(self, best: Experiment, run: Run) -> BaselineError:
        return BaselineError(
            f"the incumbent, experiment {best.number}, does not run any more: {run.reason}. "
            f"Its log is {self._session.paths.runs / run.name / 'log'}"
        )
