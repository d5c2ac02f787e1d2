"""The editable files as text, and the names in them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from autoresearch.formatting import counted, printable

FILE_BYTES, ALL_BYTES = 200_000, 400_000  # the most that is shown of a file, and in all
NOT_CODE = re.compile(r'"""[\s\S]*?"""|' r"'''[\s\S]*?'''|#[^\n]*")
DEFINED = re.compile(r"^[ \t]*(?:async +)?(?:def|class) +(\w+)", re.MULTILINE)
SET = re.compile(r"^([A-Za-z_]\w*) *(?::[^=\n]{0,80})?=(?!=)", re.MULTILINE)
SHAPED = re.compile(r"\b(?:[A-Z][A-Z0-9_]+|[A-Za-z]\w*_\w+|[A-Za-z]*[a-z][A-Z]\w*)\b")
NOT_NAMES = frozenset({"None", "True", "False", "main"})


@dataclass(frozen=True, slots=True)
class Names:
    """Names of a program that a description could mean."""

    constants: tuple[str, ...]  # set at the top level, in capitals, in the order of the file
    all: frozenset[str]


def find_names(files: Mapping[str, bytes]) -> Names:
    """Find the names that text files define or use, in any language with such a syntax."""
    constants: dict[str, None] = {}
    every: set[str] = set()
    for data in files.values():
        if (text := _decode(data)) is None or len(data) > FILE_BYTES:
            continue
        code = NOT_CODE.sub("", text)
        settings = SET.findall(code)
        constants |= dict.fromkeys(name for name in settings if name.isupper())
        every.update(settings, DEFINED.findall(code), SHAPED.findall(code))
    return Names(tuple(constants), frozenset(every - NOT_NAMES))


def show_source(files: Mapping[str, bytes]) -> str:
    """Show files whole as long as there is room, and the names and sizes of the others."""
    parts = ["## The source: the editable files of the incumbent\n"]
    left = ALL_BYTES
    for path, data in sorted(files.items()):
        text = _decode(data)
        name, shown = " ".join(printable(path).split()), counted(len(data), "byte")
        if text is None:
            parts.append(f"### {name} ({shown}, no text)\n")
        elif len(data) > min(FILE_BYTES, left):
            parts.append(f"### {name} ({shown}): too long to show, open it yourself\n")
        else:
            left -= len(data)
            fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
            body = printable(text).rstrip("\n")
            parts.append(f"### {name} ({shown})\n\n{fence}\n{body}\n{fence}\n")
    return "\n".join(parts)


def _decode(data: bytes) -> str | None:
    """Return the text; None for data that is no UTF-8 or holds a NUL, as no source does."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text
