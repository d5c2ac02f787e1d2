"""Sections of a text, and how they share a limit on its size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter

from autoresearch.formatting import cut

BYTES_PER_TOKEN = 3
"""Of UTF-8. English and code take 3.5 to 4.5 in today's tokenizers, numbers about 2.5, other
scripts about one token for a character, which is two to four bytes: a cautious middle."""

INDENT = 12  # characters of a quoted line's indentation that are kept
WIDTH = 200  # characters of a line of foreign text


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and lines. Lines that do not fit are left out, and counted in a last line. A
    section without lines is not written."""

    heading: str
    lines: Sequence[str]
    share: float = 0.0  # of what sections without a share leave over
    rank: int = 9  # the lowest is the first to get what others do not need
    drop: Sequence[int] = ()  # indices of the lines to leave out first
    drops_end: bool = False  # whether the last line is left out before the first
    intro: Sequence[str] = ()  # lines that are never left out
    more: str = "- ({} more left out)"

    def render(self, indices: Sequence[int]) -> str:
        """Return the section with these of its lines, in their order."""
        shown = [self.lines[index] for index in sorted(indices)]
        left_out = len(self.lines) - len(shown)
        note = [self.more.format(left_out)] if left_out else []
        return "\n".join([f"## {self.heading}", *self.intro, *shown, *note, "", ""])

    def fit_into(self, limit_bytes: int) -> str:
        """Return as much as fits; "" if not even one line does."""
        indices = range(len(self.lines))
        needed = count_bytes(self.render(indices))
        if needed <= limit_bytes:
            return self.render(indices)
        needed += count_bytes(self.more.format(len(self.lines))) + 1
        kept = set(indices)
        order = (*self.drop, *(reversed(indices) if self.drops_end else indices))
        for index in dict.fromkeys(order):
            kept.remove(index)
            needed -= count_bytes(self.lines[index]) + 1
            if needed <= limit_bytes:
                break
        return self.render(list(kept)) if kept else ""


def count_bytes(text: str) -> int:
    """Count the bytes of a text in UTF-8."""
    return len(text.encode(errors="replace"))


def count_tokens(text: str) -> int:
    """Estimate the tokens of a text by `BYTES_PER_TOKEN`, rather too many than too few."""
    return -(-count_bytes(text) // BYTES_PER_TOKEN)


def fit(sections: Sequence[Section], limit_tokens: int) -> str:
    """Join the sections in their order, within the limit.

    Sections without a share come first. The others divide the rest by their shares; what one of
    them does not need goes to the others, by rank.
    """
    left = limit_tokens * BYTES_PER_TOKEN
    sections = [section for section in sections if section.lines]
    shared = sorted((section for section in sections if section.share), key=attrgetter("rank"))
    texts: dict[str, str] = {}
    for section in sections:
        if not section.share:
            texts[section.heading] = section.fit_into(left)
            left -= count_bytes(texts[section.heading])
    total = sum(section.share for section in shared)
    for section in shared:
        texts[section.heading] = section.fit_into(int(left * section.share / total))
    left -= sum(count_bytes(texts[section.heading]) for section in shared)
    for section in shared:
        left += count_bytes(texts[section.heading])
        texts[section.heading] = section.fit_into(left)
        left -= count_bytes(texts[section.heading])
    return "".join(texts[section.heading] for section in sections)


def shorten(text: str, width: int = WIDTH) -> str:
    """Return foreign text on one line: cut, without control characters and runs of blanks."""
    return cut(" ".join(text[: 4 * width].split()), width)


def quote(lines: Sequence[str]) -> list[str]:
    """Mark each line of a program's output as such. Their indentation stays."""
    indents = (min(INDENT, len(text) - len(text.lstrip(" "))) for text in lines)
    return [
        f"    | {' ' * indent}{shorten(text)}" for text, indent in zip(lines, indents, strict=True)
    ]
