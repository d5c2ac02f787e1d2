"""Finds the curve of the loss and the end of a crash in a run's log.

Only the first and the last 64 kB of a log are read. The patterns take linear time on any log.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from autoresearch.measure.doom import LOSS_NAME, LOSS_WORDS, VALUE, match_points

EDGE_BYTES = 64_000  # read at either end
LINE = 400  # characters of a line that are read
POINTS = 10  # of a curve, in a briefing
FEWEST = 3  # points of a curve
SERIES = 2  # of a log, such as train_loss and val_loss
READ_LINES = 200  # among those that may hold a point
LOSS = match_points(LOSS_NAME)
STEP = re.compile(
    r"(?<![\w./-])(step|iter|iteration|epoch|batch|update)s?[\"']?\s{0,8}[:=#]?\s{0,8}\[?"
    r"(\d{1,12}(?:\.\d{1,6})?)",
    re.IGNORECASE,
)
STEPS = ("step", "iteration", "iter", "update", "batch", "epoch")  # the first of them is used
TRACEBACK = "Traceback (most recent call last)"
LAST_LINES = 8  # of a traceback; of a log without one, half as many


@dataclass(frozen=True, slots=True)
class Curve:
    """A series of numbers that a program printed while it ran."""

    name: str
    by: str  # "step", "epoch", ...; "line" where the program counts nothing
    points: tuple[tuple[float, float], ...]  # the first and the last printed ones among them

    def __str__(self) -> str:
        shown = ", ".join(f"{at:.6g}: {value:.4g}" for at, value in self.points)
        return f"{self.name} by {self.by}: {shown}"


def read_ends(path: Path, size: int = EDGE_BYTES) -> list[str]:
    """Return the lines of a log, of a long log those at its ends. Empty if it cannot be read."""
    try:
        with path.open("rb") as file:
            head = file.read(size)
            rest = file.seek(0, 2) - len(head)
            file.seek(-min(rest, size), 2)
            tail = file.read(size) if rest else b""
    except OSError:
        return []
    head, tail = head.replace(b"\r", b"\n"), tail.replace(b"\r", b"\n")
    if rest > size:  # both were cut somewhere in a line
        head, tail = head[: head.rfind(b"\n") + 1], tail.partition(b"\n")[2]
    return [line[:LINE] for line in (head + tail).decode(errors="replace").split("\n")]


def find_curves(lines: Iterable[str], metric: str = "", most: int = POINTS) -> list[Curve]:
    """Find the series that look like a loss, or are called like the metric; the longest first. Each
    has at most `most` points."""
    metric_pattern = _match_metric(metric)
    series: dict[str, list[tuple[str, float, float]]] = {}
    for number, line in _thin_out(lines, metric):
        if hits := LOSS.findall(line) or (metric_pattern.findall(line) if metric else []):
            by, at = _find_step(line) or ("line", float(number))
            for name, value in hits:
                series.setdefault(name.lower(), []).append((by, at, float(value)))
    long = [(name, points) for name, points in series.items() if len(points) >= FEWEST]
    long.sort(key=lambda item: -len(item[1]))
    return [_make_curve(name, points, most) for name, points in long[:SERIES]]


def _match_metric(metric: str) -> re.Pattern[str]:
    return re.compile(
        rf"(?<![\w./-])({re.escape(metric)})\s{{0,8}}[:=|]?\s{{0,8}}({VALUE})(?![\w.])"
    )


def _thin_out(lines: Iterable[str], metric: str) -> list[tuple[int, str]]:
    """Return numbered lines that may hold a point; of very many, about READ_LINES."""
    words = re.compile("|".join(filter(None, (LOSS_WORDS, re.escape(metric)))), re.IGNORECASE)
    candidates = [(n, line) for n, line in enumerate(lines, 1) if words.search(line)]
    stride = len(candidates) // READ_LINES | 1  # odd: lines of two kinds often take turns
    return candidates if stride == 1 else [*candidates[:-1:stride], candidates[-1]]


def _find_step(line: str) -> tuple[str, float] | None:
    counts = {name.lower(): float(value) for name, value in STEP.findall(line)}
    return next(((name, counts[name]) for name in STEPS if name in counts), None)


def _make_curve(name: str, points: Sequence[tuple[str, float, float]], most: int) -> Curve:
    """Choose at most `most` points, evenly spread."""
    last = len(points) - 1
    few = min(len(points), most)
    places = sorted({round(i * last / (few - 1)) for i in range(few)})
    by = points[0][0] if len({by for by, _, _ in points}) == 1 else "line"
    chosen = [(points[place][1], points[place][2]) for place in places]
    return Curve(name, by, tuple(chosen))


def get_last_words(lines: Sequence[str]) -> list[str]:
    """Return the end of the last traceback, or else of the output; empty lines left out."""
    filled = [line.rstrip() for line in lines if line.strip()]
    starts = [at for at, line in enumerate(filled) if TRACEBACK in line]
    if not starts:
        return filled[-LAST_LINES // 2 :]
    traceback = filled[starts[-1] :]
    # The first line that is not indented names the error; later lines do not belong to it.
    ends = [at for at, line in enumerate(traceback[1:], 2) if not line.startswith(" ")]
    traceback = traceback[: ends[0]] if ends else traceback
    if len(traceback) <= LAST_LINES:
        return traceback
    return [traceback[0], "...", *traceback[2 - LAST_LINES :]]


def mask_numbers(line: str) -> str:
    """Replace the numbers in a line, so that the same error on other numbers compares equal."""
    return re.sub(r"\d+", "#", line)
