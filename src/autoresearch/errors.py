"""The errors a user can meet, as a tree. Each has one clear message: what was wrong, where, and
what is accepted.

    AutoresearchError                   exit code
    ├── TaskError                       2   the task file, or what it names, is unusable
    ├── WorkspaceError                  2   the git repository cannot serve
    │   ├── DirtyError                  2   an editable file has uncommitted changes
    │   └── NotOursError                2   a branch, a tag or a file belongs to somebody else
    ├── LedgerError                     2   the record is unreadable, damaged or of a newer version
    ├── BusyError                       3   another process owns the session
    ├── BaselineError                   4   the unchanged program does not work
    ├── AgentError                      5   the agent cannot go on (a failed turn is not an error)
    │   └── ServiceRefusal              5   its service refused the key, the model or the account
    ├── ExportError                     2   a session cannot be exported: the format, or the folder
    ├── RunnerError                     6   the machinery that executes runs broke
    └── StorageError                    7   disk full or read-only: nothing more can be recorded
    Refused                             -   a proposal not to be run; costs a turn, no run

Untrusted work (a run, an agent's turn) returns a value and never raises. Errors of git, SQLite and
the operating system are mapped to this tree once, in the module that calls them.
"""

from __future__ import annotations


class AutoresearchError(Exception):
    """Base of all errors shown to the user without a traceback."""

    exit_code = 1


class TaskError(AutoresearchError):
    exit_code = 2


class WorkspaceError(AutoresearchError):
    exit_code = 2


class DirtyError(WorkspaceError):
    pass


class NotOursError(WorkspaceError):
    pass


class LedgerError(AutoresearchError):
    exit_code = 2


class BusyError(AutoresearchError):
    exit_code = 3


class BaselineError(AutoresearchError):
    exit_code = 4


class AgentError(AutoresearchError):
    """`tokens` and `usd` are the costs of the turn that it ended, if the agent reports them."""

    exit_code = 5

    def __init__(
        self, message: str = "", *, tokens: int | None = None, usd: float | None = None
    ) -> None:
        super().__init__(message)
        self.tokens, self.usd = tokens, usd


class ServiceRefusal(AgentError):
    """Ends the agent's part only if it comes twice in a row: the first may be a short outage."""


class ExportError(AutoresearchError):
    exit_code = 2


class RunnerError(AutoresearchError):
    exit_code = 6


class StorageError(AutoresearchError):
    exit_code = 7


class Refused(Exception):
    """A proposal that is no experiment. `reason` is the ledger's term ("no change", "frozen file",
    "duplicate", ...), the message gives the details."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
