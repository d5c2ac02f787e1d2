"""Edits by search and replace: read from a model's answer, and applied exactly or not at all.

The format is aider's, which models know. A block replaces whole lines that are exactly once in the
file as it was shown; everything outside the replaced lines stays as it is, byte for byte. Pure
functions of text and bytes: what cannot be applied is a `BadEdit`, which says which block and why.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from pathlib import PurePosixPath

HEAD = re.compile(r"<{5,9} SEARCH\s*")
DIVIDER = re.compile(r"={5,9}\s*")
TAIL = re.compile(r">{5,9} REPLACE\s*")
FENCE = re.compile(r"\s*(?:```|~~~)")
THOUGHT = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)  # where a server leaves it in
FIELD = re.compile(r"[\s>*#`_-]*(DESCRIPTION|HYPOTHESIS|NOTES)[\s*`_]*:(.*)", re.IGNORECASE)

ANSWER_LENGTH = 1_000_000  # characters
EDIT_LINES = 2_000  # searched and put in their place, together: more is no single idea
SHOWN_LENGTH = 120  # of a line in a message
COMPARED_LINES = 2_000  # of a file, when the nearest line is looked for

FORMAT = """
## Your answer

You see the files and can neither open nor run anything. Answer once, in exactly this form:

DESCRIPTION: one line: what you change and why it should help
HYPOTHESIS: one line (optional)
NOTES: one line for your later self (optional)

{example}
<<<<<<< SEARCH
whole lines, copied exactly from the file
=======
the lines that take their place
>>>>>>> REPLACE

The line above a block is the file's path; only {editable} may be edited. Copy the searched lines
character by character, and enough of them to occur exactly once in that file: a block whose search
is not there, or there twice, is refused, and with it the whole answer. Every block is looked for in
the file as it is shown to you. Use as many blocks as the change needs; to insert lines, search for
the line beside them and repeat it.
"""


class BadEdit(Exception):
    """An answer that cannot be applied; the message is for the model that gave it."""


@dataclass(frozen=True, slots=True)
class Block:
    number: int  # from 1, in the answer
    label: str  # the line above it, which should name the file
    search: tuple[str, ...]  # lines, without their ends
    replace: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    description: str  # the line of that name, else all that is said outside the blocks
    hypothesis: str
    notes: str
    blocks: tuple[Block, ...]


# --------------------------------------------------------------------------------------------
# Reading


def parse(text: str) -> Answer:
    """What a model answered. Raises `BadEdit` where it holds no block, or one that is not whole."""
    if len(text) > ANSWER_LENGTH:
        raise BadEdit(f"an answer of {len(text):,} characters; at most {ANSWER_LENGTH:,} are read")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadEdit(f"the answer holds no character at {error.start}, but half of one") from None
    lines = THOUGHT.sub("", text).replace("\r\n", "\n").split("\n")
    reader = _Reader()
    for line in lines:
        reader.take(line)
    blocks, prose = reader.ended()
    if not blocks:
        begin = " ".join(" ".join(lines).split())[:SHOWN_LENGTH]
        raise BadEdit(
            f"the answer has no SEARCH/REPLACE block; it begins: {begin}"
            if begin
            else "the answer is empty"
        )
    said = {name: value for name, value in map(_field, reversed(prose)) if name}
    labels = {block.label for block in blocks}
    free = [line for line in prose if _tidy(line) not in labels and not FENCE.match(line)]
    return Answer(
        description=said.get("description") or "\n".join(free),
        hypothesis=said.get("hypothesis", ""),
        notes=said.get("notes", ""),
        blocks=tuple(blocks),
    )


@dataclass(slots=True)
class _Reader:
    """Takes an answer line by line: prose, or inside a block the search and then the rest."""

    prose: list[str] = field(default_factory=list)
    above: list[str] = field(default_factory=list)  # prose since the last block
    blocks: list[Block] = field(default_factory=list)
    search: list[str] | None = None  # None outside a block
    fresh: list[str] | None = None  # None before the divider

    def take(self, line: str) -> None:
        if self.search is None:
            self._outside(line)
        elif self.fresh is None:
            self._searching(line)
        else:
            self._replacing(line)

    def ended(self) -> tuple[list[Block], list[str]]:
        if self.search is not None:
            raise BadEdit(f"block {self._number} is not ended by a line >>>>>>> REPLACE")
        return self.blocks, self.prose

    @property
    def _number(self) -> int:
        return len(self.blocks) + 1

    def _outside(self, line: str) -> None:
        if HEAD.fullmatch(line):
            self.search = []
        elif TAIL.fullmatch(line):
            raise BadEdit(f"a line >>>>>>> REPLACE ends no block, after block {len(self.blocks)}")
        else:
            self.prose.append(line)
            self.above.append(line)

    def _searching(self, line: str) -> None:
        assert self.search is not None
        if DIVIDER.fullmatch(line):
            self.fresh = []
        elif HEAD.fullmatch(line) or TAIL.fullmatch(line):
            raise BadEdit(f"block {self._number} has no line ======= after its search")
        else:
            self.search.append(line)

    def _replacing(self, line: str) -> None:
        assert self.search is not None and self.fresh is not None
        if HEAD.fullmatch(line):
            raise BadEdit(f"block {self._number} is not ended by a line >>>>>>> REPLACE")
        if DIVIDER.fullmatch(line):  # which of the two divides, nobody can tell
            raise BadEdit(f"block {self._number} has two lines =======")
        if not TAIL.fullmatch(line):
            self.fresh.append(line)
            return
        label = next((_tidy(one) for one in reversed(self.above) if _names(one)), "")
        self.blocks.append(Block(self._number, label, tuple(self.search), tuple(self.fresh)))
        self.search, self.fresh, self.above = None, None, []


def _names(line: str) -> bool:
    """Whether this line above a block can be the one that names its file."""
    return bool(line.strip()) and not FENCE.match(line)


def _field(line: str) -> tuple[str, str]:
    found = FIELD.fullmatch(line)
    return (found[1].lower(), " ".join(found[2].strip("* \t").split())) if found else ("", "")


def _tidy(line: str) -> str:
    """A line without its markup."""
    return " ".join(line.strip("#*`\"'> \t:-").split())


# --------------------------------------------------------------------------------------------
# Applying


@dataclass(frozen=True, slots=True)
class _Span:
    """Bytes of a file, and what takes their place."""

    begin: int
    end: int
    data: bytes
    block: int


def apply(files: Mapping[str, bytes], blocks: Sequence[Block]) -> dict[str, bytes]:
    """The new content of the files that change. Raises `BadEdit` unless every block applies."""
    size = sum(len(block.search) + len(block.replace) for block in blocks)
    if size > EDIT_LINES:
        raise BadEdit(f"the blocks hold {size:,} lines; at most {EDIT_LINES:,} are accepted")
    spans: dict[str, list[_Span]] = {}
    path = ""
    for block in blocks:
        path = _path_of(block, files, path)
        spans.setdefault(path, []).append(_located(block, path, files[path]))
    edited = {path: _spliced(path, files[path], found) for path, found in spans.items()}
    return {path: data for path, data in edited.items() if data != files[path]}


def _path_of(block: Block, files: Mapping[str, bytes], before: str) -> str:
    """The file a block is for: the one named above it, else that of the block before it, else the
    only one there is."""
    label = block.label.removeprefix("./")
    words = label.split()
    for name in (label, *(_tidy(word).removeprefix("./") for word in words[-1:])):
        if name in files:
            return name
    editable = ", ".join(files) or "none"
    if len(words) == 1 and not label.endswith((".", "!")):  # a path, and not the end of a sentence
        outside = PurePosixPath(label).is_absolute() or ".." in PurePosixPath(label).parts
        why = "leads outside the program's folder" if outside else "is no file that may be edited"
        raise BadEdit(f"block {block.number}: {_show(label)} {why}; editable: {editable}")
    if before:
        return before
    if len(files) == 1:
        return next(iter(files))
    raise BadEdit(f"block {block.number}: the line above it names no file; editable: {editable}")


def _located(block: Block, path: str, data: bytes) -> _Span:
    """Where a block's search is in a file."""
    where = f"block {block.number} ({path})"
    if not any(line.strip() for line in block.search):
        raise BadEdit(f"{where}: its search is empty; copy the lines beside the change")
    end = _line_end(data)
    lines = data.split(end)
    whole = lines[-1] == b""  # the last line has an end
    if whole:
        lines.pop()
    wanted = [line.encode() for line in block.search]
    at = [i for i, line in enumerate(lines) if line == wanted[0]]
    found = [i for i in at if lines[i : i + len(wanted)] == wanted]
    if not found:
        raise BadEdit(f"{where}: its search is not in the file: {_why_not(wanted, lines, at)}")
    if len(found) > 1:
        places = ", ".join(str(i + 1) for i in found[:5])
        raise BadEdit(
            f"{where}: its search is {len(found)} times in the file, from lines {places}; "
            "add lines around it until it is there once"
        )
    ends = [0, *accumulate(len(line) + len(end) for line in lines)]
    last = found[0] + len(wanted)
    unended = last == len(lines) and not whole
    fresh = b"".join(line.encode() + end for line in block.replace)
    return _Span(
        begin=ends[found[0]],
        end=ends[last] - (len(end) if unended else 0),
        data=fresh.removesuffix(end) if unended else fresh,
        block=block.number,
    )


def _line_end(data: bytes) -> bytes:
    """CRLF where every line ends so. A model sees, and answers, plain lines."""
    crlf = data.count(b"\r\n")
    return b"\r\n" if crlf and crlf == data.count(b"\n") else b"\n"


def _spliced(path: str, data: bytes, spans: Sequence[_Span]) -> bytes:
    ordered = sorted(spans, key=lambda span: span.begin)
    for one, other in pairwise(ordered):
        if other.begin < one.end:
            first, second = sorted((one.block, other.block))
            raise BadEdit(f"block {second} ({path}): it searches for lines of block {first} again")
    parts, position = [], 0
    for span in ordered:
        parts += [data[position : span.begin], span.data]
        position = span.end
    edited = b"".join([*parts, data[position:]])
    if data.strip() and not edited.strip():
        raise BadEdit(f"{path}: nothing would be left of it")
    return edited


def _why_not(wanted: Sequence[bytes], lines: Sequence[bytes], at: Sequence[int]) -> str:
    """The first line of a search that is not where it should be, and what is there instead."""
    if at:
        begin = max(at, key=lambda i: _agreement(wanted, lines[i : i + len(wanted)]))
        agreed = _agreement(wanted, lines[begin : begin + len(wanted)])
        here = begin + agreed
        there = f"line {here + 1} is {_show(lines[here])}" if here < len(lines) else "the file ends"
        return f"after {agreed} of its lines comes {_show(wanted[agreed])}, but {there}"
    line = next(one for one in wanted if one.strip())
    near = _nearest(line, lines)
    if near is None:
        return f"no line is like {_show(line)}"
    return f"its line {_show(line)} is nearest to line {near + 1}, {_show(lines[near])}"


def _agreement(wanted: Sequence[bytes], lines: Sequence[bytes]) -> int:
    pairs = zip(wanted, lines, strict=False)
    return next((n for n, (one, other) in enumerate(pairs) if one != other), len(lines))


def _nearest(line: bytes, lines: Sequence[bytes]) -> int | None:
    shown = [one[:SHOWN_LENGTH].decode(errors="replace") for one in lines[:COMPARED_LINES]]
    wanted = line[:SHOWN_LENGTH].decode(errors="replace")
    near = difflib.get_close_matches(wanted, shown, n=1, cutoff=0.5)
    return shown.index(near[0]) if near else None


def _show(line: bytes | str) -> str:
    text = line.decode(errors="replace") if isinstance(line, bytes) else line
    return repr(text[:SHOWN_LENGTH])
