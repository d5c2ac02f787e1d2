"""Commands of a session that outlive this process: `run --detach`, `try --detach`, and the one that
finishes a try which was cut off. They print into the session's log."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from typing import Any

from autoresearch.errors import AutoresearchError
from autoresearch.store.paths import SessionPaths, make_module_command


class DetachedCommand:
    """`autoresearch` with the arguments `words`, in a process session of its own."""

    def __init__(self, paths: SessionPaths, words: Sequence[str]) -> None:
        self._log = paths.log
        paths.folder.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as file:
            self._log_start = file.tell()
            self.process = subprocess.Popen(
                make_module_command("autoresearch", *words),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def make_error(self) -> AutoresearchError:
        """Make the error that the command ended with, with its exit code."""
        with self._log.open("rb") as file:
            file.seek(self._log_start)
            error = AutoresearchError(find_error(file.read().decode(errors="replace")))
        error.exit_code = self.process.wait() or AutoresearchError.exit_code
        return error


def find_error(output: str) -> str:
    """The error message in the output of a command."""
    for line in output.splitlines():
        event = parse_line(line)
        if "error" in event and "message" in event:
            return str(event["message"])
    before, _, message = f"\n{output}".partition("\nautoresearch: ")
    return (message or before).strip() or "it ended without a word"


def parse_line(line: str) -> dict[str, Any]:
    """Parse a line of a session's log: with `--json` it is an event, otherwise a text."""
    try:
        event = json.loads(line)
    except ValueError:
        event = None
    return event if isinstance(event, dict) else {"text": line}
