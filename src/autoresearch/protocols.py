"""The contracts of the parts that can be replaced (agents, runners, the briefer), and the values
that pass between them and the harness.

A third party writes a class with the methods of `Agent` or `Runner`. `autoresearch.testing` has a
conformance suite for each.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from autoresearch.records import Experiment, Metric

# --------------------------------------------------------------------------------------------
# Agents


class History(Protocol):
    """What has happened so far, as data. Every call costs the same at the 2,000th experiment."""

    @property
    def metric(self) -> Metric: ...
    @property
    def noise_sd(self) -> float | None:
        """Standard deviation of one run, in metric units; None when it is not known."""
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
    """What an agent's process may use beside its worktree, its program and its configuration."""

    env: tuple[str, ...] = ()  # names of variables
    read: tuple[str, ...] = ()  # absolute paths, perhaps with ~
    write: tuple[str, ...] = ()
    confine: bool = True
    checkout: Path | None = None  # the user's repository: of it, at most a virtual environment
    private: tuple[Path, ...] = ()  # in no case: the record, the hidden files


@dataclass(frozen=True, slots=True)
class Turn:
    """One attempt of an agent to propose: what it is given."""

    worktree: Path  # the incumbent's files; edit here. The harness copies the editable ones out
    editable: tuple[str, ...]  # paths in the worktree that exist now and may be edited
    history: History
    briefing: str  # the same as text, bounded in size; empty unless the agent `reads`
    timeout_s: float | None = None
    grants: Grants = Grants()
    usd_left: float | None = None  # of the session's limit; None when there is none


@dataclass(frozen=True, slots=True)
class Proposal:
    """What an agent says about its edit. It reports no metric and no status."""

    description: str  # one line
    hypothesis: str = ""
    notes: str = ""  # for its later self
    tokens: int | None = None
    usd: float | None = None


class Briefer(Protocol):
    """Writes what an agent that `reads` is told before it proposes."""

    def text(self, left: Sequence[str] = ()) -> str:
        """The briefing. `left` says what is left of each limit, one line each."""
        ...


SERVICE_REASONS = ("rate limited", "service down")
"""Reasons of a `Failure` that are the service's: the agent burned nothing, so such a turn is waited
out and never counts towards the limit on experiments."""


KILLED_REASONS = ("timeout", "interrupted", "log too large", "lost")
"""Reasons of a `Failure` whose turn was cut off: it may have cost more than it could say."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A turn that produced nothing: the service is down, the answer is no edit, time ran out.

    The next turn waits longer after each failure, and at least `retry_after_s`; not at all when
    that is 0, unless the reason is the service's."""

    reason: str
    message: str
    retry_after_s: float | None = None
    tokens: int | None = None
    usd: float | None = None


class Agent(Protocol):
    """Proposes a change by editing `turn.worktree`.

    `propose` is called by the loop, one call at a time, from any thread. It returns a `Proposal`
    after editing, a `Failure` when this turn came to nothing, or `None` when it has nothing more
    to propose (it leaves in good order; the session ends when nobody is left). It raises
    `AgentError` only when going on is pointless, such as a refused key; its `tokens` and `usd` are
    counted as an answer's are.

    Three things it may have beside: `probes = True` asks for a first small turn before anything
    is measured, on a worktree with one tiny file; `interrupt()`, called from another thread, ends
    the turn under way as a `Failure`; `close()` is called at the session's end.
    """

    name: str
    reads: bool  # wants `turn.briefing` and a git repository of one commit around the worktree

    def propose(self, turn: Turn) -> Proposal | Failure | None: ...


# --------------------------------------------------------------------------------------------
# Runners


@dataclass(frozen=True, slots=True)
class Confinement:
    """The files a process may use, itself and all it starts; everything else is refused.

    A path is a folder with all below it, or a single file. One that does not exist when the process
    starts is skipped. `write` includes reading and executing.
    """

    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    network: bool | None = None  # False: no sockets but AF_UNIX, and no abstract ones of others
    proc: bool = False  # it may write the files of processes in /proc, its own above all
    temporary: str | None = None  # a folder of `write` that it sees as /tmp too

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Confinement:
        read, write = (tuple(given[name]) for name in ("read", "write"))
        return cls(read, write, given["network"], given["proc"], given["temporary"])


PLACES = ("tree", "log", "outcome")  # fields of a RunSpec that are paths of the harness's machine


@dataclass(frozen=True, slots=True)
class RunSpec:
    """Everything a runner needs to execute one run, apart from the content of its tree."""

    argv: tuple[str, ...]
    tree: Path  # a folder for this run alone: its tree, made by the runner of a `TreeSource`
    log: Path  # stdout and stderr, as one file
    outcome: Path  # the runner writes the RunResult here as JSON, atomically
    env: Mapping[str, str]  # the whole environment; the runner adds only the slot's variables
    timeout_s: float  # wall; the run is killed after this, whatever it does
    limit_s: float | None = None  # of `limit_clock`, over the whole tree of processes
    limit_clock: str = "cpu"  # or "wall"
    memory_bytes: int | None = None  # resident, over the whole tree of processes
    log_bytes: int | None = None
    file_bytes: int | None = None  # no file it writes grows beyond
    processes: int | None = None  # at a time, over the whole tree
    confinement: Confinement | None = None  # a run that cannot be confined like this must not start
    directory: str = ""  # where the command starts, relative to `tree`

    def to_json(self) -> dict[str, Any]:
        """The fields as values that JSON holds; `from_json` makes an equal spec of them."""
        return asdict(self) | {name: str(getattr(self, name)) for name in PLACES}

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> RunSpec:
        """Raises KeyError or TypeError when a field is missing or unknown."""
        confinement = given["confinement"] and Confinement.from_json(given["confinement"])
        fields: dict[str, Any] = {name: Path(given[name]) for name in PLACES}
        fields |= {"argv": tuple(given["argv"]), "confinement": confinement}
        return cls(**{**given, **fields})

    def moved(self, folder: Path) -> RunSpec:
        """The same run with all its files in `folder`, for a runner on another machine.

        The tree and the temporary folder (TMPDIR) are replaced wherever the command, the
        environment and the confinement name them. Other paths stay: what they lead to (programs,
        inputs, caches) has to be there, too. The caller makes `folder / "tmp"`."""
        moves = {str(self.tree): str(folder / "tree")}
        if temporary := self.env.get("TMPDIR"):
            moves[temporary] = str(folder / "tmp")

        def move(text: str) -> str:
            for old, new in moves.items():
                text = _replace_path(text, old, new)
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


def _replace_path(text: str, old: str, new: str) -> str:
    return re.sub(rf"{re.escape(old)}(?=[/:\s]|$)", lambda _: new, text)


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a run ended. `stopped` is None when it ended by itself."""

    exit_code: int | None  # negative: that signal; None: it never started
    stopped: str | None  # "timeout", "over budget", "memory", "not confined", "interrupted", ...
    wall_s: float
    cpu_s: float | None
    peak_memory_bytes: int | None
    slot: int | None = None
    detail: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> RunResult:
        return cls(**given)


@dataclass(frozen=True, slots=True)
class TreeFile:
    """One file of a run's tree. Equal files of all runs have the same blob: it can be cached."""

    blob: str  # git's id of the content
    mode: int  # git's: 0o100644, 0o100755 for a program, 0o120000 for a link (content: its target)

    @classmethod
    def of(cls, content: bytes, mode: int = 0o100644) -> TreeFile:
        header = b"blob %d\0" % len(content)
        return cls(hashlib.sha1(header + content, usedforsecurity=False).hexdigest(), mode)


@dataclass(frozen=True, slots=True)
class TreeManifest:
    """A run's tree by content: what to make in the folder in which a run starts."""

    commit: str  # that the tree was made of; trees of one commit may differ
    files: Mapping[str, TreeFile]  # by path in the tree
    links: Mapping[str, str]  # path in the tree -> absolute path of an input, which is not shipped

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> TreeManifest:
        files = {path: TreeFile(**file) for path, file in given["files"].items()}
        return cls(given["commit"], files, given["links"])


class TreeSource(Protocol):
    """The content of one run's tree, on the harness's side. A runner may use it from any thread
    until its `run` returns. What it raises (`TaskError`, `StorageError`, OSError) passes through
    `run` to the harness."""

    def manifest(self) -> TreeManifest: ...
    def read(self, blob: str) -> bytes:
        """The content of a file in the manifest. Raises KeyError for any other."""
        ...

    def write(self, folder: Path) -> None:
        """Make the tree in a folder of the harness's machine, instead of what was there. A runner
        that executes there needs neither `manifest` nor `read`."""
        ...


class Runner(Protocol):
    """A place where runs are executed.

    The harness calls `run` from several threads at once, more than there are slots, and the other
    methods from any thread. One more is optional: `hold(descriptor)`, called before the first run,
    gives a runner with helper processes on this machine the open file of the session's lock, which
    they inherit, so that the session stays locked until the last of them has ended.
    """

    name: str
    slots: int  # how many runs at a time

    def run(self, spec: RunSpec, source: TreeSource) -> RunResult:
        """Make the tree, execute the command, and return when its whole tree of processes is dead.

        On return, on the harness's machine: `spec.log` has the output, `spec.outcome` the result
        (unless the run was interrupted or lost: it will be made again), and `spec.tree` the regular
        files that the run made or changed, at their paths; whether it has the others as well is
        the runner's choice. Returns a result whatever the run did, with `stopped="lost"` when
        nobody can tell. Raises `RunnerError` when the runner itself cannot go on.
        """
        ...

    def interrupt(self) -> None:
        """Kill what is running now; those calls return with `stopped="interrupted"`. Must not
        block, nor raise. Later runs are not concerned."""
        ...

    def close(self) -> None:
        """Kill what is running and release everything; those calls return as interrupted or lost.
        May be called twice."""
        ...
