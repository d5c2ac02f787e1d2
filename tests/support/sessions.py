"""What the tests of the core share: a tiny task in a real repository, and agents that do as told.

Everything but the agent is real: git, processes, SQLite, the local runner.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

import psutil
import pytest

from autoresearch import agents
from autoresearch.commands.start import open_session
from autoresearch.core import loop
from autoresearch.core.events import Event
from autoresearch.core.loop import Loop
from autoresearch.core.session import Session
from autoresearch.git.repository import Repository
from autoresearch.protocols import Failure, Proposal, Turn
from autoresearch.records import Experiment, Run
from autoresearch.store.ledger import Ledger
from autoresearch.store.paths import SessionPaths
from autoresearch.store.rows import SessionRecord
from autoresearch.task.model import Task
from autoresearch.task.reading import load, override

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="about what Linux alone has")

PROGRAM = """\
import os, sys, time

VALUE = 10.0

BONUS = 0.0

SPREAD = 0.1

WAIT_A = ""

WAIT_B = ""

seed = int(os.environ["AUTORESEARCH_SEED"])
if os.environ.get("COUNTED"):
    with open(os.environ["COUNTED"], "a") as file:
        file.write(f"{seed}\\n")
for gate in (WAIT_A, WAIT_B):
    while gate and not os.path.exists(gate):
        time.sleep(0.005)
noise = (seed * 2654435761 % 2**32 / 2**32 - 0.5) * SPREAD
score = VALUE + noise - (BONUS if VALUE > 5 else 0)
print("---")
print("score:", score)
"""
"""Noise of at most 0.05 either way, from the seed; BONUS helps only as long as VALUE is above 5."""

TASK = """\
objective = "lower the score"
editable = ["prog.py"]
[run]
command = "python -S -E prog.py"
env = ["COUNTED"]
timeout = "90s"
[metric]
name = "score"
goal = "minimize"
"""
THREE_RUNS = "[judge]\nbaseline_runs = 3\n"  # of the baseline, not six: they give the noise as well

# The score is the constant itself: deterministic, so that an experiment is one run.
EXACT_PROGRAM = "VALUE = 1000.0\nprint('METRIC score=%r' % VALUE)\n"
EXACT_TASK = """\
objective = "lower the score"
editable = ["prog.py"]
[run]
command = "python -S -E prog.py"
[metric]
name = "score"
goal = "minimize"
[judge]
deterministic = true
"""
"""Ends within [judge]."""

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Started in the background of a script, where it is ignored: our children would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)

Step = Callable[[Turn], Proposal | Failure | None]


def git(root: Path, *arguments: str) -> str:
    """The user's own git, in the user's checkout."""
    who = ["-c", "user.name=user", "-c", "user.email=user@localhost", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", *who, *arguments], cwd=root, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def side(root: Path) -> Path:
    """A folder beside a task made by `make_task`, which its runs may write."""
    return root.parent / "side"


def make_task(
    root: Path,
    program: str = PROGRAM,
    toml: str = TASK,
    files: Mapping[str, str] | None = None,
) -> Path:
    """A repository of one commit: prog.py, autoresearch.toml and what else is given. Its runs may
    write into `side(root)`, where tests look at what they did. It makes three runs of the baseline
    unless it has a table [judge]."""
    root.mkdir(parents=True, exist_ok=True)
    if "caches" not in toml:
        toml = toml.replace("[run]\n", f'[run]\ncaches = ["{side(root)}"]\n', 1)
    if "[judge]" not in toml:
        toml = f"{toml}\n{THREE_RUNS}"
    for name, text in {"prog.py": program, "autoresearch.toml": toml, **(files or {})}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    git(root, "init", "-q", "--initial-branch=main")
    git(root, "add", "--all")
    git(root, "commit", "-qm", "start")
    return root


def commit_all(root: Path) -> None:
    git(root, "add", "--all")
    git(root, "commit", "-qm", "more")


def edit(worktree: Path, **constants: object) -> None:
    """Set constants of prog.py, each on a line of its own."""
    file = worktree / "prog.py"
    lines = file.read_text().splitlines(keepends=True)
    for name, value in constants.items():
        at = next(i for i, line in enumerate(lines) if line.startswith(f"{name} = "))
        lines[at] = f"{name} = {value!r}\n"
    file.write_text("".join(lines))


def change(description: str = "", **constants: object) -> Step:
    """A turn that sets constants."""

    def step(turn: Turn) -> Proposal:
        edit(turn.worktree, **constants)
        return Proposal(description or ", ".join(f"{k} {v}" for k, v in constants.items()))

    return step


def rewrite(program: str, description: str = "rewritten") -> Step:
    def step(turn: Turn) -> Proposal:
        (turn.worktree / "prog.py").write_text(program)
        return Proposal(description)

    return step


class ScriptedAgent:
    """Takes its turns from a list, then has nothing more to propose."""

    name = "scripted"
    wants_briefing = False

    def __init__(self, *steps: Step) -> None:
        self.left = list(steps)
        self.turns: list[Turn] = []

    def propose(self, turn: Turn) -> Proposal | Failure | None:
        self.turns.append(turn)
        return self.left.pop(0)(turn) if self.left else None


@dataclass
class Night:
    """What a session left behind."""

    root: Path
    tag: str
    reason: str
    lines: list[str]
    record: SessionRecord
    experiments: list[Experiment]  # by number, the baseline first
    runs: list[Run]
    results: list[list[str]] = field(default_factory=list)

    @property
    def paths(self) -> SessionPaths:
        return SessionPaths(self.root, self.tag)

    @property
    def verdicts(self) -> list[tuple[str, str | None]]:
        """(status, reason) of all experiments but the baseline."""
        return [(str(one.status), one.reason) for one in self.experiments[1:]]

    def runs_of(self, number: int, *roles: str) -> list[Run]:
        return [
            run
            for run in self.runs
            if run.experiment == number and (not roles or run.role in roles)
        ]

    def branch(self) -> str:
        return git(self.root, "rev-parse", f"refs/heads/autoresearch/{self.tag}")


def task_of(root: Path, **settings: object) -> Task:
    return override(load(root), **{k.replace("__", "."): v for k, v in settings.items()})


def run_session(
    root: Path,
    agent: object,
    tag: str = "t",
    say: Callable[[str], None] | None = None,
    before: Callable[[Session], None] | None = None,
    verified: bool = False,
    **settings: object,
) -> Night:
    """A session from the start, or resumed, to its end. Settings such as `limits__experiments=3`;
    unless said otherwise the baseline is made of three runs, no turn is ahead of the runs, and the
    result is not measured again at the end (`verified`), which takes six runs."""
    lines: list[str] = []

    def hear(event: Event) -> None:
        lines.append(str(event))
        if say is not None:
            say(str(event))

    settings.setdefault("judge__baseline_runs", 3)
    settings.setdefault("agent__ahead", False)
    task = task_of(root, **settings)
    load_it = patch.object(agents, "load", lambda *_, **__: agent)
    verify_it = nullcontext() if verified else patch.object(loop, "verify", lambda _: None)
    with load_it, verify_it, open_session(task, tag, hear) as session:
        if before is not None:
            before(session)
        reason = Loop(session).run()
    return night(root, tag, reason, lines)


def night(root: Path, tag: str = "t", reason: str = "", lines: Sequence[str] = ()) -> Night:
    """Read a session back from its ledger."""
    ledger = Ledger(SessionPaths(root, tag).ledger, readonly=True)
    try:
        record = ledger.session(tag)
        experiments = ledger.all_experiments(record)
        runs = [run for one in experiments for run in ledger.runs(record, one.number)]
    finally:
        ledger.close()
    results = root / "results.tsv"
    table = (
        [line.split("\t") for line in results.read_text().splitlines()] if results.exists() else []
    )
    return Night(root, tag, reason, list(lines), record, experiments, runs, table)


def workspace_of(root: Path) -> Repository:
    task = load(root)
    return Repository(task.root, task.editable, task.may_edit)


def wait_until(condition: Callable[[], object], timeout_s: float = 20.0) -> None:
    """Poll, for what another process does; fails when it does not happen."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def alive(pid: int) -> bool:
    """A process of that id is there and is no zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
