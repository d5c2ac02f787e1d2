"""The numbers behind the progress chart. Its frame and its step line are those of progress.png."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from autoresearch.formatting import Numbers, counted, cut
from autoresearch.records import Status
from autoresearch.report.plot import LABEL_WIDTH, frame_summary, list_steps
from autoresearch.report.summary import Finished, Summary

CHANGE = 100  # characters of a description under the chart
CODES = {Status.KEEP: 1, Status.DISCARD: 0, Status.CRASH: 2}


def chart_data(summary: Summary, after: int) -> dict[str, Any]:
    """The chart of a whole summary, with the dots of the experiments that finished after the one in
    place `after`, counted from 0. A script asks again for what is new."""
    rows = summary.recent
    steps = list_steps(summary)
    has_frame = any(row.metric is not None and row.status is not Status.CRASH for row in rows)
    low, high = frame_summary(summary) if has_frame else (None, None)
    labels = {keep.number: cut(keep.description, LABEL_WIDTH) for keep in summary.keeps}
    gains = {keep.number: keep.gain for keep in summary.keeps}
    keeps = [
        {
            "place": place,
            "number": row.number,
            "label": labels.get(row.number, ""),
            "gain": gains.get(row.number),
        }
        for place, row in enumerate(rows)
        if row.status is Status.KEEP
    ]
    return {
        "down": summary.metric.better(0.0, 1.0),
        "sd": None if summary.deterministic else summary.noise_sd,
        "frame": [low, high],
        "steps": steps,
        "segments": [segment.after_order + 0.5 for segment in summary.segments[1:]],
        "keeps": keeps,
        "outside": _count_outside(rows, low, high),
        "after": after,
        "dots": _list_dots(rows[max(0, after + 1) :], summary.numbers),
    }


def _list_dots(rows: Sequence[Finished], numbers: Numbers) -> dict[str, list[Any]]:
    return {
        "number": [row.number for row in rows],
        "status": [CODES[row.status] for row in rows],
        "metric": [row.metric if _is_drawn(row) else None for row in rows],
        "text": [numbers.value(row.metric) for row in rows],
        "change": [cut(row.description, CHANGE) for row in rows],
    }


def _count_outside(rows: Sequence[Finished], low: float | None, high: float | None) -> str:
    """ "3 discards outside the frame"; empty if there are none."""
    if low is None or high is None:
        return ""
    values = [row.metric for row in rows if row.status is Status.DISCARD]
    outside = sum(value is not None and not low <= value <= high for value in values)
    return f"{counted(outside, 'discard')} outside the frame" if outside else ""


def _is_drawn(row: Finished) -> bool:
    return row.metric is not None and math.isfinite(row.metric) and row.status is not Status.CRASH
