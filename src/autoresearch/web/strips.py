"""Runs as points on one axis, and curves as lines: numbers for small pictures in a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from statistics import fmean

from autoresearch.briefing import logs as training
from autoresearch.formatting import Numbers
from autoresearch.records import Metric, Role, Run

MARGIN = 0.04  # of the axis, free at either end
CURVE_POINTS = 120
WIDTH, HEIGHT = 300, 60  # of a curve's picture


@dataclass(frozen=True, slots=True)
class Point:
    at: float  # percent of the axis
    text: str
    is_own: bool  # of the experiment itself, not of the incumbent


@dataclass(frozen=True, slots=True)
class Row:
    label: str
    points: Sequence[Point]
    mean: float | None  # percent of the axis


@dataclass(frozen=True, slots=True)
class Strip:
    """Rows of points on one axis, from `low` to `high`."""

    rows: Sequence[Row]
    low: str
    high: str


@dataclass(frozen=True, slots=True)
class Group:
    label: str
    runs: Sequence[Run]
    is_own: bool


def draw_strip(groups: Sequence[Group], numbers: Numbers) -> Strip | None:
    """Place the metrics of finished runs on one axis. None if there are none."""
    values = [run.metric for group in groups for run in group.runs if run.metric is not None]
    if not values:
        return None
    low, high = min(values), max(values)
    room = MARGIN * (high - low) or abs(low) * 0.01 or 1.0
    low, high = low - room, high + room

    def place(value: float) -> float:
        return round(100 * (value - low) / (high - low), 2)

    rows = []
    for group in groups:
        known = [(run, run.metric) for run in group.runs if run.metric is not None]
        if not known:
            continue
        points = [
            Point(place(value), f"{group.label}: {value:.6g}, seed {run.seed}", group.is_own)
            for run, value in known
        ]
        mean = place(fmean(value for _, value in known)) if len(known) > 1 else None
        rows.append(Row(group.label, points, mean))
    return Strip(rows, numbers.value(low + room), numbers.value(high - room))


ROLES = {
    Role.BASELINE: "baseline",
    Role.SCREEN: "screen",
    Role.CANDIDATE: "confirmation",
    Role.REMEASURE: "measured again",
    Role.TOPUP: "measured once more",
    Role.SEGMENT: "new segment",
    Role.VERIFY: "verified",
    Role.ABLATION: "for the ablation",
    Role.REDUCED: "against the reduced version",
}


def group_runs(runs: Sequence[Run], commit: str, rivals: Sequence[Run]) -> list[Group]:
    """The runs of an experiment by their purpose, and those that it was held against: the
    incumbent's in the confirmation, and `rivals`, which made its score."""
    own = [
        Group(label, [run for run in runs if run.role is role and run.commit == commit], True)
        for role, label in ROLES.items()
    ]
    controls = [run for run in runs if run.role is Role.CONTROL]
    others = [Group("incumbent, confirmation", controls, False)]
    others.append(Group("incumbent, its score", rivals, False))
    return [group for group in (*own, *others) if group.runs]


@dataclass(frozen=True, slots=True)
class Curve:
    """What a run prints while it trains, beside the incumbent's. Points are for SVG."""

    name: str
    by: str
    last: str
    points: str
    rival: str  # the incumbent's points; may be empty


def _find_finite(log: Path, metric: Metric) -> list[training.Curve]:
    """The curves in a log, without the points of a training that diverged."""
    curves = training.find_curves(training.read_ends(log), metric.name, CURVE_POINTS)
    finite = [
        replace(curve, points=tuple(point for point in curve.points if all(map(isfinite, point))))
        for curve in curves
    ]
    return [curve for curve in finite if len(curve.points) >= training.FEWEST]


def draw_curve(log: Path, rival: Path | None, metric: Metric) -> Curve | None:
    """Draw the longest series that a log has. None if it has none of three points."""
    curves = _find_finite(log, metric)
    if not curves:
        return None
    curve = curves[0]
    others = _find_finite(rival, metric) if rival else []
    same = next(
        (other for other in others if (other.name, other.by) == (curve.name, curve.by)), None
    )
    every = [*curve.points, *(same.points if same else ())]
    xs, ys = [x for x, _ in every], [y for _, y in every]

    def scale(points: Sequence[tuple[float, float]]) -> str:
        wide, tall = (max(xs) - min(xs)) or 1.0, (max(ys) - min(ys)) or 1.0
        return " ".join(
            f"{WIDTH * (x - min(xs)) / wide:.1f},{HEIGHT * (1 - (y - min(ys)) / tall):.1f}"
            for x, y in points
        )

    at, value = curve.points[-1]
    last = f"{value:.4g} at {curve.by} {at:.6g}"
    return Curve(
        curve.name, curve.by, last, scale(curve.points), scale(same.points) if same else ""
    )
