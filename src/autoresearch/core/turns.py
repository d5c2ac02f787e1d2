"""The agents' desk: turns become experiments, one at a time, or come to nothing."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path

from autoresearch.core.events import AgentFinished, AgentRecovered, TurnFailed
from autoresearch.core.scheduler import Member, recordable
from autoresearch.core.session import Session
from autoresearch.errors import AgentError, Refused, ServiceRefusal
from autoresearch.files import remove_tree
from autoresearch.formatting import escape_unstorable
from autoresearch.git.repository import Files, Manifest
from autoresearch.protocols import KILLED_REASONS, Failure, Proposal, Turn
from autoresearch.records import Experiment
from autoresearch.sandbox import landlock

SUBJECT_LENGTH = 72
REFUSED_S = 60.0  # until an agent whose service refused it is asked once more
POLL_S = 0.2  # while all agents wait


class TurnTaker:
    """Gives out experiments to the slots. A turn that yields nothing measurable is recorded, costs
    no run and is no experiment."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._lock = threading.Lock()
        self._unfinished = session.ledger.in_flight(session.record)
        self._worked: set[str] = set()  # names of agents
        self._warn_of_freedom()
        self.closed = False  # no agent has anything more to propose

    def next_experiment(self) -> Experiment | None:
        """One that was interrupted, else a new one; None when the session is to end."""
        with self._lock:
            while self._session.stopping is None and not self.closed:
                if self._unfinished:
                    return self._unfinished.pop(0)
                if self._session.limit() is not None:
                    return None
                self._session.executor.check_disk()
                member = self._session.scheduler.next(time.monotonic())
                if member is None:
                    self._wait()
                elif (experiment := self._ask(member)) is not None:
                    return experiment
            return None

    def take(self, folder: Path, base: str, proposal: Proposal) -> Experiment:
        """The experiment that somebody made by editing `folder`, a copy of the files of commit
        `base`, which need not be the incumbent's.

        Raises `Refused` for everything the harness will not run.
        """
        session = self._session
        incumbent = session.ledger.incumbent(session.record)
        manifest = session.repository.manifest(base)
        hide(session, manifest, folder)
        changes = self._collect(folder, manifest)
        return self._open(session.scheduler.members[0], incumbent, changes, proposal, base)

    def _ask(self, member: Member) -> Experiment | None:
        """One agent's turn, and what follows for the agent."""
        scheduler = self._session.scheduler
        try:
            answer = self._turn(member)
        except AgentError as refusal:
            self._refused(member, refusal)
            return None
        member.refused = False
        if isinstance(answer, Experiment):
            scheduler.began(member)
            self._end_stretch(member)
            return answer
        if answer is None:
            self._leave(member)
        else:
            self._note(member, answer)
        return None

    def _turn(self, member: Member) -> Experiment | Failure | None:
        """One turn: a worktree for the agent, its edit, a commit, an experiment."""
        session = self._session
        incumbent = session.ledger.incumbent(session.record)
        worktree = session.paths.turns / "worktree"
        remove_tree(worktree)
        manifest = session.repository.materialize(incumbent.commit, worktree)
        hide(session, manifest, worktree)
        try:
            answer = member.propose(self._invitation(member, manifest))
            self._warn_of_costs(member, answer)
            if not isinstance(answer, Proposal):
                return answer
            try:
                changes = self._collect(worktree, manifest)
                return self._open(member, incumbent, changes, answer)
            except Refused as refused:
                message = escape_unstorable(str(refused))
                return Failure(refused.reason, message, 0.0, answer.tokens, answer.usd)
        finally:
            session.repository.put_aside(worktree, manifest)

    def _collect(self, folder: Path, manifest: Manifest) -> Files:
        try:
            return self._session.repository.collect(folder, manifest)
        except (OSError, UnicodeError) as error:  # a name or a mode that nobody expects
            raise Refused("unreadable", escape_unstorable(str(error))) from error

    def _invitation(self, member: Member, manifest: Manifest) -> Turn:
        session = self._session
        worktree = session.paths.turns / "worktree"
        text = ""
        if member.agent.reads:
            session.repository.make_repository(worktree)
            text = session.briefer.text(session.left())
        return Turn(
            worktree=worktree,
            editable=tuple(path for path in manifest if session.repository.is_editable(path)),
            history=session.history,
            briefing=text,
            timeout_s=session.task.agent.timeout_s,
            grants=session.grants(),
            usd_left=session.usd_left(),
        )

    def _warn_of_freedom(self) -> None:
        """Say it when nothing confines the agents' programs."""
        session = self._session
        free = "the agent's program is not confined, and can read and write what you can: "
        if not any(member.agent.reads for member in session.scheduler.members):
            return  # they start no program
        if not session.task.agent.confine:
            session.warn(f"{free}[agent] confine = false")
        elif landlock.abi() == 0:
            session.warn(f"{free}this system has no Landlock")

    def _warn_of_costs(self, member: Member, answer: Proposal | Failure | None) -> None:
        """Say it when the first turn that worked tells nothing of a cost that is limited."""
        told = isinstance(answer, Proposal) or (answer is not None and answer.reason == "no change")
        if not told or not member.agent.reads or member.name in self._worked:
            return
        self._worked.add(member.name)
        for what in ("tokens", "usd"):
            if getattr(self._session.task.limits, what) and getattr(answer, what) is None:
                self._session.warn(
                    f"agent {member.name} does not say what it uses: [limits] {what} does not hold "
                    "for it"
                )

    def _charged(self, failure: Failure) -> Failure:
        """A turn that was cut off before it said what it used counts as the largest so far."""
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
        """The harness commits, by plumbing, and enters the experiment in the ledger."""
        session = self._session
        subject = " ".join(proposal.description.split()) or "(no description)"
        message = f"{subject[:SUBJECT_LENGTH]}\n\n"
        if len(subject) > SUBJECT_LENGTH or proposal.hypothesis:
            message += f"{subject}\n\n{proposal.hypothesis}".strip() + "\n\n"
        message += f"Autoresearch-Session: {session.record.tag}\n"
        message += f"Autoresearch-Agent: {member.name}\n"
        commit = session.repository.commit(base or incumbent.commit, changes, message)
        if base is not None and base != incumbent.commit:
            moved = session.repository.rebase(base, commit, incumbent.commit)
            if moved is None:
                why = f"it does not fit onto experiment {incumbent.number}, kept meanwhile"
                raise Refused("conflict", why)
            commit = moved
        tree = session.repository.tree_id(commit)
        if known := session.ledger.with_tree(session.record, tree):
            raise Refused("duplicate", f"the same files as experiment {known.number}")
        with session.ledger.transaction():
            experiment = session.ledger.begin(
                session.record,
                base=incumbent.number,
                commit=commit,
                tree=tree,
                agent=member.name,
                proposal=proposal,
                lines=session.repository.changed_lines(incumbent.commit, commit),
                now=time.time(),
            )
            # Before the commit point: a `git gc` must never find a recorded commit without a name.
            session.repository.keep_reachable(session.record.tag, experiment.number, commit)
        return experiment

    def _refused(self, member: Member, refusal: AgentError) -> None:
        """It cannot go on and leaves; a service's refusal is believed at its second turn running.
        What the turn cost is counted either way."""
        failure = Failure("refused", str(refusal), REFUSED_S, refusal.tokens, refusal.usd)
        failure = recordable(failure)
        if isinstance(refusal, ServiceRefusal) and not member.refused:
            member.refused = True
            self._note(member, failure)
            return
        self._session.ledger.add_turn(self._session.record, member.name, failure, time.time())
        self._session.dismiss(member, refusal)

    def _leave(self, member: Member) -> None:
        """It has nothing more to propose."""
        session = self._session
        taking_over = session.scheduler.leave(member)
        if taking_over is not None:
            session.warn(f"no other agent is left: the fallback {taking_over.name} takes over")
        elif session.scheduler.members:
            session.emit(AgentFinished(member.name))
        else:
            self.closed = True

    def _note(self, member: Member, failure: Failure) -> None:
        """Record a turn that came to nothing. People hear of each edit that was refused, but of a
        service that is down only when the wait grows, and when it works again."""
        session = self._session
        session.ledger.add_turn(session.record, member.name, self._charged(failure), time.time())
        pause = session.scheduler.failed(member, failure, time.monotonic())
        if pause.seconds == 0:
            self._end_stretch(member)
        if pause.grew or pause.seconds == 0:
            session.emit(TurnFailed(member.name, failure.reason, failure.message, pause.seconds))

    def _end_stretch(self, member: Member) -> None:
        if failures := self._session.scheduler.worked(member):
            self._session.emit(AgentRecovered(member.name, failures))

    def _wait(self) -> None:
        """Until the first agent is ready, or the session is to end."""
        session = self._session
        until = session.scheduler.wakes_at()
        while time.monotonic() < until and session.stopping is None and session.limit() is None:
            time.sleep(POLL_S)


def hide(session: Session, manifest: Manifest, folder: Path) -> None:
    """Take the hidden files out of a copy of a commit's files, and out of its manifest."""
    for name in session.task.hidden:
        hidden = str(session.repository.prefix / name.rstrip("/"))
        remove_tree(folder / hidden)
        for path in [p for p in manifest if p == hidden or p.startswith(hidden + "/")]:
            del manifest[path]
