"""Commands of a session that outlive this process: `run --detach`, `try --detach`, and the one that
finishes a try which was cut off. They print into the session's log."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from autoresearch.errors import AutoresearchError
from autoresearch.store.paths import SessionPaths, make_module_command


@dataclass(frozen=True, slots=True)
class DetachedCommand:
    process: subprocess.Popen[bytes]
    paths: SessionPaths
    log_start: int  # where its output begins in the log

    def make_error(self) -> AutoresearchError:
        """The error that the command ended with, with its exit code."""
        with self.paths.log.open("rb") as file:
            file.seek(self.log_start)
            error = AutoresearchError(find_error(file.read().decode(errors="replace")))
        error.exit_code = self.process.wait() or AutoresearchError.exit_code
        return error


def detach(paths: SessionPaths, words: Sequence[str]) -> DetachedCommand:
    """Start `autoresearch` with these arguments in a process session of its own."""
    paths.folder.mkdir(parents=True, exist_ok=True)
    with paths.log.open("ab") as file:
        log_start = file.tell()
        process = subprocess.Popen(
            make_module_command("autoresearch", *words),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return DetachedCommand(process, paths, log_start)


def find_error(output: str) -> str:
    """The error message in all that a command printed."""
    for line in output.splitlines():
        event = parse_line(line)
        if "error" in event and "message" in event:
            return str(event["message"])
    before, _, message = f"\n{output}".partition("\nautoresearch: ")
    return (message or before).strip() or "it ended without a word"


def parse_line(line: str) -> dict[str, Any]:
    """A line of a session's log as an event: with `--json` each is a JSON object, otherwise it is a
    text."""
    try:
        event = json.loads(line)
    except ValueError:
        event = None
    return event if isinstance(event, dict) else {"text": line}
