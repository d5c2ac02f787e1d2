"""The probe: before anything is measured, each agent that needs a service replaces one word in one
tiny file. An agent that is not logged in or cannot edit fails at once, not at three in the morning.
A session that has its baseline is not probed: its first real turn shows as much.
"""

from __future__ import annotations

import time
from pathlib import Path

from autoresearch.core.control import Stopped
from autoresearch.core.events import ProbeStarted
from autoresearch.core.scheduler import Member
from autoresearch.core.session import Session
from autoresearch.errors import AgentError
from autoresearch.files import clear_path
from autoresearch.formatting import escape_unstorable
from autoresearch.protocols import Failure, Proposal, Turn
from autoresearch.records import SERVICE_REASONS
from autoresearch.store.answers import make_recordable
from autoresearch.store.ledger import PROBE

TIMEOUT_S = 180.0
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


def probe_agents(session: Session) -> None:
    """Give one small turn to every agent that wants one. An agent that fails leaves the session;
    raises `AgentError` if none is left, with nothing measured and the session ready to be resumed.
    """
    if not session.task.agent.probe or session.ledger.has_baseline(session.record):
        return
    probed: list[str] = []
    while waiting := [  # a fallback may join
        member
        for member in session.scheduler.members
        if member.name not in probed and getattr(member.agent, "probes", False)
    ]:
        probed.append(waiting[0].name)
        _probe(session, waiting[0])
        if session.stopping is not None:
            raise Stopped


def _probe(session: Session, member: Member) -> None:
    """Give an agent its small turn, record the cost, and let it wait or leave if it failed."""
    session.emit(ProbeStarted(member.name))
    refusal = None
    try:
        answer = _take_turn(session, member)
    except AgentError as error:
        refusal = error
        answer = make_recordable(Failure("cannot go on", str(error), None, error.tokens, error.usd))
    if isinstance(answer, Proposal):
        text = f"done: {answer.description}"
    else:
        text = f"{answer.reason}: {answer.message}"
    text = escape_unstorable(text)
    turn = Failure(PROBE, text, None, answer.tokens, answer.usd)
    session.ledger.add_turn(session.record, member.name, turn, time.time())
    if isinstance(answer, Proposal) or session.stopping is not None:
        return
    if answer.reason in SERVICE_REASONS:
        session.scheduler.note_failure(member, answer, time.monotonic())
        session.warn(f"agent {member.name} could not be tried, its service may recover: {text}")
        return
    refusal = refusal or AgentError(
        f"{member.name} failed its first small turn, to replace one word in a file: {text}. "
        "Nothing was measured; mend it and run again, or leave such turns out with "
        "`[agent] probe = false`"
    )
    session.dismiss(member, refusal)


def _take_turn(session: Session, member: Member) -> Proposal | Failure:
    """Return the agent's answer, or a `Failure` if it left the file as it was."""
    worktree = session.paths.turns / PROBE
    file = worktree / FILE
    clear_path(worktree)
    worktree.mkdir(parents=True)
    file.write_text(TEXT)
    try:
        if member.agent.wants_briefing:
            session.repository.trees.make_repository(worktree)
        answer = member.propose(
            Turn(
                worktree=worktree,
                editable=(FILE,),
                history=session.history,
                briefing=BRIEFING,
                timeout_s=min(session.task.agent.timeout_s, TIMEOUT_S),
                grants=session.grants(),
                usd_left=session.usd_left(),
            )
        )
        if answer is None:
            return Failure("no change", "it has nothing to propose", 0.0)
        if isinstance(answer, Proposal) and not _is_edited(file):
            return Failure("no change", answer.description, 0.0, answer.tokens, answer.usd)
        return answer
    finally:
        clear_path(worktree)


def _is_edited(file: Path) -> bool:
    try:
        return file.read_bytes() != TEXT.encode()
    except OSError:
        return False
