"""An experiment's life, from a commit to a verdict in the ledger, step by step.

    rebase -> screen -> guard -> confirm -> remeasure -> finish

Every run has a name in the ledger before it begins, and asking for a run that has finished returns
it. An interrupted experiment is therefore simply carried out again: no run is lost or repeated.
"""

from __future__ import annotations

import random
import time
from statistics import fmean
from typing import NoReturn

from autoresearch.core import history, judge
from autoresearch.core.control import Decided, Restart, Stopped
from autoresearch.core.events import ExperimentFinished, KeepFlagged
from autoresearch.core.incumbent import IncumbentUpkeep
from autoresearch.core.publisher import Publisher
from autoresearch.core.segments import NOISY
from autoresearch.core.session import Session
from autoresearch.errors import AutoresearchError
from autoresearch.formatting import describe_cost, one_line, tell_apart
from autoresearch.records import Experiment, Role, Run, Status, Verdict


class Attempt:
    """One attempt to reach a verdict, against one incumbent and within one segment.

    A step raises `Decided` when it settles the experiment, `Restart` when the incumbent or the
    segment has changed, and `Stopped` when the session ends.
    """

    def __init__(
        self, session: Session, upkeep: IncumbentUpkeep, publisher: Publisher, number: int
    ) -> None:
        self.session = session
        self.ledger = session.ledger
        self.repository = session.repository
        self.upkeep = upkeep
        self.publisher = publisher
        self.segment = upkeep.refresh()
        self.incumbent = self.ledger.incumbent(session.record)
        self.experiment = self.ledger.experiment(session.record, number)
        self.metric: float | None = None  # what the latest step has measured
        self.detail = ""  # what the steps have seen, in words

    def carry_out(self) -> Experiment:
        """Return the finished experiment. Raises `Restart`."""
        try:
            self.rebase()
            self.screen()
            self.guard()
            self.confirm()
            with self.upkeep.succession:
                return self.finish(self.remeasure())
        except Decided as decided:
            return self.finish(decided.verdict)
        except (AutoresearchError, Restart, Stopped):
            raise
        except Exception as error:  # one change must not end the session
            reason = self.session.executor.keep_traceback(self.experiment.number, error)
            return self.finish(Verdict(Status.CRASH, reason, None, one_line(str(error))))

    # ---- the steps -------------------------------------------------------------------------

    def rebase(self) -> None:
        """Put the change on the incumbent, and leave runs of an earlier segment behind."""
        experiment, record = self.experiment, self.session.record
        if experiment.base != self.incumbent.number:
            self.experiment = self._move_onto_incumbent()
        runs = self.ledger.runs(record, experiment.number)
        attempt = self.experiment.attempt
        if any(run.attempt == attempt and run.segment != self.segment for run in runs):
            self.experiment = self.ledger.move_base(
                record,
                experiment.number,
                base=self.experiment.base,
                commit=self.experiment.commit,
                tree=self.ledger.recorded_tree(record, experiment.number),
            )
        self.reference = history.reference(self.ledger, record, self.incumbent)
        self.least = self._least_gain()

    def screen(self) -> None:
        """Drop what one to three runs show to be not promising, or one on an exact task."""
        if self.session.record.deterministic:
            self._reproduce()
            return
        result = judge.screen(self.reference, self._draw_candidate(Role.SCREEN), self.least)
        self.metric = fmean(result.values)
        gain_sd = self.reference.gain_in_sd(result.values)
        self.detail = f"{gain_sd:+.1f} sd in the screen"
        if not result.passed:
            self._discard("not better" if gain_sd > 0 else "worse")

    def guard(self) -> None:
        """Run the task's guard commands, once."""
        for name, command in self.session.task.guards.commands:
            self._check_incumbent()
            why = self.session.guard(name, command, self.experiment.number, self.experiment.commit)
            if why is not None:
                self.detail = ""
                self._discard(f"guard failed: {name} ({why})")

    def confirm(self) -> None:
        """Separate the change from the incumbent by fresh runs of both."""
        record = self.session.record
        simpler = f", simpler and not {-self.least:.3g} worse" if self.least < 0 else ""
        if record.deterministic:
            self.detail = f"reproduced exactly{simpler}"
            return
        rng = random.Random(f"{record.secret}/{self.experiment.number}/{self.experiment.attempt}")
        k, candidate = judge.LEVELS[record.level].k, self._draw_candidate(Role.CANDIDATE)
        result = judge.separate(record.metric, k, rng, candidate, self._draw_control)
        if not result.passed:
            self._discard("not confirmed")
        self.metric = fmean(result.values)
        self.detail = f"{self.detail}, confirmed{simpler}"

    def remeasure(self) -> Verdict:
        """Measure the new incumbent by runs that did not win it its place."""
        draw = self._draw_candidate(Role.REMEASURE)
        if self.session.record.deterministic:
            self._check_exact(fresh := draw(0))
            return Verdict(Status.KEEP, None, fresh, self.detail)
        metric = fmean(draw(index) for index in range(judge.FRESH_RUNS))
        return Verdict(Status.KEEP, None, metric, self.detail, self._explain_flag(metric))

    def finish(self, verdict: Verdict) -> Experiment:
        """Record, then publish: the ledger's transaction is the commit point. Raises `Restart` when
        the segment in which the verdict was reached is over."""
        session, record, number = self.session, self.session.record, self.experiment.number
        session.segments.refresh()
        runs = self.ledger.runs(record, number)
        peaks = [run.peak_bytes for run in runs if run.commit == self.experiment.commit]
        with self.publisher.lock:
            with self.ledger.transaction():
                if self.segment != self.ledger.segment(record):
                    raise Restart
                session.tick()
                done = self.ledger.finish(
                    record,
                    number,
                    verdict,
                    peak_memory_bytes=max(peaks, default=0) or None,
                    now=time.time(),
                )
            self.publisher.publish(done)
        name = record.metric.name
        session.emit(
            ExperimentFinished(
                number, str(done.status), done.reason, name, done.metric, done.description
            )
        )
        if done.flag:
            session.emit(KeepFlagged(number, done.flag))
        return done

    # ---- what the steps need ---------------------------------------------------------------

    def _discard(self, reason: str) -> NoReturn:
        raise Decided(Verdict(Status.DISCARD, reason, self.metric, self.detail))

    def _reproduce(self) -> None:
        result = judge.reproduces(self.reference, self.least, self._draw_candidate(Role.SCREEN))
        self.metric = result.values[0]
        self._check_exact(result.values[-1])
        if not result.passed:
            gain = self.reference.metric.gain(self.metric, self.reference.scores[-1])
            self.detail = f"a gain of {gain:.3g}, below {self.least:.3g}" if gain > 0 else ""
            self._discard("worse" if gain < 0 else "not better")

    def _check_exact(self, again: float) -> None:
        """Raise `Restart` in a new segment if a second run of the change differs from its first."""
        if self.metric is None or again == self.metric:
            return
        if self.session.task.judge.deterministic:  # declared: the change is to blame
            self._discard("not reproduced")
        both = " and ".join(tell_apart(self.metric, again))
        why = f"{NOISY}: experiment {self.experiment.number} gave {both}"
        self.session.update(deterministic=False)
        self.session.segments.begin_after_runs(self.segment, why)
        self.session.warn(f"{why}. From now on, changes are judged by their noise")
        raise Restart

    def _draw_candidate(self, role: Role) -> judge.Draw:
        """How the judge asks for runs of the change: the metric of the index-th one. A run that
        crashed or broke a guard raises `Decided`."""

        def draw(index: int) -> float:
            run = self._run(role, index, self.experiment.commit)
            if run.metric is None:
                raise Decided(Verdict(Status.CRASH, run.reason, None, describe_cost(run)))
            if run.reason is not None:
                raise Decided(Verdict(Status.DISCARD, run.reason, run.metric, f"run {run.name}"))
            return run.metric

        return draw

    def _draw_control(self, index: int) -> float:
        """The same for the incumbent, improved by the least gain. If it crashes, every
        number is better: else a kept change that crashes later could never be replaced."""
        run = self._run(Role.CONTROL, index, self.incumbent.commit)
        metric = self.session.record.metric
        return metric.crash if run.metric is None else metric.worsened(run.metric, -self.least)

    def _run(self, role: Role, index: int, commit: str) -> Run:
        experiment = self.experiment
        if role is not Role.SCREEN:
            self._check_incumbent()
        return self.session.make(
            experiment.number, experiment.attempt, role, index, commit, self.segment
        )

    def _check_incumbent(self) -> None:
        """Raise `Restart` when another change is the incumbent by now. Not asked during the screen:
        one that goes on costs less than a new one (`benchmarks/many_slots.py`)."""
        if self.ledger.incumbent(self.session.record).number != self.incumbent.number:
            raise Restart

    def _move_onto_incumbent(self) -> Experiment:
        """Carry the change over from the commit that it was made on."""
        experiment, record = self.experiment, self.session.record
        base = self.ledger.experiment(record, experiment.base)
        commit = self.repository.rebase(base.commit, experiment.commit, self.incumbent.commit)
        if commit is None:
            self.detail = (
                f"changes the same lines as experiment {self.incumbent.number}, kept since"
            )
            self._discard("conflict")
        if known := self.session.known.find(commit, self.incumbent, besides=experiment.number):
            self.detail = f"on the new incumbent it is {known}"
            self._discard("duplicate")
        tree = self.repository.tree_id(commit)
        with self.repository.refs.keep_moving(record.tag, experiment.number, commit):
            moved = self.ledger.move_base(
                record, experiment.number, base=self.incumbent.number, commit=commit, tree=tree
            )
            self.repository.refs.keep(record.tag, experiment.number, commit)
        return moved

    def _least_gain(self) -> float:
        """By how much this change has to be better, in metric units. Negative if it removes code:
        what is left of `[judge] simplify` after what the session has given away already."""
        settings, record = self.session.task.judge, self.session.record
        if settings.simplify is not None:
            count_lines = self.repository.code_lines
            left = settings.simplify - history.lost(self.ledger, record, self.reference.score)
            if left > 0 and count_lines(self.experiment.commit) < count_lines(
                self.incumbent.commit
            ):
                return -left
        if settings.least is None and record.deterministic:
            return judge.LEAST_SHARE * abs(self.reference.scores[-1])
        return settings.least or 0.0

    def _explain_flag(self, metric: float) -> str | None:
        """Why a keep is too good for the session's history; None when it is not."""
        record, multiple = self.session.record, self.session.task.judge.quarantine
        held = history.reference(self.ledger, record, self.incumbent)
        gain = record.metric.gain(metric, held.score)
        excess = judge.too_good(gain, held.sd, history.effects(self.ledger, record), multiple)
        if excess is None:
            return None
        return f"{excess}; beyond {multiple:g} times it is to be looked at before it is believed"
