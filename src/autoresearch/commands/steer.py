"""Steer a session that another process owns, and leave its agents a note."""

from __future__ import annotations

import time
from contextlib import closing

from autoresearch.errors import NotOursError, TaskError
from autoresearch.formatting import escape_unstorable, printable
from autoresearch.store.ledger import Ledger
from autoresearch.store.lock import find_owner
from autoresearch.store.paths import SessionPaths
from autoresearch.store.requests import Requests

LONGEST_NOTE = 4_000  # characters
USER = "user"  # who wrote a note on the page


def pause(paths: SessionPaths) -> str:
    """Let no further experiment begin. Returns what that means, in words. Raises `NotOursError`
    if the session does not run."""
    _check_running(paths)
    Requests(paths).pause()
    return f"session {paths.tag} pauses after the experiments under way"


def resume(paths: SessionPaths) -> str:
    """Take back a pause, or an end that was asked for."""
    _check_running(paths)
    Requests(paths).resume()
    return f"session {paths.tag} goes on"


def end(paths: SessionPaths) -> str:
    """Let the session end, and verify its result, after the experiments under way."""
    _check_running(paths)
    requests = Requests(paths)
    requests.resume()
    requests.end()
    return f"session {paths.tag} ends after the experiments under way"


def _check_running(paths: SessionPaths) -> None:
    if find_owner(paths) is None:
        raise NotOursError(f"session {paths.tag!r} is not running")


def leave_note(paths: SessionPaths, author: str, text: str) -> None:
    """Keep a note, which the next briefing has. Raises `TaskError` for one that is empty or too
    long."""
    if not text.strip():
        raise TaskError("note: it is empty")
    if len(text) > LONGEST_NOTE:
        raise TaskError(f"note: {len(text):,} characters; accepted: {LONGEST_NOTE:,}")
    with closing(Ledger(paths.ledger)) as ledger:
        record = ledger.session(paths.tag)
        ledger.add_note(record, author, printable(escape_unstorable(text)), time.time())
