"""The formats in which a session is exported: one file each, named as the format.

Such a file defines `create(session, folder) -> Exporter`. It may name `REQUIRES`, the library that
it needs, and `LOOK`, the command that shows the result, with `{folder}` in it. It imports the
library in `create`, as every export starts by asking whether it is installed. Formats of other
packages do the same and are found by an entry point or a dotted path (docs/extending.md).
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Protocol

from autoresearch.errors import ExportError
from autoresearch.formatting import cut
from autoresearch.plugins import EXPORTS
from autoresearch.protocols import vars_of
from autoresearch.records import Metric


@dataclass(frozen=True, slots=True)
class ExportedSession:
    """What is known of a session when its export begins."""

    task: str  # the name of the task's folder
    tag: str
    metric: Metric
    key: str  # of this session alone, and the same in every export: eight hexadecimal digits


@dataclass(frozen=True, slots=True)
class ExperimentRow:
    """A finished experiment. Tables have these columns. Texts have one line and no terminal
    escapes."""

    number: int  # 0 is the baseline
    base: int  # the experiment that it changes
    commit: str
    status: str  # "keep", "discard" or "crash"
    reason: str  # empty for a keep
    flag: str  # why a person should check this keep; empty for the others
    metric: float | None  # as in results.tsv; None for a crash
    runs: int  # that decided
    cpu_s: float | None  # of these runs
    peak_memory_bytes: int | None
    agent: str
    tokens: int | None  # None if the agent reports no cost
    usd: float | None
    started_at: float  # Unix time, seconds
    ended_at: float
    description: str

    @property
    def title(self) -> str:
        """The name of the experiment's entry in a tracker."""
        return f"{self.number:04d} {cut(self.description, 60)}"

    def known(self) -> dict[str, Any]:
        """The facts that there are, by name."""
        return {name: value for name, value in vars_of(self).items() if value not in (None, "")}


@dataclass(frozen=True, slots=True)
class RunRow:
    """A finished run that decided an experiment: of the change, or of the incumbent beside it."""

    experiment: int
    run: str  # its name in `show`
    label: str  # "run1", "run2", ... of the change, "incumbent1", ... of the incumbent
    role: str
    commit: str
    seed: int
    segment: int  # runs of different segments cannot be compared
    metric: float | None  # None for a crash
    reason: str  # of the crash
    cpu_s: float | None
    wall_s: float | None
    peak_memory_bytes: int | None
    started_at: float  # Unix time, seconds


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """A number that a run printed while it trained."""

    experiment: int
    run: str
    label: str  # of the run
    name: str  # such as "train_loss"
    by: str  # what `at` counts: "step", "epoch", ..., or "line"
    at: float
    value: float

    @property
    def key(self) -> str:
        """The curve's name in a tracker: curves of different experiments lie over each other."""
        return f"{self.label}/{self.name}"


@dataclass(frozen=True, slots=True)
class ExportedExperiment:
    row: ExperimentRow
    runs: Sequence[RunRow]
    points: Sequence[CurvePoint]

    def tables(self) -> Mapping[str, Sequence[ExperimentRow | RunRow | CurvePoint]]:
        """Its rows in each of TABLES."""
        return {"experiments": [self.row], "runs": self.runs, "curves": self.points}

    def curves(self) -> Mapping[str, Sequence[CurvePoint]]:
        """Its curves by their key."""
        curves: dict[str, list[CurvePoint]] = {}
        for point in self.points:
            curves.setdefault(point.key, []).append(point)
        return curves

    def steps(self) -> Mapping[str, Sequence[tuple[int, float]]]:
        """The curves by their key, for trackers that accept whole steps only: where a program
        counts in fractions, the points are counted instead."""
        return {
            key: [
                (int(point.at) if all(p.at.is_integer() for p in points) else place, point.value)
                for place, point in enumerate(points)
            ]
            for key, points in self.curves().items()
        }


TABLES: Mapping[str, type] = {"experiments": ExperimentRow, "runs": RunRow, "curves": CurvePoint}


class Exporter(Protocol):
    """Writes one session into a folder that was empty. One thread calls it. It may raise anything:
    that ends the export, not the session. It contacts no other machine."""

    def add(self, done: ExportedExperiment) -> None:
        """Write a finished experiment. They come in the order in which they finished."""
        ...

    def close(self) -> None:
        """Finish all files and end all processes."""
        ...


def load(name: str) -> ModuleType:
    """Return the module of a format. Raises `ExportError` if there is no such format, or the
    library that it needs is not installed."""
    module = EXPORTS.load(name)
    library = getattr(module, "REQUIRES", None)
    if library and importlib.util.find_spec(library) is None:
        raise ExportError(
            f"export {name!r} needs the library {library}, which is not installed: "
            f"pip install 'autoresearch[{name}]'"
        )
    return module


def set_environment(prefix: str, **variables: str) -> None:
    """Let a library find no variables of its own but these. The user's may name another machine,
    as `MLFLOW_TRACKING_URI` does, or another folder."""
    for name in [name for name in os.environ if name.startswith(prefix)]:
        del os.environ[name]
    os.environ.update(variables)
