"""Sections of a text, and how they share a limit on its size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

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
    drop: Sequence[int] = ()  # indices of the lines to leave out first
    drops_end: bool = False  # whether the last line is left out before the first
    intro: Sequence[str] = ()  # lines that are never left out
    more: str = "- ({} more left out)"

    def text(self, indices: Sequence[int]) -> str:
        """The section with these of its lines, in their order."""
        shown = [self.lines[index] for index in sorted(indices)]
        left_out = len(self.lines) - len(shown)
        note = [self.more.format(left_out)] if left_out else []
        return "\n".join([f"## {self.heading}", *self.intro, *shown, *note, "", ""])

    def within(self, limit_bytes: int) -> str:
        """As much as fits; empty where not even one line does."""
        places = range(len(self.lines))
        needed = size(self.text(places))
        if needed <= limit_bytes:
            return self.text(places)
        needed += size(self.more.format(len(self.lines))) + 1
        kept = set(places)
        for index in dict.fromkeys((*self.drop, *(reversed(places) if self.drops_end else places))):
            needed -= size(self.lines[index]) + 1
            kept.remove(index)
            if needed <= limit_bytes:
                break
        return self.text(list(kept)) if kept else ""


def size(text: str) -> int:
    """Bytes of UTF-8."""
    return len(text.encode(errors="replace"))


def tokens(text: str) -> int:
    """The most tokens that a text takes: an estimate by `BYTES_PER_TOKEN`."""
    return -(-size(text) // BYTES_PER_TOKEN)


def fit(sections: Sequence[Section], limit_tokens: int, importance: Sequence[str]) -> str:
    """Join the sections in their order, within the limit.

    Sections without a share come first. The others divide the rest by their shares; what one does
    not need goes to the others, in the order of `importance` (headings; a heading that is missing
    there comes last).
    """
    left = limit_tokens * BYTES_PER_TOKEN
    texts: dict[int, str] = {}
    shared = []
    for place, section in enumerate(sections):
        if not section.lines:
            continue
        if section.share:
            shared.append(place)
            continue
        texts[place] = section.within(left)
        left -= size(texts[place])
    total = sum(sections[place].share for place in shared) or 1.0
    ranks = dict(zip(importance, count()))
    shared.sort(key=lambda place: ranks.get(sections[place].heading, len(ranks)))
    for place in shared:
        texts[place] = sections[place].within(int(left * sections[place].share / total))
    spare = left - sum(size(texts[place]) for place in shared)
    for place in shared:
        before = size(texts[place])
        texts[place] = sections[place].within(before + spare)
        spare -= size(texts[place]) - before
    return "".join(texts[place] for place in sorted(texts))


def line(text: str, width: int = WIDTH) -> str:
    """Foreign text on one line: cut, without control characters and runs of blanks."""
    return cut(" ".join(text[: 4 * width].split()), width)


def quote(lines: Sequence[str], width: int = WIDTH) -> list[str]:
    """Mark each line of a program's output as such. Their indentation stays."""
    indents = (min(INDENT, len(text) - len(text.lstrip(" "))) for text in lines)
    return [
        f"    | {' ' * indent}{line(text, width)}"
        for text, indent in zip(lines, indents, strict=True)
    ]
