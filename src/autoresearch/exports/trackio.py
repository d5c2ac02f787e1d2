"""Trackio's local store: the session is a project, an experiment its run."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path

from autoresearch.exports import ExportedExperiment, ExportedSession, set_environment

REQUIRES = "trackio"
LOOK = "TRACKIO_DIR={folder} trackio show"


class TrackioExporter:
    def __init__(self, session: ExportedSession, folder: Path) -> None:
        set_environment("TRACKIO_", TRACKIO_DIR=str(folder), HF_HUB_OFFLINE="1")
        import trackio  # reads TRACKIO_DIR when it is imported

        self._trackio, self._metric = trackio, session.metric.name
        self._project = f"{session.task}-{session.tag}"

    def add(self, done: ExportedExperiment) -> None:
        row = done.row
        with redirect_stdout(sys.stderr):  # it tells of every run
            run = self._trackio.init(
                self._project,
                name=row.title,
                config=row.known(),
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
            for key, points in done.steps().items():
                for step, value in points:
                    run.log({key: value}, step)
            numbers = {self._metric: row.metric, "runs": row.runs, "cpu_s": row.cpu_s}
            run.log({name: value for name, value in numbers.items() if value is not None})
            self._trackio.finish()

    def close(self) -> None:
        pass  # every run was finished


def create(session: ExportedSession, folder: Path) -> TrackioExporter:
    return TrackioExporter(session, folder)
