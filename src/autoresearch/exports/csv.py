"""Tables for spreadsheets and data frames: experiments.csv, runs.csv, curves.csv."""

from __future__ import annotations

import csv
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import Any

from autoresearch.exports import TABLES, ExportedExperiment, ExportedSession
from autoresearch.formatting import quote_formula


class CsvExporter:
    def __init__(self, folder: Path) -> None:
        self._stack = ExitStack()
        self._files = {
            name: self._stack.enter_context((folder / f"{name}.csv").open("w", newline=""))
            for name in TABLES
        }
        self._columns = {
            name: [field.name for field in fields(row)] for name, row in TABLES.items()
        }
        self._writers = {name: csv.writer(file) for name, file in self._files.items()}
        for name, columns in self._columns.items():
            self._writers[name].writerow(columns)

    def add(self, done: ExportedExperiment) -> None:
        for name, rows in done.tables().items():
            for row in rows:
                cells = [_cell(getattr(row, column)) for column in self._columns[name]]
                self._writers[name].writerow(cells)
        for file in self._files.values():
            file.flush()

    def close(self) -> None:
        self._stack.close()


def _cell(value: Any) -> Any:
    return quote_formula(value) if isinstance(value, str) else value


def create(session: ExportedSession, folder: Path) -> CsvExporter:
    return CsvExporter(folder)
