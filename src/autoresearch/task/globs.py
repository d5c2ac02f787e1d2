"""The globs of `editable`: `*` stays within a folder, `**` does not, and a folder's name without a
star means everything below it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import PurePosixPath


def matches(glob: str, path: str) -> bool:
    """Whether `glob` matches `path`, in time proportional to the product of their lengths.

    A regular expression tries every way to distribute a path among the stars: with four stars, a
    name of 255 letters took 3 s, and an agent chooses names.

    `ends` holds one bit for each place in `path` where the part of the glob read so far can end.
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
    names_a_folder = not set("*?") & set(glob.rpartition("/")[2])
    return bool(ends >> len(path)) or (names_a_folder and bool(ends & slashes))


def matches_only_below(glob: str, path: str) -> bool:
    """Whether everything that `glob` can match is `path` or below it."""
    fixed = re.split(r"[^/]*[*?]", glob)[0]
    return PurePosixPath(fixed).is_relative_to(path)


@lru_cache(maxsize=256)
def _pieces(glob: str) -> Sequence[str]:
    return [piece for piece in re.split(r"(\*\*/|\*\*|\*|\?)", glob) if piece]


def _occurrences(text: str, path: str) -> int:
    """A number with one bit for each position at which `path` has `text`."""
    bits, at = 0, path.find(text)
    while at >= 0:
        bits |= 1 << at
        at = path.find(text, at + 1)
    return bits
