"""How far the runs of `check` are: the time since the build or run began, and the last line that it
printed."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from autoresearch.core.events import BaselineRunFinished, Event
from autoresearch.files import tail
from autoresearch.formatting import cut, duration, one_line
from autoresearch.store.paths import SessionPaths

PLAIN_EVERY_S = 30.0  # a line where there is no terminal
LAST_LINE_BYTES = 4000


class RunProgress:
    """A listener that counts a session's runs, and reads the logs of its builds and runs."""

    def __init__(self, paths: SessionPaths, wanted: int) -> None:
        self._paths = paths
        self._wanted = wanted
        self._done = 0
        self._since = time.monotonic()

    def note(self, event: Event) -> None:
        if isinstance(event, BaselineRunFinished):
            self._done, self._wanted = self._done + 1, event.wanted
            self._since = time.monotonic()

    def describe(self) -> str:
        """ "run 2 of 4, 12 s: epoch 3 of 10", or "build, 5 s: cc -O2 main.c"."""
        took = duration(time.monotonic() - self._since)
        log = self._find_log()
        is_build = log is not None and log.parent == self._paths.builds
        further = "further runs" if self._done == self._wanted else ""
        what = "build" if is_build else further or f"run {self._done + 1} of {self._wanted}"
        return f"{what}, {took}: {_read_last_line(log) or '(nothing printed yet)'}"

    def _find_log(self) -> Path | None:
        """The log that was written last."""
        logs = (*self._paths.builds.glob("*.log"), *self._paths.runs.glob("*/*/*log"))
        return max(logs, key=lambda log: log.stat().st_mtime, default=None)


def _read_last_line(log: Path | None) -> str:
    """A program's own buffer may hold back what follows."""
    text = tail(log, LAST_LINE_BYTES).replace("\r", "\n") if log is not None else ""
    lines = [one_line(line) for line in text.split("\n")]
    return next((line for line in reversed(lines) if line), "")


@contextmanager
def show_progress(progress: RunProgress) -> Iterator[None]:
    """Show it until the block ends: in place on a terminal, else as a line now and then."""
    if sys.stdout.isatty():
        with _show_on_terminal(progress):
            yield
        return
    has_ended = threading.Event()

    def tell() -> None:
        while not has_ended.wait(PLAIN_EVERY_S):
            print(progress.describe(), flush=True)

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        has_ended.set()
        thread.join()


@contextmanager
def _show_on_terminal(progress: RunProgress) -> Iterator[None]:
    from rich.console import Console
    from rich.live import Live
    from rich.spinner import Spinner
    from rich.text import Text

    console, spinner = Console(), Spinner("dots")

    def draw() -> Spinner:
        spinner.update(text=Text(cut(progress.describe(), console.width - 4), style="dim"))
        return spinner

    with Live(console=console, get_renderable=draw, refresh_per_second=4, transient=True):
        yield
