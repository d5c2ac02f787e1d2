"""One process owns a session at a time, until it dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.sessions import wait_until

from autoresearch.errors import BusyError, StorageError
from autoresearch.store.lock import Lock, find_owner
from autoresearch.store.paths import SessionPaths

HOLD = """
import sys, time
from pathlib import Path
from autoresearch.store.lock import Lock
from autoresearch.store.paths import SessionPaths
lock = Lock(SessionPaths(Path(sys.argv[1]), "t"))
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_an_owned_session_is_refused(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    paths = SessionPaths(tmp_path, "t")
    assert find_owner(paths) == holder.pid
    with pytest.raises(BusyError, match=rf"'t' is owned by a running process \(pid {holder.pid}\)"):
        Lock(paths, patience_s=0.1)
    other = Lock(SessionPaths(tmp_path, "other"), patience_s=0)  # each session has its own
    other.release()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_lock_dies_with_its_process(
    tmp_path: Path, holder: subprocess.Popen[str], number: signal.Signals
) -> None:
    paths = SessionPaths(tmp_path, "t")
    holder.send_signal(number)
    holder.wait()
    assert find_owner(paths) is None
    lock = Lock(paths, patience_s=0)
    assert paths.lock.read_text() == f"{os.getpid()}\n"
    assert find_owner(paths) == os.getpid()
    lock.release()
    assert find_owner(paths) is None


def test_a_lock_is_taken_when_its_owner_ends(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    """The wardens of a killed session need a moment to kill its runs."""
    holder.terminate()
    lock = Lock(SessionPaths(tmp_path, "t"), patience_s=20)
    lock.release()


def test_a_session_that_does_not_exist_has_no_owner(tmp_path: Path) -> None:
    assert find_owner(SessionPaths(tmp_path, "t")) is None


def test_find_owner_does_not_disturb_the_owner(tmp_path: Path) -> None:
    paths = SessionPaths(tmp_path, "t")
    lock = Lock(paths)
    for _ in range(3):
        assert find_owner(paths) == os.getpid()
    with pytest.raises(BusyError):
        Lock(paths, patience_s=0)
    lock.release()
    wait_until(lambda: find_owner(paths) is None)


def test_a_session_folder_that_cannot_be_created(tmp_path: Path) -> None:
    (tmp_path / ".autoresearch").write_text("a file")
    with pytest.raises(StorageError, match="cannot write"):
        Lock(SessionPaths(tmp_path, "t"))
