"""The commands of an agent in a terminal: start, try, scratch, wait, note, mcp."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from autoresearch.cli.common import (
    HARNESS_VARIABLE,
    INTERRUPTED,
    find_enclosing,
    find_session,
    load_task,
    make_tag,
    override_settings,
    print_answer,
    restore_settings,
)
from autoresearch.cli.detached import DetachedCommand
from autoresearch.cli.look import make_briefing
from autoresearch.cli.session import stop_on_signals
from autoresearch.commands.keep_awake import keep_awake
from autoresearch.commands.report import write_report
from autoresearch.commands.start import open_session
from autoresearch.commands.steer import leave_note
from autoresearch.core.control import Stopped
from autoresearch.core.events import Event, ExperimentFinished, Listener
from autoresearch.core.session import Session
from autoresearch.errors import BusyError, TaskError
from autoresearch.formatting import one_line
from autoresearch.interactive import trial, verdict
from autoresearch.interactive.folder import WorkFolder
from autoresearch.interactive.scratch import resume_scratch, run_scratch
from autoresearch.interactive.trial import Terminal
from autoresearch.interactive.verdict import TrialReport, read_latest
from autoresearch.protocols import Proposal
from autoresearch.store.ledger import Ledger
from autoresearch.store.lock import find_owner
from autoresearch.store.paths import SessionPaths, ledger_path
from autoresearch.store.rows import SessionRecord
from autoresearch.task.model import Task

POLL_S = 0.1
UNSETTLED = ("running", "interrupted")  # reports on a try that has no verdict yet


def start(options: argparse.Namespace) -> int:
    task = load_task(options)
    tag, record = _choose_session(options, task)
    task = override_settings(restore_settings(task, record) if record else task, options)
    with _open_session(task, tag, "terminal", keep_deadline=options.until is None) as session:
        try:
            trial.begin(session, options.origin)
        except Stopped:
            _print_stderr("interrupted; the same command goes on")
            return INTERRUPTED
        folder = session.paths.work / session.repository.prefix
        text = make_briefing(session.ledger, task, session.paths)
        origin = WorkFolder(session).state.origin
    facts: dict[str, Any] = {"tag": tag, "worktree": str(folder), "briefing": text}
    if origin is not None:
        facts["from"] = origin
        text += (
            f"\nThe folder holds the files of experiment {origin}, not the incumbent's. The next "
            "try is judged against the incumbent as a whole. `autoresearch start` goes back.\n"
        )
    print_answer(options, facts, text)
    return 0


def _choose_session(options: argparse.Namespace, task: Task) -> tuple[str, SessionRecord | None]:
    """The tag of the session to start, and its record if it exists: `--tag`, the session in whose
    working folder the command was started, the latest that has not ended, or a new one named after
    today."""
    here = find_enclosing(options)
    records = {}
    if ledger_path(task.root).exists():
        with closing(Ledger(ledger_path(task.root), readonly=True)) as ledger:
            records = {record.tag: record for record in ledger.sessions()}
    open_tags = [tag for tag, record in records.items() if record.stopped is None]
    tag = options.tag or (here.tag if here else open_tags[-1] if open_tags else make_tag())
    return tag, records.get(tag)


def try_change(options: argparse.Namespace) -> int:
    if not options.resume and not (options.message or "").strip():
        raise TaskError('try: say what was changed and why: autoresearch try -m "..."')
    record, paths = find_session(options)
    if options.detach:
        words = ["--resume"] if options.resume else [f"--message={options.message}"]
        words += [] if options.origin is None else [f"--from={options.origin}"]
        return _detach_try(options, record, paths, ["try", *words, f"--notes={options.notes}"])
    printer = _EventPrinter()
    with resume_session(load_task(options), record, options.name, printer) as session:
        if options.resume:
            latest = read_latest(paths)
            number = latest.scratch if latest else None
            report = resume_scratch(session, number) if number else trial.resume_try(session)
        else:
            proposal = Proposal(options.message, notes=options.notes)
            report = trial.try_change(session, proposal, options.origin)
        if report is None:
            raise TaskError("try --resume: nothing was cut off")
        if report.status == "keep" or report.limit:
            write_report(session.ledger, session.paths, session.task)
        printer.print_held(but=report.experiment)
        return _print_report(report, session.record, options)


def scratch(options: argparse.Namespace) -> int:
    record, paths = find_session(options)
    if options.detach:
        return _detach_try(options, record, paths, ["scratch", f"--message={options.message}"])
    with resume_session(load_task(options), record, options.name) as session:
        report = run_scratch(session, Proposal(options.message))
        return _print_report(report, session.record, options)


def _detach_try(
    options: argparse.Namespace, record: SessionRecord, paths: SessionPaths, words: list[str]
) -> int:
    """Start the same command in a detached process, and wait until it has copied the files."""
    if find_owner(paths) is not None:
        raise BusyError(f"session {paths.tag!r} is at work: autoresearch wait --tag {paths.tag}")
    command = _detach(paths, [*words, f"--as={options.name}"])

    def has_reported() -> bool:
        report = read_latest(paths)
        return report is not None and report.pid == command.process.pid

    while command.process.poll() is None and not has_reported():
        time.sleep(POLL_S)
    if not has_reported():
        raise command.make_error()
    return _print_latest(paths, record, options)


def _detach(paths: SessionPaths, words: list[str]) -> DetachedCommand:
    return DetachedCommand(paths, [*words, f"--tag={paths.tag}", str(paths.root)])


def wait(options: argparse.Namespace) -> int:
    record, paths = find_session(options)
    deadline = None if options.timeout is None else time.monotonic() + options.timeout
    finisher: DetachedCommand | None = None
    while deadline is None or time.monotonic() < deadline:
        report = read_latest(paths)
        owner = find_owner(paths)
        if report is not None and report.status not in UNSETTLED and owner != report.pid:
            break  # while its process is about to end, the next try would be refused
        if owner is not None or (finisher and finisher.process.poll() is None):
            time.sleep(POLL_S)
        elif report is None:
            raise TaskError(f"session {paths.tag!r}: nothing was tried yet")
        elif finisher is None:  # the try was cut off, and no process finishes it
            finisher = _detach(paths, ["try", "--resume"])
        else:
            raise finisher.make_error()
    return _print_latest(paths, record, options)


def _print_latest(paths: SessionPaths, record: SessionRecord, options: argparse.Namespace) -> int:
    return _print_report(read_latest(paths) or TrialReport("running"), record, options)


def _print_report(report: TrialReport, record: SessionRecord, options: argparse.Namespace) -> int:
    """Print the report on a try or a scratch run. The exit code is 1 if it was refused or crashed:
    the agent has to mend it."""
    print_answer(options, verdict.to_json(report), verdict.text(report, record))
    return {"refused": 1, "crash": 1, "lost": 1, "interrupted": INTERRUPTED}.get(report.status, 0)


def note(options: argparse.Namespace) -> int:
    _, paths = find_session(options)
    leave_note(paths, options.name, options.text)
    print_answer(options, {"noted": options.text}, "noted")
    return 0


def mcp(options: argparse.Namespace) -> int:
    from autoresearch.interactive.mcp import make_server

    if HARNESS_VARIABLE in os.environ:  # a confined agent's: its tools call the harness outside
        make_server(Path(options.task), options.tag).run("stdio")
        return 0
    task = load_task(options)
    if warning := trial.explain_unconfined(task):
        _print_stderr(f"warning: {warning}")
    make_server(task.root, options.tag, warning).run("stdio")
    return 0


@contextmanager
def resume_session(
    task: Task, record: SessionRecord, name: str, listener: Listener | None = None
) -> Iterator[Session]:
    """Open the session with the settings that it was started with."""
    task = restore_settings(task, record)
    with _open_session(task, record.tag, name, listener, keep_deadline=True) as session:
        yield session


@contextmanager
def _open_session(
    task: Task, tag: str, name: str, listener: Listener | None = None, *, keep_deadline: bool
) -> Iterator[Session]:
    """Open the session, with its events on stderr: stdout is for the verdict."""
    listener = listener or _print_event
    with (
        open_session(task, tag, listener, Terminal(name), keep_deadline) as session,
        keep_awake(),
        stop_on_signals(session),
    ):
        yield session


class _EventPrinter:
    """Prints events on stderr, except the verdict on the last experiment: stdout has that one."""

    def __init__(self) -> None:
        self._held: ExperimentFinished | None = None

    def __call__(self, event: Event) -> None:
        if isinstance(event, ExperimentFinished):
            self.print_held()
            self._held = event
        else:
            _print_event(event)

    def print_held(self, but: int | None = None) -> None:
        """Print the verdict that is held back, unless it is on the experiment `but`."""
        if self._held is not None and self._held.number != but:
            _print_event(self._held)


def _print_event(event: Event) -> None:
    _print_stderr(str(event))


def _print_stderr(line: str) -> None:
    with suppress(OSError):  # the reader of our output is gone: the session goes on
        print(one_line(line), file=sys.stderr, flush=True)
