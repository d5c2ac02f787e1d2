"""Find the constants of lists of compiler flags: in the variables of a Makefile, or in a file that
holds flags alone.

    CFLAGS = -O2 -funroll-loops        CFLAGS -O: 0, 1, 2, 3 or s; CFLAGS -funroll-loops: on or off
    -fno-inline                        -finline: on or off, as -finline and -fno-inline
    -falign-loops=32  # in [8, 64]     -falign-loops
    --param max-unroll-times=8         max-unroll-times
    -march=native  # one of: native, x86-64-v3
    BLOCK := 64                        BLOCK
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from fnmatch import fnmatch

from autoresearch.agents.tuning.comments import ONE_OF, Literal, make_constants
from autoresearch.agents.tuning.constants import Constant, SourceError, Value
from autoresearch.agents.tuning.literal_text import read_literal
from autoresearch.agents.tuning.names import is_ignored
from autoresearch.agents.tuning.trees import get_text, parse, walk

MAKEFILES = ("Makefile", "makefile", "GNUmakefile", "*.mk")
FLAG_LISTS = ("*.flags", "flags", "*flags.txt", "*.rsp")

WORD = re.compile(r"[^\s\\]\S*")
COMMENT = re.compile(r"(?:^|(?<=\s))#.*")
LEVEL = re.compile(r"-O(\w+)")
LEVELS = "one of: 0, 1, 2, 3, s"
SWITCH = re.compile(r"-([fm])(no-)?([a-z][a-z-]+(?:\d[\w.-]*)?)")
NAME = re.compile(r"-{1,2}[A-Za-z][\w.=-]*")
BEFORE_VALUE = {"--param", "-C", "-mllvm"}  # flags whose value is a word `name=value`
UNTOUCHED = re.compile(r"(?:pic|pie)$|sanitize|profile|coverage|diagnostics|color|syntax")
"""Switches that change what a program is for, or only its messages."""


def is_makefile(name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in MAKEFILES)


def is_flag_list(name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in FLAG_LISTS)


def find(source: bytes) -> list[Constant]:
    """Return the constants of a file of flags. Raises `SourceError` if it is not UTF-8."""
    try:
        text = source.decode()
    except UnicodeDecodeError as error:
        raise SourceError("not UTF-8") from error
    return _make_constants(_find_in_text("", text, 0, 1))


def find_in_makefile(source: bytes) -> list[Constant]:
    """Return the constants in the variables of a Makefile. Raises `SourceError`."""
    literals: list[Literal] = []
    assigned: Counter[str] = Counter()
    for node in walk(parse("make", source)):
        name, value = (node.child_by_field_name(field) for field in ("name", "value"))
        if node.type == "variable_assignment" and name and value and not node.has_error:
            variable, text = get_text(name).decode(), get_text(value).decode()
            assigned[variable] += 1
            line = value.start_point[0] + 1
            literals += _find_in_variable(variable, text, value.start_byte, line)
    return _make_constants(literal for literal in literals if assigned[literal.name] <= 1)


def _make_constants(literals: Iterable[Literal]) -> list[Constant]:
    """A flag that comes twice, or is switched on and off, is no constant."""
    literals = list(literals)
    counts = Counter(literal.name for literal in literals)
    return make_constants(
        literal
        for literal in literals
        if counts[literal.name] == 1 and not is_ignored(literal.name.replace("-D", ""))
    )


def _find_in_variable(variable: str, text: str, start: int, line: int) -> Iterator[Literal]:
    """A variable with one number is a constant itself; else those of its flags are."""
    comment = match[0] if (match := COMMENT.search(text)) else ""
    value = COMMENT.sub("", text)
    part = read_literal(value.encode())
    if part and not isinstance(part.value, bool | str):
        span = (start + part.span[0], start + part.span[1])
        yield Literal(variable, part.value, span, comment, line, part.base)
    else:
        yield from _find_in_text(f"{variable} ", text, start, line)


def _find_in_text(prefix: str, text: str, start: int, line: int) -> Iterator[Literal]:
    """The flags of a text that begins at byte `start` on line `line`."""
    lines = text.splitlines(keepends=True)
    last = COMMENT.search(lines[-1]) if prefix and lines else None  # of the whole variable
    for row, content in enumerate(lines, line):
        match = COMMENT.search(content) or last
        comment = match[0] if match else ""
        code = COMMENT.sub("", content)
        words = list(WORD.finditer(code))
        for before, word in zip([None, *words], words, strict=False):
            flag = _read_flag(word[0], before[0] if before else "", comment, len(words) == 1)
            if flag is not None:
                at = start + len(content[: word.start()].encode())
                span = (at + flag.span[0], at + flag.span[1])
                yield replace(flag, name=prefix + flag.name, span=span, line=row)
        start += len(content.encode())


def _read_flag(word: str, before: str, comment: str, is_alone: bool) -> Literal | None:
    """The literal in a flag, its span counted from the flag's beginning. `one of:` is for the flag
    that is among the alternatives, or for the only one on its line."""
    choices = _list_choices(comment)
    rest = ONE_OF.sub("", comment)
    end = len(word)
    if word in choices or (is_alone and choices and all(c.startswith("-") for c in choices)):
        return Literal(_join_names(choices), word, (0, end), comment, 0, write=_write)
    if match := LEVEL.fullmatch(word):
        is_meant = match[1] in choices or (is_alone and choices)
        levels = comment if is_meant else f"{rest}; {LEVELS}"
        return Literal("-O", match[1], (2, end), levels, 0, write=_write)
    name, equals, text = word.rpartition("=")
    if equals and (NAME.fullmatch(name) or before in BEFORE_VALUE):
        is_meant = text in choices or (is_alone and bool(choices))
        return _read_value(name, text, end, comment if is_meant else rest)
    match = SWITCH.fullmatch(word)
    if match is None or word in BEFORE_VALUE or UNTOUCHED.search(match[3]):
        return None
    on, off = f"-{match[1]}{match[3]}", f"-{match[1]}no-{match[3]}"
    return Literal(on, not match[2], (0, end), rest, 0, write=lambda value: on if value else off)


def _read_value(name: str, text: str, end: int, comment: str) -> Literal | None:
    start = end - len(text)
    part = read_literal(text.encode())
    if part is None or isinstance(part.value, bool | str):
        return Literal(name, text, (start, end), comment, 0, write=_write)
    span = (start + part.span[0], start + part.span[1])
    return Literal(name, part.value, span, comment, 0, part.base)


def _list_choices(comment: str) -> list[str]:
    match = ONE_OF.search(comment)
    return [word.strip() for word in match[1].split(",")] if match else []


def _join_names(words: list[str]) -> str:
    """What alternatives have in common: `-march` of `-march=native, -march=haswell`."""
    names = {"-O" if LEVEL.fullmatch(word) else word.rpartition("=")[0] or word for word in words}
    return "|".join(sorted(names))


def _write(value: Value) -> str:
    text = str(value)
    if not re.fullmatch(r"[\w.,+=:/-]+", text):
        raise ValueError(f"{text!r} is no flag and no value of one")
    return text
