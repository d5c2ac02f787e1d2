"""Measure the unchanged program: the first incumbent's score, the noise, and the allowances."""

from __future__ import annotations

import time
from contextlib import suppress
from functools import partial
from statistics import fmean

from autoresearch.core.control import Restart, Stopped
from autoresearch.core.events import BaselineRunFinished, SetupStarted
from autoresearch.core.session import Session
from autoresearch.errors import BaselineError
from autoresearch.measure.diagnosis import explain_failure
from autoresearch.measure.execution import Interrupted
from autoresearch.measure.missing_metric import explain_run
from autoresearch.measure.output import describe_end
from autoresearch.measure.setup import find_setup, run_setup
from autoresearch.protocols import Proposal
from autoresearch.records import Role, Run, Status, Verdict
from autoresearch.sandbox.run_policy import why_unconfined

SAME_RUNS = 3  # identical runs on different seeds mean that the seed changes nothing
ALLOWANCE_FACTOR, ALLOWANCE_S = 1.25, 1.0  # over the baseline's own start-up and evaluation
SCORE_TIME_FACTOR = 1.5  # over its slowest scoring: one model took 3.7 to 4.9 s on a busy machine


def establish(session: Session) -> None:
    """Run the unchanged program on several seeds: the first incumbent's score, the noise, and the
    allowance for start-up and evaluation beyond the budget. Raises `BaselineError`."""
    ledger, record, task = session.ledger, session.record, session.task
    session.executor.commands.policies.prepare()
    if why := why_unconfined(task):
        session.warn(f"runs are not confined, and can read, write and reach what you can: {why}")
    if not ledger.has_experiments(record):
        ledger.begin(
            record,
            base=0,
            commit=record.base_commit,
            tree=session.repository.tree_id(record.base_commit),
            agent="",
            proposal=Proposal("baseline"),
            now=time.time(),
        )
    if ledger.experiment(record, 0).status is None:
        session.repository.refs.keep(record.tag, 0, record.base_commit)
        set_up(session)
    while ledger.experiment(record, 0).status is None:
        with suppress(Restart):  # all runs are made again
            _measure(session, session.segments.refresh())
    session.set_limits()


def _measure(session: Session, segment: int) -> None:
    """Measure it within one segment and record it. Raises `Restart` when the segment ends."""
    ledger, record = session.ledger, session.record
    baseline = ledger.experiment(record, 0)
    latest = [run for run in ledger.runs(record, 0) if run.attempt == baseline.attempt]
    failed = any(run.finished and run.reason for run in latest)
    earlier = any(run.segment != segment for run in latest)
    if failed or earlier or baseline.commit != record.base_commit:
        # It failed in an earlier start and may have been mended since, or the commit or the
        # segment is another one now: all runs are made again.
        baseline = ledger.move_base(
            record,
            0,
            base=0,
            commit=record.base_commit,
            tree=session.repository.tree_id(record.base_commit),
        )
    if session.segments.refresh() != segment:
        raise Restart
    runs = make_runs(session, baseline.attempt)
    check_guards(session)
    if session.segments.refresh() != segment:
        raise Restart
    values = [run.metric for run in runs if run.metric is not None]
    _record_noise(session, values)
    _record_allowances(session, runs)
    peak = max(run.peak_memory_bytes or 0 for run in runs)
    verdict = Verdict(Status.KEEP, None, fmean(values), f"{len(values)} runs")
    ledger.finish(record, 0, verdict, peak_memory_bytes=peak or None, now=time.time())


def make_runs(session: Session, attempt: int) -> list[Run]:
    """Make the baseline's runs: one first, so that a broken program shows at once. Raises
    `Restart` when the environment changed meanwhile."""
    segment = session.segments.refresh()
    wanted = 2 if session.task.judge.deterministic else session.task.judge.baseline_runs

    def make(index: int) -> None:
        commit = session.record.base_commit
        run = session.make(0, attempt, Role.BASELINE, index, commit, segment)
        if run.metric is None or run.reason is not None:
            raise BaselineError(explain_run(session.executor.commands, run))
        name = session.record.metric.name
        session.emit(BaselineRunFinished(index + 1, wanted, name, run.metric, run.took_s))

    def get_finished() -> list[Run]:
        runs = session.ledger.runs(session.record, 0)
        return [r for r in runs if r.role is Role.BASELINE and r.attempt == attempt and r.finished]

    session.in_slots([partial(make, 0)])
    if session.stopping is None:
        session.in_slots([partial(make, i) for i in range(1, min(wanted, SAME_RUNS))])
    if session.stopping is None and len({run.metric for run in get_finished()}) > 1:
        session.in_slots([partial(make, i) for i in range(SAME_RUNS, wanted)])
    if session.stopping is not None:
        raise Stopped
    if session.segments.current != segment:
        raise Restart
    return get_finished()


def check_guards(session: Session) -> None:
    """Raise `BaselineError` if a guard command refuses the unchanged program: it would refuse every
    change."""
    for name, command in session.task.guards.commands:
        if why := session.guard(name, command, 0, session.record.base_commit):
            log = session.paths.runs / "0000" / f"guard-{name}.log"
            raise BaselineError(
                f"the unchanged program fails [guards.commands] {name} ({why}): {command}\n"
                f"{describe_end(log)}{explain_failure(session.executor.commands, log)}"
            )


def _record_noise(session: Session, values: list[float]) -> None:
    """Record whether the task is deterministic. If it is, comparisons are exact: warn of that."""
    declared = session.task.judge.deterministic
    same = len(set(values)) == 1
    if declared and not same:
        raise BaselineError(
            f"the task is declared deterministic, but two runs of the unchanged program gave "
            f"{values[0]:.9g} and {values[1]:.9g}: remove `[judge] deterministic`, or mend it"
        )
    if declared is None and same:
        session.warn(
            f"every seed gave {session.record.metric.name} {values[0]:.9g}: the program ignores "
            "AUTORESEARCH_SEED (`check` shows the patch), or is deterministic (`[judge] "
            "deterministic = true`). One run is compared exactly, until two of one commit differ"
        )
    session.update(deterministic=bool(declared) or (declared is None and same))


def _record_allowances(session: Session, runs: list[Run]) -> None:
    budget_s = session.task.run.budget_s
    if budget_s is None:
        return
    clock = session.task.run.budget_clock
    used = max((run.cpu_s if clock == "cpu" else run.wall_s) or 0.0 for run in runs)
    beyond = max(0.0, used - budget_s)
    if beyond > 2 * budget_s:
        session.warn(
            f"the unchanged program used {used:.1f} s ({clock}) with a budget of {budget_s:g} s: "
            "does it keep to AUTORESEARCH_BUDGET? Everything beyond is taken for start-up and "
            "evaluation"
        )
    session.update(allowance_s=ALLOWANCE_FACTOR * beyond + ALLOWANCE_S)
    scoring = [run.score_cpu_s if clock == "cpu" else run.score_wall_s for run in runs]
    if known := [seconds for seconds in scoring if seconds is not None]:
        # A change could go on training while it is scored, so that time is limited too.
        session.update(score_allowance_s=SCORE_TIME_FACTOR * max(known) + ALLOWANCE_S)


def set_up(session: Session) -> None:
    """Run the task's `setup` command, unless that is done. Raises `BaselineError` if it fails."""
    commands = session.executor.commands
    if (command := find_setup(commands)) is None:
        return
    session.emit(SetupStarted(command))
    try:
        run_setup(commands, command, session.record.base_commit)
    except Interrupted as interrupted:
        if session.stopping is not None:
            raise Stopped from None
        raise BaselineError(f"[run] setup failed: {interrupted}") from None
