"""A session at work: what the loop has at hand, and the few verbs everything else is made of."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import replace
from functools import partial

from autoresearch.core import limits
from autoresearch.core.control import Restart, Stopped
from autoresearch.core.events import Listener, RunLost, Warned
from autoresearch.core.history import SessionHistory, reference
from autoresearch.core.scheduler import AgentScheduler, Member
from autoresearch.core.segments import Segments
from autoresearch.errors import AgentError
from autoresearch.git.repository import Repository
from autoresearch.measure.runs import Interrupted, RunExecutor
from autoresearch.protocols import Briefer, Grants, Runner
from autoresearch.records import Role, Run
from autoresearch.sandbox.run_policy import checkout
from autoresearch.store.ledger import Ledger
from autoresearch.store.paths import SessionPaths
from autoresearch.store.rows import SessionRecord
from autoresearch.task.checks import private_paths
from autoresearch.task.model import Limits, Task

LOST_LIMIT = 5  # a run that never comes back is to blame itself: it may have killed its warden
RESERVE_SHARE = 0.25  # of a time limit, at most, is set aside for measuring the result again


class Session:
    """One unattended stretch on a task. Holds nothing that the ledger could not give back."""

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
        self.emit = listener
        self.try_agents = try_agents  # called before anything is measured
        self.executor = RunExecutor(task, paths, repository, runner, ledger)
        around = partial(self.executor.environment, record.base_commit)
        self.segments = Segments(ledger, record, around, self.warn)
        self.set_limits()
        self.history = SessionHistory(ledger, record, repository)
        self.briefer = briefer
        self.stopping: str | None = None  # why no further run is to begin
        self._warning = threading.Lock()
        self._at_once = False  # what is under way is to end too
        self._ticked = time.monotonic()
        self._deadline: float | None = None
        if "deadline" in record.limits:
            self.end_in(record.limits["deadline"] - time.time())

    # ---- runs ------------------------------------------------------------------------------

    def set_limits(self) -> None:
        """Those of a run and of its score, as far as they are known: after the baseline."""
        allowance_s = self.task.run.allowance_s or self.record.allowance_s
        if self.task.run.budget_s is not None and allowance_s is not None:
            self.executor.limit_s = self.task.run.budget_s + allowance_s
        self.executor.score_limit_s = self.record.score_allowance_s

    def make(
        self, number: int, attempt: int, role: Role, index: int, commit: str, segment: int
    ) -> Run:
        """The run of that name: made now, unless it is in the ledger already. Raises `Stopped`
        when the session is to stop, and `Restart` when that segment is over by its end."""
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
        )
        run = self._made(run)
        if not run.segment == segment == self.segments.current:
            raise Restart
        return run

    def _made(self, run: Run) -> Run:
        for _ in range(LOST_LIMIT):
            try:
                return self._with_holdout(self.executor.measure(run, self.is_disturbed))
            except Interrupted as interrupted:
                if self.stopping is not None:
                    raise Stopped from None
                self.emit(RunLost(f"run {run.name}", str(interrupted)))
        return self.executor.give_up(run, f"lost {LOST_LIMIT} times running")

    def is_disturbed(self, run: Run) -> bool:
        """Check the environment now: whether it has changed since the run was to begin."""
        self.segments.refresh()
        return self.segments.environment_changed_since(run)

    def _with_holdout(self, run: Run) -> Run:
        """A run whose holdout could not be scored counts all the same, but that is said."""
        if run.holdout_reason is not None:
            self.warn(
                f"the sealed holdout could not be scored for experiment {run.experiment} "
                f"({run.holdout_reason}): {self.paths.runs / f'{run.experiment:04d}'}/*/holdout.log"
            )
        return run

    def guard(self, name: str, command: str, number: int, commit: str) -> str | None:
        """Why this guard command refuses a commit; None when it does not."""
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

    def in_slots(self, jobs: Sequence[Callable[[], object]]) -> None:
        """Do these, as many at a time as there are slots. The first error ends the others at
        their next run and is raised here; `Stopped` and `Restart` are no errors."""

        def quietly(job: Callable[[], object]) -> None:
            try:
                job()
            except (Stopped, Restart):
                pass  # the caller sees `stopping`, or that another segment is now
            except BaseException:
                self.stop("error")
                raise

        with ThreadPoolExecutor(self.runner.slots) as pool:
            futures = [pool.submit(quietly, job) for job in jobs]
            try:
                # In short waits, so that the main thread keeps answering signals.
                while wait(futures, timeout=0.2, return_when=FIRST_EXCEPTION).not_done:
                    if self._at_once:  # again and again: a run may be about to begin
                        self.interrupt()
            except BaseException:  # such as KeyboardInterrupt, where nobody handles the signal
                self.stop("interrupted")
                self.runner.interrupt()
                raise
        for future in futures:
            future.result()

    def interrupt(self) -> None:
        """End the runs and the turn under way too. Called from signal handlers."""
        self._at_once = True
        self.runner.interrupt()
        self.scheduler.interrupt()

    def stop(self, reason: str) -> None:
        """Begin no further run. Called from signal handlers and from any thread."""
        self.stopping = self.stopping or reason

    # ---- limits ----------------------------------------------------------------------------

    def end_in(self, seconds: float) -> None:
        """Reach the limit `until` after so long, whatever happens to the clock meanwhile."""
        self._deadline = limits.boot_clock() + seconds

    def limit(self) -> str | None:
        """The limit that is reached, in words; None to go on."""
        wanted = self.task.limits
        reserve_s = self._reserve_s()
        if self._deadline is not None and limits.boot_clock() + reserve_s >= self._deadline:
            return f"it is {wanted.until:%H:%M}"
        return limits.reached(wanted, self._spent(), self.record.metric, reserve_s)

    def left(self) -> list[str]:
        """What is left of each limit, one line each."""
        until_s = None if self._deadline is None else self._deadline - limits.boot_clock()
        return limits.left(self.task.limits, self._spent(), self.record.metric, until_s)

    def _spent(self) -> limits.Spent:
        return spent(self.ledger, self.record, self.task.limits, self.elapsed_s())

    def usd_left(self) -> float | None:
        """What the next turn may spend; None without a limit."""
        limit = self.task.limits.usd
        return None if limit is None else max(0.0, limit - self.ledger.costs(self.record)[1])

    def _reserve_s(self) -> float:
        """What measuring the result again will take, so that the night ends in time."""
        hours = self.task.limits.hours
        if self.record.deterministic or (hours is None and self._deadline is None):
            return 0.0
        best = self.ledger.incumbent(self.record)
        commits = {self.record.base_commit, best.commit}  # of the one, perhaps none in this segment
        runs = [run for one in commits for run in self.ledger.runs_of(self.record, one, last=8)]
        wall_s = max((run.took_s for run in runs), default=0.0)
        needed = 2 * self.task.judge.baseline_runs * wall_s / self.runner.slots
        return needed if hours is None else min(needed, RESERVE_SHARE * hours * 3600)

    def elapsed_s(self) -> float:
        """Seconds worked, over all resumes, by a clock that nobody can set back."""
        return self.ledger.session(self.record.tag).elapsed_s + time.monotonic() - self._ticked

    def tick(self) -> None:
        """Put the time worked since the last tick into the ledger."""
        with self.ledger.transaction():
            now = time.monotonic()
            self.ledger.add_elapsed(self.record, now - self._ticked)
            self._ticked = now

    # ---- agents ----------------------------------------------------------------------------

    def grants(self) -> Grants:
        """What the task lets an agent's process use, and what it must never see."""
        task, top = self.task, checkout(self.repository)
        given = task.agent
        return Grants(given.env, given.read, given.write, given.confine, top, private_paths(task))

    def dismiss(self, member: Member, refusal: AgentError) -> None:
        """An agent that cannot go on leaves; the others go on, or the fallback does. Raises the
        refusal when nobody is left."""
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
        """Say it now, and again in the status and the report."""
        with self._warning:  # from several slots at once
            if text in self.record.warnings:
                return
            self.update(warnings=[*self.record.warnings, text])
        self.emit(Warned(text))


def spent(ledger: Ledger, record: SessionRecord, wanted: Limits, elapsed_s: float) -> limits.Spent:
    """How far a session is, as far as the limits that are set need it."""
    found = limits.Spent(
        experiments=ledger.started(record)
        + ledger.fruitless_turns(record) // limits.FRUITLESS_TURNS,
        elapsed_s=elapsed_s,
        since_keep=ledger.since_keep(record),
        score=None
        if wanted.target is None
        else reference(ledger, record, ledger.incumbent(record)).score,
    )
    if wanted.gpu_hours or wanted.tokens or wanted.usd:  # these cost a look at every row
        tokens, usd = ledger.costs(record)
        turn_tokens, turn_usd = ledger.largest_turn(record)
        found = replace(
            found,
            run_s=ledger.spent(record)["wall_s"],
            tokens=tokens,
            usd=usd,
            turn_tokens=turn_tokens,
            turn_usd=turn_usd,
        )
    return found
