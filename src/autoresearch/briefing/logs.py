"""What a run's log tells beyond its metric: how the loss went, and how a crash ended.

Only the first and the last 64 kB of a log are read, and no pattern here can take more than linear
time, whatever is in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

EDGE_BYTES = 64_000  # read at either end
LINE = 400  # characters of a line that are looked at
POINTS = 10  # of a curve, shown
FEWEST = 3  # points that make a curve
SERIES = 2  # of a log, such as train_loss and val_loss
READ_LINES = 200  # of those that may hold a point
LOSS_WORDS = "loss|bpb|nll|ppl|perplexity|cross_entropy"
VALUE = r"[-+]?(?:\d{1,15}(?:\.\d{0,15})?|\.\d{1,15})(?:[eE][-+]?\d{1,3})?"
LOSS = re.compile(
    r"(?<![\w./-])((?:[A-Za-z]\w{0,20}[./_ -])?"
    rf"(?:{LOSS_WORDS})(?:[./_-]\w{{1,12}})?)"
    r"(?:[\"']?\s{0,8}[:=|]\s{0,8}|\s{1,8})"
    rf"({VALUE}|nan|-?inf)(?![\w.])",
    re.IGNORECASE,
)
STEP = re.compile(
    r"(?<![\w./-])(step|iter|iteration|epoch|batch|update)s?[\"']?\s{0,8}[:=#]?\s{0,8}\[?"
    r"(\d{1,12}(?:\.\d{1,6})?)",
    re.IGNORECASE,
)
STEPS = ("step", "iteration", "iter", "update", "batch", "epoch")  # which counts, of several
TRACEBACK = "Traceback (most recent call last)"
LAST_LINES = 8  # of a traceback; of a log without one, half as many


@dataclass(frozen=True, slots=True)
class Curve:
    """A series of numbers that a program printed while it ran."""

    name: str
    by: str  # "step", "epoch", ...; "line" where the program counts nothing
    points: tuple[tuple[float, float], ...]  # at most `POINTS`, the first and the last among them

    def __str__(self) -> str:
        shown = ", ".join(f"{at:.6g}: {value:.4g}" for at, value in self.points)
        return f"{self.name} by {self.by}: {shown}"


def edges(path: Path, size: int = EDGE_BYTES) -> list[str]:
    """The lines of a log, of a long one those at its ends; none where there is no log."""
    try:
        with path.open("rb") as file:
            head = file.read(size)
            rest = file.seek(0, 2) - len(head)
            file.seek(-min(rest, size), 2)
            tail = file.read(size) if rest else b""
    except OSError:
        return []
    if rest > size:  # both were cut somewhere in a line
        head, tail = head[: _last_end(head)], tail[_first_end(tail) :]
    text = (head + tail).decode(errors="replace").replace("\r", "\n")
    return [line[:LINE] for line in text.split("\n")]


def _last_end(data: bytes) -> int:
    return max(data.rfind(b"\n"), data.rfind(b"\r")) + 1


def _first_end(data: bytes) -> int:
    found = [at for at in (data.find(b"\n"), data.find(b"\r")) if at >= 0]
    return min(found) + 1 if found else len(data)


def curves(lines: Iterable[str], metric: str = "") -> list[Curve]:
    """The series that look like a loss, or are called like the metric; the longest first."""
    found: dict[str, list[tuple[str, float, float]]] = {}
    own = _named(metric) if metric else None
    for number, line in _thinned(lines, metric):
        hits = [match.groups() for match in LOSS.finditer(line)]
        if own is not None and not hits:
            hits = [match.groups() for match in own.finditer(line)]
        if hits:
            by, at = _step(line) or ("line", float(number))
            for name, value in hits:
                found.setdefault(name.lower(), []).append((by, at, float(value)))
    long = [item for item in found.items() if len(item[1]) >= FEWEST]
    long.sort(key=lambda item: -len(item[1]))
    return [_curve(name, points) for name, points in long[:SERIES]]


def _thinned(lines: Iterable[str], metric: str) -> list[tuple[int, str]]:
    """The lines that may hold a point, with their numbers; of very many, every so many-th."""
    words = re.compile("|".join(filter(None, (LOSS_WORDS, re.escape(metric)))), re.IGNORECASE)
    found = [(n, line) for n, line in enumerate(lines, 1) if words.search(line)]
    stride = len(found) // READ_LINES | 1  # odd: lines of two kinds often take turns
    return found if stride == 1 else [*found[:-1:stride], found[-1]]


def _named(metric: str) -> re.Pattern[str]:
    return re.compile(
        rf"(?<![\w./-])({re.escape(metric)})\s{{0,8}}[:=|]?\s{{0,8}}({VALUE})(?![\w.])"
    )


def _step(line: str) -> tuple[str, float] | None:
    counts = {name.lower(): float(value) for name, value in STEP.findall(line)}
    return next(((name, counts[name]) for name in STEPS if name in counts), None)


def _curve(name: str, points: Sequence[tuple[str, float, float]]) -> Curve:
    """At most `POINTS` of them, evenly spread."""
    last = len(points) - 1
    few = min(len(points), POINTS)
    places = sorted({round(i * last / (few - 1)) for i in range(few)})
    by = points[0][0] if len({by for by, _, _ in points}) == 1 else "line"
    chosen = [(points[place][1], points[place][2]) for place in places]
    return Curve(name, by, tuple(chosen))


def last_words(lines: Sequence[str]) -> list[str]:
    """The end of the last traceback, or of what else the program said; empty lines left out."""
    said = [line.rstrip() for line in lines if line.strip()]
    starts = [at for at, line in enumerate(said) if TRACEBACK in line]
    if not starts:
        return said[-LAST_LINES // 2 :]
    traceback = _one_traceback(said[starts[-1] :])
    if len(traceback) <= LAST_LINES:
        return traceback
    return [traceback[0], "...", *traceback[2 - LAST_LINES :]]


def _one_traceback(lines: Sequence[str]) -> list[str]:
    """Up to the line that names the error: what follows a traceback is of somebody else."""
    for at, line in enumerate(lines[1:], 1):
        if not line.startswith(" "):
            return list(lines[: at + 1])
    return list(lines)


def kind_of(words: Sequence[str]) -> str:
    """What tells one crash from another: how it ended, without its numbers."""
    return re.sub(r"\d+", "#", words[-1]) if words else ""
