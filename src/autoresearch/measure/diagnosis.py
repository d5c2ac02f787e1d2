"""Why a command failed, and what the user can do about it: read from its log and the disk."""

from __future__ import annotations

import re
from collections.abc import Sequence

ERROR = re.compile(
    r"(?:^|[\s:])(?:fatal )?error(?:\[\w+\]|\s\w+)?\s?:|^CMake Error|undefined reference|"
    r"^[\w./-]+\.go:\d+:\d+: ",
    re.IGNORECASE,
)
"""A compiler's or linker's error: of GCC, Clang, rustc, tsc, Go, ld and CMake."""
ERROR_LINES = 8


def find_first_error(lines: Sequence[str]) -> list[str]:
    """A compiler's first error and the lines after it; empty if there is none. Later errors often
    follow from the first."""
    filled = [line.rstrip() for line in lines if line.strip()]
    first = next((at for at, line in enumerate(filled) if ERROR.search(line)), None)
    return [] if first is None else filled[first : first + ERROR_LINES]
