"""The commands of an agent that already sits in a terminal: start, try, wait, brief, note."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from autoresearch.briefing import Briefer
from autoresearch.cli.common import (
    INTERRUPTED,
    asked,
    existing,
    root_of,
    session_settings,
    signals,
    today,
    write_report,
)
from autoresearch.commands.keep_awake import awake
from autoresearch.commands.start import opened
from autoresearch.core import limits
from autoresearch.core.control import Stopped
from autoresearch.core.events import Event
from autoresearch.core.session import Session, spent
from autoresearch.errors import AutoresearchError, BusyError, TaskError
from autoresearch.formatting import escape_unstorable
from autoresearch.git.repository import Repository
from autoresearch.interactive import mcp as mcp_server
from autoresearch.interactive import trial
from autoresearch.interactive.trial import Terminal, TrialReport, latest
from autoresearch.protocols import Proposal
from autoresearch.store.ledger import Ledger
from autoresearch.store.paths import SessionPaths, enclosing, ledger_path, module, owner
from autoresearch.store.rows import SessionRecord
from autoresearch.task.model import Task
from autoresearch.task.reading import load

POLL_S = 0.1


def add_commands(add: Callable[..., argparse.ArgumentParser]) -> None:
    one = add("start", start, "make a folder to work in, for an agent that calls the harness")
    session_settings(one)

    one = add("try", try_change, "measure and judge what that folder holds now")
    one.add_argument("-m", "--message", metavar="TEXT", help="what was changed, and why")
    one.add_argument("--notes", default="", metavar="TEXT", help="for a later self")
    _who(one)
    one.add_argument("--detach", action="store_true", help="do not wait for the verdict")
    one.add_argument("--resume", action="store_true", help="only finish one that was cut off")

    one = add("wait", wait, "wait for the verdict of a try")
    _which(one)
    one.add_argument("--timeout", type=float, metavar="S", help="at most so many seconds")

    one = add("brief", brief, "what an agent is told: objective, what was tried, what is left")
    _which(one)

    one = add("note", note, "keep a note for the agent's later self", task=False)
    one.add_argument("text", metavar="TEXT", help="one line, or a few")
    one.add_argument("task", nargs="?", default=".", metavar="TASK", help="its folder (here)")
    _who(one)

    one = add("mcp", mcp, "the same commands as tools of the Model Context Protocol, on stdio")
    _which(one)


def _which(one: argparse.ArgumentParser) -> None:
    one.add_argument("--tag", help="which session (this folder's, or the latest)")


def _who(one: argparse.ArgumentParser) -> None:
    _which(one)
    one.add_argument(
        "--as", dest="name", default="terminal", type=_name, metavar="NAME", help="who you are"
    )


def _name(text: str) -> str:
    """A word that the ledger, a commit's trailer and a table can take."""
    if not re.fullmatch(r"[\w.:/-]{1,64}", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"{text!a}: accepted are letters, digits and _ . : / -")
    return text


def start(options: argparse.Namespace) -> int:
    task = load(root_of(options))
    tag, begun = _tag_of(options, task)
    task = asked(options, trial.agreed(task, tag) if begun else task)
    with _session(task, tag, "terminal", keep_deadline=options.until is None) as session:
        try:
            trial.begin(session)
        except Stopped:
            _say("interrupted; the same command goes on")
            return INTERRUPTED
        folder = session.paths.work / session.repository.prefix
        told = _brief(session.ledger, task, session.paths)
    if options.json:
        print(json.dumps({"tag": tag, "worktree": str(folder), "briefing": told}))
    else:
        print(told)
    return 0


def _tag_of(options: argparse.Namespace, task: Task) -> tuple[str, bool]:
    """The session to start, and whether it is there already: `--tag`, the one in whose working
    folder we stand, the latest that has not ended, or a new one named after today."""
    here = enclosing(Path(options.task).absolute())
    known = _sessions(task)
    going_on = [row.tag for row in known if row.stopped is None]
    tag = options.tag or (here.tag if here else going_on[-1] if going_on else today())
    return tag, any(row.tag == tag for row in known)


def _sessions(task: Task) -> list[SessionRecord]:
    if not ledger_path(task.root).exists():
        return []
    ledger = Ledger(ledger_path(task.root), readonly=True)
    try:
        return ledger.sessions()
    finally:
        ledger.close()


def try_change(options: argparse.Namespace) -> int:
    if not options.resume and not (options.message or "").strip():
        raise TaskError('try: say what was changed and why: autoresearch try -m "..."')
    task, paths = _place(options)
    if options.detach:
        return _detached(options, paths)
    with _session(trial.agreed(task, paths.tag), paths.tag, options.name) as session:
        if options.resume:
            told = trial.go_on(session)
        else:
            proposal = Proposal(options.message, notes=options.notes)
            told = trial.try_change(session, proposal)
        if told is None:
            raise TaskError("try --resume: nothing was cut off")
        if told.status == "keep" or told.limit:
            write_report(session.ledger, session.paths, task)
        return _tell(told, session.ledger, paths, options)


def wait(options: argparse.Namespace) -> int:
    _, paths = _place(options)
    deadline = None if options.timeout is None else time.monotonic() + options.timeout
    finisher: _Spawned | None = None
    while deadline is None or time.monotonic() < deadline:
        told = latest(paths)
        if told is not None and told.status not in ("running", "interrupted"):
            break
        if owner(paths) is not None or (finisher and finisher.process.poll() is None):
            time.sleep(POLL_S)
        elif told is None:
            raise TaskError(f"session {paths.tag!r}: nothing was tried yet")
        elif finisher is None:  # it was cut off: somebody has to finish it
            finisher = _spawn(paths, ["try", "--resume"])
        else:
            raise finisher.failure()
    return _tell_latest(paths, options)


def brief(options: argparse.Namespace) -> int:
    task, paths = _place(options)
    ledger = Ledger(paths.ledger, readonly=True)
    try:
        told = _brief(ledger, task, paths)
    finally:
        ledger.close()
    print(json.dumps({"tag": paths.tag, "briefing": told}) if options.json else told)
    return 0


def note(options: argparse.Namespace) -> int:
    if not options.text.strip():
        raise TaskError("note: it is empty")
    _, paths = _place(options)
    ledger = Ledger(paths.ledger)
    try:
        ledger.add_note(
            ledger.session(paths.tag), options.name, escape_unstorable(options.text), time.time()
        )
    finally:
        ledger.close()
    print(json.dumps({"noted": options.text}) if options.json else "noted")
    return 0


def verify(task: Task, tag: str, runs: int) -> None:
    """Fresh runs of a session's result, for its report. Raises `KeyboardInterrupt` when stopped."""
    if runs < 2:
        raise TaskError(f"--verify {runs}: at least 2 runs are needed")
    with _session(trial.agreed(task, tag), tag, "terminal") as session:
        try:
            trial.verify(session, runs)
        except Stopped:
            raise KeyboardInterrupt from None


def mcp(options: argparse.Namespace) -> int:
    mcp_server.server(load(root_of(options)).root, options.tag).run("stdio")
    return 0


# ---- what they share ---------------------------------------------------------------------------


def _place(options: argparse.Namespace) -> tuple[Task, SessionPaths]:
    ledger, paths, task = existing(options)
    ledger.close()
    return task, paths


@contextmanager
def _session(task: Task, tag: str, name: str, keep_deadline: bool = True) -> Iterator[Session]:
    """The session, with events on stderr: stdout is the verdict's."""
    who = Terminal(name)
    with (
        opened(task, tag, _print_event, who, keep_deadline) as session,
        awake(),
        signals(session),
    ):
        yield session


def _print_event(event: Event) -> None:
    _say(str(event))


def _say(line: str) -> None:
    with suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def _detached(options: argparse.Namespace, paths: SessionPaths) -> int:
    """Start the same try in a process of its own, and see that it has taken the files."""
    if owner(paths) is not None:
        raise BusyError(f"session {paths.tag!r} is at work: autoresearch wait --tag {paths.tag}")
    words = ["--resume"] if options.resume else [f"--message={options.message}"]
    spawned = _spawn(paths, ["try", *words, f"--notes={options.notes}", f"--as={options.name}"])
    while spawned.process.poll() is None and not spawned.has_said():
        time.sleep(POLL_S)
    if not spawned.has_said():
        raise spawned.failure()
    return _tell_latest(paths, options)


@dataclass(frozen=True, slots=True)
class _Spawned:
    """A command of a session that outlives us; its words go to the session's log, from there."""

    process: subprocess.Popen[bytes]
    paths: SessionPaths
    said: int  # where its words begin

    def has_said(self) -> bool:
        """What became of the latest try is what this process said of its own."""
        told = latest(self.paths)
        return told is not None and told.pid == self.process.pid

    def failure(self) -> AutoresearchError:
        """What it died of, in its own words and with its exit code."""
        with self.paths.log.open("rb") as file:
            file.seek(self.said)
            words = file.read().decode(errors="replace").strip()
        error = AutoresearchError(words.removeprefix("autoresearch: ") or "it ended without a word")
        error.exit_code = self.process.wait() or AutoresearchError.exit_code
        return error


def _spawn(paths: SessionPaths, words: Sequence[str]) -> _Spawned:
    with paths.log.open("ab") as file:
        said = file.tell()
        process = subprocess.Popen(
            module("autoresearch", *words, f"--tag={paths.tag}", str(paths.root)),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return _Spawned(process, paths, said)


def _tell_latest(paths: SessionPaths, options: argparse.Namespace) -> int:
    ledger = Ledger(paths.ledger, readonly=True)
    try:
        return _tell(latest(paths) or TrialReport("running"), ledger, paths, options)
    finally:
        ledger.close()


def _tell(
    told: TrialReport, ledger: Ledger, paths: SessionPaths, options: argparse.Namespace
) -> int:
    """Print what became of a try. A refused one exits with 1: it has to be mended."""
    if options.json:
        print(json.dumps(trial.to_json(told)))
    else:
        print(trial.text(told, ledger.session(paths.tag)))
    return {"refused": 1, "interrupted": INTERRUPTED}.get(told.status, 0)


def _brief(ledger: Ledger, task: Task, paths: SessionPaths) -> str:
    """What an agent reads, from a ledger that somebody else may be writing."""
    row = ledger.session(paths.tag)
    repository = Repository(task.root, task.editable, task.may_edit)
    wanted = trial.agreed(task, paths.tag).limits
    until_s = row.limits["deadline"] - time.time() if "deadline" in row.limits else None
    done = spent(ledger, row, wanted, row.elapsed_s)
    left = limits.left(wanted, done, row.metric, until_s)
    told = Briefer(task, ledger, row, repository, paths).text(left)
    return told + trial.your_turn(task, paths.work / repository.prefix)
