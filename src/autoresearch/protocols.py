"""The contracts of agents and runners, and the values that pass between them and the harness.

To write an agent or a runner, write a class with the methods of `Agent` or `Runner`.
`autoresearch.testing` has a conformance suite for each.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Protocol

from autoresearch.records import Experiment, Metric

# --------------------------------------------------------------------------------------------
# Agents

EDIT_LIMIT_BYTES = 2_000_000  # an editable file beyond this is no source: the edit is refused


class History(Protocol):
    """The experiments so far, as data. A call costs the same at the 2,000th experiment."""

    @property
    def metric(self) -> Metric: ...
    @property
    def noise_sd(self) -> float | None:
        """Standard deviation of one run, in metric units; None while it is not known."""
        ...

    def baseline(self) -> Experiment:
        """The unchanged program, experiment 0."""
        ...

    def incumbent(self) -> Experiment: ...
    def incumbent_score(self) -> float | None: ...
    def finished(self, after: int = 0) -> list[Experiment]:
        """Finished experiments with `order` > `after`, in that order (the baseline excluded)."""
        ...

    def in_flight(self) -> list[Experiment]: ...
    def editable_files(self, commit: str) -> dict[str, bytes]:
        """The editable files of a commit: path in the repository -> content."""
        ...


@dataclass(frozen=True, slots=True)
class Grants:
    """The access of an agent's process beyond its worktree, its program and its configuration."""

    env: tuple[str, ...] = ()  # names of variables
    read: tuple[str, ...] = ()  # absolute paths, perhaps with ~
    write: tuple[str, ...] = ()
    confine: bool = True
    checkout: Path | None = None  # the user's repository: only a virtual environment in it is open
    private: tuple[Path, ...] = ()  # the record and the hidden files: closed in any case


@dataclass(frozen=True, slots=True)
class Turn:
    """The input of an agent's attempt to propose a change."""

    worktree: Path  # the incumbent's files; edit here. The harness copies the editable ones out
    editable: tuple[str, ...]  # paths in the worktree that exist now and may be edited
    history: History
    briefing: str  # the history as text of bounded size; empty unless the agent wants it
    timeout_s: float | None = None
    grants: Grants = Grants()
    usd_left: float | None = None  # of the session's limit; None without a limit


@dataclass(frozen=True, slots=True)
class Proposal:
    """An agent's description of its edit. It reports no metric and no status."""

    description: str  # one line
    hypothesis: str = ""
    notes: str = ""  # for its own later turns
    tokens: int | None = None
    usd: float | None = None


class Briefer(Protocol):
    """Writes the briefing of an agent that wants one."""

    def text(self, left: Sequence[str] = ()) -> str:
        """The briefing. `left` has one line for each limit: the amount left."""
        ...


KILLED_REASONS = ("timeout", "interrupted", "log too large", "lost")
"""Reasons of a `Failure` whose turn was cut off: it may have cost more than it reported."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A turn without a proposal: the service is down, the answer is no edit, time ran out.

    The next turn waits longer after each failure, and at least `retry_after_s`. With 0 it does not
    wait, unless the reason is one of SERVICE_REASONS."""

    reason: str
    message: str
    retry_after_s: float | None = None
    tokens: int | None = None
    usd: float | None = None


class Agent(Protocol):
    """Proposes a change by editing `turn.worktree`.

    The loop calls `propose` from any thread, one call at a time. It returns a `Proposal` after
    editing, a `Failure` if this turn produced none, or `None` if the agent has nothing more to
    propose: the session ends when no agent is left. It raises `AgentError` only when going on is
    pointless, for example if the key is refused; the error's `tokens` and `usd` count as well.

    Optional members: `probes = True` asks for a first small turn before anything is measured, on a
    worktree with one tiny file; `fixed = True` says that it proposes a list of given changes, so
    that none of its turns is given to near misses together; `interrupt()`, called from another
    thread, ends the current turn as a `Failure`; `close()` is called at the session's end;
    `check_files(files)`, called with the editable files before anything is measured, raises
    `AgentError` if it can propose nothing there.
    """

    name: str
    wants_briefing: bool  # and a git repository of one commit in the worktree

    def propose(self, turn: Turn) -> Proposal | Failure | None: ...


# --------------------------------------------------------------------------------------------
# Runners


@dataclass(frozen=True, slots=True)
class Confinement:
    """The files that a process and its descendants may use. All others are refused.

    A path is a folder with everything below it, or a single file. A path that does not exist when
    the process starts is skipped. `write` includes reading and executing.
    """

    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    network: bool | None = None  # False: only AF_UNIX sockets, and no abstract ones of others
    proc: bool = False  # it may write the files of processes in /proc, such as its own
    pinned: bool = False  # it may use no other cores than those it is started on

    def to_json(self) -> dict[str, Any]:
        return vars_of(self)

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Confinement:
        paths = {name: tuple(given[name]) for name in ("read", "write")}
        return cls(**{**given, **paths})


def vars_of(one: Any) -> dict[str, Any]:
    """The fields of a dataclass with slots. `asdict` copies them deeply, which takes 2 ms a run."""
    return {member.name: getattr(one, member.name) for member in fields(one)}


NOT_PRELOADED = "not preloaded"  # `RunResult.stopped`: the modules to preload cannot be
PATH_FIELDS = ("tree", "log", "outcome")  # of a RunSpec: paths of the harness's machine


@dataclass(frozen=True, slots=True)
class RunSpec:
    """The input of a runner for one run, apart from the content of its tree."""

    argv: tuple[str, ...]
    tree: Path  # a folder for this run alone, which the runner makes of a `TreeSource`
    log: Path  # stdout and stderr, as one file
    outcome: Path  # the runner writes the RunResult here as JSON, atomically
    env: Mapping[str, str]  # the whole environment; the runner adds only the slot's variables
    timeout_s: float  # wall; after this the run is killed
    limit_s: float | None = None  # of `limit_clock`, over the whole tree of processes
    limit_clock: str = "cpu"  # or "wall"
    memory_bytes: int | None = None  # resident, over the whole tree of processes
    log_bytes: int | None = None
    file_bytes: int | None = None  # of each file that it writes
    processes: int | None = None  # at a time, over the whole tree
    confinement: Confinement | None = None  # if it cannot be enforced, the run must not start
    directory: str = ""  # where the command starts, relative to `tree`
    preload: tuple[str, ...] = ()  # modules that a runner may import once for all runs
    # Curves in the log and their bounds, see measure/doom.py; a runner may leave them unwatched.
    doom: Mapping[str, float] | None = None
    is_audited: bool = False  # a doomed run is not stopped, only reported
    home: Mapping[str, str] | None = None  # links to make in env["HOME"]: path -> target

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values, for `from_json`."""
        paths = {name: str(getattr(self, name)) for name in PATH_FIELDS}
        confinement = self.confinement and self.confinement.to_json()
        return vars_of(self) | paths | {"confinement": confinement}

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> RunSpec:
        """Raises KeyError or TypeError if a field is missing or unknown."""
        paths = {name: Path(given[name]) for name in PATH_FIELDS}
        confinement = given["confinement"] and Confinement.from_json(given["confinement"])
        lists = {name: tuple(given[name]) for name in ("argv", "preload")}
        return cls(**{**given, **paths, **lists, "confinement": confinement})

    def moved(self, folder: Path, inputs: Mapping[str, str] | None = None) -> RunSpec:
        """The same run with all its files in `folder`, for a runner on another machine.

        Replaces the tree and the temporary folder (TMPDIR) in the command, the environment and the
        confinement, and the paths of `inputs` by those there. Other paths stay: the programs, other
        inputs and caches must be on the other machine, too. The caller makes `folder / "tmp"`."""
        moves = {str(self.tree): str(folder / "tree")} | dict(inputs or {})
        if temporary := self.env.get("TMPDIR"):
            moves[temporary] = str(folder / "tmp")

        def move(text: str) -> str:
            for old, new in moves.items():
                text = new.join(re.split(rf"(?<![\w./-]){re.escape(old)}(?=[/:\s]|$)", text))
            return text

        confinement = self.confinement and replace(
            self.confinement,
            read=tuple(map(move, self.confinement.read)),
            write=tuple(map(move, self.confinement.write)),
        )
        return replace(
            self,
            argv=tuple(map(move, self.argv)),
            tree=folder / "tree",
            log=folder / "log",
            outcome=folder / "outcome.json",
            env={name: move(value) for name, value in self.env.items()},
            confinement=confinement,
        )


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a run ended. `stopped` is None if it ended by itself."""

    exit_code: int | None  # negative: that signal; None: it never started
    stopped: str | None  # "timeout", "over budget", "memory", "not confined", "interrupted", ...
    wall_s: float
    cpu_s: float | None
    peak_memory_bytes: int | None
    slot: int | None = None
    detail: str = ""
    spared_s: float | None = None  # CPU seconds of imports, by a warm start; None: a cold one
    doomed: str | None = None  # what in its log doomed it, if the spec asks for that
    instructions: int | None = None  # outside the kernel, of all processes; None: not counted

    def to_json(self) -> dict[str, Any]:
        return vars_of(self)

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> RunResult:
        return cls(**given)


@dataclass(frozen=True, slots=True)
class TreeFile:
    """A file of a run's tree. Files with equal content have the same blob, which can be cached."""

    blob: str  # git's id of the content
    mode: int  # git's: 0o100644, 0o100755 for a program, 0o120000 for a link (content: its target)

    @classmethod
    def of(cls, content: bytes, mode: int = 0o100644) -> TreeFile:
        header = b"blob %d\0" % len(content)
        return cls(hashlib.sha1(header + content, usedforsecurity=False).hexdigest(), mode)


@dataclass(frozen=True, slots=True)
class TreeManifest:
    """The content of the folder in which a run starts."""

    commit: str  # the tree was made from it; trees of one commit may differ
    files: Mapping[str, TreeFile]  # by path in the tree
    links: Mapping[str, str]  # path in the tree -> absolute path of an input, which is not shipped

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> TreeManifest:
        files = {path: TreeFile(**file) for path, file in given["files"].items()}
        return cls(**{**given, "files": files})


class TreeSource(Protocol):
    """The content of one run's tree, on the harness's side. A runner may use it from any thread
    until its `run` returns. Its errors (`TaskError`, `StorageError`, OSError) pass through `run` to
    the harness."""

    def manifest(self) -> TreeManifest: ...
    def read(self, blob: str) -> bytes:
        """The content of a file in the manifest. Raises KeyError for any other blob."""
        ...

    def write(self, folder: Path) -> None:
        """Make the tree in a folder of the harness's machine, and remove the folder's old content.
        A runner that executes there needs neither `manifest` nor `read`."""
        ...


class Runner(Protocol):
    """Executes runs.

    The harness calls `run` from several threads at once, more than there are slots, and the other
    methods from any thread. Optional: `misses_cpu_time`, true where children that nobody waits for
    cost no CPU time, so that wall time is limited too; `counts_instructions`, true where results
    have the number of instructions; `hold(descriptor)`, called before the first
    run, gives a runner the open file of the session's lock. Its helper processes on this machine
    inherit it, so that the session stays locked until the last of them has ended; `check(task)`,
    called before anything is measured, raises `RunnerError` if it cannot execute the task's runs;
    `facts`, a mapping of words about its machines, begins a new segment of the session where it
    differs from the one before.
    """

    name: str
    slots: int  # how many runs at a time

    def run(self, spec: RunSpec, source: TreeSource) -> RunResult:
        """Make the tree, execute the command, and return when its whole tree of processes is dead.

        On return, on the harness's machine: `spec.log` has the output, `spec.outcome` the result
        (unless the run was interrupted or lost: it is executed again), and `spec.tree` the regular
        files that the run made or changed, perhaps others too. Returns a result whatever the run
        did, with `stopped="lost"` if its end is unknown. Raises `RunnerError` if the runner itself
        cannot go on.
        """
        ...

    def interrupt(self) -> None:
        """Kill the current runs; their calls return with `stopped="interrupted"`. Must not block
        or raise. Later runs are not affected."""
        ...

    def close(self) -> None:
        """Kill the current runs, whose calls return as interrupted or lost, and release everything.
        May be called twice. A later `run` raises `RunnerError`: nothing would end its processes."""
        ...
