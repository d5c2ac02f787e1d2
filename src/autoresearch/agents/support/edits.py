"""Edits by search and replace: read them from a model's answer, and apply them exactly.

The format is aider's, which models know. A block replaces whole lines that are exactly once in the
file as the model saw it. All other bytes of the file stay. A block that cannot be applied raises
`BadEdit` with its number and the reason, and no block is applied.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import PurePosixPath
from typing import NamedTuple

MARK = re.compile(r"(?:<{5,9} (SEARCH)|(=)={4,8}|>{5,9} (REPLACE))\s*")
FENCE = re.compile(r"\s*(?:```|~~~)")
THOUGHT = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)  # some servers leave it in
FIELD = re.compile(r"[\s>*#`_-]*(DESCRIPTION|HYPOTHESIS|NOTES)[\s*`_]*:(.*)", re.IGNORECASE)

ANSWER_LENGTH = 1_000_000  # characters
EDIT_LINES = 2_000  # searched and replacing lines of all blocks: more is no single idea
SHOWN_LENGTH = 120  # characters of a line in a message
COMPARED_LINES = 2_000  # lines of a file in the search for the nearest one

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
    """An answer that cannot be applied. The message is for the model."""


@dataclass(frozen=True, slots=True)
class Block:
    number: int  # from 1, in the answer
    label: str  # the line above it, which should name the file
    search: tuple[str, ...]  # lines, without their ends
    replace: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    description: str  # the line of that name, else the text outside the blocks
    hypothesis: str
    notes: str
    blocks: tuple[Block, ...]


# --------------------------------------------------------------------------------------------
# Reading


def parse(text: str) -> Answer:
    """Read a model's answer. Raises `BadEdit` if it has no block, or an incomplete one."""
    if len(text) > ANSWER_LENGTH:
        raise BadEdit(f"an answer of {len(text):,} characters; at most {ANSWER_LENGTH:,} are read")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadEdit(f"the answer holds no character at {error.start}, but half of one") from None
    lines = THOUGHT.sub("", text).replace("\r\n", "\n").split("\n")
    blocks, prose = _split_blocks(lines)
    if not blocks:
        start = " ".join(" ".join(lines).split())[:SHOWN_LENGTH]
        raise BadEdit(
            f"the answer has no SEARCH/REPLACE block; it begins: {start}"
            if start
            else "the answer is empty"
        )
    fields = {name: value for name, value in map(_field, reversed(prose)) if name}
    labels = {block.label for block in blocks}
    other = [line for line in prose if _strip_markup(line) not in labels and not FENCE.match(line)]
    return Answer(
        description=fields.get("description") or "\n".join(other),
        hypothesis=fields.get("hypothesis", ""),
        notes=fields.get("notes", ""),
        blocks=tuple(blocks),
    )


def _split_blocks(lines: Sequence[str]) -> tuple[list[Block], list[str]]:
    """Return the blocks and the lines outside them."""
    blocks: list[Block] = []
    prose: list[str] = []
    label = ""  # the last line since the last block that can name a file
    search: list[str] = []
    replace: list[str] = []
    part = prose  # the list that takes the next line
    for line in lines:
        match = MARK.fullmatch(line)
        mark = match and match[match.lastindex or 0]
        number = len(blocks) + 1
        if part is prose and mark == "SEARCH":
            part = search = []
        elif part is prose and mark == "REPLACE":
            raise BadEdit(f"a line >>>>>>> REPLACE ends no block, after block {len(blocks)}")
        elif part is search and mark == "=":
            part = replace = []
        elif part is search and mark:
            raise BadEdit(f"block {number} has no line ======= after its search")
        elif part is replace and mark == "REPLACE":
            blocks.append(Block(number, label, tuple(search), tuple(replace)))
            part, label = prose, ""
        elif part is replace and mark == "=":  # either could be the divider
            raise BadEdit(f"block {number} has two lines =======")
        elif part is replace and mark:
            break
        else:
            part.append(line)
            if part is prose and line.strip() and not FENCE.match(line):
                label = _strip_markup(line)
    if part is not prose:
        raise BadEdit(f"block {len(blocks) + 1} is not ended by a line >>>>>>> REPLACE")
    return blocks, prose


def _field(line: str) -> tuple[str, str]:
    match = FIELD.fullmatch(line)
    return (match[1].lower(), " ".join(match[2].strip("* \t").split())) if match else ("", "")


def _strip_markup(line: str) -> str:
    return " ".join(line.strip("#*`\"'> \t:-").split())


# --------------------------------------------------------------------------------------------
# Applying


class _Span(NamedTuple):
    """Bytes of a file, and the bytes that replace them."""

    begin: int
    end: int
    data: bytes
    block: int


def apply(files: Mapping[str, bytes], blocks: Sequence[Block]) -> dict[str, bytes]:
    """Return the new contents of the changed files. Raises `BadEdit` unless all blocks apply."""
    size = sum(len(block.search) + len(block.replace) for block in blocks)
    if size > EDIT_LINES:
        raise BadEdit(f"the blocks hold {size:,} lines; at most {EDIT_LINES:,} are accepted")
    spans: dict[str, list[_Span]] = {}
    path = ""
    for block in blocks:
        path = _find_path(block, files, path)
        spans.setdefault(path, []).append(_find_span(block, path, files[path]))
    edited = {path: _replace_spans(path, files[path], spans[path]) for path in spans}
    return {path: data for path, data in edited.items() if data != files[path]}


def _find_path(block: Block, files: Mapping[str, bytes], previous: str) -> str:
    """Return the file of a block: the one named above it, else that of the previous block, else the
    only file."""
    label = block.label.removeprefix("./")
    words = label.split()
    for name in (label, *(_strip_markup(word).removeprefix("./") for word in words[-1:])):
        if name in files:
            return name
    editable = ", ".join(files) or "none"
    if len(words) == 1 and not label.endswith((".", "!")):  # a path, and not the end of a sentence
        outside = PurePosixPath(label).is_absolute() or ".." in PurePosixPath(label).parts
        why = "leads outside the program's folder" if outside else "is no file that may be edited"
        raise BadEdit(f"block {block.number}: {_show(label)} {why}; editable: {editable}")
    if previous:
        return previous
    if len(files) == 1:
        return next(iter(files))
    raise BadEdit(f"block {block.number}: the line above it names no file; editable: {editable}")


def _find_span(block: Block, path: str, data: bytes) -> _Span:
    """Find a block's search in a file."""
    where = f"block {block.number} ({path})"
    if not any(line.strip() for line in block.search):
        raise BadEdit(f"{where}: its search is empty; copy the lines beside the change")
    end = _line_end(data)
    lines = data.split(end)
    is_ended = lines[-1] == b""  # the last line has an end
    if is_ended:
        lines.pop()
    search = [line.encode() for line in block.search]
    starts = [i for i, line in enumerate(lines) if line == search[0]]
    matches = [i for i in starts if lines[i : i + len(search)] == search]
    if not matches:
        reason = _explain_mismatch(search, lines, starts)
        raise BadEdit(f"{where}: its search is not in the file: {reason}")
    if len(matches) > 1:
        places = ", ".join(str(i + 1) for i in matches[:5])
        raise BadEdit(
            f"{where}: its search is {len(matches)} times in the file, from lines {places}; "
            "add lines around it until it is there once"
        )
    [first] = matches
    offsets = [0, *accumulate(len(line) + len(end) for line in lines)]
    last = first + len(search)
    begin, finish = offsets[first], offsets[last]
    replacement = b"".join(line.encode() + end for line in block.replace)
    if last == len(lines) and not is_ended:
        finish, replacement = finish - len(end), replacement.removesuffix(end)
    return _Span(begin, finish, replacement, block.number)


def _line_end(data: bytes) -> bytes:
    """Return CRLF if every line ends so. The model sees and answers LF."""
    crlf = data.count(b"\r\n")
    return b"\r\n" if crlf and crlf == data.count(b"\n") else b"\n"


def _replace_spans(path: str, data: bytes, spans: Sequence[_Span]) -> bytes:
    parts, position, previous = [], 0, 0
    for span in sorted(spans):
        if span.begin < position:
            first, second = sorted((previous, span.block))
            raise BadEdit(f"block {second} ({path}): it searches for lines of block {first} again")
        parts += [data[position : span.begin], span.data]
        position, previous = span.end, span.block
    edited = b"".join([*parts, data[position:]])
    if data.strip() and not edited.strip():
        raise BadEdit(f"{path}: nothing would be left of it")
    return edited


def _explain_mismatch(
    search: Sequence[bytes], lines: Sequence[bytes], starts: Sequence[int]
) -> str:
    """Name the first line of a search that does not match, and the line in its place."""
    if starts:
        lengths = {i: _common_length(search, lines[i : i + len(search)]) for i in starts}
        start = max(lengths, key=lambda i: lengths[i])
        length = lengths[start]
        here = start + length
        there = f"line {here + 1} is {_show(lines[here])}" if here < len(lines) else "the file ends"
        return f"after {length} of its lines comes {_show(search[length])}, but {there}"
    line = next(line for line in search if line.strip())
    shown = [line[:SHOWN_LENGTH].decode(errors="replace") for line in lines[:COMPARED_LINES]]
    wanted = line[:SHOWN_LENGTH].decode(errors="replace")
    nearest = difflib.get_close_matches(wanted, shown, n=1, cutoff=0.5)
    if not nearest:
        return f"no line is like {_show(line)}"
    near = shown.index(nearest[0])
    return f"its line {_show(line)} is nearest to line {near + 1}, {_show(lines[near])}"


def _common_length(search: Sequence[bytes], lines: Sequence[bytes]) -> int:
    """Return the number of equal lines at the start of both."""
    pairs = enumerate(zip(search, lines, strict=False))
    return next((n for n, (wanted, line) in pairs if wanted != line), len(lines))


def _show(line: bytes | str) -> str:
    text = line.decode(errors="replace") if isinstance(line, bytes) else line
    return repr(text[:SHOWN_LENGTH])
