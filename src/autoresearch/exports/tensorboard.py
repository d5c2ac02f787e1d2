"""TensorBoard's event files: the metric by experiment, each experiment's facts as text, and the
curves of its runs in a folder of its own."""

from __future__ import annotations

from pathlib import Path

from autoresearch.exports import ExperimentRow, ExportedExperiment, ExportedSession

REQUIRES = "tensorboardX"
LOOK = "tensorboard --logdir {folder}"
NUMBERS = ("runs", "cpu_s", "tokens", "usd")  # shown by experiment, beside the metric


class TensorboardExporter:
    def __init__(self, session: ExportedSession, folder: Path) -> None:
        from tensorboardX import SummaryWriter

        self._metric, self._folder, self._make = session.metric.name, folder, SummaryWriter
        self._session = SummaryWriter(str(folder / "session"))

    def add(self, done: ExportedExperiment) -> None:
        row, write = done.row, self._session.add_scalar
        if row.metric is not None:
            for name in ("all", row.status):
                write(f"{self._metric}/{name}", row.metric, row.number, walltime=row.ended_at)
        for name in NUMBERS:
            if (value := getattr(row, name)) is not None:
                write(f"cost/{name}", value, row.number, walltime=row.ended_at)
        self._session.add_text("experiment", _tabulate(row), row.number, walltime=row.ended_at)
        self._session.flush()
        if curves := done.steps():
            with self._make(str(self._folder / f"{row.number:04d}")) as writer:
                for key, points in curves.items():
                    for step, value in points:
                        writer.add_scalar(key, value, step)

    def close(self) -> None:
        self._session.close()


def _tabulate(row: ExperimentRow) -> str:
    """The facts as a table of Markdown."""
    cells = {name: str(value).replace("|", "\\|") for name, value in row.known().items()}
    lines = [f"| {name} | {text} |" for name, text in cells.items()]
    return "\n".join(["| fact | value |", "|---|---|", *lines])


def create(session: ExportedSession, folder: Path) -> TensorboardExporter:
    return TensorboardExporter(session, folder)
