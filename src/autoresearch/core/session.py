"""A session at work: its parts, and the verbs that the loop is made of (make a run, stop, warn)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from functools import partial

from autoresearch.core import limits
from autoresearch.core.control import Restart, Stopped
from autoresearch.core.events import Event, Listener, RunLost, Warned
from autoresearch.core.history import SessionHistory
from autoresearch.core.scheduler import AgentScheduler, Member
from autoresearch.core.segments import Segments
from autoresearch.errors import AgentError
from autoresearch.git.repository import Repository
from autoresearch.measure.execution import Interrupted
from autoresearch.measure.known import KnownPrograms
from autoresearch.measure.runs import RunExecutor
from autoresearch.protocols import Briefer, Grants, Runner
from autoresearch.records import Role, Run
from autoresearch.sandbox.agent_policy import make_grants
from autoresearch.store.ledger import Ledger
from autoresearch.store.paths import SessionPaths
from autoresearch.store.requests import END_ASKED, Requests
from autoresearch.store.rows import SessionRecord
from autoresearch.task.model import Task

LOST_LIMIT = 5  # a run that never comes back is to blame itself: it may have killed its warden
RESERVE_SHARE = 0.25  # of a time limit, at most, is set aside for measuring the result again


class Session:
    """One unattended stretch of work on a task. A resumed session is rebuilt from the ledger."""

    def __init__(
        self,
        task: Task,
        paths: SessionPaths,
        repository: Repository,
        ledger: Ledger,
        runner: Runner,
        scheduler: AgentScheduler,
        record: SessionRecord,
        briefer: Briefer,
        listener: Listener,
        try_agents: Callable[[Session], None] = lambda session: None,
    ) -> None:
        self.task = task
        self.paths = paths
        self.repository = repository
        self.ledger = ledger
        self.runner = runner
        self.scheduler = scheduler
        self.record = record
        self.listeners = [listener]  # of events; a tracker or a web page adds its own
        self.try_agents = try_agents  # called before anything is measured
        self.executor = RunExecutor(task, paths, repository, runner, ledger, record.base_commit)
        get_environment = partial(self.executor.environment, record.base_commit)
        self.segments = Segments(ledger, record, get_environment, self.warn)
        self.set_limits()
        self.history = SessionHistory(ledger, record, repository)
        self.known = KnownPrograms(ledger, record, repository)
        self.briefer = briefer
        self.requests = Requests(paths)
        self.stopping: str | None = None  # why no further run is to begin
        self._warn_lock = threading.Lock()
        self._at_once = False  # what is under way is to end too
        self._ticked = time.monotonic()
        self._deadline: float | None = None
        if "deadline" in record.limits:
            self.end_in(record.limits["deadline"] - time.time())

    # ---- runs ------------------------------------------------------------------------------

    def set_limits(self) -> None:
        """Set the limits of a run and of its score, once the baseline has shown what they need."""
        allowance_s = self.task.run.allowance_s or self.record.allowance_s
        if self.task.run.budget_s is not None and allowance_s is not None:
            self.executor.limit_s = self.task.run.budget_s + allowance_s
        self.executor.score_limit_s = self.record.score_allowance_s
        self.executor.commands.limit_wall_time(
            self.ledger.runs_of(self.record, self.record.base_commit)
        )

    def make(
        self,
        number: int,
        attempt: int,
        role: Role,
        index: int,
        commit: str,
        segment: int,
        *,
        retry: int = 0,
    ) -> Run:
        """Return the run of that name: from the ledger if it has finished, else made now. Raises
        `Stopped` when the session is to stop, `Restart` when the segment ends meanwhile."""
        if self.stopping is not None:
            raise Stopped
        if self.segments.refresh() != segment:
            raise Restart
        run = self.ledger.open_run(
            self.record,
            experiment=number,
            attempt=attempt,
            role=role,
            index=index,
            commit=commit,
            now=time.time(),
            segment=segment,
            retry=retry,
        )
        run = self._measure(run)
        if segment != self.segments.current:
            raise Restart
        return run

    def _measure(self, run: Run) -> Run:
        """Measure a run, again if it is lost."""
        for _ in range(LOST_LIMIT):
            try:
                return self._check_holdout(self.executor.measure(run, self.is_disturbed))
            except Interrupted as interrupted:
                if self.stopping is not None:
                    raise Stopped from None
                self.emit(RunLost(f"run {run.name}", str(interrupted)))
        return self.executor.give_up(run, f"lost {LOST_LIMIT} times running")

    def is_disturbed(self, run: Run) -> bool:
        """Check the environment: has it changed since the run was to begin?"""
        self.segments.refresh()
        return self.segments.environment_changed_since(run)

    def _check_holdout(self, run: Run) -> Run:
        """Warn if the sealed holdout could not be scored. The run counts all the same."""
        if run.holdout_reason is not None:
            self.warn(
                f"the sealed holdout could not be scored for experiment {run.experiment} "
                f"({run.holdout_reason}): {self.paths.runs / f'{run.experiment:04d}'}/*/holdout.log"
            )
        return run

    def guard(self, name: str, command: str, number: int, commit: str) -> str | None:
        """Run a guard command. Return why it refuses the commit, or None."""
        for _ in range(LOST_LIMIT):
            if self.stopping is not None:
                raise Stopped
            try:
                outcome = self.executor.run_guard(name, command, number, commit)
            except Interrupted as interrupted:
                self.emit(RunLost(f"guard {name}", str(interrupted)))
                continue
            failed = f"exit code {outcome.exit_code}" if outcome.exit_code else None
            return outcome.stopped or failed
        return f"lost {LOST_LIMIT} times running"

    def in_slots(self, jobs: Sequence[Callable[[], object]], workers: int | None = None) -> None:
        """Do the jobs, so many at a time, by default as there are slots. The first error ends the
        others at their next run and is raised here. `Stopped` and `Restart` only end their job."""

        def do(job: Callable[[], object]) -> None:
            try:
                job()
            except (Stopped, Restart):
                pass  # the caller looks at `stopping` and at the segment
            except BaseException:
                self.stop("error")
                self.scheduler.interrupt()  # a turn may take many minutes
                raise

        with ThreadPoolExecutor(workers or self.runner.slots) as pool:
            futures = [pool.submit(do, job) for job in jobs]
            try:
                # In short waits, so that the main thread keeps answering signals.
                while wait(futures, timeout=0.2).not_done:
                    if self._at_once:  # again and again: a run may be about to begin
                        self.interrupt()
            except BaseException:  # such as KeyboardInterrupt, where nobody handles the signal
                self.stop("interrupted")
                self.runner.interrupt()
                raise
        for future in futures:
            future.result()

    def interrupt(self) -> None:
        """End the runs and the turn under way at once. Called from signal handlers."""
        self._at_once = True
        self.runner.interrupt()
        self.scheduler.interrupt()

    def stop(self, reason: str) -> None:
        """Start no further run. Called from signal handlers and from any thread."""
        self.stopping = self.stopping or reason

    # ---- limits ----------------------------------------------------------------------------

    def end_in(self, seconds: float) -> None:
        """Reach the limit `until` after so many seconds, even if the clock is set meanwhile."""
        self._deadline = limits.boot_clock() + seconds

    def limit(self, *, is_proposed: bool = False) -> str | None:
        """Return the limit that is reached, in words, or None to go on: to propose a change, or to
        measure one that `is_proposed`, which the limits on proposals count already."""
        if self.requests.ends:
            return END_ASKED
        wanted = self.task.limits
        if is_proposed:
            wanted = replace(wanted, experiments=None, tokens=None, usd=None)
        reserve_s, spent = self._reserve_s(), self._spent()
        if not is_proposed:
            spent = spent.with_turns(self.scheduler.thinking)
        if self._deadline is not None and limits.boot_clock() + reserve_s >= self._deadline:
            return f"it is {wanted.until:%H:%M}"
        return limits.reached(wanted, spent, self.record.metric, reserve_s)

    def left(self) -> list[str]:
        """What is left of each limit, one line each."""
        until_s = None if self._deadline is None else self._deadline - limits.boot_clock()
        return limits.left(self.task.limits, self._spent(), self.record.metric, until_s)

    def _spent(self) -> limits.Spent:
        return limits.read_spent(self.ledger, self.record, self.task.limits, self.elapsed_s())

    def usd_left(self, granted: float = 0.0) -> float | None:
        """What the next turn may spend; None without a limit. Turns under way have been `granted`
        so much, and others may begin beside it."""
        if self.task.limits.usd is None:
            return None
        left = self.task.limits.usd - self.ledger.costs(self.record)[1] - granted
        return max(0.0, left) / max(1, self.scheduler.at_once - self.scheduler.thinking)

    def _reserve_s(self) -> float:
        """Seconds that the verification at the end will take, so that the session ends in time."""
        hours = self.task.limits.hours
        if self.record.deterministic or (hours is None and self._deadline is None):
            return 0.0
        best = self.ledger.incumbent(self.record)
        commits = {self.record.base_commit, best.commit}
        runs = [
            run for commit in commits for run in self.ledger.runs_of(self.record, commit, last=8)
        ]
        wall_s = max((run.took_s for run in runs), default=0.0)
        needed = 2 * self.task.judge.baseline_runs * wall_s / self.runner.slots
        return needed if hours is None else min(needed, RESERVE_SHARE * hours * 3600)

    def elapsed_s(self) -> float:
        """Seconds worked, over all resumes, by the monotonic clock."""
        return self.ledger.session(self.record.tag).elapsed_s + time.monotonic() - self._ticked

    def tick(self) -> None:
        """Add the time worked since the last tick to the ledger."""
        with self.ledger.transaction():
            now = time.monotonic()
            self.ledger.add_elapsed(self.record, now - self._ticked)
            self._ticked = now

    def pause(self, seconds: float) -> None:
        """Sleep. The time does not count as work."""
        time.sleep(seconds)
        with self.ledger.transaction():
            self._ticked += seconds

    # ---- agents ----------------------------------------------------------------------------

    @property
    def ahead(self) -> int:
        """How many changes may be proposed while every slot is busy. By default none, unless an
        agent reads briefings, as it may think for minutes, and no run is timed meanwhile."""
        is_wanted = self.task.agent.ahead
        if is_wanted is None:
            is_wanted = self.scheduler.has_readers and not self.task.measure
        return self.scheduler.at_once if is_wanted else 0

    def grants(self) -> Grants:
        """What the task lets an agent's process use, and what it must never see."""
        return make_grants(self.task, self.repository)

    def dismiss(self, member: Member, refusal: AgentError) -> None:
        """Let an agent leave that cannot go on: the others go on, or the fallback does. Raises the
        refusal when no agent is left."""
        if member not in self.scheduler.members:
            return  # a copy of it has left meanwhile
        taking_over = self.scheduler.leave(member, refusal)
        if taking_over is None:
            follows = f"{self.scheduler.names} goes on without it"
        else:
            follows = f"the fallback {taking_over.name} takes over"
        self.warn(f"agent {member.name} has left: {refusal} ({follows})")

    # ---- facts -----------------------------------------------------------------------------

    def update(self, **facts: object) -> None:
        """Record facts of the session, such as `deterministic`."""
        self.record = self.ledger.update_session(self.record, **facts)

    def warn(self, text: str) -> None:
        """Warn the user now, and again in the status and the report."""
        with self._warn_lock:  # from several slots at once
            if text in self.record.warnings:
                return
            self.update(warnings=[*self.record.warnings, text])
        self.emit(Warned(text))

    def emit(self, event: Event) -> None:
        """Hand an event to every listener, in this thread."""
        for listener in self.listeners:
            listener(event)
