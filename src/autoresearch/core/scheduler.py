"""Schedule the agents of a session: whose turn it is, which agent waits, which has left.

The next turn goes to the agent furthest behind its share of the experiments begun. An agent that
fails waits, longer each time, while the others go on. One whose last turn failed lets the others go
first once. Nothing here reads a clock: `now` is a monotonic time in seconds. Several turns may be
under way; one more is begun only by the agent that is furthest behind with these counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from autoresearch.core.events import AgentNotClosed, Listener
from autoresearch.errors import AgentError, AutoresearchError
from autoresearch.protocols import Agent, Failure, Proposal, Turn
from autoresearch.records import SERVICE_REASONS
from autoresearch.store.answers import make_recordable

BACKOFF_S = (1.0, 300.0)  # after a failed turn: at first, and at most


@dataclass(slots=True)
class Member:
    """An agent at work, under the name that the ledger knows it by."""

    name: str
    agent: Agent
    weight: float = 1.0
    begun: int = 0  # experiments, over all resumes
    failures: int = 0  # in a row
    ready_at: float = 0.0
    longest_s: float = 0.0  # of the pauses in this row of failures
    refused: bool = False  # its service refused its last turn
    passed: bool = False  # its last turn failed: the others go first
    at_once: int = 1  # turns: as many as there are copies of the agent
    spare: list[Agent] = field(default_factory=list)  # copies besides `agent` that are free
    thinking: int = 0  # turns under way

    def begin_turn(self) -> Agent:
        """Return the agent, or a copy of it, that is free."""
        self.thinking += 1
        return self.spare.pop() if self.spare else self.agent

    def end_turn(self, agent: Agent) -> None:
        self.thinking -= 1
        if agent is not self.agent:
            self.spare.append(agent)

    def propose(self, turn: Turn, agent: Agent | None = None) -> Proposal | Failure | None:
        """Ask the agent, or this copy. Raises only errors that make going on pointless."""
        try:
            answer = (agent or self.agent).propose(turn)
            return None if answer is None else make_recordable(answer)
        except AutoresearchError:
            raise
        except Exception as error:  # a bug of one agent is no reason to lose the night
            return make_recordable(Failure("agent broke", f"{type(error).__name__}: {error}"))

    @property
    def share(self) -> float:
        """Experiments and turns begun per weight: the lower, the further behind."""
        return (self.begun + self.thinking) / self.weight

    @property
    def is_busy(self) -> bool:
        return self.thinking >= self.at_once


@dataclass(frozen=True, slots=True)
class Pause:
    """The pause after a failed turn."""

    seconds: float  # 0: the next turn may begin at once
    grew: bool  # longer than any since it last worked


class AgentScheduler:
    def __init__(
        self,
        agents: Sequence[tuple[str, Agent, float]],
        fallback: tuple[str, Agent] | None = None,
        begun: Mapping[str, int] | None = None,
        copies: Mapping[str, Sequence[Agent]] | None = None,
    ) -> None:
        """`agents` are (name, agent, weight) with different names; `begun` counts the experiments
        that each name has begun already; `copies` may think at the same time as the agent."""
        self._begun, self._copies = begun or {}, copies or {}
        self.members = [self._member(*agent) for agent in agents]
        self._fallback = self._member(*fallback) if fallback else None
        self._everyone = [*self.members, *([self._fallback] if self._fallback else [])]
        self._agents = [agent for one in self._everyone for agent in (one.agent, *one.spare)]
        self._refusal: AgentError | None = None  # why the latest left that could not go on

    def _member(self, name: str, agent: Agent, weight: float = 1.0) -> Member:
        spare = list(self._copies.get(name, ()))
        begun = self._begun.get(name, 0)
        return Member(name, agent, weight, begun, at_once=1 + len(spare), spare=spare)

    @property
    def names(self) -> str:
        """For people."""
        return ", ".join(member.name for member in self.members)

    @property
    def has_readers(self) -> bool:
        """Whether an agent reads briefings, as programs and models do."""
        return any(member.agent.wants_briefing for member in self.members)

    @property
    def at_once(self) -> int:
        """How many turns that take time and money may be under way at the same time, at least 1."""
        return sum(m.at_once for m in self.members if m.agent.wants_briefing) or 1

    @property
    def thinking(self) -> int:
        """How many turns are under way."""
        return sum(member.thinking for member in self._everyone)

    # ---- whose turn it is ------------------------------------------------------------------

    def next(self, now: float) -> Member | None:
        """Return the member whose turn it is, or None while all wait or it thinks already."""
        ready = [member for member in self.members if member.ready_at <= now]
        if all(member.passed for member in ready):
            for member in ready:
                member.passed = False
        candidates = [member for member in ready if not member.passed]
        turn = min(candidates, key=lambda member: (member.share, member.is_busy), default=None)
        return None if turn is None or turn.is_busy else turn

    # ---- results of turns --------------------------------------------------------------------

    def note_experiment(self, member: Member) -> None:
        """Count an experiment."""
        member.begun += 1
        for each in self.members:
            each.passed = False

    def reset_failures(self, member: Member) -> int:
        """Reset the failure count after an answer. Return the count before."""
        failures, member.failures, member.longest_s = member.failures, 0, 0.0
        return failures

    def note_failure(self, member: Member, failure: Failure, now: float) -> Pause:
        """Count a failed turn. Return the pause before the next one."""
        member.passed = True
        if member.at_once > 1 and now < member.ready_at:  # begun before another copy failed
            member.ready_at = max(member.ready_at, now + (failure.retry_after_s or 0.0))
            return Pause(member.ready_at - now, grew=False)
        if failure.retry_after_s == 0 and failure.reason not in SERVICE_REASONS:
            return Pause(0.0, grew=False)
        # Beyond 2^20 it is the longest pause anyway, and 2.0^1024 is no float.
        doubled_s = BACKOFF_S[0] * 2.0 ** min(member.failures, 20)
        seconds = max(min(doubled_s, BACKOFF_S[1]), failure.retry_after_s or 0.0)
        pause = Pause(seconds, grew=seconds > member.longest_s)
        member.failures += 1
        member.longest_s = max(member.longest_s, seconds)
        member.ready_at = now + seconds
        return pause

    def leave(self, member: Member, refusal: AgentError | None = None) -> Member | None:
        """Remove an agent that has nothing more to propose, or that cannot go on (`refusal`).

        Returns the fallback if it takes over, which it does when no agent is left and at least one
        could not go on. Raises the latest refusal if there is no fallback then.
        """
        self.members.remove(member)
        self._refusal = refusal or self._refusal
        if self.members or self._refusal is None:
            return None
        if self._fallback is None:
            raise self._refusal
        taking_over, self._fallback, self._refusal = self._fallback, None, None
        self.members.append(taking_over)
        return taking_over

    # ---- all of them -----------------------------------------------------------------------

    def interrupt(self) -> None:
        """End the turns under way, from another thread."""
        for agent in self._agents:
            if interrupt := getattr(agent, "interrupt", None):
                interrupt()

    def close(self, emit: Listener) -> None:
        """Let every agent release what it holds. Called once, at the session's end."""
        for agent in self._agents:
            if close := getattr(agent, "close", None):
                try:
                    close()
                except Exception as error:  # a bug of one must not leave the others open
                    emit(AgentNotClosed(agent.name, f"{type(error).__name__}: {error}"))
