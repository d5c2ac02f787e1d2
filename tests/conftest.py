"""Fixtures that tests of several packages use."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from support.sessions import make_task

from autoresearch.store.ledger import Ledger

# Where `tmp_path` is: a confined process has a /tmp of its own, and would not see the tests' files.
os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", "/var/tmp")

# Otherwise each warden compiles what it imports: a quarter of a second of CPU time.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Wall time says nothing of a property: a busy machine would fail what holds. The same examples each
# time: no test hangs on luck. `pytest --hypothesis-profile=default` looks for others.
settings.register_profile(
    "any machine",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("any machine")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The tiny task."""
    return make_task(tmp_path / "task")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """An empty ledger of a task called tiny_gpt."""
    folder = tmp_path / "tiny_gpt" / ".autoresearch"
    folder.mkdir(parents=True)
    ledger = Ledger(folder / "ledger.sqlite")
    yield ledger
    ledger.close()


@pytest.fixture
def counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """The seeds of all executions of prog.py so far, in their order."""
    file = tmp_path / "side" / "counted"
    monkeypatch.setenv("COUNTED", str(file))
    return lambda: file.read_text().split() if file.exists() else []


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB; needs root."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip("needs the right to mount a tmpfs")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)
