"""Paths to a number in JSON: `results[0].mean`, `benchmarks[name=test_sort].stats.median`.

A step is a key, `[N]` for an item of a list (`[-1]` is the last one), or `[key=value]` for the only
item of a list whose `key` has this value. A key or value with dots or brackets stands in quotes:
`scores."a.b"`, `benchmarks[name="test_sort[10]"]`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

STEP = re.compile(
    r"""(?P<dot>\.?)(?:"(?P<quoted>[^"]+)"|(?P<key>[^.\[\]"]+))
    |\[(?P<index>-?\d{1,9})\]
    |\[(?P<field>[^=\[\]"]+)=(?:"(?P<exact>[^"]*)"|(?P<value>[^\]"]*))\]""",
    re.VERBOSE | re.ASCII,
)
BARE = re.compile(r"[^.\[\]\"=]+")


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a path, and how it is written there."""

    key: str | int  # of an object or a list; with `value`, the key that an item must have
    value: str | None = None
    text: str = ""


def parse_path(text: str) -> tuple[Step, ...]:
    """The steps of a path. Raises `ValueError` that says where it cannot be read."""
    steps: list[Step] = []
    at = 0
    while at < len(text):
        match = STEP.match(text, at)
        is_key = match is not None and (match["key"] or match["quoted"]) is not None
        if match is None or (is_key and bool(match["dot"]) != bool(steps)):
            raise ValueError(f"cannot be read from {text[at : at + 20]!r} on")
        if is_key:
            steps.append(Step(match["quoted"] or match["key"], None, match[0]))
        elif match["index"] is not None:
            steps.append(Step(int(match["index"]), None, match[0]))
        else:
            value = match["exact"] if match["exact"] is not None else match["value"]
            steps.append(Step(match["field"], value, match[0]))
        at = match.end()
    if not steps:
        raise ValueError("empty")
    return tuple(steps)


def quote(word: str) -> str:
    """A key or a value as a path has it: in quotes where it needs them."""
    return word if BARE.fullmatch(word) else f'"{word}"'
