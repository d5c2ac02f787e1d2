"""Typed tables for data frames: experiments.parquet, runs.parquet, curves.parquet.

A Parquet file is readable when it is complete, so the files appear at the end.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from autoresearch.exports import TABLES, ExportedExperiment, ExportedSession
from autoresearch.protocols import vars_of

REQUIRES = "pyarrow"
BATCH = 10_000  # rows in memory


class ParquetExporter:
    def __init__(self, session: ExportedSession, folder: Path) -> None:
        import pyarrow as pa
        from pyarrow.parquet import ParquetWriter

        types = {"int": pa.int64(), "float": pa.float64(), "str": pa.string()}
        facts = {"task": session.task, "tag": session.tag, "metric": session.metric.name}
        self._rows: dict[str, list[dict[str, Any]]] = {name: [] for name in TABLES}
        self._writers = {}
        for name, row in TABLES.items():
            # The annotations are texts, such as "float | None".
            columns = [(f.name, types[str(f.type).partition(" ")[0]]) for f in fields(row)]
            schema = pa.schema(columns, metadata=facts | {"goal": str(session.metric.goal)})
            self._writers[name] = ParquetWriter(folder / f"{name}.parquet", schema)

    def add(self, done: ExportedExperiment) -> None:
        for name, rows in done.tables().items():
            self._rows[name] += map(vars_of, rows)
            if len(self._rows[name]) >= BATCH:
                self._flush(name)

    def _flush(self, name: str) -> None:
        import pyarrow as pa

        writer = self._writers[name]
        writer.write_table(pa.Table.from_pylist(self._rows[name], schema=writer.schema))
        self._rows[name].clear()

    def close(self) -> None:
        for name, writer in self._writers.items():
            self._flush(name)
            writer.close()


def create(session: ExportedSession, folder: Path) -> ParquetExporter:
    return ParquetExporter(session, folder)
