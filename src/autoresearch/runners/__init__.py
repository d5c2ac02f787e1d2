"""Places to run. One file, one runner: the file name is the registration.

A runner module defines `create(settings, inherit) -> Runner`; the contract is
`autoresearch.records.Runner`, and `autoresearch.testing.RunnerSuite` tests it.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence

from autoresearch.errors import RunnerError
from autoresearch.protocols import Runner
from autoresearch.task.model import RunnerSettings


def names() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.ispkg)


def load(settings: RunnerSettings, inherit: Sequence[int] = ()) -> Runner:
    """The runner named in the task. `inherit` are file descriptors its helpers must hold open for
    as long as they live, so that a lock on them is held until the last process is gone."""
    if settings.name not in names():
        raise RunnerError(f"unknown runner {settings.name!r}; there are: {', '.join(names())}")
    module = importlib.import_module(f"{__name__}.{settings.name}")
    runner: Runner = module.create(settings, inherit)
    return runner
