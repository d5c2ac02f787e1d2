"""Exports a session: afterwards from its ledger, or while it works, in a process of its own for
each format. A format's library may be slow or break; the session does not notice.

As a program this module is that process. It exports what has finished at every line on its standard
input, and ends when that ends.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import fields
from math import isfinite
from pathlib import Path
from typing import TextIO, TypeVar

from autoresearch import exports
from autoresearch.briefing.logs import find_curves, read_ends
from autoresearch.core.events import Event, ExperimentFinished
from autoresearch.core.session import Session
from autoresearch.errors import AutoresearchError, ExportError
from autoresearch.exports import (
    CurvePoint,
    ExperimentRow,
    ExportedExperiment,
    ExportedSession,
    Exporter,
    RunRow,
)
from autoresearch.files import remove_tree, tail
from autoresearch.formatting import cut, one_line
from autoresearch.records import Experiment, Role, Run
from autoresearch.store.ledger import Ledger
from autoresearch.store.lock import try_lock
from autoresearch.store.paths import SessionPaths, make_module_command
from autoresearch.store.results import DECIDING

T = TypeVar("T")
POINTS = 1000  # of a curve, at most
MARK = ".autoresearch-export"  # in a folder of ours, which the next export may replace
BASELINE_S = 1.0  # between looks for it: no event tells that it has finished
LINES = 4096  # bytes of standard input read at once
PATIENCE_S = 5.0  # for the process of a session that has just ended
LAST_S = 60.0  # at a session's end, for what was not exported yet


# --------------------------------------------------------------------------------------------
# From the ledger


def export_session(paths: SessionPaths, name: str, folder: Path) -> int:
    """Export all finished experiments into `folder`, and return their number. Raises `ExportError`
    if that cannot be done, or the folder holds files of somebody else, or is being written."""
    with open_export(paths, name, folder) as export:
        return export.catch_up()


class Export:
    """One session in one format, as far as it was exported."""

    def __init__(self, ledger: Ledger, paths: SessionPaths, exporter: Exporter) -> None:
        self._ledger, self._paths, self._exporter = ledger, paths, exporter
        self._last = -1  # the order of the latest experiment that was exported

    def catch_up(self) -> int:
        """Export what has finished since the last call, and return how many experiments."""
        record = self._ledger.session(self._paths.tag)
        finished = self._ledger.finished(record, after=self._last)
        for experiment in finished:
            runs = self._ledger.runs(record, experiment.number)
            deciding = [run for run in runs if run.role in DECIDING and run.finished]
            self._exporter.add(_describe(experiment, deciding, self._paths, record.metric.name))
            self._last = -1 if experiment.order is None else experiment.order
        return len(finished)


@contextmanager
def open_export(paths: SessionPaths, name: str, folder: Path) -> Iterator[Export]:
    """Begin an export in a folder, and finish it when the block ends. Raises `ExportError`."""
    module = exports.load(name)
    with closing(Ledger(paths.ledger, readonly=True)) as ledger:
        record = ledger.session(paths.tag)
        key = hashlib.sha256(str(record.secret).encode()).hexdigest()[:8]
        facts = (paths.root.name, record.tag, record.metric, key)
        try:
            with _make_empty(folder, name):
                exporter: Exporter = module.create(ExportedSession(*facts), folder)
                try:
                    yield Export(ledger, paths, exporter)
                finally:
                    exporter.close()
        except AutoresearchError:
            raise
        except Exception as error:  # whatever a library raises
            message = f"export {name!r} in {folder}: {type(error).__name__}: {error}"
            raise ExportError(message) from error


def _make_empty(folder: Path, name: str) -> TextIO:
    """Make an empty folder in place of an earlier export. It is ours alone while the file that is
    returned is open. Raises `ExportError` if something else is there, or a process exports into it.
    """
    if os.path.lexists(folder):
        is_ours = folder.is_dir() and (not any(folder.iterdir()) or (folder / MARK).exists())
        if folder.is_symlink() or not is_ours:
            raise ExportError(
                f"{folder} is there and is no earlier export: accepted is a new or empty folder, "
                "or one that an export made"
            )
        with _own(folder):
            remove_tree(folder)
    folder.mkdir(parents=True)
    mark = _own(folder)
    print(name, file=mark, flush=True)
    return mark


def _own(folder: Path) -> TextIO:
    """Open the mark of a folder, and lock it until it is closed. Raises `ExportError` if another
    process has locked it."""
    mark = (folder / MARK).open("a")
    deadline = time.monotonic() + PATIENCE_S
    while not try_lock(mark.fileno(), fcntl.LOCK_EX):
        if time.monotonic() > deadline:
            mark.close()
            raise ExportError(
                f"{folder} is being written by another process, such as a session that works: "
                "read it there, or export what has finished into another folder with `--to FOLDER`"
            )
        time.sleep(0.05)
    return mark


def _describe(
    experiment: Experiment, runs: list[Run], paths: SessionPaths, metric: str
) -> ExportedExperiment:
    rows, points, numbers = [], [], Counter[str]()
    for run in runs:
        kind = "incumbent" if run.role is Role.CONTROL else "run"
        numbers[kind] += 1
        rows.append(_fill(RunRow, run, run=run.name, label=f"{kind}{numbers[kind]}"))
        points += _read_points(rows[-1], paths.runs / run.name / "log", metric)
    cpu_s = [run.cpu_s for run in runs if run.cpu_s is not None]
    row = _fill(ExperimentRow, experiment, runs=len(runs), cpu_s=sum(cpu_s) if cpu_s else None)
    return ExportedExperiment(row, rows, points)


def _fill(row: type[T], record: object, **others: object) -> T:
    """Make a row of the record's fields of the same names, and others."""
    cells = dict(others)
    for field in fields(row):  # type: ignore[arg-type]  # it is a dataclass
        if field.name not in cells:
            value = getattr(record, field.name)
            cells[field.name] = one_line(value or "") if field.type == "str" else value
    return row(**cells)


def _read_points(row: RunRow, log: Path, metric: str) -> list[CurvePoint]:
    """What the run printed while it trained. Points of a training that diverged are left out."""
    return [
        CurvePoint(row.experiment, row.run, row.label, curve.name, curve.by, at, value)
        for curve in find_curves(read_ends(log), metric, POINTS)
        for at, value in curve.points
        if isfinite(at) and isfinite(value)
    ]


# --------------------------------------------------------------------------------------------
# While a session works


@contextmanager
def exporting(session: Session) -> Iterator[None]:
    """Export the session in the task's formats while the block works."""
    with ExitStack() as stack:
        for name in dict.fromkeys(session.task.export.formats):
            stack.enter_context(_follow(session, name))
        yield


@contextmanager
def _follow(session: Session, name: str) -> Iterator[None]:
    try:
        process = ExportProcess(session, name)
    except OSError as error:  # such as a full disk
        _warn(session, name, str(error))
        yield
        return
    session.listeners.append(process.listen)
    try:
        yield
    finally:
        session.listeners.remove(process.listen)
        process.close()


class ExportProcess:
    """The process that exports a session in one format. It ends with the session; what it cannot
    do is a warning, once."""

    def __init__(self, session: Session, name: str) -> None:
        self._session, self._name = session, name
        paths = session.paths
        paths.exports.mkdir(parents=True, exist_ok=True)
        self._log = paths.exports / f"{name}.log"
        command = make_module_command(__name__, str(paths.root), paths.tag, name)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the session
            )
        assert self._process.stdin is not None
        self._input = self._process.stdin
        os.set_blocking(self._input.fileno(), False)

    def listen(self, event: Event) -> None:
        """A listener of the session: wakes the process, or says why it has ended."""
        if not isinstance(event, ExperimentFinished):
            return
        if self._process.poll() is None:
            with suppress(OSError):  # it ends now, or has lines enough that it did not read
                os.write(self._input.fileno(), b"\n")
        else:
            self._warn(self._read_error())

    def close(self) -> None:
        """Wait until it has exported everything, at most LAST_S seconds, and end it."""
        self._input.close()
        try:
            if self._process.wait(LAST_S):
                self._warn(self._read_error())
        except subprocess.TimeoutExpired:
            self._warn(f"it was not done {LAST_S:.0f} s after the session")
        finally:
            with suppress(ProcessLookupError):  # what it has started ends with it
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _warn(self, why: str) -> None:
        _warn(self._session, self._name, why)

    def _read_error(self) -> str:
        lines = tail(self._log, 4000).strip().splitlines()
        return cut(lines[-1], 400) if lines else "it ended without a word"


def _warn(session: Session, name: str, why: str) -> None:
    again = f"autoresearch export {name} --tag {session.record.tag}"
    with suppress(AutoresearchError):  # the disk is full, say: the session will tell
        session.warn(f"[export] {name}: {why}; to make it again: {again}")


def main() -> None:
    root, tag, name = sys.argv[1:]
    paths = SessionPaths(Path(root), tag)
    try:
        with open_export(paths, name, paths.exports / name) as export:
            has_baseline, is_open = False, True
            while is_open:
                has_baseline = export.catch_up() > 0 or has_baseline
                lines = select.select([0], [], [], None if has_baseline else BASELINE_S)[0]
                is_open = not lines or bool(os.read(0, LINES))
            export.catch_up()
    except AutoresearchError as error:
        sys.exit(one_line(str(error)))


if __name__ == "__main__":
    main()
