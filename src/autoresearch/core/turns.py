"""Take turns of agents: a turn becomes an experiment, or is recorded as a failed turn."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from itertools import count
from pathlib import Path

from autoresearch.core.events import AgentFinished, AgentRecovered, TurnFailed
from autoresearch.core.scheduler import Member
from autoresearch.core.session import Session
from autoresearch.errors import AgentError, Refused, ServiceRefusal
from autoresearch.files import clear_path
from autoresearch.git.edits import Files
from autoresearch.git.messages import write_message
from autoresearch.git.trees import Manifest
from autoresearch.protocols import KILLED_REASONS, Failure, Proposal, Turn
from autoresearch.records import Experiment
from autoresearch.sandbox.run_policy import why_unconfined
from autoresearch.store.answers import make_recordable

REFUSED_S = 60.0  # until an agent whose service refused it is asked once more
POLL_S = 0.2  # while all agents wait, and while the session is paused


class TurnTaker:
    """Gives experiments to the slots. A turn that yields nothing measurable is
    recorded, costs no run and is no experiment."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._turn = threading.Condition()  # held by a turn, but not while the agent thinks
        self._granted: dict[Path, float] = {}  # dollars, by the worktree of a turn under way
        self._unfinished = session.ledger.in_flight(session.record)
        self._worked: set[str] = set()  # names of agents
        self.closed = False  # no agent has anything more to propose
        if session.scheduler.has_readers and (why := why_unconfined(session.task, "agent")):
            session.warn(
                f"the agent's program is not confined, and can read and write what you can: {why}"
            )

    def next_experiment(self) -> Experiment | None:
        """Return an interrupted experiment, else a new one, or None when the session is to end.
        Several threads may call this: the thinking of their agents overlaps, and nothing else."""
        session, scheduler = self._session, self._session.scheduler
        with self._turn:
            while session.stopping is None and not self.closed:
                if self._unfinished:
                    return self._unfinished.pop(0)
                if session.limit() is not None:
                    if not scheduler.thinking:
                        return None
                    self._wait()  # the turns under way may fail
                    continue
                if session.requests.is_paused:
                    session.pause(POLL_S)
                    self._turn.wait(0.01)  # a turn may end meanwhile
                    continue
                session.executor.commands.check_disk()
                member = scheduler.next(time.monotonic())
                if member is None:
                    self._wait()
                elif (experiment := self._ask(member)) is not None:
                    return experiment
        return None

    def _wait(self) -> None:
        """Wait for the end of a turn, or for a moment while all agents wait."""
        if self._session.scheduler.thinking:
            self._turn.wait(5 * POLL_S)  # in every slot that is free
        else:
            time.sleep(POLL_S)

    def may_begin(self) -> bool:
        """Wait while the session is paused. Return whether an experiment that was proposed before a
        slot was free may begin; if not, a resumed session begins with it."""
        session = self._session
        while session.stopping is None and session.limit(is_proposed=True) is None:
            if not session.requests.is_paused:
                return True
            time.sleep(POLL_S)
        return False

    def take(self, folder: Path, base: str, proposal: Proposal) -> Experiment:
        """Open an experiment from edits in `folder`, a copy of the files of commit `base`, which
        need not be the incumbent's. Raises `Refused` for edits that the harness will not run."""
        session = self._session
        incumbent = session.ledger.incumbent(session.record)
        manifest = session.repository.trees.manifest(base)
        session.executor.commands.hide(manifest, folder)
        changes = self.collect(folder, manifest)
        return self._open(session.scheduler.members[0], incumbent, changes, proposal, base)

    def _ask(self, member: Member) -> Experiment | None:
        """Take one turn of an agent. Return its experiment, or None."""
        scheduler = self._session.scheduler
        try:
            answer = self._take_turn(member)
        except AgentError as refusal:
            self._note_refusal(member, refusal)
            return None
        member.refused = False
        if isinstance(answer, Experiment):
            scheduler.note_experiment(member)
            self._announce_recovery(member)
            return answer
        if answer is None:
            self._leave(member)
        else:
            self._note(member, answer)
        return None

    def _take_turn(self, member: Member) -> Experiment | Failure | None:
        """Give the agent a worktree, and make an experiment of its edit."""
        session = self._session
        incumbent = session.ledger.incumbent(session.record)
        worktree = self._find_worktree()
        clear_path(worktree)
        manifest = session.repository.trees.materialize(incumbent.commit, worktree)
        session.executor.commands.hide(manifest, worktree)
        self._granted[worktree] = 0.0
        try:
            answer = self._think(member, self._make_turn(member, manifest, worktree))
            self._warn_of_costs(member, answer)
            if not isinstance(answer, Proposal):
                return answer
            try:
                changes = self.collect(worktree, manifest)
                return self._open(member, incumbent, changes, answer)
            except Refused as refused:
                failure = Failure(refused.reason, str(refused), 0.0, answer.tokens, answer.usd)
                return make_recordable(failure)
        finally:
            del self._granted[worktree]
            session.repository.trees.put_aside(worktree, manifest)

    def _find_worktree(self) -> Path:
        """A folder that no turn under way uses."""
        paths = (self._session.paths.turns / f"worktree{number or ''}" for number in count())
        return next(path for path in paths if path not in self._granted)

    def _think(self, member: Member, turn: Turn) -> Proposal | Failure | None:
        """Let the agent propose, and other turns go on meanwhile."""
        self._granted[turn.worktree] = turn.usd_left or 0.0
        agent = member.begin_turn()
        self._turn.release()
        try:
            return member.propose(turn, agent)
        finally:
            self._turn.acquire()
            member.end_turn(agent)
            self._turn.notify_all()

    def collect(self, folder: Path, manifest: Manifest) -> Files:
        outputs = self._session.task.outputs
        try:
            return self._session.repository.edits.collect(folder, manifest, outputs)
        except (OSError, UnicodeError) as error:  # a name or a mode that nobody expects
            raise Refused("unreadable", str(error)) from error

    def _make_turn(self, member: Member, manifest: Manifest, worktree: Path) -> Turn:
        session, text = self._session, ""
        if member.agent.wants_briefing:
            session.repository.trees.make_repository(worktree)
            text = session.briefer.text(session.left())
        return Turn(
            worktree=worktree,
            editable=tuple(path for path in manifest if session.repository.edits.is_editable(path)),
            history=session.history,
            briefing=text,
            timeout_s=session.task.agent.timeout_s,
            grants=session.grants(),
            usd_left=session.usd_left(sum(self._granted.values())),
        )

    def _warn_of_costs(self, member: Member, answer: Proposal | Failure | None) -> None:
        """Warn if the first turn that worked does not tell a cost that the user has limited."""
        answered = isinstance(answer, Proposal) or (
            answer is not None and answer.reason == "no change"
        )
        if not answered or not member.agent.wants_briefing or member.name in self._worked:
            return
        self._worked.add(member.name)
        for what in ("tokens", "usd"):
            if getattr(self._session.task.limits, what) and getattr(answer, what) is None:
                self._session.warn(
                    f"agent {member.name} does not say what it uses: [limits] {what} does not hold "
                    "for it"
                )

    def _with_cost(self, failure: Failure) -> Failure:
        """Charge a turn that was cut off before it told its cost as the largest turn so far."""
        session = self._session
        if failure.reason not in KILLED_REASONS:
            return failure
        tokens, usd = session.ledger.largest_turn(session.record)
        wanted = session.task.limits
        if wanted.tokens and tokens and failure.tokens is None:
            failure = replace(failure, tokens=tokens)
        if wanted.usd and usd and failure.usd is None:
            failure = replace(failure, usd=usd)
        return failure

    def _open(
        self,
        member: Member,
        incumbent: Experiment,
        changes: Files,
        proposal: Proposal,
        base: str | None = None,
    ) -> Experiment:
        """Commit the changes by plumbing and enter the experiment in the ledger."""
        session = self._session
        message = write_message(proposal, session.record.tag, member.name)
        commit = session.repository.commit(base or incumbent.commit, changes, message)
        if base is not None and base != incumbent.commit:
            moved = session.repository.rebase(base, commit, incumbent.commit)
            if moved is None:
                why = f"it does not fit onto the incumbent, experiment {incumbent.number}"
                raise Refused("conflict", why)
            commit = moved
        if known := session.known.find(commit, incumbent):
            raise Refused("duplicate", str(known))
        with session.ledger.transaction():
            experiment = session.ledger.begin(
                session.record,
                base=incumbent.number,
                commit=commit,
                tree=session.repository.tree_id(commit),
                agent=member.name,
                proposal=proposal,
                lines=session.repository.changed_lines(incumbent.commit, commit),
                now=time.time(),
            )
            # Before the commit point: a `git gc` must never find a recorded commit without a name.
            session.repository.refs.keep(session.record.tag, experiment.number, commit)
        return experiment

    def _note_refusal(self, member: Member, refusal: AgentError) -> None:
        """Let an agent leave that cannot go on. A service's refusal counts from the second turn in
        a row. The turn's cost is recorded either way."""
        failure = Failure("refused", str(refusal), REFUSED_S, refusal.tokens, refusal.usd)
        failure = make_recordable(failure)
        is_first = not member.refused or time.monotonic() < member.ready_at  # of another copy
        if isinstance(refusal, ServiceRefusal) and is_first:
            member.refused = True
            self._note(member, failure)
            return
        self._session.ledger.add_turn(self._session.record, member.name, failure, time.time())
        self._session.dismiss(member, refusal)

    def _leave(self, member: Member) -> None:
        """Let an agent leave that has nothing more to propose."""
        session = self._session
        if member not in session.scheduler.members:
            return  # a copy of it has left meanwhile
        taking_over = session.scheduler.leave(member)
        if taking_over is not None:
            session.warn(f"no other agent is left: the fallback {taking_over.name} takes over")
        elif session.scheduler.members:
            session.emit(AgentFinished(member.name))
        else:
            self.closed = True

    def _note(self, member: Member, failure: Failure) -> None:
        """Record a failed turn. Tell the user of each refused edit, but of a service that is down
        only when the wait grows and when it works again."""
        session = self._session
        session.ledger.add_turn(session.record, member.name, self._with_cost(failure), time.time())
        pause = session.scheduler.note_failure(member, failure, time.monotonic())
        if pause.seconds == 0:
            self._announce_recovery(member)
        if pause.grew or pause.seconds == 0:
            session.emit(TurnFailed(member.name, failure.reason, failure.message, pause.seconds))

    def _announce_recovery(self, member: Member) -> None:
        if failures := self._session.scheduler.reset_failures(member):
            self._session.emit(AgentRecovered(member.name, failures))
