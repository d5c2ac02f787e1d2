"""THE loop. Read this first.

    the agent edits files of its own -> the harness takes the editable ones and commits them on the
    incumbent -> pristine tree -> run(s) -> judge -> ledger -> the branch moves or not

`Loop.run` is a night and `Loop.live` is an experiment's life, top to bottom. Every run has a name
in the ledger before it begins, and asking for a run that is there already returns it: to resume, an
interrupted experiment simply lives again, and no finished run is lost or repeated.
"""

from __future__ import annotations

import random
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from autoresearch.core import baseline, events, history, judge, probe
from autoresearch.core.segments import NewSegment
from autoresearch.core.session import Session, Stopped
from autoresearch.core.turns import TurnTaker
from autoresearch.errors import AutoresearchError, StorageError
from autoresearch.files import remove_tree
from autoresearch.measure.runs import Interrupted, Outputs
from autoresearch.records import UNSELECTED, Experiment, Role, Run, Status, Verdict
from autoresearch.store.files import remove_drafts
from autoresearch.store.results import ResultsFile


class Decided(Exception):
    """Raised out of a series of runs when one of them settles the experiment."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.reason)
        self.verdict = verdict


class Loop:
    def __init__(self, session: Session) -> None:
        self.session = session
        self.ledger = session.ledger
        self.repository = session.repository
        self.results = ResultsFile(session.paths.results, session.ledger, session.record)
        self.outputs = Outputs(session.paths, session.task.runner.keep_outputs_bytes, self._stays)
        self._record = threading.Lock()  # one verdict at a time
        self._succession = threading.Lock()  # one new incumbent at a time
        self._renewed = 0  # the segment in which the incumbent has been measured

    # ---- a night ---------------------------------------------------------------------------

    def run(self) -> str:
        """Work until a limit is reached or somebody says stop; returns why, in words.

        Raises what makes going on pointless (`BaselineError`, `AgentError`, `StorageError`, ...).
        Either way everything finished is recorded, and the session can be resumed.
        """
        session = self.session
        try:
            self.begin()
            desk = TurnTaker(session)
            session.in_slots([lambda: self._work(desk)] * session.runner.slots)
            if session.stopping is None:
                baseline.verify(session)
                self._offer(self.ledger.incumbent(session.record))
        except Stopped:
            pass  # `stopping` says why
        except AutoresearchError as error:
            with suppress(StorageError):
                session.learn(stopped=str(error).splitlines()[0])
            raise
        finally:
            session.tick()
            self.repository.pack()
        done = session.limit() or "the agent has nothing more to propose"
        session.learn(stopped=session.stopping or done)
        return session.stopping or done

    def begin(self) -> None:
        """Mend what a kill left behind, and see that the unchanged program has been measured."""
        self._recover()
        probe.first_turns(self.session)
        baseline.establish(self.session)
        unchanged = self.ledger.experiment(self.session.record, 0)
        self._publish(unchanged)
        self.results.append(unchanged)
        self._offer(unchanged)
        self.session.in_slots([self._owed])
        if self.session.stopping is not None:
            raise Stopped

    def _work(self, desk: TurnTaker) -> None:
        """A slot's night: one experiment after another."""
        while (experiment := desk.next_experiment()) is not None:
            self.live(experiment)

    # ---- an experiment's life --------------------------------------------------------------

    def live(self, experiment: Experiment) -> None:
        """From a commit to a verdict in the ledger. Nothing is kept against a stale incumbent: when
        that has moved meanwhile, the change is moved onto the new one and begins again."""
        done = None
        while done is None:
            with suppress(NewSegment):  # nor on another's day: then it begins again as well
                done = self._lived(self.ledger.experiment(self.session.record, experiment.number))
        self._top_up(done)

    def _lived(self, experiment: Experiment) -> Experiment | None:
        """To its verdict; None when it is to begin again. Raises `NewSegment`."""
        segment = self._renew()
        incumbent = self.ledger.incumbent(self.session.record)
        try:
            experiment = self._in_segment(self._moved_onto(incumbent, experiment), segment)
            verdict = self._judged(experiment, incumbent, segment)
            if verdict.status is not Status.KEEP:
                raise Decided(verdict)
            with self._succession:
                if self.ledger.incumbent(self.session.record).number != incumbent.number:
                    return None
                verdict = self._measured_again(experiment, incumbent, verdict, segment)
                return self._finish(experiment, verdict, segment)
        except Decided as decided:
            return self._finish(experiment, decided.verdict, segment)

    def _judged(self, experiment: Experiment, incumbent: Experiment, segment: int) -> Verdict:
        """Screen, guards, separation. Raises `Decided` as soon as one run settles it."""
        record = self.session.record
        held = history.reference(self.ledger, record, incumbent)
        margin = self._margin(experiment, incumbent, held)
        reference = held.worsened(margin)
        level = judge.LEVELS[record.level]
        screening = self._draws(experiment, Role.SCREEN, experiment.commit, segment)
        candidate = self._draws(experiment, Role.CANDIDATE, experiment.commit, segment)
        control = self._draws(experiment, Role.CONTROL, incumbent.commit, segment)
        simpler = f", simpler and not {margin:.3g} worse" if margin else ""

        if record.deterministic:
            exact = judge.reproduces(reference, screening)
            metric = exact.values[0]
            if not exact.passed:
                same = "not better" if metric == held.score else "worse"
                reason = "not reproduced" if len(exact.values) > 1 else same
                return Verdict(Status.DISCARD, reason, metric)
            self._guard(experiment, metric)
            return Verdict(Status.KEEP, None, metric, f"reproduced exactly{simpler}")

        screened = judge.screen(reference, screening)
        metric = fmean(screened.values)
        gain_sd = held.gain_in_sd(screened.values)
        seen = f"{gain_sd:+.1f} sd in the screen"
        if not screened.passed:
            return Verdict(Status.DISCARD, "not better" if gain_sd > 0 else "worse", metric, seen)
        self._guard(experiment, metric)
        if level.cached:
            separated = judge.separate_cached(reference, level, candidate)
        else:
            order = random.Random(f"{record.secret}/{experiment.number}/{experiment.attempt}")

            def worse(index: int) -> float:
                return record.metric.worsened(control(index), margin)

            separated = judge.separate(record.metric, level.k, order, candidate, worse)
        if not separated.passed:
            return Verdict(Status.DISCARD, "not confirmed", metric, seen)
        return Verdict(Status.KEEP, None, fmean(separated.values), f"{seen}, confirmed{simpler}")

    def _margin(
        self, experiment: Experiment, incumbent: Experiment, held: judge.Reference
    ) -> float:
        """By how much this change may be worse, in metric units: 0 unless it removes code, and
        what is left of `[judge] simplify` after what the session has given away already."""
        allowed = self.session.task.judge.simplify
        if allowed is None:
            return 0.0
        lines = self.repository.code_lines
        if lines(experiment.commit) >= lines(incumbent.commit):
            return 0.0
        given = history.lost(self.ledger, self.session.record, held.score)
        return max(0.0, allowed - given)

    def _measured_again(
        self, experiment: Experiment, incumbent: Experiment, verdict: Verdict, segment: int
    ) -> Verdict:
        """How good a new incumbent is, by runs that did not win it its place."""
        draw = self._draws(experiment, Role.REMEASURE, experiment.commit, segment)
        if self.session.record.deterministic:
            return replace(verdict, metric=draw(0))
        metric = fmean(draw(index) for index in range(judge.FRESH_RUNS))
        return replace(verdict, metric=metric, flag=self._flag(incumbent, metric))

    def _flag(self, incumbent: Experiment, metric: float) -> str | None:
        """Why an improvement is too good for the session's history; None when it is not."""
        record, multiple = self.session.record, self.session.task.judge.quarantine
        held = history.reference(self.ledger, record, incumbent)
        gain = record.metric.gain(metric, held.score)
        excess = judge.too_good(gain, held.sd, history.effects(self.ledger, record), multiple)
        if excess is None:
            return None
        return f"{excess}; beyond {multiple:g} times it is to be looked at before it is believed"

    def _draws(self, experiment: Experiment, role: Role, commit: str, segment: int) -> judge.Draw:
        """How the judge asks for runs: the metric of the index-th, or `Decided` if it has none."""

        def draw(index: int) -> float:
            name = (experiment.number, experiment.attempt, role, index)
            run = self.session.make(*name, commit, segment)
            if role is Role.CONTROL:
                if run.metric is None:
                    detail = f"the incumbent itself crashed: {run.reason}"
                    raise Decided(Verdict(Status.DISCARD, "incumbent crashed", None, detail))
                return run.metric
            if run.metric is None:
                raise Decided(Verdict(Status.CRASH, run.reason, None, _cost(run)))
            if run.reason is not None:
                raise Decided(Verdict(Status.DISCARD, run.reason, run.metric, f"run {run.name}"))
            return run.metric

        return draw

    def _guard(self, experiment: Experiment, metric: float) -> None:
        """The guard commands, once, after the screen."""
        for name, command in self.session.task.guards.commands:
            why = self.session.guard(name, command, experiment.number, experiment.commit)
            if why is not None:
                raise Decided(Verdict(Status.DISCARD, f"guard failed: {name} ({why})", metric))

    def _moved_onto(self, incumbent: Experiment, experiment: Experiment) -> Experiment:
        """The experiment on the incumbent: its change is carried over if it was made on another."""
        if experiment.base == incumbent.number:
            return experiment
        record = self.session.record
        base = self.ledger.experiment(record, experiment.base)
        commit = self.repository.rebase(base.commit, experiment.commit, incumbent.commit)
        if commit is None:
            detail = f"does not fit onto experiment {incumbent.number}, kept meanwhile"
            raise Decided(Verdict(Status.DISCARD, "conflict", None, detail))
        tree = self.repository.tree_id(commit)
        known = self.ledger.with_tree(record, tree)
        if known is not None and known.number != experiment.number:
            detail = f"on the new incumbent it is the same as experiment {known.number}"
            raise Decided(Verdict(Status.DISCARD, "duplicate", None, detail))
        with self.repository.held(record.tag, experiment.number, commit):
            moved = self.ledger.move_base(
                record, experiment.number, base=incumbent.number, commit=commit, tree=tree
            )
            self.repository.keep_reachable(record.tag, experiment.number, commit)
        return moved

    def _in_segment(self, experiment: Experiment, segment: int) -> Experiment:
        """The experiment as it lives in that segment: from the screen, if it has runs of an
        earlier one."""
        record = self.session.record
        runs = self.ledger.runs(record, experiment.number)
        if any(run.attempt == experiment.attempt and run.segment != segment for run in runs):
            return self.ledger.move_base(
                record,
                experiment.number,
                base=experiment.base,
                commit=experiment.commit,
                tree=self.ledger.recorded_tree(record, experiment.number),
            )
        return experiment

    def _renew(self) -> int:
        """See that the incumbent has been measured in the segment of now, and say which it is."""
        segment = self.session.segments.look()
        if segment != self._renewed:
            with self._succession:
                baseline.renew(self.session, segment)
                self._renewed = segment
        return segment

    # ---- the record ------------------------------------------------------------------------

    def _finish(self, experiment: Experiment, verdict: Verdict, segment: int) -> Experiment:
        """Record, then move: the ledger's transaction is the commit point, the rest follows it.
        Raises `NewSegment` when the verdict was reached in one that is over."""
        record = self.session.record
        self.session.segments.look()
        runs = self.ledger.runs(record, experiment.number)
        mine = [_peak_bytes(run) for run in runs if run.commit == experiment.commit]
        with self._record:
            with self.ledger.transaction():
                if segment != self.ledger.segment(record):
                    raise NewSegment
                self.session.tick()
                done = self.ledger.finish(
                    record,
                    experiment.number,
                    verdict,
                    peak_memory_bytes=max(mine, default=0) or None,
                    now=time.time(),
                )
            self._publish(done)
            self.results.append(done)
            self._offer(done)
            self.repository.tidy(done.order or 0)
        self.session.emit(
            events.ExperimentFinished(
                done.number,
                str(done.status),
                done.reason,
                record.metric.name,
                done.metric,
                done.description,
            )
        )
        if done.flag:
            self.session.emit(events.KeepFlagged(done.number, done.flag))
        return done

    def _publish(self, done: Experiment) -> None:
        """Move the branch to a new incumbent."""
        if done.status is Status.KEEP:
            record = self.session.record
            ours = {record.base_commit, *(keep.commit for keep in self.ledger.keeps(record))}
            best = self.ledger.incumbent(record)
            if warning := self.repository.move(record.tag, best.commit, ours):
                self.session.warn(warning)

    def _top_up(self, done: Experiment) -> None:
        """Once in a while the incumbent is measured again: its score follows the machine. By the
        slot that finished the experiment in question, so that no other makes the same run."""
        record, order = self.session.record, done.order or 0
        if order % judge.TOPUP_EVERY == 0 and not record.deterministic:
            with suppress(NewSegment):  # in which the incumbent is measured again anyway
                self._topped_up(order, self._renew())

    def _topped_up(self, order: int, segment: int) -> None:
        best = self.ledger.incumbent(self.session.record)
        for index in (order, -order):  # once more if it crashes: it may have been bad luck
            name = (best.number, best.attempt, Role.TOPUP, index)
            run = self.session.make(*name, best.commit, segment)
            if run.metric is not None:
                return self._look_for_drift()
        raise baseline.incumbent_gone(self.session, best, run)

    def _look_for_drift(self) -> None:
        """Is the incumbent's latest top-up in line with its runs before? If not, and one more run
        says the same, the machine is another, and a new segment begins."""
        record, segment = self.session.record, self.session.segments.number
        best = self.ledger.incumbent(record)
        known = self.ledger.runs_of(record, best.commit, (Role.TOPUP,))
        runs = [run for run in known if run.index > 0 and run.segment == segment]
        if record.deterministic or not runs or (metric := (latest := runs[-1]).metric) is None:
            return
        before = history.reference(self.ledger, record, best, latest.id)

        def again(_: int) -> float:
            name = (best.number, best.attempt, Role.TOPUP, -latest.index)
            run = self.session.make(*name, best.commit, segment)
            return before.score if run.metric is None else run.metric

        if judge.drifted(before, metric, again):
            how = f"the incumbent measured {metric:.6g}, {before.score:.6g} before"
            self.session.segments.drifted(segment, how)

    def _owed(self) -> None:
        """What a kill, or a change meanwhile, left to be done for the incumbent: its runs in a new
        segment, the latest top-up, and what follows from that."""
        record = self.session.record
        last = self.ledger.last_order(record)
        due = last - last % judge.TOPUP_EVERY
        segment = None
        while segment != self.session.segments.number:
            with suppress(NewSegment):
                segment = self._renew()
                if due and not self.ledger.was_topped_up(record, due):
                    self._top_up(self.ledger.finished(record, after=due - 1)[0])
                self._look_for_drift()

    def _recover(self) -> None:
        """After a kill: what ended unseen is recorded, what was cut off is forgotten, and what
        follows from the ledger follows again."""
        session, record = self.session, self.session.record
        session.executor.end_leftovers()
        self.repository.break_locks(record.tag)
        remove_drafts(session.paths)
        for run in self.ledger.open_runs(record):
            if session.executor.ended_unseen(run):
                with suppress(Interrupted):  # while it was scored: who asks for it gets the rest
                    session.executor.measure(run, session.segments.spoiled)
            else:
                remove_tree(session.paths.runs / run.name)  # first: its number is given out again
                self.ledger.forget_run(run)
        session.executor.remove_recorded(self.ledger.open_runs(record))
        remove_tree(session.paths.trees)
        remove_tree(session.paths.turns)
        remove_tree(session.paths.temporary)
        experiments = self.ledger.all_experiments(record)
        for experiment in experiments:
            self.repository.keep_reachable(record.tag, experiment.number, experiment.commit)
            if experiment.number == 0 and experiment.status is Status.KEEP:
                self._publish(experiment)
        for ref in self.repository.passing_refs(record.tag, len(experiments)):
            self.repository.drop_ref(ref)
        self.results.prepare()
        session.learn(stopped=None)

    def _offer(self, experiment: Experiment) -> None:
        self.outputs.offer(self.ledger.runs(self.session.record, experiment.number))

    def _stays(self, folder: Path) -> bool:
        """Whether a run's artefacts are to stay: those of the first fresh run of a keep."""
        number = int(folder.parent.name)
        if self.ledger.experiment(self.session.record, number).status is not Status.KEEP:
            return False
        runs = self.ledger.runs(self.session.record, number)
        fresh = [r.name for r in runs if r.role in UNSELECTED and r.metric is not None]
        return fresh[:1] == [f"{folder.parent.name}/{folder.name}"]


def _cost(run: Run) -> str:
    """Which run, and what it used where that is why it crashed."""
    used = [f"{run.cpu_s:.1f} s of CPU time"] if run.cpu_s is not None else []
    used += [f"{run.score_cpu_s:.1f} s to score it"] if run.score_cpu_s is not None else []
    over = (run.reason or "").endswith("over budget")
    return f"run {run.name}" + (f", {', '.join(used)}" if over and used else "")


def _peak_bytes(run: Run) -> int:
    """What the original's `memory_gb` tells: the GPU's where the run prints it."""
    if "peak_vram_mb" in run.numbers:
        return int(run.numbers["peak_vram_mb"] * 2**20)
    return run.peak_memory_bytes or 0
