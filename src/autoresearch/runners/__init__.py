"""The built-in runners, one file each. The name of the file is the name of the runner.

A runner's file defines `create(settings) -> Runner`. So do the runners of other packages, which are
found by an entry point or a dotted path (docs/extending.md). The contract is
`autoresearch.protocols.Runner`, and `autoresearch.testing.RunnerSuite` tests it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from autoresearch.plugins import RUNNERS
from autoresearch.protocols import Runner

if TYPE_CHECKING:  # every warden imports this package, but not the task files
    from autoresearch.task.model import RunnerSettings

__all__ = ["load", "names"]

names = RUNNERS.names


def load(settings: RunnerSettings) -> Runner:
    """Make the runner named in the task. Raises `RunnerError` if there is no runner of that name,
    or its module cannot be imported."""
    runner: Runner = RUNNERS.load(settings.name).create(settings)
    return runner
