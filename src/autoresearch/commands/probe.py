"""The first small turn: before anything is measured, each agent that needs a service replaces one
word in one tiny file. Who is not logged in, or cannot edit, is found out now and not at three in
the morning. A session that has its baseline goes right on: there the first real turn tells as much.
"""

from __future__ import annotations

import time
from pathlib import Path

from autoresearch.core.control import Stopped
from autoresearch.core.events import ProbeStarted
from autoresearch.core.scheduler import Member
from autoresearch.core.session import Session
from autoresearch.errors import AgentError
from autoresearch.files import remove_tree
from autoresearch.formatting import escape_unstorable
from autoresearch.protocols import SERVICE_REASONS, Failure, Proposal, Turn
from autoresearch.store.answers import make_recordable
from autoresearch.store.ledger import PROBE

LONGEST_S = 180.0  # of such a turn
FILE, BEFORE, AFTER = "hello.txt", "goodbye", "hello"
TEXT = f"{BEFORE}, world\n"
BRIEFING = f"""\
This is a small test before the real work: can you edit a file here?

The file {FILE} holds one line:

    {TEXT}
Replace its word "{BEFORE}" by "{AFTER}", so that the line reads

    {TEXT.replace(BEFORE, AFTER)}
Change nothing else. Answer with one line that says what you changed.
"""


def first_turns(session: Session) -> None:
    """One small turn of every agent that wants one. Who fails leaves; raises `AgentError` when
    nobody is left then, with nothing measured and the session ready to be resumed."""
    if not session.task.agent.probe or session.ledger.has_baseline(session.record):
        return
    tried: list[Member] = []
    while left := [one for one in session.scheduler.members if one not in tried and _wants(one)]:
        tried.append(left[0])
        _try(session, left[0])
        if session.stopping is not None:
            raise Stopped


def _wants(member: Member) -> bool:
    return bool(getattr(member.agent, "probes", False))


def _try(session: Session, member: Member) -> None:
    """One small turn, recorded with what it cost, and what follows from it."""
    session.emit(ProbeStarted(member.name))
    refusal = None
    try:
        answer = _turn(session, member)
    except AgentError as error:
        refusal = error
        answer = make_recordable(Failure("cannot go on", str(error), None, error.tokens, error.usd))
    _record(session, member, answer)
    if isinstance(answer, Proposal) or session.stopping is not None:
        return
    said = f"{answer.reason}: {answer.message}"
    if answer.reason in SERVICE_REASONS:
        session.scheduler.note_failure(member, answer, time.monotonic())
        session.warn(
            f"agent {member.name} could not be tried, its service may recover: "
            f"{escape_unstorable(said)}"
        )
        return
    session.dismiss(member, refusal or _failed(member, said))


def _turn(session: Session, member: Member) -> Proposal | Failure:
    """The answer; a `Failure` too if the file is as it was."""
    worktree = session.paths.turns / PROBE
    remove_tree(worktree)
    worktree.mkdir(parents=True)
    (worktree / FILE).write_text(TEXT)
    try:
        if member.agent.wants_briefing:
            session.repository.trees.make_repository(worktree)
        answer = member.propose(
            Turn(
                worktree=worktree,
                editable=(FILE,),
                history=session.history,
                briefing=BRIEFING,
                timeout_s=min(session.task.agent.timeout_s, LONGEST_S),
                grants=session.grants(),
                usd_left=session.usd_left(),
            )
        )
        if answer is None or (isinstance(answer, Proposal) and not _edited(worktree)):
            said = answer.description if answer else "it has nothing to propose"
            return Failure("no change", said, 0.0, *_costs(answer))
        return answer
    finally:
        remove_tree(worktree)


def _edited(worktree: Path) -> bool:
    try:
        return (worktree / FILE).read_bytes() != TEXT.encode()
    except OSError:
        return False


def _costs(answer: Proposal | None) -> tuple[int | None, float | None]:
    return (answer.tokens, answer.usd) if answer else (None, None)


def _record(session: Session, member: Member, answer: Proposal | Failure) -> None:
    said = (
        f"done: {answer.description}"
        if isinstance(answer, Proposal)
        else f"{answer.reason}: {answer.message}"
    )
    turn = Failure(PROBE, escape_unstorable(said), None, answer.tokens, answer.usd)
    session.ledger.add_turn(session.record, member.name, turn, time.time())


def _failed(member: Member, said: str) -> AgentError:
    return AgentError(
        f"{member.name} failed its first small turn, to replace one word in a file: "
        f"{escape_unstorable(said)}. Nothing was measured; mend it and run again, or leave such "
        "turns out with `[agent] probe = false`"
    )
