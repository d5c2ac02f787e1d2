"""THE loop. Read this first, then `experiment.py`.

    the agent edits files of its own -> the harness takes the editable ones and commits them on the
    incumbent -> pristine tree -> run(s) -> judge -> ledger -> the branch moves or not

`Loop.run` is a night. `experiment.Attempt.carry_out` is an experiment's life, step by step.
"""

from __future__ import annotations

import threading
from contextlib import suppress

from autoresearch.core import baseline
from autoresearch.core.control import Restart, Stopped
from autoresearch.core.experiment import Attempt
from autoresearch.core.incumbent import IncumbentUpkeep
from autoresearch.core.publisher import Publisher
from autoresearch.core.recovery import recover
from autoresearch.core.session import Session
from autoresearch.core.turns import TurnTaker
from autoresearch.core.verification import verify
from autoresearch.errors import AutoresearchError, StorageError
from autoresearch.records import Experiment


class Loop:
    """A session's work, from the unchanged program to the verified result."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.publisher = Publisher(session)
        self.upkeep = IncumbentUpkeep(session)
        self._slots = threading.Semaphore(session.runner.slots)

    def run(self) -> str:
        """Work until a limit is reached or the session is stopped. Return why, in words.

        Raises an error that makes going on pointless (`BaselineError`, `AgentError`,
        `StorageError`, ...). Either way, everything finished is recorded, and the session can be
        resumed.
        """
        session = self.session
        try:
            self.begin()
            turns = TurnTaker(session)
            workers = session.runner.slots + session.ahead
            session.in_slots([lambda: self._work(turns)] * workers, workers)
            if session.stopping is None:
                verify(session)
                self.publisher.release_artifacts(session.ledger.incumbent(session.record))
        except Stopped:
            pass  # `session.stopping` says why
        except AutoresearchError as error:
            with suppress(StorageError):
                session.update(stopped=str(error).splitlines()[0])
            raise
        finally:
            session.tick()
            session.repository.pack()
        reached = session.limit() or "the agent has nothing more to propose"
        session.update(stopped=session.stopping or reached)
        return session.stopping or reached

    def begin(self) -> None:
        """Mend what a kill left behind, and make sure that the unchanged program is measured.
        Raises `Stopped`."""
        recover(self.session, self.publisher)
        self.session.try_agents(self.session)
        baseline.establish(self.session)
        self.publisher.publish(self.session.ledger.experiment(self.session.record, 0))
        self.session.in_slots([self.upkeep.catch_up])
        if self.session.stopping is not None:
            raise Stopped

    def carry_out(self, experiment: Experiment) -> None:
        """Bring an experiment to its verdict, in as many attempts as it takes."""
        done = None
        while done is None:
            with suppress(Restart):
                attempt = Attempt(self.session, self.upkeep, self.publisher, experiment.number)
                done = attempt.carry_out()
        self.upkeep.top_up(done)

    def _work(self, turns: TurnTaker) -> None:
        """Take one experiment after another to its verdict. With proposals ahead there are more
        workers than slots: one that has a proposal waits here for a slot."""
        while (experiment := turns.next_experiment()) is not None:
            if has_waited := not self._slots.acquire(blocking=False):
                self._slots.acquire()
            try:
                if not has_waited or turns.may_begin():
                    self.carry_out(experiment)
            finally:
                self._slots.release()
