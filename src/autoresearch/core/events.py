"""What a session tells while it works, as values. `str(event)` is its line for people.

A session hands every event to its listeners: the terminal, plain lines, `run --json`, the log of a
detached session, tests. A listener is called from the thread in which the event happens, several
threads may call it at once, and it must not raise.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from autoresearch.formatting import counted, plain

MESSAGE_LENGTH = 200  # of a failed turn's message in its line; the ledger has all of it


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all events. Their fields are plain values that JSON can hold."""

    @classmethod
    def kind(cls) -> str:
        """The class's name in snake case."""
        return re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()

    def to_json(self) -> dict[str, Any]:
        """The kind as `event`, the line as `text`, and the fields."""
        return {"event": self.kind(), "text": str(self), **asdict(self)}


Listener = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class SetupStarted(Event):
    """The task's setup command begins."""

    command: str

    def __str__(self) -> str:
        return f"setup: {self.command}"


@dataclass(frozen=True, slots=True)
class BaselineRunFinished(Event):
    """One run of the unchanged program gave its metric. `number` counts from 1."""

    number: int
    wanted: int
    metric_name: str
    metric: float
    wall_s: float

    def __str__(self) -> str:
        shown = f"{self.metric_name} {plain(self.metric)}, {self.wall_s:.1f} s"
        return f"baseline {self.number} of {self.wanted}: {shown}"


@dataclass(frozen=True, slots=True)
class ExperimentFinished(Event):
    """The verdict on an experiment is in the ledger."""

    number: int
    status: str
    reason: str | None
    metric_name: str
    metric: float | None
    description: str

    def __str__(self) -> str:
        reason = f" ({self.reason})" if self.reason else ""
        metric = "" if self.metric is None else f" {self.metric_name} {plain(self.metric)}"
        return f"{self.number:4d} {self.status}{reason}{metric}: {self.description}"


@dataclass(frozen=True, slots=True)
class KeepFlagged(Event):
    """A kept change is too good to be believed before somebody has looked at it."""

    number: int
    flag: str

    def __str__(self) -> str:
        return f"{self.number:4d} flagged: {self.flag}"


@dataclass(frozen=True, slots=True)
class VerificationStarted(Event):
    """Commits, such as the baseline and the best one, are measured again, `runs` times each."""

    runs: int
    commits: int

    def __str__(self) -> str:
        return f"measuring again: {self.commits} versions, to {counted(self.runs, 'run')} each"


@dataclass(frozen=True, slots=True)
class RunLost(Event):
    """A run or a guard command was cut off by something else than the session, and is repeated."""

    what: str
    why: str

    def __str__(self) -> str:
        return f"{self.what} was lost ({self.why}): it is made again"


@dataclass(frozen=True, slots=True)
class ProbeStarted(Event):
    """An agent gets its first small turn."""

    agent: str

    def __str__(self) -> str:
        return f"first small turn of {self.agent}"


@dataclass(frozen=True, slots=True)
class TurnFailed(Event):
    """An agent's turn became no experiment. `wait_s` is the pause before its next turn."""

    agent: str
    reason: str
    message: str
    wait_s: float

    def __str__(self) -> str:
        wait = f"; it waits {self.wait_s:.3g} s" if self.wait_s else ""
        message = self.message[:MESSAGE_LENGTH]
        return f"turn of {self.agent} came to nothing: {self.reason}: {message}{wait}"


@dataclass(frozen=True, slots=True)
class AgentRecovered(Event):
    """An agent answered again after failed turns."""

    agent: str
    failures: int

    def __str__(self) -> str:
        return f"{self.agent} works again, after {counted(self.failures, 'turn')} that failed"


@dataclass(frozen=True, slots=True)
class AgentFinished(Event):
    """An agent has nothing more to propose; other agents go on."""

    agent: str

    def __str__(self) -> str:
        return f"{self.agent} has nothing more to propose; the others go on"


@dataclass(frozen=True, slots=True)
class AgentNotClosed(Event):
    """An agent raised an error when it was to release what it holds."""

    agent: str
    error: str

    def __str__(self) -> str:
        return f"agent {self.agent} did not close: {self.error}"


@dataclass(frozen=True, slots=True)
class Warned(Event):
    """Something the user should know. The status and the report repeat it."""

    warning: str

    def __str__(self) -> str:
        return f"warning: {self.warning}"


@dataclass(frozen=True, slots=True)
class StopRequested(Event):
    """The user asked for an end; the runs under way still finish."""

    def __str__(self) -> str:
        return "finishing the runs under way; Ctrl-C again stops them at once"
