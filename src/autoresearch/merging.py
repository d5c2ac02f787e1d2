"""Three-way merges of source files, line by line.

Unlike git's merge, changes of neighbouring lines do not conflict: constants stand below each other,
and each of several changes may set another one. The result is measured before it is believed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from itertools import pairwise

MAX_LINES = 5000  # of a file that is merged: comparing longer ones can take seconds

Files = dict[str, bytes]
Edit = tuple[int, int, list[bytes]]
"""The lines from start to end (exclusive) are replaced by others."""


def merge_files(
    base: Mapping[str, bytes], ours: Mapping[str, bytes], theirs: Mapping[str, bytes]
) -> Files | None:
    """The files `ours` with the changes from `base` to `theirs`. Returns None where both sides
    changed the same lines, and where a file was added or removed, or both sides changed one that is
    too long to be compared or no text."""
    merged = dict(ours)
    for path in base.keys() | theirs.keys():
        if base.get(path) == theirs.get(path) or ours.get(path) == theirs.get(path):
            continue
        if path not in base or path not in theirs or path not in ours:
            return None
        is_untouched = ours[path] == base[path]
        content = theirs[path] if is_untouched else merge(base[path], ours[path], theirs[path])
        if content is None:
            return None
        merged[path] = content
    return merged


def merge(base: bytes, ours: bytes, theirs: bytes) -> bytes | None:
    """One file, see `merge_files`."""
    if any(b"\0" in side for side in (base, ours, theirs)):
        return None  # no text
    lines = base.splitlines(keepends=True)
    sides = [side.splitlines(keepends=True) for side in (ours, theirs)]
    if max(len(lines), *map(len, sides)) > MAX_LINES:
        return None
    edits: list[Edit] = []
    for side in sides:
        edits += [edit for edit in _compare(lines, side) if edit not in edits]
    edits.sort(key=lambda edit: edit[:2])
    for (start, end, _), (later, later_end, _) in pairwise(edits):
        if later < end or (start, end) == (later, later_end):
            return None
    for start, end, new in reversed(edits):
        lines[start:end] = new
    if not all(line.endswith((b"\n", b"\r")) for line in lines[:-1]):
        return None  # one side removed the end of the last line, and the other appended a line
    return b"".join(lines)


def _compare(old: list[bytes], new: list[bytes]) -> list[Edit]:
    """The edits between the first and the last line that differ: a file of many equal lines would
    take ten seconds as a whole."""
    head = _count_equal(old, new)
    tail = _count_equal(old[head:][::-1], new[head:][::-1])
    matcher = SequenceMatcher(
        None, old[head : len(old) - tail], new[head : len(new) - tail], autojunk=False
    )
    return [
        (head + i, head + j, new[head + k : head + m])
        for tag, i, j, k, m in matcher.get_opcodes()
        if tag != "equal"
    ]


def _count_equal(old: Sequence[bytes], new: Sequence[bytes]) -> int:
    """How many lines are equal before the first that differs."""
    pairs = enumerate(zip(old, new, strict=False))
    return next((index for index, (line, other) in pairs if line != other), min(len(old), len(new)))
