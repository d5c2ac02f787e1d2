"""The commands that measure, and that steer a session: check, run, attach, stop."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import asdict
from types import FrameType
from typing import TYPE_CHECKING

from autoresearch import exports
from autoresearch.cli.common import (
    INTERRUPTED,
    find_session,
    load_task,
    make_tag,
    open_ledger,
    override_settings,
    print_answer,
)
from autoresearch.cli.detached import DetachedCommand, parse_line
from autoresearch.cli.look import get_headline, read_summary
from autoresearch.cli.progress import RunProgress, show_progress
from autoresearch.commands import steer
from autoresearch.commands.check import TAG, CheckResult, check_task
from autoresearch.commands.export import exporting
from autoresearch.commands.keep_awake import keep_awake
from autoresearch.commands.notify import notifying, read_ways
from autoresearch.commands.readiness import check_text, list_problems
from autoresearch.commands.report import write_report
from autoresearch.commands.slots import AUTO, LEAST_RUNS, read_most
from autoresearch.commands.start import open_session
from autoresearch.core.events import Event, StopRequested
from autoresearch.core.loop import Loop
from autoresearch.core.session import Session
from autoresearch.errors import AgentError, BusyError, LedgerError, NotOursError, TaskError
from autoresearch.formatting import one_line
from autoresearch.git.repository import Repository
from autoresearch.report import summary, text
from autoresearch.store import queries
from autoresearch.store.ledger import Ledger
from autoresearch.store.lock import find_owner
from autoresearch.store.paths import SessionPaths
from autoresearch.task.agent_names import parse_agents
from autoresearch.task.model import Task
from autoresearch.task.reading import override

if TYPE_CHECKING:
    from autoresearch.report.live import LiveView

WATCH_S = 0.5  # between two looks at a detached session
REFUSAL_S = 1.0  # most starts that are refused are refused within this time


def check(options: argparse.Namespace) -> int:
    if options.runs < 2:
        raise TaskError(f"--runs {options.runs}: at least 2, as one run tells nothing of the noise")
    task = load_task(options)
    most = 1 if options.slots is None else read_most(options.slots, task)
    if options.slots not in (None, AUTO):
        task = override(task, **{"runner.slots": most})
    result = run_check(task, options.runs, most, is_quiet=options.json)
    facts = asdict(result) | {"to_mend": list(list_problems(result))}
    print_answer(options, facts, check_text(result, verbose=options.verbose))
    return 0


def run_check(task: Task, runs: int, most_slots: int = 1, *, is_quiet: bool) -> CheckResult:
    """Check a task, and show how far it is unless `is_quiet`."""
    if is_quiet:
        return check_task(task, runs, lambda event: None, most_slots)
    progress = RunProgress(SessionPaths(task.root, TAG), runs)

    def listen(event: Event) -> None:
        progress.note(event)
        print(one_line(str(event)), flush=True)

    with show_progress(progress):
        return check_task(task, runs, listen, most_slots)


def run(options: argparse.Namespace) -> int:
    tag = options.tag or make_tag()
    task = load_task(options)
    task = override(
        override_settings(task, options),
        **{
            "agent.name": options.agent and parse_agents(options.agent),
            "agent.fallback": options.fallback,
            "limits.usd": options.usd,
            "limits.tokens": options.tokens,
            "runner.slots": options.slots and _read_slots(options, task, tag),
            "agent.ahead": options.ahead,
            "agent.at_once": options.at_once,
            **read_ways(options.notify or ()),
            "export.formats": options.export,
        },
    )
    for name in task.export.formats:
        exports.load(name)  # a format that is not there is refused before anything is measured
    if options.detach:
        return _run_detached(task, tag, options)
    has_view = sys.stdout.isatty() and not options.plain and not options.json
    listener = print_json if options.json else print_line
    opened = open_session(task, tag, lambda event: listener(event))
    with opened as session, keep_awake(), notifying(session):
        with (
            stop_on_signals(session),
            exporting(session),
            _view(session) if has_view else nullcontext() as view,
        ):
            if view is not None:
                listener = view.note
            try:
                reason = Loop(session).run()
            except AgentError:
                if session.ledger.has_baseline(session.record):
                    write_report(session.ledger, session.paths, task)
                raise
        written = write_report(session.ledger, session.paths, task)
        result = read_summary(session.ledger, session.paths)
    lines = [f"\n{reason}.\n{get_headline(result)}\n", *written]
    if session.stopping:
        lines.append(f"To go on: autoresearch run --tag {tag}")
    print_answer(options, {"stopped": reason, **summary.to_json(result)}, "\n".join(lines))
    return INTERRUPTED if session.stopping else 0


def _read_slots(options: argparse.Namespace, task: Task, tag: str) -> int:
    """The number of slots; with `auto` those that pay, measured now, or those that the session
    had."""
    most = read_most(options.slots, task)
    if options.slots != AUTO or most == 1:
        return most
    if (used := _count_used_slots(task, tag)) is not None:
        return used
    result = run_check(task, LEAST_RUNS, most, is_quiet=options.json)
    return result.best_slots or 1


def _count_used_slots(task: Task, tag: str) -> int | None:
    """The slots of a session that has its baseline; None if there is none."""
    paths = SessionPaths(task.root, tag)
    if not paths.ledger.exists():
        return None
    with closing(Ledger(paths.ledger, readonly=True)) as ledger:
        record = ledger.find_session(tag)
        if record is None or not ledger.has_baseline(record):
            return None
        return queries.count_slots(ledger, record)


def print_line(event: Event) -> None:
    """Print an event as the time of day and a line."""
    with suppress(OSError):  # the reader of our output is gone: the session goes on
        print(f"{datetime.datetime.now():%H:%M:%S} {one_line(str(event))}", flush=True)


def print_json(event: Event) -> None:
    """Print an event as one line of JSON. `at` is Unix time in seconds."""
    with suppress(OSError):
        print(json.dumps({"at": time.time(), **event.to_json()}), flush=True)


@contextmanager
def stop_on_signals(session: Session) -> Iterator[None]:
    """Let Ctrl-C end the session after the open runs, and a second one end them too."""

    def handle(number: int, frame: FrameType | None) -> None:
        if session.stopping is not None:
            session.interrupt()
            return
        session.stop("interrupted")
        session.emit(StopRequested())

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    # An ignored signal stays ignored: that is what `nohup` asks for.
    handled = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handle) for number in handled}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _view(session: Session) -> Iterator[LiveView]:
    """Show the live view of a session of this process. It reads the ledger, as others do."""
    from autoresearch.report.live import LiveView  # a tenth of the start's time, for a terminal

    with closing(Ledger(session.paths.ledger, readonly=True)) as ledger:

        def read() -> summary.Summary:
            return read_summary(
                ledger,
                session.paths,
                agent=session.scheduler.names,
                elapsed_s=session.elapsed_s(),
            )

        with LiveView(read) as view:
            yield view


def _run_detached(task: Task, tag: str, options: argparse.Namespace) -> int:
    """Start the same command in a detached process, and wait until it has recorded the session."""
    Repository(task.root, task.editable, task.may_edit).refs.check_tag(tag)
    paths = SessionPaths(task.root, tag)
    if find_owner(paths) is not None:
        raise BusyError(f"session {tag!r} is running already: autoresearch attach --tag {tag}")
    words = [word for word in sys.argv[1:] if word != "--detach"]
    if options.slots:  # `auto` has been measured
        words += ["--slots", str(task.runner.slots)]
    command = DetachedCommand(paths, words if options.tag else [*words, "--tag", tag])
    process = command.process
    while process.poll() is None and not (find_owner(paths) == process.pid and _is_recorded(paths)):
        time.sleep(0.05)
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=REFUSAL_S)
    if process.poll():
        raise command.make_error()
    print_answer(
        options,
        {"tag": tag, "pid": process.pid, "log": str(paths.log)},
        f"session {tag} goes on without this terminal (pid {process.pid}, log {paths.log})\n"
        f"watch: autoresearch attach --tag {tag}    end: autoresearch stop --tag {tag}",
    )
    return 0


def _is_recorded(paths: SessionPaths) -> bool:
    """Whether the ledger has the session, so that other commands find it."""
    with suppress(LedgerError), closing(Ledger(paths.ledger, readonly=True)) as ledger:
        return ledger.find_session(paths.tag) is not None
    return False


def attach(options: argparse.Namespace) -> int:
    with open_ledger(options) as (ledger, _, paths):
        try:
            if sys.stdout.isatty() and not options.json:
                from autoresearch.report.live import LiveView

                with LiveView(lambda: read_summary(ledger, paths)):
                    while find_owner(paths) is not None:
                        time.sleep(WATCH_S)
            else:
                for line in _follow_log(paths):
                    event = parse_line(line)
                    shown = json.dumps(event) if options.json else event.get("text", line)
                    print(one_line(str(shown)), flush=True)
        except KeyboardInterrupt:
            if not options.json:
                print(f"\nno longer watching; session {paths.tag} goes on")
            return 0
        result = read_summary(ledger, paths)
    facts = {"running": False, **summary.to_json(result)}
    print_answer(options, facts, text.status_text(result, running=False))
    return 0


def _follow_log(paths: SessionPaths) -> Iterator[str]:
    """Yield the lines that a detached session prints, until it ends."""
    position, rest = 0, b""
    is_running = True
    while is_running:
        is_running = find_owner(paths) is not None
        if paths.log.exists():
            with paths.log.open("rb") as file:
                file.seek(position)
                *lines, rest = (rest + file.read()).split(b"\n")
                position = file.tell()
            yield from (line.decode(errors="replace") for line in lines)
        if is_running:
            time.sleep(WATCH_S)
    if rest:
        yield rest.decode(errors="replace")


def pause(options: argparse.Namespace) -> int:
    return _steer(options, steer.pause)


def resume(options: argparse.Namespace) -> int:
    return _steer(options, steer.resume)


def _steer(options: argparse.Namespace, act: Callable[[SessionPaths], str]) -> int:
    """Ask something of a session that another process owns, and say what that means."""
    _, paths = find_session(options)
    told = act(paths)
    print_answer(options, {"tag": paths.tag, "told": told}, told)
    return 0


def stop(options: argparse.Namespace) -> int:
    if options.after:
        return _steer(options, steer.end)
    _, paths = find_session(options)
    pid = find_owner(paths)
    if pid is None:
        raise NotOursError(f"session {paths.tag!r} is not running")
    with suppress(ProcessLookupError):  # it has just ended
        os.kill(pid, signal.SIGTERM)  # a process that a script started with `&` ignores SIGINT
        if options.now:
            time.sleep(0.2)
            os.kill(pid, signal.SIGTERM)
    while find_owner(paths) is not None:
        time.sleep(0.1)
    print_answer(options, {"stopped": paths.tag}, f"session {paths.tag} has ended")
    return 0
