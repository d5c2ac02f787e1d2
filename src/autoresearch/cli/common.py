"""The task and the session that a command is about. Every command imports this file, so it imports
nothing that is slow.
"""

from __future__ import annotations

import argparse
import datetime
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoresearch.errors import LedgerError
from autoresearch.formatting import printable
from autoresearch.store.imported import find_night
from autoresearch.store.ledger import Ledger
from autoresearch.store.paths import SessionPaths, enclosing, ledger_path

if TYPE_CHECKING:
    from autoresearch.store.rows import SessionRecord
    from autoresearch.task.model import Task

INTERRUPTED = 130  # exit code, as shells have it for Ctrl-C
LIMITS = ("experiments", "hours", "until", "patience", "target")  # options of `run` and `start`
OWN_LIMITS = ("scratch",)  # of `start` alone
HARNESS_VARIABLE = "AUTORESEARCH_HARNESS"  # `ADDRESS:KEY` of the harness, for a confined agent


def find_enclosing(options: argparse.Namespace) -> SessionPaths | None:
    """The session in whose working folder TASK is; None if it is in none."""
    return enclosing(Path(options.task).absolute())


def task_path(options: argparse.Namespace) -> Path:
    """TASK; in the working folder of a session, that session's task folder."""
    here = find_enclosing(options)
    return here.root if here else Path(options.task)


def load_task(options: argparse.Namespace) -> Task:
    """The task that a command is about, see `task_path`."""
    from autoresearch.task.reading import load  # `status`, `log` and `show` do without the task

    return load(task_path(options))


def override_settings(task: Task, options: argparse.Namespace) -> Task:
    """The task with the settings that `run` and `start` accept as options."""
    from autoresearch.task.reading import override

    settings = {f"limits.{name}": getattr(options, name, None) for name in (*LIMITS, *OWN_LIMITS)}
    return override(task, **settings, **{"judge.level": options.level})


def restore_settings(task: Task, record: SessionRecord) -> Task:
    """The task with the limits and the level that the session was started with."""
    from autoresearch.task.reading import override

    limits = {f"limits.{name}": value for name, value in record.limits.items()}
    limits.pop("limits.deadline", None)
    if "limits.until" in limits:
        limits["limits.until"] = limits["limits.until"][:5]  # HH:MM
    return override(task, limits={}, **limits, **{"judge.level": record.level})


def make_tag() -> str:
    """The tag of a session that is given none: today, like nov23."""
    return datetime.date.today().strftime("%b%d").lower()


@contextmanager
def open_ledger(
    options: argparse.Namespace,
) -> Iterator[tuple[Ledger, SessionRecord, SessionPaths]]:
    """The ledger, to read, and the session that a command is about: `--tag`, the one in whose
    working folder the command was started, or the latest."""
    here = find_enclosing(options)
    root = find_root(options)
    refuse_imported(root, options.tag)
    ledger = Ledger(ledger_path(root), readonly=True)
    try:
        sessions = ledger.sessions()
        if not sessions:
            raise LedgerError(f"no session was started here yet: {ledger.path} has none")
        record = ledger.session(options.tag or (here.tag if here else sessions[-1].tag))
        yield ledger, record, SessionPaths(root, record.tag)
    finally:
        ledger.close()


def refuse_imported(root: Path, tag: str | None) -> None:
    """Raises `LedgerError` for the tag of an imported night: it has no runs."""
    if tag is not None and find_night(root, tag) is not None:
        raise LedgerError(
            f"{tag!r} was imported, not measured here: `log` lists it, and briefings and `status` "
            "tell of it"
        )


def find_session(options: argparse.Namespace) -> tuple[SessionRecord, SessionPaths]:
    """The session that a command is about, as in `open_ledger`."""
    with open_ledger(options) as (_, record, paths):
        return record, paths


def print_answer(options: argparse.Namespace, facts: Any, text: str) -> None:
    """Print `facts` as JSON with `--json`, the text otherwise, without terminal escapes."""
    print(json.dumps(facts) if options.json else printable(text.removesuffix("\n")))


def find_root(options: argparse.Namespace) -> Path:
    """The task's folder. The task file is read only where there is no ledger, to say why."""
    path = task_path(options)
    with suppress(OSError, RuntimeError):  # no permission, or a loop of links
        root = (path if path.is_dir() else path.parent).resolve()
        if path.exists() and ledger_path(root).exists():
            return root
    return load_task(options).root
