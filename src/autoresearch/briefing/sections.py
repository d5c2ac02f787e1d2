"""Sections of a text, and how they share a limit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

from autoresearch.formatting import cut

BYTES_PER_TOKEN = 3
"""Of UTF-8. English and code take 3.5 to 4.5 in today's tokenizers, numbers about 2.5, other
scripts about one token for a character, which is two to four bytes: a cautious middle."""

INDENT = 12  # characters of it, of a quoted line
WIDTH = 200  # characters of a line that came from outside


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and lines. What does not fit is left out, line by line, and that is said."""

    heading: str
    lines: Sequence[str]
    share: float = 0.0  # of what the whole sections leave over; 0: it is one of these
    drop: Sequence[int] = ()  # places of lines, the least important first; then from the first on
    intro: Sequence[str] = ()  # lines that are never left out
    more: str = "- ({} more left out)"

    def text(self, places: Sequence[int]) -> str:
        """With the lines of these places, in their order."""
        shown = [self.lines[place] for place in sorted(places)]
        left_out = len(self.lines) - len(shown)
        note = [self.more.format(left_out)] if left_out else []
        return "\n".join([f"## {self.heading}", *self.intro, *shown, *note, "", ""])

    def within(self, limit_bytes: int) -> str:
        """As much as fits; nothing where not even one line does."""
        needed = size(self.text(range(len(self.lines))))
        if needed <= limit_bytes:
            return self.text(range(len(self.lines)))
        needed += size(self.more.format(len(self.lines))) + 1
        order = dict.fromkeys((*self.drop, *range(len(self.lines))))
        kept = dict.fromkeys(range(len(self.lines)))
        for place in order:
            needed -= size(self.lines[place]) + 1
            del kept[place]
            if needed <= limit_bytes:
                break
        return self.text(list(kept)) if kept else ""


def size(text: str) -> int:
    """Bytes of UTF-8."""
    return len(text.encode(errors="replace"))


def tokens(text: str) -> int:
    """How many a text takes, at most: an estimate by `BYTES_PER_TOKEN`."""
    return -(-size(text) // BYTES_PER_TOKEN)


def fit(sections: Sequence[Section], limit_tokens: int, importance: Sequence[str]) -> str:
    """The sections in their order, within the limit. Whole ones come first, the others share what
    these leave; what one does not need goes to the others, in the order of `importance` (headings;
    one that is not named comes last)."""
    left = limit_tokens * BYTES_PER_TOKEN
    texts: dict[int, str] = {}
    shared = []
    for place, section in enumerate(sections):
        if section.share:
            shared.append(place)
            continue
        texts[place] = section.within(left)
        left -= size(texts[place])
    total = sum(sections[place].share for place in shared) or 1.0
    given = {place: int(left * sections[place].share / total) for place in shared}
    ranks = dict(zip(importance, count()))
    shared.sort(key=lambda place: ranks.get(sections[place].heading, len(ranks)))
    texts |= {place: sections[place].within(given[place]) for place in shared}
    spare = left - sum(size(texts[place]) for place in shared)
    for place in shared:
        had = size(texts[place])
        texts[place] = sections[place].within(had + spare)
        spare -= size(texts[place]) - had
    return "".join(texts[place] for place in sorted(texts))


def line(text: str, width: int = WIDTH) -> str:
    """Foreign text on one line: no control characters, no runs of blanks, and no end to it."""
    return cut(" ".join(text[: 4 * width].split()), width)


def quoted(lines: Sequence[str], width: int = WIDTH) -> list[str]:
    """Lines of a program's output, each marked as such; how they are indented stays."""
    indents = (min(INDENT, len(one) - len(one.lstrip(" "))) for one in lines)
    return [
        f"    | {' ' * indent}{line(one, width)}"
        for one, indent in zip(lines, indents, strict=True)
    ]
