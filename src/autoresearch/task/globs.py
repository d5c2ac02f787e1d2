"""Match the globs of `editable`.

`*` stays within a folder, `**` does not. A folder's name without a star means everything below it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import PurePosixPath


def matches(glob: str, path: str) -> bool:
    """Whether `glob` matches `path`, in time proportional to the product of their lengths.

    A regular expression tries every way to distribute a path among the stars. With four stars and a
    name of 255 letters it took 3 s, and agents choose the names.

    `ends` has one bit for each position in `path` at which the pieces matched so far can end.
    """
    slashes = _occurrences("/", path)
    others = ((1 << len(path)) - 1) ^ slashes
    ends = 1
    for piece in _pieces(glob):
        first = ends & -ends
        if piece == "*":
            ends |= (others + (ends & others)) ^ others  # the carry runs on to the next slash
        elif piece == "?":
            ends = (ends & others) << 1
        elif piece == "**":
            ends = (2 << len(path)) - first
        elif piece == "**/":
            ends |= (slashes & -first) << 1
        else:
            ends = (ends & _occurrences(piece, path)) << len(piece)
        if not ends:
            return False
    is_folder = not set("*?") & set(glob.rpartition("/")[2])
    return bool(ends >> len(path)) or (is_folder and bool(ends & slashes))


def matches_only_below(glob: str, path: str) -> bool:
    """Whether `glob` can match nothing but `path` and paths below it."""
    fixed = re.split(r"[^/]*[*?]", glob)[0]
    return PurePosixPath(fixed).is_relative_to(path)


@lru_cache(maxsize=256)
def _pieces(glob: str) -> Sequence[str]:
    return [piece for piece in re.split(r"(\*\*/|\*\*|\*|\?)", glob) if piece]


def _occurrences(text: str, path: str) -> int:
    """Return a number with one bit for each position at which `path` has `text`."""
    return sum(1 << match.start() for match in re.finditer(f"(?={re.escape(text)})", path))
