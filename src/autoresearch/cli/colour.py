"""Colours on a terminal, without rich, which would triple the start time of `status` and `log`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}


def has_colour() -> bool:
    """Whether stdout is a terminal that shows colours. See https://no-color.org."""
    is_wanted = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return is_wanted and sys.stdout.isatty()


def paint(lines: Iterable[tuple[str, str]]) -> str:
    """Join (text, style) pairs to one text. A style is words such as "bold green", or empty."""
    return "".join(_paint(text, style) for text, style in lines)


def _paint(text: str, style: str) -> str:
    codes = ";".join(CODES[word] for word in style.split())
    return f"\x1b[{codes}m{text}\x1b[0m" if codes else text
