"""Weights & Biases, offline: files that `wandb sync` sends if the user wants. An experiment is a
run, the session their group."""

from __future__ import annotations

from pathlib import Path

from autoresearch.exports import ExportedExperiment, ExportedSession, set_environment
from autoresearch.records import Status

REQUIRES = "wandb"
LOOK = "wandb sync {folder}/wandb/offline-run-*    (sends it to your account)"


class WandbExporter:
    def __init__(self, session: ExportedSession, folder: Path) -> None:
        set_environment("WANDB_", WANDB_ERROR_REPORTING="false", WANDB_MODE="offline")
        import wandb

        self._wandb, self._session, self._folder = wandb, session, folder
        self._settings = wandb.Settings(
            console="off",
            silent=True,
            # What it finds here and now is not what the experiments ran with.
            disable_git=True,
            disable_code=True,
            x_disable_stats=True,
            x_disable_machine_info=True,
            x_save_requirements=False,
        )

    def add(self, done: ExportedExperiment) -> None:
        row, session = done.row, self._session
        run = self._wandb.init(
            project=session.task,
            group=session.tag,
            name=row.title,
            # The same in every export, so that a second one replaces the first on a server.
            id=f"{session.key}-{row.number:04d}",
            job_type=row.status,
            config=row.known(),
            dir=str(self._folder),
            mode="offline",
            settings=self._settings,
        )
        for key, points in done.curves().items():
            axis = f"{points[0].label}/{points[0].by}"
            run.define_metric(key, step_metric=axis)
            for point in points:
                run.log({axis: point.at, key: point.value})
        if row.metric is not None:
            run.summary[session.metric.name] = row.metric
        run.summary.update({"runs": row.runs, "cpu_s": row.cpu_s})
        run.finish(exit_code=int(row.status == Status.CRASH))

    def close(self) -> None:
        self._wandb.teardown()


def create(session: ExportedSession, folder: Path) -> WandbExporter:
    return WandbExporter(session, folder)
