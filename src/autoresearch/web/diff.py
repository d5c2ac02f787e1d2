"""A patch as lines of coloured words, for a template that escapes them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from autoresearch.formatting import printable

SHOWN = 200_000  # characters of a patch; the lines of the rest are counted
COLOURED = 40_000  # characters of a side of a hunk: colours take a second for 100,000
LINE = 2_000  # characters of a line that are shown
HUNK = re.compile(r"^@@ -(\d+)(?:,\d+)? \+(\d+)(?:,\d+)? @@")
COLOURS = {"Keyword": "k", "String": "s", "Number": "m", "Comment": "c", "Function": "f"}
"""CSS classes by a part of the lexer's name for a token."""

Word = tuple[str, str]  # CSS class, which may be empty, and text


@dataclass(frozen=True, slots=True)
class Line:
    kind: str  # "file", "hunk", "add", "del", "same"
    words: Sequence[Word]
    old: int | None = None  # line numbers
    new: int | None = None


@dataclass(frozen=True, slots=True)
class Patch:
    lines: Sequence[Line]
    left_out: int  # lines that are not shown


def read_patch(text: str) -> Patch:
    """Read a patch of git's. Foreign text in it is made printable."""
    shown = printable(text[:SHOWN])
    left_out = text[SHOWN:].count("\n")
    lines: list[Line] = []
    for block in re.split(r"^(?=diff --git )", shown, flags=re.MULTILINE):
        lines += _read_file(block.rstrip("\n").split("\n")) if block.strip() else []
    return Patch(lines, left_out)


def _read_file(raw: Sequence[str]) -> Iterator[Line]:
    """The lines of one file's patch. The lines of git's header become one, with the names."""
    body = next((at for at, line in enumerate(raw) if line.startswith("@@")), len(raw))
    names = [line[4:] for line in raw[:body] if line.startswith(("--- ", "+++ "))]
    paths = [name.split("/", 1)[-1] for name in names if name != "/dev/null"]
    title = " → ".join(dict.fromkeys(paths)) or raw[0].removeprefix("diff --git ")
    yield Line("file", [("", title)])
    hunk: list[Line] = []
    old = new = 0
    for text in raw[body:]:
        if match := HUNK.match(text):
            yield from _colour(hunk, paths[-1] if paths else "")
            hunk = []
            old, new = int(match[1]), int(match[2])
            yield Line("hunk", [("", text[:LINE])])
        elif text.startswith("\\"):  # "\ No newline at end of file"
            hunk.append(Line("hunk", [("", text)]))
        else:
            kind = {"+": "add", "-": "del"}.get(text[:1], "same")
            line = Line(
                kind,
                [("", text[1:])],
                old if kind != "add" else None,
                new if kind != "del" else None,
            )
            old, new = old + (kind != "add"), new + (kind != "del")
            hunk.append(line)
    yield from _colour(hunk, paths[-1] if paths else "")


def _colour(hunk: Sequence[Line], path: str) -> Iterator[Line]:
    """Colour both sides of a hunk, each as the text that it is."""
    olds = iter(_lex([line.words[0][1] for line in hunk if line.kind in ("del", "same")], path))
    news = iter(_lex([line.words[0][1] for line in hunk if line.kind in ("add", "same")], path))
    for line in hunk:
        if line.kind == "del":
            yield replace(line, words=next(olds))
        elif line.kind == "add":
            yield replace(line, words=next(news))
        elif line.kind == "same":
            next(olds)
            yield replace(line, words=next(news))
        else:
            yield line


def _lex(lines: Sequence[str], path: str) -> list[list[Word]]:
    """The words of lines of a file. One word a line where the language is not known."""
    from pygments.lexers import get_lexer_for_filename
    from pygments.util import ClassNotFound

    lines = [line if len(line) <= LINE else f"{line[:LINE]} ..." for line in lines]
    plain = [[("", line)] for line in lines]
    if sum(map(len, lines)) > COLOURED:
        return plain
    try:
        lexer = get_lexer_for_filename(path, stripnl=False, ensurenl=False)
    except ClassNotFound:
        return plain
    words: list[list[Word]] = [[]]
    for kind, value in lexer.get_tokens("\n".join(lines)):
        colour = next((css for part, css in COLOURS.items() if part in str(kind)), "")
        first, *others = value.split("\n")
        words[-1].append((colour, first))
        words += [[(colour, other)] for other in others]
    return words if len(words) == len(lines) else plain
