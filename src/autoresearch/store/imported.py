"""Nights of other programs, such as the original's results.tsv, beside the ledger.

Nothing of them was measured here. So they are no sessions of the ledger: none of their experiments
can be an incumbent, answer for a run, or be verified. Briefings, `status`, `log` and the page show
them, and say so.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from autoresearch.errors import LedgerError
from autoresearch.formatting import counted, plain
from autoresearch.records import Experiment, Goal, Metric, Status
from autoresearch.store.paths import STATE, ledger_path
from autoresearch.store.rows import PastAttempt

IMPORTED = "imported, not measured here"
FILE = "imported.json"


@dataclass(frozen=True, slots=True)
class ImportedExperiment:
    """An experiment as its log reports it."""

    number: int
    commit: str  # perhaps of another repository
    status: Status
    reason: str
    metric: float | None  # None for a crash
    description: str


@dataclass(frozen=True, slots=True)
class ImportedNight:
    """A log that was imported. The first keep is its baseline."""

    tag: str
    source: str  # the name of the file
    sha256: str  # of the file
    imported_at: float  # Unix time
    metric: Metric
    experiments: tuple[ImportedExperiment, ...]

    @property
    def best(self) -> float | None:
        """The best metric of a keep, as the log reports it."""
        values = [row.metric for row in self._keeps if row.metric is not None]
        return self.metric.best(values) if values else None

    @property
    def _keeps(self) -> list[ImportedExperiment]:
        return [row for row in self.experiments if row.status is Status.KEEP]

    def __str__(self) -> str:
        best = "" if self.best is None else f", best {self.metric.name} {plain(self.best)} reported"
        experiments = counted(max(0, len(self.experiments) - 1), "experiment")
        keeps = counted(max(0, len(self._keeps) - 1), "keep")
        return f"{experiments}, {keeps}{best}; {IMPORTED}"

    def list_attempts(self) -> list[PastAttempt]:
        """The experiments as those of a session: each is built on the keep before it."""
        attempts, base = [], 0
        for order, row in enumerate(self.experiments):
            facts = (base, str(row.status), row.reason or None, row.metric, row.description)
            attempts.append(PastAttempt(order, order, *facts))
            base = order if row.status is Status.KEEP else base
        return attempts

    def list_experiments(self) -> list[Experiment]:
        """The experiments as `log` lists them. The reason says that they were imported."""
        return [
            Experiment(
                number=row.number,
                base=attempt.base,
                commit=row.commit,
                agent="imported",
                description=row.description,
                status=row.status,
                reason=f"imported {row.reason}".strip(),
                metric=row.metric,
            )
            for row, attempt in zip(self.experiments, self.list_attempts(), strict=True)
        ]


def read_nights(root: Path) -> list[ImportedNight]:
    """The imported nights of a task's folder, the latest import last. Raises `LedgerError`."""
    path = root / STATE / FILE
    if not path.exists():
        return []
    try:
        return [_read_night(given) for given in json.loads(path.read_text())]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LedgerError(
            f"{path} cannot be read ({error}): delete it, and import the logs again"
        ) from error


def _read_night(given: dict[str, object]) -> ImportedNight:
    metric, rows = given["metric"], given["experiments"]
    assert isinstance(metric, dict) and isinstance(rows, list)
    experiments = tuple(
        ImportedExperiment(**{**row, "status": Status(row["status"])}) for row in rows
    )
    read = {"metric": Metric(metric["name"], Goal(metric["goal"])), "experiments": experiments}
    return ImportedNight(**{**given, **read})  # type: ignore[arg-type]


def find_night(root: Path, tag: str | None) -> ImportedNight | None:
    return next((night for night in read_nights(root) if night.tag == tag), None)


def add_nights(root: Path, nights: Sequence[ImportedNight]) -> None:
    """Record imported nights. Raises `StorageError`."""
    from autoresearch.files import replace_file  # every command imports this module

    every = [asdict(night) for night in (*read_nights(root), *nights)]
    replace_file(ledger_path(root).with_name(FILE), json.dumps(every).encode())
