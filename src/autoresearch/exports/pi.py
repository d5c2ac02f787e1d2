"""pi-autoresearch's log, autoresearch.jsonl: a line of configuration, then one for each experiment.

Its tools number experiments from 1, know the metric of a crash as 0, and have no place for curves.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from autoresearch.exports import ExperimentRow, ExportedExperiment, ExportedSession
from autoresearch.formatting import short
from autoresearch.records import Goal

FILE = "autoresearch.jsonl"
GUARD = "guard failed"  # begins the reason of a discard whose program failed a check


class PiExporter:
    def __init__(self, session: ExportedSession, folder: Path) -> None:
        self._file = (folder / FILE).open("w")
        self._written = 0
        direction = "lower" if session.metric.goal is Goal.MINIMIZE else "higher"
        self._write(
            type="config",
            name=f"{session.task} {session.tag}",
            metricName=session.metric.name,
            metricUnit="",
            bestDirection=direction,
        )

    def add(self, done: ExportedExperiment) -> None:
        row = done.row
        self._written += 1
        self._write(
            run=self._written,
            commit=short(row.commit),
            metric=0 if row.metric is None else row.metric,
            metrics={"runs": row.runs, "cpu_s": row.cpu_s or 0.0},
            status="checks_failed" if row.reason.startswith(GUARD) else row.status,
            description=row.description,
            timestamp=round(row.ended_at * 1000),
            segment=0,
            confidence=None,
            asi=_list_facts(row),
        )

    def _write(self, **entry: Any) -> None:
        self._file.write(json.dumps(entry) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def _list_facts(row: ExperimentRow) -> dict[str, Any]:
    """What pi has no field for, as its side information."""
    facts = {
        "experiment": row.number,
        "base": row.base,
        "reason": row.reason or row.flag,
        "agent": row.agent,
        "tokens": row.tokens,
        "usd": row.usd,
    }
    return {name: value for name, value in facts.items() if value not in (None, "")}


def create(session: ExportedSession, folder: Path) -> PiExporter:
    return PiExporter(session, folder)
