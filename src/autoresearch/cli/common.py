"""What several commands share: which session is meant, what a start may set, Ctrl-C, the report."""

from __future__ import annotations

import argparse
import datetime
import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from autoresearch.commands.check import not_enforced
from autoresearch.core.events import Event, StopRequested
from autoresearch.core.session import Session
from autoresearch.errors import LedgerError, NotOursError
from autoresearch.report import collect, page, plot, summary
from autoresearch.store import files
from autoresearch.store.ledger import Ledger
from autoresearch.store.paths import SessionPaths, enclosing, ledger_path
from autoresearch.store.rows import SessionRecord
from autoresearch.task.model import Task
from autoresearch.task.reading import load, override

INTERRUPTED = 130  # exit code, as shells have it for Ctrl-C


def session_settings(one: argparse.ArgumentParser) -> None:
    """What a start may set, over the task file."""
    one.add_argument("--tag", help="name of the session and its branch (today, like nov23)")
    one.add_argument("--experiments", type=int, metavar="N", help="in all, over all resumes")
    one.add_argument("--hours", type=float, metavar="H", help="of work, over all resumes")
    one.add_argument("--until", metavar="HH:MM", help="time of day")
    one.add_argument("--patience", type=int, metavar="N", help="experiments without a keep")
    one.add_argument("--target", type=float, metavar="X", help="value of the metric to reach")
    one.add_argument("--level", choices=("fast", "default", "strict"), help="how sure a keep is")


def asked(options: argparse.Namespace, task: Task | None = None) -> Task:
    """The task, with the settings of `session_settings` over its file or over `task`."""
    return override(
        task or load(root_of(options)),
        **{
            "limits.experiments": options.experiments,
            "limits.hours": options.hours,
            "limits.until": options.until,
            "limits.patience": options.patience,
            "limits.target": options.target,
            "judge.level": options.level,
        },
    )


def root_of(options: argparse.Namespace) -> Path:
    """The task's folder that a command is about; in the working folder of a session, that
    session's."""
    here = enclosing(Path(options.task).absolute())
    return here.root if here else Path(options.task)


def today() -> str:
    """The tag of a session that is given none, like nov23."""
    return datetime.date.today().strftime("%b%d").lower()


def existing(options: argparse.Namespace) -> tuple[Ledger, SessionPaths, Task]:
    """The ledger and the session a command is about: `--tag`, the one in whose working folder we
    stand, or the latest."""
    here = enclosing(Path(options.task).absolute())
    task = load(root_of(options))
    ledger = Ledger(ledger_path(task.root), readonly=True)
    sessions = ledger.sessions()
    if not sessions:
        raise LedgerError(f"no session was started here yet: {ledger.path} has none")
    tag = options.tag or (here.tag if here else sessions[-1].tag)
    row: SessionRecord = ledger.session(tag)
    return ledger, SessionPaths(task.root, row.tag), task


def read_summary(
    ledger: Ledger, paths: SessionPaths, task: Task, *, open_holdout: bool = False
) -> summary.Summary:
    name = task.root.name
    return collect.summarise(ledger, paths.tag, time.time(), task=name, open_holdout=open_holdout)


def print_line(event: Event) -> None:
    """A listener: the time of day and the event's line."""
    with suppress(OSError):  # the reader of our output is gone: the session goes on
        print(f"{datetime.datetime.now():%H:%M:%S} {event}", flush=True)


def print_json(event: Event) -> None:
    """A listener: one JSON object a line. `at` is Unix time in seconds."""
    with suppress(OSError):
        print(json.dumps({"at": time.time(), **event.to_json()}), flush=True)


def plain(markdown: str) -> str:
    return markdown.replace("**", "").replace("`", "")


@contextmanager
def signals(session: Session) -> Iterator[None]:
    """Ctrl-C once ends the session after the runs under way, twice ends them too."""

    def handle(number: int, frame: FrameType | None) -> None:
        if session.stopping is not None:
            session.interrupt()
            return
        session.stop("interrupted")
        session.emit(StopRequested())

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    # One that is ignored stays so: that is what `nohup` asks for.
    heard = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handle) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def write_report(ledger: Ledger, paths: SessionPaths, task: Task) -> list[str]:
    """report.md and progress.png, from the ledger; says where they are. Where a file of that name
    belongs to somebody else, ours goes into the session's own folder."""
    row = ledger.session(paths.tag)
    experiments = ledger.finished(row)
    found = collect.summarise(
        ledger, paths.tag, time.time(), task=task.root.name, all_keeps=True, open_holdout=True
    )
    segments = [(one.after_order, one.score) for one in found.segments[1:]]
    picture = plot.plot(experiments, row.metric, found.noise_sd, segments)
    words = page.page(found, experiments, sandbox="; ".join(not_enforced(task)))
    said = []
    for path, data in ((paths.report, words.encode()), (paths.picture, picture)):
        try:
            files.publish(ledger, path, data)
            said.append(f"written: {path}")
        except NotOursError:
            other = paths.folder / path.name
            files.replace_file(other, data)
            said.append(f"written: {other} ({path} is not ours, and was left alone)")
    return said
