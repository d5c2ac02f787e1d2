"""Run a command on a terminal of its own, and read what it shows."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from autoresearch.store.paths import make_module_command

COLUMNS, ROWS = 100, 40


def run_on_terminal(where: Path, *words: object, answers: str = "", **env: str) -> tuple[int, str]:
    """The exit code and everything that the command writes to its terminal, escapes included.
    `answers` is typed at once, each line is one answer."""
    master, terminal = pty.openpty()
    process = subprocess.Popen(
        [*make_module_command("autoresearch"), *map(str, words)],
        cwd=where,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env={"COLUMNS": str(COLUMNS), "LINES": str(ROWS), "TERM": "xterm"}
        | {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "TERM")}
        | env,
        start_new_session=True,
    )
    os.close(terminal)
    os.write(master, answers.encode())
    shown = b""
    deadline = time.monotonic() + 120
    with suppress(OSError):  # Linux reports the end of a terminal as an error
        while time.monotonic() < deadline:
            ready, _, _ = select.select([master], [], [], 0.2)
            if ready:
                if not (data := os.read(master, 65_536)):
                    break
                shown += data
            elif process.poll() is not None:
                break
    os.close(master)
    return process.wait(timeout=30), shown.decode(errors="replace").replace("\r\n", "\n")
