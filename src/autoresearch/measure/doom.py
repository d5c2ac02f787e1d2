"""Doomed runs: those that print what no run of the unchanged program prints.

A run is doomed when a curve of its loss, or of the metric, is not finite for three points in a row.
A plain loss, which is never negative, dooms it too when it is beyond three times the largest value
that the baseline printed, such as its first. Of other curves nobody knows which size is bad: a
score may grow, an ELBO fall, a loss scale double. To be behind the incumbent's curve is no doom: on
`tiny_gpt`, stopping runs that are behind at 30 % of the budget loses wins. Only curves that the
baseline printed are watched, and none in which it printed NaN, so that what a good program prints
stops nobody.

One doomed run in ten is finished all the same, and the report tells how many of those were better
than their incumbent.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

DIVERGED = 3.0  # times the largest value of the baseline's curve
IN_A_ROW = 3  # points of a curve, before a run is doomed
FEWEST = 3  # points of a curve of the baseline's
AUDITED = 10  # one doomed run in so many is finished
DOOMED = "doomed"  # begins a run's reason; the number of that name in the record of such a run
UNBOUNDED = 1e308  # only what is not finite is beyond it
READ_BYTES = 262_144  # of a growing log at a time
LINE = 400  # bytes of a line that are read

VALUE = r"[-+]?(?:\d{1,15}(?:\.\d{0,15})?|\.\d{1,15})(?:[eE][-+]?\d{1,3})?"
LOSS_WORDS = "loss|bpb|nll|ppl|perplexity|cross_entropy"
PLAIN_LOSS = re.compile(
    r"(?:(?:train|training|val|valid|validation|eval|test)[./_ -])?(?:loss|bpb|nll|cross_entropy)"
)
LOSS_NAME = rf"(?:[A-Za-z]\w{{0,20}}[./_ -])?(?:{LOSS_WORDS})(?:[./_-]\w{{1,12}})?"


def match_points(name: str) -> re.Pattern[str]:
    """Finds (name, value) in a line, for a name given as a regular expression. Takes linear time on
    any line."""
    return re.compile(
        rf"(?<![\w./-])({name})(?:[\"']?\s{{0,8}}[:=|]\s{{0,8}}|\s{{1,8}})"
        rf"({VALUE}|nan|[-+]?inf)(?![\w.])",
        re.IGNORECASE,
    )


def learn_bounds(logs: Iterable[Path], metric: str) -> dict[str, float]:
    """The curves in the baseline's logs and the size beyond which a value is no good run's, by the
    curve's name in lower case."""
    pattern = match_points(f"{LOSS_NAME}|{re.escape(metric)}")
    curves: dict[str, list[float]] = {}
    longest: Counter[str] = Counter()  # points in one log
    for log in logs:
        text = log.read_text(errors="replace") if log.exists() else ""
        points = [
            (name.lower(), float(word))
            for line in re.split(r"[\r\n]", text)
            for name, word in pattern.findall(line[:LINE])
        ]
        for name, value in points:
            curves.setdefault(name, []).append(value)
        longest |= Counter(name for name, _ in points)
    return {
        name: _choose_bound(name, points)
        for name, points in curves.items()
        if longest[name] >= FEWEST and all(map(math.isfinite, points))
    }


def _choose_bound(name: str, points: Sequence[float]) -> float:
    is_loss = PLAIN_LOSS.fullmatch(name) and min(points) >= 0 and max(points) > 0
    return DIVERGED * max(points) if is_loss else UNBOUNDED


class DoomWatch:
    """Reads the log of one run while it grows."""

    def __init__(self, log: Path, bounds: Mapping[str, float]) -> None:
        """`bounds` are those of `learn_bounds`, at least one."""
        self._log = log
        self._bounds = bounds
        self._pattern = match_points("|".join(map(re.escape, bounds)))
        self._read = 0  # bytes
        self._rest = b""  # the beginning of a line
        self._bad = dict.fromkeys(bounds, 0)  # points in a row

    def look(self) -> str | None:
        """Read what was printed since the last look. Return what dooms the run, or None."""
        with self._log.open("rb") as file:
            self._read = max(self._read, file.seek(0, 2) - READ_BYTES)
            file.seek(self._read)
            data = file.read(READ_BYTES)
        self._read += len(data)
        *lines, self._rest = re.split(rb"[\r\n]", self._rest[-LINE:] + data)
        for line in lines:
            for name, word in self._pattern.findall(line[:LINE].decode(errors="replace")):
                if self._count(name.lower(), float(word)):
                    return f"{name} is {word}"
        return None

    def _count(self, name: str, value: float) -> bool:
        """Whether this point makes a row of bad ones long enough."""
        is_good = math.isfinite(value) and value <= self._bounds[name]
        self._bad[name] = 0 if is_good else self._bad[name] + 1
        return self._bad[name] >= IN_A_ROW
