"""The agent's desk: turns become experiments, one at a time, or come to nothing."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from autoresearch import briefing, sandbox
from autoresearch.confine import checkout
from autoresearch.errors import AutoresearchError, Refused
from autoresearch.records import Experiment, Failure, Grants, Proposal, Turn
from autoresearch.session import Session
from autoresearch.task import private_paths
from autoresearch.workspace import Files, Manifest, remove_tree

BACKOFF_S = (1.0, 300.0)  # after a failed turn: at first, and at most
SUBJECT_LENGTH = 72


class Desk:
    """Gives out experiments to the slots. A turn that yields nothing measurable is recorded, costs
    no run and is no experiment."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._lock = threading.Lock()
        self._unfinished = session.ledger.in_flight(session.row)
        self._failures = 0
        self._warn_of_freedom()
        self.closed = False  # the agent has nothing more to propose

    def next_experiment(self) -> Experiment | None:
        """One that was interrupted, else a new one; None when the session is to end."""
        with self._lock:
            while self._session.stopping is None and not self.closed:
                if self._unfinished:
                    return self._unfinished.pop(0)
                if self._session.limit() is not None:
                    return None
                self._session.laboratory.check_disk()
                answer = self._turn()
                if isinstance(answer, Experiment):
                    self._failures = 0
                    return answer
                if answer is None:
                    self.closed = True
                else:
                    self._note(answer)
            return None

    def take(self, folder: Path, base: Experiment, proposal: Proposal) -> Experiment:
        """The experiment that somebody made by editing `folder`, a copy of `base`'s files.

        Raises `Refused` for everything the harness will not run.
        """
        manifest = self._session.workspace.manifest(base.commit)
        self.hide(manifest, folder)
        return self._open(base, self._collect(folder, manifest), proposal)

    def _turn(self) -> Experiment | Failure | None:
        """One turn: a worktree for the agent, its edit, a commit, an experiment."""
        session = self._session
        incumbent = session.ledger.incumbent(session.row)
        worktree = session.home.turns / "worktree"
        remove_tree(worktree)
        manifest = session.workspace.materialize(incumbent.commit, worktree)
        self.hide(manifest, worktree)
        try:
            answer = self._propose(self._invitation(manifest))
            if not isinstance(answer, Proposal):
                return answer
            return self._open(incumbent, self._collect(worktree, manifest), answer)
        except Refused as refused:
            return Failure(refused.reason, printable(str(refused)), retry_after_s=0)
        finally:
            remove_tree(worktree)

    def _propose(self, turn: Turn) -> Proposal | Failure | None:
        try:
            return self._session.agent.propose(turn)
        except AutoresearchError:
            raise
        except Exception as error:  # a bug of one agent is no reason to lose the night
            return Failure("agent broke", f"{type(error).__name__}: {error}")

    def _collect(self, folder: Path, manifest: Manifest) -> Files:
        try:
            return self._session.workspace.collect(folder, manifest)
        except (OSError, UnicodeError) as error:  # a name or a mode that nobody expects
            raise Refused("unreadable", printable(str(error))) from error

    def hide(self, manifest: Manifest, worktree: Path) -> None:
        """Take the hidden files out of the worktree."""
        session = self._session
        for name in session.task.score.hidden if session.task.score else ():
            hidden = str(session.workspace.prefix / name.rstrip("/"))
            remove_tree(worktree / hidden)
            for path in [p for p in manifest if p == hidden or p.startswith(hidden + "/")]:
                del manifest[path]

    def _invitation(self, manifest: Manifest) -> Turn:
        session = self._session
        worktree = session.home.turns / "worktree"
        text = ""
        if session.agent.reads:
            session.workspace.make_repository(worktree)
            text = briefing.text(session.task, session.ledger, session.row)
        return Turn(
            worktree=worktree,
            editable=tuple(path for path in manifest if session.workspace.is_editable(path)),
            history=session.history,
            briefing=text,
            timeout_s=session.task.agent.timeout_s,
            grants=self._grants(),
        )

    def _grants(self) -> Grants:
        """What the task lets an agent's process use, and what it must never see."""
        task, top = self._session.task, checkout(self._session.workspace)
        given = task.agent
        return Grants(given.env, given.read, given.write, given.confine, top, private_paths(task))

    def _warn_of_freedom(self) -> None:
        """Say it when nothing confines the agent's program."""
        session = self._session
        free = "the agent's program is not confined, and can read and write what you can: "
        if not session.agent.reads:
            return  # it starts no program
        if not session.task.agent.confine:
            session.warn(f"{free}[agent] confine = false")
        elif sandbox.abi() == 0:
            session.warn(f"{free}this system has no Landlock")

    def _open(self, incumbent: Experiment, changes: Files, proposal: Proposal) -> Experiment:
        """The harness commits, by plumbing, and enters the experiment in the ledger."""
        session = self._session
        subject = " ".join(proposal.description.split()) or "(no description)"
        message = f"{subject[:SUBJECT_LENGTH]}\n\n"
        if len(subject) > SUBJECT_LENGTH or proposal.hypothesis:
            message += f"{subject}\n\n{proposal.hypothesis}".strip() + "\n\n"
        message += f"Autoresearch-Session: {session.row.tag}\n"
        message += f"Autoresearch-Agent: {session.agent.name}\n"
        commit = session.workspace.commit(incumbent.commit, changes, message)
        tree = session.workspace.tree_id(commit)
        if known := session.ledger.with_tree(session.row, tree):
            raise Refused("duplicate", f"the same files as experiment {known.number}")
        experiment = session.ledger.begin(
            session.row,
            base=incumbent.number,
            commit=commit,
            tree=tree,
            agent=session.agent.name,
            proposal=proposal,
            lines=session.workspace.changed_lines(incumbent.commit, commit),
            now=time.time(),
        )
        session.workspace.keep_reachable(session.row.tag, experiment.number, commit)
        return experiment

    def _note(self, failure: Failure) -> None:
        """Record a fruitless turn, and wait before the next: not after an edit that was refused,
        longer and longer while the agent itself fails."""
        session = self._session
        session.ledger.add_turn(session.row, session.agent.name, failure, time.time())
        session.say(
            f"turn of {session.agent.name} came to nothing: {failure.reason}: "
            f"{failure.message[:200]}"
        )
        if failure.retry_after_s == 0:
            return
        self._failures += 1
        pause_s = min(BACKOFF_S[0] * 2.0 ** (self._failures - 1), BACKOFF_S[1])
        until = time.monotonic() + max(pause_s, failure.retry_after_s or 0.0)
        while time.monotonic() < until and session.stopping is None and session.limit() is None:
            time.sleep(0.2)


def printable(text: str) -> str:
    """`text` without what neither SQLite nor a terminal can take: bytes that are no UTF-8."""
    return text.encode(errors="backslashreplace").decode()
