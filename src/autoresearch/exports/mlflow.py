"""An MLflow store in one SQLite file: the session is MLflow's experiment, an experiment its run."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from autoresearch.exports import ExportedExperiment, ExportedSession, set_environment
from autoresearch.records import Status

REQUIRES = "mlflow"
LOOK = "mlflow ui --backend-store-uri sqlite:///{folder}/mlflow.db"
MOST_METRICS = 1000  # in one call
MOST_CHARACTERS = 5000  # of a tag
FACTS = ("number", "base", "status", "reason", "flag", "agent", "commit", "description")
NUMBERS = ("runs", "cpu_s", "peak_memory_bytes", "tokens", "usd")


class MlflowExporter:
    def __init__(self, session: ExportedSession, folder: Path) -> None:
        set_environment("MLFLOW_", MLFLOW_DISABLE_TELEMETRY="true")
        logging.getLogger("mlflow").setLevel(logging.WARNING)  # it tells of every table it makes
        from mlflow import MlflowClient

        self._metric = session.metric.name
        self._client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
        self._experiment = self._client.create_experiment(
            f"{session.task} {session.tag}",
            artifact_location=(folder / "artifacts").as_uri(),
            tags={"metric": session.metric.name, "goal": str(session.metric.goal)},
        )

    def add(self, done: ExportedExperiment) -> None:
        from mlflow.entities import Metric, RunTag

        row, known = done.row, done.row.known()
        started, ended = round(1000 * row.started_at), round(1000 * row.ended_at)
        numbers = {name: known[name] for name in NUMBERS if name in known}
        if row.metric is not None:
            numbers[self._metric] = row.metric
        metrics = [Metric(_name(name), float(value), ended, 0) for name, value in numbers.items()]
        for key, points in done.steps().items():
            metrics += [Metric(_name(key), value, ended, step) for step, value in points]
        tags = [RunTag(name, str(known[name])[:MOST_CHARACTERS]) for name in FACTS if name in known]
        run = self._client.create_run(self._experiment, started, run_name=row.title)
        self._client.log_batch(run.info.run_id, tags=tags)
        for first in range(0, len(metrics), MOST_METRICS):
            batch = metrics[first : first + MOST_METRICS]
            self._client.log_batch(run.info.run_id, metrics=batch)
        status = "FAILED" if row.status == Status.CRASH else "FINISHED"
        self._client.set_terminated(run.info.run_id, status, ended)

    def close(self) -> None:
        pass  # every call is a transaction


def _name(text: str) -> str:
    """A metric's name in the characters that MLflow accepts."""
    return re.sub(r"[^\w.\- :/]", "_", text)


def create(session: ExportedSession, folder: Path) -> MlflowExporter:
    return MlflowExporter(session, folder)
