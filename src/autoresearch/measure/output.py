"""The output of a program: the end of its log, and the numbers in it. `final_value.py` reads the
metric itself.

There are two formats: the original's summary block (`name:  value` lines after a line `---`) and
`METRIC name=value` lines. The last value of a name counts, even if it is no number, or infinite, or
beyond LARGEST: then the name has no number.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

from autoresearch.files import READ_BYTES, tail

LARGEST = 1e100  # sums and squares of larger numbers would overflow
SHOWN_LINES, SHOWN_WIDTH = 20, 200  # of a log in the report of a failure
METRIC_LINE = re.compile(r"^METRIC\s+([\w.µ]+)=(\S+)\s*$")
SUMMARY_LINE = re.compile(r"^([\w.µ]+):\s+(\S+)\s*$")


@dataclass(frozen=True, slots=True)
class Reading:
    """The metrics in a log: numbers by name, and the texts that are no numbers or too large."""

    numbers: dict[str, float]
    faulty: dict[str, str]


def read_log(text: str) -> Reading:
    """Read METRIC lines anywhere, and summary lines after the last `---`, if there is one. Only a
    newline ends a line: a form feed in a text that a scorer quotes must not begin one."""
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    rules = [at for at, line in enumerate(lines) if line.strip() == "---"]
    summary_from = rules[-1] + 1 if rules else 0
    numbers: dict[str, float] = {}
    faulty: dict[str, str] = {}
    for at, line in enumerate(lines):
        match = METRIC_LINE.match(line)
        if match is None and at >= summary_from:
            match = SUMMARY_LINE.match(line)
        if match is None:
            continue
        name, word = match.groups()
        numbers.pop(name, None)
        faulty.pop(name, None)
        value = _read_number(word)
        if value is None:
            faulty[name] = word
        else:
            numbers[name] = value
    return Reading(numbers, faulty)


def _read_number(word: str) -> float | None:
    """Read a decimal number. Python alone would also take `1_000` and the digits of all scripts."""
    try:
        value = float(word) if word.isascii() and "_" not in word else math.nan
    except ValueError:
        return None
    return value if abs(value) <= LARGEST else None


def whole_lines(path: Path, size: int = READ_BYTES) -> str:
    """The last `size` bytes of a file without an incomplete first line, which could look like a
    metric."""
    text = tail(path, size + 1)
    is_cut = path.exists() and path.stat().st_size > size
    return text.partition("\n")[2] if is_cut else text


def last_lines(path: Path) -> tuple[str, ...]:
    """The last lines of a log, each cut to a readable width, without control characters."""
    lines = tail(path, 65_536).splitlines()[-SHOWN_LINES:]
    return tuple(
        "".join(c for c in line.expandtabs(4) if c.isprintable())[:SHOWN_WIDTH] for line in lines
    )


def describe_end(log: Path) -> str:
    """The end of a log, indented, for a message about a failure."""
    lines = [f"    {line}" for line in last_lines(log)] or ["    (it printed nothing)"]
    return "\n".join([f"The end of its log {log}:", *lines])
