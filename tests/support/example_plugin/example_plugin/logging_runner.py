"""Runs on this machine, as the runner `local` does, and notes every run in a file.

[runner] name = "logging"
[runner.logging] file = "/tmp/runs.txt"
"""

from __future__ import annotations

from pathlib import Path

from autoresearch.errors import RunnerError
from autoresearch.protocols import Runner, RunResult, RunSpec, TreeSource
from autoresearch.runners import local
from autoresearch.task.model import RunnerSettings


def create(settings: RunnerSettings) -> LoggingRunner:
    file = settings.options.get("logging", {}).get("file", "/dev/null")
    if not isinstance(file, str):
        raise RunnerError(f"logging: found file = {file!r}; accepted: a path")
    return LoggingRunner(local.create(settings), Path(file))


class LoggingRunner:
    name = "logging"

    def __init__(self, local: Runner, file: Path) -> None:
        self.slots = local.slots
        self._local = local
        self._file = file

    def run(self, spec: RunSpec, source: TreeSource) -> RunResult:
        result = self._local.run(spec, source)
        with self._file.open("a") as file:
            file.write(f"{spec.argv[0]} {result.exit_code} {result.stopped}\n")
        return result

    def interrupt(self) -> None:
        self._local.interrupt()

    def close(self) -> None:
        self._local.close()
