"""The runners that come with autoresearch: one file each, and the file's name is the runner's.

Such a file defines `create(settings) -> Runner`. A runner of another package is the same, found by
an entry point or a dotted path (docs/extending.md). The contract is
`autoresearch.protocols.Runner`, and `autoresearch.testing.RunnerSuite` tests it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from autoresearch.plugins import RUNNERS
from autoresearch.protocols import Runner

if TYPE_CHECKING:  # every warden imports this package, and none reads a task file
    from autoresearch.task.model import RunnerSettings

__all__ = ["load", "names"]

names = RUNNERS.names


def load(settings: RunnerSettings) -> Runner:
    """Make the runner named in the task. Raises `RunnerError` where there is none of that name, or
    its module cannot be imported."""
    runner: Runner = RUNNERS.load(settings.name).create(settings)
    return runner
