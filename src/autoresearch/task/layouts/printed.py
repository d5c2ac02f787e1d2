"""The numbers that a program prints, as its source tells them: candidates for the metric."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from autoresearch.task.directions import find_direction
from autoresearch.task.layouts.folder import Folder

NAME = r"[A-Za-z_µ][\w./@%µ-]*"
MARKED = re.compile(rf"\bMETRIC ({NAME})=")
PRINTED = re.compile(
    rf"""["'`](?:\\n)?\s*({NAME}(?:\ [\w./@-]+){{0,2}})\s*[:=]\s*"""
    r"""(?:["'`]\s*(?:,|<<|\+|\.)|[{%$]|\\t)"""
)
"""`f"loss: {x}"`, `"loss: %f"`, `"loss:", x`, `"loss: " << x`, `loss: ${x}`; not a text in a text:
a quote must begin it."""

TEXTS = {"usage", "error", "warning", "note", "file", "path", "name", "stderr", "stdout", "info"}
TEXTS |= {
    "device",
    "model",
    "message",
    "result",
    "output",
    "args",
    "config",
    "traceback",
    "version",
}
PREFERRED = re.compile(r"^(?:val|valid|validation|test|eval|final|best)[\W_]")
A_TIME = re.compile(r"time|elapsed|duration|sec|memory|mem|_mb$|_s$|lr$|epoch|step|iter")
EXTENSIONS: tuple[str, ...] = (
    ".py",
    ".c",
    ".h",
    ".cc",
    ".cpp",
    ".cxx",
    ".hpp",
    ".rs",
    ".js",
    ".mjs",
    ".cjs",
    ".ts",
)
EXTENSIONS += (".go", ".java", ".jl", ".sh", ".rb", ".lua", ".zig", ".f90")


class PrintedNumber(NamedTuple):
    name: str
    where: str  # "train.py, line 12"
    is_marked: bool  # as `METRIC name=`

    @property
    def rank(self) -> tuple[bool, bool, bool, bool]:
        """Smaller is likelier to be what the user wants to improve."""
        lower = self.name.lower()
        return (
            not self.is_marked,
            find_direction(self.name) is None,
            A_TIME.search(lower) is not None,
            PREFERRED.match(lower) is None,
        )


def find_printed(folder: Folder, paths: Iterable[str]) -> list[PrintedNumber]:
    """The named numbers that these files print, the likeliest metric first. Each name once."""
    numbers: dict[str, PrintedNumber] = {}
    for path in paths:
        if path.endswith(EXTENSIONS):
            for number in _scan(path, folder.read(path)):
                numbers.setdefault(number.name, number)
    return sorted(numbers.values(), key=lambda number: number.rank)


def _scan(path: str, text: str) -> Iterator[PrintedNumber]:
    for number, line in enumerate(text.split("\n"), 1):
        if len(line) > 1000 or line.lstrip().startswith(("#", "//")):
            continue
        for pattern, is_marked in ((MARKED, True), (PRINTED, False)):
            for match in pattern.finditer(line):
                if match[1].lower() not in TEXTS:
                    yield PrintedNumber(match[1], f"{path}, line {number}", is_marked)
