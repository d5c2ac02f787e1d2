"""A session that can be killed at any of its durable actions. For faults/test_crash_points.py.

    python tests/crash_points.py < REQUESTS

A request is a line of JSON: the task's folder, the number of an action and what happens there, or
null to let the session end by itself. "before" and "after" are SIGKILL; with "full" and "readonly",
that action and all that follow fail as they do on such a disk. Each is served by a fork of this
process, which has all imports behind it; the answer says how it ended, as a line of JSON. What
counts as a durable action is listed in `watched`: all that is written outside the memory of the
harness.
"""

from __future__ import annotations

import errno
import fcntl
import io
import json
import os
import shutil
import signal
import sqlite3
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from functools import wraps
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pygit2

from autoresearch import agents
from autoresearch.commands.start import open_session
from autoresearch.core import judge
from autoresearch.core.loop import Loop
from autoresearch.git.repository import Repository
from autoresearch.git.trees import PristineTrees
from autoresearch.protocols import Proposal, Turn
from autoresearch.runners.local import LocalRunner
from autoresearch.sandbox import namespaces
from autoresearch.store.lock import Lock
from autoresearch.store.results import ResultsFile
from autoresearch.task.reading import load, override

TAG = "t"
SLOTS = 2
RULES = {
    "TOPUP_EVERY": 2,
    "FRESH_RUNS": 2,
    "PASS_LEVEL": 0.1,  # two runs say little of the noise
    "DRIFT_LEVEL": 1e-9,
    "LEVELS": {"default": judge.Level("default", 2)},
}
"""Set in `judge`, so that a session of four experiments has everything in it."""

PROGRAM = """\
VALUE=10000000

BONUS_A=0

BONUS_B=0

ARTEFACT=0

EXIT=0

echo "$AUTORESEARCH_SEED start" >> "$COUNTED"
if [ $ARTEFACT = 1 ]; then echo weights > model; fi
if [ $EXIT = 0 ]; then
    echo "score: $((VALUE - BONUS_A - BONUS_B + AUTORESEARCH_SEED % 99991))"
fi
echo "$AUTORESEARCH_SEED end" >> "$COUNTED"
exit $EXIT
"""
TASK = """\
objective = "lower the score"
editable = ["prog.sh"]
[run]
command = "sh prog.sh"
env = ["COUNTED"]
inputs = ["data"]
timeout = "60s"
[metric]
name = "score"
goal = "minimize"
[judge]
baseline_runs = 2
"""
SCORER = """\
echo "score: $(($(cat answer) + $(cat "$1/shift")))"
echo "$AUTORESEARCH_SEED $1" >> "$COUNTED"
"""
SCORED = {
    "prog.sh": PROGRAM.replace('"score: $((', "$((").replace('99991))"', "99991)) > answer"),
    "score.sh": SCORER,
    "search/shift": "0",
    "sealed/shift": "7",
}
SCORED_TASK = f"""\
{TASK}
[score]
command = "sh score.sh search"
reads = ["answer"]
hidden = ["search"]
[holdout]
command = "sh score.sh sealed"
hidden = ["sealed"]
[limits]
experiments = 1
"""
"""A shorter session, in which every run is scored, and some on a sealed holdout."""
STEPS = ("BONUS_A=1000000", "BONUS_B=1000000", "VALUE=20000000 ARTEFACT=1", "EXIT=3")
"""Two that are better, so that the one is moved onto the other; one that is worse; a crash."""
CHANGING = 2  # while the agent thinks about this one, somebody changes the data
VERDICTS = [("keep", None), ("keep", None), ("discard", "worse"), ("crash", "exit code 3")]


class Stepping:
    """Proposes the step that the ledger lacks: it is asked again after a kill."""

    name = "stepping"
    wants_briefing = False

    def __init__(self, data: Path) -> None:
        self.data = data

    def propose(self, turn: Turn) -> Proposal | None:
        running = turn.history.in_flight()  # first: what ends meanwhile is in both, not in none
        begun = len({one.number for one in (*running, *turn.history.finished())})
        if begun >= len(STEPS):
            return None
        if begun == CHANGING and self.data.read_text() != "new":  # asked again after a kill
            with open(f"{self.data}.new", "w") as data:  # noqa: PTH123 - it is not to be watched
                data.write("new")
            self.data.with_suffix(".new").rename(self.data)  # at once: one change
        file = turn.worktree / "prog.sh"
        lines = file.read_text().splitlines()
        for word in STEPS[begun].split():
            name = word.partition("=")[0]
            lines = [word if line.startswith(f"{name}=") else line for line in lines]
        file.write_text("\n".join(lines) + "\n")
        return Proposal(STEPS[begun])


class Points:
    """Counts durable actions, and kills this process at one of them, or takes the disk away."""

    def __init__(self, number: int | None, what: str) -> None:
        self.number, self.what = number, what
        self.names: list[str] = []
        self._lock = threading.Lock()

    def around(
        self, name: str, action: Callable[..., Any], refused: Callable[[str], Exception]
    ) -> Callable[..., Any]:
        """`action`, counted. `refused` makes the error of a disk that says what is given to it."""

        @wraps(action)
        def watched(*arguments: Any, **named: Any) -> Any:
            number = self._next(name)
            self._strike(number, "before")
            if self.number is not None and number >= self.number and self.what in NO_DISK:
                raise refused(self.what)
            result = action(*arguments, **named)
            self._strike(number, "after")
            return result

        return watched

    def is_full(self) -> bool:
        return self.what == "full" and len(self.names) >= (self.number or 0)

    def _next(self, name: str) -> int:
        with self._lock:
            self.names.append(name)
            return len(self.names)

    def _strike(self, number: int, what: str) -> None:
        if (number, what) == (self.number, self.what):
            os.kill(os.getpid(), signal.SIGKILL)


NO_DISK = {"full": errno.ENOSPC, "readonly": errno.EROFS}


def by_system(what: str) -> Exception:
    return OSError(NO_DISK[what], os.strerror(NO_DISK[what]), "/a/file")


def by_git(what: str) -> Exception:
    return pygit2.GitError(f"failed to create a file: {os.strerror(NO_DISK[what])}")


def by_sqlite(what: str) -> Exception:
    said = {"full": "database or disk is full", "readonly": "attempt to write a readonly database"}
    return sqlite3.OperationalError(said[what])


def watched(points: Points) -> ExitStack:
    """Everything durable goes past `points` from now on."""
    stack = ExitStack()

    def put(owner: Any, name: str, replacement: Any) -> None:
        stack.enter_context(patch.object(owner, name, replacement))

    def watch(owner: Any, name: str, refused: Callable[[str], Exception] = by_system) -> None:
        put(owner, name, points.around(name, getattr(owner, name), refused))

    class Connection(sqlite3.Connection):
        def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
            if sql == "COMMIT" or sql.startswith("PRAGMA journal_mode"):
                return points.around(sql, super().execute, by_sqlite)(sql, *values)
            return super().execute(sql, *values)

    connect, unlink, opener, usage = sqlite3.connect, os.unlink, io.open, shutil.disk_usage

    def connected(*arguments: Any, **named: Any) -> sqlite3.Connection:
        return connect(*arguments, **named, factory=Connection)

    def unlinked(path: Any, *, dir_fd: int | None = None) -> None:
        plain = dir_fd is None and os.path.lexists(path)
        (points.around("unlink", unlink, by_system) if plain else unlink)(path, dir_fd=dir_fd)

    def opened_for(file: Any, mode: str = "r", *arguments: Any, **named: Any) -> Any:
        writes = isinstance(file, Path) and set(mode) & set("wax")
        action = points.around(f"open {mode}", opener, by_system) if writes else opener
        return action(file, mode, *arguments, **named)

    put(sqlite3, "connect", connected)
    put(io, "open", opened_for)
    put(shutil, "disk_usage", lambda p: usage(p)._replace(free=0) if points.is_full() else usage(p))
    watch(os, "replace")
    for name in ("create_blob", "create_commit", "pack", "compress_references"):
        watch(pygit2.Repository, name, by_git)
    watch(pygit2.repository.References, "create", by_git)
    if points.what == "full":  # what is written by the disk's own measure; to remove is allowed
        watch(os, "mkdir")
        watch(PristineTrees, "_write")
    elif points.what == "readonly":
        watch(os, "mkdir")
        watch(PristineTrees, "_write")
        put(os, "unlink", unlinked)
        watch(shutil, "rmtree")
    else:
        put(os, "unlink", unlinked)
        watch(shutil, "rmtree")
        watch(pygit2.repository.References, "delete")
        watch(fcntl, "flock")
        for owner, name in (
            (Lock, "release"),
            (Repository, "exclude"),
            (PristineTrees, "materialize"),
            (ResultsFile, "append"),
            (LocalRunner, "run"),
            (LocalRunner, "close"),
        ):
            watch(owner, name)
    return stack


def rules() -> ExitStack:
    stack = ExitStack()
    for name, value in RULES.items():
        stack.enter_context(patch.object(judge, name, value))
    return stack


def session(root: Path) -> str:
    """The session, new or resumed, to its end."""
    task = override(load(root), **{"runner.slots": SLOTS})
    stepping = patch.object(agents, "load", lambda *_, **__: Stepping(root / "data"))
    said: list[str] = []
    with (
        rules(),
        stepping,
        open_session(task, TAG, lambda event: said.append(str(event))) as opened_session,
    ):
        return Loop(opened_session).run()


def serve(request: dict[str, Any]) -> dict[str, Any]:
    """One session in a fork: its exit code or signal, and what durable actions it took."""
    tempfile.gettempdir()  # found by writing files, which would stay where nothing is removed
    root, ended = Path(request["root"]), Path(request["root"]).parent / "ended.json"
    ended.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        os.environ["COUNTED"] = str(root.parent / "side" / "counted")
        points = Points(request["number"], request["what"])
        code = 1
        try:
            with watched(points):
                reason = session(root)
            ended.write_text(json.dumps({"reason": reason, "actions": points.names}))
            code = 0
        except BaseException as error:
            why = {"reason": traceback.format_exc(), "error": type(error).__name__}
            ended.write_text(json.dumps({**why, "actions": points.names}))
        finally:
            os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    told = json.loads(ended.read_text()) if ended.exists() else {"reason": "", "actions": []}
    told = {"error": "", **told}
    return {"status": status, **told}


def main() -> None:
    namespaces.is_available()  # remembered: each session starts a process to find out
    for line in iter(sys.stdin.readline, ""):
        print(json.dumps(serve(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
